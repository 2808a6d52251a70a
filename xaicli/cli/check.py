"""`xai check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import (
    DATA,
    OUTPUT,
    FactsOption,
    NoFacts,
    Output,
    RunDir,
    Strict,
    local_path,
    split_commas,
    split_ds_ids,
)
from xaicli.cli.output import write
from xaicli.errors import UsageError, XaiError
from xaicli.files import spare

if TYPE_CHECKING:
    from xaicli.results import Result

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
        list[str] | None,
        typer.Option(
            callback=split_commas,
            help="The modes of rules that name none [default: eval].",
            show_default=False,
            rich_help_panel=DATA,
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
    facts: FactsOption = None,
    no_facts: NoFacts = False,
    strict_drop: Annotated[
        bool,
        typer.Option(
            "--strict-drop", help="Fail a drop even where chance may have brought it.", rich_help_panel=_RULES
        ),
    ] = False,
    junit: Annotated[
        Path | None,
        typer.Option(
            callback=local_path,
            metavar="FILE",
            help="Also write the verdicts as JUnit XML.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    strict: Strict = False,
    output: Output,
) -> None:
    """May this run replace that one: rules on metrics overall, by label and by slice.

    Exit 1 when a rule fails or a file cannot be written, else 2 when a rule cannot be asked.

    Example: xai check runs/demo --rule 'correct mean by label >= 0.6' --rule 'loss p95 < 5'
    """
    from xaicli.api import open_run

    if str(junit) == "-":
        raise UsageError("--junit - is no file: standard output takes the verdicts", hint="--junit FILE")
    result = open_run(run_dir).check(
        rules=rules,
        rule=rule or (),
        baseline=baseline,
        mode=",".join(mode) if mode else None,
        ds_id=ds_id,
        facts=facts,
        no_facts=no_facts,
        strict_drop=strict_drop,
        strict=strict,
    )
    code = int(result.answer.extra["exit"])
    try:
        write(result, output, beside=None if junit is None else lambda: [_junit(result, junit)])
    except UsageError:
        raise
    except XaiError as error:
        failed = int(result.answer.extra["failed"])
        said = f"{failed:,} {'verdict' if failed == 1 else 'verdicts'} failed" if failed else "no rule failed"
        raise XaiError(f"{error.message}; {said}", hint=error.hint) from error
    if code:
        raise typer.Exit(code)


def _junit(result: Result, file: Path) -> Path:
    from xaicli.checks.junit import write_junit

    spare([file], "--junit")
    return write_junit(result.data, file, name=result.answer.run, warnings=result.answer.warnings)
