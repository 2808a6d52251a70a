"""What is asked of labels and predictions: `confusion`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from xaicli.answer import Answer
from xaicli.diagnosis.calibration import Calibration, by_prediction, calibration, probability_scores
from xaicli.diagnosis.confusion import (
    Overall,
    by_class,
    confused_pairs,
    confusion_counts,
    exact_sets,
    label_figures,
    most_frequent_first,
    overall_figures,
    set_counts,
)
from xaicli.diagnosis.slices import MISSING, by_quintile
from xaicli.errors import UsageError, XaiError, unknown, whole_number
from xaicli.queries.fifths import are_many
from xaicli.queries.names import LabelNames, class_labels, class_numbers
from xaicli.queries.rows import walk
from xaicli.queries.samples import samples
from xaicli.queries.selection import Pair, Selection
from xaicli.queries.tasks import LabelKind, about_texts, are_texts, labels_of
from xaicli.queries.truth import as_recorded, is_right, recorded, refuse_other_kinds, with_truth
from xaicli.reader import Reader, Rows, Tally
from xaicli.vocabulary import (
    CORRECT,
    DS_ID,
    EPOCH,
    HIGH_IS_GOOD,
    LABEL,
    LABEL_PROB,
    LOSS,
    MODE,
    NO_CLASS,
    PASS,
    PREDICTION,
    PROBS,
    SAMPLE_ID,
    STEP,
    TOP_PROB,
    Duplicates,
)
from xaicli.words import quoted, ranges, split

_MOST_GROUPS = 50
_UNKNOWN = "nothing tells how sure the model is"
_LISTED_CELLS = 1000
_SHOWN_LABELS = 30
_LISTED = 5
"""Samples of each of the largest cells, the worst first."""
_KEPT_PAIRS = 20_000
_TOLD_PAIRS = 8
_NEEDS = "log them with run.log_samples(..., label=..., logits=...)"


def confusion(reader: Reader, selection: Selection, *, by: str | None = None) -> Answer:
    """Who is taken for whom at every selected place, and how sure the model is at the last.

    Args:
        reader: The run.
        selection: Which rows; its label map limits the samples to some labels and names them.
        by: A column whose every value, of numbers and dates of more than 50 each fifth, gets figures and counts of its
            own at the last place.

    Returns:
        Rows mode, ds_id, epoch, pass, step, label, name, n, n_predicted, n_right, precision, recall, f1 (0 where
        undefined), undefined. Further keys: `overall`, the figures of every place, with the samples `without_label` and
        `without_prediction` (of those with a label), which are in none (null where `n` is 0); `cells`, the counts by
        (label, prediction) of the last place of each (mode, ds_id), the 1,000 largest wrong ones, and the right ones of
        up to 30 labels, with five `sample_ids`, those of the highest loss first; `pairs`, how often the eight pairs
        that are confused most in the last half of the places were confused at each; `calibration` and `probabilities`
        of the last place; and `by`, the overall figures and cells of each value. A label that is a set of classes
        counts for each class: in its cells the prediction of what was missed is null, and the label of what was
        predicted without being there (both named "(none)"); right overall is who has exactly its set, and there is no
        `mcc`.

    Raises:
        XaiError: The run has no labels or predictions, they are numbers, or there is no such column.
        UsageError: `by` has more than 50 values that are no numbers, or several a sample.
    """
    refuse_other_tasks(reader, selection.label_key, by)
    columns = [name for name in (SAMPLE_ID, PREDICTION, TOP_PROB, CORRECT, by) if name and name in reader.dtypes]
    names = LabelNames.of_classes(reader, selection)
    tally = Tally()
    labels: list[pl.DataFrame] = []
    keys = ("overall", "pairs", "calibration", "probabilities", "by")
    extra: dict[str, list[dict[str, Any]]] = {key: [] for key in keys}
    cells: list[pl.DataFrame] = []
    warnings = [*selection.warnings]
    for pair in selection.pairs:
        last: tuple[Rows, pl.DataFrame, Calibration | None] | None = None
        over_time, empty = _PairsOverTime(pair, names), EmptyPlaces(selection.label_key)
        for rows in labelled(reader, selection, pair, columns, tally=tally):
            counts, table, overall = counted(rows.frame)
            labels.append(_placed(table, pair, rows, names))
            if overall is not None:
                is_last = rows.place.epoch == selection.epochs[pair][-1]
                sure = _calibration(rows.frame, resamples=None if is_last else 0)
                extra["overall"].append({**_place(pair, rows), **_figures(overall, rows.frame, sure)})
                over_time.add(rows, counts)
                last = rows, counts, sure if is_last else None
            else:
                empty.add(rows)
                extra["overall"].append({**_place(pair, rows), **_figures(None, rows.frame, None)})
        where = " ".join(filter(None, pair))
        warnings += empty.said(where, None if last is None else last[0].place.epoch)
        if last is not None:
            rows, counts, sure = last
            at = f"at epoch {rows.place.epoch}"
            found = _calibration(rows.frame) if sure is None else sure
            if found is None and {TOP_PROB, CORRECT} <= set(rows.frame.columns):
                warnings.append(f"no sample of {where} has a finite top_prob {at}: {_UNKNOWN}")
            warnings += in_no_cell(left_out(rows.frame), f"{where} {at}", selection.label_key)
            cells.append(_of_last(reader, selection, pair, rows, counts, found, by, names, extra))
            extra["pairs"] += over_time.most_confused()
            warnings += _no_probabilities(reader, selection, pair, rows, extra["probabilities"])
        elif by is not None and empty.last is not None:
            _add_groups(empty.last, selection, by, _place(pair, empty.last), names, extra)
    data = pl.concat(labels, how="vertical_relaxed") if labels else _no_rows()
    if not labels or not cells:
        unmet = f"no row that meets --where {reader.where.text!r} has both" if reader.where else ""
        said = f"{reader.layout.described} has no sample with both a label and a prediction here"
        raise XaiError(said, hint=unmet or _NEEDS)
    return Answer(
        command="confusion",
        run=reader.layout.described,
        selection={**{key: value for key, value in selection.as_dict().items() if key != "metric"}, "by": by},
        data=data,
        counts=reader.counts(tally),
        warnings=tuple(warnings),
        extra={
            "overall": extra["overall"],
            "cells": pl.concat(cells, how="vertical_relaxed"),
            **{key: value for key, value in extra.items() if key != "overall" and (value or key != "by")},
        },
    )


def left_out(frame: pl.DataFrame) -> dict[str, int]:
    """How many samples of a place are in no cell, since they lack a label, or have one and lack a prediction."""
    unlabelled = frame[LABEL].is_null()
    unpredicted = frame[PREDICTION].is_null() & ~unlabelled
    return {"without_label": int(unlabelled.sum()), "without_prediction": int(unpredicted.sum())}


def in_no_cell(lacks: Mapping[str, int], where: str, key: str = LABEL) -> list[str]:
    """What to say of them, where `key` is what stands for the label."""
    kinds = (("without_label", f"no {key}"), ("without_prediction", f"a {key} and no prediction"))
    return [
        f"{n:,} {'sample' if n == 1 else 'samples'} of {where} {'has' if n == 1 else 'have'} {lacking}, and "
        f"{'is' if n == 1 else 'are'} in no cell"
        for key, lacking in kinds
        if (n := lacks[key])
    ]


class EmptyPlaces:
    """The places of one (mode, ds_id) of which no sample is in a cell.

    Attributes:
        last: The rows of the last one.
    """

    def __init__(self, key: str = LABEL) -> None:
        """Those of which `key` stands for the label."""
        self.last: Rows | None = None
        self._key = key
        self._epochs: dict[int, None] = {}
        self._lacks = dict.fromkeys(("without_label", "without_prediction"), 0)

    def add(self, rows: Rows) -> None:
        """Take one."""
        self.last = rows
        self._epochs[rows.place.epoch] = None
        for key, n in left_out(rows.frame).items():
            self._lacks[key] += n

    def said(self, where: str, last: int | None) -> list[str]:
        """What to say of them: nothing where there are none.

        Args:
            where: Their mode and data set.
            last: The last epoch that is told; None of none.
        """
        if not self._epochs:
            return []
        unlabelled, unpredicted = self._lacks.values()
        lacking = [f"{unlabelled:,} without a {self._key}"] if unlabelled else []
        if unpredicted:
            lacking.append(f"{unpredicted:,} with one and without a prediction")
        told = ", ".join(ranges(sorted(self._epochs)))
        end = "no confusion is told of it" if last is None or last > max(self._epochs) else f"told is epoch {last}"
        both = f"both a {self._key} and a prediction ({' and '.join(lacking)})"
        return [f"no row of {where} at epoch {told} has {both}: {end}"]


_NO_FIGURES: dict[str, Any] = {
    "n": 0,
    **dict.fromkeys(("accuracy", "accuracy_interval", "balanced_accuracy", "macro_f1", "weighted_f1", "mcc")),
    "undefined": [],
    "ece": None,
    "over_confidence": None,
}


class _PairsOverTime:
    """How often each wrong pair came at every place."""

    def __init__(self, pair: Pair, names: LabelNames) -> None:
        self._pair, self._names = pair, names
        self._places: list[tuple[dict[str, Any], pl.DataFrame, bool]] = []

    def add(self, rows: Rows, counts: pl.DataFrame) -> None:
        """Take the counts of a place; of very many pairs the most frequent."""
        wrong = confused_pairs(counts, _KEPT_PAIRS + 1)
        self._places.append((_place(self._pair, rows), wrong.head(_KEPT_PAIRS), wrong.height <= _KEPT_PAIRS))

    def most_confused(self) -> list[dict[str, Any]]:
        """The pairs with the most samples over the last half of the places: {place, label, prediction, points}."""
        late = pl.concat([found for _, found, _ in self._places[len(self._places) // 2 :]])
        ends = [LABEL, PREDICTION]
        chosen = most_frequent_first(late.group_by(ends).agg(pl.col("n").sum()))
        found = []
        for label, taken in chosen.head(_TOLD_PAIRS).select(ends).iter_rows():
            is_it = pl.col(LABEL).eq_missing(label) & pl.col(PREDICTION).eq_missing(taken)
            points = []
            for place, wrong, whole in self._places:
                row = wrong.filter(is_it)
                n, share = row.select("n", "share").row(0) if row.height else (0, 0.0) if whole else (None, None)
                points.append({EPOCH: place[EPOCH], PASS: place[PASS], STEP: place[STEP], "n": n, "share": share})
            named = {"name": self._name(label), "prediction_name": self._name(taken)}
            origin = {MODE: self._pair[0], DS_ID: self._pair[1]}
            found.append({**origin, LABEL: label, PREDICTION: taken, **named, "points": points})
        return found

    def _name(self, label: Any) -> str:
        return NO_CLASS if label is None else self._names[label]


def cell_samples(reader: Reader, selection: Selection, cell: str | Sequence[Any], *, top: int = 20) -> Answer:
    """The samples of one cell at the last place of each (mode, ds_id), with their histories.

    Args:
        reader: The run.
        selection: Which rows; the first of its metrics orders the samples, the worse end first: the lowest of those of
            which high is good, else the highest.
        cell: LABEL,PREDICTION as values or names, in one text or one by one.
        top: At most how many of each (mode, ds_id); how many there are is in the key `n`.

    Returns:
        Rows as `samples` gives them of listed ids.

    Raises:
        UsageError: The cell is not two labels, or `top` is less than 1.
        XaiError: A label does not occur, or the cell is empty.
    """
    refuse_other_tasks(reader, selection.label_key)
    top = whole_number("--top", top, least=1)
    ends = split(cell) if isinstance(cell, str) else [str(end) for end in cell]
    if len(ends) != 2:
        raise UsageError(f"--cell {cell!r} is not LABEL,PREDICTION", hint="--cell cat,dog")
    cell = ",".join(quoted(end) for end in ends)
    tally, found = Tally(), {}
    both: dict[str, None] = {}
    places: dict[Pair, tuple[pl.DataFrame, Tally]] = {}
    for pair in selection.pairs:
        looked_at = Tally()
        if (frame := _last_with_cells(reader, selection, pair, looked_at, both)) is not None:
            places[pair] = frame, looked_at
        else:
            tally.add(looked_at)
    # A label is one of any place: the others have no sample in its cells.
    values = _values_of_ends(reader, selection, ends, [frame for frame, _ in places.values()], both) if places else []
    for pair, (frame, looked_at) in places.items():
        if ids := _in_cell(frame, selection, values, both):
            found[pair] = ids
        else:
            tally.add(looked_at)
    if not found:
        if len({*values, None}) > 2 and all(isinstance(frame.schema[LABEL], pl.List) for frame, _ in places.values()):
            raise XaiError(
                f"labels are sets of classes, of which each is counted by itself: {ends[0]} is missed, or {ends[1]} is "
                "added, and no cell is of both",
                hint=f"--cell '{quoted(ends[0])},{NO_CLASS}' lists the samples that miss it; xai errors tells in how "
                "many one is missed where another is added",
            )
        raise XaiError(
            f"no sample of {ends[0]} is taken for {ends[1]} at the last epoch selected",
            hint="see the counts: xai confusion",
        )
    answers = [
        samples(reader, replace(selection, pairs=(pair,)), max=0, min=0, ids=ids[:top]) for pair, ids in found.items()
    ]
    parts = []
    for (_, ids), part in zip(found.items(), answers, strict=True):
        order = pl.DataFrame(
            {SAMPLE_ID: ids, "place": range(len(ids))}, schema_overrides={SAMPLE_ID: part.data.schema[SAMPLE_ID]}
        )
        parts.append(part.data.join(order, on=SAMPLE_ID, how="left").sort("place", maintain_order=True).drop("place"))
    for counts in (part.counts for part in answers):
        tally.add(Tally(counts.rows or 0, counts.non_finite or 0, counts.duplicates or 0))
    n = [{MODE: mode, DS_ID: ds_id, "n": len(ids)} for (mode, ds_id), ids in found.items()]
    options = {"cell": cell, "top": top}
    return replace(
        answers[0],
        command="confusion",
        selection={**selection.as_dict(), **options},
        data=pl.concat(parts),
        counts=reader.counts(tally, stale=sum(part.counts.stale or 0 for part in answers)),
        warnings=(*answers[0].warnings, *both),
        extra={"n": n},
    )


def counted(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, Overall | None]:
    """The counts of a place, the figures of each label, and those of all."""
    are_sets = isinstance(frame.schema[LABEL], pl.List)
    counts = set_counts(by_class(frame)) if are_sets else confusion_counts(frame)
    table = label_figures(counts)
    return counts, table, overall_figures(counts, table, exact=exact_sets(frame) if are_sets else None)


def _last_with_cells(
    reader: Reader, selection: Selection, pair: Pair, tally: Tally, said: dict[str, None]
) -> pl.DataFrame | None:
    """The rows of the last place of a (mode, ds_id) that has cells, the metric as `worst`; None where none has.

    Args:
        said: Told which places have no cells.
    """
    metric = selection.metrics[0]
    columns, empty = [SAMPLE_ID, PREDICTION, metric], EmptyPlaces(selection.label_key)
    where, last, frame = " ".join(filter(None, pair)), None, None
    for rows in labelled(reader, selection, pair, columns, backwards=True, tally=tally):
        if rows.frame.drop_nulls([LABEL, PREDICTION]).height:
            sign = -1 if metric in HIGH_IS_GOOD else 1
            worst = (sign * pl.col(metric).cast(pl.Float64)).alias("worst")
            last, frame = rows.place.epoch, rows.frame.select(LABEL, PREDICTION, SAMPLE_ID, worst)
            break
        empty.add(rows)
    said |= dict.fromkeys(empty.said(where, last))
    return frame


def _values_of_ends(
    reader: Reader, selection: Selection, ends: list[str], frames: Sequence[pl.DataFrame], said: dict[str, None]
) -> list[Any]:
    """The labels that the two ends of a cell mean, of those in some places and those that the run has names for.

    Args:
        frames: The rows of the places.
        said: Told where an end is the name of one label and the number of another.

    Raises:
        XaiError: There is no such label.
    """
    names = LabelNames.of_classes(reader, selection)
    are_sets = isinstance(frames[0].schema[LABEL], pl.List)
    columns = [frame[name] for frame in frames for name in (LABEL, PREDICTION)]
    found = [(column.explode() if are_sets else column).drop_nulls().unique() for column in columns]
    # Numbers have names also where no row of these places has them.
    there = set().union(names.by_value if found[0].dtype.is_integer() else (), *found)
    known: dict[str, Any] = {NO_CLASS: None} if are_sets else {}
    # A name may be the number of another label ("1" of label 0): what pages show is what is asked for.
    numbers = {str(value): value for value in sorted(there)}
    known |= {**numbers, **{names[value]: value for value in numbers.values()}}
    for end in ends:
        if end in numbers and known[end] != numbers[end]:
            other = f"label {end} itself is called {names[numbers[end]]}"
            said[f"--cell {end} is taken as the name of label {known[end]}; {other}"] = None
        if end not in known:
            raise unknown("label", end, list(known), where=reader.layout.described)
    return [known[end] for end in ends]


def _in_cell(frame: pl.DataFrame, selection: Selection, values: Sequence[Any], said: dict[str, None]) -> list[Any]:
    """The samples of a cell of a place, the worse end of the metric first.

    Args:
        frame: The rows of the place.
        values: The label and the prediction.
        said: Told where samples have other rows than those in the cell.
    """
    are_sets = isinstance(frame.schema[LABEL], pl.List)
    pairs = by_class(frame, (SAMPLE_ID, "worst")) if are_sets else frame
    is_one = [
        pl.col(name).is_null() if value is None else pl.col(name) == value
        for name, value in zip((LABEL, PREDICTION), values, strict=True)
    ]
    chosen = pairs.filter(is_one)
    ids = chosen[SAMPLE_ID].unique()
    if selection.duplicates == Duplicates.ALL and frame.filter(pl.col(SAMPLE_ID).is_in(ids.implode())).height > len(
        ids
    ):
        said[
            f"with --duplicates all the cell counts {chosen.height:,} rows of {len(ids):,} samples; each is listed "
            "once, with its last prediction and value, which may be those of a row in another cell"
        ] = None
    ordered = chosen.sort("worst", SAMPLE_ID, descending=[True, False], nulls_last=True)
    return ordered[SAMPLE_ID].unique(maintain_order=True).to_list()


def labelled(reader: Reader, selection: Selection, pair: Pair, columns: list[str], **walked: Any) -> Iterator[Rows]:
    """The rows of each place, the column of the label key as `label`, and as `correct` what is right by it."""
    key = selection.label_key
    for rows in walk(reader, selection, pair, list(dict.fromkeys([key, *columns])), **walked):
        frame = with_truth(rows.frame, key)
        if key != LABEL:
            if frame.schema[LABEL].is_integer():  # facts are kept wider than classes
                frame = frame.with_columns(pl.col(name).cast(pl.Int64) for name in (LABEL, PREDICTION) if name in frame)
            if PREDICTION in frame.columns:  # what is recorded as right is so by another label, if by any
                right = is_right(LABEL, frame.schema[LABEL])
                frame = frame.rename({CORRECT: recorded(CORRECT)}, strict=False).with_columns(right.alias(CORRECT))
        yield rows._replace(frame=frame)


def refuse_other_tasks(reader: Reader, key: str = LABEL, by: str | None = None) -> None:
    """Say why a run has no confusions.

    Raises:
        XaiError: It has no labels or predictions, they are numbers, or there is no column `by`.
    """
    where = reader.layout.described
    if PREDICTION not in reader.dtypes and are_texts(reader):
        raise XaiError(f"{where} tells of texts, token by token", hint=about_texts(reader))
    answers = reader.dtypes.get(PREDICTION, reader.dtypes.get(LABEL))  # where nothing is predicted, labels say the kind
    if labels_of(reader) is LabelKind.NUMBER if answers is None else answers.is_float():
        raise XaiError(
            f"{where} predicts numbers, which are not confused with one another",
            hint="xai errors tells how far they are off",
        )
    truth = ", or name a column or fact that holds the true classes: --label-key COLUMN"
    for name, logged, else_ in ((key, "label=...", truth), (PREDICTION, "logits=... or prediction=...", "")):
        if name not in reader.dtypes:
            raise XaiError(f"{where} has no {name}s", hint=f"log them with run.log_samples(..., {logged}){else_}")
    refuse_other_kinds(reader, key)
    if by is None:
        return
    if by not in reader.dtypes:
        raise unknown("column", by, list(reader.dtypes), where=where, note=reader.facts.left_out)
    if reader.dtypes[by].is_nested():
        single = [name for name, dtype in reader.dtypes.items() if not dtype.is_nested()]
        raise UsageError(
            f"--by {by} holds several values a sample: none is its group",
            hint=f"columns of one value: {', '.join(single)}; the figures of each class are in the answer without --by",
        )


def _of_last(
    reader: Reader,
    selection: Selection,
    pair: Pair,
    rows: Rows,
    counts: pl.DataFrame,
    found: Calibration | None,
    by: str | None,
    names: LabelNames,
    extra: dict[str, list[dict[str, Any]]],
) -> pl.DataFrame:
    """What only the last place is asked for; its cells."""
    place = _place(pair, rows)
    kinds = {MODE: pl.String(), DS_ID: pl.String(), EPOCH: pl.Int32(), PASS: pl.Int16(), STEP: pl.Int64()}
    origin = [pl.lit(value, kinds[key]).alias(key) for key, value in place.items()]
    largest = _worst_of_cells(reader, selection, pair, rows, counts)
    ends = [LABEL, PREDICTION]
    cells = _named_cells(counts, names).join(largest, on=ends, how="left", nulls_equal=True, maintain_order="left")
    if found is not None:
        of_predictions = by_prediction(rows.frame)
        spelled = [{**row, "name": names[row[PREDICTION]]} for row in of_predictions.iter_rows(named=True)]
        unsure = rows.frame.drop_nulls(ends).height - found.n
        told = {"left_out": unsure, **_calibration_facts(found), "by_prediction": spelled}
        extra["calibration"].append({**place, **told})
    scores = _probabilities(reader, selection, pair, rows, names)
    if scores is not None:
        extra["probabilities"].append({**place, **scores})
    if by is not None:
        _add_groups(rows, selection, by, place, names, extra)
    return cells.select(*origin, pl.all())


def _add_groups(
    rows: Rows,
    selection: Selection,
    by: str,
    place: dict[str, Any],
    names: LabelNames,
    extra: dict[str, list[dict[str, Any]]],
) -> None:
    """The figures and cells of each value of a column."""
    column = as_recorded(rows.frame, by)
    if column.dtype.is_float():
        column = column.fill_nan(None)
    if by == CORRECT:  # counted as a number, and as a group true or false
        column = column.cast(pl.Boolean)
    values = column.unique().sort()
    n_values = len(values) - (column.null_count() > 0)
    are_classes = by in (LABEL, PREDICTION, selection.label_key)
    if by != SAMPLE_ID and not are_classes and are_many(column, _MOST_GROUPS):
        called, codes = by_quintile(column)
        column = pl.Series(by, [called[code] for code in codes], pl.String)
        values = pl.Series(by, [called[code] for code in np.unique(codes)], pl.String)
        n_values = len(values)
    if n_values > _MOST_GROUPS:
        raise UsageError(f"--by {by} has {n_values:,} values", hint=f"a matrix each of at most {_MOST_GROUPS} is shown")
    for value in values:
        part = rows.frame.filter(column.eq_missing(pl.Series([value], dtype=column.dtype)))
        counts, _, overall = counted(part)
        known = MISSING if value is None else value
        if isinstance(known, float) and math.isinf(known):
            known = str(known)
        facts = {"column": by, "value": names[value] if are_classes and value is not None else known}
        cells = _named_cells(counts, names).to_dicts()
        sure = _calibration(part, resamples=0)
        extra["by"].append({**place, **facts, **_figures(overall, part, sure), "cells": cells})


def _named_cells(counts: pl.DataFrame, names: LabelNames) -> pl.DataFrame:
    """The counts with what labels and predictions are called."""
    values = pl.concat([counts[LABEL], counts[PREDICTION]]).drop_nulls().unique()
    spelled = pl.DataFrame({"value": values, "spelled": pl.Series([names[value] for value in values], dtype=pl.String)})
    for end, name in ((LABEL, "name"), (PREDICTION, "prediction_name")):
        joined = counts.join(spelled, left_on=end, right_on="value", how="left", maintain_order="left")
        counts = joined.rename({"spelled": name}).with_columns(pl.col(name).fill_null(NO_CLASS))
    return counts.select(LABEL, PREDICTION, "name", "prediction_name", "n")


def _worst_of_cells(reader: Reader, selection: Selection, pair: Pair, rows: Rows, counts: pl.DataFrame) -> pl.DataFrame:
    """Some samples of the largest wrong cells, and of the right ones of few labels, by falling loss.

    Returns:
        label, prediction, sample_ids.
    """
    frame = rows.frame
    if LOSS in reader.dtypes:
        place = rows.place
        read = labelled(reader, selection, pair, [SAMPLE_ID, LOSS], epochs=[place.epoch], backwards=True)
        losses = next(read).frame.select(SAMPLE_ID, pl.col(LOSS).cast(pl.Float64))
        same = losses.height == frame.height and (losses[SAMPLE_ID] == frame[SAMPLE_ID]).all()
        frame = frame.with_columns(losses[LOSS]) if same else frame.join(losses, on=SAMPLE_ID, how="left")
    else:
        frame = frame.with_columns(pl.lit(None, pl.Float64).alias(LOSS))
    known = frame.select(LABEL, PREDICTION, SAMPLE_ID, LOSS)
    if isinstance(known.schema[LABEL], pl.List):
        known = by_class(known, (SAMPLE_ID, LOSS))
    ends = [LABEL, PREDICTION]
    wrong = confused_pairs(counts, _LISTED_CELLS).select(ends)
    right = counts.filter(pl.col(LABEL) == pl.col(PREDICTION)).select(ends)
    largest = pl.concat([wrong, right]) if right.height <= _SHOWN_LABELS else wrong
    members = known.join(largest, on=ends, how="semi", nulls_equal=True)
    ordered = members.sort(LOSS, SAMPLE_ID, descending=[True, False], nulls_last=True)
    return ordered.group_by(ends).agg(pl.col(SAMPLE_ID).head(_LISTED).alias("sample_ids"))


def _placed(table: pl.DataFrame, pair: Pair, rows: Rows, names: LabelNames) -> pl.DataFrame:
    named = pl.Series("name", [names[label] for label in table[LABEL]], pl.String)
    where = [pl.lit(pair[0]).alias(MODE), pl.lit(pair[1]).alias(DS_ID), *rows.times]
    return table.select(*where, pl.col(LABEL), named, pl.exclude(LABEL))


def _place(pair: Pair, rows: Rows) -> dict[str, Any]:
    place = rows.place
    return {MODE: pair[0], DS_ID: pair[1], EPOCH: place.epoch, PASS: place.turn, STEP: rows.step}


def _figures(found: Overall | None, frame: pl.DataFrame, sure: Calibration | None) -> dict[str, Any]:
    """What is told of some samples of a place, all of them or those of a value, also where none is in a cell."""
    if found is None:
        return {**_NO_FIGURES, **left_out(frame)}
    told = {**vars(found), "accuracy_interval": list(found.accuracy_interval), "undefined": list(found.undefined)}
    calibrated = {"ece": sure and sure.ece, "over_confidence": sure and sure.over_confidence}
    return {**told, **left_out(frame), **calibrated}


def _calibration(frame: pl.DataFrame, resamples: int | None = None) -> Calibration | None:
    if not {TOP_PROB, CORRECT} <= set(frame.columns):
        return None
    sure = frame[TOP_PROB].cast(pl.Float64).to_numpy()
    right = frame[CORRECT].cast(pl.Float64).to_numpy()
    return calibration(sure, right) if resamples is None else calibration(sure, right, resamples=resamples)


def _calibration_facts(found: Calibration) -> dict[str, Any]:
    bins = [{"n": n, "top_prob": sure, "accuracy": right} for n, sure, right in found.bins]
    return {
        "n": found.n,
        "ece": found.ece,
        "ece_interval": list(found.ece_interval),
        "mce": found.mce,
        "mce_interval": list(found.mce_interval),
        "over_confidence": found.over_confidence,
        "over_interval": [end if math.isfinite(end) else None for end in found.over_interval],
        "bins": bins,
    }


def _probabilities(
    reader: Reader, selection: Selection, pair: Pair, rows: Rows, names: LabelNames
) -> dict[str, Any] | None:
    """Figures of the whole probabilities, where the run keeps them."""
    if PROBS not in reader.dtypes:
        return None
    place = rows.place
    columns = [PROBS, *([LABEL_PROB] if LABEL_PROB in reader.dtypes and selection.label_key == LABEL else [])]
    kept = next(labelled(reader, selection, pair, columns, epochs=[place.epoch], backwards=True), None)
    if kept is None:
        return None
    known = kept.frame.with_columns(class_numbers(kept.frame[LABEL], reader).alias("number"))
    known = known.drop_nulls(["number", PROBS])
    if known.is_empty():
        return None
    # Probabilities of other numbers of classes than most have are none of the same model.
    widths = known[PROBS].list.len()
    frame = known.filter(widths == int(widths.mode().max()))  # type: ignore[arg-type]
    widths = frame[PROBS].list.len()
    probs = np.asarray(frame[PROBS].cast(pl.List(pl.Float32)).list.to_array(int(widths[0])).to_numpy(), np.float64)
    recorded = frame[LABEL_PROB].cast(pl.Float64).to_numpy() if LABEL_PROB in frame.columns else None
    scores = probability_scores(probs, frame["number"].to_numpy(), recorded)
    if scores is None:
        return None
    labels = class_labels(range(len(scores.auroc)), kept.frame.schema[LABEL], reader)
    per_class = [
        {"label": label, "name": names[label], "auroc": _finite(a), "average_precision": _finite(p)}
        for label, a, p in zip(labels, scores.auroc, scores.average_precision, strict=True)
    ]
    labelled_n = kept.frame.height - kept.frame[LABEL].null_count()
    told = {
        "n": scores.n,
        "left_out": labelled_n - scores.n,
        "brier": scores.brier,
        "log_loss": scores.log_loss,
        "n_clipped": scores.n_clipped,
    }
    return {**told, "one_against_rest": per_class}


def _no_probabilities(
    reader: Reader, selection: Selection, pair: Pair, rows: Rows, told: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Why a run that keeps probabilities has no figures of them at a place."""
    here = _place(pair, rows)
    if PROBS not in reader.dtypes or any(all(scores[key] == here[key] for key in (MODE, DS_ID)) for scores in told):
        return
    where, at = " ".join(filter(None, pair)), rows.place.epoch
    for found in walk(
        reader, selection, pair, [PROBS], epochs=[e for e in reader.epochs(*pair) if e <= at], backwards=True
    ):
        if not found.frame[PROBS].count():
            continue
        if found.place.epoch == at:
            kept = f"none of the probabilities of {where} kept at epoch {at}"
            yield f"{kept} is of a sample whose {selection.label_key} is one of their classes"
        else:
            yield f"no probabilities of {where} were kept at epoch {at}: the last are of --epoch {found.place.epoch}"
        return


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _no_rows() -> pl.DataFrame:
    times = {EPOCH: pl.Int32(), PASS: pl.Int16(), STEP: pl.Int64()}
    counts = dict.fromkeys(("n", "n_predicted", "n_right"), pl.Int64())
    figures = dict.fromkeys(("precision", "recall", "f1"), pl.Float64())
    label = {LABEL: pl.Int32(), "name": pl.String()}
    places = {MODE: pl.String(), DS_ID: pl.String(), **times}
    return pl.DataFrame(schema={**places, **label, **counts, **figures, "undefined": pl.List(pl.String)})
