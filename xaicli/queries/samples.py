"""The samples with the highest and lowest scores, and listed ones as the user writes them, each with its history."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import polars as pl

from xaicli.answer import Answer, Counts
from xaicli.errors import DamagedFileError, XaiError, whole_number
from xaicli.queries.aligned import Aligned, NotAlignedError
from xaicli.queries.listed import Ids, listed, refuse_unknown
from xaicli.queries.rows import recorded_elsewhere, within_labels
from xaicli.queries.scores import SCORE, STALE, Epochwise, extremes
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Reader, Tally
from xaicli.vocabulary import DS_ID, LABEL, MODE, PASS, SAMPLE_ID, Engine, Group

T = TypeVar("T")

LAST = "last"
POINT = pl.Struct({"epoch": pl.Int32(), "pass": pl.Int16(), "step": pl.Int64(), "value": pl.Float64()})
"""One point of a history; the value is null where it was not finite."""


def samples(
    reader: Reader,
    selection: Selection,
    *,
    max: int = 5,
    min: int = 5,
    ids: Ids = None,
    stat: str = LAST,
    complete_only: bool = False,
    scores: Mapping[tuple[Pair, str], pl.DataFrame] | None = None,
) -> Answer:
    """The max-n, min-n and listed samples of each (mode, ds_id) and metric.

    A sample's score is its last finite value; of equal scores the smaller sample_id comes first. A sample without a
    finite value in the last epoch competes with the last it has and is marked stale.

    A label map limits rows, as it does for every question: where a sample's label changes, its score and history are of
    the places at which it has one of these labels, and a warning counts the rows of shown samples that are left out.

    Args:
        reader: The run.
        selection: Which rows.
        max: How many of the highest scores.
        min: How many of the lowest.
        ids: Samples to list whatever their score.
        stat: The name of the score; any but `last` needs `scores`.
        complete_only: Leave stale samples out of max and min.
        scores: The scores of another statistic for each ((mode, ds_id), metric): sample_id, score, stale.

    Returns:
        Rows mode, ds_id, (metric, with more than one), sample_id, label, group, rank (from 1), score, stale,
        history [{epoch, pass, step, value}].

    Raises:
        UsageError: `max` or `min` is negative.
        XaiError: A listed id that the selected rows do not hold.
    """
    given = listed(reader, ids)
    wanted = given.ids
    asked = Asked(max, min, wanted, complete_only, scores, computed=scores is not None, in_files=given.asked)
    if left_out := given.not_in(selection.pairs):
        selection = replace(selection, warnings=(*selection.warnings, *left_out))
    tally = Tally()
    found = [_of_pair(reader, selection, pair, replace(asked, ids=given.of(pair)), tally) for pair in selection.pairs]
    given.refuse_absent({pair: part.known | part.others for pair, part in zip(selection.pairs, found, strict=True)})
    known = {item for part in found for item in part.known}
    meant = given.within(selection.pairs)
    elsewhere = [item for item in meant if item not in known and any(item in part.others for part in found)]
    if elsewhere:
        raise XaiError(
            f"sample_id {elsewhere[0]!r} has none of the labels of --label-map", hint="leave --label-map out to see it"
        )
    refuse_unknown(reader, selection, meant, known)
    data = pl.concat([part.rows for part in found])
    n_stale = sum(part.n_stale for part in found)
    if asked.max or asked.min:
        known_metrics = set(data.filter(pl.col(SCORE).is_not_null())["metric"])
        lacking = [name for name in selection.metrics if name not in known_metrics]
        elsewhere_alone = {name: list(recorded_elsewhere(reader, selection, [name])) for name in lacking}
        here = [name for name in selection.metrics if not elsewhere_alone.get(name)]
        lacks = valueless(
            zip(selection.pairs, found, strict=True), here, asked, stat, is_limited=reader.where is not None
        )
        said = [*lacks, *(one for of_metric in elsewhere_alone.values() for one in of_metric)]
        selection = replace(selection, warnings=(*selection.warnings, *said))
    counts = reader.counts(tally, stale=n_stale)
    if others := sum(part.n_others for part in found):
        rows = "row of a sample shown has" if others == 1 else "rows of samples shown have"
        other = f"{others:,} {rows} another {selection.label_key} than --label-map names, at other places: left out"
        selection = replace(selection, warnings=(*selection.warnings, other))
    return answer(reader, selection, asked, data, counts, {"stat": stat})


def answer(
    reader: Reader, selection: Selection, asked: Asked, data: pl.DataFrame, counts: Counts, more: Mapping[str, Any]
) -> Answer:
    """The answer to a question about samples."""
    groups = {"max": asked.max, "min": asked.min, "ids": asked.ids}
    options = {**groups, **asked.in_files, "complete_only": asked.complete_only}
    return Answer(
        command="samples",
        run=reader.layout.described,
        selection={**selection.as_dict(), **options, **more},
        data=data if len(selection.metrics) > 1 else data.drop("metric"),
        counts=counts,
        warnings=selection.warnings,
    )


@dataclass(frozen=True)
class Asked:
    """Which samples are shown."""

    max: int
    min: int
    ids: list[Any]
    complete_only: bool = False
    scores: Mapping[tuple[Pair, str], pl.DataFrame] | None = None
    computed: bool = False
    """Whether scores are computed from several values, not values as they were recorded."""
    in_files: Mapping[str, list[str]] = field(default_factory=dict)
    """`Listed.asked`."""

    def __post_init__(self) -> None:
        for name, n in (("max", self.max), ("min", self.min)):
            object.__setattr__(self, name, whole_number(f"--{name}", n, least=0, hint=f"--{name} 0 shows none"))


@dataclass(frozen=True)
class Found:
    """The rows of one (mode, ds_id).

    Attributes:
        rows: The shown samples.
        known: Their ids.
        n_stale: How many of all samples are stale.
        others: Listed ids that have other labels only than the question is limited to.
        n_others: How many rows of the shown samples have other labels.
        valueless: The metrics that no sample has a score by.
    """

    rows: pl.DataFrame
    known: frozenset[Any]
    n_stale: int
    others: frozenset[Any] = frozenset()
    n_others: int = 0
    valueless: tuple[str, ...] = ()


def valueless(
    found: Iterable[tuple[Pair, Found]], metrics: Sequence[str], asked: Asked, stat: str, *, is_limited: bool
) -> Iterator[str]:
    """Which of the (mode, ds_id) have no sample to show by which metric."""
    among = (" in its last epoch" if asked.complete_only else "") + (" among the rows of --where" if is_limited else "")
    found = list(found)
    for metric in metrics:
        for pair, one in found:
            if metric in one.valueless:
                what = metric if stat == LAST else f"{stat} of {metric}"
                place = " ".join(("of", *filter(None, pair))) if any(pair) else ""
                yield f"{' '.join(filter(None, ('no sample', place)))} has a finite {what}{among}: left out"


def _of_pair(reader: Reader, selection: Selection, pair: Pair, asked: Asked, tally: Tally) -> Found:
    """The shown samples of one (mode, ds_id)."""
    if selection.engine is not Engine.POLARS:
        from xaicli.queries.relations import of_engine, tallied

        def found(own: Tally) -> Found:
            with of_engine(reader, selection, pair) as source:
                return of_source(source, selection, pair, asked, own)

        return tallied(reader, tally, found)
    return _by_files(reader, selection, pair, lambda source: of_source(source, selection, pair, asked, tally))


def _by_files(reader: Reader, selection: Selection, pair: Pair, ask: Callable[[Source], T]) -> T:
    """What one (mode, ds_id) answers, by the fastest way its files allow."""
    try:
        return ask(Aligned(reader, selection, pair))
    except (NotAlignedError, DamagedFileError, FileNotFoundError):
        # Epoch by epoch, damaged files are named and vanished ones looked for again.
        return ask(Epochwise(reader, selection, pair))


def last_scores(reader: Reader, selection: Selection, metric: str) -> pl.DataFrame:
    """The last finite value of each sample in each (mode, ds_id): mode, ds_id, sample_id, score, stale."""

    def of(pair: Pair) -> pl.DataFrame:
        scores = _by_files(reader, selection, pair, lambda source: source.last_scores(metric))
        mode, ds_id = pair
        return scores.select(pl.lit(mode).alias(MODE), pl.lit(ds_id).alias(DS_ID), SAMPLE_ID, SCORE, STALE)

    return pl.concat([of(pair) for pair in selection.pairs], how="vertical_relaxed")


class Source(Protocol):
    """What computes scores and histories of one (mode, ds_id)."""

    def last_scores(self, metric: str) -> pl.DataFrame:
        """Each sample's last finite value: sample_id, score, stale."""
        ...

    def histories(self, ids: pl.Series) -> pl.DataFrame:
        """The rows of some samples by epoch: sample_id, label, epoch, pass, step, metrics (float64 or null)."""
        ...

    def count(self, tally: Tally) -> None:
        """Count what has been read."""
        ...


def of_source(source: Source, selection: Selection, pair: Pair, asked: Asked, tally: Tally) -> Found:
    """The shown samples of one (mode, ds_id)."""
    chosen: dict[str, pl.DataFrame] = {}
    valueless = []
    n_stale = 0
    for metric in selection.metrics:
        scores = source.last_scores(metric) if asked.scores is None else asked.scores[pair, metric]
        n_stale += int(scores[STALE].sum())
        competing = scores.filter(~pl.col(STALE)) if asked.complete_only else scores
        valueless += [] if competing[SCORE].count() else [metric]
        chosen[metric] = _chosen(scores, asked)
    past = source.histories(pl.concat([frame[SAMPLE_ID] for frame in chosen.values()]).unique())
    source.count(tally)
    within = within_labels(past, replace(selection, label_key=LABEL))
    known = frozenset(within[SAMPLE_ID])
    others = frozenset(past[SAMPLE_ID]) - known
    n_others = past.filter(pl.col(SAMPLE_ID).is_in(known)).height - within.height
    # Rows of a table alone have a metric called so, and are of one pass.
    turn = pl.lit(0).alias(PASS) if PASS in selection.metrics else pl.col(PASS)
    rows = pl.concat([_rows(frame, within, pair, metric, turn) for metric, frame in chosen.items()])
    return Found(rows, known, n_stale, others, n_others, tuple(valueless))


def _chosen(scores: pl.DataFrame, asked: Asked) -> pl.DataFrame:
    """The shown samples: sample_id, score, stale, group, rank; a listed one without a score has null."""
    competing = scores.filter(~pl.col(STALE)) if asked.complete_only else scores
    listed = pl.DataFrame({SAMPLE_ID: asked.ids}, schema={SAMPLE_ID: scores.schema[SAMPLE_ID]})
    few = scores.filter(pl.col(SAMPLE_ID).is_in(asked.ids))
    listed = listed.join(few, on=SAMPLE_ID, how="left", maintain_order="left")
    groups = {
        Group.MAX: extremes(competing, asked.max, highest=True, computed=asked.computed),
        Group.MIN: extremes(competing, asked.min, highest=False, computed=asked.computed),
        Group.LISTED: listed.with_columns(pl.col(STALE).fill_null(True)),
    }
    return pl.concat(
        frame.select(SAMPLE_ID, pl.col(SCORE).cast(pl.Float64), STALE).with_columns(
            pl.lit(group.value).alias("group"), pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias("rank")
        )
        for group, frame in groups.items()
    )


def _rows(chosen: pl.DataFrame, past: pl.DataFrame, pair: Pair, metric: str, turn: pl.Expr) -> pl.DataFrame:
    """The shown samples with label and history."""
    mode, ds_id = pair
    point = pl.struct("epoch", turn, "step", pl.col(metric).alias("value")).cast(POINT)
    by_sample = past.group_by(SAMPLE_ID, maintain_order=True).agg(pl.col(LABEL).last(), point.alias("history"))
    return (
        chosen.join(by_sample, on=SAMPLE_ID, how="inner", maintain_order="left")
        .with_columns(pl.lit(mode).alias(MODE), pl.lit(ds_id).alias(DS_ID), pl.lit(metric).alias("metric"))
        .select(MODE, DS_ID, "metric", SAMPLE_ID, LABEL, "group", "rank", SCORE, STALE, "history")
    )
