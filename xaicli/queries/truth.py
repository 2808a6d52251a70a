"""Another truth: a column that says, in place of the label, which predictions are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import polars as pl

from xaicli.errors import UsageError, XaiError
from xaicli.queries.selection import Selection
from xaicli.reader import Reader
from xaicli.vocabulary import CORRECT, EL2N, LABEL, LABEL_PROB, LOSS, MARGIN, PREDICTION


def is_right(label: str, dtype: pl.DataType) -> pl.Expr:
    """Whether a prediction is the label; a set of classes, whether it is exactly its set. Null without either.

    Args:
        label: The column of labels.
        dtype: What it holds.
    """
    ends = [pl.col(name) for name in (label, PREDICTION)]
    truth, taken = (end.list.unique().list.sort() for end in ends) if isinstance(dtype, pl.List) else ends
    return truth == taken


def with_truth(frame: pl.DataFrame, key: str) -> pl.DataFrame:
    """Rows with the label key's column as `label`; a recorded label stays beside it, where `as_recorded` finds it."""
    if key == LABEL or key not in frame.columns:
        return frame
    return frame.rename({LABEL: recorded(LABEL)}, strict=False).with_columns(pl.col(key).alias(LABEL))


def recorded(name: str) -> str:
    """What a recorded column is called where a truth, or what is right by it, stands in its place."""
    return f"{name} as recorded"


def as_recorded(frame: pl.DataFrame, name: str) -> pl.Series:
    """A column by its own name, whatever stands in its place."""
    return frame[recorded(name) if recorded(name) in frame.columns else name]


def is_truth(reader: Reader, key: str) -> bool:
    """Whether a column other than the label says which predictions are right: it holds classes of their kind."""
    known = {key, PREDICTION} <= reader.dtypes.keys() and not reader.dtypes[PREDICTION].is_float()
    return key not in (LABEL, PREDICTION) and known and not no_truth(reader, key)


def hold_classes(reader: Reader, key: object) -> None:
    """Hold a fact of numbers that are classes of the run, all of them, as whole ones.

    pandas writes whole numbers as floats where some are missing, and recorders a label of 0 or 1.

    Args:
        reader: The run; its predictions are whole numbers, or nothing happens.
        key: The label key, as it was given.
    """
    if not isinstance(key, str) or key in (LABEL, PREDICTION) or not reader.stored.get(PREDICTION, _NONE).is_integer():
        return
    if not reader.facts.dtypes.get(key, _NONE).is_float():
        return
    known, others = reader.classes_in(key)
    if known and not others:
        reader.facts.hold_whole(key)


def is_true_number(reader: Reader, key: str) -> bool:
    """Whether a column other than the label says how far off predictions are: both hold numbers, whole ones or not."""
    held, predicted = (reader.dtypes.get(name, pl.Null()) for name in (key, PREDICTION))
    return key not in (LABEL, PREDICTION) and held.is_numeric() and predicted.is_float()


def are_numbers(reader: Reader, key: str) -> bool:
    """Whether what stands for the label is near or far, not right or wrong, and so no group of samples."""
    return reader.dtypes.get(key, pl.Null()).is_float() or is_true_number(reader, key)


def right_by(readers: Sequence[Reader], key: str) -> list[tuple[str, pl.Expr]]:
    """What tells in runs that are compared whether a prediction is right, in all of them the same.

    Args:
        readers: The runs.
        key: The label key.

    Returns:
        For each run a column, which it may lack, and what is made of that and the label key.
    """
    if all(is_truth(reader, key) for reader in readers):
        return [(PREDICTION, is_right(key, reader.dtypes[key])) for reader in readers]
    return [(CORRECT, pl.col(CORRECT)) for _ in readers]


def by_truth(
    reader: Reader, selection: Selection, measures: Sequence[str] = (), *, shows_right: bool = False
) -> Selection:
    """The selection of a question that holds the label key against the predictions, where that is another truth.

    Args:
        reader: The run.
        selection: Which rows.
        measures: The metrics that the question goes by: a warning names those measured against the recorded label.
        shows_right: Whether it shows of samples whether they are right: a warning says where nothing tells that.
    """
    if not is_truth(reader, selection.label_key) and not is_true_number(reader, selection.label_key):
        if not (shows_right and (unlike := no_truth(reader, selection.label_key))):
            return selection
        unsaid = f"{unlike}: samples are told neither right nor wrong"
        return replace(selection, warnings=(*selection.warnings, unsaid))
    said = [*never_right(reader, selection.label_key), *measured_otherwise(reader, selection.label_key, measures)]
    return replace(selection, label_is_truth=True, warnings=(*selection.warnings, *said))


def never_right(reader: Reader, key: str) -> list[str]:
    """What to say of values of another truth that are no classes of the run's."""
    if not is_truth(reader, key) or not (others := reader.classes_in(key)[1]):
        return []
    shown = ", ".join(map(str, sorted(others)[:_SHOWN])) + (", ..." if len(others) > _SHOWN else "")
    what, are = ("1 value", "is") if len(others) == 1 else (f"{len(others):,} values", "are")
    where = reader.layout.described
    return [f"{what} of {key} {are} no label or prediction of {where}, and no prediction is right there: {shown}"]


def measured_otherwise(reader: Reader, key: str, measures: Sequence[str]) -> list[str]:
    """What to say of metrics that the recorder measured against the label, where another column is the truth."""
    own = [name for name in measures if name in (LOSS, LABEL_PROB, MARGIN, EL2N, CORRECT, *_OF_NUMBERS)]
    if not own or LABEL not in reader.dtypes:
        return []
    are = "is" if len(own) == 1 else "are"
    if is_true_number(reader, key):
        return [f"{', '.join(own)} {are} as recorded, measured against label and not against {key}"]
    if not is_truth(reader, key):
        return []
    return [f"predictions are right where they are {key}; {', '.join(own)} {are} as recorded, measured against label"]


def measured_of_all(readers: Sequence[Reader], key: str, measures: Sequence[str]) -> list[str]:
    """The same of runs that are compared; or which of them cannot be judged by a truth of others."""
    others = [reader for reader in readers if not is_truth(reader, key)]
    if not others or all(is_true_number(reader, key) for reader in readers):
        said = (never_right(reader, key) for reader in readers)
        return [*dict.fromkeys(chain.from_iterable(said)), *measured_otherwise(readers[0], key, measures)]
    if len(others) == len(readers) and not any(CORRECT in reader.dtypes for reader in readers):
        return []
    return told_by_label(next((reader for reader in others if no_truth(reader, key)), others[0]), key)


def told_by_label(reader: Reader, key: str) -> list[str]:
    """What to say where the label key only groups, and what is right is told beside it; or is by it, and never so."""
    if key == LABEL or is_truth(reader, key):
        return never_right(reader, key)
    lack = no_truth(reader, key) or f"{reader.layout.described} has no {key} beside predictions"
    return [f"{lack}: what is right is told as recorded, by label"]


def refuse_other_kinds(reader: Reader, key: str) -> None:
    """Say that a label key is no truth of the predictions, where a run has both.

    Raises:
        UsageError: It is the predictions themselves, or of another type than these.
        XaiError: The run's own labels are of another type than its predictions.
    """
    if said := no_truth(reader, key):
        if key == LABEL:
            raise XaiError(said, hint="log both by name or both by number; Run(label_names=[...]) makes them alike")
        hint = "it takes a column of true classes of the predictions' kind, such as label"
        if reader.dtypes[key].is_float() and key not in reader.facts.dtypes:
            hint += f"; a metric holds measured numbers, classes are facts: run.log_facts(sample_id, {key}=...)"
        elif reader.dtypes[key] == pl.Boolean():
            hint += "; True and False only group, 0 and 1 are classes"
        raise UsageError(said, hint=hint, refused=("label_key",))


def only_groups(reader: Reader, key: str) -> str:
    """What there is to say of a column other than the label that is no truth of the predictions; "" of any other."""
    return "" if key == LABEL else no_truth(reader, key)


def no_truth(reader: Reader, key: str) -> str:
    """What there is to say where a label key is no truth of the predictions; "" where it may be one."""
    kinds = [reader.dtypes[name] for name in (key, PREDICTION) if name in reader.dtypes]
    if len(kinds) < 2:
        return ""
    if key != PREDICTION and _are_alike(*kinds):
        known, others = ((), ()) if key == LABEL or kinds[1].is_float() else reader.classes_in(key)
        if known or not others:
            return ""
        return f"--label-key {key} cannot be held against the predictions of {reader.layout.described}, {_OF_NONE}"
    if key == LABEL:
        label, prediction = (_TOLD.get(_kind(dtype), str(dtype)) for dtype in kinds)
        where = reader.layout.described
        return f"labels are {label} and predictions {prediction} in {where}: nothing says which are right"
    return f"--label-key {key} cannot be held against the predictions of {reader.layout.described}"


def _are_alike(label: pl.DataType, prediction: pl.DataType) -> bool:
    """Whether one may be the truth of the other: classes of the same kind, or numbers."""
    if label.is_numeric() and prediction.is_float():
        return True
    return _kind(label) is _kind(prediction)


_NONE = pl.Null()
_SHOWN = 5
_OF_NONE = "for it holds none of their classes"
_OF_NUMBERS = ("residual", "abs_error")
"""What the recorder measures of numbers beside their loss."""

_TOLD: dict[type[pl.DataType], str] = {
    pl.Int64: "whole numbers",
    pl.String: "texts",
    pl.List: "sets of classes",
    pl.Float64: "numbers",
    pl.Float32: "numbers",
}


def _kind(dtype: pl.DataType) -> type[pl.DataType]:
    """What a column's classes are: whole numbers of any width, or what its type says."""
    return pl.Int64 if dtype.is_integer() else type(dtype)
