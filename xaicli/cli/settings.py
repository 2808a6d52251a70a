"""Defaults a user keeps in a file: `[tool.xai]` in `pyproject.toml`, or `xai.toml`.

Order: flag > `XAI_*` variable > file > default. Keys are option names; a table named after a
command applies to that command only.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from xaicli.errors import UsageError, unknown


def read_settings(folder: Path) -> tuple[dict[str, Any], Path | None]:
    """The settings that apply in a folder, and the file they come from: `xai.toml` first, else `pyproject.toml`.

    Inside a run directory there are none: it may come from a stranger, and settings name code to import.

    Raises:
        UsageError: The file is no TOML.
    """
    here = folder.resolve()
    if any((place / "xai.json").is_file() for place in (here, *here.parents)):
        return {}, None
    for name, keys in (("xai.toml", ()), ("pyproject.toml", ("tool", "xai"))):
        path = folder / name
        if not path.is_file():
            continue
        try:
            table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from error
        for key in keys:
            table = table.get(key, {})
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
        UsageError: The command's own table has a key that is no option of it.
    """
    own = {_parameter(key): value for key, value in dict(settings.get(command) or {}).items()}
    if unknown := sorted(set(own) - set(parameters)):
        raise UsageError(
            f"setting {command}.{unknown[0]} is no option of xai {command}",
            hint="options: " + ", ".join(sorted(parameters)),
        )
    shared = {_parameter(k): v for k, v in settings.items() if not isinstance(v, dict)}
    merged = {key: value for key, value in {**shared, **own}.items() if key in parameters}
    return {key: [value] if parameters[key] and not isinstance(value, list) else value for key, value in merged.items()}


def strangers(settings: dict[str, Any], options: dict[str, set[str]]) -> list[str]:
    """The settings that are neither a table of a command nor an option of one.

    Args:
        settings: The whole table of settings.
        options: The names of the options by command.
    """
    known = set().union(*options.values())
    tables = {key for key, value in settings.items() if isinstance(value, dict)}
    return sorted(key for key in settings if (key not in options if key in tables else _parameter(key) not in known))


def unknown_setting(key: str, path: Path, options: dict[str, set[str]]) -> UsageError:
    """The error for a setting that means nothing."""
    known = sorted(set().union(*options.values()) | set(options))
    found = unknown("setting", key, known, where=str(path))
    return UsageError(found.message, hint=found.hint)


def _parameter(key: str) -> str:
    return key.replace("-", "_")
