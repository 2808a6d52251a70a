"""Facts and metrics may be called whatever questions call their own columns.

The names are collected from the source, so that a column that is new tomorrow is tried as well; what is right is told
by the same rows under a name that nothing else has.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xaicli
from xaicli.diagnosis.steps import mean_column
from xaicli.maintenance.compact import compact
from xaicli.results import Result
from xaicli.vocabulary import RESERVED_COLUMNS

PLAIN = "zzq"
"""What is called like nothing else."""
ASKED = ("queries/scores", "queries/samples", "queries/aligned", "queries/compare", "diagnosis/steps")
ASKED += ("diagnosis/training",)
"""The modules in which facts and metrics stand beside columns of ours."""


def names() -> list[str]:
    """What these modules call columns: the texts of `alias` and the like, keywords and constants."""
    found: set[str] = set()
    for module in ASKED:
        tree = ast.parse((Path(xaicli.__file__).parent / f"{module}.py").read_text())
        constants = [node.value for node in tree.body if isinstance(node, ast.Assign)]
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            called = getattr(call.func, "attr", "")
            if called in ("alias", "with_row_index", "agg", "select", "with_columns"):
                constants += [node for one in call.args for node in ast.walk(one) if isinstance(node, ast.expr)]
                found |= {word.arg for word in call.keywords if word.arg}
        texts = {node.value for node in constants if isinstance(node, ast.Constant)}
        found |= {text for text in texts if isinstance(text, str)}
    known = {*RESERVED_COLUMNS, "loss"}
    return sorted(name for name in {*found, "_place"} - known if re.fullmatch(r"[a-z_][a-z0-9_]*", name))


def record(folder: Path, *, facts: list[str], metrics: list[str]) -> None:
    """Two runs whose facts all have one value a sample, and so have their metrics; the first one compacted."""
    for number, name in enumerate("AB"):
        draw = np.random.default_rng(number)
        with xaicli.Run(folder / name) as run:
            cameras = ["front" if i % 5 < 2 else "rear" for i in range(12)]
            run.log_facts(range(12), **dict.fromkeys(facts, cameras))
            for epoch in (1, 2):
                for step in (1, 2):
                    ids = np.arange(step * 6 - 6, step * 6)
                    values = dict.fromkeys(["loss", *metrics], draw.random(6) + 1 + ids % 3)
                    at = {"mode": "train", "epoch": epoch, "step": 10 * epoch + step}
                    run.log_samples(sample_id=ids, label=ids % 3, prediction=ids % 2, **at, **values)
    compact(xaicli.open_run(folder / "A").layout, grace=0)


def told(ask: Callable[[], Result]) -> Any:
    """The rows and batches of an answer, without what is of other facts."""
    found = json.loads(ask().to_json())
    return _alone([found["rows"], found.get("batches")])


def renamed(answers: list[Any], name: str) -> list[Any]:
    """Answers with a name in place of the plain one; the mean of a batch is called as the metric where it can."""
    text = json.dumps(answers).replace(f'"{PLAIN}": ', f'"{mean_column(name)}": ')
    found: list[Any] = json.loads(text.replace(PLAIN, name))
    return found


def _alone(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _alone(one) for key, one in value.items() if key not in ("facts", "mix")}
    return [_alone(one) for one in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("names")
    record(root / "facts", facts=names(), metrics=[])
    record(root / "fact", facts=[PLAIN], metrics=[])
    record(root / "metric", facts=[], metrics=[PLAIN])
    record(root / "metrics", facts=[], metrics=names())
    return root


def of_fact(folder: Path, fact: str) -> list[Any]:
    one, other = xaicli.open_run(folder / "A"), xaicli.open_run(folder / "B")
    key = {"metric": "loss", "label_key": fact}
    asks = [lambda: one.steps(step=21, **key), lambda: xaicli.compare(one, other, **key)]
    return [told(ask) for ask in asks]


def of_metric(folder: Path, metric: str) -> list[Any]:
    one, other = xaicli.open_run(folder / "A"), xaicli.open_run(folder / "B")
    asks = [lambda: one.samples(metric=metric), lambda: xaicli.compare(one, other, metric="loss", label_key=metric)]
    return [told(lambda: one.steps(step=21, metric=metric)), *map(told, asks)]


def test_no_name_of_a_fact_changes_what_is_asked_by_it(folders):
    expected = of_fact(folders / "fact", PLAIN)
    called = xaicli.open_run(folders / "facts" / "A").reader().facts.names
    assert len(called) > 30
    assert [name for name in called if of_fact(folders / "facts", name) != renamed(expected, name)] == []


def test_no_name_of_a_metric_changes_an_answer(folders):
    expected = of_metric(folders / "metric", PLAIN)
    called = [name for name in xaicli.open_run(folders / "metrics" / "A").reader().metrics if name != "loss"]
    assert len(called) > 30
    assert [name for name in called if of_metric(folders / "metrics", name) != renamed(expected, name)] == []


def test_a_metric_of_a_table_may_be_called_pass(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        run.add_metrics_data({"sample_id": [1, 2], "pass": [5.0, 7.0], "other": [3.0, 4.0]}, name="metrics")
    found = xaicli.open_run(tmp_path / "run").samples(table="metrics", metric=["pass", "other"], min=0).data
    points = found.explode("history").unnest("history").select("metric", "sample_id", "score", "value", "pass").rows()
    assert points == [
        ("pass", 2, 7.0, 7.0, 0),
        ("pass", 1, 5.0, 5.0, 0),
        ("other", 2, 4.0, 4.0, 0),
        ("other", 1, 3.0, 3.0, 0),
    ]
