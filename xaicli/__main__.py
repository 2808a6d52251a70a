"""What the `xai` command and `python -m xaicli` run, also under `torchrun`."""

import sys

_INTERRUPTED = 130


def entry() -> None:
    """Run the command line; an interruption while it is still being loaded is quiet, too."""
    try:
        from xaicli.cli import main

        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    # Python puts the current folder first: whatever lies there would be imported in place of the real modules.
    if not sys.flags.safe_path:
        del sys.path[0]
    entry()
