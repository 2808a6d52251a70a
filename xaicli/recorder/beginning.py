"""Where an attempt begins: its first step, from which on the earlier attempts' rows do not count."""

from __future__ import annotations

import contextlib
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq

from xaicli.layout import RunLayout
from xaicli.parquet import write_bytes
from xaicli.recorder.start import locked


class Beginning:
    """The first step of an attempt, kept where readers find it; without it they take the smallest step they see.

    Attributes:
        noted: A row of a smaller step than this must be told to `note`.
    """

    def __init__(self, layout: RunLayout, attempt: int) -> None:
        self._layout = layout
        self._attempt = attempt
        self._after_all: int | None = None
        self.noted = math.inf if attempt else -math.inf

    def note(self, step: int, *, certain: bool = False) -> None:
        """Keep a step as the first.

        Args:
            step: The step.
            certain: It comes from restored state, and replaces what was guessed from rows.
        """
        self.noted = -math.inf if certain else step
        if self._attempt:
            with contextlib.suppress(OSError, ValueError):
                note_resume_step(self._layout, self._attempt, step, certain=certain)

    def step_without_any(self) -> int:
        """The step of rows that come with none before the training's first: that after earlier attempts' last."""
        if self._after_all is None:
            self._after_all = last_step(self._layout, self._attempt) + 1 if self._attempt else 0
        return self._after_all


def note_resume_step(layout: RunLayout, attempt: int, step: int, *, certain: bool = False) -> None:
    """Keep the first step an attempt logs or will log: the earlier attempts' rows end before it.

    Args:
        layout: The run.
        attempt: The attempt.
        step: The step.
        certain: The step comes from restored state and replaces what was guessed from rows.
    """
    path = layout.attempt_file(attempt)
    with locked(layout):
        facts = json.loads(path.read_text())
        known = facts.get("resumed_from_step")
        if certain or known is None or step < known:
            facts["resumed_from_step"] = step
            write_bytes(json.dumps(facts).encode(), path)


def last_step(layout: RunLayout, attempt: int) -> int:
    """The largest step in the files of earlier attempts, by their footers; -1 without any."""
    last = -1
    for file in layout.data_files():
        if file.part.attempt < attempt:
            # A damaged file, or one that a compaction has just replaced, says nothing.
            with contextlib.suppress(OSError, pa.ArrowException, ValueError, LookupError, TypeError):
                footer = pq.read_metadata(file.path).metadata
                last = max(last, int(json.loads(footer[b"xai"])["steps"][1]))
    return last
