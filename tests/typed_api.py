"""The public API as a type checker sees it: `make types` checks this file with mypy and basedpyright; a test runs it.

`assert_type` fails where a type is another than what the documents say, or unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from xaicli.api import RunReader, open_run
from xaicli.api.runs import compare, scalars
from xaicli.importers.importing import import_run
from xaicli.recorder.run import Run
from xaicli.results import Result
from xaicli.state import TrainingState
from xaicli.summary import Summary
from xaicli.tables.table import Table


def recorded(folder: Path) -> Path:
    """A run, with each way to record that has a type of its own."""
    with Run(folder, config={"lr": 0.1}, label_names=["cat", "dog"], resume="never", keep_probs=[1]) as run:
        assert_type(run, Run)
        assert_type(run.state, TrainingState)
        for epoch in run.epochs(2):
            assert_type(epoch, int)
            for batch in run.steps([([0, 1], [[1.0, 0.0], [0.0, 1.0]])], mode="eval"):
                assert_type(batch, tuple[list[int], list[list[float]]])
                ids, logits = batch
                run.log_samples(sample_id=ids, label=[0, 1], logits=logits, confidence=[0.5, 1.0])
            run.log({"lr": 0.1, "epoch": epoch})
            run.log({"acc": 0.5}, mode="eval", ds_id="day")
        assert_type(run.log_samples(sample_id=np.array([4]), loss=[1.0], mode="test"), None)
        assert_type(run.stats(), dict[str, Any])
        assert_type(run.begin_pass("eval"), int)
        assert_type(run.attempt, int)
    return folder


def asked(folder: Path, other: Path) -> None:
    """Each question, and what its result holds."""
    run = open_run(folder)
    assert_type(run, RunReader)
    assert_type(run.scan(mode="eval"), pl.LazyFrame)
    result = run.samples(metric=["loss"], max=1, min=0, mode="eval", ids=np.array([0]))
    assert_type(result, Result)
    assert_type(result.data, pl.DataFrame)
    assert_type(result.figure(), Figure)
    assert_type(result.html(no_images=True), str)
    assert_type(result.markdown(), str)
    assert_type(result.save(other, formats=["csv"]), list[Path])
    assert_type(result.answer.warnings, tuple[str, ...])
    assert_type(result.answer.counts.rows, int | None)
    for found in (
        run.labels(bounds=["std", "range"], label_map={"dog": 1}),
        run.dynamics(early_epochs=2),
        run.findings(top=2),
        run.confusion(),
        run.query("SELECT count(*) AS n FROM samples"),
        run.info(),
        compare(folder, run, where="label = 1"),
        scalars(folder, key="lr"),
        import_run(asked_file(other), other / "imported"),
    ):
        assert_type(found, Result)


def asked_file(folder: Path) -> Path:
    """A CSV log to import."""
    path = folder / "log.csv"
    path.write_text("step,loss\n1,0.5\n", encoding="utf-8")
    return path


def others() -> None:
    """Tables and summaries."""
    table = Table([1.0, 2.0, 3.0])
    assert_type(table, Table)
    assert_type(len(table), int)
    summary = Summary("run")
    assert_type(summary.name, str | int | None)


# What must not pass the type checker; an ignore that is not needed is an error as well.
def wrong(run: RunReader) -> None:
    run.samples(max="five")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run.samples(metrics="loss")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    run.labels(bound="std")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    open_run(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
