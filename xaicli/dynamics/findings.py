"""`xai findings`: what to look at first, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.answer import Answer
from xaicli.diagnosis.label_sets import doubt_in_words, doubted
from xaicli.dynamics.computed import Statistics
from xaicli.dynamics.ranks import ODD, robust_scale
from xaicli.dynamics.regions import highest
from xaicli.dynamics.suspects import not_looked_for, suspects, without_suspects
from xaicli.errors import XaiError, whole_number
from xaicli.extensions import FINDINGS, extensions
from xaicli.queries.labels import labels
from xaicli.queries.names import LabelNames
from xaicli.queries.rows import walk
from xaicli.queries.selection import Pair, Selection
from xaicli.queries.tasks import are_texts
from xaicli.queries.truth import are_numbers, only_groups
from xaicli.reader import Reader
from xaicli.vocabulary import DS_ID, EPOCH, LABEL, MODE, PASS, PREDICTION, SAMPLE_ID
from xaicli.words import distinct, fraction, how_often, ordinal


class Finding(StrEnum):
    """Why something is worth a look, in the order shown."""

    SUSPECT = "suspect"
    SEQUENCE = "far_out_sequence"
    DOUBTED = "doubted_label"
    AMBIGUOUS = "ambiguous"
    FORGOTTEN = "forgotten"
    RANK_JUMP = "rank_jump"
    LABEL = "departing_label"
    FALLING = "falling_label"
    PAIR = "confused_pair"
    SURE = "over_confident"
    SPIKE = "spike"
    OBJECT = "doubted_object"
    PICTURE = "worst_picture"


COLUMNS = ("finding", MODE, DS_ID, SAMPLE_ID, LABEL, "score", EPOCH, "reason", "suggested_label")

SUDDEN = 6.0
"""The smallest rank jump worth a look: among thousands of samples hundreds pass 4."""
_MOVED = 0.1
"""The smallest change of the normalised rank worth a look, where nearly no sample moves at all."""

_MEAN_LOSS = "loss_mean"
_FAR = 3.0
"""Robust deviations above the median from which a sequence is worth a look."""
_FEWEST = 4
"""Among fewer labels there is no majority to depart from."""
_LABELS = (LABEL, "suggested_label")
_LABEL_COLUMNS = {MODE: pl.String, DS_ID: pl.String, "score": pl.Float64, EPOCH: pl.Int32, "reason": pl.String}


def findings(reader: Reader, selection: Selection, found: Statistics, *, top: int = 10) -> Answer:
    """Probably mislabelled, ambiguous, forgotten, suddenly moved samples, and labels that depart from the others.

    Also labels whose F1 fell, pairs that became confused, a model that is too sure, and spikes of the training.

    Args:
        reader: The run.
        selection: Which rows.
        found: The pass over the epochs.
        top: At most how many of each kind and (mode, ds_id).

    Returns:
        finding, mode, ds_id, sample_id (null for a label), label, score (what it is ranked by), epoch (of a sudden
        change or the last one of a label, else null), reason, suggested_label (of suspects, and of doubted
        labels, single classes of sets). `extra["found"]` tells how
        many there are of each kind; of ambiguous ones, which are a ranking, how many are shown; `not_looked_for` lists
        the kinds that nothing can tell here; `label_noise`, `n_suspects` and `suspected_pairs` beside it are those of
        `suspects`.

    Raises:
        UsageError: `top` is negative.
    """
    top = whole_number("--top", top, least=0, hint="--top 0 lists none")
    suspected = suspects(reader, selection, found, top=top)
    departing = departures(reader, selection)
    of_kind: dict[str, int] = dict.fromkeys(Finding, 0)
    label, ids = _label_kind(reader, selection), reader.dtypes.get(SAMPLE_ID, pl.Int64())
    text = pl.String()
    kinds = (text, text, text, ids, label, pl.Float64(), pl.Int32(), text, label)
    parts = [pl.DataFrame(schema=dict(zip(COLUMNS, kinds, strict=True)))]
    of_tokens = are_texts(reader)
    unlike, untold = only_groups(reader, selection.label_key), without_suspects(reader, selection, found)
    unlabelled = not_looked_for(reader, selection, found)
    for pair in selection.pairs:
        of_pair = (pl.col(MODE) == pair[0], pl.col(DS_ID) == pair[1])
        frame = found.frames[pair]
        if not of_tokens and selection.label_key not in reader.facts.dtypes:  # of a fact every answer says so
            unlabelled += _without_label(frame, selection, pair)
        jumped = jumps_of(frame, selection, pair, top) if "rank_jump" in frame.columns else pl.DataFrame()
        of_kinds = {
            Finding.SUSPECT: suspected.data.filter(of_pair),
            Finding.SEQUENCE: _far_out(frame) if of_tokens else pl.DataFrame(),
            Finding.DOUBTED: _doubted(reader, selection, pair, frame),
            Finding.AMBIGUOUS: _ranked(frame, "variability", top, _ambiguous_text if of_tokens else _ambiguous),
            Finding.FORGOTTEN: _ranked(frame, "forgetting", top, _forgotten),
            Finding.RANK_JUMP: jumped,
            Finding.LABEL: departing.filter(of_pair),
        }
        parts += [_kind(kind, pair, rows.head(top)) for kind, rows in of_kinds.items()]
        for kind, rows in of_kinds.items():
            of_kind[kind] += max(rows.height, _how_many(frame, kind))
    of_kind[Finding.SUSPECT] = sum(row["n"] for row in suspected.extra["n_suspects"])
    told, warnings = _of_extensions(reader, selection, parts[0].schema)
    for kind in dict.fromkeys((*(one for one in Finding if one not in of_kinds), *told["finding"])):
        of_kind[kind] = told.filter(pl.col("finding") == kind).height
        own = told.filter(pl.col("finding") == kind).group_by(MODE, DS_ID, maintain_order=True).head(top)
        parts.append(own.select(COLUMNS))
    return Answer(
        command="findings",
        run=reader.layout.described,
        selection={**selection.as_dict(), "top": top, "early_epochs": found.early_epochs, "burn_in": found.burn_in},
        data=pl.concat((part for part in parts if part.width), how="diagonal_relaxed"),
        counts=found.counts(reader),
        # Where predictions are classes, the search for confusions says so of the label key, too.
        warnings=(*found.warnings, *unlabelled, *(said for said in warnings if said != unlike)),
        extra={
            "found": {str(kind): n for kind, n in of_kind.items() if n},
            "not_looked_for": _not_looked_for(reader, unlike, whole=len(untold) == len(selection.pairs)),
            **suspected.extra,
        },
    )


def _not_looked_for(reader: Reader, unlike: str, *, whole: bool) -> list[str]:
    """The kinds of which nothing can be told: where the label key only groups, all that hold it against predictions."""
    held = [Finding.FALLING, Finding.PAIR, Finding.SURE] if unlike and not reader.dtypes[PREDICTION].is_float() else []
    if held and isinstance(reader.dtypes[PREDICTION], pl.List):
        held.insert(0, Finding.DOUBTED)
    return [str(kind) for kind in (Finding.SUSPECT, *held)] if whole else []


def _without_label(frame: pl.DataFrame, selection: Selection, pair: Pair) -> list[str]:
    """How many samples have no label, and are no suspects therefore."""
    if LABEL not in frame.columns:
        return []
    labels = frame[LABEL].fill_nan(None) if frame[LABEL].dtype.is_float() else frame[LABEL]
    if not (missing := labels.null_count()) or missing == frame.height:
        return []
    where = " ".join(part for part in pair if part)
    said = f"{missing:,} of {frame.height:,} samples of {where} have no {selection.label_key}: none is a suspect"
    return [said]


def with_objects(answer: Answer, told: Answer) -> Answer:
    """The findings of a run's samples, and beside them those of the objects that it collected too.

    Args:
        answer: What `findings` answers.
        told: What `object_errors` answers of all its epochs.
    """
    objects = findings_of_objects(told)
    if objects.data.is_empty():
        return answer
    kinds = answer.data.schema
    # Labels of samples may be numbers of another meaning: the reason names the class anyway.
    label = (pl.col(name) if kinds[name] == pl.Int32 else pl.lit(None, kinds[name]).alias(name) for name in _LABELS)
    rows = objects.data.with_columns(label)
    if kinds[SAMPLE_ID] != rows.schema[SAMPLE_ID]:
        rows = rows.with_columns(pl.col(SAMPLE_ID).cast(kinds[SAMPLE_ID], strict=False))
    return replace(
        answer,
        data=pl.concat([answer.data, rows], how="diagonal_relaxed"),
        warnings=(*answer.warnings, *objects.warnings),
        extra={**answer.extra, **objects.extra, "found": {**answer.extra["found"], **objects.extra["found"]}},
    )


def findings_of_objects(told: Answer) -> Answer:
    """What to look at first where a run tells of objects: labels that are probably missing or wrong, worst pictures.

    Args:
        told: What `object_errors` answers.

    Returns:
        Rows as of `findings`, a picture as the sample: of a true object that no epoch found the class is the label; of
        a sure prediction where no label is it is `suggested_label`. `worst` and `suspects` are those of `told`.
    """
    parts = []
    for row in _listed(told.extra["suspects"]):
        made_up = row["doubt"] == "made_up"
        corners = ", ".join(f"{row[name]:.4g}" for name in ("x0", "y0", "x1", "y1"))
        said = f"{row['reason']} (box {corners})"
        parts.append(
            {
                "finding": Finding.OBJECT.value,
                **{name: row[name] for name in (MODE, DS_ID, SAMPLE_ID, "score")},
                LABEL: None if made_up else row[LABEL],
                "reason": said,
                "suggested_label": row[LABEL] if made_up else row.get("suggested"),
            }
        )
    for row in _listed(told.extra["worst"]):
        overlap = "" if row["mean_iou"] is None else f", mean IoU {fraction(row['mean_iou'])}"
        past = [one["fp"] + one["fn"] for one in row["history"]]
        true = row["tp"] + row["fn"]
        said = f"{row['fn']} of {true} {'object' if true == 1 else 'objects'} missed, {row['fp']} made up{overlap}"
        often = f"; something wrong in {sum(n > 0 for n in past)} of {len(past)} epochs"
        own = {name: row[name] for name in (MODE, DS_ID, SAMPLE_ID)}
        score = float(row["fp"] + row["fn"])
        parts.append({"finding": Finding.PICTURE.value, **own, "score": score, "reason": said + often})
    ids = pl.String() if any(isinstance(row[SAMPLE_ID], str) for row in parts) else pl.Int64()
    text, label = pl.String(), pl.Int32()
    kinds = (text, text, text, ids, label, pl.Float64(), pl.Int32(), text, label)
    n = told.extra["n"]
    of_kind = {
        Finding.OBJECT.value: sum(row["suspects"] for row in n),
        Finding.PICTURE.value: sum(row["worst"] for row in n),
    }
    return replace(
        told,
        command="findings",
        data=pl.DataFrame(parts, schema=dict(zip(COLUMNS, kinds, strict=True))),
        extra={
            "found": {kind: n for kind, n in of_kind.items() if n},
            **{name: told.extra[name] for name in ("worst", "suspects")},
        },
    )


def _listed(found: Any) -> list[dict[str, Any]]:
    return found if isinstance(found, list) else list(found.iter_rows(named=True))


def _of_extensions(
    reader: Reader, selection: Selection, schema: Mapping[str, pl.DataType]
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The rows of every finding that has an entry point, and a word of each that failed, which costs no other.

    Of sets of classes one class is told as the set of it alone.
    """
    parts, warnings = [pl.DataFrame(schema=schema)], []
    for name, extension in extensions(FINDINGS).items():
        try:
            rows = [{"finding": name, **row} for row in extension.load()(reader, selection)]
            if isinstance(schema[LABEL], pl.List):
                rows = [
                    {k: [v] if k in (LABEL, "suggested_label") and v is not None else v for k, v in row.items()}
                    for row in rows
                ]
            parts.append(_checked(rows, schema))
        except Exception as error:
            if extension.is_ours and isinstance(error, XaiError):
                warnings.append(error.message)
                continue
            if extension.is_ours:
                raise
            reason = str(error) if isinstance(error, XaiError) else f"failed: {type(error).__name__}: {error}"
            warnings.append(f"the findings {name} of the package {extension.package} are left out: {reason}")
    return pl.concat(parts), tuple(warnings)


def _checked(rows: list[dict[str, Any]], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """
    Raises:
        ValueError: A row lacks its reason, or has a key that means nothing.
    """
    for row in rows:
        if unlisted := set(row) - set(schema):
            raise ValueError(f"{', '.join(sorted(unlisted))} is none of {', '.join(schema)}")
        if not row.get("reason"):
            raise ValueError("a finding without its reason")
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)


def _doubted(reader: Reader, selection: Selection, pair: Pair, frame: pl.DataFrame) -> pl.DataFrame:
    """Single classes of sets that the model contradicted through training; nothing where labels are no sets."""
    key = selection.label_key
    kinds = [reader.dtypes.get(name) for name in (key, PREDICTION)]
    if key == PREDICTION or not all(isinstance(kind, pl.List) for kind in kinds):
        return pl.DataFrame()
    history = walk(reader, selection, pair, [SAMPLE_ID, key, PREDICTION])
    named = (rows.frame.rename({key: LABEL}) if key != LABEL else rows.frame for rows in history)
    doubts = doubted(named).join(frame.select(SAMPLE_ID, LABEL), on=SAMPLE_ID, how="left", maintain_order="left")
    names = LabelNames.of_classes(reader, selection)
    reasons, suggested = [], []
    for row in doubts.iter_rows(named=True):
        reasons.append(f"{names[row['class']]} is {doubt_in_words(row)}")
        suggested.append(sorted({*(row[LABEL] or ())} ^ {row["class"]}))
    return doubts.select(SAMPLE_ID, LABEL, "score").with_columns(
        pl.Series("reason", reasons, pl.String), pl.Series("suggested_label", suggested, doubts.schema[LABEL])
    )


def _how_many(frame: pl.DataFrame, kind: Finding) -> int:
    """How many samples are of a kind, where that is known without listing them."""
    if kind is Finding.FORGOTTEN and "forgetting" in frame.columns:
        return frame.filter(pl.col("forgetting") >= 1).height
    if kind is Finding.RANK_JUMP and "rank_jump" in frame.columns:
        return frame.filter(_is_sudden()).height
    return 0


def _kind(kind: Finding, pair: Pair, frame: pl.DataFrame) -> pl.DataFrame:
    """Findings of one kind, with those of the columns there are."""
    if not frame.width:
        return frame
    origin = zip(("finding", MODE, DS_ID), (kind.value, *pair), strict=True)
    named = frame.with_columns(pl.lit(value).alias(name) for name, value in origin)
    return named.select(name for name in COLUMNS if name in named.columns)


def _ranked(frame: pl.DataFrame, by: str, top: int, reason: Callable[[dict[str, float]], str]) -> pl.DataFrame:
    """The samples with the highest positive value of a statistic; of equal ones the smaller id first."""
    if by not in frame.columns:
        return pl.DataFrame()
    values = frame[by].cast(pl.Float64).fill_null(0.0).to_numpy()
    best = frame[highest(values, min(top, int((values > 0).sum())))].sort(by, SAMPLE_ID, descending=[True, False])
    reasons = [reason(row) for row in best.to_dicts()]
    return best.select(
        SAMPLE_ID, LABEL, pl.col(by).cast(pl.Float64).alias("score"), pl.Series("reason", reasons, pl.String)
    )


def _ambiguous(row: dict[str, float]) -> str:
    return (
        f"the probability of its label swings: {fraction(row['confidence'])} on average, "
        f"standard deviation {row['variability']:.2f} over {row['n_obs']} observations"
    )


def _ambiguous_text(row: dict[str, float]) -> str:
    return (
        f"the probability of its tokens, their geometric mean, swings: {fraction(row['confidence'])} on average, "
        f"standard deviation {row['variability']:.2f} over {row['n_obs']} observations"
    )


def _far_out(frame: pl.DataFrame) -> pl.DataFrame:
    """The sequences whose mean loss lies far above that of the others, the farthest first."""
    known = frame.filter(pl.col(_MEAN_LOSS).is_finite()) if _MEAN_LOSS in frame.columns else pl.DataFrame()
    if known.is_empty():
        return known
    losses = known[_MEAN_LOSS].cast(pl.Float64).to_numpy()
    middle = float(np.median(losses))
    scale = robust_scale(losses, middle, float(np.abs(losses - middle).max()))
    if not scale:
        return pl.DataFrame()
    far = known.with_columns(pl.Series("score", (losses - middle) / scale)).filter(pl.col("score") > _FAR)
    far = far.sort("score", SAMPLE_ID, descending=[True, False])
    reasons = [
        f"mean loss {row[_MEAN_LOSS]:.3g} a token over {row['n_obs']} observations, {how_often(row['score'])} robust "
        f"deviations above {middle:.3g}, the median of {known.height:,} sequences"
        for row in far.iter_rows(named=True)
    ]
    return far.select(SAMPLE_ID, LABEL, "score", pl.Series("reason", reasons, pl.String))


def _forgotten(row: dict[str, float]) -> str:
    times = "once" if row["forgetting"] == 1 else f"{row['forgetting']} times"
    return f"learned and forgotten {times}; right {row['correctness']} of {row['n_obs']} times"


def rank_jumps(reader: Reader, selection: Selection, found: Statistics, *, top: int = 10) -> Answer:
    """The samples with the largest sudden change of rank by the first metric selected, the largest first.

    Args:
        reader: The run.
        selection: Which rows.
        found: The pass over the epochs.
        top: At most how many of each (mode, ds_id).

    Returns:
        mode, ds_id, sample_id, label, score (`rank_jump`), epoch, direction ("up" towards high values, or "down"),
        rank_from and rank_to (normalised mid-ranks in (0, 1]), reason.

    Raises:
        UsageError: `top` is negative.
    """
    top = whole_number("--top", top, least=0, hint="--top 0 lists none")
    parts = [jumps_of(found.frames[pair], selection, pair, top) for pair in selection.pairs]
    return Answer(
        command="rank-jumps",
        run=reader.layout.described,
        selection={**selection.as_dict(), "top": top, "burn_in": found.burn_in},
        data=pl.concat(parts, how="vertical_relaxed"),
        counts=found.counts(reader),
        warnings=found.warnings,
    )


def jumps_of(frame: pl.DataFrame, selection: Selection, pair: Pair, top: int) -> pl.DataFrame:
    """The largest jumps of one (mode, ds_id); a sample that moved like all others, or hardly at all, has none."""
    frame = frame.filter(_is_sudden())
    best = frame[highest(frame["rank_jump"].to_numpy(), min(top, frame.height))]
    best = best.sort("rank_jump", SAMPLE_ID, descending=[True, False])
    reasons = [_reason(row, selection.metrics[0]) for row in best.to_dicts()]
    return best.select(
        pl.lit(pair[0]).alias(MODE),
        pl.lit(pair[1]).alias(DS_ID),
        SAMPLE_ID,
        LABEL,
        pl.col("rank_jump").alias("score"),
        pl.col("rank_jump_epoch").alias(EPOCH),
        pl.col("rank_jump_direction").alias("direction"),
        "rank_from",
        "rank_to",
        pl.Series("reason", reasons, pl.String),
    )


def _is_sudden() -> pl.Expr:
    return (pl.col("rank_jump") >= SUDDEN) & ((pl.col("rank_to") - pl.col("rank_from")).abs() >= _MOVED)


def _reason(row: dict[str, Any], metric: str) -> str:
    moved = "rose" if row["rank_jump_direction"] == "up" else "fell"
    start, end = _percentile(row["rank_from"]), _percentile(row["rank_to"])
    far = abs(round(100 * row["rank_to"]) - round(100 * row["rank_from"]))
    told = f"{moved} from the {start} to the {end} percentile of {metric} at epoch {row['rank_jump_epoch']}"
    return f"{told}: {far} percentiles, {how_often(row['rank_jump'])} times the spread of all samples' moves then"


def _percentile(rank: float) -> str:
    return ordinal(round(100 * rank))


def departures(reader: Reader, selection: Selection) -> pl.DataFrame:
    """The labels that stand out by the first metric selected, at the last epoch or by the trend of the last half.

    Args:
        reader: The run.
        selection: Which rows.

    Returns:
        mode, ds_id, label, score (robust deviations from the median label), epoch, reason; the largest score first.
        Empty where there are no labels.
    """
    label = _label_kind(reader, selection)
    # A number or a set of classes is no group.
    if selection.label_key not in reader.dtypes or label.is_float() or label.is_nested():
        return pl.DataFrame(schema={**_LABEL_COLUMNS, LABEL: label})
    means = labels(reader, selection, bounds=None).data.filter(pl.col("metric") == selection.metrics[0])
    rows = []
    for (mode, ds_id), of_pair in means.group_by(MODE, DS_ID, maintain_order=True):
        found = sorted(_departing(of_pair, selection.metrics[0]), key=lambda one: -one["score"])  # type: ignore[operator]
        rows += [{MODE: mode, DS_ID: ds_id, **row} for row in found]
    return pl.DataFrame(rows, schema={**_LABEL_COLUMNS, LABEL: label})


def _label_kind(reader: Reader, selection: Selection) -> pl.DataType:
    """What labels are held in: numbers that predictions are held against are so, whole ones too."""
    kind = reader.dtypes.get(selection.label_key, pl.Int32())
    return pl.Float64() if kind.is_integer() and are_numbers(reader, selection.label_key) else kind


def _departing(means: pl.DataFrame, metric: str) -> Iterator[dict[str, object]]:
    """Each label that stands out, once, for whichever is odder: its mean or its trend."""
    last = int(means[EPOCH].to_numpy().max())
    at_last = means.filter(pl.col(EPOCH) == last).sort(PASS).unique(LABEL, keep="last", maintain_order=True).sort(LABEL)
    if at_last.height < _FEWEST:
        return
    level, usual = at_last["mean"].to_numpy(), float(np.median(at_last["mean"].to_numpy()))
    trend = np.array([_trend(means.filter(pl.col(LABEL) == label)) for label in at_last[LABEL]])
    for number, (far, drift) in enumerate(zip(_deviations(level), _deviations(trend), strict=True)):
        if max(far, drift) < ODD:
            continue
        own, median = distinct((float(level[number]), usual), 3)
        where = f"mean {metric} {own} at epoch {last}, the median label's is {median}"
        course = f"changes by {trend[number]:+.2g} an epoch, the median label by {float(np.median(trend)):+.2g}"
        yield {
            LABEL: at_last[LABEL][number],
            "score": float(max(far, drift)),
            EPOCH: last,
            "reason": where if far >= drift else f"{course}; {where}",
        }


def _trend(means: pl.DataFrame) -> float:
    """The least-squares slope of a label's mean over the last half of its epochs."""
    recent = means.sort(EPOCH).tail(max(means.height // 2, 2))
    epoch, mean = recent[EPOCH].to_numpy().astype(np.float64), recent["mean"].to_numpy()
    epoch -= epoch.mean()
    spread = float(epoch @ epoch)
    return float(epoch @ mean) / spread if spread else 0.0


def _deviations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    centre = float(np.median(values))
    distances = np.abs(values - centre)
    scale = robust_scale(values, centre, float(distances.max()))
    return distances / scale if scale else np.zeros_like(distances)
