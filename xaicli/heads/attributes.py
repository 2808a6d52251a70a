"""Attributes of objects of any class, without its `__getattr__`, which may raise anything and answer to every name."""

from __future__ import annotations

from typing import Any


def held(thing: Any, name: str, default: Any = None) -> Any:
    """An attribute as `getattr` gives it, but for what only a `__getattr__` would answer."""
    kind: Any = type(thing)
    try:
        return kind.__getattribute__(thing, name)
    except Exception:  # also what a property raises
        return default


def attributes(thing: Any) -> dict[str, Any]:
    """What lies in its `__dict__`, itself and not a copy, which may be the thing (`self.__dict__ = self`)."""
    found = held(thing, "__dict__")
    return found if isinstance(found, dict) else {}
