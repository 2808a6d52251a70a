"""Whatever is asked of whatever run: an answer, or an error in words with the way out; never a fault of ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

import xaicli

Xai = Callable[..., tuple[int, str, str]]
EVAL = {"mode": "eval", "step": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs as they come: text ids and labels, no labels, nothing finite, numbers to predict, no rows."""
    root = tmp_path_factory.mktemp("odd")
    with xaicli.Run(root / "texts") as run:
        ids, labels = [f"im/{i},x" for i in range(6)], ["a,b", "c", "=x"] * 2
        for epoch in (1, 2):
            losses = [float(i) for i in range(6)]
            run.log_samples(sample_id=ids, label=labels, loss=losses, **{"a,c": losses}, epoch=epoch, **EVAL)
        run.add_metrics_data({"example_id": ids, "iou": [0.5] * 6, "kind": labels}, name="t t")
    with xaicli.Run(root / "unlabelled") as run:
        run.log_samples(sample_id=[1, 2, 3], loss=[1.0, 2.0, math.nan], epoch=1, **EVAL)
    with xaicli.Run(root / "not finite") as run:
        run.log_samples(sample_id=[1, 2], label=[0, 1], loss=[math.nan, math.inf], mode="train", epoch=1, step=1)
    with xaicli.Run(root / "regression") as run:
        run.log_samples(sample_id=[1, 2], label=[0.5, 1.5], prediction=[0.5, 1.0], loss=[0.0, 0.25], epoch=1, **EVAL)
    with xaicli.Run(root / "empty"):
        pass
    return {path.name: path for path in root.iterdir()}


RUNS = ("texts", "unlabelled", "not finite", "regression", "empty")
OPTIONS = (
    (),
    ("--epoch", "x"),
    ("--epoch", "9-1"),
    ("--epoch", "99999999999999999999"),
    ("--label-key", "loss"),
    ("--label-key", "sample_id"),
    ("--label-key", "epoch"),
    ("--label-map", "a=1,b=2"),
    ("--label-map", 'x="a,b"'),
    ("--mode", "!eval"),
    ("--ds-id", '""'),
    ("--metric", '"a,c"'),
    ("--metric", "correct"),
    ("--where", "label = 1"),
    ("--where", "loss IS NULL"),
    ("--where", "epoch > 99"),
    ("--duplicates", "some"),
    ("--attempts", "some"),
)
OF_SAMPLES = (
    ("--max", "99999999999"),
    ("--max", "-1"),
    ("--stat", "aum"),
    ("--ids", '"im/1,x"'),
    ("--ids", "99999999999999999999"),
    ("--ids", "@nosuch"),
    ("--ids", ""),
    ("--table", "t t"),
    ("--table", "t t", "--label-key", "kind", "--stat", "slope"),
    ("--table", "../t"),
    ("--axis", "day"),
    ("--spark-remote", "sc://nowhere"),
)
CASES = [(c, o) for c in ("samples", "labels", "dynamics", "findings", "track-report", "export") for o in OPTIONS]
CASES += [("samples", option) for option in OF_SAMPLES]


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(
    ("command", "option"), CASES, ids=lambda part: " ".join(part) if isinstance(part, tuple) else part
)
def test_an_odd_question(
    xai: Xai, runs: dict[str, Path], tmp_path: Path, name: str, command: str, option: tuple[str, ...]
) -> None:
    files = ("-o", tmp_path / "out") if command == "export" else ("--format", "csv", "-o", tmp_path)
    status, out, err = xai(command, runs[name], *option, *files)
    assert "fault of xai" not in err
    assert "could not be computed" not in err + out
    if status:
        assert status in (1, 2)
        assert err.splitlines()[-2].startswith("error: ") or "\nerror: " in f"\n{err}"
        assert "hint: " in err
    else:
        assert out.strip()
