"""`xai query`."""

from __future__ import annotations

from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import EngineOption, Output, Strict
from xaicli.cli.output import write
from xaicli.errors import UsageError
from xaicli.vocabulary import Engine

_STATEMENTS = ("select ", "select\n", "with ", "with\n", "from ", "show ", "describe ", "explain ")


@command
def query(
    words: Annotated[
        list[str], typer.Argument(metavar='[RUN_DIR] "SQL"', help="The run, and one SELECT; in either order.")
    ],
    *,
    engine: EngineOption = Engine.POLARS.value,
    strict: Strict = False,
    output: Output,
) -> None:
    """SQL over a run's samples, scalars and tables; nothing can be changed by it.

    Example: xai query runs/demo "SELECT label, avg(loss) FROM samples WHERE epoch = 3 GROUP BY label"
    """
    from xaicli.api import open_run

    if len(words) > 2:
        raise UsageError("query takes a run and one statement", hint="put the SQL in quotes")
    *given, sql = sorted(words, key=_is_statement)
    run = open_run(given[0] if given else None)
    write(run.query(sql, engine=engine, strict=strict), output, folder=run.layout.reports)


def _is_statement(word: str) -> bool:
    return word.lstrip(" (\n").lower().startswith(_STATEMENTS)
