"""`xai doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Output, RunDir
from xaicli.cli.output import write
from xaicli.location import find_run


@command
def doctor(
    run_dir: RunDir = None,
    *,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Move damaged files to RUN_DIR/quarantine, where nothing reads them.")
    ] = False,
    output: Output,
) -> None:
    """Verify every checksum of a run and name what is damaged. Exit status 1 if anything is.

    Example: xai doctor runs/demo
    """
    import polars as pl

    from xaicli.answer import Answer, Counts
    from xaicli.maintenance.doctor import examine
    from xaicli.report.plain import plain_report
    from xaicli.results import Result

    layout = find_run(run_dir)
    found = examine(layout, quarantine=quarantine)
    schema = {
        "path": pl.String(),
        "complaint": pl.String(),
        "reason": pl.String(),
        "rows": pl.Int64(),
        "moved_to": pl.String(),
    }
    answer = Answer(
        "doctor",
        str(layout.root),
        {
            "files": found.files,
            "bytes": found.bytes,
            "waiting": found.waiting,
            "unrecorded": found.unrecorded,
            "quarantine": quarantine,
        },
        pl.DataFrame([vars(finding) for finding in found.findings], schema=schema, orient="row"),
        Counts(rows=found.rows, damaged=tuple(finding.path for finding in found.findings)),
    )
    sound = f"{found.files:,} files with {found.rows:,} sample rows, {found.bytes:,} bytes, were verified"
    sound += f", and {found.waiting:,} rows wait in segments" if found.waiting else ""
    sentence = f"{sound}: {len(found.findings):,} faults." if found.findings else f"{sound}: all sound."
    result = Result(answer, lambda: plain_report(answer, title="Doctor", sentence=sentence))
    write(result, output, folder=layout.reports)
    if found.findings:
        raise typer.Exit(1)
