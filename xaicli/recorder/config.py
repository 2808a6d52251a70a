"""What a run and its batches are configured with, checked.

A training is configured with whatever people configure with; it is kept as plain JSON types, secrets masked.
"""

from __future__ import annotations

import dataclasses
import math
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from operator import index
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from xaicli.errors import UsageError
from xaicli.heads.head import Task
from xaicli.manifest import TakesBack
from xaicli.traceability import is_secret, without_credentials, without_secrets
from xaicli.vocabulary import Mode
from xaicli.wal.frames import Place

TASKS = (Task.CLASSIFICATION, Task.BINARY, Task.MULTILABEL, Task.REGRESSION, Task.SEQUENCE)
MODES: dict[str, str] = {mode: mode.value for mode in Mode}
MASK = "***"
_LONGEST_NAME = 250
_LONGEST_ARRAY = 1000
_DEEPEST = 20


def plain_config(config: Any) -> dict[str, Any]:
    """A configuration as JSON can hold it; what it cannot hold is text.

    Args:
        config: A mapping, `Namespace`, dataclass, OmegaConf or anything with attributes; None is empty.
    """
    if config is None:
        return {}
    plain = _plain(config, ())
    if isinstance(plain, dict):
        return plain
    held = getattr(config, "__dict__", None)
    return _mapping(held, ()) if held else {"config": plain}


def _plain(value: Any, above: tuple[int, ...]) -> Any:
    if value is None or type(value) is bool:
        return value
    if type(value) is str:
        return without_credentials(value)
    if isinstance(value, Enum):
        return _plain(value.value, above)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if id(value) in above or len(above) >= _DEEPEST:
        return "..."
    inside = (*above, id(value))
    if isinstance(value, Mapping):
        return _mapping(value, inside)
    if isinstance(value, Namespace | SimpleNamespace):
        return _mapping(vars(value), inside)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        return _mapping(fields, inside)
    if isinstance(value, set | frozenset):
        return sorted((_plain(item, inside) for item in value), key=repr)
    if isinstance(value, list | tuple):
        if all(type(item) is str for item in value):
            return without_secrets(list(value))  # it may be a command line
        return [_plain(item, inside) for item in value]
    return _foreign(value, inside)


def _foreign(value: Any, inside: tuple[int, ...]) -> Any:
    """Arrays, tensors and their scalars as numbers; a configuration library's sequence as a list; all else as text."""
    try:
        if type(value).__module__.partition(".")[0] == "omegaconf":
            return [_plain(item, inside) for item in value]
        if hasattr(value, "tolist") and hasattr(value, "shape"):
            size = math.prod(value.shape)
            return _plain(value.tolist(), inside) if size <= _LONGEST_ARRAY else f"array of shape {tuple(value.shape)}"
        return str(value) if not isinstance(value, bytes) else repr(value)
    except Exception:  # an object of the caller's own may fail to print itself; a training goes on
        return f"<{type(value).__module__}.{type(value).__qualname__}>"


def _mapping(value: Mapping[Any, Any], inside: tuple[int, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in value:
        try:
            item = value[key]
        except Exception:  # a missing or unresolvable value of a configuration library
            item = "???"
        name = key if isinstance(key, str) else str(key)
        plain = _plain(item, inside)
        found[name] = _masked(plain) if is_secret(name) else plain
    return found


def _masked(value: Any) -> Any:
    """A secret as it may be shown: its texts are masked; no number is a secret."""
    if isinstance(value, dict):
        return {name: _masked(item) for name, item in value.items()}
    if isinstance(value, list):
        return MASK if any(isinstance(item, str) for item in value) else [_masked(item) for item in value]
    return MASK if isinstance(value, str) and value else value


# -- options and places


def run_address(given: Any) -> str:
    """Where a run is to be recorded, as text.

    Raises:
        UsageError: It is no path.
    """
    try:
        address = os.fsdecode(given)
    except TypeError:
        address = ""
    if not address.strip() or "\0" in address:
        unset = "" if address else ": is the variable that names it unset?" if given in ("", b"") else ""
        raise UsageError(
            f"run_dir={given!r} is no path{unset}",
            hint='name a folder, as in Run("runs/exp1"), or an address like s3://bucket/run',
        )
    return address


def resume_place(given: tuple[int, int] | None) -> TakesBack | None:
    """What `resume_from` says an attempt takes back.

    Raises:
        ValueError: It is no pair of whole numbers.
    """
    if given is None:
        return None
    try:
        if any(map(_is_other, given)):
            raise ValueError("a truth value is no number")
        epoch, step = map(index, given)
    except (TypeError, ValueError):
        raise ValueError(f"resume_from={given!r} is no (epoch, step)") from None
    return TakesBack(epoch, step, "resume_from")


def whole_number(name: str, value: Any, bits: int = 31) -> int:
    """A number of steps, epochs or passes.

    Raises:
        ValueError: It is no whole one, or has no room.
    """
    if type(value) is int and -(2**31) <= value < 2**31:
        return value
    try:
        number = int(value)
        is_whole = not _is_other(value) and bool(number == value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        is_whole = False
    if not is_whole:
        raise ValueError(f"{name} {value!r} is no whole number")
    if not -(2**bits) <= number < 2**bits:
        raise ValueError(f"{name} {number} is beyond {bits + 1} bits")
    return number


def _is_other(value: Any) -> bool:
    """Whether a value that `int` takes is no number: a text, or a truth value of whatever kind."""
    return isinstance(value, str | bytes | bool) or str(getattr(value, "dtype", "")).endswith("bool")


def nth_epochs(given: Any) -> int:
    """`epoch_frequency`, a whole number from 1.

    Raises:
        ValueError: It is none.
    """
    try:
        number = index(given)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"epoch_frequency={given!r} must be a whole number, 1 or more")
    return number


def epochs_kept(given: Any) -> bool | frozenset[int]:
    """Whether, or in which epochs, probabilities are kept."""
    if isinstance(given, bool):
        return given
    try:
        return frozenset(index(epoch) for epoch in given)
    except TypeError:
        raise ValueError(f"keep_probs={given!r} is neither True, False nor a list of epochs") from None


def ignored_label(given: Any) -> int | str | None:
    """`ignore_label`, one whole number or text, or None.

    Raises:
        ValueError: It is none.
    """
    if given is None or isinstance(given, str):
        return given
    try:
        return index(given)
    except TypeError:
        raise ValueError(f"ignore_label={given!r} is no label: one whole number, one text, or None") from None


def ignored_forms(label: int | str | None, names: Sequence[str] | None) -> tuple[int | None, str | None]:
    """The ignored label as a whole number and as a text: `label_names` say the one that is not given.

    Args:
        label: As `ignored_label` gives it.
        names: The classes' names, in the order of the scores.
    """
    known = list(map(str, names or ()))
    if isinstance(label, str):
        return (known.index(label) if label in known else None), label
    return label, (known[label] if label is not None and 0 <= label < len(known) else None)


def names_of_classes(given: Any) -> tuple[Any, ...] | None:
    """`label_names`, in the order of the scores; a mapping may be of class to name, or of name to class.

    Raises:
        ValueError: It is one text, no list, without an order, or a mapping whose classes are not 0, 1, 2, ...
    """
    if given is None or (hasattr(given, "__len__") and not len(given)):
        return None
    if isinstance(given, str | bytes):
        raise ValueError(f"label_names={given!r} is one text: a list of names is needed, in the order of the scores")
    if isinstance(given, Set):
        raise ValueError(f"label_names={given!r} has no order: a list of names is needed, in the order of the scores")
    if not isinstance(given, Mapping):
        try:
            return tuple(given)
        except TypeError:
            raise ValueError(f'label_names={given!r} is no list of names: ["cat", "dog"]') from None
    names = dict(given)
    if all(isinstance(name, str) for name in names) and not all(isinstance(name, str) for name in names.values()):
        names = {place: name for name, place in names.items()}
    try:
        return tuple(names[place] for place in range(len(given)))
    except KeyError:
        raise ValueError(f"label_names={given!r} does not name the classes 0 to {len(given) - 1}") from None


def names_of_metrics(given: Any) -> tuple[str, ...]:
    """`float64`, names of metrics, or one.

    Raises:
        ValueError: They are none.
    """
    if isinstance(given, str):
        return (given,)
    try:
        names = tuple(given)
    except TypeError:
        names = (given,)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f'float64={given!r} must be names of metrics: ["loss"]')
    return names


def checked_rank(given: Any) -> int | None:
    """`rank`, a whole number or None.

    Raises:
        ValueError: It is no whole number.
    """
    return None if given is None else whole_number("rank", given)


def epochs_meant(given: Any) -> int:
    """`total_epochs`, 0 where that is open.

    Raises:
        ValueError: It is no whole number from 0.
    """
    number = whole_number("total_epochs", given)
    if number < 0:
        raise ValueError(f"total_epochs={given!r} must be a whole number, 0 or more")
    return number


def checked_place(mode: str, ds_id: str, epoch: int, turn: int) -> Place:
    """A place that a folder and a column can name.

    Raises:
        ValueError: The epoch is beyond 32 bits, or the ds_id no text or too long a name.
    """
    if not -(2**31) <= epoch < 2**31:
        raise ValueError(f"epoch {epoch} is beyond 32 bits")
    if not isinstance(ds_id, str):
        raise ValueError(f"ds_id must be a text, not {type(ds_id).__name__}")
    try:
        name = quote(ds_id, safe="")
    except UnicodeEncodeError as error:
        raise ValueError(f"ds_id has a text that UTF-8 has no form for: {error.reason}") from error
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"ds_id is too long for a folder: {len(ds_id)} characters")
    return Place(mode, ds_id, epoch, turn)


def task_named(word: str | None) -> Task | None:
    """
    Raises:
        UsageError: There is no such task.
    """
    if word is None:
        return None
    if word not in TASKS:
        raise UsageError(f"task={word!r} is none of the tasks", hint="choices: " + ", ".join(TASKS))
    return Task(word)


def unknown_mode(given: object) -> str:
    """Refuse what is no mode.

    Raises:
        ValueError: Always; the modes are named.
    """
    raise ValueError(f"mode {given!r} is none of {', '.join(Mode)}")
