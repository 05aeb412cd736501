"""`python -m app.commands ...`: the commands of run.py in an environment that somebody else set up (a container, say).

It only hands over to `dispatch`.
"""

from __future__ import annotations

import sys

from app.commands import platform_check

if __name__ == "__main__":
    platform_check.refuse_windows()
    from app.commands import dispatch

    sys.exit(dispatch.main(sys.argv[1:]))
