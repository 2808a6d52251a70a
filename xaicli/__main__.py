"""What the `xai` command and `python -m xaicli` run, also under `torchrun`."""

import gc
import signal
import sys
from pathlib import Path

_INTERRUPTED = 130
_OBJECTS = 200_000
"""So many more objects before the garbage collector looks: at its default of 700 it takes a tenth of a short command,
nearly all of it while modules are loaded, and finds nothing."""


def entry() -> None:
    """Run the command line; an interruption while it is still being loaded is quiet, too."""
    gc.set_threshold(_OBJECTS, 50, 50)
    try:
        from xaicli.cli import main

        status = main()
        # The answer is whole; what ends a process now would only take its status away.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.exit(status)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    # Python puts the current folder first: whatever lies there would be imported in place of the real modules.
    # Where another program runs this module again, it is gone already, and the rest of the path is needed.
    if not sys.flags.safe_path and sys.path[0] in ("", str(Path.cwd())):
        del sys.path[0]
    entry()
