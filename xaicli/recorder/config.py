"""What a training was configured with, as plain JSON types, whatever people configure with; secrets masked."""

from __future__ import annotations

import dataclasses
import math
import re
from argparse import Namespace
from collections.abc import Mapping
from enum import Enum
from types import SimpleNamespace
from typing import Any

from xaicli.traceability import without_credentials, without_secrets

MASK = "***"
_LONGEST_ARRAY = 1000
_DEEPEST = 20
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET = re.compile(
    r"(key|token|secret|password|passwd|pwd|passphrase|credential|authorization)s?$|^(secret|password)"
)


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
        found[name] = MASK if _is_secret(name, plain) else plain
    return found


def _is_secret(name: str, value: Any) -> bool:
    """Whether a value is to be masked: a text under a name that says so, or a number whose name ends so."""
    words = [word.lower() for word in _WORDS.findall(name)]
    if isinstance(value, bool) or value is None or value == "":
        return False
    if isinstance(value, int | float):
        return bool(words) and bool(_SECRET.search(words[-1]))
    if isinstance(value, dict):
        return False  # its own names say which of it is
    if isinstance(value, list) and not any(isinstance(item, str) for item in value):
        return False
    return any(_SECRET.search(word) for word in words)
