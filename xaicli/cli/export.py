"""Rows as they are, out of a run and into one: `xai query`, `export` and `import`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.completion import words
from xaicli.cli.completion import words as offered
from xaicli.cli.options import (
    OUTPUT,
    AttemptsOption,
    Debug,
    FactsOption,
    Json,
    NoFacts,
    NoProgress,
    Output,
    Quiet,
    RunDir,
    Selection,
    Strict,
    local_path,
    split_commas,
)
from xaicli.cli.output import json_output, named_as_file, write
from xaicli.cli.status import end_status
from xaicli.errors import UsageError, XaiError, leaving
from xaicli.files import is_stream, spare
from xaicli.store.objects import is_url
from xaicli.vocabulary import Attempts, Engine

if TYPE_CHECKING:
    from xaicli.answer import Answer


@command
def query(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar='[RUN_DIR] "SQL"', help="The run, and one SELECT; in either order.", show_default=False),
    ] = None,
    *,
    engine: Annotated[
        str,
        typer.Option(help="Whose SQL it is: polars or duckdb.", autocompletion=offered(lambda: ("polars", "duckdb"))),
    ] = Engine.POLARS.value,
    facts: FactsOption = None,
    no_facts: NoFacts = False,
    attempts: AttemptsOption = Attempts.LAST.value,
    strict: Strict = False,
    output: Output,
) -> None:
    """SQL over a run's samples, scalars, facts and tables; nothing can be changed by it.

    Example: xai query runs/demo "SELECT label, avg(loss) FROM samples WHERE epoch = 3 GROUP BY label"
    """
    from xaicli.api import open_run
    from xaicli.queries.sql import is_query, sql_tables

    if not words:
        raise UsageError("query needs one statement", hint='xai query RUN_DIR "SELECT count(*) FROM samples"')
    if len(words) > 2:
        raise UsageError("query takes a run and one statement", hint="put the SQL in quotes")
    *given, sql = sorted(words, key=is_query)
    if not is_query(sql) and (given or is_url(sql) or Path(sql).exists()):
        place = next((word for word in words if is_url(word) or Path(word).exists()), words[0])
        other = [word for word in words if word is not place]
        tables = "; ".join(sql_tables(open_run(place).reader()))
        is_statement = bool(other) and len(other[0].split()) > 1
        said = f"only queries can be run: {other[0].strip()[:60]!r}" if is_statement else ""
        said = said or f"there is no SQL in: {' '.join(words)}"
        raise UsageError(said, hint=f'xai query {place} "SELECT count(*) FROM samples"; tables: {tables}')
    if not is_query(sql) and len(sql.split()) == 1:
        raise UsageError(f"{sql} is neither a run nor SQL", hint='xai query RUN_DIR "SELECT count(*) FROM samples"')
    run = open_run(given[0] if given else None)
    result = run.query(sql, engine=engine, facts=facts, no_facts=no_facts, attempts=attempts, strict=strict)
    write(result, output)


_FORMATS = ("csv", "parquet", "jsonl", "json")
_MEANT = {"pq": "parquet", "parq": "parquet", "ndjson": "jsonl"}


@command
def export(
    run_dir: RunDir = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            callback=local_path,
            metavar="DIR|FILE|-",
            help="A folder, a file whose suffix is the format, or - for standard output [default: RUN_DIR/reports].",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas,
            metavar="LIST",
            help=f"{', '.join(_FORMATS)} [default: csv].",
            rich_help_panel=OUTPUT,
            autocompletion=words(lambda: _FORMATS),
        ),
    ] = None,
    shape: Annotated[
        str, typer.Option(help="long: a row per sample and epoch; wide: a row per sample.", rich_help_panel=OUTPUT)
    ] = "long",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
    select: Selection,
) -> None:
    """The samples as CSV, Parquet, JSON or JSON lines; every metric unless --metric names some.

    Example: xai export runs/demo --format parquet --shape wide -o samples.parquet
    """
    from xaicli.api import open_run
    from xaicli.render.machine import to_json
    from xaicli.render.text import printable
    from xaicli.report.numbers import left
    from xaicli.report.page import conditions, counts_in_words

    del debug
    if str(output) == "-" and (json or len(format or ()) > 1):
        raise UsageError(
            "standard output takes one answer: -o - is the samples themselves, in one format",
            hint="leave out --json" if json else f"--format {(format or ['csv'])[0]}, or -o DIR for several files",
            refused=("json", "format"),
            by=("output",),
        )
    targets = [] if str(output) == "-" else _targets(output, format)
    run = open_run(run_dir)
    if str(output) == "-":
        answers = [run.export(sys.stdout.buffer, format=(format or ["csv"])[0], shape=shape, **select.arguments())]
    else:
        answers = []
        places = [run.layout.reports / path if output is None else path for path, _ in targets]
        spare(places)
        names = [str(path) for path in places]
        older = {name for name in names if Path(name).exists()}
        with leaving(lambda: left(names[: len(answers)], names[len(answers) :], older)):
            for path, (_, kind) in zip(places, targets, strict=True):
                answers.append(run.export(path, format=kind, shape=shape, **select.arguments()))
    end_status()
    warnings = dict.fromkeys(warning for answer in answers for warning in answer.warnings)
    for warning in warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    told = counts_in_words(answers[0].counts, of="export", conditions=conditions(answers[0].selection))
    if told and not json and not quiet:
        print(printable(told), file=sys.stderr)  # standard output may be the samples
    if str(output) == "-":
        return
    paths = [str(run.layout.reports / path if output is None else path) for path, _ in targets]
    if json:
        with json_output() as stream:
            print(to_json(_together(answers), paths), file=stream)
    else:
        print("\n".join(paths if quiet else [f"wrote {path}" for path in paths]))


def _targets(output: Path | None, formats: list[str] | None) -> list[tuple[Path, str]]:
    """The files to write, each with its format.

    Raises:
        UsageError: A format that is none, or a file named otherwise than its format.
    """
    kinds = list(dict.fromkeys(name.lower() for name in formats or ()))
    if output is not None and is_stream(output) and len(kinds) > 1:
        raise UsageError(
            f"{output} takes one answer, and --format names {', '.join(kinds)}",
            hint=f"--format {kinds[0]}, or -o DIR for several files",
            refused=("format",),
            by=("output",),
        )
    for kind in kinds:
        if kind not in _FORMATS:
            raise UsageError(f"no export format {kind!r}", hint="choose from: " + ", ".join(_FORMATS))
    if output is not None and is_stream(output):
        return [(output, (kinds or [output.suffix[1:].lower() if output.suffix[1:].lower() in _FORMATS else "csv"])[0])]
    suffix = "" if output is None or output.is_dir() else output.suffix.lstrip(".").lower()
    if output is not None and suffix not in _FORMATS and named_as_file(output):
        inner = output.with_suffix("")
        named = inner if inner.suffix[1:].lower() in _FORMATS else output.with_suffix(f".{_MEANT.get(suffix, 'csv')}")
        raise UsageError(
            f"-o {output} is named as {output.suffix}, which is not written",
            hint=f"-o {named}; formats: {', '.join(_FORMATS)}",
        )
    if output is None or suffix not in _FORMATS:
        return [((output or Path()) / f"export.{kind}", kind) for kind in kinds or ["csv"]]
    if kinds and suffix not in kinds:
        raise UsageError(
            f"{output} is named as {suffix}, and --format says {', '.join(kinds)}",
            hint="name one of both",
            refused=("format",),
            by=("output",),
        )
    return [(output if kind == suffix else output.with_suffix(f".{kind}"), kind) for kind in kinds or [suffix]]


def _together(answers: list[Answer]) -> Answer:
    """One answer about all files, a row each."""
    import polars as pl

    formats = [answer.selection["format"] for answer in answers]
    selection = {**answers[0].selection, "format": formats if len(formats) > 1 else formats[0]}
    return replace(answers[0], data=pl.concat([answer.data for answer in answers]), selection=selection)


_SOURCE = "Source"


@command
def import_(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A file or folder that another tracker wrote.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            callback=local_path,
            metavar="RUN_DIR",
            help="The run directory to make [default: runs/NAME]; of several runs each is made below it.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="KIND",
            help="tensorboard, wandb, trackio, csv, or what another package brings [default: told from SRC].",
            rich_help_panel=_SOURCE,
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Only this run of SRC [default: all].", rich_help_panel=_SOURCE, show_default=False
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Make a run directory of what TensorBoard, W&B (offline), trackio or a CSV file holds.

    Example: xai import lightning_logs/version_0 -o runs/imported
    """
    from xaicli.importers.importing import import_run

    result = import_run(source, output, kind=kind, run=run)
    made = [Path(one) for one in result.data["run"].drop_nulls()]
    write(result, Output(json=json, quiet=quiet, no_progress=no_progress, debug=debug), beside=lambda: made)
    if missing := result.data.filter(result.data["run"].is_null())["name"].to_list():
        n = len(made) + len(missing)
        raise XaiError(
            f"{len(missing)} of {n} runs could not be imported: {', '.join(missing)}",
            hint="the others are there; --run NAME imports one alone",
        )
