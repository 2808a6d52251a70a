"""`xai confusion` on recorded runs, against scikit-learn and plain Python."""

import json

import numpy as np
import pytest
from sklearn import metrics

import xaicli
from xaicli.cli import main
from xaicli.errors import UsageError, XaiError

NAMES = ["cat", "dog", "owl"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two epochs, one of two passes; the logits of every place, {(epoch, pass): (labels, logits)}."""
    path = tmp_path_factory.mktemp("confusion") / "run"
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 90)
    logged = {}
    with xaicli.Run(path, label_names=NAMES, keep_probs=True) as run:
        for epoch, n_pass in ((1, 0), (2, 0), (2, 1)):
            logits = (
                rng.normal(size=(90, 3)).astype(np.float32)
                + 0.4 * (epoch + n_pass) * np.eye(3, dtype=np.float32)[label]
            )
            logged[epoch, n_pass] = label, logits
            run.log_samples(
                sample_id=np.arange(90),
                label=label,
                logits=logits,
                mode="eval",
                epoch=epoch,
                step=epoch * 10 + n_pass,
                eval_pass=n_pass,
            )
    return path, logged


def asked(capsys, *arguments):
    assert main(["confusion", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_place_has_its_figures(recorded, capsys):
    path, logged = recorded
    found = asked(capsys, path)
    assert {(row["epoch"], row["pass"]) for row in found["rows"]} == set(logged)
    for overall in found["overall"]:
        label, logits = logged[overall["epoch"], overall["pass"]]
        taken = logits.argmax(1)
        assert overall["accuracy"] == pytest.approx(metrics.accuracy_score(label, taken))
        assert overall["mcc"] == pytest.approx(metrics.matthews_corrcoef(label, taken))
        rows = [row for row in found["rows"] if (row["epoch"], row["pass"]) == (overall["epoch"], overall["pass"])]
        expected = metrics.precision_recall_fscore_support(label, taken, zero_division=0)
        for key, values in zip(("precision", "recall", "f1", "n"), expected, strict=True):
            assert [row[key] for row in rows] == pytest.approx(values.tolist())
        assert [row["name"] for row in rows] == NAMES


def test_cells_and_probabilities_are_of_the_last_place_selected(recorded, capsys):
    path, logged = recorded
    for words, place in (((), (2, 1)), (("--epoch", 1), (1, 0))):
        found = asked(capsys, path, *words)
        label, logits = logged[place]
        table = metrics.confusion_matrix(label, logits.argmax(1))
        assert {(c["label"], c["prediction"]): c["n"] for c in found["cells"]} == {
            (int(a), int(b)): int(table[a, b]) for a in range(3) for b in range(3) if table[a, b]
        }
        probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        (scores,) = found["probabilities"]
        assert scores["log_loss"] == pytest.approx(metrics.log_loss(label, probs), abs=1e-3)
        for row in scores["one_against_rest"]:
            one = label == row["label"]
            assert row["auroc"] == pytest.approx(metrics.roc_auc_score(one, probs[:, row["label"]]), abs=2e-3)
        (sure,) = found["calibration"]
        assert sum(item["n"] for item in sure["bins"]) == 90
        assert len(sure["bins"]) == 15
        assert sure["over_confidence"] == pytest.approx(
            probs.max(1).mean() - (label == logits.argmax(1)).mean(), abs=1e-5
        )


def test_a_cell_lists_its_samples_the_worst_first(recorded, capsys):
    path, logged = recorded
    label, logits = logged[2, 1]
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(90), label]
    cells = asked(capsys, path)["cells"]
    cell = max((c for c in cells if c["label"] != c["prediction"]), key=lambda c: c["n"])
    members = np.flatnonzero((label == cell["label"]) & (logits.argmax(1) == cell["prediction"]))
    expected = sorted(members.tolist(), key=lambda i: -loss[i])
    by_name = f"{cell['name']},{cell['prediction_name']}"
    for words in (by_name, f"{cell['label']},{cell['prediction']}"):
        found = asked(capsys, path, "--cell", words)
        assert [row["sample_id"] for row in found["rows"]] == expected[:20]
        assert found["n"] == [{"mode": "eval", "ds_id": "", "n": len(expected)}]
        assert [len(row["history"]) for row in found["rows"]] == [3] * len(expected[:20])
    assert [r["sample_id"] for r in asked(capsys, path, "--cell", by_name, "--top", 1)["rows"]] == expected[:1]


def test_by_a_column(recorded, capsys):
    path, logged = recorded
    label, logits = logged[2, 1]
    found = asked(capsys, path, "--by", "label")["by"]
    assert [(row["value"], row["n"]) for row in found] == [
        (name, int((label == number).sum())) for number, name in enumerate(NAMES)
    ]
    assert found[0]["accuracy"] == pytest.approx((logits.argmax(1)[label == 0] == 0).mean())


def test_sets_of_classes_count_by_class(tmp_path, capsys):
    label = [[0], [0, 2], [1], [], [2]]
    probs = np.array([[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.1, 0.9, 0.2], [0.6, 0.1, 0.1], [0.1, 0.2, 0.9]])
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=NAMES) as run:
        run.log_samples(sample_id=range(5), label=label, probs=probs, mode="eval", epoch=1)
    found = asked(capsys, tmp_path / "run")
    truth = np.array([[c in row for c in range(3)] for row in label])
    expected = metrics.precision_recall_fscore_support(truth, probs > 0.5, zero_division=0)
    assert [(row["label"], row["name"]) for row in found["rows"]] == list(enumerate(NAMES))
    for key, values in zip(("precision", "recall", "f1", "n"), expected, strict=True):
        assert [row[key] for row in found["rows"]] == pytest.approx(values.tolist())
    (overall,) = found["overall"]
    assert overall["n"] == 5
    assert overall["accuracy"] == pytest.approx(metrics.accuracy_score(truth, probs > 0.5))
    for kind in ("macro", "weighted"):
        assert overall[f"{kind}_f1"] == pytest.approx(metrics.f1_score(truth, probs > 0.5, average=kind))
    assert overall["mcc"] is None
    assert {(cell["label"], cell["prediction"]): cell["n"] for cell in found["cells"]} == {
        (0, 0): 2,  # samples 0 and 1
        (1, 1): 1,
        (2, 2): 1,
        (2, None): 1,  # missed of sample 1
        (None, 1): 1,  # added to sample 1
        (None, 0): 1,  # added to sample 3
    }
    assert [row["sample_id"] for row in asked(capsys, tmp_path / "run", "--cell", "owl,(none)")["rows"]] == [1]
    assert [row["sample_id"] for row in asked(capsys, tmp_path / "run", "--cell", "(none),cat")["rows"]] == [3]
    page = xaicli.open_run(tmp_path / "run").confusion().markdown()
    assert "60.0 % of 5 samples have exactly their classes" in page
    assert "cat, owl" in xaicli.open_run(tmp_path / "run").samples(ids=[1], max=0, min=0).markdown()
    assert xaicli.open_run(tmp_path / "run").labels().data["name"].to_list() == NAMES


def test_the_page_names_every_data_set_and_the_place(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        for ds_id in ("", "a"):
            for epoch in (1, 2):
                run.log_samples(
                    sample_id=[1, 2],
                    label=[0, 1],
                    prediction=[0, 1],
                    loss=[1.0, 2.0],
                    mode="eval",
                    ds_id=ds_id,
                    epoch=epoch,
                )
    reader = xaicli.open_run(tmp_path / "run")
    assert 'data set "", a' in reader.confusion().markdown()
    assert "data set" not in reader.confusion(ds_id='""').markdown().split("recorded")[0]
    with pytest.raises(XaiError, match="at the last epoch selected"):
        reader.confusion(cell="0,1", epoch=1)


@pytest.mark.parametrize("key", ["prediction", "correct", "loss"])
def test_only_a_column_of_true_classes_is_held_against_predictions(recorded, key):
    with pytest.raises(UsageError, match=f"--label-key {key}"):
        xaicli.open_run(recorded[0]).confusion(label_key=key)


def test_what_cannot_be_asked_is_said(recorded, tmp_path):
    run = xaicli.open_run(recorded[0])
    for words, said in (
        ({"cell": "cat"}, "LABEL,PREDICTION"),
        ({"cell": "cat,zebra"}, "zebra"),
        ({"metric": "loss"}, "--metric"),
        ({"top": 3}, "--top"),
        ({"cell": "cat,dog", "by": "label"}, "--by"),
        ({"by": "colour"}, "colour"),
        ({"cell": "cat,dog", "top": 0}, "--top"),
    ):
        with pytest.raises(XaiError) as error:
            run.confusion(**words)
        assert said in error.value.message
    with pytest.raises(UsageError):
        run.confusion(by="loss")
    with xaicli.Run(tmp_path / "numbers", task="regression") as other:
        other.log_samples(sample_id=[1, 2], label=[0.5, 1.5], prediction=[0.4, 1.2], mode="eval", epoch=1)
    with pytest.raises(XaiError, match="numbers"):
        xaicli.open_run(tmp_path / "numbers").confusion()
    with xaicli.Run(tmp_path / "plain") as other:
        other.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="eval", epoch=1)
    with pytest.raises(XaiError, match="no labels"):
        xaicli.open_run(tmp_path / "plain").confusion(metric=None)
