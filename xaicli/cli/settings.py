"""Defaults a user keeps in a file: `[tool.xai]` in `pyproject.toml`, or `xai.toml`.

Order: flag > `XAI_*` variable > file > default. Keys are option names; a table named after a
command applies to that command only.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from xaicli.errors import UsageError, unknown


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
    for name, keys in (("xai.toml", ()), ("pyproject.toml", ("tool", "xai"))):
        path = folder / name
        if not path.is_file():
            continue
        try:
            table: Any = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            if not keys:
                raise UsageError(f"{path} cannot be read: {error}", hint="it is no TOML in UTF-8") from error
            if warnings is not None:
                warnings.append(f"{path} cannot be read, no setting in it counts: {error}")
            continue
        for key in keys:
            table = table.get(key, {}) if isinstance(table, dict) else {}
        if not isinstance(table, dict):
            raise UsageError(f"{path}: tool.xai is no table", hint="[tool.xai] on a line of its own, settings below")
        if table:
            return dict(table), path
    return {}, None


def defaults_of(command: str, parameters: dict[str, bool], settings: dict[str, Any]) -> dict[str, Any]:
    """The defaults of one command.

    Args:
        command: The command's name.
        parameters: The command's parameters, {name: takes a list}.
        settings: The whole table of settings.

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
    own = {_parameter(key): value for key, value in table.items() if not isinstance(value, dict)}
    if unknown := sorted(set(own) - set(parameters)):
        raise UsageError(
            f"setting {command}.{unknown[0]} is no option of xai {command}",
            hint="options: " + ", ".join(sorted(parameters)),
        )
    shared = {_parameter(k): v for k, v in settings.items() if not isinstance(v, dict)}
    merged = {key: value for key, value in {**shared, **own}.items() if key in parameters}
    for key, value in merged.items():
        if isinstance(value, list) and (not parameters[key] or any(isinstance(item, (list, dict)) for item in value)):
            raise UsageError(f"setting {key} = {value!r} is a list", hint=f"--{key.replace('_', '-')} takes one value")
    return {key: [value] if parameters[key] and not isinstance(value, list) else value for key, value in merged.items()}


def unknown_names(settings: dict[str, Any], options: dict[str, set[str]]) -> list[str]:
    """The settings that are neither a table of a command nor an option of one.

    Args:
        settings: The whole table of settings.
        options: The names of the options by command.
    """
    known = set().union(*options.values())
    tables = {key for key, value in settings.items() if isinstance(value, dict)}
    return sorted(key for key in settings if (key not in options if key in tables else _parameter(key) not in known))


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
