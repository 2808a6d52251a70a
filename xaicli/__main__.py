"""`python -m xaicli`, also under `torchrun`."""

import sys

# Python puts the current folder first: whatever lies there would be imported in place of the real modules.
if not sys.flags.safe_path:
    del sys.path[0]

from xaicli.cli import entry

entry()
