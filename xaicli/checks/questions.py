"""What is asked of a run before it may replace another: `check`."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.checks.rules import At, Better, Count, Rule, parse_rule, read_rules
from xaicli.checks.verdicts import (
    Outcome,
    Verdict,
    counted,
    drop_bound,
    judged,
    none_wrong,
    not_asked,
    noted,
    samples_are,
)
from xaicli.diagnosis.calibration import calibration
from xaicli.diagnosis.training import steps
from xaicli.errors import DamagedFileError, UsageError, XaiError, unknown
from xaicli.layout import decode_epoch
from xaicli.maintenance.doctor import examine
from xaicli.queries.listed import Listed, listed
from xaicli.queries.names import LabelNames, names_of_runs
from xaicli.queries.resolution import resolve
from xaicli.queries.rows import walk
from xaicli.queries.runs import ending_of
from xaicli.queries.selection import Pair, Selection
from xaicli.queries.tasks import LabelKind, are_texts, labels_of, never_recorded
from xaicli.reader import Reader, Tally
from xaicli.tables.labels import is_same_number
from xaicli.tables.lists import columns_of_text, ids_of_columns, is_of, read_columns, read_text
from xaicli.vocabulary import (
    CORRECT,
    DS_ID,
    END_IS_KNOWN,
    EPOCH,
    HIGH_IS_GOOD,
    LABEL,
    LOSS,
    MODE,
    PASS,
    PREDICTION,
    SAMPLE_ID,
    TOP_PROB,
    Duplicates,
    Mode,
)


def check(
    reader: Reader,
    *,
    rules: str | os.PathLike[str] | None = None,
    rule: Sequence[str] = (),
    baseline: Reader | XaiError | None = None,
    mode: str | None = None,
    ds_id: Any = None,
    strict_drop: bool = False,
) -> Answer:
    """Hold a run against rules.

    Args:
        reader: The run.
        rules: A TOML file of `[[rule]]` tables.
        rule: Rules of one line each.
        baseline: The run that a drop is measured against, or why it cannot be read: then drops cannot be asked.
        mode: The mode of rules that name none; `eval` when None, or `train` in a run without. Counts of values and
            rows are of all modes then, spikes of `train`.
        ds_id: The data sets of rules that name none; all when None.
        strict_drop: Fail a drop that is larger than allowed even where chance may have brought it.

    Returns:
        Rows rule, mode (of a count all that were counted, with commas between; null of the whole run), ds_id, epoch,
        pass, group, outcome (passed, failed, allowed, unsure, too few, not asked),
        value, bound, n, low, high (95 % interval of a drop), reason, failing (the samples that break a rule on samples
        or on a largest or smallest value), baseline_epoch, baseline_pass (of a drop, what of the baseline it was
        measured against). The keys `failed` and `not_asked` count them; `samples` are the failing
        ones, a row each, at most 100 a verdict;
        `exit` is 1 where a rule failed, else 2 where one could not be asked, else 0.

    Raises:
        UsageError: There is no rule, or one makes no sense.
        XaiError: A file cannot be read.
    """
    wanted = [*(read_rules(Path(rules)) if rules is not None else ()), *(parse_rule(line) for line in rule)]
    if not wanted:
        raise UsageError("there is no rule to check", hint="--rules FILE, or --rule 'correct mean by label >= 0.8'")
    where = Path(rules).parent if rules is not None else Path()
    warnings = list(reader.warnings)
    if not any(one.largest_drop is not None for one in wanted):
        if isinstance(baseline, XaiError):
            raise baseline
        if baseline is not None:
            warnings.append("no rule is about a drop: --baseline is not looked at")
        if strict_drop:
            warnings.append("no rule is about a drop: --strict-drop changes nothing")
    if any(one.count is Count.DAMAGED for one in wanted):
        _note_damage(reader)
    ending = ending_of(reader.layout)
    warnings += _died(ending)
    rows: list[dict[str, Any]] = []
    for one in wanted:
        question = _Question(reader, baseline, one, mode, ds_id, strict_drop, where)
        found = _rows(question)
        rows += found
        warnings += question.warnings
        if question.mode is None and one.count in (None, Count.ECE) and Mode.EVAL not in reader.modes():
            judged_modes = dict.fromkeys(row[MODE] for row in found if row[MODE])
            warnings += [f"the run has no eval rows: judging {name}" for name in judged_modes]
        if question.mode is None and one.count is Count.SPIKES and Mode.TRAIN not in reader.modes():
            warnings += [
                f"the run has no train rows: the spikes are those of {row[MODE]}" for row in found if row[MODE]
            ]
    warnings += _parts(reader, rows)
    if isinstance(baseline, Reader) and any(one.largest_drop is not None for one in wanted):
        told = [*_died(ending_of(baseline.layout)), *_parts(baseline, rows, *_OF_BASELINE)]
        if baseline.damaged:
            n = len(baseline.damaged)
            told.append(
                f"{n:,} damaged {'file' if n == 1 else 'files'} left out, see xai doctor: {baseline.damaged[0]}"
            )
        told += [*(words for words in baseline.facts.notices if words not in warnings), *baseline.facts.told]
        warnings += [f"in the baseline: {one}" for one in told if one]
    ids = pl.List(reader.dtypes.get(SAMPLE_ID, pl.String()))
    data = pl.DataFrame(rows, schema={**_SCHEMA, "failing": ids}, orient="row")
    failed = data.filter(pl.col("outcome") == Outcome.FAILED.value).height
    broken = data.filter(pl.col("failing").list.len() > 0).with_columns(pl.col("failing").list.head(_TOLD_SAMPLES))
    samples = broken.explode("failing").select("rule", MODE, DS_ID, "group", pl.col("failing").alias(SAMPLE_ID))
    unasked = data.filter(pl.col("outcome") == Outcome.NOT_ASKED.value).height
    return Answer(
        command="check",
        run=reader.layout.described,
        selection={
            "rules": None if rules is None else os.fspath(rules),
            "rule": list(rule),
            "baseline": baseline.layout.described if isinstance(baseline, Reader) else None,
            "mode": mode,
            "ds_id": ds_id,
            "facts": reader.facts.given or None,
            **({} if reader.facts.wanted else {"no_facts": True}),
            "strict_drop": strict_drop,
        },
        data=data,
        counts=reader.counts(),
        warnings=tuple(dict.fromkeys(warnings)),
        extra={
            "failed": failed,
            "not_asked": unasked,
            "exit": 1 if failed else 2 if unasked else 0,
            **ending,
            **({"samples": samples} if samples.height else {}),
        },
    )


_TOLD_SAMPLES = 100
_TOLD_LABELS = 5
_OF_BASELINE = ("baseline_epoch", "baseline_pass")
_SCHEMA = {
    "rule": pl.String(),
    MODE: pl.String(),
    DS_ID: pl.String(),
    EPOCH: pl.Int32(),
    PASS: pl.Int16(),
    "group": pl.String(),
    "outcome": pl.String(),
    "value": pl.Float64(),
    "bound": pl.String(),
    "n": pl.Int64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "reason": pl.String(),
    "failing": pl.List(pl.String()),  # or of whatever the ids of the run are
    _OF_BASELINE[0]: pl.Int32(),
    _OF_BASELINE[1]: pl.Int16(),
}


_OF_THE_RUN = frozenset({Count.DROPPED, Count.DAMAGED, Count.TAKEN_BACK})
"""Counts that are not known by mode and data set."""


class _Question:
    """One rule and what it is asked of."""

    def __init__(
        self,
        reader: Reader,
        baseline: Reader | XaiError | None,
        rule: Rule,
        mode: str | None,
        ds_id: Any,
        strict_drop: bool,
        folder: Path,
    ) -> None:
        self.rule = rule
        self.baseline = baseline
        self.reader = reader
        self.mode = rule.mode or mode
        self.ds_id = rule.ds_id if rule.ds_id is not None else ds_id
        self.strict_drop = strict_drop
        self.folder = folder
        self.warnings: list[str] = []

    def limit(self) -> None:
        """Limit the rows of both runs as the rule says.

        Raises:
            XaiError: The condition makes no sense, or no row meets it.
        """
        self.reader = _where(self.reader, self.rule)
        if isinstance(self.baseline, Reader) and self.rule.largest_drop is not None:
            try:
                self.baseline = _where(self.baseline, self.rule)
            except DamagedFileError:
                raise
            except XaiError as error:
                self.baseline = error

    def select(self, reader: Reader, metric: str, *, mode: str | None = None) -> Selection:
        """The rule's rows in a run, or all those of one mode; a data set that its condition empties among them."""
        asked: dict[str, Any] = {"mode": self.mode, "ds_id": self.ds_id} if mode is None else {"mode": [mode]}
        selection = resolve(reader, metric=[metric], **asked)
        if reader.where is None:
            return selection
        every = resolve(_unlimited(reader), metric=[metric], **asked)
        return replace(selection, pairs=every.pairs, epochs=every.epochs)


def _unlimited(reader: Reader) -> Reader:
    """The reader without the rule's condition."""
    return reader.limited(None)


def _note_damage(reader: Reader) -> None:
    """Look at every byte of the run, as the doctor does: what reads some files alone knows of the damage in these.

    Raises:
        DamagedFileError: Something is damaged and the reader is strict.
    """
    for finding in examine(reader.layout).findings:
        said = f"{finding.path} is {finding.complaint.value}: {finding.reason}"
        reader.note(DamagedFileError(said, hint="see: xai doctor"), finding.path)


def _died(ending: Mapping[str, str]) -> list[str]:
    """What is said of a run that did not come to its end."""
    if ending.get("state") != "crashed":
        return []
    return ["the training has died" + (f" of {ending['ended_by']}" if ending["ended_by"] else "")]


def _parts(reader: Reader, rows: Sequence[dict[str, Any]], epoch: str = EPOCH, turn: str = PASS) -> Iterator[str]:
    """What is said of each (mode, ds_id) whose last pass was judged and has fewer samples than the one before.

    Args:
        reader: The run, or the baseline.
        rows: The verdicts.
        epoch, turn: Where these say at which place of it they are.
    """
    judged_at = {((row[MODE], row[DS_ID]), (row[epoch], row[turn])) for row in rows if row[epoch] is not None}
    for pair in sorted({pair for pair, _ in judged_at}):
        last, said = _part(reader, pair)
        if said and (pair, last) in judged_at:
            yield said


def _part(reader: Reader, pair: Pair) -> tuple[tuple[int, int] | None, str]:
    """The epoch and pass that come last, and what is said of them where they have fewer samples than those before; None
    where no place can be read.
    """
    frames = reader.place_frames(*pair, [SAMPLE_ID], backwards=True)
    found = [(rows.place, rows.frame[SAMPLE_ID].n_unique()) for rows in islice(frames, 2)]
    if not found:
        return None, ""
    place, n = found[0]
    last = place.epoch, place.turn or 0
    if len(found) == 1 or n >= found[1][1]:
        return last, ""
    state = ending_of(reader.layout).get("state", "")
    ends = {"running": "; the run is still recording", "crashed": "; the run died"}.get(state, "")
    where = " ".join(filter(None, pair))
    return last, f"the last pass of {where} has {n:,} of the {found[1][1]:,} samples of the one before{ends}"


def _instead(reader: Reader, pair: Pair, epoch: int | None) -> list[str]:
    """What is said of an epoch that is judged as the last, where a later one is left out as damaged."""
    if epoch is None:
        return []
    of_pair = reader.layout.folder(*pair, epoch).relative_to(reader.layout.root).parent
    lost = (Path(name).parent for name in reader.damaged if name in reader.records)  # not those of another run
    epochs = [decode_epoch(folder.name) or 0 for folder in lost if folder.parent == of_pair]
    if (last := max(epochs, default=epoch)) <= epoch:
        return []
    where = " ".join(filter(None, pair))
    return [f"epoch {last} of {where} is left out, see xai doctor: epoch {epoch} is judged as the last"]


def _where(reader: Reader, rule: Rule) -> Reader:
    """The reader, its rows limited as the rule says."""
    if rule.where is None:
        return reader
    return reader.limited(rule.where)


def _rows(question: _Question) -> list[dict[str, Any]]:
    rule = question.rule
    try:
        question.limit()
        lacking = list(_lacking(question))
        if rule.count is not None:
            if rule.count is Count.ECE:
                return [*(_of_count(rule, one) for one in _calibration_errors(question)), *lacking]
            return [_of_count(rule, _count(question, rule.count)), *lacking]
        if rule.samples:
            return [*_of_list(question, rule.samples), *lacking]
        metric = rule.metric
        selection = question.select(question.reader, metric)
        return [*_of_pairs(question, selection, metric), *_gone(question, selection, metric), *lacking]
    except DamagedFileError:
        raise  # strict: nothing is said of files that are not what was written
    except XaiError as error:
        return [_row(not_asked(rule, _why(error)))]


def _lacking(question: _Question) -> Iterator[dict[str, Any]]:
    """What cannot be said of each mode named that has none of the data sets named: the others do not stand for it.

    Raises:
        XaiError: No mode or data set named is there.
    """
    if question.mode is None or question.rule.count in _OF_THE_RUN:
        return
    selection = resolve(_unlimited(question.reader), mode=question.mode, ds_id=question.ds_id, every_metric=True)
    for mode, what in selection.modes_lacking.items():
        yield {**_row(not_asked(question.rule, f"{what} in {mode}")), MODE: mode}


def _of_count(rule: Rule, found: _Counted) -> dict[str, Any]:
    modes = ",".join(dict.fromkeys(mode for mode, _ in found.pairs)) or None
    ds_ids = {ds_id for _, ds_id in found.pairs}
    verdict = counted(rule, found.value, note=found.note, n=found.n) if found.is_known else not_asked(rule, found.note)
    at = dict(zip((EPOCH, PASS), found.at, strict=True))
    return {**_row(verdict), MODE: modes, DS_ID: next(iter(ds_ids)) if len(ds_ids) == 1 else None, **at}


def _why(error: XaiError) -> str:
    """Why a rule cannot be asked, with the name that may be meant."""
    meant = re.search(r"did you mean [^?]+\?", error.hint)
    return f"{error.message}: {meant[0]}" if meant else error.message


def _of_list(question: _Question, file: str) -> Iterator[dict[str, Any]]:
    """The verdicts on listed samples: of each (mode, ds_id) that has some, and of those that are in none.

    A list that says where each was recorded is about these rows: where nobody said which mode, about those it names.

    Raises:
        XaiError: The list cannot be read, or is about none of the rows asked for.
    """
    rule, reader = question.rule, question.reader
    given, note = _listed(question, file)
    if question.mode is None:
        modes = dict.fromkeys(mode for places in given.places.values() for mode, _ in places)
        if all(modes) and (there := [mode for mode in modes if mode in reader.modes()]):
            question.mode = ",".join(there)
    if CORRECT not in reader.dtypes and reader.modes() and (why := never_recorded(reader, CORRECT)):
        raise XaiError(f"no sample is right or wrong: {why}")
    selection = question.select(reader, CORRECT)
    question.warnings += given.not_in(selection.pairs)
    frames = {pair: _samples(question, reader, selection, pair, CORRECT) for pair in selection.pairs}
    known = {pair: set(frame[SAMPLE_ID]) for pair, (frame, _) in frames.items()}
    none = next(iter(frames.values()))[0].clear()
    own: dict[Pair, list[Any]] = {pair: [] for pair in frames}
    lacking: list[Any] = []
    for one, place in given.each():
        pairs = [pair for pair in frames if is_of(place, pair)]
        here = [pair for pair in pairs if one in known[pair]] or pairs[: len(pairs) == 1]
        for pair in here:
            own[pair].append(one)
        if not here and (pairs or not any(is_of(place, pair) for pair in _every_pair(reader))):
            lacking.append(one)
    for pair, (frame, at) in frames.items():
        if own[pair]:
            verdict = none_wrong(rule, frame, own[pair], where=" ".join(filter(None, pair)), note=note)
            yield {**_row(verdict), MODE: pair[0], DS_ID: pair[1], **at}
            note = ""
    if lacking:
        where = " or ".join(" ".join(filter(None, pair)) for pair in frames)
        yield _row(none_wrong(rule, none, lacking, where=where, note=note))


def _every_pair(reader: Reader) -> list[Pair]:
    return [(mode, ds_id) for mode in reader.modes() for ds_id in reader.ds_ids(mode)]


def _of_pairs(question: _Question, selection: Selection, metric: str) -> Iterator[dict[str, Any]]:
    """The verdicts of each (mode, ds_id); one that cannot be asked leaves the others.

    Raises:
        XaiError: None can be asked, all for the same reason.
    """
    found: list[list[dict[str, Any]]] = []
    errors: list[XaiError] = []
    for pair in selection.pairs:
        try:
            found.append(_of_pair(question, selection, pair, metric))
        except DamagedFileError:
            raise
        except XaiError as error:
            errors.append(error)
            found.append([{**_row(not_asked(question.rule, _why(error))), MODE: pair[0], DS_ID: pair[1]}])
    if errors and len(errors) == len(found) and len({error.message for error in errors}) == 1:
        raise errors[0]
    yield from (row for rows in found for row in rows)


def _gone(question: _Question, selection: Selection, metric: str) -> Iterator[dict[str, Any]]:
    """What cannot be said of each (mode, ds_id) that the rule is about and only the baseline has."""
    rule, reader, baseline = question.rule, question.reader, question.baseline
    if rule.largest_drop is None or not isinstance(baseline, Reader):
        return
    try:
        pairs = question.select(baseline, metric).pairs
    except DamagedFileError:
        raise
    except XaiError:
        return  # it has none of what is asked for, which each pair of this run tells
    here = {*selection.pairs, *((mode, ds_id) for mode in reader.modes() for ds_id in reader.ds_ids(mode))}
    for pair in (pair for pair in pairs if pair not in here):
        where = " ".join(filter(None, pair))
        question.warnings.append(f"{where} is in the baseline alone: nothing of it is compared")
        verdict = not_asked(rule, f"this run has no rows of {where}", bound=drop_bound(rule))
        yield {**_row(verdict), MODE: pair[0], DS_ID: pair[1]}


def _baseline(
    question: _Question, selection: Selection, pair: Pair, metric: str
) -> tuple[pl.DataFrame, dict[str, Any], tuple[LabelNames, LabelNames]] | str:
    """The baseline's samples, at which place, and what labels are called in this run and in it, or why a drop of this
    (mode, ds_id) cannot be asked.
    """
    baseline = question.baseline
    if baseline is None:
        return "a drop needs --baseline RUN"
    if isinstance(baseline, XaiError):
        return baseline.message
    if pair[0] not in baseline.modes() or pair[1] not in baseline.ds_ids(pair[0]):
        return f"the baseline has no rows of {' '.join(filter(None, pair))}"
    try:
        other = question.select(baseline, metric, mode=pair[0])
        here, there = names_of_runs((question.reader, baseline), (selection, other))
        return *_samples(question, baseline, other, pair, metric), (LabelNames(here), LabelNames(there))
    except DamagedFileError:
        raise
    except XaiError as error:
        return f"in the baseline: {error.message}"


def _of_pair(question: _Question, selection: Selection, pair: Pair, metric: str) -> list[dict[str, Any]]:
    rule, reader = question.rule, question.reader
    frame, place = _samples(question, reader, selection, pair, metric)
    told = {MODE: pair[0], DS_ID: pair[1], **place}
    names = base_names = LabelNames.of(reader, selection)
    base: pl.DataFrame | None = None
    remarks: list[str] = []
    moved: dict[str, pl.Series] = {}
    unasked: list[Verdict] = []
    against: dict[str, Any] = {}
    if rule.largest_drop is not None:
        other = _baseline(question, selection, pair, metric)
        if isinstance(other, str):
            unasked = [not_asked(rule, other, bound=drop_bound(rule))]
            rule = replace(rule, largest_drop=None)
        else:
            base, at, (names, base_names) = other
            against = dict(zip(_OF_BASELINE, (at[EPOCH], at[PASS]), strict=True))
            moved = _moved(rule, frame, base, names, base_names)
            if LABEL not in rule.columns:
                remarks += _labels_gone(frame, base, names, base_names)
            question.warnings += _alone(question, pair, frame, base)
        if unasked and rule.least is None and rule.most is None:
            return [{**_row(verdict), **told} for verdict in unasked]
    found = judged(
        rule,
        frame,
        base,
        names=_called(rule, frame, names),
        base_names=None if base is None else _called(rule, base, base_names),
        strict_drop=question.strict_drop,
        moved=moved,
        remarks=remarks,
    )
    where = " ".join(filter(None, pair))
    if rule.columns:
        question.warnings += [f"{rule.name} ({where}): {remark}" for remark in remarks]
    else:
        found[-1] = noted(found[-1], *remarks)
    return [{**_row(verdict), **told, **(against if verdict.is_of_drop else {})} for verdict in (*found, *unasked)]


def _called(rule: Rule, frame: pl.DataFrame, names: LabelNames) -> dict[Any, str]:
    """What the classes are called that samples have in the columns of a rule."""
    columns = [column for column in rule.columns if column in (LABEL, PREDICTION)]
    return {value: names[value] for column in columns for value in _values(frame[column])}


def _labels_gone(frame: pl.DataFrame, base: pl.DataFrame, names: LabelNames, base_names: LabelNames) -> Iterator[str]:
    """Labels that only the baseline has samples of, said where a rule is not about labels."""
    if any(LABEL not in one.columns or one.schema[LABEL].is_float() for one in (frame, base)):
        return
    here = {str(names[label]) for label in _values(frame[LABEL])}
    gone = [label for label in _values(base[LABEL]).sort() if str(base_names[label]) not in here]
    if gone:
        told = [str(base_names[label]) for label in gone[:_TOLD_LABELS]]
        more = f" and {len(gone) - len(told):,} more" if len(gone) > len(told) else ""
        labels = f"{'label' if len(gone) == 1 else 'labels'} {', '.join(told)}{more}"
        yield f"{labels} {'is' if len(gone) == 1 else 'are'} in the baseline alone"


def _alone(question: _Question, pair: Pair, frame: pl.DataFrame, base: pl.DataFrame) -> Iterator[str]:
    """How many samples only one of the two runs has."""
    if (frame.schema[SAMPLE_ID] == pl.String()) != (base.schema[SAMPLE_ID] == pl.String()):
        return
    where = " ".join(filter(None, pair)) + (f" where {question.rule.where}" if question.rule.where else "")
    for one, other, which in ((base, frame, "in the baseline alone"), (frame, base, "not in the baseline")):
        if n := one.join(other, on=SAMPLE_ID, how="anti").height:
            yield f"{samples_are(n, of=f' of {where}')} {which}, and not compared"


def _is_measured(reader: Reader, column: str) -> bool:
    """Whether a column is a metric of measured numbers, and so no group."""
    return column in reader.metrics and reader.dtypes[column].is_float()


def _samples(
    question: _Question, reader: Reader, selection: Selection, pair: Pair, metric: str
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The samples of the rule's place, the last, or that with the best mean; values that are not finite as they are."""
    rule = question.rule
    for column in rule.columns:
        if column not in reader.dtypes:
            if column == LABEL and are_texts(reader):
                raise XaiError(f"the labels of {reader.layout.described} are tokens: no sample has one to group it by")
            known = [name for name in reader.dtypes if not _is_measured(reader, name)]
            note = reader.facts.left_out
            raise unknown("column or fact", column, known, plural="columns and facts", note=note)
        if _is_measured(reader, column):
            raise XaiError(
                f"{column} holds measured numbers: each would be a group", hint='limit them with where = "..."'
            )
    label = [LABEL] if rule.largest_drop is not None else []
    stored = [name for name in (*rule.columns, metric, *label) if name in reader.dtypes]
    columns = list(dict.fromkeys([SAMPLE_ID, *stored]))
    best: tuple[float, pl.DataFrame, dict[str, Any]] | None = None
    for rows in walk(reader, selection, pair, columns, backwards=True, keep_non_finite=True):
        frame = rows.frame
        place = {EPOCH: rows.place.epoch, PASS: rows.place.turn}
        values = frame[metric].cast(pl.Float64)
        mean = values.filter(values.is_finite()).mean()
        score = -math.inf if not isinstance(mean, float) else mean if rule.better is not Better.LOW else -mean
        if best is None or score > best[0]:
            best = score, frame, place
        if rule.at is At.LAST:
            break
    if rule.where is not None and rule.at is At.LAST:
        # An older place that has such rows is not what the rule is about.
        whole = question.select(_unlimited(reader), metric, mode=pair[0])
        last = max(whole.epochs[pair], default=None)
        if best is None or best[2][EPOCH] != last:
            raise XaiError(f"no row of epoch {last}, the last, meets {rule.where}")
    if best is None:
        raise XaiError(f"no row of {' '.join(filter(None, pair))} is there to judge")
    _, frame, place = best
    if rule.at is At.LAST:
        which = "" if reader is question.reader else "in the baseline: "
        question.warnings += [f"{which}{one}" for one in _instead(reader, pair, place[EPOCH])]
    if rule.samples:
        frame = frame.with_columns(pl.col(CORRECT).cast(pl.Boolean))
    return frame, place


def _moved(
    rule: Rule, frame: pl.DataFrame, base: pl.DataFrame, names: LabelNames, base_names: LabelNames
) -> dict[str, pl.Series]:
    """{column: the samples of both runs that have another label, or value of a column of the rule, in each}.

    Labels are told apart by name: corrected ones, and classes renamed.
    """
    if frame.schema[SAMPLE_ID] != base.schema[SAMPLE_ID]:
        return {}
    columns = dict.fromkeys((*rule.columns, LABEL))
    found: dict[str, pl.Series] = {}
    for column in (column for column in columns if column in frame.columns and column in base.columns):
        are_classes = column in (LABEL, PREDICTION)
        here, there = (of if are_classes else LabelNames({}) for of in (names, base_names))
        found[column] = _differing(column, frame, base, here, there)
    return found


def _differing(column: str, frame: pl.DataFrame, base: pl.DataFrame, here: LabelNames, there: LabelNames) -> pl.Series:
    """The samples of both runs whose values of a column have different names."""
    old = base.select(SAMPLE_ID, pl.col(column).alias("old"))
    both = frame.select(SAMPLE_ID, pl.col(column).alias("new")).join(old, on=SAMPLE_ID).drop_nulls()
    pairs = both.group_by("new", "old", maintain_order=True).agg(SAMPLE_ID)

    def name(of: LabelNames, value: Any) -> Any:
        return sorted(str(of[one]) for one in value) if isinstance(value, list) else str(of[value])

    def differ(new: Any, old: Any) -> bool:
        if {type(new), type(old)} in ({float}, {float, int}):
            return not is_same_number(new, old)
        return bool(name(here, new) != name(there, old))

    changed = [differ(new, old) for new, old in pairs.select("new", "old").iter_rows()]
    return pairs.filter(pl.Series(changed, dtype=pl.Boolean))[SAMPLE_ID].explode()


def _values(labels: pl.Series) -> pl.Series:
    known = labels.drop_nulls()
    return (known.explode() if isinstance(known.dtype, pl.List) else known).drop_nulls().unique()


def _listed(question: _Question, file: str) -> tuple[Listed, str]:
    """The samples of a list, one a line or as `select` wrote it, and what is to be said of rows without an id."""
    path = question.folder / file
    are_texts = question.reader.dtypes.get(SAMPLE_ID) == pl.String()
    if path.suffix.lower() in _LISTS:
        columns = read_columns(path)
    else:
        try:
            text = read_text(path)
        except (OSError, UnicodeDecodeError) as error:
            raise XaiError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        columns = columns_of_text(text)
    if SAMPLE_ID not in columns:
        raise XaiError(f"{path} has no column sample_id", hint=f"its columns: {', '.join(columns)}")
    filled = [
        place for place, one in enumerate(columns[SAMPLE_ID]) if one is not None and (are_texts or str(one).strip())
    ]
    if not filled:
        raise XaiError(f"{path} names no sample", hint="one sample id a line")
    n = len(columns[SAMPLE_ID]) - len(filled)
    note = "" if not n else f"{n:,} {'row' if n == 1 else 'rows'} of {file} without an id: not judged"
    rows = {name: [values[place] for place in filled] for name, values in columns.items()}
    return listed(question.reader, ids_of_columns(rows)), note


_LISTS = frozenset({".csv", ".tsv", ".parquet", ".pq", ".json", ".jsonl", ".ndjson"})


@dataclass(frozen=True)
class _Counted:
    """A count of the run.

    Attributes:
        value: None where it cannot be told.
        pairs: Of which (mode, ds_id); none where it is of the whole run.
        note: Of what it is, and what is to be said besides.
        n: How many samples it is of; 0 for a count that looks at none.
        at: Epoch and pass, where it is of one place.
        is_known: Whether there was anything to count; the note says why not.
    """

    value: float | None
    pairs: Sequence[Pair] = ()
    note: str = ""
    n: int = 0
    at: tuple[int | None, int | None] = (None, None)
    is_known: bool = True


def _count(question: _Question, what: Count) -> _Counted:
    """A count: of the mode that is named, of no mode in particular the spikes of `train` and all else of every mode."""
    reader = question.reader
    if what in _OF_THE_RUN:
        found = reader.counts().as_dict().get(what.value)
        noun = "files" if what is Count.DAMAGED else "rows"
        note = f"{noun} of the whole run"
        if question.mode is not None or question.ds_id is not None:
            note += ", whichever mode and data set is named: it is not known of each"
        return _Counted(len(found) if isinstance(found, list) else None if found is None else float(found), (), note)
    if what is Count.SPIKES:
        return _spikes(question)
    modes = question.mode if question.mode is not None else reader.modes()
    selection = resolve(reader, mode=modes, ds_id=question.ds_id, every_metric=True)
    if what is Count.DUPLICATES:
        tally = Tally()
        for pair in selection.pairs:
            for _ in walk(reader, selection, pair, [SAMPLE_ID], tally=tally):
                pass
        return _Counted(float(tally.duplicates), selection.pairs, "rows")
    of_each = dict.fromkeys(selection.metrics, 0)
    for pair in selection.pairs:
        for rows in walk(reader, selection, pair, [SAMPLE_ID, *of_each], keep_non_finite=True):
            if rows.tally.non_finite:
                for metric in of_each:
                    of_each[metric] += int((~rows.frame[metric].is_finite()).sum())
    told = ", ".join(f"{metric} {n:,}" for metric, n in of_each.items() if n)
    return _Counted(
        float(sum(of_each.values())), selection.pairs, f"values of every metric{f': {told}' if told else ''}"
    )


def _spikes(question: _Question) -> _Counted:
    """The spikes of the mode that is named, else of `train`, or of the usual mode in a run without.

    Raises:
        XaiError: No loss was recorded, nor a metric that stands alone and is known to be bad where it is high.
    """
    reader = question.reader
    mode = question.mode or (Mode.TRAIN.value if Mode.TRAIN in reader.modes() else None)
    selection = resolve(reader, mode=mode, ds_id=question.ds_id, every_metric=True)
    if LOSS not in selection.metrics and len(selection.metrics) != 1:
        raise XaiError("no loss was recorded: spikes are its rises")
    metric = LOSS if LOSS in selection.metrics else selection.metrics[0]
    selection = replace(selection, metrics=(metric,), duplicates=Duplicates.ALL)
    if metric in HIGH_IS_GOOD:
        raise XaiError(f"a rise of {metric} is no spike, since high is good there; no loss was recorded")
    if metric not in END_IS_KNOWN:
        raise XaiError(f"which end of {metric} is good is not known, and no loss was recorded")
    spikes = steps(reader, selection, spikes=0).data["is_spike"].sum() or 0
    return _Counted(float(spikes), selection.pairs, f"batches, by {metric}")


def _calibration_errors(question: _Question) -> list[_Counted]:
    """The expected calibration error of each data set at its last place, and what is left out of it.

    Raises:
        XaiError: Nothing was recorded that tells.
    """
    reader = question.reader
    if (labels := labels_of(reader)) is not LabelKind.CLASS:
        what = "sets of classes, each sure or not by itself" if labels is LabelKind.SET else labels.value
        raise XaiError(f"ece is of one class a sample and how sure the model is of it; the labels here are {what}")
    if not reader.modes():
        raise XaiError(f"{reader.layout.described} holds no samples")
    if TOP_PROB not in reader.dtypes:
        raise XaiError(f"no {TOP_PROB} was recorded: log logits or probs")
    if CORRECT not in reader.dtypes:
        absent = [f"{name}s" for name in (LABEL, PREDICTION) if name not in reader.dtypes]
        raise XaiError(f"no {CORRECT} was recorded: log {' and '.join(absent)}")
    selection = resolve(reader, metric=[TOP_PROB], mode=question.mode, ds_id=question.ds_id)
    found: list[_Counted] = []
    for pair in selection.pairs:
        rows = next(walk(reader, selection, pair, [SAMPLE_ID, TOP_PROB, CORRECT], backwards=True), None)
        if rows is None:
            continue
        question.warnings += _instead(reader, pair, rows.place.epoch)
        frame = rows.frame.sort(SAMPLE_ID)
        sure, right = (frame[name].cast(pl.Float64).to_numpy() for name in (TOP_PROB, CORRECT))
        one = calibration(sure, right, resamples=0)
        note = ""
        if lacking := frame.height - (one.n if one is not None else 0):
            where = " ".join(filter(None, pair))
            note = f"{lacking:,} of {frame.height:,} samples of {where} have no finite top_prob, or no correct"
        at = rows.place.epoch, rows.place.turn or 0
        value, n = (None, 0) if one is None else (one.ece, one.n)
        found.append(_Counted(value, [pair], note, n, at, is_known=one is not None))
    if not any(one.is_known for one in found):
        raise XaiError("; ".join(filter(None, (one.note for one in found))) or "no row is there to judge")
    return found


def _row(verdict: Verdict) -> dict[str, Any]:
    low, high = verdict.interval or (None, None)
    return {
        "rule": verdict.rule,
        MODE: None,
        DS_ID: None,
        EPOCH: None,
        PASS: None,
        "group": verdict.group,
        "outcome": verdict.outcome.value,
        "value": verdict.value,
        "bound": verdict.bound,
        "n": verdict.n,
        "low": low,
        "high": high,
        "reason": verdict.reason,
        "failing": list(verdict.failing),
        **dict.fromkeys(_OF_BASELINE),
    }
