"""How a function becomes a command: option groups spelled once as dataclasses, expanded into each command's options."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, get_type_hints

import typer
from typer.models import OptionInfo

from xaicli.cli.completion import BY_OPTION
from xaicli.cli.options import files_of_ids
from xaicli.cli.settings import FILES, read_settings
from xaicli.cli.status import status_line
from xaicli.errors import XaiError
from xaicli.files import spare, sparing
from xaicli.words import unquoted

_LONG = {
    "saliency": "loading the model",
    "collect": "loading the model",
    "track_report": "reading",
    "dynamics": "reading",
    "labels": "reading",
    "compact": "looking for files to compact",
    "export": "reading",
}
"""What commands that take their time do first; the others say nothing where they answer at once."""
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_CONTEXT = "command_context"
_NEARNESS = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP")
"""Where an option is said: a flag counts before a variable, and that before the settings file."""
_ORDINARY = frozenset(
    (
        "all",
        "epoch",
        "first",
        "last",
        "max",
        "mean",
        "min",
        "none",
        "pass",
        "row",
        "rows",
        "run",
        "sample",
        "step",
        "table",
    )
)
"""Values that are also words of any sentence."""
_INPUTS = ("facts", "truth", "rules", "model", "data", "weights", "baseline", "source", "file", "words")
"""What names files to read; `--ids @FILE` is told by its own reader."""
_TYPED: ContextVar[frozenset[str]] = ContextVar("typed", default=frozenset())


def typed() -> frozenset[str]:
    """The options of the running command that stand on its line, also with their default, by their names in Python."""
    return _TYPED.get()


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter annotated with an option group by the group's fields.

    A group is a frozen dataclass whose fields are annotated as Typer options. The command line gets one option a field;
    the function gets the group, filled in.
    """
    hints = get_type_hints(function, include_extras=True)
    plain: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if dataclasses.is_dataclass(hints[name]):
            groups[name] = hints[name]
        else:
            plain.append(parameter.replace(annotation=hints[name], kind=_KEYWORD))
    expanded = [parameter for group in groups.values() for parameter in _parameters(group)]

    @functools.wraps(function)
    def run(**given: Any) -> None:
        context = given.pop(_CONTEXT)
        sources = {name: context.get_parameter_source(name) for name in context.params}
        _TYPED.set(frozenset(name for name, source in sources.items() if source and source.name == "COMMANDLINE"))
        shown = "quiet" in given and not (given["quiet"] or given.get("no_progress"))
        first = _LONG.get(function.__name__)
        with (
            sparing([*_files_of(given), *files_of_ids()]),
            status_line(first or "reading", shown=shown, at_once=first is not None),
        ):
            while True:
                rest = dict(given)
                filled = {
                    name: group(**{field.name: rest.pop(field.name) for field in dataclasses.fields(group)})
                    for name, group in groups.items()
                }
                try:
                    for name, option in (("output", "-o"), ("junit", "--junit")):
                        spare([given[name]] if isinstance(given.get(name), Path) else [], option)
                    return function(**rest, **filled)
                except XaiError as error:
                    distant = [name for name in _farther(error, sources) if given[name] != defaults[name]]
                    if not distant:
                        _tell_where(
                            error, {name: given[name] for name in given if given[name] != defaults[name]}, sources
                        )
                        raise
                    given |= {name: defaults[name] for name in distant}

    for parameter in (*plain, *expanded):
        _complete(parameter)
    signature = inspect.Signature([*plain, *expanded, inspect.Parameter(_CONTEXT, _KEYWORD, annotation=typer.Context)])
    defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    del run.__wrapped__
    return run


def _files_of(given: Mapping[str, Any]) -> list[Path]:
    """The files that a command is given to read, and those of its settings."""
    named = [given.get(name) for name in _INPUTS]
    files = [item for value in named for item in (value if isinstance(value, list | tuple) else [value]) if item]
    return [path for path in map(Path, map(str, (*files, *FILES))) if _is_file(path)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that no file can be called
        return False


def _farther(error: XaiError, sources: Mapping[str, Any]) -> list[str]:
    """Of options that do not go together, those said farther from the question; none where both sides are as near."""

    def said(names: Sequence[str]) -> dict[str, int]:
        found = {name: sources[name].name for name in names if sources.get(name) is not None}
        return {name: _NEARNESS.index(source) for name, source in found.items() if source in _NEARNESS}

    refused, by = said(error.refused), said(error.by)
    near, other = min(refused.values(), default=0), min(by.values(), default=0)
    return [name for name, at in (refused if other <= near else by).items() if at > min(near, other)]


def _tell_where(error: XaiError, given: Mapping[str, Any], sources: Mapping[str, Any]) -> None:
    """Say of an option that an error is about, by its name or its value, where it was said if nobody typed it."""
    for name, value in given.items():
        option, source = f"--{name.replace('_', '-')}", sources.get(name)
        is_named = name in (*error.refused, *error.by) or re.search(
            rf"{option}(?![\w-])", f"{error.message} {error.hint}"
        )
        if source is None or not (is_named or _is_about(error.message, name, value)):
            continue
        place = f"XAI_{name.upper()}" if source.name == "ENVIRONMENT" else ""
        if source.name == "DEFAULT_MAP":
            place = str(read_settings(Path())[1])
        if place:
            error.hint = "; ".join(filter(None, (error.hint, f"{option} is from {place}")))


def _is_about(message: str, name: str, value: Any) -> bool:
    """Whether a message has an option's value, or a part of it: `zebra` of `cat=zebra`, 9 of `2-9`."""
    said = [str(item).removeprefix("!") for item in (value if isinstance(value, list | tuple) else [value])]
    parts = {part for item in said for part in (item, *re.split(r"[,=]", item), *re.findall(r"\d+", item)) if part}
    parts |= {unquoted(part.strip()) for part in parts}
    called = any(re.search(rf"\b{word}s?\b", message) for word in name.split("_"))
    for part in parts:
        # A number or a word stands in messages about other things, too: the option's own name is beside it, or quotes.
        is_plain = part in _ORDINARY or part.isdecimal()
        if repr(part) in message:
            return True
        if (called or not is_plain) and re.search(rf"(?<![\w./-]){re.escape(part)}(?![\w/-])", message):
            return True
    return False


def _complete(parameter: inspect.Parameter) -> None:
    """Let Tab offer the values of an option, unless it says itself how; errors of reading one say where it is from."""
    for info in getattr(parameter.annotation, "__metadata__", ()):
        if isinstance(info, OptionInfo) and info.autocompletion is None:
            info.autocompletion = BY_OPTION.get(parameter.name)
        if isinstance(info, OptionInfo) and info.callback is not None and info.callback.__module__ != __name__:
            info.callback = _telling_where(info.callback)


def _telling_where(read: Callable[..., Any]) -> Callable[..., Any]:
    """What reads an option's value, whose errors say where it was said if nobody typed it."""
    n = len(inspect.signature(read).parameters)

    def told(context: typer.Context, option: typer.CallbackParam, value: Any) -> Any:
        try:
            return read(*(context, option, value)[-n:])
        except XaiError as error:
            name = str(option.name)
            _tell_where(error, {name: value}, {name: context.get_parameter_source(name)})
            raise

    return told


@functools.cache
def _parameters(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(field.name, _KEYWORD, default=field.default, annotation=hints[field.name])
        for field in dataclasses.fields(group)
    ]
