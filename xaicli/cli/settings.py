"""Defaults a user keeps in a file: `[tool.xai]` in `pyproject.toml`, or `xai.toml`.

Order: flag > `XAI_*` variable > file > default. Keys are option names; a table named after a
command applies to that command only.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from xaicli.errors import UsageError, unknown
from xaicli.words import quoted, split

_MAPS = frozenset({"label_map"})


def _among(*names: str) -> Callable[[Any], bool]:
    def takes(value: Any) -> bool:
        items = value if isinstance(value, list) else [value]
        return all(word.lower() in names for item in items for word in split(str(item)))

    return takes


def _is_text(value: Any) -> bool:
    return not isinstance(value, list)


def _are_groups(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return isinstance(value, dict) or len({str(item).partition("=")[0] for item in items}) > 1


def _draws(value: Any) -> bool:
    return str(value).isdecimal()


def _part(value: Any) -> bool:
    try:
        return 0 <= float(value) < 1
    except (TypeError, ValueError):
        return False


def _are_limits(value: Any) -> bool:
    from xaicli.checks.rules import parse_rule

    try:
        return all(parse_rule(str(line)) for line in (value if isinstance(value, list) else [value]))
    except UsageError:
        return False


def _chooses(value: Any) -> bool:
    from xaicli.reader.dialect import is_condition

    return _is_text(value) and is_condition(str(value))


_PAGES = ("html", "png", "csv", "json", "md")
_TASKS = ("classification", "multilabel", "regression", "sequence")
_BASELINES = ("mid", "zero", "uniform", "black", "blur")
_WORDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "baseline": {
        "saliency": lambda value: str(value) in _BASELINES or Path(str(value)).is_file(),
        "check": lambda value: "://" in str(value) or (Path(str(value)) / "xai.json").is_file(),
    },
    "by": {"relabel apply": _is_text, "": lambda _: True},
    "format": {
        "export": _among("csv", "parquet", "jsonl", "json"),
        "select": _among(*_PAGES, "txt", "parquet", "jsonl"),
        "": _among(*_PAGES),
    },
    "group": {"compare": _are_groups, "": lambda _: True},
    "model": {"collect": _is_text, "": lambda _: True},
    "precision": {"saliency": _among("auto", "fp32", "bf16"), "": _among("auto", "fp32", "bf16", "fp16")},
    "rule": {"check": _are_limits, "": _chooses},
    "smoothing": {"saliency": _draws, "scalars": _part},
    "task": {
        "demo": _among(*_TASKS, "boxes"),
        "": lambda value: _among(*_TASKS, "binary", "token_classification", "segmentation")(
            str(value).partition(":")[0]
        ),
    },
    "to": {
        "relabel export": _among("label-studio", "label_studio", "cvat", "fiftyone", "coco", "csv"),
        "checkpoint convert": _among("safetensors", "pt2", "pt"),
    },
}
"""The options to which commands give a meaning of their own: which values each takes, "" the others."""


def is_of_others(command: str, option: str, value: Any) -> bool:
    """Whether a value is one that this command does not take for an option, and another does.

    Args:
        command: The command, one behind a group with its group: "relabel export".
        option: The option by its name in Python.
        value: What a variable or the settings file has.
    """
    takes: Mapping[str, Callable[[Any], bool]] = _WORDS.get(option, {})
    own = takes.get(command, takes.get("", lambda _: True))
    return not own(value) and any(other(value) for other in takes.values() if other is not own)


FILES: Mapping[str, tuple[str, ...]] = {"xai.toml": (), "pyproject.toml": ("tool", "xai")}
"""Where settings stand: the first file that has any counts, and the keys of their table in it."""


def read_settings(folder: Path, warnings: list[str] | None = None) -> tuple[dict[str, Any], Path | None]:
    """The settings that apply in a folder, and the file they come from: `xai.toml` first, else `pyproject.toml`.

    Inside a run directory there are none: it may come from a stranger, and settings name code to import. A
    `pyproject.toml` that cannot be read belongs to another tool as well, and stops nobody.

    Args:
        folder: Where to look.
        warnings: Takes a line about a file that was left out.

    Raises:
        UsageError: `xai.toml` is no TOML, or the settings are no table.
    """
    here = folder.resolve()
    if any((place / "xai.json").is_file() for place in (here, *here.parents)):
        return {}, None
    for name, keys in FILES.items():
        path = folder / name
        if not path.is_file():
            continue
        try:
            table: Any = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            why = "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            if not keys:
                raise UsageError(f"{path} cannot be read: {why}", hint="a settings file is TOML in UTF-8") from error
            if warnings is not None:
                warnings.append(f"{path} cannot be read, no setting in it counts: {why}")
            continue
        for key in keys:
            table = table.get(key, {}) if isinstance(table, dict) else {}
        if not isinstance(table, dict):
            raise UsageError(f"{path}: tool.xai is no table", hint="[tool.xai] on a line of its own, settings below")
        if table:
            return dict(table), path
    return {}, None


def defaults_of(
    command: str,
    parameters: dict[str, bool],
    settings: dict[str, Any],
    *,
    commands: Collection[str] = (),
    flags: Collection[str] = (),
    of_others: Callable[[str, Any], bool] = lambda _key, _value: False,
) -> dict[str, Any]:
    """The defaults of one command.

    Args:
        command: The command's name.
        parameters: The command's parameters, {name: takes a list}.
        settings: The whole table of settings.
        commands: The names of all commands, whose tables are no values.
        flags: Those of the parameters that are on or off.
        of_others: Whether a value for all commands is one that others take and this one does not: it is passed over.

    Raises:
        UsageError: The command's own table is none, or has a key that is no option of it, or an option has a value of
            another kind.
    """
    table = settings.get(command) or {}
    if not isinstance(table, dict):
        raise UsageError(
            f"setting {command} = {table!r} is no table, and xai {command} is a command",
            hint=f"its options go below [{command}], those of another command below that one's name",
        )
    own = _values(table, parameters, commands)
    if unknown := sorted(set(own) - set(parameters)):
        raise UsageError(
            f"setting {command}.{unknown[0]} is no option of xai {command}",
            hint="options: " + ", ".join(sorted(parameters)),
        )
    shared = _values(settings, parameters, commands)
    shared = {key: value for key, value in shared.items() if key not in parameters or not of_others(key, value)}
    merged = {key: value for key, value in {**shared, **own}.items() if key in parameters}
    for key, value in merged.items():
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, dict):
            if key not in _MAPS:
                takes = "one value or a list" if parameters[key] else "one value"
                raise UsageError(f"setting {key} = {value!r} is a table", hint=f"{option} takes {takes}")
            merged[key] = _pairs(key, value)
            continue
        items = value if isinstance(value, list) else [value]
        if key not in flags and (truth := [item for item in items if isinstance(item, bool)]):
            said = str(truth[0]).lower()
            raise UsageError(f"setting {key} = {said} is a truth value", hint=f"{option} takes none, and no flag")
        if isinstance(value, list) and (not parameters[key] or any(isinstance(item, (list, dict)) for item in value)):
            raise UsageError(f"setting {key} = {value!r} is a list", hint=f"{option} takes one value")
    return {key: [value] if parameters[key] and not isinstance(value, list) else value for key, value in merged.items()}


def unknown_names(settings: dict[str, Any], options: dict[str, set[str]]) -> list[str]:
    """The settings that are neither a table of a command nor an option of one.

    Args:
        settings: The whole table of settings.
        options: The names of the options by command.
    """
    known = set().union(*options.values())
    tables = {key for key, value in settings.items() if isinstance(value, dict)}
    return sorted(key for key in settings if _parameter(key) not in known and (key not in tables or key not in options))


def _values(table: dict[str, Any], parameters: Collection[str], commands: Collection[str]) -> dict[str, Any]:
    """The settings of a table that are values of options: a table is one where it is called as an option."""
    return {
        _parameter(key): value
        for key, value in table.items()
        if not isinstance(value, dict) or (_parameter(key) in parameters and key not in commands)
    }


def _pairs(key: str, table: dict[str, Any]) -> list[str]:
    """A table of names and values as the option takes it, `NAME=VALUE` each.

    Raises:
        UsageError: A value is neither text nor a number.
    """
    for name, value in table.items():
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UsageError(f"setting {key}.{name} = {value!r} is no label", hint="a text or a number")
    return [f"{quoted(name, special=',=')}={quoted(str(value), special=',=')}" for name, value in table.items()]


def is_on(value: object) -> bool:
    """Whether a switch is on, as an environment variable or a setting spells it."""
    return str(value).strip().lower() not in ("", "0", "false", "no", "off", "n", "f")


def unknown_setting(key: str, path: Path, options: dict[str, set[str]]) -> UsageError:
    """The error for a setting that means nothing."""
    known = sorted(set().union(*options.values()) | set(options))
    found = unknown("setting", key, known, where=str(path))
    return UsageError(found.message, hint=found.hint)


def _parameter(key: str) -> str:
    return key.replace("-", "_")
