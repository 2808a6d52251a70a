"""What every query returns: the values, what was selected, what was counted, what to warn about.

An answer knows nothing of how it is shown; `xaicli.results` pairs it with its report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Counts:
    """What went into an answer and what had to be left out; None where the count does not apply to the question."""

    rows: int | None = None
    non_finite: int | None = None
    duplicates: int | None = None
    dropped: int | None = None
    """Rows the recorder could not store."""
    stale: int | None = None
    """Samples absent from the last epoch."""
    taken_back: int | None = None
    """Rows that do not count because a later attempt logged that part of the training again."""
    ignored: int | None = None
    """Labels that were the run's `ignore_label`, and are null."""
    damaged: tuple[str, ...] | None = None
    """Files left out because their bytes are not those that were written, relative to the run directory."""

    def as_dict(self) -> dict[str, Any]:
        """The counts that apply, as plain JSON types."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v is not None}


@dataclass(frozen=True)
class Answer:
    """The answer to one question about one run.

    Attributes:
        command: The command that asks this question ("samples").
        run: The run directory as the user named it.
        selection: What was asked, resolved: modes, ds_ids, epochs, metrics, and the question's own options.
        data: One row per row of the JSON, columns named as there.
        extra: Further keys of the JSON object beside the fixed ones ("truth"), as plain JSON values.
    """

    command: str
    run: str
    selection: Mapping[str, Any]
    data: pl.DataFrame
    counts: Counts = field(default_factory=Counts)
    warnings: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
