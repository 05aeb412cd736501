#!/usr/bin/env python3
"""The one entrance: `python3 run.py COMMAND`, whose commands `--help` lists; without a word it serves.

It only checks the Python version, lets `app.commands.bootstrap` set up the virtual environment, and hands over. It is
written so that old Pythons can read it as far as the sentence that sends them away.
"""

import sys

OLDEST_PYTHON = (3, 11)

if sys.version_info < OLDEST_PYTHON:
    sys.exit(
        "Neural Image Restore needs Python 3.11 or newer, and this is Python %d.%d. "  # noqa: UP031
        "Install a newer one and start again with it, for example: python3.12 run.py" % sys.version_info[:2]
    )


def main() -> None:
    """Set up if needed, then run the command."""
    from app.commands import platform_check

    platform_check.refuse_windows()
    from app.commands import bootstrap

    bootstrap.enter(sys.argv[1:])
    from app.commands import dispatch

    sys.exit(dispatch.main(sys.argv[1:]))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        from app.exit_codes import EXIT_INTERRUPTED

        print("Interrupted.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
