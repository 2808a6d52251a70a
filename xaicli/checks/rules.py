"""What is demanded of a run: rules from a TOML file or one line each."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

from xaicli.errors import UsageError, unknown
from xaicli.queries.names import label_text
from xaicli.vocabulary import HIGH_IS_GOOD, LOW_IS_GOOD
from xaicli.words import quoted, split, unquoted

GRAMMAR = (
    "METRIC STATISTIC [by COLUMN,...] [at last|best] >=|<=|>|< NUMBER, METRIC mean [by COLUMN,...] [at last|best] "
    "drop <= NUMBER, dropped|spikes|ece|... <= NUMBER, or no sample of FILE is wrong"
)
_LINE = re.compile(
    r"(?P<metric>\"[^\"]+\"|\S+)\s+(?P<stat>[\w.]+)(?:\s+by\s+(?P<by>(?:\"[^\"]*\"|,\s*|[^\s\"])+))?(?:\s+at\s+(?P<at>\w+))?"
    r"(?:\s+(?P<drop>drop))?\s*(?P<sign>>=|<=|≥|≤|>|<)\s*(?P<bound>\S+)"
)
_COUNT_LINE = re.compile(r"(?P<count>\w+)\s*(?P<sign><=|≤|<)\s*(?P<bound>\S+)")
_SAMPLES_LINE = re.compile(r"no\s+sample\s+of\s+(?P<samples>.+?)\s+(?:is|may\s+be)\s+wrong")
_QUANTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?|100(?:\.0+)?)", re.ASCII)
STATISTICS = ("mean", "median", "std", "min", "max", "n", "p5, p99.9 and other percentiles from p0 to p100")


class Count(StrEnum):
    """What may be counted of a whole run."""

    DROPPED = "dropped"
    DAMAGED = "damaged"
    TAKEN_BACK = "taken_back"
    NON_FINITE = "non_finite"
    DUPLICATES = "duplicates"
    SPIKES = "spikes"
    ECE = "ece"


class At(StrEnum):
    """Which place of a history a rule is about."""

    LAST = "last"
    BEST = "best"
    """That with the best mean of the metric; of a drop each run has its own."""


class Better(StrEnum):
    """Which end of a metric is the good one."""

    HIGH = "high"
    LOW = "low"


@dataclass(frozen=True)
class Allowance:
    """A group that may fall short of the rule, and why; of several columns `value` has a part each."""

    value: str | tuple[str, ...]
    reason: str
    least: float | None = None
    most: float | None = None
    largest_drop: float | None = None


@dataclass(frozen=True)
class Rule:
    """One demand.

    Attributes:
        name: What it is called in tables and reports.
        metric: The metric; "" for rules on samples or counts.
        stat: mean, median, std, min, max, n or a percentile such as p95 or p99.9.
        by: The column whose every value must hold, or several with commas between, whose every combination must; None
            for all samples together.
        at: The place of the history.
        least: The statistic may not be below; `is_strict` also not equal.
        most: It may not be above.
        largest_drop: How much worse than the baseline it may be.
        better: Which end is good; known for the recorder's own metrics, else it must be said where it matters.
        where: SQL that limits the samples.
        mode: The mode, or several with commas between; None for the command's.
        ds_id: The dataset, or several; None for all.
        min_n: Groups of fewer samples are not judged, and said to be so.
        samples: A file of sample ids none of which may be wrong, or no more than `most`.
        count: A count of the whole run that `most` limits.
        allow: Groups that may fall short.
        is_strict: Whether the bound itself is too much or too little.
    """

    name: str
    metric: str = ""
    stat: str = "mean"
    by: str | None = None
    at: At = At.LAST
    least: float | None = None
    most: float | None = None
    largest_drop: float | None = None
    better: Better | None = None
    where: str | None = None
    mode: str | None = None
    ds_id: str | None = None
    min_n: int = 1
    samples: str | None = None
    count: Count | None = None
    allow: Mapping[str | tuple[str, ...], Allowance] = field(default_factory=dict)
    is_strict: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of `by`."""
        return tuple(split(self.by)) if self.by else ()


BETTER: Mapping[str, Better] = {
    **dict.fromkeys(HIGH_IS_GOOD, Better.HIGH),
    **dict.fromkeys(LOW_IS_GOOD, Better.LOW),
}
"""Which end of the recorder's own metrics is the good one."""


def parse_rule(line: str) -> Rule:
    """A rule of one line: `correct mean by label >= 0.8`, `loss p95 < 2`, `correct mean drop <= 0.01`, `spikes <= 3`.

    Raises:
        UsageError: It is no rule; the message shows the form.
    """
    name = " ".join(line.split())
    facts: dict[str, Any]
    if found := _SAMPLES_LINE.fullmatch(line.strip()):
        file = found["samples"]
        is_quoted = len(file) > 2 and file[0] == file[-1] == "'"
        return _rule({"samples": file[1:-1] if is_quoted else unquoted(file)}, repr(line), name=name)
    if (found := _COUNT_LINE.fullmatch(line.strip())) and found["count"] in set(Count):
        facts = {"count": found["count"], "most": _number(found["bound"], line), "strict": found["sign"] == "<"}
        return _rule(facts, repr(line), name=name)
    found = _LINE.fullmatch(line.strip())
    if not found:
        raise UsageError(f"{line!r} is no rule", hint=GRAMMAR)
    bound = _number(found["bound"], line)
    sign = {"≥": ">=", "≤": "<="}.get(found["sign"], found["sign"])
    facts = {"metric": unquoted(found["metric"]), "stat": found["stat"]}
    facts |= {key: found[key] for key in ("by", "at") if found[key]}
    if found["drop"]:
        if sign.startswith(">"):
            raise UsageError(f"{line!r}: a drop is limited from above", hint=f"{found['metric']} mean drop <= {bound}")
        facts["largest_drop"] = bound
    else:
        facts["least" if sign.startswith(">") else "most"] = bound
    return _rule({**facts, "strict": sign in ("<", ">")}, repr(line), name=name)


def read_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of a TOML file: `[[rule]]` tables with the keys of `Rule`, `allow` a list of tables.

    Raises:
        UsageError: The file cannot be read or holds no rule, or a key or value makes no sense; the rule is named.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {said}", hint="a TOML file of [[rule]] tables is needed") from error
    for key in content:
        if key != "rule":
            raise UsageError(f"{path} has an unknown table {key!r}", hint="each rule is a [[rule]] table")
    tables = content.get("rule")
    if isinstance(tables, dict):
        raise UsageError(f"{path} has [rule], which is one table", hint="write [[rule]] before each rule")
    if not isinstance(tables, list) or not tables:
        raise UsageError(f"{path} holds no rule", hint='[[rule]] with metric = "correct" and least = 0.8, say')
    return tuple(_rule(table, f"rule {number} of {path}") for number, table in enumerate(tables, 1))


_KEYS = {
    **dict.fromkeys(
        ("name", "metric", "stat", "by", "at", "better", "where", "mode", "ds_id", "samples", "count"), str
    ),
    **dict.fromkeys(("least", "most", "largest_drop"), float),
    "min_n": int,
    "strict": bool,
    "allow": list,
}


def _rule(table: Mapping[str, Any], place: str, *, name: str = "") -> Rule:
    facts = {key: _checked(key, value, place) for key, value in table.items()}
    kinds = [key for key in ("metric", "samples", "count") if facts.get(key)]
    if len(kinds) != 1:
        raise UsageError(f"{place} has {' and '.join(kinds) or 'none'} of metric, samples and count", hint="give one")
    bounds = [key for key in ("least", "most", "largest_drop") if key in facts]
    if not bounds and kinds != ["samples"]:
        raise UsageError(f"{place} limits nothing", hint="give least, most or largest_drop")
    if kinds != ["metric"]:
        allowed = {
            "name",
            "samples",
            "count",
            "most",
            "mode",
            "ds_id",
            *(("strict",) if kinds == ["count"] else ()),
        }
        _only(facts, allowed, kinds[0], place)
    statistic = str(facts.get("stat", "mean"))
    if statistic not in STATISTICS[:-1] and not _QUANTILE.fullmatch(statistic):
        raise UsageError(f"{place} has no statistic {statistic!r}", hint=f"choose from: {', '.join(STATISTICS)}")
    if facts.get("least", -math.inf) > facts.get("most", math.inf):
        raise UsageError(f"{place}: nothing is at least {facts['least']:.12g} and at most {facts['most']:.12g}")
    if "largest_drop" in facts and statistic != "mean":
        raise UsageError(f"{place} limits the drop of {statistic}", hint="a drop is that of the mean")
    better = _member(Better, "better", facts.pop("better", None), place) or BETTER.get(str(facts.get("metric")))
    at = _member(At, "at", facts.pop("at", None), place) or At.LAST
    if better is None and ("largest_drop" in facts or at is At.BEST):
        raise UsageError(
            f"{place} needs to know which end of {facts['metric']} is good",
            hint=("a rule of one line cannot say it, a table of --rules FILE can: " if name else "")
            + 'better = "high" or better = "low"',
        )
    return Rule(
        name=str(facts.pop("name", "")) or name or _described(facts, at),
        at=at,
        better=better,
        count=_member(Count, "count", facts.pop("count", None), place),
        allow=_allowances(facts.pop("allow", ()), {key: facts[key] for key in bounds}, place),
        is_strict=facts.pop("strict", False),
        **facts,
    )


def _checked(key: str, value: Any, place: str) -> Any:
    kind = _KEYS.get(key)
    if kind is None:
        raise _unknown(key, list(_KEYS), place)
    if (
        key in ("by", "mode", "ds_id")
        and isinstance(value, list)
        and value
        and all(isinstance(one, str) for one in value)
    ):
        value = ",".join(quoted(one) for one in value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = is_number and math.isfinite(value) if kind is float else isinstance(value, kind)
    if not fits or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{place}: {key} = {value!r} is no {_WORDS[kind]}", hint=GRAMMAR)
    return float(value) if kind is float else value


_WORDS: Mapping[type, str] = {str: "text", float: "number", int: "whole number", bool: "true or false", list: "list"}


def _only(facts: Mapping[str, Any], allowed: set[str], kind: str, place: str) -> None:
    for key in facts:
        if key not in allowed:
            raise UsageError(f"{place}: {key} means nothing for {kind}", hint=f"possible: {', '.join(sorted(allowed))}")


def _member(enum: type[Any], key: str, value: Any, place: str) -> Any:
    if value is None:
        return None
    try:
        return enum(value)
    except ValueError:
        raise UsageError(
            f"{place}: {key} = {value!r} is not possible", hint="choose from: " + ", ".join([str(one) for one in enum])
        ) from None


def _allowances(
    items: Sequence[Any], bounds: Mapping[str, float], place: str
) -> dict[str | tuple[str, ...], Allowance]:
    """The allowances by what they are for.

    Raises:
        UsageError: One makes no sense, is of what the rule does not limit or stricter than it, or there are two for
            the same.
    """
    found: dict[str | tuple[str, ...], Allowance] = {}
    for item in (_allowance(item, place) for item in items):
        name = item.value if isinstance(item.value, str) else ", ".join(item.value)
        if name in (one if isinstance(one, str) else ", ".join(one) for one in found):
            raise UsageError(f"{place} has two allowances for {name!r}", hint="give one, with all that it allows")
        for key in ("least", "most", "largest_drop"):
            if getattr(item, key) is not None and key not in bounds:
                raise UsageError(
                    f"{place}: the allowance of {name} gives {key}, and the rule limits {' and '.join(bounds)}",
                    hint=f"an allowance takes the place of {' or '.join(bounds)}",
                )
            limit = getattr(item, key)
            if limit is not None and (limit > bounds[key] if key == "least" else limit < bounds[key]):
                raise UsageError(
                    f"{place}: the allowance of {name} is stricter than the rule: {key} = {limit:.12g}, and the rule "
                    f"says {bounds[key]:.12g}",
                    hint="an allowance lets a group fall short; what demands more is a [[rule]] of its own, with where",
                )
        found[item.value] = item
    return found


def _allowance(item: Any, place: str) -> Allowance:
    if not isinstance(item, Mapping) or "value" not in item or not str(item.get("reason", "")).strip():
        raise UsageError(
            f"{place}: an allowance needs a value and a reason", hint='{ value = "cat", least = 0.7, reason = "..." }'
        )
    for key in item:
        if key not in Allowance.__dataclass_fields__:
            raise _unknown(key, list(Allowance.__dataclass_fields__), f"an allowance of {place}")
    limits = {key: _checked(key, item[key], place) for key in ("least", "most", "largest_drop") if key in item}
    if not limits:
        raise UsageError(
            f"{place}: the allowance of {item['value']} allows nothing", hint="least, most or largest_drop"
        )
    value = item["value"]
    group = tuple(map(label_text, value)) if isinstance(value, list) else label_text(value)
    return Allowance(group[0] if len(group) == 1 and isinstance(value, list) else group, str(item["reason"]), **limits)


def _unknown(key: str, known: Sequence[str], place: str) -> UsageError:
    found = unknown("key", key, known, where=place)
    return UsageError(found.message, hint=found.hint)


def _described(facts: Mapping[str, Any], at: At) -> str:
    if facts.get("samples"):
        most = facts.get("most") or 0
        many = f"at most {most:.12g} sample{'' if most == 1 else 's'}" if most else "no sample"
        return f"{many} of {facts['samples']} {'are' if most and most != 1 else 'is'} wrong"
    what = facts.get("count") or f"{facts['metric']} {facts.get('stat', 'mean')}"
    group = f" by {facts['by']}" if facts.get("by") else ""
    place = "" if at is At.LAST else f" at {at.value}"
    end = "" if facts.get("strict") else "="
    words = {"least": f">{end}", "most": f"<{end}", "largest_drop": f"drop <{end}"}
    limits = " and ".join(f"{sign} {facts[key]:.12g}" for key, sign in words.items() if key in facts)
    return f"{what}{group}{place} {limits}" + (f" where {facts['where']}" if facts.get("where") else "")


def _number(text: str, line: str) -> float:
    percent = text.endswith("%")
    try:
        value = float(text.rstrip("%"))
    except ValueError:
        raise UsageError(f"{line!r}: {text!r} is no number", hint=GRAMMAR) from None
    if not math.isfinite(value):
        raise UsageError(f"{line!r}: {text!r} limits nothing", hint=GRAMMAR)
    return value / 100 if percent else value


def quantile_of(stat: str) -> Fraction | None:
    """The quantile that `p95`, `p99.9` and their kin mean, in [0, 1], exactly; None for another statistic."""
    found = _QUANTILE.fullmatch(stat)
    return Fraction(found[1]) / 100 if found else None


def columns_of(rules: Sequence[Rule]) -> tuple[str, ...]:
    """The columns beside `sample_id` that some rules look at."""
    names = [name for rule in rules for name in (rule.metric, *rule.columns) if name]
    return tuple(dict.fromkeys([*names, *(["correct"] if any(rule.samples for rule in rules) else [])]))
