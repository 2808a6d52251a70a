"""The library behind the command line: whatever a command asks of recorded runs is a function or method here."""

from xaicli.api.run import RunReader, open_run
from xaicli.api.runs import compare, list_runs, scalars
from xaicli.api.upkeep import compact, doctor

__all__ = ["RunReader", "compact", "compare", "doctor", "list_runs", "open_run", "scalars"]
