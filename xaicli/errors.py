"""Every error a user can meet: what is wrong, what exists, what to try.

This module imports nothing of the package, so every layer may raise its errors.
"""

from __future__ import annotations

import difflib
import operator
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_SHOWN = 12
_PACKAGE = __file__.removesuffix("errors.py")


class XaiError(Exception):
    """A fault of the data or of the world: exit status 1.

    Args:
        message: What is wrong, naming the thing.
        hint: What exists and what to try; may be empty.
        refused: Options that are out of place, by their names in Python: one that nobody typed is passed over.
        by: The options that they do not go with; none where the question itself has no use for them.
    """

    exit_status = 1

    def __init__(
        self, message: str, *, hint: str = "", refused: tuple[str, ...] = (), by: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.refused, self.by = refused, by
        if hint:
            self.add_note(f"hint: {hint}")  # what a traceback shows, too


class UsageError(XaiError):
    """A question that makes no sense as asked (an unknown option value, a negative count): exit status 2."""

    exit_status = 2


class UnwrittenError(XaiError):
    """Files of an answer that could not be written.

    Args:
        message: Which, and why.
        hint: What to try.
        written: The paths of those that could.
    """

    def __init__(self, message: str, *, hint: str = "", written: tuple[Path, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.written = written


class InterruptedWorkError(KeyboardInterrupt):
    """Ctrl-C, with what it leaves.

    Args:
        left: What is whole and what is missing, in words.
    """

    def __init__(self, left: str) -> None:
        super().__init__(left)
        self.left = left


@contextmanager
def leaving(left: Callable[[], str]) -> Iterator[None]:
    """Work that says what it leaves where Ctrl-C ends it.

    Args:
        left: What is whole and what is missing by then, in words; before what the work within says of itself.

    Raises:
        InterruptedWorkError: Ctrl-C.
    """
    _leaves.append(left)
    try:
        yield
    except BaseException as stopped:
        if not is_interruption(stopped):
            raise
        within = [stopped.left] if isinstance(stopped, InterruptedWorkError) else []
        raise InterruptedWorkError("; ".join([left(), *within])) from None
    finally:
        _leaves.remove(left)


def leaves_work() -> bool:
    """Whether there is something to say, by `leaving`, where Ctrl-C comes now."""
    return bool(_leaves)


def note_interruption(*, is_over: bool = False) -> None:
    """Ctrl-C was pressed: native code that is called back may make another error of it."""
    (_noted.clear if is_over else _noted.set)()


def is_interruption(error: BaseException) -> bool:
    """Whether an error is Ctrl-C, or comes of it."""
    return isinstance(error, KeyboardInterrupt) or _noted.is_set()


_leaves: list[Callable[[], str]] = []
_noted = threading.Event()


class DamagedFileError(XaiError):
    """A file whose bytes are not those that were written."""


def unknown(
    kind: str,
    given: object,
    known: Iterable[object],
    *,
    plural: str = "",
    where: str = "",
    note: str = "",
    most: int = _SHOWN,
    refused: tuple[str, ...] = (),
    by: tuple[str, ...] = (),
) -> XaiError:
    """The error for a name that does not exist, with the close matches first.

    Args:
        kind: What the name names, in the singular ("metric").
        given: The name the user gave.
        known: The names that exist.
        plural: The plural of `kind` where it is not `kind` + "s".
        where: Where it was looked for ("runs/exp1").
        note: Why it may be missing.
        most: How many of the names are listed.
        refused, by: As of `XaiError`.
    """
    names = [_apart(str(name)) for name in known]
    close = alike(str(given), names)
    listed = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
    exist = f"known {plural or kind + 's'}: {listed}" if names else f"there are no {plural or kind + 's'}"
    hint = f"did you mean {' or '.join(close)}? {exist}" if close else exist
    hint = f"{note}; {hint}" if note else hint
    return XaiError(f"no {kind} {str(given)!r}" + (f" in {where}" if where else ""), hint=hint, refused=refused, by=by)


def _apart(name: str) -> str:
    """A name as it stands in a list: in double quotes, as it is typed, where a comma in it would make two of it."""
    quoted = len(name) > 1 and name[0] == name[-1] == '"'
    return name if quoted or "," not in name else '"{}"'.format(name.replace('"', '""'))


def alike(given: str, names: Iterable[str]) -> list[str]:
    """The names that may be meant: those that differ in case only, else up to three that are spelt much like it."""
    known = list(names)
    of_case = [name for name in known if name.casefold() == given.casefold()]
    return of_case or difflib.get_close_matches(given, known, n=3)


def whole_number(option: str, given: Any, *, least: int | None = None, hint: str = "") -> int:
    """What an option was given, as a whole number: of Python, numpy or torch alike.

    Args:
        option: As it is typed ("--max").
        given: What it was given.
        least: The smallest that makes sense.
        hint: What the smallest means.

    Raises:
        UsageError: It is none, or too small.
    """
    try:
        number = None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        number = None
    if number is None:
        raise UsageError(f"{option} must be a whole number, not {given!r}", hint=hint)
    if least is not None and number < least:
        at_least = "non-negative" if least == 0 else f"at least {least}"
        raise UsageError(f"{option} must be {at_least}, not {number}", hint=hint)
    return number


EXTRAS = {
    "torch": "saliency",
    "safetensors": "saliency",
    "duckdb": "duckdb",
    "pyspark": "spark",
    "obstore": "s3",
    "captum": "captum",
    "umap": "umap",
    "pacmap": "umap",
    "lightning": "lightning",
    "transformers": "transformers",
    "tensorboard": "tensorboard",
}
"""The extra of this package that brings an optional module."""


def missing_extra(feature: str, extra: str) -> XaiError:
    """The error for a feature whose optional dependency is not installed.

    Args:
        feature: What the user wanted ("saliency").
        extra: The extra of this package that brings it.
    """
    return XaiError(f"{feature} needs an optional dependency", hint=f"pip install 'xaicli[{extra}]'")


def level_outside() -> int:
    """The `stacklevel` with which a warning of the function that asks names the line outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level
