"""``python -m trio_chardev``: the command line, as ``trio-chardev``."""

from trio_chardev.cli import main

if __name__ == "__main__":
    main()
