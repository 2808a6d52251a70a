"""How far a pass is, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]
"""(samples done, samples in all)."""


@contextmanager
def shown(progress: Progress | bool) -> Iterator[Progress | None]:
    """What tells the progress: the caller's own, a bar on standard error for True, nothing for False or in a pipe."""
    if callable(progress):
        yield progress
    elif progress and sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("samples"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("samples", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        yield None
