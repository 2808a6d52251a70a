"""The spread of a metric within each label, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.queries.cache import cached
from xaicli.queries.scores import within_labels
from xaicli.queries.selection import Pair, Selection, words
from xaicli.queries.spread import Groups, spread
from xaicli.reader import Place, Reader, Tally
from xaicli.vocabulary import DS_ID, EPOCH, LABEL, MODE, PREDICTION, QUANTILES, STEP, Bounds, Engine

NORMAL_975 = 1.959963984540054
"""The 97.5 % point of the standard normal distribution: `ci` is mean -/+ this times std / sqrt(n)."""


def labels(reader: Reader, selection: Selection, *, bounds: Sequence[str] | str | None = ("std",)) -> Answer:
    """Statistics of each metric per (mode, ds_id, epoch, label), over the samples with a finite value.

    Args:
        reader: The run.
        selection: Which rows; its label key groups them, its label map limits and names the labels.
        bounds: `std` mean -/+ std, `range` min and max, `quantile` 5 %, 50 %, 95 % (linear interpolation), `ci` the
            95 % interval of the mean, `none`; several at once.

    Returns:
        Rows mode, ds_id, metric, label, name, epoch, step, n, mean, std (n - 1; 0.0 where n = 1), min, max, bounds
        {bound: [low, high]}, quantile [low, median, high], none null. Samples without a label are left out.

    Raises:
        UsageError: A bound that does not exist.
        XaiError: The run has no labels, or a label of the label map does not occur.
    """
    wanted = parse_bounds(bounds)
    if selection.label_key not in reader.dtypes:
        raise XaiError(
            f"{reader.layout.root} has no column {selection.label_key!r} to group by",
            hint="log labels with run.log_samples(..., label=...), or choose a column with --label-key",
        )
    question = {"question": "labels", "bounds": [bound.value for bound in wanted]}
    return cached(reader, selection, question, lambda: _computed(reader, selection, wanted))


def _computed(reader: Reader, selection: Selection, bounds: tuple[Bounds, ...]) -> Answer:
    tally = Tally()
    parts = [part for pair in selection.pairs for part in _of_pair(reader, selection, pair, bounds, tally)]
    data = _joined(parts) if parts else _empty(reader, selection, bounds)
    del parts
    _refuse_unknown_labels(reader, selection, data)
    return Answer(
        command="labels",
        run=str(reader.layout.root),
        selection={**selection.as_dict(), "bounds": [bound.value for bound in bounds]},
        data=_named(reader, selection, data),
        counts=reader.counts(tally),
        warnings=selection.warnings,
    )


def _joined(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """The parts one after another; a single one as it is, for its columns of one value take no room."""
    return parts[0] if len(parts) == 1 else pl.concat(parts, how="vertical_relaxed")


def parse_bounds(given: Sequence[str] | str | None) -> tuple[Bounds, ...]:
    """The bounds asked for, each once; `none` when nothing is asked.

    Raises:
        UsageError: A bound that does not exist.
    """
    wanted = words(given) or [Bounds.NONE.value]
    for word in wanted:
        if word not in set(Bounds):
            raise UsageError(f"--bounds {word!r} is not possible", hint="choose from: " + ", ".join(Bounds))
    return tuple(dict.fromkeys(Bounds(word) for word in wanted))


def _of_pair(
    reader: Reader, selection: Selection, pair: Pair, bounds: tuple[Bounds, ...], tally: Tally
) -> list[pl.DataFrame]:
    """The statistics of one (mode, ds_id), one frame for each metric that has values."""
    by_metric = _epochwise if selection.engine is Engine.POLARS else _of_engine
    mode, ds_id = pair
    return [
        # Sorted first: lists are slow to put in order.
        frame.sort(LABEL, EPOCH)
        .with_columns(band_columns(bounds))
        .select(
            pl.lit(mode).alias(MODE),
            pl.lit(ds_id).alias(DS_ID),
            pl.lit(metric).alias("metric"),
            *(LABEL, EPOCH, STEP, "n", "mean", "std", "min", "max", "bounds"),
        )
        for metric, frame in by_metric(reader, selection, pair, bounds, tally)
    ]


def _of_engine(
    reader: Reader, selection: Selection, pair: Pair, bounds: tuple[Bounds, ...], tally: Tally
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each metric's statistics as another engine computes them."""
    from xaicli.queries.by_engine import of_engine

    with of_engine(reader, selection, pair) as source:
        source.count(tally)
        for metric in selection.metrics:
            yield metric, source.label_statistics(metric, bounds)


def _epochwise(
    reader: Reader, selection: Selection, pair: Pair, bounds: tuple[Bounds, ...], tally: Tally
) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each metric's statistics by polars, epoch by epoch."""
    key = selection.label_key
    by_metric: dict[str, list[pl.DataFrame]] = {metric: [] for metric in selection.metrics}
    columns = list(dict.fromkeys([key, *selection.metrics]))
    frames = reader.epoch_frames(*pair, columns, selection.epochs[pair], duplicates=selection.duplicates, tally=tally)
    groups: Groups | None = None
    for epoch, frame in frames:
        rows = within_labels(frame if not frame[key].null_count() else frame.drop_nulls(key), selection)
        if groups is None or not groups.fit(rows[key]):
            groups = Groups.of(rows[key])
        step = reader.last_step(Place(*pair, epoch))
        times = [pl.lit(epoch, pl.Int32).alias(EPOCH), pl.lit(step, pl.Int64).alias(STEP)]
        for metric, parts in by_metric.items():
            parts.append(spread(groups, rows[metric], quantiles=Bounds.QUANTILE in bounds).with_columns(times))
    while by_metric:
        metric = next(iter(by_metric))
        # Given away, so that only one metric's statistics are there twice.
        if parts := by_metric.pop(metric):
            yield metric, pl.concat(parts, how="vertical_relaxed")


def band_columns(bounds: tuple[Bounds, ...]) -> pl.Expr:
    """The struct of bands from the columns mean, std, n, min, max and the quantiles."""
    mean, std = pl.col("mean"), pl.col("std")
    margin = NORMAL_975 * std / pl.col("n").sqrt()
    bands: dict[Bounds, pl.Expr] = {
        Bounds.STD: pl.concat_list(mean - std, mean + std),
        Bounds.RANGE: pl.concat_list("min", "max"),
        Bounds.NONE: pl.lit(None, pl.List(pl.Float64)),
        Bounds.QUANTILE: pl.concat_list(*QUANTILES),
        Bounds.CI: pl.concat_list(mean - margin, mean + margin),
    }
    return pl.struct(bands[bound].alias(bound.value) for bound in bounds).alias("bounds")


def names_of_labels(reader: Reader, selection: Selection) -> dict[Any, str]:
    """{label: its name}, of the label map, else of the run; labels without one are left out."""
    key = selection.label_key
    dtype = reader.dtypes.get(key)
    codes = key in (LABEL, PREDICTION) and dtype is not None and dtype.is_integer()
    return {**dict(enumerate(reader.label_names if codes else ())), **selection.label_map}


def _named(reader: Reader, selection: Selection, data: pl.DataFrame) -> pl.DataFrame:
    """The rows with each label's name: of the label map, else of the run, else the label itself."""
    names = names_of_labels(reader, selection)
    found = data["label"].unique().to_list()
    table = pl.DataFrame(
        {"label": found, "name": [names.get(label, str(label)) for label in found]},
        schema={"label": data.schema["label"], "name": pl.String()},
    )
    name = data.select("label").join(table, on="label", how="left", maintain_order="left")["name"]
    return data.insert_column(data.columns.index("label") + 1, name)


def _empty(reader: Reader, selection: Selection, bounds: tuple[Bounds, ...]) -> pl.DataFrame:
    """No rows, with the columns there would be."""
    lists = pl.Struct({bound.value: pl.List(pl.Float64) for bound in bounds})
    texts = dict.fromkeys((MODE, DS_ID, "metric"), pl.String())
    numbers = dict.fromkeys(("mean", "std", "min", "max"), pl.Float64())
    times = {EPOCH: pl.Int32(), STEP: pl.Int64(), "n": pl.Int64()}
    label = {LABEL: reader.dtypes[selection.label_key]}
    return pl.DataFrame(schema={**texts, **label, **times, **numbers, "bounds": lists})


def _refuse_unknown_labels(reader: Reader, selection: Selection, data: pl.DataFrame) -> None:
    found = set(data["label"].unique().to_list())
    for label in selection.label_map:
        if label not in found:
            rows = [
                reader.frame(Place(*pair, selection.epochs[pair][-1]), [selection.label_key])[0]
                for pair in selection.pairs
            ]
            known = pl.concat(rows)[selection.label_key].drop_nulls().unique().sort()
            raise unknown("label", label, known.to_list(), where=str(reader.layout.root))
