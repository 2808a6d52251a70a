"""Defaults a user keeps in a file: `[tool.xai]` in `pyproject.toml`, or `xai.toml`.

Order: flag > `XAI_*` variable > file > default. Keys are option names; a table named after a
command applies to that command only.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from xaicli.errors import UsageError


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


def _parameter(key: str) -> str:
    return key.replace("-", "_")
