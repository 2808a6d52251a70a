"""How a model errs, as its task asks: residuals, thresholds, sets of classes, tokens: `errors`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from xaicli.answer import Answer
from xaicli.diagnosis import residuals, tokens
from xaicli.diagnosis.confusion import by_class, exact_sets, label_figures, overall_figures, set_counts
from xaicli.diagnosis.label_sets import doubt_in_words, doubted, swapped
from xaicli.diagnosis.slices import MISSING, OTHER, by_quintile, coded
from xaicli.diagnosis.thresholds import Thresholds
from xaicli.errors import UsageError, XaiError, unknown, whole_number
from xaicli.heads.head import Task
from xaicli.queries.fifths import are_many
from xaicli.queries.names import LabelNames, facts_by_sample
from xaicli.queries.rows import walk
from xaicli.queries.selection import Pair, Selection, words
from xaicli.queries.tasks import N_TOKENS
from xaicli.queries.truth import as_recorded, refuse_other_kinds, with_truth
from xaicli.reader import Reader, Rows, Tally
from xaicli.vocabulary import DS_ID, EPOCH, LABEL, LOSS, MODE, PASS, PREDICTION, SAMPLE_ID, STEP, TOKEN_LOSSES, TOP_PROB

if TYPE_CHECKING:
    from xaicli.diagnosis.objects import Places

WORST = 20
_SOURCE = "source"
"""The fact that says where a text is from: sequences are told by it, where there is one."""


def errors(
    reader: Reader, selection: Selection, *, by: list[str] | None = None, positive: str | None = None, top: int = WORST
) -> Answer:
    """How the model errs at every place, and at the last one in detail.

    Args:
        reader: The run.
        selection: Which rows.
        by: Facts and columns whose values get figures of their own, at the last place.
        positive: Of a binary task the label that is looked for; the later one in order when None.
        top: At most how many are listed of each: the worst samples and tokens, pairs of labels, doubted labels.

    Returns:
        Rows mode, ds_id, epoch, pass, step and the figures of the task. The key `task` names it; further keys hold the
        details of the last place of each (mode, ds_id), rows with mode and ds_id; `n` is how many there are of each
        list that does not hold all:

        - regression: `groups` (by fifth of the label, and `by`), `worst` samples, `points` (label and prediction);
        - binary: `thresholds`, at which the counts and rates are told, `groups`;
        - multilabel: `labels` (precision, recall, F1), `groups`, `swapped` (pairs of labels taken for one another),
          `doubted` (single labels of samples that the model contradicted through training);
        - sequence: `groups` (by fifth of the length, by source, and `by`), `places` in the text, `worst` sequences with
          their words where the fact `tokens` holds them, `worst_tokens`.

    Raises:
        UsageError: `top` is negative, an option is about another task, or the label key is no truth of the predictions.
        XaiError: There is no such column, or nothing tells how this task errs.
    """
    top = whole_number("--top", top, least=0, hint="--top 0 lists none")
    for name in by or ():
        if name not in reader.dtypes or name == SAMPLE_ID:
            where, note = reader.layout.described, reader.facts.left_out
            known = [one for one in reader.dtypes if one != SAMPLE_ID]
            raise unknown("fact or column", name, known, plural="facts and columns", where=where, note=note)
    task = task_of(reader, selection)
    if positive is not None and task is not Task.BINARY:
        raise UsageError(
            f"--positive is about two classes, and this task is {task}", hint="leave it out", refused=("positive",)
        )
    if task is not Task.SEQUENCE:
        refuse_other_kinds(reader, selection.label_key)
    asked = _Asked(reader, selection, tuple(dict.fromkeys(by or ())), positive, top)
    match task:
        case Task.REGRESSION:
            found = _residuals(asked)
        case Task.BINARY:
            found = _thresholds(asked)
        case Task.MULTILABEL:
            found = _sets(asked)
        case Task.SEQUENCE:
            found = _sequences(asked)
        case Task.CLASSIFICATION:
            raise XaiError(
                f"{reader.layout.described} tells several classes apart: their errors are confusions",
                hint="xai confusion shows who is taken for whom, xai slices where the data is worst",
            )
        case _:
            raise XaiError(f"the errors of {task} are not told")
    rows, details = found
    chosen = {name: value for name, value in selection.as_dict().items() if name != "metric"}
    return Answer(
        command="errors",
        run=reader.layout.described,
        selection={**chosen, "by": list(asked.by), "positive": positive, "top": top},
        data=pl.DataFrame(rows, infer_schema_length=None) if rows else pl.DataFrame(schema={MODE: pl.String()}),
        counts=reader.counts(asked.tally),
        warnings=(*selection.warnings, *asked.warnings),
        extra={"task": task.value, **{name: _samples(found) for name, found in details.items()}},
    )


_OF_ROWS = {"label_key": LABEL, "duplicates": "last", "epoch_frequency": 1}
_KNOWN = frozenset({MODE, EPOCH, "engine", "axis", "strict"})


def of_objects(
    reader: Reader, table: str | None, *, by: Any = None, positive: Any = None, top: int = WORST, **select: Any
) -> Answer | None:
    """The errors of collected objects, where a table of them is named or the run has no rows of samples; else None.

    Raises:
        UsageError: An option that says nothing of objects.
        XaiError: What `object_errors` raises.
    """
    from xaicli.diagnosis.objects import object_errors

    asked = objects_asked(reader, table, of_pictures=True, positive=positive, **select)
    if asked is None:
        return None
    return object_errors(reader, asked[0], asked[1], top=top, by=words(by, "by"), where=reader.where)


def objects_asked(
    reader: Reader, table: str | None, *, of_pictures: bool = False, **select: Any
) -> tuple[str, Places | None] | None:
    """Which table of objects is asked for, and of it which places; None where it is rows of samples.

    Args:
        reader: The run.
        table: Its name; when None that of a run without rows of samples.
        of_pictures: Whether `--where` may pick pictures by their facts.
        **select: The other options.

    Raises:
        UsageError: An option that says nothing of objects.
        XaiError: There is no such table, mode or epoch.
    """
    from xaicli.diagnosis.objects import object_tables, places

    if table is None:
        known = [] if reader.modes() else object_tables(reader)
        if not known:
            return None
        table = known[0]
    for name, value in {"where": None if of_pictures else reader.where, **select}.items():
        if name not in _KNOWN and value and value != _OF_ROWS.get(name):
            said = f"--{name.replace('_', '-')} says nothing of the objects of a table"
            raise UsageError(said, hint="leave it out", refused=(name,))
    return table, places(reader, table, words(select.get(MODE), MODE), words(select.get(EPOCH), EPOCH))


def task_of(reader: Reader, selection: Selection) -> Task:
    """What the run's output means: as it was said or told when it was recorded; of two classes, binary.

    Raises:
        XaiError: The run has neither labels nor predictions.
    """
    said = reader.manifest.task
    if said is not None and said != Task.CLASSIFICATION:
        return Task(said)
    key = selection.label_key
    dtypes = [reader.dtypes[name] for name in (key, PREDICTION) if name in reader.dtypes]
    if any(isinstance(dtype, pl.List) for dtype in dtypes):
        return Task.MULTILABEL
    if any(dtype.is_float() for dtype in dtypes):
        return Task.REGRESSION
    if not dtypes and N_TOKENS in reader.dtypes:
        return Task.SEQUENCE
    if not dtypes:
        raise XaiError(
            f"{reader.layout.described} has neither labels nor predictions",
            hint="log them with run.log_samples(..., label=y, logits=z)",
        )
    if len(reader.label_names) == 2:
        return Task.BINARY
    if reader.label_names or key not in reader.dtypes:
        return Task.CLASSIFICATION
    values: set[Any] = set()
    for pair in selection.pairs:
        for rows in walk(reader, selection, pair, [key], epochs=selection.epochs[pair][-1:]):
            values |= set(rows.frame[key].drop_nulls().unique().to_list())
    return Task.BINARY if len(values) <= 2 else Task.CLASSIFICATION


_BOTH = "a label and a prediction"
"""What a sample needs so that it is right or wrong."""
_NAMED = 5
Found = tuple[list[dict[str, Any]], dict[str, Any]]
"""The rows, and the details by name."""


@dataclass
class _Asked:
    """The question, and what is counted and told while it is answered."""

    reader: Reader
    selection: Selection
    by: tuple[str, ...]
    positive: str | None
    top: int

    def __post_init__(self) -> None:
        self.tally = Tally()
        self.warnings: list[str] = []
        self.names = LabelNames.of_classes(self.reader, self.selection)

    def places(self, columns: list[str]) -> Iterator[tuple[Pair, Rows, bool]]:
        """The rows of each place with the columns that there are, and whether it is the last of its (mode, ds_id)."""
        key = self.selection.label_key
        wanted = [name for name in dict.fromkeys([SAMPLE_ID, key, *columns, *self.by]) if name in self.reader.dtypes]
        metrics = self.reader.metrics  # the reader counts the numbers among these itself
        uncounted = [
            name
            for name in dict.fromkeys((key, PREDICTION))
            if name in wanted and name not in metrics and self.reader.dtypes[name].is_float()
        ]
        for pair in self.selection.pairs:
            held: Rows | None = None
            for rows in walk(self.reader, self.selection, pair, wanted, tally=self.tally):
                frame = rows.frame
                self.tally.non_finite += sum(int((~frame[name].is_finite()).sum()) for name in uncounted)
                frame = with_truth(frame, key)
                if held is not None:
                    yield pair, held, False
                held = rows._replace(frame=frame)
            if held is not None:
                yield pair, held, True

    def needs(self, *columns: str) -> None:
        """Refuse a run without a column.

        Raises:
            XaiError: One is not there.
        """
        given = {LABEL: "label=y", PREDICTION: "logits=z) or prediction=", LOSS: "label=y, logits=z) or loss="}
        known = self.reader.dtypes
        absent = [name for name in columns if (self.selection.label_key if name == LABEL else name) not in known]
        if absent:  # what is there is not asked for
            first = self.selection.label_key if absent[0] == LABEL else absent[0]
            what, them = (first, "it") if first == LOSS else (f"{first}s", "them")
            logged = ", ".join(given[name] for name in absent)
            raise XaiError(
                f"{self.reader.layout.described} has no {what} to tell errors by",
                hint=f"log {them} with run.log_samples(..., {logged}{'' if ')' in logged else ')'}",
            )

    def tell_ungrouped(self, pair: Pair, frame: pl.DataFrame, known: pl.DataFrame, lacking: str) -> None:
        """Warn of values of the grouping columns none of whose samples can be judged: there is no group of them.

        Args:
            pair: The (mode, ds_id).
            frame: All rows of the last place.
            known: Those that are judged.
            lacking: What the others lack.
        """
        for name in self.by:
            if name not in frame.columns or (name == self.selection.label_key == LABEL):
                continue
            column = as_recorded(frame, name)
            if are_many(column):
                continue  # of fifths each has samples
            judged = as_recorded(known, name).unique()
            lost = frame.filter(~column.is_in(judged.implode(), nulls_equal=True))
            if lost.height:
                called = self.called(name)
                left = as_recorded(lost, name).unique().sort()
                values = [MISSING if value is None else str(value) for value in left.to_list()]
                told = [called.get(value, value) for value in values]
                shown = ", ".join(told[:_NAMED]) + (f" and {len(told) - _NAMED:,} more" if len(told) > _NAMED else "")
                where = " ".join(filter(None, pair))
                are = "is" if len(told) == 1 else "are"
                none = "its one sample lacks" if lost.height == 1 else f"none of {lost.height:,} samples has"
                self.warnings.append(f"{where}: {name} {shown} {are} in no group: {none} {lacking}")

    def called(self, column: str) -> Mapping[Any, str]:
        """What the values of a column of labels are called, spelled as text."""
        if column not in (LABEL, PREDICTION, self.selection.label_key):
            return {}
        return {str(number): name for number, name in self.names.by_value.items()}


def _place(pair: Pair, rows: Rows) -> dict[str, Any]:
    return {MODE: pair[0], DS_ID: pair[1], EPOCH: rows.place.epoch, PASS: rows.place.turn, STEP: rows.step}


def _at_place(pair: Pair, rows: Any) -> list[dict[str, Any]]:
    return [{MODE: pair[0], DS_ID: pair[1], **row} for row in rows]


def _residuals(asked: _Asked) -> Found:
    asked.needs(LABEL, PREDICTION)
    found: list[dict[str, Any]] = []
    details: dict[str, Any] = {"groups": [], "worst": [], "points": [], "n_points": [], "n": []}
    for pair, rows, is_last in asked.places([PREDICTION]):
        label, prediction, known = residuals.pairs(rows.frame)
        figures = residuals.residual_figures(label[known], prediction[known])
        found.append({**_place(pair, rows), **figures, "unknown": int((~known).sum())})
        if is_last:
            asked.tell_ungrouped(pair, rows.frame, rows.frame.filter(pl.Series(known)), _BOTH)
            details["groups"] += _at_place(pair, residuals.grouped(rows.frame, asked.by, asked.selection.label_key))
            details["worst"] += _at_place(pair, residuals.worst(rows.frame, asked.top))
            shown, total = residuals.points(rows.frame)
            details["points"] += _at_place(pair, shown)
            details["n_points"].append({MODE: pair[0], DS_ID: pair[1], "n": total, "shown": len(shown)})
            details["n"] += _at_place(pair, [{"worst": int(known.sum())}])
    return found, details


def _thresholds(asked: _Asked) -> Found:
    asked.needs(LABEL, PREDICTION)
    if TOP_PROB not in asked.reader.dtypes:
        raise XaiError(
            f"{asked.reader.layout.described} keeps no probabilities, so that there are no thresholds to try",
            hint="log them with run.log_samples(..., logits=z) or probs=p; xai confusion tells of labels alone",
        )
    found: list[dict[str, Any]] = []
    details: dict[str, Any] = {"thresholds": [], "groups": [], "n": [], "positive": None}
    positive = _positive(asked)
    details["positive"] = asked.names[positive]
    for pair, rows, is_last in asked.places([PREDICTION, TOP_PROB]):
        frame = rows.frame.drop_nulls([LABEL, PREDICTION]).filter(pl.col(TOP_PROB).is_finite())
        score, truth = _scores(frame, positive)
        curve = Thresholds.of(score, truth)
        unknown = rows.frame.height - len(score)
        found.append({**_place(pair, rows), **_binary_figures(frame, curve, positive), "unknown": unknown})
        if is_last:
            asked.tell_ungrouped(pair, rows.frame, frame, f"{_BOTH} with a probability")
            details["thresholds"] += _at_place(pair, (curve.row(place) for place in curve.shown()))
            details["n"] += _at_place(pair, [{"thresholds": len(curve.threshold)}])
            details["groups"] += _at_place(pair, _binary_groups(frame, asked, positive))
    return found, details


def _scores(frame: pl.DataFrame, positive: Any) -> tuple[residuals.Floats, Any]:
    """The probability of the positive class, and whether the label is it."""
    sure = frame[TOP_PROB].cast(pl.Float64).to_numpy().astype(np.float64)
    score = np.where((frame[PREDICTION] == positive).to_numpy(), sure, 1 - sure)
    return score, (frame[LABEL] == positive).to_numpy().astype(bool)


def _positive(asked: _Asked) -> Any:
    """The label that is looked for."""
    values: set[Any] = set()
    for pair in asked.selection.pairs:
        columns = [asked.selection.label_key, PREDICTION]
        for rows in walk(asked.reader, asked.selection, pair, columns, epochs=asked.selection.epochs[pair][-1:]):
            for name in columns:
                values |= set(rows.frame[name].drop_nulls().unique().to_list())
    known = sorted(values)
    if asked.positive is None:
        if len(asked.reader.label_names) == 2 and all(isinstance(value, int) for value in known):
            return 1
        return known[-1] if len(known) > 1 or not known or known[0] not in (0, False) else type(known[0])(1)
    named = set(asked.names.by_value) if all(isinstance(value, int) for value in known) else set()
    known = sorted(values | named)  # a class of the run is one also where no row of the last place has it
    spelled = {**{str(value): value for value in known}, **{asked.names[value]: value for value in known}}
    if asked.positive not in spelled:
        raise unknown("label", asked.positive, [str(name) for name in spelled], where=asked.reader.layout.described)
    return spelled[asked.positive]


def _binary_groups(frame: pl.DataFrame, asked: _Asked, positive: Any) -> Iterator[dict[str, Any]]:
    for column, value, own in _groups(frame, asked.by, asked):
        curve = Thresholds.of(*_scores(own, positive))
        yield {"column": column, "value": value, **_binary_figures(own, curve, positive)}


def _binary_figures(frame: pl.DataFrame, curve: Thresholds, positive: Any) -> dict[str, Any]:
    """The figures of some samples: of their scores, and of what was predicted of them.

    At a probability of exactly 0.5 only the recorded prediction tells which of the two it was.
    """
    said, truth = frame[PREDICTION] == positive, frame[LABEL] == positive
    n, tp, n_said = frame.height, int((said & truth).sum()), int(said.sum())
    best = curve.row(curve.best() if n else None)
    return {
        "n": n,
        "positives": curve.n_positive,
        "auroc": _finite(curve.auroc),
        "average_precision": _finite(curve.average_precision),
        "accuracy": int((said == truth).sum()) / max(n, 1),
        "precision": tp / max(n_said, 1),
        "recall": tp / max(curve.n_positive, 1),
        "f1": 2 * tp / max(n_said + curve.n_positive, 1),
        "best_threshold": best["threshold"],
        "best_f1": best["f1"],
    }


def _groups(
    frame: pl.DataFrame, columns: tuple[str, ...], asked: _Asked, fifths: str | None = None
) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """The rows by each value of some columns, and by the fifth that a number is in."""
    if not frame.height:
        return
    parts = [(fifths, *by_quintile(frame[fifths]))] if fifths is not None and fifths in frame.columns else []
    coded_columns = [(name, coded(as_recorded(frame, name))) for name in columns if name != fifths]
    for name, names, codes in [*parts, *((name, one.names, one.codes) for name, one in coded_columns)]:
        called = asked.called(name)
        for code, value in enumerate(names):
            own = codes == code
            if own.any():
                rows = frame.filter(pl.Series(own))
                if value not in (MISSING, OTHER) and isinstance(of_set := as_recorded(rows, name)[0], pl.Series):
                    value = asked.names[of_set.to_list()]
                yield name, called.get(value, value), rows


def _sets(asked: _Asked) -> Found:
    asked.needs(LABEL, PREDICTION)
    found: list[dict[str, Any]] = []
    details: dict[str, Any] = {"labels": [], "swapped": [], "doubted": [], "groups": [], "n": []}
    for pair, rows, is_last in asked.places([PREDICTION]):
        frame = rows.frame.drop_nulls([LABEL, PREDICTION])
        table, figures = _set_figures(frame)
        found.append({**_place(pair, rows), **figures, "unknown": rows.frame.height - frame.height})
        if is_last:
            asked.tell_ungrouped(pair, rows.frame, frame, _BOTH)
            names = asked.names
            named = ({**row, "name": names[row[LABEL]]} for row in table.iter_rows(named=True))
            details["labels"] += _at_place(pair, named)
            groups = _groups(frame, asked.by, asked)
            told = ({"column": column, "value": value, **_set_figures(own)[1]} for column, value, own in groups)
            details["groups"] += _at_place(pair, told)
            swaps = swapped(frame)
            details["swapped"] += _at_place(
                pair,
                (
                    {**row, "name": names[row[LABEL]], "prediction_name": names[row[PREDICTION]]}
                    for row in swaps.head(asked.top).iter_rows(named=True)
                ),
            )
            key = asked.selection.label_key
            history = walk(asked.reader, asked.selection, pair, [SAMPLE_ID, key, PREDICTION])
            labelled = (one.frame.select(SAMPLE_ID, pl.col(key).alias(LABEL), PREDICTION) for one in history)
            doubts = doubted(labelled)
            details["doubted"] += _at_place(
                pair,
                (
                    {**row, "name": names[row["class"]], "reason": doubt_in_words(row)}
                    for row in doubts.head(asked.top).iter_rows(named=True)
                ),
            )
            details["n"] += _at_place(pair, [{"swapped": swaps.height, "doubted": doubts.height}])
    return found, details


def _set_figures(frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The figures of each label of sets, and those of all of them."""
    counts = set_counts(by_class(frame))
    table = label_figures(counts)
    n_samples, n_exact = exact_sets(frame)
    overall = overall_figures(counts, table, exact=(n_samples, n_exact))
    n_right, n, n_said = (int(table[name].sum()) for name in ("n_right", "n", "n_predicted"))
    return table, {
        "n": n_samples,
        "exact": n_exact / n_samples if n_samples else None,
        "micro_precision": n_right / n_said if n_said else 0.0,
        "micro_recall": n_right / n if n else 0.0,
        "micro_f1": 2 * n_right / (n + n_said) if n + n_said else 0.0,
        "macro_f1": overall.macro_f1 if overall else None,
        "labels_a_sample": n / n_samples if n_samples else None,
        "predicted_a_sample": n_said / n_samples if n_samples else None,
    }


def _sequences(asked: _Asked) -> Found:
    asked.needs(LOSS)
    key = asked.selection.label_key  # which groups texts: none has a label that it could stand for
    by = list(dict.fromkeys([*asked.by, *([key] if key in asked.reader.dtypes else [])]))
    if _SOURCE in asked.reader.facts.dtypes and _SOURCE not in by:
        by.append(_SOURCE)
    asked.by = tuple(by)
    kept = ["worst_token", "worst_token_loss", TOKEN_LOSSES]
    found: list[dict[str, Any]] = []
    details: dict[str, Any] = {"groups": [], "places": [], "worst": [], "worst_tokens": [], "n": []}
    for pair, rows, is_last in asked.places([LOSS, N_TOKENS, tokens.ACCURACY, *kept]):
        frame = rows.frame
        figures = tokens.sequence_figures(frame)
        found.append({**_place(pair, rows), **figures, "unknown": frame.height - int(figures["n"] or 0)})
        if not is_last:
            continue
        known = frame.filter(pl.col(LOSS).is_finite())
        asked.tell_ungrouped(pair, frame, known, "a finite loss")
        for column, value, own in _groups(known, asked.by, asked, N_TOKENS):
            row = {"column": column, "value": value, **tokens.sequence_figures(own)}
            details["groups"] += _at_place(pair, [row])
        worst = known.sort(LOSS, SAMPLE_ID, descending=[True, False]).head(asked.top)
        words: dict[Any, list[tuple[str, float]]] = {}
        n = {"worst": known.height}
        if TOKEN_LOSSES in known.columns:
            details["places"] += _at_place(pair, tokens.by_place(known[TOKEN_LOSSES]))
            if tokens.TOKENS in asked.reader.facts.dtypes:
                facts = facts_by_sample(asked.reader, known[SAMPLE_ID])
                texts = {sample_id: one.get(tokens.TOKENS) for sample_id, one in facts.items()}
                words, unfit = tokens.with_words(known, texts)
                if unfit:
                    many = f"{unfit:,} {'sequence' if unfit == 1 else 'sequences'}"
                    asked.warnings.append(
                        f"the words of {many} are not as many as the losses: they are not set together"
                    )
                bad_tokens = tokens.worst_tokens(list(words.values()))
                details["worst_tokens"] += _at_place(pair, bad_tokens.head(asked.top).iter_rows(named=True))
                n |= {"worst_tokens": bad_tokens.height}
        shown = [name for name in (SAMPLE_ID, LOSS, N_TOKENS, tokens.ACCURACY, *kept[:2]) if name in worst.columns]
        worst = worst.select(shown).with_columns(pl.col("^worst_token$").cast(pl.Int64, strict=False))
        for row in worst.iter_rows(named=True):
            told = [{"token": token, "loss": loss} for token, loss in words.get(row[SAMPLE_ID], ())]
            details["worst"] += _at_place(pair, [{**row, "words": told}])
        details["n"] += _at_place(pair, [n])
    return found, details


def _samples(found: Any) -> Any:
    """Details whose rows are samples as a frame, so that what these are can be set beside them."""
    if not isinstance(found, list) or not found or SAMPLE_ID not in found[0]:
        return found
    return pl.DataFrame(found, infer_schema_length=None)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
