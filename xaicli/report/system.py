"""How the run was made: configuration, code, environment, model, attempts - the traceability part of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from xaicli.report.charts import Tone
from xaicli.report.facts import RunFacts
from xaicli.report.model import Block, Cell, Column, Table, Text
from xaicli.report.plain import in_words

_TITLES = {"code": "Code", "packages": "Packages", "hardware": "Hardware", "model": "Model", "variables": "Variables"}
_LONG = 400
_MOST = 200


def system_blocks(facts: RunFacts) -> Iterator[Block]:
    """Tables of everything that is known about how the run came to be."""
    if facts.config:
        yield _pairs("config", "Configuration", facts.config, folded=False)
    else:
        yield Text("No configuration was given to Run(config=...).", Tone.FAINT)
    environment = facts.environment
    models = environment.get("models")
    if isinstance(models, Mapping):
        yield from (_model(str(name), model) for name, model in models.items() if isinstance(model, Mapping))
    code = environment.get("code")
    if isinstance(code, Mapping) and code:
        yield _pairs("code", "Code", {_code_word(key): value for key, value in code.items()}, folded=False)
    else:
        yield Text("No git checkout was found where the code lies: the commit is not known.", Tone.FAINT)
    plain = {key: value for key, value in environment.items() if not isinstance(value, Mapping)}
    if plain:
        yield _pairs("environment", "Environment", plain)
    for key, value in environment.items():
        if isinstance(value, Mapping) and value and key not in ("code", "models"):
            yield _pairs(key, _TITLES.get(key, key.replace("_", " ").capitalize()), value)
    if facts.attempts:
        yield _attempts(facts)


def _model(name: str, facts: Mapping[str, Any]) -> Table:
    """A model in figures, and a row for each line that it prints of itself."""
    figures = [(key, _short(value)) for key, value in facts.items() if key != "summary"]
    lines = str(facts.get("summary") or "").splitlines()
    rows = (*figures, *((("layers" if i == 0 else ""), line) for i, line in enumerate(lines[:_MOST])))
    note = f"and {len(lines) - _MOST:,} more lines" if len(lines) > _MOST else ""
    columns = (Column("what"), Column("value"))
    return Table(
        f"system-model-{name}",
        "Model" if name == "model" else f"Model {name}",
        columns,
        rows,
        note,
        folded=True,
        terminal_rows=12,
    )


def _code_word(key: str) -> str:
    return {"dirty": "differs from the commit", "diff_sha256": "sha-256 of the difference"}.get(key, key)


def _pairs(name: str, title: str, values: Mapping[str, Any], *, folded: bool = True) -> Table:
    flat = list(_flat(values))
    rows = tuple((key, _short(value)) for key, value in flat[:_MOST])
    note = f"and {len(flat) - _MOST:,} more" if len(flat) > _MOST else ""
    return Table(
        f"system-{name}", title, (Column("what"), Column("value")), rows, note, folded=folded, terminal_rows=12
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: Any) -> str:
    text = in_words(value)
    return text if len(text) <= _LONG else text[:_LONG] + " …"


def _attempts(facts: RunFacts) -> Table:
    rows = tuple(
        (a.attempt, a.started_at[:19].replace("T", " "), a.host, a.world_size, a.resumed_from_step)
        for a in facts.attempts
    )
    columns = (
        Column("attempt", Cell.INTEGER),
        Column("started"),
        Column("host"),
        Column("ranks", Cell.INTEGER),
        Column("resumed from step", Cell.INTEGER),
    )
    return Table("attempts", "Attempts", columns, rows)
