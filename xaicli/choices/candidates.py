"""The samples to choose from, and in which order each rule would take them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.choices.rules import Choice, Rule
from xaicli.dynamics.computed import Statistics
from xaicli.dynamics.label_issues import label_issues
from xaicli.dynamics.suspects import not_looked_for, suspects
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.queries.rows import walk
from xaicli.queries.samples import LAST
from xaicli.queries.scores import SCORE, comparable
from xaicli.queries.selection import Pair, Selection
from xaicli.queries.tasks import LabelKind, about_texts, are_texts, labels_of, never_recorded
from xaicli.queries.truth import refuse_other_kinds, told_by_label
from xaicli.reader import Reader
from xaicli.reader.facts import Facts
from xaicli.reader.rows import PLACED, Where
from xaicli.vocabulary import CORRECT, DS_ID, EPOCH, HIGH_IS_GOOD, LABEL, LOW_IS_GOOD, MODE, PREDICTION, SAMPLE_ID

_HIGH = frozenset({*HIGH_IS_GOOD, "confidence", "correctness", "aum"})
_LOW = frozenset({*LOW_IS_GOOD, "forgetting", "variability", "std", "ema"})

_OF_LAST_EPOCH = "epoch in the condition is that of a sample's last row, as its columns are: --epoch asks about another"


@dataclass(frozen=True)
class Ranked:
    """What a rule finds among the candidates, in its order.

    Attributes:
        rows: (k,) places among the candidates.
        score: (k,) what they are ordered by; None where nothing orders them.
        reason: (k,) why, in words; None without.
        suggested: What each might be labelled instead; None without.
        there: How many could be chosen; None where all of these are in `rows`.
        unknown: Candidates that the rule cannot judge.
        why_unknown: What these lack.
        note: What the user should know of what was meant; "" for nothing.
    """

    rows: NDArray[np.intp]
    score: NDArray[np.float64] | None = None
    reason: pl.Series | None = None
    suggested: pl.Series | None = None
    there: int | None = None
    unknown: int = 0
    why_unknown: str = ""
    note: str = ""


def with_columns(
    frame: pl.DataFrame,
    reader: Reader,
    selection: Selection,
    pair: Pair,
    columns: list[str],
    facts: Facts,
    *,
    as_logged: bool = False,
) -> pl.DataFrame:
    """The candidates with further columns: recorded ones, and the epoch, as of each sample's last row, and facts.

    Args:
        frame: One row a sample, by id.
        columns: Which; facts stand in place of what the frame has of their name, all else that it has stays as it is.
        as_logged: Whether values of metrics that are not finite stay, as a condition sees them, in place of null.

    Raises:
        XaiError: There is no such column or fact.
    """
    known = [name for name in dict.fromkeys(columns) if name in facts.names]
    frame = frame.drop(known, strict=False)
    wanted = [name for name in dict.fromkeys(columns) if name not in frame.columns]
    for name in wanted:
        if name not in reader.dtypes and name not in facts.names and name != EPOCH:
            offered = [*frame.columns, *(n for n in reader.dtypes if n not in frame.columns), *facts.names]
            where = reader.layout.described
            raise unknown("column or fact", name, offered, plural="columns and facts", where=where, note=facts.left_out)
    stored = [name for name in wanted if name not in known]
    if stored:
        last = _last_rows(frame, reader, selection, pair, stored, as_logged=as_logged)
        frame = frame.join(last, on=SAMPLE_ID, how="left", maintain_order="left")
    if known:
        frame = frame.join(facts.frame.select(SAMPLE_ID, *known), on=SAMPLE_ID, how="left", maintain_order="left")
    return frame


def _last_rows(
    frame: pl.DataFrame, reader: Reader, selection: Selection, pair: Pair, columns: list[str], *, as_logged: bool
) -> pl.DataFrame:
    """sample_id and columns of each sample's last row."""
    parts: list[pl.DataFrame] = []
    missing = frame.select(SAMPLE_ID)
    stored = [name for name in columns if name != EPOCH]
    wanted = [SAMPLE_ID, *stored]
    for rows in walk(reader, selection, pair, wanted, backwards=True, keep_non_finite=as_logged):
        part = rows.frame.unique(SAMPLE_ID, keep="last", maintain_order=True).join(missing, on=SAMPLE_ID, how="semi")
        if EPOCH in columns:
            part = part.with_columns(pl.lit(rows.place.epoch, PLACED[EPOCH]).alias(EPOCH))
        parts.append(part)
        missing = missing.join(part, on=SAMPLE_ID, how="anti")
        if missing.is_empty():
            break
    return pl.concat(parts, how="vertical_relaxed") if parts else frame.select(SAMPLE_ID).clear()


def ranked(
    choice: Choice,
    frame: pl.DataFrame,
    reader: Reader,
    selection: Selection,
    pair: Pair,
    found: Statistics,
    *,
    facts: Facts,
    stat: str,
) -> Ranked:
    """What a rule that orders samples finds.

    Args:
        choice: The rule: any but `balanced`, `diverse` and `random`.
        frame: The candidates, by id.
        found: The pass over the epochs.
        facts: What a condition can name beside the statistics and recorded columns.
        stat: The score of `hardest`, `easy` and of an SQL condition.

    Raises:
        XaiError: The run lacks what the rule looks at.
        UsageError: A condition that is none.
    """
    match choice.rule:
        case Rule.HARDEST | Rule.EASY:
            column = score_column(frame, selection.metrics[0], stat)
            highest = (choice.rule is Rule.HARDEST) != is_high_good(selection.metrics[0], stat)
            return _by(frame, column, highest=highest, computed=stat != LAST)
        case Rule.AMBIGUOUS | Rule.FORGOTTEN:
            column, needs = {
                Rule.AMBIGUOUS: ("variability", "label_prob"),
                Rule.FORGOTTEN: ("forgetting", "correct"),
            }[choice.rule]
            if column not in frame.columns:
                hint = "log it with run.log_samples(..., label=..., logits=...)"
                if why := never_recorded(reader, needs):
                    also = f", or {Rule.FORGOTTEN.value}" if CORRECT in reader.dtypes else ""
                    hint = f"{why}: --rule {Rule.HARDEST.value}{also}"
                raise XaiError(
                    f"{reader.layout.described} has no {needs}, which --rule {choice.rule.value} needs", hint=hint
                )
            found_by = _by(frame, column, highest=True, above=0.0)
            said = told_by_label(reader, selection.label_key) if choice.rule is Rule.FORGOTTEN else []
            return replace(found_by, note="; ".join(said))
        case Rule.SUSPECTS | Rule.LABEL_ISSUES:
            return _doubted(choice, frame, reader, selection, pair, found)
        case _:
            return _meeting(choice, frame, reader, selection, pair, facts, stat)


def score_column(frame: pl.DataFrame, metric: str, stat: str) -> str:
    """The column that holds the score of a metric.

    Raises:
        XaiError: There is no such statistic.
    """
    numeric = [
        name
        for name, dtype in frame.schema.items()
        if (dtype.is_numeric() or dtype == pl.Boolean()) and name not in (SAMPLE_ID, LABEL)
    ]
    for name in (f"{metric}_{stat}", stat):
        if name in numeric:
            return name
    known = [name.removeprefix(f"{metric}_") for name in numeric]
    raise unknown("statistic", stat, known, most=len(known))


def is_high_good(metric: str, stat: str = "") -> bool:
    """Whether high values are the good ones; of what is not the recorder's own, they count as the bad ones."""
    return stat in _HIGH or (metric in _HIGH and stat not in _LOW)


def is_end_known(metric: str, stat: str = "") -> bool:
    """Whether it is known which end is the good one."""
    return bool({metric, stat} & (_HIGH | _LOW))


def _by(
    frame: pl.DataFrame, column: str, *, highest: bool, above: float | None = None, computed: bool = True
) -> Ranked:
    """The candidates by a value, of equal ones the smaller id first; those without one are unknown."""
    values = frame[column].cast(pl.Float64)
    known = values.is_not_null() & values.is_finite().fill_null(False)
    n_unknown = len(values) - int(known.sum())
    if above is not None:
        known = known & (values > above)
    rows = np.flatnonzero(known.to_numpy())
    score = values.to_numpy()[rows].astype(np.float64)
    by = pl.DataFrame({SCORE: score}).select(comparable(pl.col(SCORE)))[SCORE].to_numpy() if computed else score
    order = np.argsort(-by if highest else by, kind="stable")
    return Ranked(rows[order], score[order], unknown=n_unknown, why_unknown=f"no finite {column}")


def _doubted(
    choice: Choice, frame: pl.DataFrame, reader: Reader, selection: Selection, pair: Pair, found: Statistics
) -> Ranked:
    if are_texts(reader):
        raise XaiError(
            f"--rule {choice.named} is of one label a sample, and the labels of {reader.layout.described} are tokens",
            hint=f"--rule hardest takes the sequences of the highest loss; {about_texts(reader)}",
        )
    if selection.label_key not in (LABEL, PREDICTION):
        refuse_other_kinds(reader, selection.label_key)
    if choice.rule is Rule.SUSPECTS:
        answer = suspects(reader, selection, found, top=None)
    elif (labels := labels_of(reader)) is LabelKind.NUMBER:
        raise XaiError(
            f"--rule {choice.named} is of one class a sample, and the labels of {reader.layout.described} are numbers",
            hint="--rule suspects goes by how far predictions were from them",
        )
    elif labels is LabelKind.SET:
        raise XaiError(
            f"--rule {choice.named} is of one class a sample, and the labels of {reader.layout.described} are sets",
            hint="--rule suspects goes by the whole history; xai errors tells which classes of a set are in doubt",
        )
    else:
        answer = label_issues(reader, selection)
        if not answer.data.height and (lacks := [w for w in answer.warnings if "class probabilities" in w]):
            of_labels = "log them with run.log_samples(..., label=...), or name a fact that holds them: --label-key"
            kept = "were kept" not in lacks[0]
            raise XaiError(lacks[0], hint=of_labels if kept else "--rule suspects goes by the whole history instead")
    own = replace(selection, pairs=(pair,))
    said = not_looked_for(reader, own, found) if choice.rule is Rule.SUSPECTS else []
    data = answer.data.filter(pl.col(MODE) == pair[0], pl.col(DS_ID) == pair[1])
    place = frame.select(SAMPLE_ID).with_row_index("place")
    data = data.join(place, on=SAMPLE_ID, how="inner", maintain_order="left")
    return Ranked(
        data["place"].to_numpy().astype(np.intp),
        data["score"].to_numpy().astype(np.float64),
        data["reason"],
        data["suggested_label"],
        note="; ".join(said),
    )


def _meeting(
    choice: Choice, frame: pl.DataFrame, reader: Reader, selection: Selection, pair: Pair, facts: Facts, stat: str
) -> Ranked:
    """The candidates that meet a condition, the worst by the metric first, those without a value last."""
    is_label = selection.label_key == LABEL or LABEL not in reader.dtypes
    known = frame if is_label else frame.drop(LABEL)  # which holds what samples are grouped by
    kinds: Mapping[str, pl.DataType] = {**reader.dtypes, **known.schema, **facts.dtypes}
    placed = {MODE: pair[0], DS_ID: pair[1]}
    try:
        condition = Where.of(choice.sql, kinds, reader.label_names)
        columns = [name for name in condition.stored if name not in placed]
        columns += [EPOCH] if EPOCH in condition.columns else []
        whole = with_columns(known, reader, selection, pair, columns, facts, as_logged=True)
        whole = whole.with_columns(pl.lit(value).alias(name) for name, value in placed.items())
        whole = whole.with_columns(codes.alias(name) for name, codes in condition.named.items())
        with condition.answering():
            # Beside the columns: by itself, a condition that names none is of one row.
            meets = whole.with_columns(condition.expr.alias("meets"))["meets"]
    except UsageError as error:
        of_metric = ""
        if "there is no column" in error.message:
            others = (name for name in reader.askable if f"{name}_" in choice.sql and name not in selection.metrics)
            of_metric = next((f"--metric {name} has the statistics of {name}" for name in others), "")
        hint = "; ".join(part for part in (of_metric, facts.left_out, error.hint) if part)
        if not choice.is_where:
            hint = hint.replace("--where", "--rule")
        raise UsageError(error.message.replace("--where", choice.option, 1), hint=hint) from None
    except pl.exceptions.PolarsError as error:
        said = str(error).strip().splitlines()[0]
        raise UsageError(f"{choice.option} {choice.sql!r} cannot be asked: {said}") from error
    notes = [
        f"{name} in the condition is the fact: --no-facts has the statistic of this name"
        for name in condition.columns
        if name in facts.names and name in known.columns
    ]
    note = "; ".join([_OF_LAST_EPOCH, *notes] if EPOCH in condition.columns else notes)
    kept = np.flatnonzero(meets.fill_null(False).to_numpy())
    if not selection.metrics:
        return Ranked(kept.astype(np.intp), note=note)
    metric = selection.metrics[0]
    ordered = _by(frame, score_column(frame, metric, stat), highest=not is_high_good(metric, stat))
    place = {int(row): number for number, row in enumerate(ordered.rows)}
    rows = np.array(sorted(kept.tolist(), key=lambda row: (place.get(row, len(place)), row)), np.intp)
    assert ordered.score is not None
    score = np.array([ordered.score[place[row]] if row in place else np.nan for row in rows.tolist()])
    return Ranked(rows, score, note=note)


_BLOCK = 1 << 22
"""Values looked at in one go."""


def k_centres(
    vectors: NDArray[np.floating], k: int, rows: NDArray[np.intp] | None = None
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The places of k vectors, each the farthest from all chosen before it; of equally far ones the first.

    Greedy k-centre (Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5; Sener and Savarese 2018, arXiv:1708.00489, for
    choosing training data). The first is the one nearest to the mean of all. Vectors that equal a chosen one come last,
    at distance 0. Whatever the vectors are kept as, sums are float64; they are looked at some rows at a time and not
    copied.

    Args:
        vectors: (m, d), finite in the rows asked for.
        k: At most as many as there are.
        rows: (n,) which of them; all when None.

    Returns:
        (k,) places within `rows` in the order chosen, and (k,) the distance of each to the nearest chosen before it; of
        the first, to the mean.
    """
    chosen_from = np.arange(len(vectors)) if rows is None else rows
    n = len(chosen_from)
    chosen = np.empty(min(k, n), np.intp)
    far = np.empty(len(chosen), np.float64)
    if not len(chosen):
        return chosen, far
    total = sum((part.sum(axis=0) for _, part in _blocks(vectors, chosen_from)), np.zeros(vectors.shape[1]))
    to_mean = _squares(vectors, chosen_from, total / n)
    nearest = np.full(n, np.inf)
    for number in range(len(chosen)):
        # Chosen ones are out of the running, also where all that is left lies upon them.
        at = int(to_mean.argmin()) if number == 0 else int(nearest.argmax())
        chosen[number], far[number] = at, to_mean[at] if number == 0 else nearest[at]
        centre = vectors[chosen_from[at]].astype(np.float64)
        np.minimum(nearest, _squares(vectors, chosen_from, centre), out=nearest)
        nearest[at] = -1.0
    return chosen, np.sqrt(far)


def all_finite(vectors: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(m,) which vectors are finite."""
    found = [np.isfinite(part).all(axis=1) for _, part in _blocks(vectors, np.arange(len(vectors)))]
    return np.concatenate(found) if found else np.zeros(0, np.bool_)


def _blocks(vectors: NDArray[np.floating], rows: NDArray[np.intp]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Some rows at a time, as float64."""
    step = max(1, _BLOCK // max(vectors.shape[1], 1))
    for start in range(0, len(rows), step):
        place = slice(start, start + step)
        yield place, vectors[rows[place]].astype(np.float64)


def _squares(vectors: NDArray[np.floating], rows: NDArray[np.intp], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) squared distances."""
    found = np.empty(len(rows))
    for place, part in _blocks(vectors, rows):
        part -= centre
        found[place] = np.einsum("ij,ij->i", part, part)
    return found
