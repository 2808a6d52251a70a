"""What samples are, on cards, in tables and in hovers: a path is a link, all else is text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from xaicli.report.model import Column, Link, rest_of
from xaicli.report.numbers import brief, count, cut, exact, in_words

if TYPE_CHECKING:
    import polars as pl

FACTS = "facts"
"""The column of an answer that holds what its samples are: {fact: value}."""
_ON_CARD = 6
_IN_TABLE = 4
_IN_HOVER = 40
_LONGEST_PATH = 1024
_SCHEMES = frozenset({"http", "https", "file"})
"""What a link may begin with: nothing that a page would run."""
_SUFFIX = re.compile(r"[^\s/\\.][^/\\]*\.[A-Za-z][A-Za-z0-9]{0,9}")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
_STARTS = ("/", "./", "../", "~/")


def address_of(value: Any, run: str = "") -> str:
    """Where a fact leads that is a path or the address of a page; "" for every other.

    A path is a text on one line that names a file with a suffix in a folder (`images/7.png`), or begins with a root
    (`/`, a drive, `./`, `../`, `~/`) and has no blank. One that is not absolute is looked for in the current folder,
    else taken from the run's.

    Args:
        value: The fact.
        run: The run directory.
    """
    if not isinstance(value, str) or not value.isprintable() or not 2 < len(value) <= _LONGEST_PATH:
        return ""
    if "://" in value:
        try:
            parts = urlsplit(value)
        except ValueError:
            return ""
        if parts.scheme.lower() not in _SCHEMES or not (parts.netloc or parts.path):
            return ""
        return quote(value, safe="/:?#[]@!$&'()*+,;=%-._~")
    if _WINDOWS.match(value):
        return PureWindowsPath(value).as_uri()
    path = local_path(value, run)
    return "" if path is None else path.as_uri()


def local_path(value: Any, run: str = "") -> Path | None:
    """Where the file or folder lies that a fact names by its path, or by a `file://`; None for every other fact."""
    if not isinstance(value, str) or not value.isprintable() or not 2 < len(value) <= _LONGEST_PATH:
        return None
    if "://" in value:
        return _path_at(value)
    name = re.split(r"[/\\]", value)[-1]
    named = _SUFFIX.fullmatch(name) and "/" in value
    if value.startswith("//") or not (named or (value.startswith(_STARTS) and " " not in value)):
        return None
    path = Path(value).expanduser() if value.startswith("~/") else Path(value)
    if path.is_absolute():
        return path
    here = Path.cwd() / path
    try:
        found = here.exists() or not run or "://" in run
    except (OSError, ValueError):
        found = True
    return here if found else Path(run).absolute() / path


def _path_at(address: str) -> Path | None:
    """The file of this machine at an address that begins with `file://`."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    if parts.scheme.lower() != "file" or parts.netloc.lower() not in ("", "localhost") or not parts.path:
        return None
    path = unquote(parts.path)
    return Path(path[1:] if _WINDOWS.match(path[1:]) else path)


def known_facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the sample of a row: {fact: value}, without those that are not."""
    return {name: value for name, value in (row.get(FACTS) or {}).items() if value is not None}


def linked(value: Any, run: str) -> Link:
    """A fact as it is shown, and all of it."""
    whole = exact(value) if isinstance(value, float) else in_words(value, whole=True)
    text = fact_in_words(value)
    return Link(text, address_of(value, run), whole if whole != text else "")


def fact_in_words(value: Any) -> str:
    """A fact in words: a number may be a time or a place, so that it has more digits than a metric."""
    return brief(value) if isinstance(value, float) else in_words(value)


def on_card(row: Mapping[str, Any], run: str) -> tuple[tuple[str, Link], ...]:
    """The facts of a sample as (name, what is known), the first few."""
    return tuple((name, linked(value, run)) for name, value in list(known_facts(row).items())[:_ON_CARD])


def in_hover(row: Mapping[str, Any]) -> str:
    """The facts of a sample in a few words."""
    known = list(known_facts(row).items())[:_IN_TABLE]
    return " · ".join(f"{name} {cut(fact_in_words(value), _IN_HOVER)}" for name, value in known)


def points_named(frame: pl.DataFrame, names: Iterable[str]) -> tuple[str, ...]:
    """What the hovers over points say: what each is called, and the facts of its sample.

    Args:
        frame: A row a point.
        names: What each is called; "" where nothing is said of it.
    """
    facts = frame[FACTS] if FACTS in frame.columns else [None] * frame.height
    told = zip(names, facts, strict=True)
    return tuple(name and " · ".join(filter(None, (name, in_hover({FACTS: known})))) for name, known in told)


class FactColumns:
    """The facts of some rows as further columns of a table.

    Args:
        rows: Of an answer, each with `FACTS` or without.
        run: The run directory.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], run: str) -> None:
        names = list(dict.fromkeys(name for row in rows for name in known_facts(row)))
        self._run = run
        self.names: Sequence[str] = names[:_IN_TABLE]
        self.left_out = len(names) - len(self.names)
        """How many more facts there are."""

    @property
    def columns(self) -> list[Column]:
        """Their headings."""
        return [Column(name, aside=True, fact=True) for name in self.names]

    def cells(self, row: Mapping[str, Any]) -> list[Link | str]:
        """Those of a row."""
        known = known_facts(row)
        return [linked(known[name], self._run) if name in known else "" for name in self.names]

    @property
    def note(self) -> str:
        """What a table says of those it leaves out."""
        return rest_of(count(self.left_out, "more fact")) if self.left_out else ""
