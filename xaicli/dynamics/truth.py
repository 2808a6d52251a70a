"""Every ranking of suspects scored against labels known to be wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.answer import Answer
from xaicli.diagnosis.calibration import auroc, average_precision
from xaicli.diagnosis.confusion import wilson
from xaicli.dynamics.computed import Statistics
from xaicli.dynamics.label_issues import doubts
from xaicli.dynamics.suspects import suspicion
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.queries.selection import Pair, Selection, left_out_by
from xaicli.queries.tasks import are_texts
from xaicli.queries.truth import only_groups
from xaicli.reader import Reader
from xaicli.tables.labels import Classes, Spelt, Written, class_number, in_order_apart, is_same_number, taken_as_names
from xaicli.tables.lists import is_typed, places_of, read_columns
from xaicli.vocabulary import DS_ID, LABEL, MODE, SAMPLE_ID

MISLABELLED = "mislabelled"
_KINDS = "CSV, Parquet, JSON or JSON lines with sample_id and label"
_TRUTH_VALUES = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}

RANKINGS: Mapping[str, int] = {
    "loss_mean": 1,
    "loss_last": 1,
    "ema": 1,
    "el2n": 1,
    "confidence": -1,
    "aum": -1,
    "correctness": -1,
    "variability": 1,
    "forgetting": 1,
    "rank_jump": 1,
}
"""The statistics that rank samples, and which end is suspicious."""

_FIRST = 100


def score_rankings(
    reader: Reader, selection: Selection, computed: Statistics, path: str | os.PathLike[str]
) -> tuple[dict[str, dict[str, float | None]], list[str]]:
    """How well each ranking finds the samples whose label is wrong.

    Args:
        reader: The run.
        selection: Which rows.
        computed: The statistics of every sample.
        path: The truth: CSV, Parquet, JSON or JSON lines with sample_id and the true label, or mislabelled (0/1).

    Returns:
        {ranking: {auroc, ap, p_at_100}} (null without both right and wrong labels), and warnings. With more than one
        (mode, ds_id), which are never pooled, a ranking's name has them in front: `train suspects`. Those of which the
        truth knows no sample are not scored.

    Raises:
        XaiError: The file cannot be read, lacks a column, or has no sample of the selection, or none with a label.
        UsageError: It holds true labels, and the label key no labels.
    """
    warnings: list[str] = []
    truth = read_truth(path, reader, warnings)
    key = selection.label_key
    if LABEL in truth.columns and only_groups(reader, key):
        raise UsageError(
            f"{os.fspath(path)} holds true labels, and --label-key {key} only groups: there is nothing to hold them "
            "against",
            hint=f"leave --label-key out, or say which labels are wrong: 0 and 1 in a column {MISLABELLED}",
            refused=("label_key",),
        )
    found: dict[str, dict[str, float | None]] = {}
    unknown_pairs: list[Pair] = []
    unlabelled: list[Pair] = []
    for pair in selection.pairs:
        frame = computed.frames[pair]
        of_pair = _of_place(truth, pair)
        wrong = _wrong(frame, of_pair)
        known, named = wrong.is_not_null(), frame[SAMPLE_ID].is_in(of_pair[SAMPLE_ID].implode())
        if not known.any():
            (unlabelled if named.any() else unknown_pairs).append(pair)
            continue
        where, n_named = " ".join(filter(None, pair)), int(named.sum())
        if n_named < frame.height:
            warnings.append(
                f"the truth knows {n_named:,} of {frame.height:,} samples of {where}; only these are scored"
            )
        if n := n_named - int(known.sum()):
            of = f"{n:,} of the {n_named:,} samples of {where} that the truth knows"
            warnings.append(f"{of} {'has' if n == 1 else 'have'} no {key} that it could contradict: not scored")
        target = wrong.filter(known).to_numpy()
        if n := int(pl.select(suspicion(frame).is_null() & known).to_series().sum()):
            warnings.append(
                f"{n:,} of the {int(known.sum()):,} samples of {where} that are scored "
                f"{'has' if n == 1 else 'have'} no label or no finite value to be suspected by: suspects has them last"
            )
        prefix = f"{' '.join(filter(None, pair))} " if len(selection.pairs) > 1 else ""
        for name, scores in _rankings(reader, selection, pair, frame).items():
            found[prefix + name] = grade(scores[known.to_numpy()], target)
        if target.all() or not target.any():
            warnings.append("all known labels are wrong" if target.any() else "no known label is wrong")
    if not found and unlabelled:
        raise XaiError(
            f"no sample of {_listed(unlabelled)} that {os.fspath(path)} knows has a {key} that it could contradict",
            hint=_judged(reader, key),
        )
    if len(unknown_pairs) == len(selection.pairs):
        raise _no_sample(reader, selection, computed, truth, os.fspath(path))
    if unknown_pairs:
        scored = "which is not scored" if len(unknown_pairs) == 1 else "which are not scored"
        warnings.append(f"the truth knows no sample of {_listed(unknown_pairs)}, {scored}")
    if unlabelled:
        warnings.append(f"no sample of {_listed(unlabelled)} that the truth knows has a {key}: not scored")
    return found, warnings


def _judged(reader: Reader, key: str) -> str:
    """What can be judged of samples without a label."""
    taken = f"0 and 1 in a column {MISLABELLED} are taken as they are"
    if key == LABEL and are_texts(reader):  # whose other columns only group them
        return f"of a sequence each token has a label; {taken}"
    return f"--label-key COLUMN judges what stands in another column; {taken}"


def _no_sample(reader: Reader, selection: Selection, computed: Statistics, truth: pl.DataFrame, path: str) -> XaiError:
    """What is said of a truth that knows no sample of those asked about."""
    limits = left_out_by(reader, selection)
    where = _listed(selection.pairs) if limits else "the run"
    ids = pl.concat([computed.frames[pair][SAMPLE_ID] for pair in selection.pairs])
    said = [f"{limits} leaves the others out"] if limits else []
    said += [f"sample ids of {where}: {_some(ids)}", f"of the file: {_some(truth[SAMPLE_ID])}"]
    if MODE in truth.columns and (modes := truth[MODE].unique().sort().to_list()) != [""]:
        said.append(f"its rows are of {', '.join(filter(None, modes))}")
    return XaiError(f"{path} knows no sample of {where}", hint="; ".join(said))


def _listed(pairs: Sequence[Pair]) -> str:
    told = [" ".join(filter(None, pair)) for pair in pairs]
    return ", ".join(told[:5]) + (f" and {len(told) - 5:,} more" if len(told) > 5 else "")


def read_truth(path: str | os.PathLike[str], reader: Reader, warnings: list[str] | None = None) -> pl.DataFrame:
    """sample_id, as the run's kind and each once, and `label`, as the run spells it, or `mislabelled` (bool).

    Where the file says by `mode` and `ds_id` of which samples a row is, these are there, too: an id once in each.

    Args:
        path: The file.
        reader: The run.
        warnings: Where to tell of rows that say nothing, or of a sample again, of which the last counts.

    Raises:
        XaiError: The file cannot be read or lacks a column, or `mislabelled` is neither 0 nor 1.
    """
    file = Path(path)
    try:
        is_parquet = file.suffix.lower() in (".parquet", ".pq")
        frame = pl.read_parquet(file) if is_parquet else pl.DataFrame(read_columns(file), strict=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise XaiError(f"{file} cannot be read: {error}", hint=_KINDS) from error
    if SAMPLE_ID not in frame.columns:
        raise XaiError(f"{file} has no column sample_id", hint=f"its columns: {', '.join(frame.columns)}")
    if not frame.height:
        raise XaiError(
            f"{file} names no sample: it has no row", hint="what xai relabel apply writes where no label was corrected"
        )
    if not {LABEL, MISLABELLED} & set(frame.columns):
        raise XaiError(f"{file} has neither label nor mislabelled", hint=f"its columns: {', '.join(frame.columns)}")
    ids = frame[SAMPLE_ID].cast(reader.dtypes.get(SAMPLE_ID, pl.Int64()), strict=False)
    if MISLABELLED in frame.columns:
        if LABEL in frame.columns and warnings is not None:
            warnings.append(f"{file} has {LABEL}, too, which is not read: its {MISLABELLED} says whose label is wrong")
        verdict = frame[MISLABELLED].cast(pl.String).str.strip_chars().str.to_lowercase()
        value = verdict.replace_strict(_TRUTH_VALUES, default=None, return_dtype=pl.Boolean)
        unclear = frame[MISLABELLED].filter(value.is_null() & (verdict.fill_null("") != ""))
        if len(unclear):
            raise XaiError(
                f"{file} says mislabelled of a sample: {unclear[0]}", hint="1 where its label is wrong, 0 where right"
            )
        known = pl.DataFrame({SAMPLE_ID: ids, MISLABELLED: value})
    else:
        labels, said = _as_recorded(frame, reader, is_typed=is_typed(file))
        known = pl.DataFrame({SAMPLE_ID: ids, LABEL: labels})
        if warnings is not None:
            warnings += said
    whole = known.drop_nulls()
    if {MODE, DS_ID} & set(frame.columns):
        named = places_of(frame.to_dict(as_series=False))
        places = pl.DataFrame(named, schema={MODE: pl.String, DS_ID: pl.String}, orient="row")
        whole = pl.concat([known, places], how="horizontal").drop_nulls(known.columns)
    places_of_id = [name for name in (SAMPLE_ID, MODE, DS_ID) if name in whole.columns]
    single = whole.unique(places_of_id, keep="last", maintain_order=True)
    if warnings is not None:
        if n := known.height - whole.height:
            warnings.append(f"{_rows(n)} of {file} without an id of the run's kind, or without a truth: left out")
        if n := whole.height - single.height:
            warnings.append(f"{_rows(n)} of {file} about a sample that it names again: the last counts")
    return single


def suggestions(reader: Reader, suspects: Answer, truth: str | os.PathLike[str]) -> dict[str, Any] | None:
    """How often the suggested label is the true one, among listed suspects whose label is wrong.

    Args:
        reader: The run.
        suspects: What `suspects` answers.
        truth: A file with sample_id and the true label.

    Returns:
        n, right, accuracy, low, high (Wilson's 95 % interval); None where the truth does not know true labels, or no
        suspect's label is wrong.
    """
    known = read_truth(truth, reader)
    if LABEL not in known.columns or known[LABEL].dtype.is_float() or known[LABEL].dtype.is_nested():
        return None
    parts = [
        frame.join(_of_place(known, (str(mode), str(ds_id))).rename({LABEL: "true"}), on=SAMPLE_ID, how="inner")
        for (mode, ds_id), frame in suspects.data.group_by(MODE, DS_ID, maintain_order=True)
    ]
    joined = pl.concat(parts) if parts else suspects.data.clear().with_columns(true=None)
    wrong = joined.filter(pl.col("true") != pl.col(LABEL)).drop_nulls("suggested_label")
    right, n = int((wrong["suggested_label"] == wrong["true"]).sum()), wrong.height
    if not n:
        return None
    low, high = wilson(right, n)
    return {"n": n, "right": right, "accuracy": right / n, "low": low, "high": high}


def _of_place(truth: pl.DataFrame, pair: Pair) -> pl.DataFrame:
    """What a truth says of the samples of one (mode, ds_id); where it does not say of which it is, of all."""
    if MODE not in truth.columns:
        return truth
    modes, sets = pl.col(MODE), pl.col(DS_ID)
    own = truth.filter(modes.is_in(["", pair[0]]) & (sets.is_null() | (sets == pair[1])))
    # A row that names the place stands before one that names none.
    return own.sort(modes == "", sets.is_null()).unique(SAMPLE_ID, keep="first", maintain_order=True).drop(MODE, DS_ID)


def _as_recorded(frame: pl.DataFrame, reader: Reader, *, is_typed: bool) -> tuple[pl.Series, list[str]]:
    """True labels as the run spells its own: numbers, also for class names, sets of them, or text; and what is said.

    Raises:
        XaiError: The run has no such label.
    """
    dtype, label = reader.dtypes.get(LABEL, pl.Int32()), frame[LABEL]
    if dtype.is_float():
        return _as_numbers(label), []
    names = in_order_apart(reader.manifest.label_names or ())
    by_name = {name: number for number, name in enumerate(names)}
    classes = Classes(by_name, range(len(names)))
    if isinstance(dtype, pl.List):
        written = [Written.of(value, Spelt.NAME if is_typed else Spelt.EITHER) for value in label.to_list()]
        sets = [_as_set(one, classes, names) for one in written]
        # In a run of two classes [0, 1] may be both of them, or a place for each.
        n = 0 if len(names) > 2 else sum(one.may_be_row for one in written)
        said = f"{_rows(n)} of the truth with [0, 1] or [1, 0]: taken as both classes, and may be a row of 0 and 1"
        return pl.Series(LABEL, sets, pl.List(pl.Int32)), [f"{said}; write the names of the classes"] if n else []
    if not dtype.is_integer():
        return _as_texts(label.cast(pl.String), reader), []
    spelt = Spelt.NUMBER if label.dtype.is_numeric() else Spelt.NAME if is_typed else Spelt.EITHER
    has_names = "name" in frame.columns and frame.schema["name"] == pl.String()
    each = frame.select(
        label.cast(pl.String),
        pl.col("name").fill_null("") if has_names else pl.lit("").alias("name"),
    )
    if _are_flags(each[LABEL]).any():
        # Without names only the labels that there are tell whether they are flags.
        classes = Classes(by_name, range(len(names)) if names else reader.values(LABEL), are_flags=True)
    found: dict[tuple[str, str], int] = {}
    as_names: dict[tuple[str, object, object], int] = {}
    for text, called, n in each.drop_nulls(LABEL).group_by(LABEL, "name", maintain_order=True).len().iter_rows():
        meant = classes.meant(text, spelt, called)
        number = meant[0] if len(meant) == 1 else class_number(text)
        if number is None and text.strip():
            raise unknown("label", text, names, where=reader.layout.described)
        if number is not None:
            found[text, called] = number
        for other in classes.instead(text, spelt, called):
            as_names[text, number, other] = as_names.get((text, number, other), 0) + n
    values = [found.get(key) for key in each.iter_rows()]
    return pl.Series(LABEL, values, dtype), [taken_as_names(as_names)] if as_names else []


def _are_flags(texts: pl.Series) -> pl.Series:
    return texts.str.strip_chars().str.to_lowercase().is_in(["true", "false"])


def _as_texts(label: pl.Series, reader: Reader) -> pl.Series:
    """True texts; True and False as the run spells them."""
    if not (flags := _are_flags(label)).any():
        return label
    classes = Classes({text: text for text in reader.values(LABEL)}, (), are_flags=True)
    meant = {text: classes.meant(text, Spelt.NAME) for text in label.filter(flags).unique()}
    return label.replace({text: own[0] for text, own in meant.items() if len(own) == 1})


def _as_numbers(label: pl.Series) -> pl.Series:
    """True numbers; null for a blank.

    Raises:
        XaiError: One is no number.
    """
    texts = label.cast(pl.String).str.strip_chars()
    texts = texts.set(texts == "", None)
    numbers = texts.cast(pl.Float64, strict=False)
    if len(odd := texts.filter(numbers.is_null() & texts.is_not_null())):
        raise XaiError(f"a true label is no number: {odd[0]}", hint="the labels of this run are numbers")
    return numbers


def _as_set(written: Written, classes: Classes[int], names: Sequence[str]) -> list[int] | None:
    """The numbers of the classes of one true label, ascending; None for a blank.

    Args:
        written: The label as it stands in the file.
        classes: The classes of the run.
        names: What they are called.

    Raises:
        XaiError: There is no such class.
    """
    if not written.is_list and not any(str(one).strip() for one in written.values):
        return None
    if written.row is not None:
        return written.row
    found = []
    for one in written.values:
        text = str(one)
        meant = classes.meant(text, written.spelt_as(one))
        number = meant[0] if len(meant) == 1 else class_number(text)
        if number is None:
            raise unknown("label", text, names)
        found.append(number)
    return sorted(set(found))


def _wrong(frame: pl.DataFrame, truth: pl.DataFrame) -> pl.Series:
    """(n,) whether each sample's label is wrong, null where the truth does not know it."""
    joined = frame.select(SAMPLE_ID, LABEL).join(
        truth.rename({LABEL: "true"}, strict=False), on=SAMPLE_ID, how="left", maintain_order="left"
    )
    if MISLABELLED in joined.columns:
        wrong = joined[MISLABELLED]
    elif isinstance(joined.schema[LABEL], pl.List):
        wrong = joined[LABEL].cast(pl.List(pl.Int32)).list.sort() != joined["true"]
    elif joined.schema[LABEL].is_float():
        pairs = joined.select(LABEL, "true").iter_rows()
        same = [None if label is None or true is None else is_same_number(label, true) for label, true in pairs]
        wrong = ~pl.Series(same, dtype=pl.Boolean)
    else:
        wrong = joined[LABEL] != joined["true"]
    return wrong


def _rows(n: int) -> str:
    return "1 row" if n == 1 else f"{n:,} rows"


def _some(ids: pl.Series) -> str:
    return ", ".join(map(str, ids.head(5))) + (", ..." if len(ids) > 5 else "")


def _rankings(reader: Reader, selection: Selection, pair: Pair, frame: pl.DataFrame) -> dict[str, NDArray[np.float64]]:
    """The scores of every sample by every ranking, higher for more suspicious ones; samples without come last."""
    found = {name: sign * frame[name].cast(pl.Float64) for name, sign in RANKINGS.items() if name in frame.columns}
    found["suspects"] = suspicion(frame)
    held = doubts(reader, selection, pair)
    if held is not None:
        scores = frame.select(SAMPLE_ID).join(held.scores, on=SAMPLE_ID, how="left", maintain_order="left")
        found["label_issues"] = scores["score"]
    return {name: _filled(scores) for name, scores in found.items() if scores.null_count() < len(scores)}


def _filled(scores: pl.Series) -> NDArray[np.float64]:
    lowest: Any = scores.min()
    filled: NDArray[np.float64] = scores.fill_null(lowest - 1.0).to_numpy()
    return filled


def grade(scores: NDArray[np.float64], wrong: NDArray[np.bool_]) -> dict[str, float | None]:
    """AUROC, average precision and the precision among the first 100 of one ranking.

    Equal scores count half for AUROC and share one threshold for average precision; among the first 100 they come in
    the order given.

    Args:
        scores: (n,) higher for more suspicious samples, in the order of sample ids.
        wrong: (n,) which labels are wrong.
    """
    if wrong.all() or not wrong.any():
        return {"auroc": None, "ap": None, "p_at_100": None}
    first = wrong[np.argsort(-scores, kind="stable")[:_FIRST]]
    return {
        "auroc": auroc(scores, wrong),
        "ap": average_precision(scores, wrong),
        "p_at_100": float(first.mean()),
    }
