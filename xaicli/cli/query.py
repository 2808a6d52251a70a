"""`xai query`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.completion import words as offered
from xaicli.cli.options import AttemptsOption, Output, Strict
from xaicli.cli.output import write
from xaicli.errors import UsageError
from xaicli.store.objects import is_url
from xaicli.vocabulary import Attempts, Engine


@command
def query(
    words: Annotated[
        list[str], typer.Argument(metavar='[RUN_DIR] "SQL"', help="The run, and one SELECT; in either order.")
    ],
    *,
    engine: Annotated[
        str,
        typer.Option(help="Whose SQL it is: polars or duckdb.", autocompletion=offered(lambda: ("polars", "duckdb"))),
    ] = Engine.POLARS.value,
    attempts: AttemptsOption = Attempts.LAST.value,
    strict: Strict = False,
    output: Output,
) -> None:
    """SQL over a run's samples, scalars and tables; nothing can be changed by it.

    Example: xai query runs/demo "SELECT label, avg(loss) FROM samples WHERE epoch = 3 GROUP BY label"
    """
    from xaicli.api import open_run
    from xaicli.queries.sql import is_query, sql_tables

    if len(words) > 2:
        raise UsageError("query takes a run and one statement", hint="put the SQL in quotes")
    *given, sql = sorted(words, key=is_query)
    if not is_query(sql) and (given or is_url(sql) or Path(sql).exists()):
        tables = "; ".join(sql_tables(open_run(given[0] if given else sql).reader()))
        raise UsageError(
            f"there is no SQL in: {' '.join(words)}",
            hint=f'xai query {sql} "SELECT count(*) FROM samples"; tables: {tables}',
        )
    run = open_run(given[0] if given else None)
    result = run.query(sql, engine=engine, attempts=attempts, strict=strict)
    write(result, output)
