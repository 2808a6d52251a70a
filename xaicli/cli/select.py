"""`xai select`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xaicli.cli.command import command, typed
from xaicli.cli.completion import words
from xaicli.cli.options import Amount, Output, RunDir, Selection, not_again, split_commas
from xaicli.cli.output import named_as_file, write
from xaicli.errors import UsageError
from xaicli.files import Written, spare
from xaicli.vocabulary import Format

if TYPE_CHECKING:
    from xaicli.results import Result

_RULES = (*("hardest", "easy", "ambiguous", "forgotten", "suspects", "label_issues", "balanced", "diverse", "random"),)
_LISTS = ("txt", "csv", "parquet", "json", "jsonl")
_OF_LISTS = ("txt", "parquet", "jsonl")
"""What only a list is written as; the other formats are those of every answer."""


@command
def select(
    run_dir: RunDir = None,
    *,
    rule: Annotated[
        str | None,
        typer.Option(
            metavar="RULE|SQL",
            help=f"{', '.join(_RULES)}, or a condition on samples: 'loss_mean > 2' [default: --where].",
            show_default=False,
            autocompletion=words(lambda: _RULES),
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            callback=not_again,
            metavar="NAME",
            help="The column or fact to balance [default: label].",
            show_default=False,
        ),
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="List every sample with a weight: X for the chosen, 1 for the others; of balanced X is the mean.",
            show_default=False,
        ),
    ] = None,
    stat: Annotated[
        str,
        typer.Option(
            help="The score of hardest, easy and of a condition: last, mean, max, another statistic of dynamics."
        ),
    ] = "last",
    complete_only: Annotated[
        bool, typer.Option("--complete-only", help="Leave out samples without a finite value in the last epoch.")
    ] = False,
    table: Annotated[str, typer.Option(help="The table with the embeddings of --rule diverse.")] = "metrics",
    column: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas, help="Its columns of vectors [default: those not reduced].", show_default=False
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Its split [default: that called as the mode, else the only one with these samples].",
            show_default=False,
        ),
    ] = None,
    amount: Amount,
    select: Selection,
    output: Output,
) -> None:
    """Which samples the next training takes: the hardest, suspects, as many of each label, at random, and others.

    -o FILE.txt|csv|parquet|json|jsonl writes the list, and as many drawn at random beside it as FILE-random; -o - the
    ids alone to standard output. --format takes txt, parquet and jsonl, too.

    Example: xai select runs/demo --mode train --rule hardest --n 100 -o hard.csv
    """
    from xaicli.api import open_run

    where = output.output
    file, output, lists = _targets(output, "txt" if weight is None else "parquet")
    result = open_run(run_dir).select(
        rule=rule,
        by=by[0] if by else None,
        weight=weight,
        stat=stat,
        complete_only=complete_only,
        table=table,
        column=column,
        split=split,
        **amount.arguments(),
        **select.arguments(),
    )
    if file is not None and str(file) == "-":
        _to_stdout(result)
        return
    folder = where or result.folder or Path("reports")
    targets = [file] if file is not None else [folder / f"select.{kind}" for kind in _able(result, lists)]
    write(result, output, beside=_writer(result, targets))


def _targets(output: Output, usual: str) -> tuple[Path | None, Output, list[str]]:
    """The file of the list, the options of the page, and the formats of lists in a folder: `usual` unless it is named.

    Raises:
        UsageError: Standard output is to take two things.
    """
    formats = output.format
    lists = [name for name in formats or () if name in _OF_LISTS]
    rest = None if formats is None else [name for name in formats if name not in _OF_LISTS]
    if str(output.output) == "-":
        if output.json or formats:
            raise UsageError(
                "standard output takes one answer: -o - is the ids",
                hint="leave out --json and --format, or name a file",
                refused=("json", "format"),
                by=("output",),
            )
        return Path("-"), dataclasses.replace(output, output=None), []
    path = output.output
    if path is not None and not path.is_dir() and path.suffix.lower().lstrip(".") in _LISTS:
        if lists:
            raise UsageError(
                f"{path} is one list, and --format names {', '.join(lists)}",
                hint="-o DIR writes several formats",
                refused=("format",),
                by=("output",),
            )
        return path, dataclasses.replace(output, output=path.parent if rest else None, format=rest or None), []
    if path is not None and named_as_file(path) and path.suffix.lower() != ".html":
        raise UsageError(f"{path} is no list of samples", hint="its suffix says which: " + ", ".join(_LISTS))
    if formats is None and path is not None:
        return None, dataclasses.replace(output, format=[Format.HTML, Format.CSV, Format.JSON]), [usual]
    # Lists alone are no page.
    return None, dataclasses.replace(output, output=path if rest or rest is None else None, format=rest), lists


def _able(result: Result, lists: list[str]) -> list[str]:
    """The formats of lists: parquet in place of ids alone that nobody typed, where those cannot say what is chosen."""
    from xaicli.api.decisions import ids_text

    if "txt" not in lists or "format" in typed():
        return lists
    try:
        ids_text(result.data), ids_text(result.answer.extra["random"])
    except UsageError:
        return list(dict.fromkeys("parquet" if kind == "txt" else kind for kind in lists))
    return lists


def _writer(result: Result, targets: list[Path]) -> Callable[[], list[Path]]:
    def written() -> list[Path]:
        from xaicli.api.decisions import write_list

        drawn = result.answer.extra["random"]
        files = Written()
        both = {path: path.with_name(f"{path.stem}-random{path.suffix}") for path in targets}
        spare([*both, *both.values()])
        for path, control in both.items():
            if path.suffix.lower() == ".csv":
                result.tell_renamed(result.data, path.name)
            files.add(path, partial(write_list, result.data))
            files.add(control, partial(write_list, drawn))
        files.check("name another file with -o")
        return files.paths

    return written


def _to_stdout(result: Result) -> None:
    """The ids of the chosen to standard output, warnings to standard error."""
    from xaicli.api.decisions import ids_text
    from xaicli.cli.status import end_status
    from xaicli.render.text import printable

    text = ids_text(result.data)
    end_status()
    for warning in result.answer.warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr)
    sys.stdout.write(text)
