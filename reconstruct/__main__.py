"""``python -m reconstruct``: the command line."""

from reconstruct.commands.main import main

if __name__ == "__main__":
    main()
