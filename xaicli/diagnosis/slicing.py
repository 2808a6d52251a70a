"""What is asked of groups of samples: `slices`, and what kept inputs tell of samples that have no facts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.answer import Answer
from xaicli.diagnosis.slices import MIN_N, MOST_VALUES, Slice, find_slices
from xaicli.diagnosis.training import none_meets
from xaicli.errors import XaiError, unknown, whole_number
from xaicli.queries.names import LabelNames
from xaicli.queries.rows import walk
from xaicli.queries.selection import Pair, Selection, words
from xaicli.queries.tasks import N_TOKENS
from xaicli.reader import Reader, Tally
from xaicli.sources.inputs import BadSampleError
from xaicli.sources.pictures import Preparation, is_picture, is_plane
from xaicli.sources.table import open_kept
from xaicli.vocabulary import (
    CORRECT,
    DS_ID,
    END_IS_KNOWN,
    EPOCH,
    HIGH_IS_GOOD,
    LABEL,
    MODE,
    PASS,
    PREDICTION,
    SAMPLE_ID,
)

BRIGHTNESS, LENGTH = "brightness", "length"
_INPUT_IDS, _MASK = _TEXT = "input_ids", "attention_mask"
MOST = 20_000
"""So many inputs are read."""
_KEY = (MODE, DS_ID, SAMPLE_ID)


def kept_inputs(reader: Reader) -> tuple[pl.DataFrame, str]:
    """What the inputs of `run.log_inputs` are like, and a word where not all were read or some are like nothing.

    Returns:
        Rows mode, ds_id (both empty where inputs were kept without), sample_id, and of the kinds there are brightness
        (the mean of a picture's values as the model was given them, bytes as parts of 255 and pixels of 16 bits of
        65,535) and length (how many tokens a row of whole numbers has, those left out
        that its attention mask leaves out); no columns but these three where no inputs were kept.
    """
    kind = reader.stored.get(SAMPLE_ID, pl.Int64())
    key = {MODE: pl.String(), DS_ID: pl.String(), SAMPLE_ID: kind}
    nothing = pl.DataFrame(schema=key)
    if not reader.layout.inputs.is_dir():
        return nothing, ""
    try:
        kept = open_kept(reader.layout, None, Preparation(), strict=False, contents=reader.contents)
    except XaiError:
        return nothing, ""
    rows: list[dict[str, Any]] = []
    unlike: list[str] = []
    for position, ((mode, ds_id), sample_id) in enumerate(zip(kept.pairs[:MOST], kept.sample_ids[:MOST], strict=True)):
        try:
            sample = kept.read(position)
        except (BadSampleError, XaiError, ValueError, OSError):
            continue
        bright = _brightness(sample.arrays)
        length = _length(sample.arrays) if bright is None else None
        rows.append({MODE: mode, DS_ID: ds_id, SAMPLE_ID: sample_id, BRIGHTNESS: bright, LENGTH: length})
        if bright is None and length is None:
            unlike.append(" and ".join(f"{a.dtype} of shape {a.shape}" for a in sample.arrays.values()))
    frame = pl.DataFrame(rows, schema={**key, BRIGHTNESS: pl.Float64(), LENGTH: pl.Int64()}, strict=False)
    told = frame.select(*key, *(name for name in (BRIGHTNESS, LENGTH) if frame[name].null_count() < frame.height))
    left = len(kept.sample_ids) - MOST
    said = [f"{left:,} of {len(kept.sample_ids):,} kept inputs were not looked at"] if left > 0 else []
    if unlike:
        said.append(f"{len(unlike):,} of {len(rows):,} kept inputs have neither brightness nor length: {unlike[0]}")
    return told, "; ".join(said)


def _brightness(arrays: Mapping[str, NDArray[Any]]) -> float | None:
    """The mean of a picture's values; None for what is none.

    Of the values that were kept: those of the picture that is drawn of them are cut off, or stretched one by one.
    """
    are_texts = not arrays.keys().isdisjoint(_TEXT)
    numbers = [a for name, a in arrays.items() if name not in _TEXT and a.dtype.kind in "biuf" and a.size]
    planes = [] if are_texts else [a for a in numbers if is_plane(a.shape) or (a.ndim == 2 and a.dtype == np.uint8)]
    values = next((a for a in (*(a for a in numbers if is_picture(a.shape)), *planes)), None)
    if values is None:
        return None
    with np.errstate(invalid="ignore"):  # of infinities of both signs
        bright = float(values.mean(dtype=np.float64)) / _MOST_OF.get(values.dtype.name, 1)
    return bright if math.isfinite(bright) else None


_MOST_OF = {"uint8": 2**8 - 1, "uint16": 2**16 - 1}
"""What pixels are parts of, by their type."""


def _length(arrays: Mapping[str, NDArray[Any]]) -> int | None:
    """How many tokens a text has; None for what is no row of whole numbers."""
    tokens = arrays.get(_INPUT_IDS, next(iter(arrays.values())))
    if tokens.dtype.kind not in "iu" or tokens.ndim != 1:
        return None
    mask = arrays.get(_MASK)
    return int(np.count_nonzero(mask)) if mask is not None and mask.shape == tokens.shape else len(tokens)


_IDS = 20
_CLASSES = 20
"""Where labels are sets of classes, so many of the most frequent classes are slices."""


def slices(
    reader: Reader,
    selection: Selection,
    *,
    by: str | list[str] | None = None,
    min_n: int = MIN_N,
) -> Answer:
    """The slices that fare differently from all others at the last place of each (mode, ds_id), the worst first.

    Args:
        reader: The run.
        selection: Which rows.
        by: Facts and columns whose values, and pairs of values, are slices; the label and every fact when None; of a
            run without facts label, prediction, length, and the brightness or length of kept inputs. Of sets of
            classes each class is one, `yes` where it is in the set.
        min_n: Samples a slice must have.

    Returns:
        Rows mode, ds_id, epoch, pass, metric, facts {column: value}, n, share, mean, rest_mean, difference, low, high
        (95 % interval of the difference), p, q, worse, wrong, wrong_share (of all wrong predictions), sample_ids (the
        20 worst); ordered by difference x share, the worst first. The key `searched` tells how many slices were looked
        at, and how many were left out since others explain them. Where nothing says which end of a metric is good, the
        high end counts as the worse one, and a warning says so.

    Raises:
        UsageError: `min_n` is less than 2.
        XaiError: There is nothing to slice by, or no such column.
    """
    min_n = whole_number("--min-n", min_n, least=2)
    wanted = words(by, "by")
    asks_inputs = wanted is None and not reader.facts.names
    asks_inputs |= bool({BRIGHTNESS, LENGTH} & set(wanted or ()) - set(reader.dtypes))
    inputs, said = kept_inputs(reader) if asks_inputs else (None, "")
    of_inputs = inputs.columns[len(_KEY) :] if inputs is not None else []
    columns = _columns(reader, selection, wanted, of_inputs, said)
    names = {name: LabelNames.of_column(reader, selection, name) for name in columns}
    tally = Tally()
    warnings = [*selection.warnings, *([said] if said and of_inputs else [])]
    warnings += [
        f"which end of {metric} is good is not known: the high end is told as the worse one"
        for metric in selection.metrics
        if metric not in END_IS_KNOWN
    ]
    rows: list[dict[str, Any]] = []
    searched: list[dict[str, Any]] = []
    for pair in selection.pairs:
        frame, place = _last(reader, selection, pair, columns, names, warnings, tally, inputs)
        frame, sliced = _classes_apart(frame, columns, names, warnings)
        for metric in selection.metrics:
            found = find_slices(frame, metric, sliced, min_n=min_n, high_is_good=metric in HIGH_IS_GOOD)
            told = {MODE: pair[0], DS_ID: pair[1], **place, "metric": metric}
            warnings += [
                f"{name} has many values: the {MOST_VALUES} most frequent are slices, the others of "
                f"{n:,} {'sample' if n == 1 else 'samples'} one together"
                for name, n in found.others.items()
            ]
            warnings += [f"{name} is another for every sample, as a name is: it makes no slice" for name in found.names]
            if not found.looked_at:
                where = " ".join(filter(None, (metric, "of", *pair)))
                warnings.append(f"{where}: no slice has {min_n:,} samples with a value, and others beside it")
            left = {"explained": found.explained, "not_compared": found.left_out}
            searched.append({**told, "looked_at": found.looked_at, "found": len(found.slices), **left})
            part = [{**told, **_row(one, frame, metric)} for one in found.slices]
            rows += sorted(part, key=lambda row: -row["badness"])
    if wanted is None and reader.facts.wanted and (unread := reader.facts.left_out):
        warnings.insert(0, unread)  # what is worst may be among them
    return Answer(
        command="slices",
        run=reader.layout.described,
        selection={**selection.as_dict(), "by": columns, "min_n": min_n},
        data=_data(rows, reader.dtypes.get(SAMPLE_ID, pl.Int64())),
        counts=reader.counts(tally),
        warnings=tuple(dict.fromkeys(warnings)),
        extra={"searched": searched},
    )


def _columns(
    reader: Reader, selection: Selection, given: list[str] | None, of_inputs: list[str], said: str
) -> list[str]:
    key, known = selection.label_key, reader.facts
    own = [name for name in (key, PREDICTION) if name in reader.dtypes]
    offered = list(dict.fromkeys([*own, *known.names, *of_inputs]))
    if given is None:
        wanted = [*[name for name in own if name == key or not known.names], *known.names, *of_inputs]
        if not known.names and N_TOKENS in reader.dtypes:
            wanted.append(N_TOKENS)
        if not wanted:
            raise XaiError(
                f"{reader.layout.described} has neither facts nor labels to slice by",
                hint="record facts with run.log_facts(sample_id, camera=...), or name a file with --facts",
            )
        return list(dict.fromkeys(wanted))
    for name in given:
        if (name not in reader.dtypes and name not in of_inputs) or name == SAMPLE_ID:
            lacking = said or (
                f"the kept inputs have {of_inputs[0]}" if of_inputs else "no kept inputs (run.log_inputs) tell it"
            )
            note = "; ".join(filter(None, (lacking if name in (BRIGHTNESS, LENGTH) else "", known.left_out)))
            where = reader.layout.described
            raise unknown("fact or column", name, offered, plural="facts and columns", where=where, note=note)
    return list(dict.fromkeys(given))


def _last(
    reader: Reader,
    selection: Selection,
    pair: Pair,
    columns: list[str],
    names: Mapping[str, LabelNames],
    warnings: list[str],
    tally: Tally,
    inputs: pl.DataFrame | None,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The samples of the last place with the values they are grouped by."""
    stored = [name for name in columns if name in reader.dtypes]
    wanted = [SAMPLE_ID, *stored, *(name for name in (CORRECT,) if name in reader.dtypes), *selection.metrics]
    tallies: dict[int, Tally] = {}
    places = walk(reader, selection, pair, list(dict.fromkeys(wanted)), backwards=True, tallies=tallies)
    where = " ".join(part for part in pair if part)
    if (rows := next(places, None)) is None:
        raise XaiError(none_meets(reader, pair), hint="see: xai info")
    tally.add(tallies[rows.place.epoch])
    joined = rows.frame
    if inputs is not None:
        known = [name for name in inputs.columns[len(_KEY) :] if name in columns and name not in stored]
        of_inputs = _of_pair(inputs, pair).select(SAMPLE_ID, *known)
        joined = joined.join(of_inputs, on=SAMPLE_ID, how="left", maintain_order="left")
    warnings += _left_out(joined, selection, columns, where)
    facts = reader.facts
    if set(columns) & set(facts.names) and (unmatched := facts.lacking(joined[SAMPLE_ID])):
        warnings.append(
            f"{unmatched:,} of {joined.height:,} samples of {where} have no facts: they are a value of their own"
        )
        warnings += facts.of_no_sample() if unmatched == joined.height else ()
    spelled = []
    for name in columns:
        if name in (selection.label_key, LABEL, PREDICTION) and joined.schema[name].is_integer():
            values = joined[name].drop_nulls().unique().to_list()
            called = {value: names[name][value] for value in values}
            kind = pl.Enum(list(dict.fromkeys(called.values())))
            spelled.append(pl.col(name).replace_strict(called, default=None, return_dtype=kind))
    return joined.with_columns(spelled), {EPOCH: rows.place.epoch, PASS: rows.place.turn}


def _of_pair(inputs: pl.DataFrame, pair: Pair) -> pl.DataFrame:
    """What is known of the inputs of one (mode, ds_id): what was kept there, else what was kept without a mode."""
    mode, ds_id = pair
    # Of the three the nearest comes first.
    near = [inputs.filter(pl.col(MODE) == m, pl.col(DS_ID) == d) for m, d in ((mode, ds_id), ("", ds_id), ("", ""))]
    return pl.concat(near).unique(SAMPLE_ID, keep="first", maintain_order=True)


def _left_out(rows: pl.DataFrame, selection: Selection, columns: list[str], where: str) -> list[str]:
    """Which samples have no label, and which are in no slice, since there is no value to compare."""
    key, of = selection.label_key, f"of {rows.height:,} samples of {where}"
    unlabelled = pl.Series([False]).new_from_index(0, rows.height)
    if key in columns and key in rows.columns:
        labels = rows[key].fill_nan(None) if rows[key].dtype.is_float() else rows[key]
        unlabelled = labels.is_null()
    said = []
    for metric in selection.metrics:
        missing = ~rows[metric].cast(pl.Float64).is_finite().fill_null(False)
        lost, both = int(missing.sum()), int((missing & unlabelled).sum())
        if lost:
            also = f" and no {key}" if both == lost else f", {both:,} of them no {key} either" if both else ""
            said.append(f"{lost:,} {of} have no finite {metric}{also}: they are in no slice of it")
        if alone := int(unlabelled.sum()) - both:
            said.append(f"{alone:,} {of} have no {key}: they are a slice of {metric} of their own")
    return said


def _classes_apart(
    frame: pl.DataFrame, columns: list[str], names: Mapping[str, LabelNames], warnings: list[str]
) -> tuple[pl.DataFrame, list[str]]:
    """The samples with a column for each class of a set, which says whether it is in: whole sets are too many.

    Of many classes the most frequent are told of.
    """
    sliced: list[str] = []
    for name in columns:
        if not frame.schema[name].is_nested():
            sliced.append(name)
            continue
        counts = frame[name].drop_nulls().explode().drop_nulls().value_counts()
        classes = counts.sort("count", name, descending=[True, False])[name].to_list()
        if len(classes) > _CLASSES:
            warnings.append(f"of {len(classes):,} classes of {name} the {_CLASSES} most frequent are slices")
        apart = {f"{name} {names[name][one]}": pl.col(name).list.contains(one) for one in classes[:_CLASSES]}
        said = {new: pl.when(has).then(pl.lit("yes")).when(~has).then(pl.lit("no")) for new, has in apart.items()}
        frame = frame.with_columns(**said)
        sliced += said
    return frame, sliced


def _row(one: Slice, frame: pl.DataFrame, metric: str) -> dict[str, Any]:
    sign = -1 if metric in HIGH_IS_GOOD else 1
    told = [name for name in dict.fromkeys((SAMPLE_ID, metric, CORRECT)) if name in frame.columns]
    part = frame.select(told)[one.rows]
    order = [pl.col(metric).cast(pl.Float64) * -sign, pl.col(SAMPLE_ID)]
    worst = part.bottom_k(_IDS, by=order).sort(order)[SAMPLE_ID]
    wrong = total = None
    if CORRECT in frame.columns:
        right = frame[CORRECT].cast(pl.Boolean)
        total, wrong = int((~right).sum()), int((~part[CORRECT].cast(pl.Boolean)).sum())
    return {
        "facts": dict(one.facts),
        "n": one.n,
        "share": one.share,
        "mean": one.mean,
        "rest_mean": one.rest_mean,
        "difference": one.difference,
        "low": one.interval[0],
        "high": one.interval[1],
        "p": one.p,
        "q": one.q,
        "worse": sign * one.difference > 0,
        "wrong": wrong,
        "wrong_share": wrong / total if total and wrong is not None else None,
        "sample_ids": worst.to_list(),
        "badness": sign * one.difference * one.share,
    }


def _data(rows: list[dict[str, Any]], ids: pl.DataType) -> pl.DataFrame:
    places = {MODE: pl.String(), DS_ID: pl.String(), EPOCH: pl.Int32(), PASS: pl.Int16(), "metric": pl.String()}
    pair = pl.List(pl.Struct({"column": pl.String(), "value": pl.String()}))
    floats = dict.fromkeys(("share", "mean", "rest_mean", "difference", "low", "high", "p", "q"), pl.Float64())
    rest = {"worse": pl.Boolean(), "wrong": pl.Int64(), "wrong_share": pl.Float64(), "sample_ids": pl.List(ids)}
    schema = {**places, "facts": pair, "n": pl.Int64(), **floats, **rest}
    told = [{**row, "facts": [{"column": c, "value": v} for c, v in row["facts"].items()]} for row in rows]
    return pl.DataFrame([{key: row[key] for key in schema} for row in told], schema=schema, orient="row")
