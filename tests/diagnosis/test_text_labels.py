"""Labels that are texts, named in the order of the scores, are told of as the same labels as whole numbers."""

import json
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

import xaicli
from xaicli.cli import main
from xaicli.recorder.ledger import RecorderWarning

NAMES = ["cat", "dog", "owl"]
N = 150


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """The same training with labels as numbers and as texts, some wrong; its labels and logits of the last epoch."""
    root = tmp_path_factory.mktemp("twins")
    rng = np.random.default_rng(3)
    true = rng.integers(0, 3, N)
    label = np.where(rng.random(N) < 0.08, (true + 1) % 3, true)
    camera = rng.choice(["front", "rear"], N).tolist()
    logits = [np.eye(3)[true] * (0.8 + 0.4 * e) + rng.normal(0, 0.7, (N, 3)) for e in range(4)]
    for name, given in (("numbers", label), ("texts", [NAMES[one] for one in label])):
        with xaicli.Run(root / name / "run", label_names=NAMES, keep_probs=True) as run:
            run.log_facts(np.arange(N), camera=camera)
            for epoch, scores in enumerate(logits, 1):
                for mode in ("train", "eval"):
                    run.log_samples(
                        sample_id=np.arange(N), label=given, logits=scores, mode=mode, epoch=epoch, step=epoch
                    )
    return root / "numbers" / "run", root / "texts" / "run", label, logits[-1]


def test_the_figures_of_kept_probabilities_are_there(twins):
    _, texts, label, logits = twins
    result = xaicli.open_run(texts).confusion()
    (scores,) = json.loads(result.to_json())["probabilities"]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert (scores["n"], scores["left_out"]) == (N, 0)
    assert scores["brier"] == pytest.approx(((p - np.eye(3)[label]) ** 2).sum(1).mean(), abs=1e-3)
    assert scores["log_loss"] == pytest.approx(metrics.log_loss(label, p), abs=1e-3)
    assert [row["label"] for row in scores["one_against_rest"]] == NAMES
    for number, row in enumerate(scores["one_against_rest"]):
        assert row["auroc"] == pytest.approx(metrics.roc_auc_score(label == number, p[:, number]), abs=1e-3)
        expected = metrics.average_precision_score(label == number, p[:, number])
        assert row["average_precision"] == pytest.approx(expected, abs=5e-3)
    assert "Brier score" in result.html()


LABELS = ("label", "prediction", "suggested_label", "value")


def spelled(answer: Any, key: str = "") -> Any:
    """An answer with every label by its name; names that stand beside a label are left out."""
    if isinstance(answer, dict):
        left = ("run", "runs", "name", "prediction_name", "suggested_name", "rows_per_second")
        return {k: spelled(v, k) for k, v in answer.items() if k not in left}
    if isinstance(answer, list):
        return [spelled(one, key) for one in answer]
    if key in LABELS and isinstance(answer, int):
        return NAMES[answer]
    if isinstance(answer, float):
        return float(f"{answer:.6g}")
    return answer.replace("texts/run", "numbers/run") if isinstance(answer, str) else answer


QUESTIONS = {
    "confusion": lambda run: run.confusion(),
    "confusion of an epoch": lambda run: run.confusion(epoch="2", mode="train"),
    "confusion by a fact": lambda run: run.confusion(by="camera"),
    "a cell": lambda run: run.confusion(cell="cat,dog"),
    "findings": lambda run: run.findings(mode="train"),
    "dynamics": lambda run: run.dynamics(mode="train"),
    "labels": lambda run: run.labels(),
    "ambiguous": lambda run: run.select(rule="ambiguous", n=9, mode="train"),
    "label_issues": lambda run: run.select(rule="label_issues", n=9, mode="train"),
    "slices": lambda run: run.slices(),
    "steps": lambda run: run.steps(mode="train"),
    "report": lambda run: run.report(mode="train"),
    "check": lambda run: run.check(rule=["ece <= 0.1", "correct mean by label >= 0.8", "label_prob mean >= 0.5"]),
    "compare": lambda run: xaicli.compare(run, run),
}
if find_spec("duckdb"):
    QUESTIONS["labels by DuckDB"] = lambda run: run.labels(metric="label_prob", engine="duckdb")
    QUESTIONS["samples by DuckDB"] = lambda run: run.samples(metric="label_prob", engine="duckdb")


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_answer_about_texts_is_that_about_numbers(twins, question):
    numbers, texts = (spelled(json.loads(QUESTIONS[question](xaicli.open_run(run)).to_json())) for run in twins[:2])
    assert texts == numbers


def test_watch_tells_of_texts_what_it_tells_of_numbers(twins, capsys):
    told = []
    for run in twins[:2]:
        assert main(["watch", str(run), "--once", "--json"]) == 0
        told.append(spelled(json.loads(capsys.readouterr().out)))
    assert told[0] == told[1]


def test_probabilities_of_some_epochs_are_told_of_at_those(tmp_path):
    with xaicli.Run(tmp_path / "run", label_names=NAMES, keep_probs=[2]) as run:
        for epoch in (1, 2, 3):
            logits = np.array([[2.0, 1, 0], [0, 3, 1], [2, 1, 0]])
            run.log_samples(sample_id=[1, 2, 3], label=["cat", "dog", "owl"], logits=logits, mode="eval", epoch=epoch)
    found = json.loads(xaicli.open_run(tmp_path / "run").confusion().to_json())
    assert found["probabilities"] == []
    assert "no probabilities of eval were kept at epoch 3: the last are of --epoch 2" in found["warnings"]
    before = json.loads(xaicli.open_run(tmp_path / "run").confusion(epoch="2").to_json())
    assert [row["n"] for row in before["probabilities"]] == [3]
    assert before["warnings"] == []


def test_probabilities_of_no_class_that_is_known_are_said_to_be_of_none(tmp_path):
    given = {"label": ["cat", "dog"], "prediction": ["cat", "cat"], "logits": np.array([[2.0, 1], [0, 3]])}
    with xaicli.Run(tmp_path / "run", keep_probs=True) as run:
        with pytest.warns(RecorderWarning, match="need label_names"):
            run.log_samples(sample_id=[1, 2], **given, mode="eval", epoch=1)
        run.log_samples(sample_id=[1, 2], **given, mode="eval", epoch=2)
    found = json.loads(xaicli.open_run(tmp_path / "run").confusion().to_json())
    assert found["probabilities"] == []
    said = "none of the probabilities of eval kept at epoch 2 is of a sample whose label is one of their classes"
    assert said in found["warnings"]
