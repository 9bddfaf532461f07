def write_report(folders, target):
    target.write_text("placeholder")
