"""What is typed, as values, without the library that typer turns texts into values with.

Its import, and a validator for each option, cost as much as a quarter of a short command; texts, paths, numbers and
flags need neither. Whatever is not plain goes on to typer, which raises where it is wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin

from xaicli.errors import UsageError
from xaicli.words import spelled

_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_NOT_PLAIN = object()


def plain_values(command: Any) -> None:
    """Let a command, and those behind a group, take plain values as they are, and one value of an option once.

    Args:
        command: What `typer.main.get_command` gives, or a command of it.
    """
    for below in getattr(command, "commands", {}).values():
        plain_values(below)
    for parameter in command.params:
        _take_plainly(parameter)
    if not hasattr(command, "commands"):
        command.make_parser = partial(_counting, command.make_parser)
    if hasattr(command, "get_help_option"):
        # Made only when a command line is read.
        command.get_help_option = partial(_help_option, command.get_help_option)


def _take_plainly(parameter: Any) -> None:
    if hasattr(parameter, "get_runtime_param") and hasattr(parameter, "type_descriptor"):
        taken = _Taken(parameter.type_descriptor, parameter.get_runtime_param)
        parameter.get_runtime_param = lambda: taken


def _counting(typers: Callable[[Any], Any], ctx: Any) -> Any:
    """A parser that refuses an option of one value which is given several: the last would count, without a word."""
    parser = typers(ctx)
    parse = parser.parse_args

    def parsed(args: list[str]) -> Any:
        found = parse(args=args)
        for option in () if ctx.resilient_parsing else found[2]:
            takes_one = _is_option(option) and not (option.multiple or option.is_flag or option.count)
            if takes_one and (n := found[2].count(option)) > 1:
                hint = "join the conditions with AND or OR" if option.name == "where" else "leave out all but one"
                raise UsageError(f"{option.opts[0]} is given {n} times, and takes one value", hint=hint)
        return found

    parser.parse_args = parsed
    return parser


def _help_option(typers: Callable[[Any], Any], ctx: Any) -> Any:
    option = typers(ctx)
    if option is not None and "get_runtime_param" not in vars(option):
        _take_plainly(option)
    return option


@dataclass(frozen=True)
class _Taken:
    """Turns what was given for a parameter into its value, in place of typer's own object for that."""

    descriptor: Any
    typers: Callable[[], Any]

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value; what is not plain is left to typer, which raises where it is wrong.

        Raises:
            UsageError: A path that is empty, as where a script's variable is: it would be the current folder. Or what
                is no UTF-8, and names no file.
        """
        if self.descriptor.annotation is Path and isinstance(value, str) and not value.strip() and _is_option(param):
            raise UsageError(f"{param.opts[0]} names nothing", hint="leave it out for the default")
        if isinstance(value, str):
            value = _as_text(value, param)
        elif isinstance(value, (list, tuple)):
            value = [_as_text(item, param) if isinstance(item, str) else item for item in value]
        plain = _plain(value, self.descriptor, many=param.multiple or param.nargs == -1)
        return self.typers().coerce(value, param=param, ctx=ctx) if plain is _NOT_PLAIN else plain


def _as_text(value: str, param: Any) -> str:
    """A text as it was typed, also where Python was told of an encoding that lacks its letters (`LC_ALL=C`).

    What names a file stays as the system calls it.

    Raises:
        UsageError: It is no UTF-8.
    """
    if spelled(value) == value or os.path.lexists(value):
        return value
    try:
        return os.fsencode(value).decode()
    except UnicodeError:
        if _is_path(param):
            return value  # of a file to be, or one that the command says is not there
        what = param.opts[0] if _is_option(param) else "an argument"
        raise UsageError(f"{what} is no UTF-8: {spelled(value)}", hint="give it in UTF-8, as texts are kept") from None


def _is_path(param: Any) -> bool:
    kind = param.type_descriptor.annotation
    return Path in (kind, *get_args(kind))


def _is_option(param: Any) -> bool:
    return bool(param.opts[0].startswith("-"))


def _plain(value: Any, descriptor: Any, *, many: bool) -> Any:
    """The value, or `_NOT_PLAIN`."""
    kind, asked = descriptor.annotation, descriptor.parameter_info
    if value is None:
        return () if many else None
    if asked.parser is not None or asked.min is not None or asked.max is not None:
        return _NOT_PLAIN
    if not many:
        return _one(value, kind, asked)
    if get_origin(kind) is not list or not isinstance(value, (list, tuple)):
        return _NOT_PLAIN
    found = [_one(item, get_args(kind)[0], asked) for item in value]
    return _NOT_PLAIN if any(item is _NOT_PLAIN for item in found) else found


def _one(value: Any, kind: Any, asked: Any) -> Any:
    if kind is Path and isinstance(value, (str, Path)):
        checked = asked.exists or asked.resolve_path or asked.writable or not (asked.file_okay and asked.dir_okay)
        if checked or "\0" in str(value) or not (os.access(value, os.R_OK) or not os.access(value, os.F_OK)):
            return _NOT_PLAIN
        return Path(value)
    if kind in (str, int, float, bool) and type(value) is kind:
        return value
    if not isinstance(value, str):
        return _NOT_PLAIN
    if kind is int and re.fullmatch(r"-?[0-9]{1,15}", value):
        return int(value)
    if kind is float and re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{0,15})?(e-?[0-9]{1,2})?", value):
        return float(value)
    return _FLAGS.get(value.lower(), _NOT_PLAIN) if kind is bool else _NOT_PLAIN
