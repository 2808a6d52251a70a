"""The library behind the command line: whatever a command asks of recorded runs is a function or method here."""

from xaicli.api.run import RunReader, open_run
from xaicli.api.runs import compare, list_runs, scalars

__all__ = ["RunReader", "compare", "list_runs", "open_run", "scalars"]
