"""The selected rows, place by place: what polars answers every question from that the files' footers do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import polars as pl

from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Place, Reader, Rows, Tally
from xaicli.vocabulary import CORRECT


def walk(
    reader: Reader,
    selection: Selection,
    pair: Pair,
    columns: Sequence[str],
    *,
    epochs: Sequence[int] | None = None,
    backwards: bool = False,
    limited: bool = True,
    tally: Tally | None = None,
    tallies: dict[int, Tally] | None = None,
    keep_non_finite: bool = False,
) -> Iterator[Rows]:
    """The rows of one (mode, ds_id), a place at a time, as `Reader.place_frames` reads them.

    Args:
        columns: The columns wanted; the selected metrics among them are numbers, `correct` 1 and 0.
        epochs: Only these of the selected epochs, ascending.
        backwards: The last place first.
        limited: Leave out the labels that the selection leaves out.
        tally: What counts rows, non-finite values and duplicates.
        tallies: The same, for each epoch apart.
        keep_non_finite: Leave NaN and infinities as they are stored, instead of null.
    """
    is_limited = limited and bool(selection.label_map)
    wanted = list(dict.fromkeys([*columns, *([selection.label_key] if is_limited else [])]))
    judged = CORRECT in selection.metrics and CORRECT in wanted
    frames = reader.place_frames(
        *pair,
        wanted,
        selection.epochs[pair] if epochs is None else epochs,
        backwards=backwards,
        duplicates=selection.duplicates,
        tally=tally,
        tallies=tallies,
        keep_non_finite=keep_non_finite,
    )
    for rows in frames:
        frame = within_labels(rows.frame, selection) if is_limited else rows.frame
        if judged:
            frame = frame.with_columns(pl.col(CORRECT).cast(pl.Float32))
        yield rows._replace(frame=frame)


def within_labels(frame: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """The rows whose label the selection is limited to, of sets those with such a class; all rows without a limit."""
    return frame.filter(_is_within(frame.schema, selection)) if selection.label_map else frame


def _is_within(schema: Mapping[str, pl.DataType], selection: Selection) -> pl.Expr:
    key, labels = selection.label_key, list(selection.label_map)
    if isinstance(schema[key], pl.List):
        return pl.col(key).list.eval(pl.element().is_in(labels)).list.any()
    return pl.col(key).is_in(labels)


def rows(reader: Reader, selection: Selection) -> pl.LazyFrame:
    """The selected rows as one lazy frame, of metrics the selected ones; duplicates and non-finite values untouched."""
    left_out = set(reader.metrics) - set(selection.metrics)
    columns = [name for name in reader.dtypes if name not in left_out]
    lazy = pl.concat(
        [reader.scan(mode, ds_id, selection.epochs[mode, ds_id], columns) for mode, ds_id in selection.pairs]
    )
    if selection.label_map:
        lazy = lazy.filter(_is_within(reader.dtypes, selection))
    return lazy


def recorded_elsewhere(reader: Reader, selection: Selection, metrics: Iterable[str]) -> Iterator[str]:
    """Which other modes and data sets have metrics, by their last epochs, of which what is selected has no value."""
    pairs = [(mode, ds_id) for mode in reader.modes() for ds_id in reader.ds_ids(mode)]
    others = [pair for pair in pairs if pair not in selection.pairs]
    among = " among the rows of --where" if reader.where else ""
    for metric in metrics:
        if any(_has(reader, Place(*pair, epoch), metric) for pair in selection.pairs for epoch in reader.epochs(*pair)):
            continue
        found = [
            " ".join(filter(None, pair))
            for pair in others
            if _has(reader, Place(*pair, reader.epochs(*pair)[-1]), metric)
        ]
        if found:
            selected = ", ".join(" ".join(filter(None, pair)) for pair in selection.pairs)
            have = "has" if len(found) == 1 else "have"
            yield f"no finite {metric} in {selected}{among}: {', '.join(found)} {have} it"


def _has(reader: Reader, place: Place, metric: str) -> bool:
    """Whether a place has a finite value of a metric."""
    values = reader.frame(place, [metric])[0][metric]
    return bool(values.cast(pl.Float64).is_finite().any())
