"""The history of an experiment by mode, key and step; several of them merged into mean and spread.

Standard library only.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial, total_ordering
from typing import Any

History = defaultdict[str | None, defaultdict[str, dict[int, Any]]]
"""{mode: {key: {step: value}}}; missing modes and keys appear when written to."""

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_STEPS = 2**63
_NOT_AVERAGED = frozenset({"epoch"})


@total_ordering
@dataclass(frozen=True, eq=False)
class ValWithError:
    """A value with an error band; it compares, adds and hashes by its middle value `y`."""

    y_min: float
    y: float
    y_max: float

    def __eq__(self, other: object) -> bool:
        value = _number_or_none(other)
        return NotImplemented if value is None else self.y == value

    def __lt__(self, other: object) -> bool:
        value = _number_or_none(other)
        return NotImplemented if value is None else self.y < value

    def __hash__(self) -> int:
        return hash(self.y)

    def __add__(self, other: object) -> float:
        value = _number_or_none(other)
        return NotImplemented if value is None else self.y + value

    __radd__ = __add__

    def __float__(self) -> float:
        return float(self.y)

    def __str__(self) -> str:
        return f"{self.y:g} ({self.y_min:g} to {self.y_max:g})"


class Summary:
    """What an experiment wrote: {mode: {key: {step: value}}}.

    Attributes:
        name: The name of the experiment, a string or a number; a summary without one is false and records nothing.
        history: The values; a value is a number, a `ValWithError` or a text.
    """

    def __init__(self, name: str | int | None = None) -> None:
        self.name = name
        self.history: History = _empty_history()

    def __bool__(self) -> bool:
        """Whether the experiment is named; the number 0 is a name, None and the empty text are none."""
        return self.name is not None and self.name != ""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Summary):
            return NotImplemented
        return self.name == other.name and list(self.rows()) == list(other.rows())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Summary({self.name!r}, {sum(1 for _ in self.rows())} values)"

    def merge(self, other: Summary) -> None:
        """Take over the other's values; where both have a step, the other's wins."""
        for mode, key, step, value in other.rows():
            self.history[mode][key][step] = value

    def rows(self) -> Iterable[tuple[str | None, str, int, Any]]:
        """Every value as (mode, key, step, value), in the order written."""
        for mode, keys in self.history.items():
            for key, steps in keys.items():
                for step, value in steps.items():
                    yield mode, key, step, value

    def to_json(self) -> dict[str, Any]:
        """The summary as plain JSON types: {"name", "values": [[mode, key, step, value]]}.

        A `ValWithError` is {"y_min", "y", "y_max"}, a number that is not finite {"number": "nan"}; a value of another
        kind is written as its text.
        """
        return {
            "name": self.name,
            "values": [[mode, key, step, _to_json(value)] for mode, key, step, value in self.rows()],
        }

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Summary:
        """The summary that `to_json` wrote.

        Raises:
            ValueError: The facts are of another form.
        """
        try:
            name = facts["name"]
            if not isinstance(name, str | int | None):
                raise ValueError(f"the name of a summary cannot be {name!r}")
            summary = cls(name)
            for mode, key, step, value in facts["values"]:
                if not isinstance(mode, str | None) or not isinstance(key, str):
                    raise ValueError(f"mode {mode!r} or key {key!r} of a summary is no text")
                if not -_STEPS <= int(step) < _STEPS:
                    raise ValueError(f"a summary has no step {step}")
                summary.history[mode][key][int(step)] = _from_json(value)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"this is no summary: {error!r}") from error
        return summary


def average_summaries(name: str | int | None, summaries: Iterable[Summary]) -> Summary:
    """Several summaries as one: at every mode, key and step the mean, with mean -/+ sample standard deviation (n - 1).

    Where all agree, or only one has the step, the value stays a plain number. A `ValWithError` counts by its middle, a
    text if it holds exactly one number; other texts, values that are not finite, and the key `epoch` are left out. Test
    values of one key are pooled at its largest step, since trainings of different lengths are tested once, at the end.

    Args:
        name: The name of the result.
        summaries: Any number of them; none is changed. One alone is copied.
    """
    several = list(summaries)
    merged = Summary(name)
    if len(several) == 1:
        merged.history = deepcopy(several[0].history)
        return merged
    pools: dict[tuple[str | None, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for summary in several:
        for mode, key, step, value in summary.rows():
            number = _number_or_none(value)
            if key not in _NOT_AVERAGED and number is not None and math.isfinite(number):
                pools[mode, key][step].append(number)
    for (mode, key), steps in pools.items():
        if mode == "test":
            steps = {max(steps): [number for numbers in steps.values() for number in numbers]}
        for step in sorted(steps):
            merged.history[mode][key][step] = mean_and_spread(steps[step])
    return merged


def mean_and_spread(numbers: list[float]) -> float | ValWithError:
    """Mean -/+ sample standard deviation (n - 1); the plain number where all are equal."""
    if min(numbers) == max(numbers):
        return numbers[0]
    mean, spread = statistics.fmean(numbers), statistics.stdev(numbers)
    return ValWithError(mean - spread, mean, mean + spread)


def _empty_history() -> History:
    return defaultdict(partial(defaultdict, dict))


def _number_or_none(value: object) -> float | None:
    """The number a value stands for: its middle, itself, one array element, or the only number of a text."""
    if isinstance(value, ValWithError):
        return value.y
    if isinstance(value, str):
        found = _NUMBER.findall(value)
        return float(found[0]) if len(found) == 1 else None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        # torch raises RuntimeError for a tensor of several elements.
        return None


def _to_json(value: Any) -> Any:
    if isinstance(value, ValWithError):
        return {key: _to_json(getattr(value, key)) for key in ("y_min", "y", "y_max")}
    if isinstance(value, str | bool | int | None):
        return value
    number = _number_or_none(value)
    if number is None:
        return str(value)
    return number if math.isfinite(number) else {"number": str(number)}


def _from_json(value: Any) -> Any:
    """The value behind its JSON; a number too large for a float is an OverflowError, another kind a ValueError."""
    if isinstance(value, str | bool | None):
        return value
    if isinstance(value, int | float):
        float(value)
        return value
    if not isinstance(value, dict):
        raise ValueError(f"a summary holds no {type(value).__name__}")
    if "number" in value:
        return float(value["number"])
    return ValWithError(*(_number_from_json(value[key]) for key in ("y_min", "y", "y_max")))


def _number_from_json(value: Any) -> float:
    number = _from_json(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"{value!r} is no number")
    return number
