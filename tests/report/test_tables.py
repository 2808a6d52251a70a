"""What a terminal says of the rows and columns it leaves out: where they are named, all of them are."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import xaicli
from xaicli.api.run import RunReader
from xaicli.render.machine import to_csv
from xaicli.render.terminal import as_text
from xaicli.report.model import Cell, Link, Report, Table
from xaicli.results import Result

K, N = 40, 1200
NAMES = [f"kind {label:02d}" for label in range(K)]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> RunReader:
    """Forty labels, a fifth of them wrong, of samples from 45 cameras; steps 25 and 61 jump."""
    rng = np.random.default_rng(0)
    true = np.arange(N) % K
    given = np.where(np.arange(N) % 5 == 0, (true + 1 + np.arange(N) % 13) % K, true)
    folder = tmp_path_factory.mktemp("many") / "run"
    with xaicli.Run(folder, label_names=NAMES, keep_probs=True) as run:
        run.log_facts(np.arange(N), camera=[f"camera {i % 45:02d}" for i in range(N)])
        for epoch in run.epochs(4):
            logits = rng.normal(size=(N, K)).astype(np.float32)
            logits[np.arange(N), true] += 1.0 + epoch
            for batch in run.steps(rng.permutation(N).reshape(24, 50), mode="train"):
                jump = 30.0 if run.state.global_step in (25, 61) else 0.0
                loss = rng.uniform(1, 1.1, 50) + jump * rng.uniform(0.5, 1, 50)
                run.log_samples(sample_id=batch, label=given[batch], logits=logits[batch], loss=loss)
            for metric in range(70):
                run.log({f"metric {metric:02d}": epoch + metric, "epoch": epoch})
    return xaicli.open_run(folder)


_QUESTIONS: dict[str, Callable[[RunReader], Result]] = {
    "info": lambda run: run.info(),
    "samples": lambda run: run.samples(max=60, min=0),
    "labels": lambda run: run.labels(),
    "scalars": lambda run: run.scalars(),
    "confusion": lambda run: run.confusion(by="camera"),
    "dynamics": lambda run: run.dynamics(),
    "findings": lambda run: run.findings(top=40),
    "track-report": lambda run: run.report(),
    "select": lambda run: run.select(rule="suspects", n=40),
    "select by": lambda run: run.select(rule="balanced", by="camera", n=90),
    "slices": lambda run: run.slices(by="camera,label", min_n=5),
    "steps": lambda run: run.steps(),
    "step": lambda run: run.steps(step=25),
    "query": lambda run: run.query("SELECT sample_id, epoch, loss FROM samples"),
}
_CUT = {
    ("confusion", "pairs-train"),
    ("confusion", "labels-train"),
    ("confusion", "sure-by-label-train"),
    ("confusion", "probabilities-train"),
    ("confusion", "by-train"),
    ("dynamics", "dynamics-train"),
    ("findings", "table-suspected-labels"),
    ("findings", "suspected-pairs-train"),
    ("findings", "label-noise-train"),
    ("labels", "table-loss-train"),
    ("query", "rows"),
    ("samples", "table-train-loss"),
    ("scalars", "table-scalars"),
    ("select", "chosen-train"),
    ("select", "mix-label-train"),
    ("select", "left-out-train"),
    ("select by", "mix-camera-train"),
    ("step", "samples-0-step-25"),
    ("step", "mix-0"),
    ("track-report", "table-suspected-labels-train"),
    ("track-report", "suspected-pairs-train"),
    ("track-report", "label-noise-train"),
}
"""Those that this run makes too long for a terminal, at the least."""


_FOR_PEOPLE = ("group", "facts", "the worst", "also in the spikes at")
"""Columns of several values in words."""


def tables(report: Report) -> Iterator[Table]:
    """The tables that a terminal shows."""
    for section in report.sections:
        for block in () if section.page_only else section.blocks:
            if isinstance(block, Table) and not block.folded:
                yield block


def texts(table: Table) -> Iterator[str]:
    """What stands in the columns of names, whole; groups, shares, intervals and lists are made for people."""
    for at, column in enumerate(table.columns):
        if column.cell is Cell.TEXT and column.in_files and column.title not in _FOR_PEOPLE:
            for row in table.rows:
                said = (row[at].whole or row[at].text) if isinstance(row[at], Link) else row[at]
                if isinstance(said, str) and "%" not in said and " to " not in said and said not in ("–", "none"):
                    yield said


def values(found: Any) -> Iterator[str]:
    """Every text and number in JSON, as a text."""
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list):
        for one in found:
            yield from values(one)
    else:
        yield json.dumps(found) if isinstance(found, bool) else str(found)


@pytest.fixture(scope="module")
def answers(many: RunReader) -> dict[str, Result]:
    return {name: ask(many) for name, ask in _QUESTIONS.items()}


def test_what_is_said_to_have_all_rows_has_them(answers: dict[str, Result]) -> None:
    cut = set()
    for name, result in answers.items():
        report, shown = result.report, as_text(result.report, width=240)
        rows = [row for make in report.tables.values() for row in csv.reader(io.StringIO(to_csv(make())))]
        held = {
            "--json": set(values(json.loads(result.to_json()))),
            "--format csv": {cell for row in rows for cell in row},
        }
        for table in tables(report):
            if len(table.rows) <= table.terminal_rows:
                continue
            cut.add((name, table.name))
            places = {("--json",): "--json", ("--format csv", "--json"): "--format csv or --json"}[table.rest_in]
            assert f"and {len(table.rows) - table.terminal_rows:,} more rows: {places} has all" in shown
            for place in table.rest_in:
                assert set(texts(table)) <= held[place], (name, table.name, place)
    assert cut >= _CUT


def test_what_is_said_to_have_all_columns_has_them(answers: dict[str, Result]) -> None:
    shown = " ".join(as_text(answers["samples"].report, width=40).split())
    assert "more columns (prediction, camera and history): a wider terminal or --format html has all" in shown
    assert ">prediction<" in answers["samples"].html()
    shown = " ".join(as_text(answers["select"].report, width=40).split())
    assert re.search(r"\([^)]*camera[^)]*\): a wider terminal, --format csv or --json has all", shown)


def test_a_notebook_says_what_has_the_rest(answers: dict[str, Result]) -> None:
    report, shown = answers["select"].report, answers["select"]._repr_mimebundle_()["text/html"]
    n_cut = sum(len(table.rows) > table.terminal_rows for table in tables(report))
    assert n_cut >= 3
    assert shown.count("more rows: .to_json() has all") == n_cut
