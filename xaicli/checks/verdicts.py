"""What rules find in the samples of a place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from itertools import chain, product
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.checks.rules import Allowance, Better, Rule, quantile_of
from xaicli.choices.groups import grouped
from xaicli.diagnosis.chance import student_975
from xaicli.errors import UsageError
from xaicli.queries.names import label_text
from xaicli.vocabulary import CORRECT, LABEL, NO_CLASS, PREDICTION, SAMPLE_ID
from xaicli.words import quoted

_SHOWN = 10
_DROP = "drop "
"""What the limit of a drop begins with."""
_VALUE, _OLD = "\0value", "\0old"
"""The metric in this run and in the baseline; no metric, label or fact beside them is called so."""


class Outcome(StrEnum):
    """How a rule came out."""

    PASSED = "passed"
    FAILED = "failed"
    ALLOWED = "allowed"
    """It failed, and an allowance says why it may."""
    UNSURE = "unsure"
    """Worse than the baseline by more than is allowed, yet within what chance brings."""
    TOO_FEW = "too few"
    """The group has fewer samples than the rule judges."""
    NOT_ASKED = "not asked"
    """The run does not hold what the rule asks for."""


@dataclass(frozen=True)
class Verdict:
    """One line of a check: a rule and one of its groups.

    Attributes:
        rule: The rule's name.
        group: The value of the rule's column; "" for all samples.
        outcome: How it came out.
        value: The statistic; for a rule on a drop, how much worse it is than the baseline's.
        bound: The limit that was applied, in words.
        n: Samples judged.
        interval: The 95 % interval of a drop.
        reason: Why it is allowed or could not be asked; failing ids of a rule on samples.
        failing: The samples that break it, of rules on samples and on the largest or smallest value.
    """

    rule: str
    group: str
    outcome: Outcome
    value: float | None
    bound: str
    n: int
    interval: tuple[float, float] | None = None
    reason: str = ""
    failing: tuple[Any, ...] = ()

    @property
    def is_of_drop(self) -> bool:
        """Whether it is of the limit of a drop."""
        return self.bound.startswith(_DROP)


def judged(
    rule: Rule,
    frame: pl.DataFrame,
    baseline: pl.DataFrame | None = None,
    *,
    names: Mapping[Any, str] | None = None,
    base_names: Mapping[Any, str] | None = None,
    strict_drop: bool = False,
    moved: Mapping[str, pl.Series] | None = None,
    remarks: list[str] | None = None,
) -> list[Verdict]:
    """What a rule on a metric finds.

    Args:
        rule: The rule; its metric and column are in the frame.
        frame: A row a sample with sample_id, the metric and the rule's columns; NaN and infinities are not judged.
        baseline: The same of the baseline, without which a drop cannot be asked.
        names: What values of the rule's column are called.
        base_names: What they are called in the baseline, where that is another thing: groups are joined by name.
        strict_drop: Fail a drop that is larger than allowed even where chance may have brought it.
        moved: {column: the ids of samples that have another value of it in the baseline}.
        remarks: Where to tell what is of no group; without groups it is told with the verdict.

    Returns:
        One verdict a limit and group, in the order of the groups, each with what is to be said of its own samples; the
        drop of a group that only one of the runs has is not asked.

    Raises:
        UsageError: Two allowances are for the same group.
    """
    value = pl.col(rule.metric).cast(pl.Float64)
    every = frame.with_columns(value.alias(_VALUE))
    known = every.filter(pl.col(_VALUE).is_finite())
    found: list[Verdict] = []
    others = _Others(rule, every, baseline, names or {}, (names or {}) if base_names is None else base_names)
    unfit = _NotFinite(rule, every, names or {})
    met: set[str | tuple[str, ...]] = set()
    called = _values_called(names or {}) if rule.allow else {}
    least_n = 0 if rule.stat == "n" and rule.min_n <= 1 else max(rule.min_n, 1)  # none is a number of samples, too
    for parts, rows in chain(_groups(rule, known, names or {}), unfit.alone(known, is_counted=not least_n)):
        group = ", ".join(parts)
        allowance = _allowance(rule, parts, called)
        met |= {allowance.value} if allowance else set()
        own = unfit.of(parts)
        alone = None if rows.height else others.alone(parts, unfit)
        found += [alone] if alone else []
        if (alone or (not rows.height and others.has(parts))) and (rule.least, rule.most) == (None, None):
            continue  # of one that the baseline has values of, `gone` tells
        if rows.height < least_n:
            why = "; ".join(filter(None, (f"fewer than {least_n:,}", *others.not_compared(parts, rows), own)))
            found.append(Verdict(rule.name, group, Outcome.TOO_FEW, None, "", rows.height, reason=why))
            continue
        if rule.least is not None or rule.most is not None:
            found.append(noted(_limited(rule, group, rows, allowance), own))
            own = ""
        if rule.largest_drop is not None:
            told = [*_have_another(rows, moved or {}), own]
            if why := others.lacking(parts, rows):
                found.append(noted(replace(not_asked(rule, why, bound=drop_bound(rule)), group=group), *told))
                continue
            verdict = _dropped(rule, group, rows, baseline, allowance, strict_drop)
            found.append(noted(verdict, *others.not_compared(parts, rows), *told))
    found += others.gone(unfit)
    missing = [", ".join([value] if isinstance(value, str) else value) for value in rule.allow if value not in met]
    said = [
        *others.rest(),
        _in_no_group(rule, known),
        unfit.rest(),
        f"allowances for what does not occur: {', '.join(sorted(missing))}" if missing else "",
        *_taken_as_names(rule, names or {}),
    ]
    if not found:
        reasons = (_in_no_group(rule, known), unfit.rest()) if known.height else (f"no finite {rule.metric} is there",)
        return [not_asked(rule, "; ".join(filter(None, reasons)))]
    if not rule.columns or remarks is None:
        found[0] = noted(found[0], *said)
    else:
        remarks += filter(None, said)
    if all(verdict.outcome is Outcome.TOO_FEW for verdict in found):  # nothing was judged
        return [replace(verdict, outcome=Outcome.NOT_ASKED) for verdict in found]
    return found


class _NotFinite:
    """The values of a place that are not finite, and so not judged: of which group they are.

    Args:
        rule: The rule.
        every: A row a sample with `_VALUE`.
        names: What values of the rule's column are called.
    """

    def __init__(self, rule: Rule, every: pl.DataFrame, names: Mapping[Any, str]) -> None:
        unfit = every.filter(~pl.col(_VALUE).is_finite())
        # Fifths are of the judged alone: what has no value of the metric is in none of them.
        is_measured = any(every.schema[column].is_float() for column in rule.columns)
        self._groups = {} if is_measured or not rule.columns else dict(_groups(rule, unfit, names))
        self._rest = unfit.height
        self._is_by_group = bool(rule.columns)
        if rule.columns and not is_measured:
            in_groups = [rows[SAMPLE_ID] for rows in self._groups.values()]
            self._rest -= pl.concat(in_groups).n_unique() if in_groups else 0
        self._met: set[tuple[str, ...]] = set()

    def n(self, parts: tuple[str, ...]) -> int:
        """How many there are of a group."""
        return self._groups[parts].height if parts in self._groups else 0

    def of(self, parts: tuple[str, ...]) -> str:
        """What is said of those of a group; "" where there are none."""
        self._met.add(parts)
        rows = self._groups.get(parts)
        return "" if rows is None else f"{_values_are(rows.height)} not finite, and not judged"

    def alone(self, known: pl.DataFrame, *, is_counted: bool) -> Iterator[tuple[tuple[str, ...], pl.DataFrame]]:
        """The groups that have no other values, with no rows; asked after those that have some.

        Args:
            known: The rows with finite values.
            is_counted: Whether all samples together are a group, too.
        """
        yield from ((parts, known.clear()) for parts in self._groups if parts not in self._met)
        if is_counted and not self._is_by_group and self._rest and not known.height:
            yield (), known

    def rest(self) -> str:
        """What is said of those of no group; "" where there are none."""
        return f"{_values_are(self._rest)} not finite, and not judged" if self._rest else ""


def _have_another(rows: pl.DataFrame, moved: Mapping[str, pl.Series]) -> Iterator[str]:
    """How many samples have another value of a column in the baseline, such as another label."""
    for column, ids in moved.items():
        if n := int(rows[SAMPLE_ID].is_in(ids.implode()).sum()):
            yield f"{n:,} of them {'has' if n == 1 else 'have'} another {column} in the baseline"


def _values_called(names: Mapping[Any, str]) -> dict[str, str]:
    """What label each name is that of, but for labels that are the name of another."""
    taken = {str(name) for name in names.values()}
    return {str(name): label_text(value) for value, name in names.items() if label_text(value) not in taken}


def _taken_as_names(rule: Rule, names: Mapping[Any, str]) -> Iterator[str]:
    """What is said of allowances for what is the name of one label and the number of another: a name comes first."""
    called = {str(name) for name in names.values()}
    others = {label_text(value): str(name) for value, name in names.items() if label_text(value) != str(name)}
    for key in rule.allow:
        parts = (key,) if isinstance(key, str) else key
        for column, part in zip(rule.columns, parts, strict=False):
            if column in (LABEL, PREDICTION) and part in called and part in others:
                yield (
                    f"the allowance for {', '.join(parts)} is for the label called {part}, not for the one of this "
                    f"number, which is called {others[part]}"
                )


def _allowance(rule: Rule, parts: tuple[str, ...], called: Mapping[str, str]) -> Allowance | None:
    """The allowance for a group: by its name, or by the label that has this name.

    Raises:
        UsageError: There are two.
    """
    pairs = zip(rule.columns, parts, strict=True)
    spelt = [
        dict.fromkeys((part, called.get(part, part) if column in (LABEL, PREDICTION) else part))
        for column, part in pairs
    ]
    keys: list[str | tuple[str, ...]] = []
    for one in product(*spelt):
        keys += [", ".join(one), one]
    found = [key for key in dict.fromkeys(keys) if key in rule.allow]
    if len(found) > 1:
        named = " and ".join(repr(key if isinstance(key, str) else ", ".join(key)) for key in found)
        raise UsageError(
            f"{rule.name} has two allowances for {', '.join(parts)}: {named}", hint="give one, with all that it allows"
        )
    return rule.allow[found[0]] if found else None


def not_asked(rule: Rule, reason: str, *, bound: str = "") -> Verdict:
    """The verdict of a rule, or of one limit of it, that the run cannot answer."""
    return Verdict(rule.name, "", Outcome.NOT_ASKED, None, bound, 0, reason=reason)


def none_wrong(
    rule: Rule, frame: pl.DataFrame, ids: Sequence[Any], *, where: str = "this run", note: str = ""
) -> Verdict:
    """What a rule on listed samples finds: the wrong ones by id, and those that are not there, which cannot be right.

    However many wrong ones are allowed, one that is not there at all fails the rule.

    Args:
        rule: The rule.
        frame: A row a sample with sample_id and correct.
        ids: The samples, of the kind the run has.
        where: Where they are looked for, in words.
        note: What is to be said of the list besides.
    """
    wanted = list(dict.fromkeys(ids))
    right: dict[Any, bool | None] = dict(
        frame.filter(pl.col(SAMPLE_ID).is_in(wanted)).select(SAMPLE_ID, CORRECT).iter_rows()
    )
    wrong = [i for i in wanted if i in right and right[i] is False]
    unknown = [i for i in wanted if right.get(i) is None]
    said = [
        f"{word}: {_listed(some)}" for word, some in (("wrong", wrong), (f"not judged in {where}", unknown)) if some
    ]
    failed, most = len(wrong) + len(unknown), rule.most or 0.0
    outcome = Outcome.FAILED if failed > most or any(i not in right for i in wanted) else Outcome.PASSED
    bound, why = f"{'at most ' if most else ''}{most:.12g} wrong", "; ".join(filter(None, (*said, note)))
    return Verdict(rule.name, "", outcome, float(failed), bound, len(wanted), None, why, tuple(wrong + unknown))


def _listed(ids: Sequence[Any]) -> str:
    """The first of some ids, in quotes where one could not be seen, and how many there are more."""
    more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
    return ", ".join(quoted(str(one), special="") for one in ids[:_SHOWN]) + more


def counted(rule: Rule, value: float | None, *, note: str = "", n: int = 0) -> Verdict:
    """What a rule on a count of the run finds; None where it cannot be counted.

    Args:
        rule: The rule.
        value: The count.
        note: What is to be said of it besides.
        n: How many samples it is of.
    """
    if value is None or rule.most is None:
        return not_asked(rule, "the run does not tell")
    kept = value < rule.most if rule.is_strict else value <= rule.most
    sign = "<" if rule.is_strict else "<="
    outcome = Outcome.PASSED if kept else Outcome.FAILED
    return Verdict(rule.name, "", outcome, value, f"{sign} {rule.most:.12g}", n, reason=note)


def _groups(
    rule: Rule, frame: pl.DataFrame, names: Mapping[Any, str]
) -> Iterator[tuple[tuple[str, ...], pl.DataFrame]]:
    if not rule.columns:
        if frame.height:
            yield (), frame
        return

    def name(value: Any) -> str:
        return names.get(value, label_text(value))

    parts = []
    for column in rule.columns:
        groups = grouped(frame[column], name if column in (LABEL, PREDICTION) else label_text, by_value=True)
        named = zip(groups.names, groups.rows, strict=True)
        # A rule by class is about the samples of a class.
        parts.append([one for one in named if one[0] != NO_CLASS or not isinstance(frame.schema[column], pl.List)])
    for combination in product(*parts):
        rows = combination[0][1]
        for _, others in combination[1:]:
            rows = np.intersect1d(rows, others)
        if len(rows):
            chosen = frame.select(pl.all().gather(pl.Series(rows, dtype=pl.Int64)))
            yield tuple(group for group, _ in combination), chosen


def _in_no_group(rule: Rule, frame: pl.DataFrame) -> str:
    """What is said of the samples that have no value of a column of the rule; "" where all have one."""
    lacking = pl.lit(value=False)
    for column in rule.columns:
        own, kind = pl.col(column), frame.schema[column]
        lacking |= own.is_null()
        if kind.is_float():
            lacking |= own.is_nan().fill_null(value=False)
        elif isinstance(kind, pl.List):
            lacking |= own.list.drop_nulls().list.len().fill_null(0) == 0
    n = frame.filter(lacking).height if rule.columns else 0
    if not n:
        return ""
    words = ("has", "is") if n == 1 else ("have", "are")
    return f"{_samples(n)} {words[0]} no {' or '.join(rule.columns)}, and {words[1]} in no group"


class _Others:
    """The samples that only one of two runs has, or has a value of: a drop is not about them.

    Args:
        rule: The rule; nothing is said where it limits no drop.
        frame: The run's samples with `_VALUE`.
        baseline: The baseline's.
        names, base_names: What values of the rule's column are called in either run.
    """

    def __init__(
        self,
        rule: Rule,
        frame: pl.DataFrame,
        baseline: pl.DataFrame | None,
        names: Mapping[Any, str],
        base_names: Mapping[Any, str],
    ) -> None:
        self._rule = rule
        self._groups: dict[tuple[str, ...], pl.DataFrame] = {}
        self._here: set[tuple[str, ...]] = set()
        self._unfit: dict[str, dict[tuple[str, ...], pl.DataFrame]] = {"run": {}, "base": {}}
        """The samples of either run without a finite value, by group."""
        self._is_by_group = False
        self._rest: pl.DataFrame | None = None
        """The baseline's samples where its groups are fifths of other values, and so of no group of this run."""
        self._are_known = False
        if baseline is None or rule.largest_drop is None:
            return
        if (frame.schema[SAMPLE_ID] == pl.String()) != (baseline.schema[SAMPLE_ID] == pl.String()):
            return
        self._are_known = True
        base = baseline.with_columns(pl.col(rule.metric).cast(pl.Float64).alias(_VALUE))
        known, old = (one.filter(pl.col(_VALUE).is_finite()) for one in (frame, base))
        self._ids = {name: one[SAMPLE_ID] for name, one in (("run", frame), ("base", base))}
        self._judged = {name: one[SAMPLE_ID] for name, one in (("run", known), ("base", old))}
        kinds = [one.schema.get(column) for one in (frame, base) for column in rule.columns]
        if any(kind is None or kind.is_float() for kind in kinds):
            self._rest = old
        else:
            self._groups = dict(_groups(rule, old, base_names))
            self._here = {parts for parts, _ in _groups(rule, known, names)}
            for name, one, called in (("run", frame, names), ("base", base, base_names)):
                self._unfit[name] = dict(_groups(rule, one.filter(~pl.col(_VALUE).is_finite()), called))
            self._is_by_group = bool(rule.columns)

    def not_compared(self, parts: tuple[str, ...], rows: pl.DataFrame) -> list[str]:
        """What is said of the samples of a group that are not compared.

        Args:
            parts: The group.
            rows: Its samples with a finite value in this run.
        """
        if not self._are_known:
            return []
        metric = self._rule.metric
        said = [*self._alone(rows, "base", "", "are not in the baseline", f"have no finite {metric} in the baseline")]
        return said + self._gone_of(self._groups.get(parts))

    def rest(self) -> list[str]:
        """What is said of samples of the baseline that are in no group of this run's."""
        return self._gone_of(self._rest)

    def _gone_of(self, old: pl.DataFrame | None) -> list[str]:
        """What is said of samples of the baseline that this run lacks."""
        if old is None:
            return []
        metric = self._rule.metric
        words = "are not in this run", f"have no finite {metric} in this run"
        return [*self._alone(old, "run", " of the baseline", *words)]

    def _alone(self, rows: pl.DataFrame, other: str, of: str, absent: str, unknown: str) -> Iterator[str]:
        ids = rows[SAMPLE_ID].unique()
        lacking = ids.filter(~ids.is_in(self._judged[other].implode()))
        n_absent = int((~lacking.is_in(self._ids[other].implode())).sum())
        for n, words in ((n_absent, absent), (len(lacking) - n_absent, unknown)):
            if n:
                told = words if n > 1 else words.replace("are", "is", 1).replace("have", "has", 1)
                yield f"{_samples(n)}{of} {told}, and not compared"

    def has(self, parts: tuple[str, ...]) -> bool:
        """Whether the baseline has values of a group."""
        return parts in self._groups

    def lacking(self, parts: tuple[str, ...], rows: pl.DataFrame) -> str:
        """Why a drop of a group is not asked that the baseline has no values of; "" where it has.

        Args:
            parts: The group.
            rows: Its samples with a finite value in this run.
        """
        if not self._is_by_group or parts in self._groups:
            return ""
        has, unfit = f"this run has {_samples(rows.height)} of it, the baseline", self._unfit["base"].get(parts)
        return f"{has} none" if unfit is None else f"{has} {unfit.height:,} without a finite {self._rule.metric}"

    def alone(self, parts: tuple[str, ...], unfit: _NotFinite) -> Verdict | None:
        """What cannot be said of a group without a finite value that the baseline has no sample of; None of others.

        Args:
            parts: The group.
            unfit: What this run has of it.
        """
        is_there = parts in self._groups or parts in self._unfit["base"]
        if not self._is_by_group or is_there or unfit.n(parts) < self._rule.min_n:
            return None
        reason = f"the baseline has no sample of it; {unfit.of(parts)}"
        return replace(not_asked(self._rule, reason, bound=drop_bound(self._rule)), group=", ".join(parts))

    def gone(self, unfit: _NotFinite) -> Iterator[Verdict]:
        """What cannot be said of groups that only the baseline has, or has values of.

        Args:
            unfit: What this run has of them besides.
        """
        if not self._rule.by:
            return
        for parts, rows in self._unfit["base"].items():
            if parts not in self._groups and parts not in self._here and parts not in self._unfit["run"]:
                metric = self._rule.metric
                reason = f"the baseline has {_samples(rows.height)} of it, none with a finite {metric}, this run none"
                yield replace(not_asked(self._rule, reason, bound=drop_bound(self._rule)), group=", ".join(parts))
        for parts, rows in self._groups.items():
            if parts not in self._here:
                reason = f"the baseline has {_samples(rows.height)} of it, this run none"
                if said := unfit.of(parts):
                    reason = "; ".join((*self._gone_of(rows), said))
                yield replace(not_asked(self._rule, reason, bound=drop_bound(self._rule)), group=", ".join(parts))


_NONE_THERE = "the baseline has none of the samples"


def drop_bound(rule: Rule) -> str:
    """The limit of a drop in words."""
    return f"{_DROP}<{'' if rule.is_strict else '='} {rule.largest_drop:.12g}"


def _limited(rule: Rule, group: str, rows: pl.DataFrame, allowance: Allowance | None) -> Verdict:
    value = _statistic(rule.stat, rows[_VALUE])
    own = (rule.least, rule.most)
    # A metric of 32 bits holds 0.1 as the nearest number it can, and so is 0.1 of the rule.
    rounded = _as_stored(rows.schema[rule.metric] if rule.stat != "n" else pl.Float64())
    failed = not _within(rounded(value), *map(rounded, own), strict=rule.is_strict)
    outcome, bound, reason = (Outcome.FAILED if failed else Outcome.PASSED), _bound(*own, strict=rule.is_strict), ""
    if failed and allowance and (allowance.least, allowance.most) != (None, None):
        # A limit that the allowance says nothing of holds as it is.
        given, kept = (allowance.least, allowance.most), _others_of(own, allowance)
        is_within = _within(rounded(value), *map(rounded, given), strict=False)
        if is_within and _within(rounded(value), *map(rounded, kept), strict=rule.is_strict):
            outcome = Outcome.ALLOWED
        words = _bound(*given, strict=False), _bound(*kept, strict=rule.is_strict)
        bound, reason = " and ".join(filter(None, words)), allowance.reason
    failing = _beyond(rule, rows) if outcome is Outcome.FAILED else ()
    if failing:
        reason = "; ".join(filter(None, (reason, f"samples {_listed(failing)}")))
    return Verdict(rule.name, group, outcome, value, bound, rows.height, reason=reason, failing=failing)


def _others_of(own: tuple[float | None, float | None], allowance: Allowance) -> tuple[float | None, float | None]:
    """The limits of a rule that an allowance leaves as they are."""
    return own[0] if allowance.least is None else None, own[1] if allowance.most is None else None


def _beyond(rule: Rule, rows: pl.DataFrame) -> tuple[Any, ...]:
    """The samples that break a limit of the largest or smallest value, the furthest first."""
    value = pl.col(_VALUE)
    rounded = _as_stored(rows.schema[rule.metric])
    least, most = rounded(rule.least), rounded(rule.most)
    share = quantile_of(rule.stat)
    if (rule.stat == "max" or share == 1) and most is not None:
        beyond = rows.filter(value >= most if rule.is_strict else value > most)
        return tuple(beyond.sort(_VALUE, SAMPLE_ID, descending=[True, False])[SAMPLE_ID])
    if (rule.stat == "min" or share == 0) and least is not None:
        beyond = rows.filter(value <= least if rule.is_strict else value < least)
        return tuple(beyond.sort(_VALUE, SAMPLE_ID)[SAMPLE_ID])
    return ()


def _as_stored(dtype: pl.DataType) -> Callable[[float | None], float | None]:
    """What makes of a number the one that a column of some kind holds in its place."""
    if dtype != pl.Float32():
        return lambda number: number
    return lambda number: None if number is None else float(np.float32(number))


def _within(value: float | None, least: float | None, most: float | None, *, strict: bool) -> bool:
    if value is None or math.isnan(value):
        return False
    above = least is None or (value > least if strict else value >= least)
    below = most is None or (value < most if strict else value <= most)
    return above and below


def _bound(least: float | None, most: float | None, *, strict: bool) -> str:
    end = "" if strict else "="
    return " and ".join(f"{sign}{end} {b:.12g}" for sign, b in ((">", least), ("<", most)) if b is not None)


def _statistic(name: str, values: pl.Series) -> float:
    if (share := quantile_of(name)) is not None:
        return _quantile(np.sort(values.to_numpy()), share)
    x = values.to_numpy()
    match name:
        case "mean":
            return float(x.mean())
        case "median":
            return float(np.median(x))
        case "std":
            return float(x.std(ddof=1)) if len(x) > 1 else 0.0
        case "min":
            return float(x.min())
        case "max":
            return float(x.max())
        case _:
            return float(len(x))


def _quantile(ordered: NDArray[np.float64], share: Fraction) -> float:
    """The quantile of sorted values, linear between two neighbours (Hyndman & Fan 1996, type 7, as numpy's).

    Its place is an exact fraction: one that falls on a value is this value, and fails no limit by its rounding.
    """
    place = share * (len(ordered) - 1)
    below = int(place)
    low = float(ordered[below])
    return low + float(place - below) * (float(ordered[below + 1]) - low) if place > below else low


def _dropped(
    rule: Rule,
    group: str,
    rows: pl.DataFrame,
    baseline: pl.DataFrame | None,
    allowance: Allowance | None,
    strict_drop: bool,
) -> Verdict:
    """How much worse the samples of a group are than the same samples of the baseline."""
    assert rule.largest_drop is not None
    bound = drop_bound(rule)
    if baseline is None:
        return Verdict(rule.name, group, Outcome.NOT_ASKED, None, bound, 0, reason="a drop needs --baseline RUN")
    kinds = [frame.schema[SAMPLE_ID] == pl.String() for frame in (rows, baseline)]
    if kinds[0] != kinds[1]:
        said = "the sample ids of the baseline are {}, those of this run {}"
        reason = said.format(*("texts" if is_text else "numbers" for is_text in reversed(kinds)))
        return Verdict(rule.name, group, Outcome.NOT_ASKED, None, bound, 0, reason=reason)
    old = baseline.select(SAMPLE_ID, pl.col(rule.metric).cast(pl.Float64).alias(_OLD))
    both = rows.join(old.filter(pl.col(_OLD).is_finite()), on=SAMPLE_ID)
    if both.is_empty():
        is_there = rows[SAMPLE_ID].is_in(old[SAMPLE_ID].implode()).any()
        why = f"none of the samples has a finite {rule.metric} in the baseline" if is_there else _NONE_THERE
        return Verdict(rule.name, group, Outcome.NOT_ASKED, None, bound, 0, reason=why)
    change = (both[_OLD] - both[_VALUE]).to_numpy()
    worse = change if rule.better is Better.HIGH else -change
    drop, interval = float(worse.mean()), _interval(worse)
    limit, strict, reason = rule.largest_drop, rule.is_strict, ""
    outcome = Outcome.PASSED if _within(drop, None, limit, strict=strict) else Outcome.FAILED
    if outcome is Outcome.FAILED and allowance and allowance.largest_drop is not None:
        limit, strict, reason = allowance.largest_drop, False, allowance.reason
        bound = f"{_DROP}<= {limit:.12g}"
        outcome = Outcome.ALLOWED if drop <= limit else Outcome.FAILED
    if outcome is Outcome.FAILED and not strict_drop and _within(interval[0], None, limit, strict=strict):
        outcome = Outcome.UNSURE
    return Verdict(rule.name, group, outcome, drop, bound, both.height, interval, reason)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of the mean of differences of pairs (Student 1908); all there is for a single one."""
    if len(values) < 2:
        return -math.inf, math.inf
    freedom = np.array([len(values) - 1.0])
    margin = float(student_975(freedom)[0]) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - margin, float(values.mean()) + margin


def samples_are(n: int, *, of: str = "") -> str:
    """How many samples, and the verb."""
    return f"{_samples(n)}{of} {'is' if n == 1 else 'are'}"


def _samples(n: int) -> str:
    return "1 sample" if n == 1 else f"{n:,} samples"


def _values_are(n: int) -> str:
    return "1 value is" if n == 1 else f"{n:,} values are"


def noted(verdict: Verdict, *words: str) -> Verdict:
    """The verdict with something said besides."""
    return replace(verdict, reason="; ".join(filter(None, (verdict.reason, *words))))
