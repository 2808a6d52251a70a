"""The active run of a script: `xaicli.init(...)` opens it, `xaicli.log(...)` writes to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from xaicli.recorder.run import Run

_active: Run | None = None


def init(run_dir: str | os.PathLike[str] | None = None, **options: Any) -> Run:
    """Open a run and make it the active one; the one before is closed.

    Args:
        run_dir: The run directory; `runs/<date>-<time>` when None.
        **options: Those of `Run`.
    """
    global _active
    if _active is not None:
        _active.close()
    _active = Run(run_dir or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}", **options)
    return _active


def log(values: Mapping[str, Any]) -> None:
    """Record per-step values on the active run; see `Run.log`.

    Raises:
        ValueError: There is no active run.
    """
    active_run().log(values)


def active_run() -> Run:
    """The run `init` opened.

    Raises:
        ValueError: There is none.
    """
    if _active is None or _active.is_closed:
        raise ValueError("there is no active run; open one with xaicli.init(run_dir)")
    return _active
