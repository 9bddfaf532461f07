"""The command line from a checkout: ``python cli.py IMAGE ...``. The commands are in ``reconstruct/commands``."""

from reconstruct.commands.main import main

if __name__ == "__main__":
    main()
