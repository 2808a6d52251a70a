"""What an importer gives: a run that another program recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from xaicli.errors import XaiError


@dataclass(frozen=True)
class Recorded:
    """A run that another program recorded.

    Attributes:
        name: What the program calls it.
        scalars: What `Run.log` takes, in the order they were logged: values by key, with `step` or `epoch`.
        samples: What `Run.log_samples` takes, a batch each.
        float64: The metrics of the samples that are kept in double precision.
        config: What it was configured with.
        left_out: How many things of the source are not in the above, by what they are: {"images": 12}.
        notes: What of the source was read in a way that is worth a word.
        problem: Why it cannot be read; the other runs of the source are.
    """

    name: str
    scalars: Iterable[Mapping[str, Any]] = ()
    samples: Iterable[Mapping[str, Any]] = ()
    float64: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    problem: XaiError | None = None


def attempted(name: str, path: Path, read: Callable[[], Recorded]) -> Recorded:
    """What reading gives, or a run with a problem: what other programs leave behind fails in ways that nobody can list.

    Args:
        name: What the run is called where it cannot be read.
        path: Where it is.
        read: What reads it.
    """
    try:
        return read()
    except XaiError as error:
        return Recorded(name, problem=error)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return Recorded(name, problem=XaiError(f"{path} cannot be read: {reason}"))


class Importer(Protocol):
    """What the entry point of an importer names: called without arguments, it gives one of these."""

    def reads(self, path: Path) -> bool:
        """Whether something is of its kind: looked at quickly, without the program's own packages."""

    def runs(self, path: Path) -> Iterable[Recorded]:
        """The runs in it.

        Raises:
            XaiError: It cannot be read, or what reads it is not installed.
        """


NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
"""How trackers that keep JSON write what JSON lacks."""


class Values:
    """Numbers of a record of nested values; whatever else there is, is counted.

    Attributes:
        left_out: What was no number, by what it is.
        parts_of_epochs: How many epochs were no whole number.
    """

    def __init__(self) -> None:
        self.left_out: dict[str, int] = {}
        self.parts_of_epochs = 0

    def leave_out(self, what: str) -> None:
        """Count something that is not taken."""
        self.left_out[what] = self.left_out.get(what, 0) + 1

    def numbers(self, record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
        """The numbers by key, those of nested mappings as `outer.inner`."""
        found: dict[str, float] = {}
        for key, value in record.items():
            name = f"{prefix}{key}"
            if isinstance(value, Mapping) and "_type" not in value:
                found |= self.numbers(value, f"{name}.")
            elif isinstance(value, str) and value in NON_FINITE:
                found[name] = NON_FINITE[value]
            elif isinstance(value, bool | int | float):
                found[name] = value
                if name == "epoch" and value != value // 1:
                    self.parts_of_epochs += 1
            elif value is not None:
                kind = value.get("_type", "mapping") if isinstance(value, Mapping) else type(value).__name__
                self.leave_out({"str": "texts", "list": "lists"}.get(str(kind), str(kind)))
        return found

    def notes(self) -> tuple[str, ...]:
        """What is worth a word."""
        n = self.parts_of_epochs
        return (f"{n:,} values of epoch are no whole number: each is the epoch it lies in",) if n else ()
