"""`xai compact`."""

from __future__ import annotations

from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Output, RunDir
from xaicli.cli.output import write
from xaicli.location import find_run


@command
def compact(
    run_dir: RunDir = None,
    *,
    grace: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long replaced files stay for readers that have listed them.")
    ] = 600.0,
    output: Output,
) -> None:
    """Make one file an epoch, sorted by sample: faster questions, fewer files. Safe beside a running training.

    Example: xai compact runs/demo
    """
    import polars as pl

    from xaicli.answer import Answer, Counts
    from xaicli.maintenance.compact import compact as compact_run
    from xaicli.report.plain import plain_report
    from xaicli.results import Result

    layout = find_run(run_dir)
    done = compact_run(layout, grace=grace)
    schema = {
        "path": pl.String(),
        "parts": pl.Int64(),
        "rows": pl.Int64(),
        "bytes_before": pl.Int64(),
        "bytes": pl.Int64(),
    }
    warnings = [f"left as it is: {reason}" for reason in done.damaged]
    answer = Answer(
        "compact",
        str(layout.root),
        {"grace": grace, "removed": list(done.removed), "waiting": list(done.waiting)},
        pl.DataFrame([vars(file) for file in done.files], schema=schema, orient="row"),
        Counts(rows=sum(file.rows for file in done.files), damaged=done.damaged),
        tuple(warnings),
    )
    sentence = f"{len(done.files):,} files made, {len(done.removed):,} replaced ones removed"
    if done.waiting:
        sentence += f"; {len(done.waiting):,} more stay for readers, and the next xai compact removes them"
    result = Result(answer, lambda: plain_report(answer, title="Compaction", sentence=f"{sentence}."))
    write(result, output, folder=layout.reports)
