"""What the `xai` command and `python -m xaicli` run, also under `torchrun`."""

import _signal  # type: ignore[import-not-found]
import os
import sys

_INTERRUPTED = 130
_IS_ALONE = __name__ == "__main__" or os.path.basename(sys.argv[0]).partition(".")[0] == "xai"  # noqa: PTH119


def _end_quietly(number: int, frame: object) -> None:
    """What Ctrl-C does while nothing is there yet that could leave anything: no traceback through half an import."""
    del number, frame
    os._exit(_INTERRUPTED)


if _IS_ALONE and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    # First of all, and without the module `signal`: what that and the others import takes a while on a slow disk.
    _signal.signal(_signal.SIGINT, _end_quietly)

import atexit  # noqa: E402
import contextlib  # noqa: E402
import gc  # noqa: E402
import signal  # noqa: E402
import threading  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import NoReturn  # noqa: E402

_OBJECTS = 200_000
"""So many more objects before the garbage collector looks: at its default of 700 it takes a tenth of a short command,
nearly all of it while modules are loaded, and finds nothing."""


def entry() -> NoReturn:
    """Run the command line and end the process; an interruption while it is still being loaded is quiet, too."""
    gc.set_threshold(_OBJECTS, 50, 50)
    try:
        from xaicli.cli import main

        if signal.getsignal(signal.SIGINT) is _end_quietly:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        status = main(alone=True)
        # The answer is whole; what ends a process now would only take its status away.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        status = _INTERRUPTED
    _leave(status)


def _leave(status: int) -> NoReturn:
    """End the process without taking apart what it has loaded: with torch that is a fifth of a short command.

    What was registered for the exit still runs. Where a thread is at work, Python's own way waits for it.
    """
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        sys.exit(status)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # None where there is no output
            stream.flush()
    os._exit(status)


def _is_all_of_the_process() -> bool:
    """Whether `python -m xaicli` started this process, not a program that runs the module and goes on."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_name == "_run_module_as_main"


if __name__ == "__main__":
    # Python puts the current folder first: whatever lies there would be imported in place of the real modules.
    # Where another program runs this module again, it is gone already, and the rest of the path is needed.
    if not sys.flags.safe_path and sys.path[0] in ("", str(Path.cwd())):
        del sys.path[0]
    if _is_all_of_the_process():
        entry()
    from xaicli.cli import main

    if signal.getsignal(signal.SIGINT) is _end_quietly:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
