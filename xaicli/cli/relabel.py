"""`xai relabel`: samples to people who correct labels, and their corrections back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.completion import words
from xaicli.cli.options import (
    Amount,
    FactsOption,
    Ids,
    NoFacts,
    Output,
    RunDir,
    Selection,
    Strict,
    split_commas,
    split_ds_ids,
    split_pairs,
)
from xaicli.cli.output import named_as_file, write
from xaicli.errors import UsageError
from xaicli.files import spare
from xaicli.store.objects import is_url

app = typer.Typer(
    help="Suspects to labelling tools, and corrections back.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

_TOOLS = ("label-studio", "cvat", "fiftyone", "coco", "csv")
_TABLES = (".csv", ".parquet", ".json", ".jsonl")
_PathFact = Annotated[
    str | None,
    typer.Option(
        metavar="FACT", help="The fact that says where a picture is [default: path, or alike].", show_default=False
    ),
]


@app.command()
@command
def export(
    run_dir: RunDir = None,
    *,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="TOOL",
            help=f"{', '.join(_TOOLS)} [default: by the suffix of -o, else label-studio].",
            show_default=False,
            autocompletion=words(lambda: _TOOLS),
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            metavar="RULE|SQL", help="Which samples, as in xai select [default: suspects].", show_default=False
        ),
    ] = None,
    ids: Ids = None,
    path: _PathFact = None,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Put before every path: '/data/local-files/?d='.")] = "",
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Write kept thumbnails for samples without a path.")
    ] = False,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Collected objects in doubt instead: boxes or instances [default: of a run without samples].",
            show_default=False,
        ),
    ] = None,
    amount: Amount,
    select: Selection,
    output: Output,
) -> None:
    """Write samples for people who correct labels, with what each might be instead.

    Without --n or --share all that the rule finds. -o FILE is the file to import, -o DIR the folder it is written to,
    of FiftyOne the one to import. --format html,csv,json,md writes the page, too, into the same folder.

    Example: xai relabel export runs/demo --mode train --to csv -o suspects.csv
    """
    from xaicli.api import open_run
    from xaicli.api.relabel import default_target, tool_of
    from xaicli.api.relabel import export as made

    where = output.output
    if str(where) == "-":
        raise UsageError("-o - is no file to import", hint="-o FILE")
    file = where if where is not None and named_as_file(where) else None
    tool = tool_of(to, file)
    run = open_run(run_dir)
    target = (where if tool.value == "fiftyone" else file) or default_target(where or run.layout.reports, tool)
    folder = target.parent if file or where is None else where
    spare([target])
    found = made(
        run,
        tool=tool,
        rule=rule,
        ids=ids,
        path=path,
        prefix=prefix,
        pictures=pictures,
        table=table,
        choice=amount.arguments(),
        select=select.arguments(),
    )
    write(found.result, _page(output, folder), beside=lambda: found.write(target))


@app.command()
@command
def apply(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[RUN_DIR] FILE...", help="The run, and what the tools wrote; in any order."),
    ],
    *,
    mode: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas,
            help="Where the samples are looked for [default: all].",
            show_default=False,
        ),
    ] = None,
    ds_id: Annotated[
        list[str] | None,
        typer.Option(callback=split_ds_ids, help="The data sets [default: all].", show_default=False),
    ] = None,
    label_key: Annotated[str, typer.Option(help="The column that was looked at.")] = "label",
    label_map: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_pairs, help="NAME=VALUE,...: labels that the run does not know.", show_default=False
        ),
    ] = None,
    field: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The control or column with the label, where there are several.", show_default=False
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only what this person said.", show_default=False)
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The boxes that were exported of this table [default: of a run without samples].",
            show_default=False,
        ),
    ] = None,
    path: _PathFact = None,
    facts: FactsOption = None,
    no_facts: NoFacts = False,
    strict: Strict = False,
    output: Output,
) -> None:
    """Bring corrections back: a table of sample_id, label, by, when, and how many suspects were right.

    Reads what Label Studio (JSON, JSON_MIN, CSV), CVAT (XML, zip), FiftyOne and COCO write, and tables. -o FILE is the
    table, csv, parquet, json or jsonl; -o DIR the folder of corrections.csv [default: RUN_DIR/reports]. Of boxes a row
    is a box of a picture that was looked at, or a picture in which none is left.

    Example: xai relabel apply runs/demo looked-at.csv -o corrections.csv
    """
    from xaicli.api import open_run
    from xaicli.api.decisions import write_list
    from xaicli.api.relabel import corrections_of

    runs = [word for word in words if is_url(word) or (Path(word) / "xai.json").is_file()]
    files = [word for word in words if word not in runs]
    if len(runs) > 1:
        raise UsageError(f"apply takes one run, not {len(runs)}", hint="xai relabel apply RUN_DIR FILE...")
    where = output.output
    file = where if where is not None and named_as_file(where) else None
    if file is not None and file.suffix.lower() not in _TABLES:
        raise UsageError(f"{where} is no table", hint="its suffix says which: " + ", ".join(_TABLES))
    run = open_run(runs[0] if runs else None)
    target = file or (where or run.layout.reports) / "corrections.csv"
    spare([target])
    result = run.relabel_apply(
        files,
        mode=mode,
        ds_id=ds_id,
        label_key=label_key,
        label_map=label_map,
        facts=facts,
        no_facts=no_facts,
        path=path,
        field=field,
        by=by,
        table=table,
        strict=strict,
    )
    beside: Callable[[], list[Path]] = lambda: [write_list(corrections_of(result), target)]  # noqa: E731
    write(result, _page(output, target.parent), beside=beside)


def _page(output: Output, folder: Path) -> Output:
    """The options of the page, which is written only where it is asked for."""
    wanted = output.format is not None or output.open
    return dataclasses.replace(output, output=folder if wanted else None)
