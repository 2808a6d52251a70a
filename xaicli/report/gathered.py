"""The answers behind a track report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from xaicli.answer import Answer

if TYPE_CHECKING:
    from xaicli.dynamics.computed import Statistics

_EVIDENCE = ("sample_id", "score", "reason", "label", "suggested_label")


@dataclass(frozen=True)
class Gathered:
    """The answers behind a track report; None where the run does not allow one.

    Attributes:
        samples: Histories of the highest, lowest and listed samples.
        computed: The pass over the epochs behind all statistics of dynamics.
        truth: How well each ranking finds the truly mislabelled; None where no truth was given.
        absent: {part: why it is missing}.
        faults: Of these, what should not have happened.
        drops: Why how many rows were not recorded.
    """

    samples: Answer
    labels: Answer | None = None
    computed: Statistics | None = None
    dynamics: Answer | None = None
    suspects: Answer | None = None
    label_issues: Answer | None = None
    jumps: Answer | None = None
    scalars: pl.DataFrame | None = None
    truth: Mapping[str, Any] | None = None
    absent: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()

    @property
    def of_samples(self) -> list[Answer]:
        """The answers whose rows are samples that the page shows."""
        found = (self.samples, self.suspects, self.label_issues, self.jumps)
        return [answer for answer in found if answer is not None]

    @property
    def answer(self) -> Answer:
        """The machine's view: the samples, with suspects, label issues, rank jumps and labels beside them."""
        warnings = list(self.samples.warnings)
        for part in (self.labels, self.dynamics, self.suspects, self.label_issues, self.jumps):
            warnings += part.warnings if part else ()
        warnings += (*self.faults, *self.drops)
        extra: dict[str, Any] = {
            "suspects": _evidence(self.suspects),
            "label_issues": _evidence(self.label_issues),
            "rank_jumps": self.jumps.data if self.jumps else [],
            "labels": self.labels.data if self.labels else [],
            "custom_graphs": _graphs(self.scalars),
            **({"truth": self.truth} if self.truth is not None else {}),
        }
        return replace(
            self.samples,
            command="track-report",
            warnings=tuple(dict.fromkeys(warnings)),
            extra={**self.samples.extra, **extra},
        )


def _graphs(scalars: pl.DataFrame | None) -> pl.DataFrame | list[Any]:
    """The points of the custom graphs as the JSON lists them."""
    if scalars is None:
        return []
    columns = ("graph", "line", "key", "mode", "ds_id", "step", "value", "low", "high")
    return scalars.filter(pl.col("source") == "graph").select(columns)


def _evidence(answer: Answer | None) -> pl.DataFrame | list[Any]:
    """Suspects or label issues as the JSON lists them."""
    if answer is None:
        return []
    wanted = (*_EVIDENCE, "mode", "ds_id")
    return answer.data.select(pl.col(key) if key in answer.data.columns else pl.lit(None).alias(key) for key in wanted)
