"""``python -m gridloom`` is ``gridloom``."""

from gridloom.cli import main

if __name__ == "__main__":
    main()
