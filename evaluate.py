#!/usr/bin/env python3
"""The quality report: `python3 evaluate.py` restores the photos of test_inputs/ and measures the results.

Like `run.py` it only checks the Python version, lets `app.commands.bootstrap` set up the virtual environment, and hands
over to `app.commands.evaluate`. It is written so that old Pythons can read it as far as the sentence that sends them
away.
"""

import sys

OLDEST_PYTHON = (3, 11)

if sys.version_info < OLDEST_PYTHON:
    sys.exit(
        "Neural Image Restore needs Python 3.11 or newer, and this is Python %d.%d. "  # noqa: UP031
        "Install a newer one and start again with it, for example: python3.12 evaluate.py" % sys.version_info[:2]
    )


def main() -> None:
    """Set up if needed, then evaluate."""
    from app.commands import platform_check

    platform_check.refuse_windows()
    from app.commands import bootstrap

    bootstrap.enter(sys.argv[1:], script="evaluate.py")
    from app.commands import evaluate

    sys.exit(evaluate.main(sys.argv[1:]))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        from app.exit_codes import EXIT_INTERRUPTED

        print("Interrupted.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
