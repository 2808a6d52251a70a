"""The library behind the command line: `open_run(path)` and what may be asked of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypedDict, Unpack

from xaicli.answer import Answer
from xaicli.layout import RunLayout
from xaicli.location import find_run
from xaicli.results import Result
from xaicli.vocabulary import LABEL

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


def compare(
    *runs: str | os.PathLike[str],
    max: int = 5,
    min: int = 5,
    ids: Sequence[Any] | None = None,
    **select: Unpack[Select],
) -> Result:
    """Several runs side by side: the same metric, labels and samples; which samples flipped.

    Args:
        runs: Two run directories or more.
        max: How many samples whose score grew most from the first run to the last.
        min: How many samples whose score fell most.
        ids: Samples to list.
    """
    from xaicli.queries.compare import compare

    words: dict[str, Any] = dict(select)
    strict = bool(words.pop("strict", False))
    readers = [open_run(path).reader(strict=strict) for path in runs]
    answer = compare(readers, max=max, min=min, ids=ids, **words)

    def build() -> Report:
        from xaicli.report.compare import compare_report

        return compare_report(answer)

    return Result(answer, build)


def scalars(
    *runs: str | os.PathLike[str],
    key: Words = None,
    mode: Words = None,
    ds_id: Words = None,
    smoothing: float = 0.0,
    group: Words | Mapping[str, str | Sequence[str]] = None,
    strict: bool = False,
) -> Result:
    """Per-step scalars, summaries and custom graphs of one or several runs over time.

    Args:
        runs: Run directories, FastEstimator logs (`.txt`), or folders of either.
        key: Only these scalars; patterns with `*` and `?` are possible.
        mode: Only these modes.
        ds_id: Only these dataset ids.
        smoothing: Weight of the past in an exponential mean, from 0 to below 1.
        group: `NAME=PATTERN,...` items or {name: patterns}: runs shown as one, mean and spread.
        strict: Fail on a damaged file instead of leaving it out.
    """
    from xaicli.queries.scalars import scalars

    answer = scalars(
        [Path(run) for run in runs],
        key=key,
        mode=mode,
        ds_id=ds_id,
        smoothing=smoothing,
        group=group,
        strict=strict,
    )
    layout = RunLayout(Path(runs[0]))
    alone = len(runs) == 1 and layout.is_run()

    def build() -> Report:
        from xaicli.report.facts import RunFacts
        from xaicli.report.scalars import scalars_report

        return scalars_report(answer, RunFacts.of(layout) if alone else None)

    return Result(answer, build)


def list_runs(folder: str | os.PathLike[str] = ".") -> Result:
    """The runs at or below a folder."""
    from xaicli.queries.runs import runs

    answer = runs(Path(folder))

    def build() -> Report:
        from xaicli.report.runs import runs_report

        return runs_report(answer)

    return Result(answer, build)


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

        answer = info(self.reader(strict=strict))

        def build() -> Report:
            from xaicli.report.info import info_report

            return info_report(answer, self.facts)

        return Result(answer, build)

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
        table: str | None = None,
        reduce: str = "mean",
        **select: Unpack[Select],
    ) -> Result:
        """The samples with the highest and lowest scores, and listed ones, with their histories.

        Args:
            max: How many of the highest.
            min: How many of the lowest.
            ids: Samples to list.
            stat: The score: `last`, `first`, `mean`, `min`, `max`, `std`, `slope`, or a statistic of `dynamics`.
            complete_only: Leave out samples absent from the last epoch.
            table: A metrics table to ask instead of the samples.
            reduce: Of several rows of a sample in a table: `max`, `min`, `mean`, `count` or `first`.
        """
        from xaicli.queries.samples import LAST, samples

        if table is not None:
            return self._table_samples(
                table, select, max=max, min=min, ids=ids, complete_only=complete_only, reduce=reduce
            )
        reader, selection = self.select(**select)
        scores = None if stat == LAST else _scores(reader, selection, stat)
        answer = samples(
            reader, selection, max=max, min=min, ids=ids, stat=stat, complete_only=complete_only, scores=scores
        )

        def build() -> Report:
            from xaicli.queries.population import population
            from xaicli.report.gathering import sample_facts
            from xaicli.report.samples import samples_report

            known, _ = sample_facts(reader, [answer])
            return samples_report(answer, self.facts, population=population(reader, selection), samples=known)

        def brief() -> Report:
            from xaicli.report.samples import samples_report

            return samples_report(answer, self.facts)

        return Result(answer, build, brief=brief)

    def _table_samples(self, table: str, select: Select, **asked: Any) -> Result:
        """`samples` of a metrics table."""
        from xaicli.queries.table_samples import table_samples

        words: dict[str, Any] = dict(select)
        chosen = {name: words[name] for name in ("metric", "mode", "label_key") if words.get(name)}
        answer = table_samples(self.reader(strict=select.get("strict", False)), table, **chosen, **asked)

        def build() -> Report:
            from xaicli.report.samples import samples_report
            from xaicli.tables.stored import class_names

            names = class_names(self.layout, table, str(words.get("label_key") or LABEL))
            return samples_report(answer, replace(self.facts, label_names=names) if names else self.facts)

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

    def scalars(
        self,
        *,
        key: Words = None,
        mode: Words = None,
        ds_id: Words = None,
        smoothing: float = 0.0,
        strict: bool = False,
    ) -> Result:
        """The run's scalars, summary and custom graphs over time."""
        return scalars(self.layout.root, key=key, mode=mode, ds_id=ds_id, smoothing=smoothing, strict=strict)

    def embeddings(
        self,
        *,
        table: str = "metrics",
        column: Sequence[str] | str | None = None,
        colour: str | None = None,
        epoch: int | None = None,
        split: str | None = None,
        strict: bool = False,
    ) -> Result:
        """Collected embeddings in a plane, coloured by a label or a metric.

        Args:
            table: The table they were collected into.
            column: The columns of vectors; those reduced at collection, else all, when None.
            colour: The column that colours the points; label, predicted or loss, the first there is, when None.
            epoch: That epoch; the last collected when None.
            split: That split; all when None.
            strict: Fail on a damaged file instead of leaving it out.
        """
        from xaicli.queries.embeddings import embeddings

        reader = self.reader(strict=strict)
        answer = embeddings(reader, table=table, column=column, colour=colour, epoch=epoch, split=split)

        def build() -> Report:
            from xaicli.report.embeddings import embeddings_report

            return embeddings_report(answer, self.facts)

        return Result(answer, build)

    def query(self, sql: str, *, engine: str = "polars", strict: bool = False) -> Result:
        """One SQL query over `samples`, `scalars` and the run's tables; nothing can be changed by it."""
        from xaicli.queries.sql import query

        return self._plain(query(self.reader(strict=strict), sql, engine=engine), "Query")

    def export(
        self,
        target: str | os.PathLike[str] | IO[bytes],
        *,
        format: str = "",
        shape: str = "long",
        **select: Unpack[Select],
    ) -> Answer:
        """Write the selected rows to a file; every metric unless `metric` names some.

        Args:
            target: The file, or an open binary stream.
            format: `csv`, `parquet`, `jsonl` or `json`; the file's suffix without it.
            shape: `long`, a row per sample and epoch, or `wide`, a row per sample.
        """
        from xaicli.maintenance.export import export_answer

        every = not select.get("metric")
        reader, selection = self.select(**select)
        return export_answer(reader, selection, target, format=format, shape=shape, every_metric=every)

    def dynamics(
        self,
        *,
        early_epochs: int = 10,
        burn_in: int = 2,
        truth: str | os.PathLike[str] | None = None,
        **select: Unpack[Select],
    ) -> Result:
        """Every training-dynamics statistic of every sample."""
        from xaicli.dynamics.statistics import dynamics

        reader, selection = self.select(**select)
        answer = dynamics(reader, selection, early_epochs=early_epochs, burn_in=burn_in, truth=truth)

        def build() -> Report:
            from xaicli.report.datamap import dynamics_report

            return dynamics_report(answer, self.facts)

        return Result(answer, build)

    def findings(self, *, top: int = 10, early_epochs: int = 10, burn_in: int = 2, **select: Unpack[Select]) -> Result:
        """What to look at first, each with its reason."""
        from xaicli.dynamics.findings import findings

        reader, selection = self.select(**select)
        answer = findings(reader, selection, top=top, early_epochs=early_epochs, burn_in=burn_in)

        def build() -> Report:
            from xaicli.report.findings import findings_report
            from xaicli.report.gathering import sample_facts

            pictures, _ = sample_facts(reader, [answer])
            return findings_report(answer, self.facts, samples=pictures)

        def brief() -> Report:
            from xaicli.report.findings import findings_report

            return findings_report(answer, self.facts)

        return Result(answer, build, brief=brief)

    def report(
        self,
        *,
        max: int = 5,
        min: int = 5,
        ids: Sequence[Any] | None = None,
        stat: str = "last",
        complete_only: bool = False,
        bounds: Sequence[str] | str | None = ("std",),
        folder: str | os.PathLike[str] | None = None,
        **select: Unpack[Select],
    ) -> Result:
        """Everything about the run on one page: histories, labels, data map, suspects, scalars, how it was made.

        Args:
            folder: Where the page will lie, to link it with a saliency page there; the run's reports by default.
        """
        from xaicli.queries.samples import LAST
        from xaicli.report.gathering import gather, saliency_page, sample_facts

        reader, selection = self.select(**select)
        gathered = gather(
            reader,
            selection,
            max=max,
            min=min,
            ids=ids,
            stat=stat,
            complete_only=complete_only,
            bounds=bounds,
            scores=None if stat == LAST else lambda: _scores(reader, selection, stat),
        )
        answer = gathered.answer

        def build() -> Report:
            from xaicli.queries.population import population
            from xaicli.report.track import track_report

            page = saliency_page(self.layout, Path(folder) if folder else self.layout.reports)
            samples, warnings = sample_facts(reader, gathered.of_samples, page)
            return track_report(
                answer,
                gathered,
                self.facts,
                population=population(reader, selection),
                samples=samples,
                warnings=warnings,
            )

        return Result(answer, build)

    def _plain(self, answer: Answer, title: str) -> Result:
        """A result shown as one table."""
        return _table(answer, self.facts, title)


def _table(answer: Answer, facts: RunFacts | None, title: str) -> Result:
    """A result that is one table."""

    def build() -> Report:
        from xaicli.report.plain import plain_report

        return plain_report(answer, facts, title=title)

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
