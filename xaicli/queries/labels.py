"""The spread of a metric within each label, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
import polars as pl

from xaicli.answer import Answer
from xaicli.errors import UsageError, XaiError
from xaicli.queries.cache import cached
from xaicli.queries.fifths import ABOVE, BELOW, Fifths, are_many
from xaicli.queries.names import label_text, names_of_labels
from xaicli.queries.rows import recorded_elsewhere, walk
from xaicli.queries.selection import Pair, Selection, words
from xaicli.queries.spread import Groups, Spreads
from xaicli.queries.tasks import about_texts, are_texts, by_fact
from xaicli.reader import Place, Reader, Tally
from xaicli.vocabulary import DS_ID, EPOCH, LABEL, MODE, PASS, QUANTILES, STEP, Bounds, Engine

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TOLD = 5
NORMAL_975 = 1.959963984540054
"""The 97.5 % point of the standard normal distribution: `ci` is mean -/+ this times std / sqrt(n)."""


def labels(reader: Reader, selection: Selection, *, bounds: Sequence[str] | str | None = ("std",)) -> Answer:
    """Statistics of each metric per place and label, over the samples with a finite value.

    A label that is a set of classes counts for each of them; one that is a number for the fifth of the labels it is in,
    1 to 5, by the labels of the last place, or, where it is infinite, for 0 or the number after the last fifth. So do
    facts that are numbers or dates, where they have more than ten values and no label map names some.

    Args:
        reader: The run.
        selection: Which rows; its label key groups them, its label map limits and names the labels.
        bounds: `std` mean -/+ std, `range` min and max, `quantile` 5 %, 50 %, 95 % (linear interpolation), `ci` the
            95 % interval of the mean, `none`; several at once.

    Returns:
        Rows mode, ds_id, metric, label, name, epoch, pass, step, n, mean, std (n - 1; 0.0 where n = 1), min, max,
        bounds {bound: [low, high]}, quantile [low, median, high], none null. Rows without a label are in no group; a
        warning counts them.

    Raises:
        UsageError: A bound that does not exist.
        XaiError: The run has no labels.
    """
    wanted = parse_bounds(bounds)
    if selection.label_key not in reader.dtypes:
        if selection.label_key == LABEL and are_texts(reader):
            raise XaiError(
                f"{reader.layout.described} tells of texts, whose labels are their tokens",
                hint=f"{about_texts(reader)}; {by_fact(reader, '--label-key')}",
            )
        raise XaiError(
            f"{reader.layout.described} has no column {selection.label_key!r} to group by",
            hint="log labels with run.log_samples(..., label=...), or choose a column with --label-key",
        )
    question = {"question": "labels", "bounds": [bound.value for bound in wanted]}
    return cached(reader, selection, question, lambda: _computed(reader, selection, wanted))


def _computed(reader: Reader, selection: Selection, bounds: tuple[Bounds, ...]) -> Answer:
    tally = Tally()
    parts: list[pl.DataFrame] = []
    warnings = [*selection.warnings]
    for pair in selection.pairs:
        counted = Tally()
        parts += _of_pair(reader, selection, pair, bounds, counted)
        tally.add(counted)
        # What is said of facts is said of every question.
        if counted.unlabelled and selection.label_key not in reader.facts.dtypes:
            where = " ".join(part for part in pair if part)
            lack = "is in no group: it has" if counted.unlabelled == 1 else "are in no group: they have"
            kind = "class" if isinstance(reader.dtypes[selection.label_key], pl.List) else selection.label_key
            noun = "row" if counted.unlabelled == 1 else "rows"
            warnings.append(f"{counted.unlabelled:,} {noun} of {where} {lack} no {kind}")
    data = _joined(parts) if parts else _empty(reader, selection, bounds)
    del parts
    ended: list[dict[str, Any]] = []
    known = set(data["metric"])
    absent = [name for name in selection.metrics if name not in known]
    elsewhere = {name: [*recorded_elsewhere(reader, selection, [name])] for name in absent}
    if tally.non_finite or tally.valueless:
        warnings += _without_finite(reader, selection, data, ended, [name for name in elsewhere if elsewhere[name]])
    warnings += (said for of_metric in elsewhere.values() for said in of_metric)
    return Answer(
        command="labels",
        run=reader.layout.described,
        selection={**selection.as_dict(), "bounds": [bound.value for bound in bounds]},
        data=_named(reader, selection, data),
        counts=reader.counts(tally),
        warnings=tuple(warnings),
        extra={"without_finite": ended} if ended else {},
    )


def _without_finite(
    reader: Reader,
    selection: Selection,
    data: pl.DataFrame,
    at_the_end: list[dict[str, Any]],
    elsewhere: Collection[str],
) -> Iterator[str]:
    """What is said of labels that have rows, but no finite value: nowhere, or not in the last epoch; and of its rows.

    Args:
        reader, selection, data: The question and its rows.
        at_the_end: Takes metric, mode, ds_id and label of those that have none in the last epoch.
        elsewhere: Metrics of which it is said that other modes alone have them.
    """
    names = names_of_labels(reader, selection)
    limits, there = (" among the rows of --where", " there") if reader.where else ("", "")
    for (mode, ds_id), epochs in selection.epochs.items():
        one = replace(selection, pairs=((mode, ds_id),))
        kinds = Kinds.of(reader, one, (mode, ds_id))
        called = {**names, **kinds.names}
        of_pair = data.filter(pl.col(MODE) == mode, pl.col(DS_ID) == ds_id)
        for metric in selection.metrics:
            found = _not_finite(reader, one, kinds, metric)
            counted = found.group_by(LABEL).agg(pl.sum("recorded", "missing"), pl.max(EPOCH)).sort(LABEL)
            known = of_pair.filter(pl.col("metric") == metric).group_by(LABEL).agg(pl.max(EPOCH).alias("known"))
            lacking = counted.join(known, on=LABEL, how="left", maintain_order="left")
            where = " ".join(part for part in (metric, mode, ds_id) if part)
            never = lacking.filter(pl.col("known").is_null())
            if never.height and (n := int(never["recorded"].sum())):
                told = _first_of([called.get(label, label_text(label)) for label in never[LABEL]])
                lack = f"{told} {'has' if never.height == 1 else 'have'} no" if known.height else "no label has a"
                values = "value was" if n == 1 else "values were"
                yield f"{where}: {lack} finite value{limits}: {n:,} {values} recorded{there}, NaN or infinite"
            elif never.height and known.height:
                told = _first_of([called.get(label, label_text(label)) for label in never[LABEL]])
                yield f"{where}: {told} {'has' if never.height == 1 else 'have'} no value{limits}"
            elif never.height and metric not in elsewhere:
                n = int(never["missing"].sum())
                rows = "row was" if n == 1 else "rows were"
                yield f"{where}: no label has a value{limits}: {n:,} {rows} recorded{there} without one"
            in_last = lacking.filter(pl.col(EPOCH) == epochs[-1])
            ended = in_last.filter(pl.col("known") < epochs[-1])
            at_the_end += [
                {"metric": metric, MODE: mode, DS_ID: ds_id, LABEL: label}
                for label in in_last.filter(pl.col("known").is_null() | (pl.col("known") < epochs[-1]))[LABEL]
            ]
            if ended.height:
                told = _first_of([called.get(label, label_text(label)) for label in ended[LABEL]])
                are = "is" if ended.height == 1 else "are"
                yield f"{where}: {told} {are} in the last epoch with no finite value{limits}"
            if known.height and (n := int(found.filter(pl.col(EPOCH) == epochs[-1])["missing"].sum())):
                yield f"{where}: {n:,} {'row' if n == 1 else 'rows'} of the last epoch{limits} without a value"


def _not_finite(reader: Reader, selection: Selection, kinds: Kinds, metric: str) -> pl.DataFrame:
    """Where labels of one (mode, ds_id) have rows without a finite value.

    Returns:
        label, epoch, pass, step (the largest), recorded (values that are NaN or infinite), missing (rows without one).
    """
    (pair,), key, value = selection.pairs, selection.label_key, pl.col(metric).cast(pl.Float64)
    times = {EPOCH: pl.Int32, PASS: pl.Int16, STEP: pl.Int64, "missing": pl.Boolean}
    parts = [kinds.labelled(pl.DataFrame(schema={key: reader.dtypes[key], **times}))]
    # Place by place, as the statistics: a scan would first verify whole files, and write down in the run which.
    for place in walk(reader, selection, pair, [key, STEP, metric], keep_non_finite=True):
        lacking = place.frame.filter(value.is_null() | ~value.is_finite()).with_columns(
            pl.lit(place.place.epoch, pl.Int32).alias(EPOCH),
            pl.lit(place.place.turn, pl.Int16).alias(PASS),
            value.is_null().alias("missing"),
        )
        parts.append(kinds.labelled(lacking, selection.label_map))
    rows = pl.concat([part.select(LABEL, *times) for part in parts], how="vertical_relaxed")
    missing = pl.col("missing")
    return rows.group_by(LABEL, EPOCH, PASS).agg(pl.max(STEP), (~missing).sum().alias("recorded"), missing.sum())


def without_finite(reader: Reader, selection: Selection, answer: Answer) -> pl.DataFrame:
    """Where labels of an answer have rows, but no finite value: they are not among its rows.

    A metric that was not recorded at all in some epochs between has no gap there: only after its last value.

    Args:
        reader: The run.
        selection: What was asked.
        answer: What `labels` answers.

    Returns:
        mode, ds_id, metric, label, name, epoch, pass, step (the largest there); nothing of labels without any row.
    """
    key = [MODE, DS_ID, "metric", LABEL]
    places = [*key, EPOCH, PASS]
    if not (answer.counts.non_finite or answer.extra.get("without_finite")) or answer.data.is_empty():
        return answer.data.head(0).select(*places, STEP)

    def compute() -> Answer:
        parts = []
        for pair in selection.pairs:
            one = replace(selection, pairs=(pair,))
            kinds = Kinds.of(reader, one, pair)
            for metric in selection.metrics:
                of_pair = (pl.lit(pair[0]).alias(MODE), pl.lit(pair[1]).alias(DS_ID), pl.lit(metric).alias("metric"))
                found = _not_finite(reader, one, kinds, metric)
                parts.append(found.select(*of_pair, LABEL, EPOCH, PASS, STEP, "recorded"))
        return replace(answer, data=pl.concat(parts, how="vertical_relaxed"))

    found = cached(reader, selection, {"question": "labels at places without finite values"}, compute).data
    schema = answer.data.schema
    found = found.cast({name: schema[name] for name in (*places, STEP)})
    known = answer.data.group_by(key).agg(pl.max(EPOCH).alias("known"))
    found = found.join(known, on=key, how="left", nulls_equal=True)
    found = found.filter((pl.col("recorded") > 0) | (pl.col(EPOCH) > pl.col("known"))).drop("recorded", "known")
    called = answer.data.unique(key, keep="first").select(*key, "name")
    return found.join(called, on=key, how="inner").join(answer.data, on=places, how="anti", nulls_equal=True)


def _first_of(names: Sequence[str]) -> str:
    """The first of some labels and how many more there are."""
    more = f" and {len(names) - _TOLD:,} more" if len(names) > _TOLD else ""
    return f"{'label' if len(names) == 1 else 'labels'} {', '.join(names[:_TOLD])}{more}"


def _joined(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """The parts one after another; a single one as it is, for its columns of one value take no room."""
    return parts[0] if len(parts) == 1 else pl.concat(parts, how="vertical_relaxed")


def parse_bounds(given: Sequence[str] | str | None) -> tuple[Bounds, ...]:
    """The bounds asked for, each once; `none` for None.

    Raises:
        UsageError: A bound that does not exist, or a list of none.
    """
    wanted = words(given, "bounds") or [Bounds.NONE.value]
    for word in wanted:
        if word not in set(Bounds):
            raise UsageError(f"--bounds {word!r} is not possible", hint="choose from: " + ", ".join(Bounds))
    return tuple(dict.fromkeys(Bounds(word) for word in wanted))


def _of_pair(
    reader: Reader, selection: Selection, pair: Pair, bounds: tuple[Bounds, ...], tally: Tally
) -> list[pl.DataFrame]:
    """The statistics of one (mode, ds_id), one frame for each metric that has values."""
    by_metric = _by_place if selection.engine is Engine.POLARS else _of_engine
    mode, ds_id = pair
    kinds = Kinds.of(reader, selection, pair)
    named = [pl.col(LABEL).replace_strict(kinds.names, return_dtype=pl.String).alias("name")] if kinds.names else []
    return [
        # Sorted first: lists are slow to put in order.
        (ordered := frame.sort(LABEL, EPOCH, PASS))
        .with_columns(bands(ordered, bounds))
        .select(
            pl.lit(mode).alias(MODE),
            pl.lit(ds_id).alias(DS_ID),
            pl.lit(metric).alias("metric"),
            *named,
            *(LABEL, EPOCH, PASS, STEP, "n", "mean", "std", "min", "max", "bounds"),
        )
        for metric, frame in by_metric(reader, selection, pair, kinds, bounds, tally)
    ]


def _of_engine(
    reader: Reader,
    selection: Selection,
    pair: Pair,
    kinds: Kinds,
    bounds: tuple[Bounds, ...],
    tally: Tally,
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each metric's statistics as another engine computes them."""
    from xaicli.queries.relations import of_engine, tallied

    def found(own: Tally) -> list[tuple[str, pl.DataFrame]]:
        with of_engine(reader, selection, pair) as source:
            source.count(own)
            own.unlabelled += source.n_unlabelled(kinds)
            own.valueless += source.n_valueless(kinds)
            return [(metric, source.label_statistics(metric, bounds, kinds)) for metric in selection.metrics]

    yield from tallied(reader, tally, found)


def _by_place(
    reader: Reader,
    selection: Selection,
    pair: Pair,
    kinds: Kinds,
    bounds: tuple[Bounds, ...],
    tally: Tally,
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each metric's statistics by polars, place by place."""
    by_metric = {metric: Spreads(quantiles=Bounds.QUANTILE in bounds) for metric in selection.metrics}
    groups: Groups | None = None
    for place in walk(reader, selection, pair, [selection.label_key, *selection.metrics], tally=tally):
        tally.unlabelled += kinds.n_unlabelled(place.frame[selection.label_key])
        labelled = place._replace(frame=kinds.labelled(place.frame, selection.label_map))
        tally.valueless += sum(labelled.frame[metric].null_count() for metric in selection.metrics)
        if groups is None or not groups.fit(labelled.frame[LABEL]):
            groups = Groups.of(labelled.frame[LABEL])
        for metric, found in by_metric.items():
            found.add(groups, labelled, metric)
    while by_metric:
        metric = next(iter(by_metric))
        # Given away, so that only one metric's statistics are there twice.
        if (frame := by_metric.pop(metric).frame()) is not None:
            yield metric, frame


@dataclass(frozen=True)
class Kinds:
    """How rows are labelled: by the label key as it is, by each class of a set, or by the fifth it is in.

    Attributes:
        key: The column.
        fifths: Of a column of numbers, or of a fact with many of them or many dates; else None.
        are_sets: Whether the column holds sets of classes.
        are_numbers: Whether it holds numbers, of which NaN is no label.
        ends: The upper ends of all parts but the last, numbers or dates; empty without fifths. Infinite numbers are
            parts of their own, before the fifths and after them.
    """

    key: str
    fifths: Fifths | None = None
    are_sets: bool = False
    are_numbers: bool = False
    ends: tuple[Any, ...] = ()

    @classmethod
    def of(cls, reader: Reader, selection: Selection, pair: Pair) -> Kinds:
        """How the rows of one (mode, ds_id) are labelled."""
        key = selection.label_key
        dtype = reader.dtypes[key]
        if isinstance(dtype, pl.List):
            return cls(key, are_sets=True)
        are_numbers = dtype.is_float()
        is_fact = key in reader.facts.dtypes
        if not are_numbers and (selection.label_map or not is_fact or not dtype.is_temporal()):
            return cls(key)
        if is_fact and not are_many(reader.facts.frame[key]):
            return cls(key, are_numbers=are_numbers)
        column = reader.frame(Place(*pair, selection.epochs[pair][-1]), [key])[0][key]
        fifths = Fifths.of(column)
        if not are_numbers:
            return cls(key, fifths, ends=tuple(pl.Series(fifths.ends).cast(dtype).to_list()))
        largest = float(np.finfo(np.float32 if dtype == pl.Float32 else np.float64).max)
        return cls(key, fifths, are_numbers=True, ends=(-math.inf, *fifths.ends, largest))

    def labelled(self, frame: pl.DataFrame, only: Collection[Any] = ()) -> pl.DataFrame:
        """The rows that have a label, with it in the column `label`; metrics and the key stay.

        Args:
            frame: Rows, each with one of the labels wanted.
            only: The labels wanted; all when empty. Of a set of classes the others do not count.
        """
        if self.are_sets:
            each = frame.with_columns(pl.col(self.key).alias(LABEL)).explode(LABEL).drop_nulls(LABEL)
            return each.filter(pl.col(LABEL).is_in(list(only))) if only else each
        if self.fifths is not None:
            key, dtype = pl.col(self.key), frame.schema[self.key]
            part = pl.sum_horizontal(self.first, *(key > pl.lit(end, dtype) for end in self.ends)).cast(pl.Int32)
            is_known = key.is_not_nan() if self.are_numbers else key.is_not_null()
            return frame.with_columns(pl.when(is_known).then(part).alias(LABEL)).drop_nulls(LABEL)
        known = frame if not frame[self.key].null_count() else frame.drop_nulls(self.key)
        if self.are_numbers:
            known = known.drop_nans(self.key)
        return known if self.key == LABEL else known.with_columns(pl.col(self.key).alias(LABEL))

    def n_unlabelled(self, column: pl.Series) -> int:
        """How many rows have no label: none, a set of no class, or NaN."""
        if self.are_sets:
            return int((column.list.len().fill_null(0) == 0).sum())
        return column.null_count() + (int(column.is_nan().sum()) if self.are_numbers else 0)

    @property
    def first(self) -> int:
        """The number of the first part: the fifths begin with 1, and of numbers what is below all of them is 0."""
        return 0 if self.are_numbers else 1

    @property
    def names(self) -> dict[Any, str]:
        """What the parts are called."""
        if self.fifths is None:
            return {}
        names = self.fifths.names
        return dict(enumerate((BELOW, *names, ABOVE) if self.are_numbers else names, self.first))


def bands(frame: pl.DataFrame, bounds: tuple[Bounds, ...]) -> pl.Series:
    """The structs of bands from the columns mean, std, n, min, max and the quantiles."""
    mean, std, n = (frame[name].cast(pl.Float64).to_numpy() for name in ("mean", "std", "n"))
    found = {}
    for bound in bounds:
        match bound:
            case Bounds.STD:
                found[bound.value] = _listed(mean - std, mean + std)
            case Bounds.RANGE:
                found[bound.value] = _listed(frame["min"], frame["max"])
            case Bounds.QUANTILE:
                found[bound.value] = _listed(*(frame[name] for name in QUANTILES))
            case Bounds.CI:
                margin = NORMAL_975 * std / np.sqrt(n)
                found[bound.value] = _listed(mean - margin, mean + margin)
            case Bounds.NONE:
                found[bound.value] = pl.Series([None], dtype=pl.List(pl.Float64)).new_from_index(0, frame.height)
            case _:
                assert_never(bound)
    return pl.DataFrame(found).to_struct("bounds")


def _listed(*ends: pl.Series | NDArray[np.float64]) -> pl.Series:
    """A list a row; far sooner made of one array than by an expression."""
    return pl.Series(np.stack([np.asarray(end, np.float64) for end in ends], axis=1)).arr.to_list()


def _named(reader: Reader, selection: Selection, data: pl.DataFrame) -> pl.DataFrame:
    """The rows with each label's name: of the label map, else of the run, else the label itself."""
    if "name" in data.columns:
        return data.select(MODE, DS_ID, "metric", LABEL, "name", pl.exclude(MODE, DS_ID, "metric", LABEL, "name"))
    names = names_of_labels(reader, selection)
    found = data["label"].unique().to_list()
    table = pl.DataFrame(
        {"label": found, "name": [names.get(label, label_text(label)) for label in found]},
        schema={"label": data.schema["label"], "name": pl.String()},
    )
    name = data.select("label").join(table, on="label", how="left", maintain_order="left")["name"]
    return data.insert_column(data.columns.index("label") + 1, name)


def _empty(reader: Reader, selection: Selection, bounds: tuple[Bounds, ...]) -> pl.DataFrame:
    """No rows, with the columns there would be."""
    lists = pl.Struct({bound.value: pl.List(pl.Float64) for bound in bounds})
    texts = dict.fromkeys((MODE, DS_ID, "metric"), pl.String())
    numbers = dict.fromkeys(("mean", "std", "min", "max"), pl.Float64())
    times = {EPOCH: pl.Int32(), PASS: pl.Int16(), STEP: pl.Int64(), "n": pl.Int64()}
    label = {LABEL: reader.dtypes[selection.label_key]}
    return pl.DataFrame(schema={**texts, **label, **times, **numbers, "bounds": lists})
