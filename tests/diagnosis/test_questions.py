"""`xai confusion` on recorded runs, against scikit-learn and plain Python."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

import xaicli
from xaicli.cli import main
from xaicli.errors import UsageError, XaiError
from xaicli.recorder.ledger import RecorderWarning
from xaicli.report import confusion
from xaicli.report.charts import MatrixChart

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
        assert [row["name"] for row in scores["one_against_rest"]] == NAMES
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


def test_a_label_of_a_cell_is_one_of_any_place_asked(tmp_path, capsys):
    day = [0, 0, 1, 1, 0, 1], [0, 1, 1, 0, 0, 1]  # no owl
    night = [0, 1, 2, 2, 2, 1], [0, 1, 2, 0, 0, 2]
    for names in (NAMES, ()):
        for first, second in ((day, night), (night, day)):
            path = tmp_path / f"{len(names)}-{first is day}"
            with xaicli.Run(path, label_names=names) as run:
                for mode in ("train", "eval"):
                    for ds_id, (label, prediction) in (("a", first), ("b", second)):
                        rows = {"sample_id": range(6), "label": label, "prediction": prediction}
                        run.log_samples(**rows, loss=np.arange(6.0), mode=mode, ds_id=ds_id, epoch=1, step=1)
            at = "b" if first is day else "a"
            for words in ("2,0", "owl,cat") if names else ("2,0",):
                for asking in ([], ["--ds-id", "a,b"], ["--epoch", "last"]):
                    found = asked(capsys, path, "--cell", words, *asking)
                    assert [(row["ds_id"], row["sample_id"]) for row in found["rows"]] == [(at, 4), (at, 3)]
                    assert found["n"] == [{"mode": "eval", "ds_id": at, "n": 2}]
                found = asked(capsys, path, "--cell", words, "--mode", "all")
                assert {(row["mode"], row["ds_id"]) for row in found["rows"]} == {("train", at), ("eval", at)}
                assert xaicli.open_run(path).confusion(cell=words).data.height == 2
            with pytest.raises(XaiError) as error:
                xaicli.open_run(path).confusion(cell="zebra,0")
            assert "no label 'zebra'" in error.value.message
            assert "owl" in error.value.hint if names else "0, 1, 2" in error.value.hint
    # A class that the run names is one, also where no row selected has it.
    with pytest.raises(XaiError, match="no sample of owl is taken for cat"):
        xaicli.open_run(tmp_path / "3-True").confusion(cell="owl,cat", ds_id="a")


@pytest.mark.parametrize(
    ("metric", "sign"), [("loss", -1), ("entropy", -1), ("el2n", -1), ("margin", 1), ("label_prob", 1)]
)
def test_the_worst_of_a_cell_are_those_at_the_worse_end_of_the_metric(recorded, capsys, metric, sign):
    path, logged = recorded
    label, logits = logged[2, 1]
    probs = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True)
    own, others = np.eye(3)[label].astype(bool), ~np.eye(3)[label].astype(bool)
    values = {
        "loss": -np.log(probs[own]),
        "entropy": -(probs * np.log(probs)).sum(1),
        "el2n": np.linalg.norm(probs - np.eye(3)[label], axis=1),
        "margin": logits[own] - np.where(others, logits, -np.inf).max(1),
        "label_prob": probs[own],
    }[metric]
    members = np.flatnonzero((label == 1) & (logits.argmax(1) == 2))
    assert len(members) > 3
    expected = sorted(members.tolist(), key=lambda i: sign * values[i])[:3]
    found = asked(capsys, path, "--cell", "1,2", "--metric", metric, "--top", 3)
    assert [row["sample_id"] for row in found["rows"]] == expected
    said = f"the 3 with the {'lowest' if sign > 0 else 'highest'} {metric} are shown."
    assert xaicli.open_run(path).confusion(cell="1,2", metric=metric, top=3).report.sentence.endswith(said)


def test_a_metric_of_ones_own_has_its_highest_first_in_a_cell(tmp_path, capsys):
    """Nothing says which end of it is the worse."""
    with xaicli.Run(tmp_path / "run") as run:
        classes = {"label": [0] * 4, "prediction": [1] * 4}
        run.log_samples(sample_id=[1, 2, 3, 4], **classes, own=[1.0, 2.0, 4.0, 3.0], mode="eval", epoch=1)
    found = asked(capsys, tmp_path / "run", "--cell", "0,1", "--metric", "own")
    assert [row["sample_id"] for row in found["rows"]] == [3, 4, 2, 1]


def test_by_a_column(recorded, capsys):
    path, logged = recorded
    label, logits = logged[2, 1]
    found = asked(capsys, path, "--by", "label")["by"]
    assert [(row["value"], row["n"]) for row in found] == [
        (name, int((label == number).sum())) for number, name in enumerate(NAMES)
    ]
    assert found[0]["accuracy"] == pytest.approx((logits.argmax(1)[label == 0] == 0).mean())
    right = logits.argmax(1) == label
    found = asked(capsys, path, "--by", "correct")["by"]
    assert [(row["value"], row["n"], row["accuracy"]) for row in found] == [
        (False, int((~right).sum()), 0.0),
        (True, int(right.sum()), 1.0),
    ]


def test_by_a_value_none_of_whose_samples_is_in_a_cell(tmp_path):
    """Site C has no labels, D no predictions; of data set b no sample has both."""
    site = [*"AAABBBCCCDDD"]
    given = [None if one == "C" else k % 2 for k, one in enumerate(site)]
    taken = [None if one == "D" else 0 for one in site]
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts(list(range(12)), site=site)
        for ds_id, label in (("a", given), ("b", [None] * 12)):
            run.log_samples(
                sample_id=list(range(12)), label=label, prediction=taken, mode="eval", ds_id=ds_id, epoch=1, step=1
            )
    told = xaicli.open_run(tmp_path / "run").confusion(by="site")
    rows = [row for row in told.answer.extra["by"] if row["ds_id"] == "a"]
    counts = ("value", "n", "without_label", "without_prediction")
    assert [tuple(row[key] for key in counts) for row in rows] == [
        ("A", 3, 0, 0),
        ("B", 3, 0, 0),
        ("C", 0, 3, 0),
        ("D", 0, 0, 3),
    ]
    figures = ("accuracy", "accuracy_interval", "macro_f1", "mcc", "ece", "over_confidence")
    assert all(row[key] is None for row in rows[2:] for key in figures)
    assert all(row["cells"] == [] for row in rows[2:])
    others = [tuple(row[key] for key in counts) for row in told.answer.extra["by"] if row["ds_id"] == "b"]
    assert others == [(value, 0, 3, 0) for value in "ABCD"]
    page = told.markdown()
    assert "C: no sample is in a cell, 3 without a label" in page
    assert "D: no sample is in a cell, 3 with a label and without a prediction" in page
    told.save(tmp_path / "out", formats=["csv", "html"])
    with (tmp_path / "out" / "confusion-by.csv").open(newline="") as file:
        assert [row["n"] for row in csv.DictReader(file)] == ["3", "3", "0", "0", "0", "0", "0", "0"]


def test_ids_with_blanks_stay_apart_in_the_csv(tmp_path):
    ids = ["a b", "c", "d e f"]
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=ids, label=[0] * 3, prediction=[1] * 3, loss=[3.0, 2.0, 1.0], mode="eval", epoch=1)
    xaicli.open_run(tmp_path / "run").confusion().save(tmp_path / "out", formats=["csv"])
    with (tmp_path / "out" / "confusion-cells.csv").open(newline="") as file:
        assert [json.loads(row["sample_ids"]) for row in csv.DictReader(file) if row["n"] == "3"] == [ids]


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
        run.confusion(by="sample_id")
    with xaicli.Run(tmp_path / "numbers", task="regression") as other:
        other.log_samples(sample_id=[1, 2], label=[0.5, 1.5], prediction=[0.4, 1.2], mode="eval", epoch=1)
    with pytest.raises(XaiError, match="numbers"):
        xaicli.open_run(tmp_path / "numbers").confusion()
    with xaicli.Run(tmp_path / "plain") as other:
        other.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="eval", epoch=1)
    with pytest.raises(XaiError, match="no labels"):
        xaicli.open_run(tmp_path / "plain").confusion(metric=None)


def test_cells_name_their_worst_samples(recorded, capsys):
    path, logged = recorded
    label, logits = logged[2, 1]
    loss = np.log(np.exp(logits).sum(1)) - logits[np.arange(90), label]
    for cell in asked(capsys, path)["cells"]:
        members = np.flatnonzero((label == cell["label"]) & (logits.argmax(1) == cell["prediction"]))
        assert cell["sample_ids"] == sorted(members.tolist(), key=lambda i: -loss[i])[:5]


def test_confused_pairs_are_followed_over_the_places(recorded, capsys):
    path, logged = recorded
    tables = [metrics.confusion_matrix(label, logits.argmax(1)) for label, logits in logged.values()]
    found = asked(capsys, path)["pairs"]
    late = {(a, b): sum(int(t[a, b]) for t in tables[1:]) for a in range(3) for b in range(3) if a != b}
    assert [late[pair["label"], pair["prediction"]] for pair in found] == sorted(late.values(), reverse=True)
    for pair in found:
        a, b = pair["label"], pair["prediction"]
        assert [(p["epoch"], p["pass"]) for p in pair["points"]] == list(logged)
        assert [p["n"] for p in pair["points"]] == [int(t[a, b]) for t in tables]
        assert [p["share"] for p in pair["points"]] == pytest.approx([t[a, b] / t[a].sum() for t in tables])
        assert (pair["name"], pair["prediction_name"]) == (NAMES[a], NAMES[b])


def test_each_predicted_label_says_how_sure_it_is(tmp_path, capsys):
    rng = np.random.default_rng(3)
    label = rng.integers(0, 3, 400)
    taken = np.where(rng.random(400) < 0.6, label, rng.integers(0, 3, 400))
    taken[:380][taken[:380] == 2] = 1  # 2 is hardly predicted
    sure = rng.uniform(0.5, 1, 400).astype(np.float32)
    sure[7] = np.nan
    with xaicli.Run(tmp_path / "run", label_names=NAMES) as run:
        run.log_samples(
            sample_id=range(400),
            label=label,
            prediction=taken,
            top_prob=sure,
            correct=label == taken,
            mode="eval",
            epoch=1,
        )
    (found,) = asked(capsys, tmp_path / "run")["calibration"]
    assert (found["n"], found["left_out"]) == (399, 1)
    known = np.isfinite(sure)
    assert {row["prediction"] for row in found["by_prediction"]} == {0, 1}
    for row in found["by_prediction"]:
        own = known & (taken == row["prediction"])
        gaps = sure[own].astype(float) - (label == taken)[own]
        assert row["n"] == len(gaps)
        assert row["over_confidence"] == pytest.approx(gaps.mean())
        assert (row["low"], row["high"]) == pytest.approx(stats.norm.interval(0.95, gaps.mean(), stats.sem(gaps)))
        assert row["name"] == NAMES[row["prediction"]]
        order = np.argsort(sure[own], kind="stable")
        bins = np.array_split(np.flatnonzero(own)[order], 15)
        by_hand = sum(abs((sure[one].astype(float) - (label == taken)[one]).sum()) for one in bins) / len(gaps)
        is_enough = len(gaps) >= 200
        assert row["ece"] == (pytest.approx(by_hand) if is_enough else None)
        assert row["ece_missing"] == (None if is_enough else "fewer than 200 samples")
    assert {row["ece"] is None for row in found["by_prediction"]} == {True, False}
    assert "the calibration error needs 200 samples" in xaicli.open_run(tmp_path / "run").confusion().html()
    assert "leaves out 1 sample without a finite top_prob" in xaicli.open_run(tmp_path / "run").confusion().html()


@pytest.mark.parametrize(
    ("label", "taken", "said"),
    [
        ([1] * 4, [1] * 4, ["Only one label occurs, dog", "100.0 % of 4 samples are right", "No sample is taken"]),
        ([1] * 4, [0] * 4, ["Only one label occurs, dog", "0.0 % of 4 samples are right", "Never predicted: dog"]),
        ([0, 1, 2, 2], [1, 1, 1, 1], ["Never predicted: cat and owl", "undefined with one label or one prediction"]),
        ([0, 0, 1, 1], [0, 2, 1, 1], ["Predicted without a sample of it here: owl"]),
    ],
)
def test_degenerate_places_are_named(tmp_path, capsys, label, taken, said):
    with xaicli.Run(tmp_path / "run", label_names=NAMES) as run:
        run.log_samples(sample_id=range(4), label=label, prediction=taken, mode="eval", epoch=1)
    page = xaicli.open_run(tmp_path / "run").confusion().markdown()
    for words in said:
        assert words in page
    (overall,) = asked(capsys, tmp_path / "run")["overall"]
    single = len(set(label)) == 1 or len(set(taken)) == 1
    assert overall["undefined"] == (["mcc"] if single else [])
    assert overall["accuracy"] == np.mean(np.array(label) == taken)


def test_every_cell_of_the_matrix_leads_to_its_samples(recorded):
    page = xaicli.open_run(recorded[0]).confusion().html()
    targets = re.findall(r'<a href="#([\w-]+)"', page)
    assert len(set(targets)) == 9
    for target in targets:
        assert page.count(f'id="{target}"') == 1
    cell = xaicli.open_run(recorded[0]).confusion().answer.extra["cells"].row(1, named=True)
    assert '<a href="#cell-eval-label-0-prediction-1"' in page
    listed = page.split('id="cell-eval-label-0-prediction-1"')[1].split("</tr>")[0]
    assert all(f"#{sample}" in listed for sample in cell["sample_ids"])


def test_of_many_labels_those_confused_most_stand_side_by_side(tmp_path, monkeypatch):
    """Forty labels, of which 3 and 30, 5 and 31, 7 and 32 are taken for one another."""
    rng = np.random.default_rng(0)
    label = np.arange(4000) % 40
    partner = {3: 30, 30: 3, 5: 31, 31: 5, 7: 32, 32: 7}
    confused = np.array([partner.get(i, i) for i in label])
    taken = np.where(rng.random(4000) < 0.4, confused, label)
    taken[::97] = (label[::97] + 1) % 40
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=range(4000), label=label, prediction=taken, mode="eval", epoch=1)
    linked: list[tuple[int, int]] = []
    anchor = confusion._anchor
    monkeypatch.setattr(confusion, "_anchor", lambda *ends: linked.append(ends[2:]) or anchor(*ends))
    report = xaicli.open_run(tmp_path / "run").confusion().report
    (chart,) = [block for section in report.sections for block in section.blocks if isinstance(block, MatrixChart)]
    assert len(chart.names) <= 30
    shown = {(a, b) for a, b in set(zip(label, taken, strict=True)) if {str(a), str(b)} <= set(chart.names)}
    assert set(linked) == shown, "what is not shown is led to by nothing, and costs nothing"
    for a, b in ((3, 30), (5, 31), (7, 32)):
        assert abs(chart.names.index(str(a)) - chart.names.index(str(b))) == 1
        i, j = chart.names.index(str(a)), chart.names.index(str(b))
        assert chart.counts[i][j] == ((label == a) & (taken == b)).sum()
    assert "of 40 labels that are confused most" in chart.legend


def test_an_error_that_was_smaller_is_named(tmp_path):
    rng = np.random.default_rng(0)
    label = np.arange(300) % 3
    with xaicli.Run(tmp_path / "run") as run:
        for epoch, sure in ((1, 0.5), (2, 0.7), (3, 0.95)):
            taken = np.where(rng.random(300) < 0.7, label, (label + 1) % 3)
            right = label == taken
            top_prob = np.full(300, sure, np.float32)
            run.log_samples(
                sample_id=range(300),
                label=label,
                prediction=taken,
                top_prob=top_prob,
                correct=right,
                mode="eval",
                epoch=epoch,
            )
    result = xaicli.open_run(tmp_path / "run").confusion()
    errors = [row["ece"] for row in result.answer.extra["overall"]]
    assert errors.index(min(errors)) == 1
    assert f"at epoch 2 the error was {100 * errors[1]:.1f} %" in result.report.sentence
    assert f"surer than it is right by {100 * (np.float32(0.95) - right.mean()):.1f} points" in result.report.sentence


def test_a_cell_of_all_duplicates_says_that_its_samples_have_other_rows(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        for prediction, loss in (([1, 1, 1], [1.0, 2.0, 0.1]), ([1, 0, 1], [0.5, 0.2, 0.1])):
            told = {"label": [0, 0, 1], "prediction": prediction, "loss": loss}
            run.log_samples(sample_id=[1, 2, 3], mode="eval", epoch=1, step=1, eval_pass=0, **told)
    opened = xaicli.open_run(tmp_path / "run")
    cells = opened.confusion(duplicates="all").answer.extra["cells"]
    assert cells.filter(label=0, prediction=1)["n"].to_list() == [3]
    said = opened.confusion(duplicates="all", cell="0,1").answer.warnings
    assert any("the cell counts 3 rows of 2 samples; each is listed once" in words for words in said)
    assert not any("counts" in words for words in opened.confusion(cell="0,1").answer.warnings)


def test_an_over_confidence_within_its_interval_may_be_chance(tmp_path):
    """60 samples, 48 right, at a probability of 0.85: by 5 points, of a standard error of 5.2; of 20, no interval."""
    for n, right in ((60, 48), (20, 16), (600, 480)):
        with xaicli.Run(tmp_path / f"{n}") as run:
            correct = np.arange(n) < right
            taken = np.where(correct, np.arange(n) % 2, 1 - np.arange(n) % 2)
            sure = np.full(n, 0.85)
            told = {"label": np.arange(n) % 2, "prediction": taken, "top_prob": sure, "correct": correct}
            run.log_samples(sample_id=range(n), mode="eval", epoch=1, **told)
        result = xaicli.open_run(tmp_path / f"{n}").confusion()
        half = 1.959964 * float((sure - correct).std()) / n**0.5
        interval = result.answer.extra["calibration"][0]["over_interval"]
        gap = np.float32(0.85) - 0.8
        assert interval == ([None, None] if n < 30 else pytest.approx([gap - half, gap + half], abs=1e-6))
        chance = f"which may be chance: 95 % interval {100 * (gap - half):.1f} to {100 * (gap + half):.1f}; "
        surer = f"surer than it is right by 5.0 points ({chance if n == 60 else ''}calibration"
        said = "So few samples do not tell whether it is surer than it is right (calib" if n < 30 else surer
        assert said in result.report.sentence


@pytest.mark.parametrize("n", [60, 600])
def test_the_interval_of_how_much_less_sure_it_is_holds_what_is_said(tmp_path, n):
    """48 of 60 right at a probability of 0.75: less sure by 5 points, of a standard error of 5.2."""
    with xaicli.Run(tmp_path / "run") as run:
        correct = np.arange(n) < 0.8 * n
        label, sure = np.arange(n) % 2, np.full(n, 0.75)
        told = {"label": label, "prediction": np.where(correct, label, 1 - label), "top_prob": sure, "correct": correct}
        run.log_samples(sample_id=range(n), mode="eval", epoch=1, **told)
    opened = xaicli.open_run(tmp_path / "run")
    half = 100 * 1.959964 * float((correct - sure).std()) / n**0.5
    chance = f"which may be chance: 95 % interval {5 - half:.1f} to {5 + half:.1f}; " if n == 60 else ""
    said = f"less sure than it is right by 5.0 points ({chance}calibration error"
    assert said in opened.confusion().report.sentence
    (track,) = [s for s in opened.report().report.sections if s.anchor == "confusion"]
    assert said in track.blocks[0].text


def test_probabilities_that_are_never_finite_are_named(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        nothing = np.full(6, np.nan, np.float32)
        label = [0, 1, 2, 0, 1, None]
        run.log_samples(
            sample_id=range(6), label=label, prediction=[0, 1, 1, 0, None, 2], top_prob=nothing, mode="eval", epoch=4
        )
    found = asked(capsys, tmp_path / "run")
    assert found["calibration"] == []
    assert any("no sample of eval has a finite top_prob at epoch 4" in text for text in found["warnings"])
    (overall,) = found["overall"]
    assert (overall["n"], overall["accuracy"], overall["ece"]) == (4, 0.75, None)
    assert (overall["without_label"], overall["without_prediction"]) == (1, 1)
    assert "1 sample of eval at epoch 4 has no label, and is in no cell" in found["warnings"]
    assert "1 sample of eval at epoch 4 has a label and no prediction, and is in no cell" in found["warnings"]


def test_sureness_is_held_against_the_label_that_was_asked_for(tmp_path, capsys):
    rng = np.random.default_rng(5)
    label, true = rng.integers(0, 3, (2, 60))
    logits = rng.normal(size=(60, 3)).astype(np.float32)
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=range(60), label=label, logits=logits, mode="eval", epoch=1)
        run.log_facts(sample_id=range(60), true=true.tolist())
    found = asked(capsys, tmp_path / "run", "--label-key", "true")
    sure = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).max(1)
    accuracy = (true == logits.argmax(1)).mean()
    assert found["overall"][0]["accuracy"] == pytest.approx(accuracy)
    assert found["calibration"][0]["over_confidence"] == pytest.approx(sure.mean() - accuracy, abs=1e-6)
    assert found["overall"][0]["over_confidence"] == pytest.approx(sure.mean() - accuracy, abs=1e-6)


def test_kept_probabilities_that_are_left_out_are_counted(tmp_path, capsys):
    rng = np.random.default_rng(6)
    label = rng.integers(0, 3, 40)
    probs = rng.dirichlet(np.ones(3), 40).astype(np.float32)
    probs[:4] = np.nan
    with xaicli.Run(tmp_path / "run", keep_probs=True) as run:
        run.log_samples(sample_id=range(40), label=label, probs=probs, mode="eval", epoch=1)
    (scores,) = asked(capsys, tmp_path / "run")["probabilities"]
    assert (scores["n"], scores["left_out"]) == (36, 4)
    by_hand = ((probs[4:] - np.eye(3)[label[4:]]) ** 2).sum(1).mean()
    assert scores["brier"] == pytest.approx(by_hand, abs=2e-3)
    said = xaicli.open_run(tmp_path / "run").confusion().html()
    assert "4 samples with a label and no such probabilities left out" in said


def test_a_name_that_is_the_number_of_another_label_is_a_name(tmp_path):
    taken = np.array([1] * 5 + [0] * 3)
    with xaicli.Run(tmp_path / "run", label_names=["1", "0"]) as run:
        run.log_samples(
            sample_id=np.arange(8), label=1 - taken, prediction=taken, loss=np.ones(8), mode="eval", epoch=1
        )
    found = xaicli.open_run(tmp_path / "run").confusion(cell="1,0")
    assert sorted(found.data["sample_id"]) == [0, 1, 2, 3, 4]  # label 0, named 1, taken for label 1, named 0


def test_numbers_of_many_values_go_by_quintile(tmp_path):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 500)
    size = rng.permutation(500).astype(float)
    size[0] = np.nan
    taken = np.where(size < 100, 1 - label, label)
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=np.arange(500), label=label, prediction=taken, mode="eval", epoch=1)
        run.log_facts(np.arange(500), size=size)
    found = xaicli.open_run(tmp_path / "run").confusion(by="size").answer.extra["by"]
    known = size[1:]
    edges = np.quantile(known, [0.2, 0.4, 0.6, 0.8])
    counts = np.bincount((known[:, None] > edges).sum(1))
    assert [row["n"] for row in found] == [*counts, 1]
    right = (label == taken)[1:]
    fifth = (known[:, None] > edges).sum(1)
    assert [row["accuracy"] for row in found[:5]] == pytest.approx([right[fifth == k].mean() for k in range(5)])


def test_names_that_differ_in_the_middle_are_told_apart(tmp_path):
    names = [f"the scientific name of plant {i:04d} of the family of the roses" for i in range(40)]
    label = np.repeat(np.arange(40), 5)
    taken = np.where(np.arange(200) % 5 < 2, (label + 1) % 40, label)
    with xaicli.Run(tmp_path / "run", label_names=names) as run:
        for epoch in (1, 2):
            run.log_samples(
                sample_id=np.arange(200), label=label, prediction=taken, loss=np.ones(200), mode="eval", epoch=epoch
            )
    report = xaicli.open_run(tmp_path / "run").confusion().report
    assert "0000" in report.sentence
    assert "0001" in report.sentence
    blocks = [block for section in report.sections for block in section.blocks]
    (matrix,) = [block for block in blocks if isinstance(block, MatrixChart)]
    assert len(set(matrix.names)) == len(matrix.names) > 10
    pairs = next(block for block in blocks if getattr(block, "title", "").startswith("Confused most"))
    assert len({row[:2] for row in pairs.rows}) == len(pairs.rows)
    lines = next(block for block in blocks if getattr(block, "title", "").startswith("The most confused pairs"))
    assert len({line.name for line in lines.series}) == len(lines.series)


def test_truth_values_are_spelled_as_in_sql(tmp_path):
    """On every page a fact that is true or false is `true` or `false`, as in JSON and --where."""
    n = 120
    label = np.arange(n) % 2
    night = np.arange(n) % 3 == 0
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts(np.arange(n), night=night.tolist())
        prediction = np.where(night, 1 - label, label)
        loss = np.where(night, 3.0, 1.0) + np.arange(n) / n
        run.log_samples(sample_id=np.arange(n), label=label, prediction=prediction, loss=loss, mode="eval", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    by = opened.confusion(by="night").markdown()
    assert re.search(r"\| true +\| +40 \|", by)
    assert re.search(r"\| false +\| +80 \|", by)
    assert "night true" in opened.slices().markdown()
    samples = opened.samples(max=1, min=1)
    assert [row["facts"]["night"] for row in samples.data.to_dicts()] == [True, False]
    for page in (by, samples.markdown()):
        assert "true" in page
        assert not re.search(r"\b(True|False|yes)\b", page.split("## How this was made")[0])


def test_matthews_coefficient_of_a_group_of_one_label_is_undefined_and_not_0(tmp_path):
    label = np.arange(90) % 3
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts(np.arange(90), site=[f"s{k}" for k in label], night=(np.arange(90) % 2 == 0).tolist())
        run.log_samples(sample_id=np.arange(90), label=label, prediction=label, mode="eval", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    by = opened.confusion(by="site").markdown()
    rows = [line.split("|") for line in by.splitlines() if re.match(r"\| s\d +\| +30 ", line)]
    assert [[cell.strip() for cell in row[-4:-1]] for row in rows] == [["1", "–", "mcc"]] * 3
    assert [row["undefined"] for row in opened.confusion(by="site").answer.extra["by"]] == [["mcc"]] * 3
    assert "By night" in (night := opened.confusion(by="night").markdown())
    assert "undefined" not in night.split("By night")[1].split("## How this was made")[0]


@pytest.mark.parametrize("by", ["label", "prediction", "probs"])
def test_sets_are_no_groups(tmp_path, capsys, by):
    with xaicli.Run(tmp_path / "run", keep_probs=True, task="multilabel" if by != "probs" else None) as run:
        label = [0, 1] if by == "probs" else [[0, 1], [1]]
        run.log_samples(sample_id=[1, 2], label=label, logits=np.array([[1.0, 2], [3, 1]]), mode="eval", epoch=1)
    assert main(["confusion", str(tmp_path / "run"), "--by", by]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"--by {by} holds several values a sample" in said
    assert "columns of one value: sample_id" in said


@pytest.mark.parametrize("turned", [False, True])
def test_names_and_numbers_of_classes_are_joined_by_the_names_of_the_run(tmp_path, capsys, turned):
    names, label, taken = ["cat", "dog", "elk"], [0, 1, 2, 2, 1], [0, 2, 2, 1, 1]
    with xaicli.Run(tmp_path / "run", label_names=names, strict=True) as run:
        for epoch in (1, 2):
            given = {"label": label if turned else [names[i] for i in label]}
            given["prediction"] = np.array([names[i] for i in taken]) if turned else np.array(taken)
            run.log_samples(sample_id=range(5), mode="eval", epoch=epoch, **given)
    found = asked(capsys, tmp_path / "run")
    assert [row["accuracy"] for row in found["overall"]] == [0.6, 0.6]
    cells = {(cell["name"], cell["prediction_name"]): cell["n"] for cell in found["cells"]}
    assert cells == {("cat", "cat"): 1, ("dog", "elk"): 1, ("elk", "elk"): 1, ("elk", "dog"): 1, ("dog", "dog"): 1}
    rows = (
        xaicli.open_run(tmp_path / "run").query("SELECT correct FROM samples WHERE epoch = 2 ORDER BY sample_id").data
    )
    assert rows["correct"].to_list() == [True, False, True, False, True]


def test_names_and_numbers_that_nothing_joins_are_told_and_refused_for_what_they_are(tmp_path, capsys):
    run = xaicli.Run(tmp_path / "run")
    words = {"sample_id": [1, 2], "label": ["0", "1"], "prediction": [0, 1], "mode": "eval"}
    with pytest.warns(
        RecorderWarning, match="label holds texts and prediction whole numbers, so correct cannot be derived"
    ):
        run.log_samples(**words, epoch=1)
    run.log_samples(**words, epoch=2)
    run.close()
    assert main(["confusion", str(tmp_path / "run")]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "labels are texts and predictions whole numbers in" in said
    assert "Run(label_names=[...]) makes them alike" in said
    assert "--label-key" not in said


def test_a_prediction_that_is_no_name_is_left_out_and_counted(tmp_path):
    run = xaicli.Run(tmp_path / "run", label_names=["cat", "dog"])
    with pytest.warns(RecorderWarning, match="prediction 'emu' is none of label_names"):
        run.log_samples(sample_id=[1, 2, 3], label=[0, 1, 1], prediction=["cat", "emu", None], mode="eval", epoch=1)
    run.close()
    rows = xaicli.open_run(tmp_path / "run").query("SELECT prediction, correct FROM samples ORDER BY sample_id").data
    assert rows.rows() == [(0, True), (None, None), (None, None)]


def test_a_name_that_is_the_number_of_another_label_is_said_to_be_meant(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run", label_names=["1", "0"]) as run:
        run.log_samples(sample_id=[1, 2, 3], label=[0, 0, 1], prediction=[0, 1, 1], mode="eval", epoch=1)
    found = asked(capsys, tmp_path / "run", "--cell", "1,0")
    assert [row["sample_id"] for row in found["rows"]] == [2]
    assert found["warnings"] == [
        "--cell 1 is taken as the name of label 0; label 1 itself is called 0",
        "--cell 0 is taken as the name of label 1; label 0 itself is called 1",
    ]


def test_the_last_epoch_with_probabilities_is_named(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run", keep_probs=[1, 2]) as run:
        for epoch in (1, 2, 3, 4):
            logits = np.array([[1.0, 2], [3, 1]])
            run.log_samples(sample_id=[1, 2], label=[0, 1], logits=logits, mode="eval", epoch=epoch)
    found = asked(capsys, tmp_path / "run")
    assert found["probabilities"] == []
    assert "no probabilities of eval were kept at epoch 4: the last are of --epoch 2" in found["warnings"]
    before = asked(capsys, tmp_path / "run", "--epoch", "2")
    assert [row["epoch"] for row in before["probabilities"]] == [2]
    assert not any("probabilities" in said for said in before["warnings"])


@pytest.mark.parametrize(("prediction", "said"), [(0, "the only sample is right"), (1, "the only sample is wrong")])
def test_one_sample_alone_is_told_as_one(tmp_path: Path, prediction: int, said: str) -> None:
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        run.log_samples(sample_id=[1], label=[0], prediction=[prediction], loss=[0.5], mode="eval", epoch=1)
    sentence = xaicli.open_run(tmp_path / "run").confusion().report.sentence
    assert f"epoch 1: {said}" in sentence
    assert "every one" not in sentence
    assert "%" not in sentence


@pytest.mark.parametrize(
    ("task", "columns", "said"),
    [
        ("regression", {"label": [0.5, 1.5]}, "predicts numbers, which are not confused"),
        ("regression", {"prediction": [0.5, 1.5]}, "predicts numbers, which are not confused"),
        ("regression", {"label": [0.5, 1.5], "prediction": [0.5, 1.0]}, "predicts numbers, which are not confused"),
        ("sequence", {"loss": [0.5, 1.5]}, "tells of texts, token by token"),
        ("classification", {"label": [0, 1]}, "has no predictions"),
        ("classification", {"prediction": [0, 1]}, "has no labels"),
    ],
)
def test_why_there_are_no_confusions_is_the_tasks_reason_before_a_missing_column(tmp_path, task, columns, said):
    with xaicli.Run(tmp_path / "run", task=task) as run:
        run.log_samples(sample_id=[1, 2], mode="eval", epoch=1, **({"loss": [0.5, 1.5]} | columns))
    with pytest.raises(XaiError, match=said):
        xaicli.open_run(tmp_path / "run").confusion()


def of_sites(path, *, sites=6):
    """Samples of several sites, some without a label, with what was logged: (site, label, prediction, top_prob)."""
    rng = np.random.default_rng(5)
    n = 90 * sites
    site = np.array([f"s{k:02}" for k in np.arange(n) % sites])
    label = rng.integers(0, 3, n)
    label[site == "s01"] = 2
    logits = rng.normal(size=(n, 3)).astype(np.float32) + np.eye(3, dtype=np.float32)[label] * 1.5
    logits[site == "s01", 2] += 20  # one label, always right
    label[::30] = -1
    with xaicli.Run(path, label_names=NAMES, ignore_label=-1) as run:
        run.log_facts(np.arange(n), site=site.tolist())
        run.log_samples(sample_id=np.arange(n), label=label, logits=logits, mode="eval", epoch=1)
    probs = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True)
    return site, label, logits.argmax(1), probs.max(1)


def test_each_value_has_its_calibration_and_what_is_in_no_cell(tmp_path, capsys):
    site, label, taken, sure = of_sites(tmp_path / "run")
    found = asked(capsys, tmp_path / "run", "--by", "site")
    assert [row["value"] for row in found["by"]] == sorted(set(site))
    assert set(found["overall"][0]) <= set(found["by"][0])
    for row in found["by"]:
        of_site = site == row["value"]
        known = of_site & (label >= 0)
        order = np.argsort(sure[known], kind="stable")
        p, right = sure[known][order], (label == taken)[known][order].astype(float)
        bins = np.array_split(np.arange(len(p)), 15)
        if len(set(p)) == len(p):
            ece = sum(len(b) * abs(right[b].mean() - p[b].mean()) for b in bins) / len(p)
            assert row["ece"] == pytest.approx(ece, abs=1e-4)
        assert row["over_confidence"] == pytest.approx(p.mean() - right.mean(), abs=1e-4)
        assert (row["without_label"], row["without_prediction"]) == (int((of_site & (label < 0)).sum()), 0)
    assert sum(row["without_label"] for row in found["by"]) == found["overall"][0]["without_label"] == 18


def test_the_matrix_of_each_value_is_shown(tmp_path, capsys, monkeypatch):
    site, label, taken, _ = of_sites(tmp_path / "run")
    monkeypatch.setenv("COLUMNS", "120")
    out = tmp_path / "out"
    assert main(["confusion", str(tmp_path / "run"), "--by", "site", "--format", "md,html", "-o", str(out)]) == 0
    said = capsys.readouterr().out
    markdown, page = (out / "confusion.md").read_text(), (out / "confusion.html").read_text()

    def rows(text):
        return [
            list(map(int, re.findall(r"\d+", line)[:3])) for line in text.splitlines() if line.strip("| ")[:3] in NAMES
        ]

    for name in ("s00", "s02", "s03", "s04", "s05"):
        known = (site == name) & (label >= 0)
        table = metrics.confusion_matrix(label[known], taken[known], labels=[0, 1, 2]).tolist()
        assert rows(markdown.split(f"**The same in numbers: site {name}, eval**")[1])[:3] == table, name
        assert f"The same in numbers: site {name}, eval" in page
        if name != "s05":
            assert rows(said.split(f"\nsite {name}, eval")[1])[:3] == table, name
    assert "\nsite s05" not in said
    assert "--format html and md show the same of site s05" in said
    for text in (said, markdown, page):
        assert "No matrix of site s01: one label alone, taken for no other." in text


def test_what_stands_for_the_label_is_named_where_it_is_missing(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        ids = np.arange(40)
        for ds_id in ("a", "b"):
            every = ids + 100 * (ds_id == "b")
            run.log_samples(sample_id=every, label=ids % 2, prediction=ids // 2 % 2, mode="eval", ds_id=ds_id, epoch=1)
        run.log_facts(ids[:30], gold=(ids[:30] % 2).tolist())
    found = asked(capsys, tmp_path / "run", "--label-key", "gold")
    assert "10 samples of eval a at epoch 1 have no gold, and are in no cell" in found["warnings"]
    empty = "no row of eval b at epoch 1 has both a gold and a prediction (40 without a gold)"
    assert f"{empty}: no confusion is told of it" in found["warnings"]
    assert not any("label" in said for said in found["warnings"])


def test_places_of_which_no_sample_is_in_a_cell_are_counted_and_told(tmp_path, capsys):
    ids, label, taken = np.arange(40), np.arange(40) % 2, np.arange(40) // 2 % 2
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=ids, label=label, prediction=taken, mode="eval", ds_id="a", epoch=1)
        run.log_samples(sample_id=ids, label=label, loss=ids / 40, mode="eval", ds_id="a", epoch=2)
        run.log_samples(sample_id=ids[:30], prediction=taken[:30], mode="eval", ds_id="b", epoch=1)
    found = asked(capsys, tmp_path / "run")
    keys = ("ds_id", "epoch", "n", "accuracy", "without_label", "without_prediction")
    places = [("a", 1, 40, 0.5, 0, 0), ("a", 2, 0, None, 0, 40), ("b", 1, 0, None, 30, 0)]
    assert [tuple(row[key] for key in keys) for row in found["overall"]] == places
    later = "no row of eval a at epoch 2 has both a label and a prediction (40 with one and without a prediction)"
    other = "no row of eval b at epoch 1 has both a label and a prediction (30 without a label)"
    said = [f"{later}: told is epoch 1", f"{other}: no confusion is told of it"]
    assert found["warnings"] == said
    assert set(said) <= set(xaicli.open_run(tmp_path / "run").report().answer.warnings)
    cell = asked(capsys, tmp_path / "run", "--cell", "0,1")  # of the place whose matrix is shown
    assert [row["sample_id"] for row in cell["rows"]] == [4 * i + 2 for i in range(10)]
    assert said[0] in cell["warnings"]


def test_matrices_beyond_those_shown_are_counted(tmp_path):
    of_sites(tmp_path / "run", sites=16)
    result = xaicli.open_run(tmp_path / "run").confusion(by="site")
    assert "--json has the matrices of 3 more values." in result.markdown()
    assert len(result.answer.extra["by"]) == 16
