"""`xai check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import DATA, OUTPUT, Output, RunDir, Strict, split_ds_ids
from xaicli.cli.output import write

_RULES = "Rules"


@command
def check(
    run_dir: RunDir = None,
    *,
    rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Rules: a TOML file of [[rule]] tables.", show_default=False, rich_help_panel=_RULES
        ),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="A rule (repeat): 'correct mean by label >= 0.8'.",
            show_default=False,
            rich_help_panel=_RULES,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="The run that drops are measured against.", show_default=False, rich_help_panel=_RULES
        ),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="The mode of rules that name none [default: eval].", show_default=False, rich_help_panel=DATA
        ),
    ] = None,
    ds_id: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_ds_ids,
            help="The data sets of rules that name none [default: all].",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    facts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Facts of a CSV, Parquet or JSON-lines file with sample_id.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    strict_drop: Annotated[
        bool,
        typer.Option(
            "--strict-drop", help="Fail a drop even where chance may have brought it.", rich_help_panel=_RULES
        ),
    ] = False,
    junit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write the verdicts as JUnit XML.", show_default=False, rich_help_panel=OUTPUT
        ),
    ] = None,
    strict: Strict = False,
    output: Output,
) -> None:
    """May this run replace that one: rules on metrics overall, by label and by slice.

    Exit 1 when a rule fails, 2 when one cannot be asked.

    Example: xai check runs/demo --rule 'correct mean by label >= 0.6' --rule 'loss p95 < 5'
    """
    from xaicli.api import open_run

    result = open_run(run_dir).check(
        rules=rules,
        rule=rule or (),
        baseline=baseline,
        mode=mode,
        ds_id=ds_id,
        facts=facts,
        strict_drop=strict_drop,
        strict=strict,
    )
    if junit is not None:
        from xaicli.checks.junit import write_junit

        write_junit(result.data, junit, name=result.answer.run, warnings=result.answer.warnings)
    write(result, output)
    if code := int(result.answer.extra["exit"]):
        raise typer.Exit(code)
