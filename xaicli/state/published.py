"""What readers see of a state: `summary.json`, `graphs.json` and `described.json` in the run's `state/`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xaicli.files import facts_in, set_aside, with_check, write_whole
from xaicli.layout import text_of
from xaicli.summary import Summary

Graphs = Mapping[str, Sequence[Summary]]

_SUMMARY = "summary.json"
_GRAPHS = "graphs.json"
_DESCRIBED = "described.json"
_VERSION = 1


class Published:
    """What readers of a run see of its summary and graphs.

    A restarted process that loads no state adds to what earlier attempts published; one that loads a state, or resets,
    replaces it, since the state holds the history up to its step.
    """

    def __init__(self, find_folder: Callable[[], Path] | None) -> None:
        """
        Args:
            find_folder: Gives the run's state folder, which may be moved; None writes nothing.
        """
        self._find_folder = find_folder
        self._before: tuple[Summary, dict[str, list[Summary]]] | None = None
        self._written: dict[str, str] = {}
        self._described: dict[str, dict[str, Any]] = {}

    @property
    def _folder(self) -> Path | None:
        return self._find_folder() if self._find_folder else None

    def describe(self, kind: str, name: str, facts: Mapping[str, Any]) -> None:
        """Keep what is known of a model or of data.

        Args:
            kind: "models", "data" or "starts".
            name: Which of them.
            facts: Plain JSON types.
        """
        self._described.setdefault(kind, {})[name] = dict(facts)

    def is_described(self, kind: str, name: str) -> bool:
        """Whether `describe` was called for it."""
        return name in self._described.get(kind, {})

    def forget(self, mode: str | None = None) -> None:
        """Let nothing of an earlier attempt live on; with a mode, nothing of that mode."""
        if mode is None:
            self._before = Summary(), {}
            return
        summary, graphs = self._earlier()
        for item in [summary, *(graph for several in graphs.values() for graph in several)]:
            item.history.pop(mode, None)

    def write(self, summary: Summary, graphs: Graphs) -> None:
        """Write both files where they have changed.

        Raises:
            OSError: One cannot be written; it is then what it was before.
        """
        folder = self._folder
        if folder is None:
            return
        earlier, earlier_graphs = self._earlier()
        merged = Summary(summary.name if summary else earlier.name)
        merged.merge(earlier)
        merged.merge(summary)
        self._write(_SUMMARY, merged.to_json(), empty=not merged.history)
        every = {**earlier_graphs, **graphs}
        facts = {name: [graph.to_json() for graph in several] for name, several in every.items()}
        self._write(_GRAPHS, {"graphs": facts}, empty=not facts)
        if self._described:
            known = read_descriptions(folder)
            every_kind = {kind: {**known.get(kind, {}), **named} for kind, named in self._described.items()}
            self._write(_DESCRIBED, {"described": {**known, **every_kind}}, empty=False)

    def _earlier(self) -> tuple[Summary, dict[str, list[Summary]]]:
        if self._before is None:
            folder = self._folder
            self._before = (read_summary(folder), read_graphs(folder)) if folder else (Summary(), {})
        return self._before

    def _write(self, name: str, facts: dict[str, Any], *, empty: bool) -> None:
        folder = self._folder
        assert folder is not None
        text = with_check(json.dumps({"version": _VERSION, **facts}, allow_nan=False, default=str))
        path = folder / name
        if text == self._written.get(name) or (empty and not path.exists()):
            return
        if name not in self._written and is_damaged(path):
            set_aside(path)
        write_whole(path, text.encode(), durable=True)
        self._written[name] = text


def read_summary(folder: Path) -> Summary:
    """The summary published in a run's state folder; an unnamed, empty one if there is none or it cannot be read."""
    try:
        return _summary(folder / _SUMMARY)
    except UNREADABLE:
        return Summary()


def read_graphs(folder: Path) -> dict[str, list[Summary]]:
    """The custom graphs published in a run's state folder, {name: summaries}; empty likewise."""
    try:
        return _graphs(folder / _GRAPHS)
    except UNREADABLE:
        return {}


def read_descriptions(folder: Path) -> dict[str, dict[str, Any]]:
    """What was trained, on what, how it was started: {"models", "data" or "starts": {name: facts}}; empty likewise."""
    try:
        return _descriptions(folder / _DESCRIBED)
    except UNREADABLE:
        return {}


def _summary(path: Path) -> Summary:
    return Summary.from_json(_read(path))


def _graphs(path: Path) -> dict[str, list[Summary]]:
    graphs = _read(path)["graphs"]
    return {str(name): [Summary.from_json(graph) for graph in several] for name, several in graphs.items()}


def _descriptions(path: Path) -> dict[str, dict[str, Any]]:
    return {str(kind): dict(named) for kind, named in _read(path)["described"].items()}


def _read(path: Path) -> Any:
    return facts_in(text_of(path))


def is_damaged(path: Path) -> bool:
    """Whether one of `CHECKS` is there and is not what was written."""
    try:
        CHECKS[path.name](path)
    except (FileNotFoundError, NotADirectoryError):  # of a run that is gone there is no folder, either
        return False
    except UNREADABLE:
        return True
    return False


UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)

CHECKS: Mapping[str, Callable[[Path], object]] = {_SUMMARY: _summary, _GRAPHS: _graphs, _DESCRIBED: _descriptions}
"""{file name: what reads it or raises}."""
