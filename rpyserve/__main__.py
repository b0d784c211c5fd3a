"""``python -m rpyserve`` is the same as the command ``rpyserve``.

Python puts the current directory first for ``-m``. Often that is the site, and its ``calendar.py``
is not for us.
"""

import os
import sys


def _is_current(directory: str) -> bool:
    try:
        return os.path.samefile(directory or os.curdir, os.curdir)
    except OSError:  # the current one has been removed
        return True


if __name__ == "__main__":
    if not sys.flags.safe_path and _is_current(sys.path[0]):
        del sys.path[0]

    from rpyserve.cli import main

    main(prog_name="rpyserve")
