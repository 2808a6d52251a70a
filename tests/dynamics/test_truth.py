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


def test_splits_of_which_a_truth_knows_no_sample_are_told_and_the_others_scored(tmp_path: Path, xai: Any) -> None:
    rng = np.random.default_rng(3)
    loss = {"train": rng.random(N), "eval": rng.random(N)}
    with xaicli.Run(tmp_path / "run") as run:
        for mode, first in (("train", 0), ("eval", 1000)):
            ids = np.arange(N) + first
            run.log_samples(sample_id=ids, label=ids % 2, prediction=ids % 2, loss=loss[mode], mode=mode, epoch=1)
    rows = "".join(f"{i},{(i + (i in WRONG)) % 2}" + "{}\n" for i in range(N))
    by_id, by_mode = tmp_path / "ids.csv", tmp_path / "modes.csv"
    by_id.write_text("sample_id,label\n" + rows.replace("{}", ""))
    by_mode.write_text("sample_id,label,mode,ds_id\n" + rows.replace("{}", ",train,"))
    right = roc_auc_score([i in WRONG for i in range(N)], loss["train"])
    opened = xaicli.open_run(tmp_path / "run")
    for file in (by_id, by_mode):
        found = opened.dynamics(mode="train,eval", truth=file).answer
        assert found.extra["truth"]["train loss_last"]["auroc"] == pytest.approx(right)
        assert {name.partition(" ")[0] for name in found.extra["truth"]} == {"train"}
        assert "the truth knows no sample of eval, which is not scored" in found.warnings
        assert not any("knows 0 of" in told for told in found.warnings)
        status, out, err = xai("track-report", tmp_path / "run", "--mode", "all", "--truth", file, "--json")
        assert (status, err) == (0, "")
        assert json.loads(out)["truth"]["train loss_last"]["auroc"] == pytest.approx(right)
        with pytest.raises(XaiError, match="knows no sample of eval\n") as told:
            opened.dynamics(mode="eval", truth=file)
        assert told.value.hint.startswith("--mode eval leaves the others out; sample ids of eval: 1000, 1001")
        assert ("its rows are of train" in told.value.hint) == (file == by_mode)
    (tmp_path / "none.csv").write_text("sample_id,label\n77777,1\n")
    with pytest.raises(XaiError, match="knows no sample of the run\n") as told:
        opened.dynamics(mode="all", truth=tmp_path / "none.csv")
    assert "of the file: 77777" in told.value.hint
    assert "leaves" not in told.value.hint


def test_true_and_false_are_the_labels_that_were_recorded_as_such(tmp_path: Path) -> None:
    label = [bool(i % 3) for i in range(N)]
    loss = np.random.default_rng(4).random(N)
    texts, names_of = [str(one) for one in label], ["False", "True"]
    kinds = (("bare", label, None), ("named", [int(one) for one in label], names_of), ("texts", texts, names_of))
    for name, recorded, names in kinds:
        with xaicli.Run(tmp_path / name, label_names=names) as run:
            run.log_samples(sample_id=range(N), label=recorded, prediction=recorded, loss=loss, mode="train", epoch=1)
    right = roc_auc_score([i in WRONG for i in range(N)], loss)
    truth = [one != (i in WRONG) for i, one in enumerate(label)]
    files = [tmp_path / f"truth{n}.csv" for n in range(3)] + [tmp_path / "truth.parquet", tmp_path / "truth.json"]
    for file, spelling in zip(files, (str, lambda one: str(one).upper(), lambda one: str(one).lower()), strict=False):
        file.write_text("sample_id,label\n" + "".join(f"{i},{spelling(one)}\n" for i, one in enumerate(truth)))
    pl.DataFrame({"sample_id": range(N), "label": truth}).write_parquet(files[3])
    files[4].write_text(json.dumps([{"sample_id": i, "label": one} for i, one in enumerate(truth)]))
    for name in ("bare", "named", "texts"):
        opened = xaicli.open_run(tmp_path / name)
        for file in files:
            assert scored(tmp_path / name, file)["loss_last"]["auroc"] == pytest.approx(right), (name, file)
            found = opened.relabel_apply(file).answer
            assert found.extra["left_out"] == [], (name, file)
            assert found.data["label"].to_list() == [str(one) if name == "texts" else int(one) for one in truth]
            assert set(found.data.filter("changed")["sample_id"]) == WRONG
    for name, others, names in (
        ("three", [i % 3 for i in range(N)], None),
        ("others", [i % 2 for i in range(N)], ["no", "yes"]),
    ):
        with xaicli.Run(tmp_path / name, label_names=names) as run:
            run.log_samples(sample_id=range(N), label=others, prediction=others, loss=loss, mode="train", epoch=1)
        (told,) = xaicli.open_run(tmp_path / name).relabel_apply(files[0]).answer.extra["left_out"]
        assert (told["reason"], told["n"]) == ("a label that the run does not know", N)
        with pytest.raises(XaiError, match="no label 'False'"):
            scored(tmp_path / name, files[0])


def test_true_labels_are_held_against_labels_alone(tmp_path: Path, xai: Any) -> None:
    """Not against a column that only groups, and of rows without a label there is nothing to contradict."""
    label, true = [0, 1, 2, 0, 1, 2, 0, 1], [0, 1, 2, 0, 1, 2, 1, 0]
    loss = [0.1, 0.2, 0.3, 0.4, 2.0, 0.6, 1.5, 3.0]
    with xaicli.Run(tmp_path / "run") as run:
        given: dict[str, Any] = {"prediction": true, "loss": loss, "epoch": 1}
        run.log_samples(sample_id=range(8), label=label, mode="train", **given)
        run.log_samples(sample_id=range(8), label=[*label[:6], None, None], mode="eval", **given)
        run.log_samples(sample_id=range(8), mode="test", **given)
        run.log_facts(range(8), camera=["front", "rear"] * 4, night=[True, False] * 4)
    file = tmp_path / "truth.csv"
    file.write_text("sample_id,label\n" + "".join(f"{i},{y}\n" for i, y in enumerate(true)))
    marks = tmp_path / "marks.csv"
    marks.write_text("sample_id,mislabelled\n" + "".join(f"{i},{int(i > 5)}\n" for i in range(8)))
    expected = roc_auc_score([one != other for one, other in zip(label, true, strict=True)], loss)
    asked = ("dynamics", tmp_path / "run", "--mode", "train", "--json")
    assert json.loads(xai(*asked, "--truth", file)[1])["truth"]["loss_mean"]["auroc"] == pytest.approx(expected)
    for key in ("camera", "night", "prediction"):
        status, _, err = xai(*asked, "--truth", file, "--label-key", key)
        assert status == 2
        assert f"holds true labels, and --label-key {key} only groups" in err
        if key != "prediction":
            found = json.loads(xai(*asked, "--truth", marks, "--label-key", key)[1])
            assert found["truth"]["loss_mean"]["auroc"] == pytest.approx(expected)
    both = tmp_path / "both.csv"
    both.write_text("sample_id,label,mislabelled\n" + "".join(f"{i},{y},{int(i > 5)}\n" for i, y in enumerate(true)))
    told = [json.loads(xai(*asked, "--truth", one)[1]) for one in (marks, both)]
    assert told[0]["truth"] == told[1]["truth"]
    said = f"{both} has label, too, which is not read: its mislabelled says whose label is wrong"
    assert [one["warnings"].count(said) for one in told] == [0, 1]
    some = json.loads(xai("dynamics", tmp_path / "run", "--mode", "eval", "--json", "--truth", file)[1])
    said = "2 of the 8 samples of eval that the truth knows have no label that it could contradict: not scored"
    assert said in some["warnings"]
    assert not [one for one in some["warnings"] if "the truth knows 6" in one]
    status, _, err = xai("dynamics", tmp_path / "run", "--mode", "test", "--truth", file)
    assert status == 1
    assert "no sample of test that" in err
    assert "has a label that it could contradict" in err
