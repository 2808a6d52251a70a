"""`xai export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.completion import words
from xaicli.cli.options import Debug, Json, Quiet, RunDir, Selection, split_commas

_FORMATS = ("csv", "parquet", "jsonl", "json")


@command
def export(
    run_dir: RunDir = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR|FILE|-",
            help="A folder, a file whose suffix is the format, or - for standard output [default: RUN_DIR/reports].",
            show_default=False,
        ),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas,
            metavar="LIST",
            help=f"{', '.join(_FORMATS)} [default: csv].",
            autocompletion=words(lambda: _FORMATS),
        ),
    ] = None,
    shape: Annotated[str, typer.Option(help="long: a row per sample and epoch; wide: a row per sample.")] = "long",
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

    del debug
    run = open_run(run_dir)
    if str(output) == "-":
        run.export(sys.stdout.buffer, format=(format or ["csv"])[0], shape=shape, **select.arguments())
        return
    answers = [
        run.export(path, format=kind, shape=shape, **select.arguments())
        for path, kind in _targets(output or run.layout.reports, format)
    ]
    paths = [path for answer in answers for path in answer.data["path"]]
    for warning in dict.fromkeys(warning for answer in answers for warning in answer.warnings):
        print(f"warning: {warning}", file=sys.stderr)
    if json:
        print(to_json(answers[0], paths))
    else:
        print("\n".join(paths if quiet else [_line(path) for path in paths]))


def _targets(output: Path, formats: list[str] | None) -> list[tuple[Path, str]]:
    """The files to write, each with its format."""
    if not output.is_dir() and output.suffix.lstrip(".") in _FORMATS:
        return [(output, (formats or [output.suffix.lstrip(".")])[0])]
    return [(output / f"export.{name}", name) for name in dict.fromkeys(formats or ["csv"])]


def _line(path: str) -> str:
    return f"wrote {path}"
