"""Rankings of suspects against the true labels of tasks whose labels are no single class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

import xaicli
from xaicli.errors import XaiError

N = 40
LABELS = [float(i) / 10 for i in range(N)]
SETS = [sorted({i % 3, (i // 3) % 3}) for i in range(N)]
WRONG = {3, 17, 28}


def written(folder: Path, kind: str, truth: list[Any]) -> Path:
    file = folder / f"truth.{kind}"
    if kind == "csv":
        texts = [value if isinstance(value, float) else json.dumps(value) for value in truth]
        pl.DataFrame({"sample_id": range(N), "label": texts}).write_csv(file)
    elif kind == "parquet":
        pl.DataFrame({"sample_id": range(N), "label": truth}).write_parquet(file)
    else:
        rows = [{"sample_id": i, "label": value} for i, value in enumerate(truth)]
        file.write_text(json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows)))
    return file


def scored(run_dir: Path, file: Path) -> dict[str, Any]:
    return xaicli.open_run(run_dir).dynamics(mode="train", truth=file).answer.extra["truth"]


@pytest.mark.parametrize("kind", ["csv", "parquet", "json", "jsonl"])
def test_true_numbers_of_a_regression(tmp_path: Path, kind: str) -> None:
    loss = np.random.default_rng(0).random(N)
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        run.log_samples(sample_id=range(N), label=LABELS, prediction=LABELS, loss=loss, mode="train", epoch=1)
    truth = [value + 1 if i in WRONG else value for i, value in enumerate(LABELS)]
    right = roc_auc_score([i in WRONG for i in range(N)], loss)
    assert scored(tmp_path / "run", written(tmp_path, kind, truth))["loss_last"]["auroc"] == pytest.approx(right)
    (tmp_path / "odd.csv").write_text("sample_id,label\n0,0.5\n1,many\n")
    with pytest.raises(XaiError, match="a true label is no number: many"):
        scored(tmp_path / "run", tmp_path / "odd.csv")


@pytest.mark.parametrize("spelt", ["numbers", "names", "rows"])
@pytest.mark.parametrize("kind", ["csv", "parquet", "json", "jsonl"])
def test_true_sets_of_classes(tmp_path: Path, kind: str, spelt: str) -> None:
    loss = np.random.default_rng(1).random(N)
    names = ["cat", "dog", "cow"]
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=names) as run:
        labels = [[int(k in each) for k in range(3)] for each in SETS]
        run.log_samples(sample_id=range(N), label=labels, prediction=labels, loss=loss, mode="train", epoch=1)
    truth = [sorted({*each, 0, 1, 2} - set(each[:1])) if i in WRONG else each[::-1] for i, each in enumerate(SETS)]
    spellings = {
        "numbers": truth,
        "names": [[names[k] for k in each] for each in truth],
        "rows": [[int(k in each) for k in range(3)] for each in truth],
    }
    right = roc_auc_score([i in WRONG for i in range(N)], loss)
    file = written(tmp_path, kind, spellings[spelt])
    assert scored(tmp_path / "run", file)["loss_last"]["auroc"] == pytest.approx(right)


def test_one_class_is_a_set_of_it_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=["cat", "dog"]) as run:
        run.log_samples(
            sample_id=[0, 1, 2], label=[[1, 0], [0, 1], [1, 1]], loss=[3.0, 1.0, 2.0], mode="train", epoch=1
        )
    (tmp_path / "one.csv").write_text("sample_id,label\n0,dog\n1,1\n2,\n")
    assert scored(tmp_path / "run", tmp_path / "one.csv")["loss_last"]["auroc"] == 1.0
    (tmp_path / "two.csv").write_text('sample_id,label\n0,"[0, 1]"\n1,"[1]"\n')
    told = xaicli.open_run(tmp_path / "run").dynamics(mode="train", truth=tmp_path / "two.csv").answer.warnings
    assert any(text.startswith("1 row of the truth with [0, 1]") for text in told)
    (tmp_path / "odd.csv").write_text('sample_id,label\n0,"[""cta""]"\n')
    with pytest.raises(XaiError, match="cta"):
        scored(tmp_path / "run", tmp_path / "odd.csv")


def test_single_precision_is_compared_as_it_is_kept(tmp_path: Path) -> None:
    """torch.float32 keeps 3.7 as 3.7000000476837158: a truth that says 3.7 is the same."""
    loss = np.random.default_rng(2).random(N)
    recorded = [value + 1 if i in WRONG else value for i, value in enumerate(LABELS)]
    for name, dtype in (("single", torch.float32), ("double", torch.float64)):
        with xaicli.Run(tmp_path / name, task="regression") as run:
            label = torch.tensor(recorded, dtype=dtype)
            run.log_samples(sample_id=range(N), label=label, prediction=label, loss=loss, mode="train", epoch=1)
    file = written(tmp_path, "csv", LABELS)
    right = roc_auc_score([i in WRONG for i in range(N)], loss)
    for name in ("single", "double"):
        assert scored(tmp_path / name, file)["loss_last"]["auroc"] == pytest.approx(right)
    found = xaicli.open_run(tmp_path / "single").relabel_apply(file, mode="train").answer
    assert found.data.filter("changed")["sample_id"].sort().to_list() == sorted(WRONG)
