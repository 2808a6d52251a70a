"""The library behind the command line: `open_run(path)` and what may be asked of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from xaicli.answer import Answer
from xaicli.layout import RunLayout, find_run
from xaicli.results import Result

if TYPE_CHECKING:
    import polars as pl

    from xaicli.queries.selection import Pair, Selection, Words
    from xaicli.reader import Reader
    from xaicli.report.facts import RunFacts
    from xaicli.report.model import Report


class Select(TypedDict, total=False):
    """Which rows a question is about: the shared options of the command line, under their names.

    `xaicli.queries.selection.resolve` says what each takes.
    """

    metric: Words
    mode: Words
    ds_id: Words
    epoch: Words
    epoch_frequency: int
    label_key: str
    label_map: Words | Mapping[str, Any]
    duplicates: str
    strict: bool
    engine: str
    spark_remote: str | None


def open_run(path: str | os.PathLike[str]) -> RunReader:
    """Open a run directory to ask about it, during or after training.

    Args:
        path: The run directory.

    Raises:
        XaiError: There is no run, or one of a newer format version.
    """
    return RunReader(find_run(os.fspath(path)))


class RunReader:
    """A run to ask about. Every method takes the options of the command of its name and returns a result.

    A result has `.data` (polars), `.figure()`, `.html()`, `.save(dir)`, and shows itself in a notebook. The folder is
    listed anew for every question, so a run still being recorded may be asked again.

    Args:
        layout: The run.
    """

    def __init__(self, layout: RunLayout) -> None:
        self.layout = layout
        layout.read_manifest()

    def __repr__(self) -> str:
        return f"open_run({str(self.layout.root)!r})"

    @cached_property
    def facts(self) -> RunFacts:
        """What reports say about the run."""
        from xaicli.report.facts import RunFacts

        return RunFacts.of(self.layout)

    def reader(self, *, strict: bool = False) -> Reader:
        """The run's files, listed now."""
        from xaicli.reader import open_reader

        return open_reader(self.layout, strict=strict)

    def select(self, **select: Unpack[Select]) -> tuple[Reader, Selection]:
        """A reader, and what the words mean in it."""
        from xaicli.queries.selection import resolve

        words: dict[str, Any] = dict(select)
        reader = self.reader(strict=bool(words.pop("strict", False)))
        return reader, resolve(reader, **words)

    def info(self, *, strict: bool = False) -> Result:
        """What the run holds: one row per (mode, ds_id) with epochs, rows, metrics, gaps."""
        from xaicli.queries.info import info

        return self._plain(info(self.reader(strict=strict)), "What the run holds")

    def scan(self, **select: Unpack[Select]) -> pl.LazyFrame:
        """The selected rows, lazily: all columns, fenced, files verified; duplicates and non-finite values untouched.

        Without `mode`, all modes; with `metric`, only these metrics beside the other columns.
        """
        from xaicli.queries.rows import rows

        select.setdefault("mode", "all")
        wanted = select.get("metric")
        reader, selection = self.select(**select)
        return rows(reader, selection, all_metrics=wanted is None)

    def samples(
        self,
        *,
        max: int = 5,
        min: int = 5,
        ids: Sequence[Any] | None = None,
        stat: str = "last",
        complete_only: bool = False,
        **select: Unpack[Select],
    ) -> Result:
        """The samples with the highest and lowest scores, and listed ones, with their histories."""
        from xaicli.queries.samples import LAST, samples

        reader, selection = self.select(**select)
        scores = None if stat == LAST else _scores(reader, selection, stat)
        answer = samples(
            reader, selection, max=max, min=min, ids=ids, stat=stat, complete_only=complete_only, scores=scores
        )

        def build() -> Report:
            from xaicli.queries.population import population
            from xaicli.report.samples import samples_report

            return samples_report(answer, self.facts, population=population(reader, selection))

        return Result(answer, build)

    def labels(self, *, bounds: Sequence[str] | str | None = ("std",), **select: Unpack[Select]) -> Result:
        """Each label's mean and spread over the epochs."""
        from xaicli.queries.labels import labels

        reader, selection = self.select(**select)
        answer = labels(reader, selection, bounds=bounds)

        def build() -> Report:
            from xaicli.report.labels import labels_report

            return labels_report(answer, self.facts)

        return Result(answer, build)

    def _plain(self, answer: Answer, title: str) -> Result:
        """A result shown as one table."""

        def build() -> Report:
            from xaicli.report.plain import plain_report

            return plain_report(answer, self.facts, title=title)

        return Result(answer, build)


def _scores(reader: Reader, selection: Selection, stat: str) -> dict[tuple[Pair, str], pl.DataFrame]:
    """The scores of each (mode, ds_id) and metric by a statistic of `xai dynamics`.

    Raises:
        XaiError: There is no such statistic.
    """
    import polars as pl

    from xaicli.dynamics.statistics import dynamics
    from xaicli.errors import unknown
    from xaicli.queries.scores import SCORE, STALE
    from xaicli.vocabulary import DS_ID, MODE, SAMPLE_ID

    data = dynamics(reader, selection).data
    numeric = [name for name, dtype in data.schema.items() if dtype.is_numeric() or dtype == pl.Boolean]
    scores = {}
    for metric in selection.metrics:
        column = f"{metric}_{stat}" if f"{metric}_{stat}" in numeric else stat
        if column not in numeric:
            short = [name.removeprefix(f"{metric}_") for name in numeric]
            raise unknown("statistic", stat, [s for s in short if s not in (SAMPLE_ID, "label", "stale")])
        score = pl.col(column).cast(pl.Float64).alias(SCORE)
        for mode, ds_id in selection.pairs:
            of_pair = data.filter(pl.col(MODE) == mode, pl.col(DS_ID) == ds_id)
            scores[(mode, ds_id), metric] = of_pair.select(SAMPLE_ID, score, STALE).drop_nulls(SCORE)
    return scores
