"""The command line: thin. One file per group of verbs, loaded when its verb is called; ``gridloom --help`` imports nothing heavy.

Exit codes: 0 it worked; 1 it did not, with one line on standard error that says why; 2 wrong configuration, wrong usage, or a damaged
store (or backup).
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of ``gridloom`` and of ``python -m gridloom``. Always ends with SystemExit."""
    from gridloom.cli.root import app
    from gridloom.core.errors import ConfigurationError, GridloomError, StorageCorrupt

    try:
        app(prog_name="gridloom")
    except ConfigurationError as error:
        print(error.message, file=sys.stderr)
        raise SystemExit(2) from None
    except StorageCorrupt as error:
        print(f"gridloom: {error.message}", file=sys.stderr)
        raise SystemExit(2) from None
    except (GridloomError, OSError) as error:
        print(f"gridloom: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
