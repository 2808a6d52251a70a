"""`python -m xaicli`, also under `torchrun`."""

from xaicli.cli import entry

entry()
