"""`xai errors` on recorded runs of each task, against scikit-learn and plain Python."""

import json
import shlex

import numpy as np
import polars as pl
import pytest
from sklearn import metrics

import xaicli
from xaicli.cli import main
from xaicli.diagnosis.label_sets import doubted
from xaicli.errors import UsageError, XaiError


def asked(capsys, *arguments):
    assert main(["errors", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_regression(tmp_path, capsys):
    rng = np.random.default_rng(0)
    n = 300
    label = rng.normal(10, 3, n)
    camera = np.where(np.arange(n) % 3 == 0, "dirty", "clean")
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        run.log_facts(np.arange(n), camera=camera.tolist())
        for epoch in (1, 2, 3):
            prediction = label + rng.normal(0, 3 / epoch, n) + np.where(camera == "dirty", 2.0, 0.0)
            given = np.where(np.arange(n) == 7, np.nan, label)
            run.log_samples(sample_id=np.arange(n), label=given, prediction=prediction, mode="eval", epoch=epoch)
    found = asked(capsys, tmp_path / "run", "--by", "camera")
    assert found["task"] == "regression"
    last, known = found["rows"][-1], np.arange(n) != 7
    assert (last["epoch"], last["n"], last["unknown"]) == (3, n - 1, 1)
    assert last["mae"] == pytest.approx(metrics.mean_absolute_error(label[known], prediction[known]), rel=1e-5)
    assert last["r2"] == pytest.approx(metrics.r2_score(label[known], prediction[known]), rel=1e-5)
    by = {row["value"]: row for row in found["groups"] if row["column"] == "camera"}
    for value in ("clean", "dirty"):
        own = known & (camera == value)
        assert by[value]["bias"] == pytest.approx((label - prediction)[own].mean(), rel=1e-4)
    worst = found["worst"][0]
    assert worst["sample_id"] == int(np.argmax(np.where(known, np.abs(label - prediction), 0)))
    assert worst["facts"] == {"camera": camera[worst["sample_id"]]}
    page = xaicli.open_run(tmp_path / "run").errors(by="camera").html()
    assert "Predicted against true" in page
    assert "By camera" in page


def test_numbers_that_are_none_are_counted(tmp_path, capsys):
    label, prediction = np.arange(8.0), np.arange(8.0)
    label[5], prediction[2], prediction[3] = np.nan, np.nan, np.inf
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        for epoch in (1, 2):
            run.log_samples(sample_id=np.arange(8), label=label, prediction=prediction, mode="eval", epoch=epoch)
    found = asked(capsys, tmp_path / "run")
    assert (found["rows"][-1]["n"], found["rows"][-1]["unknown"]) == (5, 3)
    assert (found["counts"]["rows"], found["counts"]["non_finite"]) == (16, 4)  # a label that is NaN is missing


def test_groups_of_few_stand_last(tmp_path):
    """A single bad sample says little of its group: groups of ten or more come first, the worst before the others."""
    off = np.concatenate([np.full(12, 1.0), np.full(10, 3.0), [50.0], np.full(9, 2.0)])
    source = ["mild"] * 12 + ["bad"] * 10 + ["single"] + ["nine"] * 9
    n = len(off)
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        run.log_facts(np.arange(n), source=source)
        run.log_samples(sample_id=np.arange(n), label=np.arange(n) + off, prediction=np.arange(n), mode="eval", epoch=1)
    page = xaicli.open_run(tmp_path / "run").errors(by="source", top=0).markdown()
    rows = [line.split()[1] for line in page.split("By source")[1].splitlines() if line.startswith("| ")]
    assert [name for name in rows if name in set(source)] == ["bad", "mild", "single", "nine"]
    assert "Groups of fewer than 10 are last." in page


def test_two_classes(tmp_path, capsys):
    rng = np.random.default_rng(1)
    n = 400
    label = (rng.uniform(size=n) < 0.3).astype(int)
    z = rng.normal(1.5 * label - 0.7, 1.0)
    logits = np.stack([np.zeros(n), z], axis=1)
    with xaicli.Run(tmp_path / "run", label_names=["healthy", "ill"]) as run:
        run.log_samples(sample_id=np.arange(n), label=label, logits=logits, mode="eval", epoch=1)
    found = asked(capsys, tmp_path / "run")
    p = 1 / (1 + np.exp(-z))
    row = found["rows"][0]
    assert (found["task"], found["positive"]) == ("binary", "ill")
    assert row["auroc"] == pytest.approx(metrics.roc_auc_score(label, p), abs=1e-6)
    assert row["average_precision"] == pytest.approx(metrics.average_precision_score(label, p), abs=1e-6)
    assert row["f1"] == pytest.approx(metrics.f1_score(label, p >= 0.5))
    assert row["best_f1"] == pytest.approx(max(metrics.f1_score(label, p >= t) for t in np.unique(p)))
    assert found["n"] == [{"mode": "eval", "ds_id": "", "thresholds": len(np.unique(np.float32(p)))}]
    assert len(found["thresholds"]) <= 200
    page = xaicli.open_run(tmp_path / "run").errors().markdown()
    assert f"{len(found['thresholds'])} of the 400 scores that occur, evenly spread over the curves." in page
    other = asked(capsys, tmp_path / "run", "--positive", "healthy")
    assert other["rows"][0]["average_precision"] == pytest.approx(
        metrics.average_precision_score(1 - label, 1 - p), abs=1e-6
    )
    assert main(["errors", str(tmp_path / "run"), "--positive", "sick"]) == 1
    assert "ROC" in xaicli.open_run(tmp_path / "run").errors().html()


def test_a_positive_class_is_one_of_the_run_also_where_the_last_rows_lack_it(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run", label_names=["healthy", "ill"]) as run:
        for epoch, label in ((1, [0, 1]), (2, [1, 1])):
            logits = np.asarray([[0.0, 1.0], [0.0, 2.0]])
            run.log_samples(sample_id=[0, 1], label=label, logits=logits, mode="eval", epoch=epoch, step=epoch)
    assert asked(capsys, tmp_path / "run", "--positive", "healthy")["positive"] == "healthy"


def test_sets_of_classes(tmp_path, capsys):
    rng = np.random.default_rng(2)
    truth = rng.uniform(size=(200, 5)) < 0.4
    logits = np.where(truth, 1.0, -1.0) + rng.normal(0, 1, truth.shape)
    with xaicli.Run(tmp_path / "run", label_names=list("abcde")) as run:
        for epoch in (1, 2):
            run.log_samples(sample_id=np.arange(200), label=truth.astype(int), logits=logits, mode="eval", epoch=epoch)
    found = asked(capsys, tmp_path / "run")
    row, said = found["rows"][-1], logits > 0
    assert found["task"] == "multilabel"
    assert row["macro_f1"] == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    assert row["micro_f1"] == pytest.approx(metrics.f1_score(truth, said, average="micro"))
    assert row["exact"] == pytest.approx(metrics.accuracy_score(truth, said))
    by_label = {one["name"]: one["f1"] for one in found["labels"]}
    assert by_label == pytest.approx(dict(zip("abcde", metrics.f1_score(truth, said, average=None), strict=True)))
    pair = found["swapped"][0]
    a, b = pair["label"], pair["prediction"]
    assert pair["n"] == (truth[:, a] & ~said[:, a] & ~truth[:, b] & said[:, b]).sum()
    doubt = found["doubted"][0]
    i, c = doubt["sample_id"], doubt["class"]
    assert truth[i, c] == (doubt["doubt"] == "extra")
    assert said[i, c] != truth[i, c]
    assert doubt["times"] == doubt["n_obs"] == 2


@pytest.mark.parametrize("called", [int, "photos/{:02d}.jpg".format])
def test_single_labels_are_doubted_whatever_samples_are_called(called):
    label, said = [[0], [1], *[[0], [1]] * 9], [[1], [0], *[[0], [1]] * 9]
    frame = pl.DataFrame({"sample_id": list(map(called, range(20))), "label": label, "prediction": said})
    assert set(doubted([frame, frame])["sample_id"]) == {called(0), called(1)}


@pytest.mark.parametrize("prediction", [[1], None])
def test_a_sample_without_a_label_at_the_end_has_no_doubtful_one(prediction):
    """Samples 0 and 1 are taken for one another's class by a model that is right of all others; 1 loses its label."""
    label, said = [[0], [1], *[[0], [1]] * 9], [[1], [0], *[[0], [1]] * 9]
    schema = {"sample_id": pl.Int64, "label": pl.List(pl.Int32), "prediction": pl.List(pl.Int32)}
    frame = pl.DataFrame({"sample_id": range(20), "label": label, "prediction": said}, schema=schema)
    end = pl.DataFrame({"sample_id": [1], "label": [None], "prediction": [prediction]}, schema=schema)
    assert set(doubted([frame, frame])["sample_id"]) == {0, 1}
    assert set(doubted([frame, frame, end])["sample_id"]) == {0}
    assert set(doubted([frame, frame, end, frame])["sample_id"]) == {0, 1}


def test_what_is_cut_is_counted_and_the_option_lists_all(tmp_path, capsys):
    """Of 120 samples each lacks one class of its label in both epochs, and has another: 120 doubts of either kind."""
    n = 120
    truth = [[i % 7] for i in range(n)]
    said = [[(i + 1 + i // 7 % 6) % 7] for i in range(n)]
    wrong = {(i, c) for i in range(n) for c in (truth[i][0], said[i][0])}
    swaps = {(truth[i][0], said[i][0]) for i in range(n)}
    right = [[c] for c in range(7)]  # or no class would ever be right
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=list("abcdefg")) as run:
        for epoch in (1, 2):
            ids = np.arange(n + 700)
            run.log_samples(
                sample_id=ids, label=truth + right * 100, prediction=said + right * 100, mode="eval", epoch=epoch
            )
    found = asked(capsys, tmp_path / "run")
    (told,) = found["n"]
    assert (told["doubted"], told["swapped"]) == (len(wrong), len(swaps)) == (240, 42)
    assert (len(found["doubted"]), len(found["swapped"])) == (20, 20)
    whole = asked(capsys, tmp_path / "run", "--top", "500")
    assert {(row["sample_id"], row["class"]) for row in whole["doubted"]} == wrong
    assert {(row["label"], row["prediction"]) for row in whole["swapped"]} == swaps
    assert whole["doubted"][:20] == found["doubted"]
    pair = found["swapped"][0]
    names = [list("abcdefg")[pair[end]] for end in ("label", "prediction")]
    with pytest.raises(XaiError, match=f"{names[0]} is missed, or {names[1]} is added, and no cell is of both") as no:
        xaicli.open_run(tmp_path / "run").confusion(cell=",".join(names), metric="jaccard")
    option, cell = shlex.split(no.value.hint.partition(" lists the samples that miss it; xai errors")[0])
    assert (
        main(["confusion", str(tmp_path / "run"), option, cell, "--metric", "jaccard", "--top", "500", "--json"]) == 0
    )
    listed = {row["sample_id"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert listed == {i for i in range(n) if truth[i][0] == pair["label"]}
    with pytest.raises(XaiError, match="no sample of a is taken for a at the last epoch"):
        xaicli.open_run(tmp_path / "run").confusion(cell="a,a", where="sample_id < 120", metric="jaccard")
    page = xaicli.open_run(tmp_path / "run").errors().markdown()
    assert "20 of 240: --top 240 lists all." in page
    assert "20 of 42: --top 42 lists all." in page
    assert "lists all" not in xaicli.open_run(tmp_path / "run").errors(top=500).markdown()
    told = xaicli.open_run(tmp_path / "run").findings(metric="jaccard").answer.extra["found"]
    assert told["doubted_label"] == len(wrong)


def test_errors_and_findings_doubt_the_same_single_labels(tmp_path, capsys):
    """Classes are doubted above 0.5: the share of times contradicted, times how often the model is right so."""
    # Class 0: in the label of 1 to 8, found in all but 1: recall 28 / 32 over four epochs, so 1 is doubted by 7 / 8.
    # Class 1: in the label of 1 to 4, said of these and of 5 to 8: precision 16 / 32, so 5 to 8 stand at 0.5 exactly.
    # Class 2: of 9 and 10 the label, of 10 said in one epoch of four: contradicted 3 / 4, found in 5 / 8: 0.469.
    label = [[0, 1]] * 4 + [[0]] * 4 + [[2], [2]]
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=list("abc")) as run:
        for epoch in (1, 2, 3, 4):
            said = [[1]] + [[0, 1]] * 7 + [[2], [2] if epoch == 4 else []]
            ids = np.arange(1, 11)
            run.log_samples(sample_id=ids, label=label, prediction=said, mode="eval", epoch=epoch)
    found = asked(capsys, tmp_path / "run")
    doubts = [(row["sample_id"], row["class"], row["doubt"], row["score"]) for row in found["doubted"]]
    assert doubts == [(1, 0, "extra", pytest.approx(7 / 8))]
    assert found["n"][0]["doubted"] == 1
    told = xaicli.open_run(tmp_path / "run").findings(metric="jaccard").answer
    assert told.extra["found"]["doubted_label"] == 1
    rows = told.data.filter(finding="doubted_label").select("sample_id", "score").rows()
    assert rows == [(1, pytest.approx(7 / 8))]


@pytest.mark.parametrize("last", [13, 40])
def test_single_labels_stay_doubted_however_long_a_training_goes_on(tmp_path, capsys, last):
    """b is said of two of twenty samples in 12 epochs; in the 13th all sets are right: the last epoch that counts."""
    label = [[0], [0], *[[1]] * 10, *[[2]] * 8]
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=list("abc")) as run:
        for epoch in range(1, last + 1):
            said = [[0, 1], [0, 1], *label[2:]] if epoch <= 12 else label
            for turn in (0, 1) if epoch == 40 else (0,):
                told = {"sample_id": np.arange(20), "label": label, "prediction": said}
                run.log_samples(**told, mode="train", epoch=epoch, eval_pass=turn)
            if epoch > 25:
                late = [[0, 2] if epoch <= 33 else [0]]
                run.log_samples(sample_id=[99], label=[[0]], prediction=late, mode="train", epoch=epoch)
    found = asked(capsys, tmp_path / "run", "--mode", "train")
    b, c = 130 / (130 + 24), 104 / (104 + 8)
    first = [(key, 12, 13, 13 if last == 13 else 41, pytest.approx(b), pytest.approx(12 / 13 * b)) for key in (0, 1)]
    # Of one that comes late the first ten observations count.
    late = [] if last == 13 else [(99, 8, 10, 15, pytest.approx(c), pytest.approx(8 / 10 * c))]
    keys = ("sample_id", "times", "n_counted", "n_obs", "trusted", "score")
    assert [tuple(row[key] for key in keys) for row in found["doubted"]] == first + late
    words = "12 of 13 times" if last == 13 else "12 of the first 13 times"
    assert found["doubted"][0]["reason"].startswith(f"not in the label, but predicted {words};")


def test_farthest_off_are_counted(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        run.log_samples(sample_id=range(9), label=[float(i) for i in range(9)], prediction=[0.0] * 9, mode="eval")
    assert asked(capsys, tmp_path / "run", "--top", "4")["n"] == [{"mode": "eval", "ds_id": "", "worst": 9}]
    assert "4 of 9: --top 9 lists all." in xaicli.open_run(tmp_path / "run").errors(top=4).markdown()


@pytest.mark.parametrize("positive", ["no", "yes"])
def test_probabilities_of_exactly_a_half_are_as_predicted(tmp_path, capsys, positive):
    """A logit of 0 predicts the first class, as argmax and `logits > 0` have it: errors and confusion agree."""
    rng = np.random.default_rng(4)
    label = rng.integers(0, 2, 300)
    z = rng.integers(-2, 3, 300).astype(float)
    with xaicli.Run(tmp_path / "run", label_names=["no", "yes"]) as run:
        run.log_samples(
            sample_id=np.arange(300), label=label, logits=np.stack([0 * z, z], axis=1), mode="eval", epoch=1
        )
        run.log_facts(np.arange(300), half=["a" if i % 2 else "b" for i in range(300)])
    found = asked(capsys, tmp_path / "run", "--positive", positive, "--by", "half")
    wanted = ["no", "yes"].index(positive)
    parts = [(found["rows"][0], np.full(300, True))]
    parts += [(row, (np.arange(300) % 2 == 1) == (row["value"] == "a")) for row in found["groups"]]
    assert len(parts) == 3
    for row, own in parts:
        truth, said, score = label[own] == wanted, (z[own] > 0) == wanted, (1 if wanted else -1) * z[own]
        assert row["accuracy"] == pytest.approx(metrics.accuracy_score(truth, said))
        assert row["precision"] == pytest.approx(metrics.precision_score(truth, said))
        assert row["recall"] == pytest.approx(metrics.recall_score(truth, said))
        assert row["f1"] == pytest.approx(metrics.f1_score(truth, said))
        of_each = {t: metrics.f1_score(truth, score >= t) for t in np.unique(score)}
        assert row["best_f1"] == pytest.approx(max(of_each.values()))
        best = max(t for t, f1 in of_each.items() if f1 == max(of_each.values()))
        assert row["best_threshold"] == pytest.approx(1 / (1 + np.exp(-best)), abs=1e-6)
    capsys.readouterr()
    assert main(["confusion", str(tmp_path / "run"), "--json"]) == 0
    overall = json.loads(capsys.readouterr().out)["overall"][0]
    assert overall["accuracy"] == pytest.approx(found["rows"][0]["accuracy"])


def test_sets_of_classes_by_a_fact(tmp_path, capsys):
    rng = np.random.default_rng(3)
    truth = rng.uniform(size=(300, 4)) < 0.3
    truth[:60] = False
    camera = np.where(np.arange(300) % 3, "front", "rear")
    logits = np.where(truth, 1.0, -1.0) + rng.normal(0, 1, truth.shape) * np.where(camera == "rear", 2, 0.7)[:, None]
    with xaicli.Run(tmp_path / "run", task="multilabel") as run:
        run.log_facts(np.arange(300), camera=camera)
        run.log_samples(sample_id=np.arange(300), label=truth.astype(int), logits=logits, mode="eval", epoch=1)
    found = asked(capsys, tmp_path / "run", "--by", "camera")["groups"]
    for row in found:
        own = camera == row["value"]
        right, said = truth[own], logits[own] > 0
        assert (row["column"], row["n"]) == ("camera", own.sum())
        assert row["micro_f1"] == pytest.approx(metrics.f1_score(right, said, average="micro"))
        assert row["macro_f1"] == pytest.approx(metrics.f1_score(right, said, average="macro"))
        assert row["exact"] == pytest.approx(metrics.accuracy_score(right, said))
    assert {row["value"] for row in found} == {"front", "rear"}
    page = xaicli.open_run(tmp_path / "run").errors(by="camera").markdown()
    by_camera = page[page.index("By camera") :]
    assert 0 < by_camera.index("rear") < by_camera.index("front")  # the worse one first


def test_sets_of_classes_are_called_by_the_names_of_their_labels(tmp_path, capsys):
    sets = [[0, 2], [1], [], None, [0, 2]]
    for name, called in (("named", ["cat", "dog", "cow"]), ("bare", None)):
        with xaicli.Run(tmp_path / name, task="multilabel", label_names=called) as run:
            run.log_samples(sample_id=range(5), label=sets, prediction=[[0], [1], [2], [], [2]], mode="eval", epoch=1)
        found = asked(capsys, tmp_path / name, "--by", "label,prediction")["groups"]
        of = {column: {row["value"] for row in found if row["column"] == column} for column in ("label", "prediction")}
        spelled = called or ["0", "1", "2"]
        assert of["label"] == {
            f"{spelled[0]}, {spelled[2]}",
            spelled[1],
            "(none)",
        }  # without a label nothing is counted
        assert of["prediction"] == set(spelled)


@pytest.mark.parametrize("left", [False, True])
def test_where_the_worst_token_is_counted_is_said(tmp_path, capsys, left):
    """With padding on the left a token's place in the row of labels is not its place among the tokens with a loss."""
    texts, padded = [[1, 0, 2, 1], [2, 1], [0, 2, 1]], 6
    with xaicli.Run(tmp_path / "run", task="sequence") as run:
        label, logits = np.full((3, padded), -100), np.zeros((3, padded, 3))
        for row, text in enumerate(texts):
            first = padded - len(text) if left else 0
            label[row, first : first + len(text)] = text
            logits[row, first + 1, text[1]] = -6  # always the second token
        run.log_facts(range(3), tokens=[" ".join(f"w{c}" for c in text) for text in texts])
        run.log_samples(sample_id=range(3), label=label, logits=logits, mode="eval", epoch=1, keep_tokens=True)
    found = asked(capsys, tmp_path / "run")
    for row in found["worst"]:
        text = texts[row["sample_id"]]
        losses = [word["loss"] for word in row["words"]]
        assert losses.index(max(losses)) == 1
        assert row["worst_token"] == 1 + (padded - len(text) if left else 0)
        assert isinstance(row["worst_token"], int)  # 5, and not 5.0
    assert max(found["places"], key=lambda place: place["loss"])["first"] == 1
    page = xaicli.open_run(tmp_path / "run").errors().html()
    assert "place of the token among those with a loss" in page
    assert "the place in the row of labels as it was logged, from 0: ignored and padded ones count, too" in page


def test_sequences(tmp_path, capsys):
    rng = np.random.default_rng(3)
    n, length, words = 40, 6, 9
    label = rng.integers(0, words, (n, length))
    label[::2, 4:] = -100
    logits = rng.normal(size=(n, length, words))
    texts = [" ".join(f"w{c}" for c in row if c >= 0) for row in label]
    with xaicli.Run(tmp_path / "run", task="sequence") as run:
        run.log_facts(np.arange(n), tokens=texts, source=["book" if i % 4 else "web" for i in range(n)])
        run.log_samples(sample_id=np.arange(n), label=label, logits=logits, mode="eval", epoch=1, keep_tokens=True)
    found = asked(capsys, tmp_path / "run")
    log_p = logits - np.log(np.exp(logits).sum(2, keepdims=True))
    counted = label >= 0
    losses = -np.take_along_axis(log_p, np.where(counted, label, 0)[..., None], 2)[..., 0]
    row = found["rows"][0]
    assert (found["task"], row["tokens"]) == ("sequence", counted.sum())
    assert row["loss"] == pytest.approx(losses[counted].mean(), rel=1e-5)
    by = {one["value"]: one["loss"] for one in found["groups"] if one["column"] == "source"}
    web = np.arange(n) % 4 == 0
    assert by["web"] == pytest.approx(losses[web][counted[web]].mean(), rel=1e-5)
    assert [one["loss"] for one in found["places"]] == pytest.approx(
        [losses[:, t][counted[:, t]].mean() for t in range(length)], rel=1e-3
    )
    worst = found["worst"][0]
    i = worst["sample_id"]
    assert [one["token"] for one in worst["words"]] == texts[i].split()
    assert [one["loss"] for one in worst["words"]] == pytest.approx(losses[i][counted[i]].tolist(), rel=1e-3)
    flat = [(word, loss) for k in range(n) for word, loss in zip(texts[k].split(), losses[k][counted[k]], strict=True)]
    means = {w: np.mean([loss for word, loss in flat if word == w]) for w, _ in flat}
    assert found["worst_tokens"][0]["token"] == max(means, key=lambda w: means[w])
    page = xaicli.open_run(tmp_path / "run").errors().html()
    assert 'class="passage"' in page


def test_words_are_text_and_special_ones_marked(tmp_path):
    words = ["<script>hit()</script>", "[CLS]", "</s>", *["w"] * 200]
    logits = np.random.default_rng(4).normal(size=(1, len(words), 3))
    with xaicli.Run(tmp_path / "run", task="sequence") as run:
        run.log_facts([1], tokens=[json.dumps(words)])
        label = np.zeros((1, len(words)), int)
        run.log_samples(sample_id=[1], label=label, logits=logits, mode="eval", epoch=1, keep_tokens=True)
    page = xaicli.open_run(tmp_path / "run").errors().html()
    assert "<script>hit" not in page
    assert page.count("special") >= 2
    assert "83 more words" in page


def test_what_cannot_be_asked_is_said(tmp_path):
    with xaicli.Run(tmp_path / "run", label_names=["a", "b", "c"]) as run:
        run.log_samples(sample_id=[1, 2, 3], label=[0, 1, 2], prediction=[0, 1, 1], mode="eval", epoch=1)
    run = xaicli.open_run(tmp_path / "run")
    with pytest.raises(XaiError, match="confusion"):
        run.errors()
    with pytest.raises(UsageError, match="--metric"):
        run.errors(metric="loss")
    with pytest.raises(XaiError, match="colour"):
        run.errors(by="colour")
    with pytest.raises(UsageError, match="--top"):
        run.errors(top=-1)
    with xaicli.Run(tmp_path / "bare") as other:
        other.log_samples(sample_id=[1], loss=[1.0], mode="eval", epoch=1)
    with pytest.raises(XaiError, match="neither labels nor predictions"):
        xaicli.open_run(tmp_path / "bare").errors()


def test_options_count(tmp_path, capsys):
    """Rows, places and labels that are left out change the figures as they change plain numpy's."""
    rng = np.random.default_rng(5)
    label = {epoch: rng.normal(size=60) for epoch in (1, 2)}
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        run.log_facts(np.arange(60), camera=["left" if i < 20 else "right" for i in range(60)])
        for mode, off in (("eval", 1.0), ("train", 0.25)):
            for epoch in (1, 2):
                run.log_samples(
                    sample_id=np.arange(60),
                    label=label[epoch],
                    prediction=label[epoch] + off * epoch + (np.arange(60) < 20),
                    mode=mode,
                    epoch=epoch,
                )

    def mae(*options):
        return [row["mae"] for row in asked(capsys, tmp_path / "run", *options)["rows"]]

    assert mae() == pytest.approx([4 / 3, 7 / 3])
    assert mae("--mode", "train") == pytest.approx([0.25 + 1 / 3, 0.5 + 1 / 3])
    assert mae("--epoch", "1") == pytest.approx([4 / 3])
    assert mae("--where", "camera = 'right'") == pytest.approx([1, 2])
    assert mae("--where", "label > 0") == pytest.approx(
        [float((e + (np.arange(60) < 20))[label[e] > 0].mean()) for e in (1, 2)]
    )
    assert len(asked(capsys, tmp_path / "run", "--top", "3")["worst"]) == 3
    assert main(["errors", str(tmp_path / "run"), "--by", "camera", "--no-facts"]) == 1
    found = asked(capsys, tmp_path / "run", "--by", "camera", "--mode", "train")
    assert "xai errors" in xaicli.open_run(tmp_path / "run").errors(by="camera").answer.command_line()
    assert found["selection"]["by"] == ["camera"]


def test_findings_name_single_labels(tmp_path):
    rng = np.random.default_rng(6)
    truth = rng.uniform(size=(150, 4)) < 0.4
    label = truth.copy()
    label[11, 2] = not label[11, 2]
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog", "owl", "cow"]) as run:
        for epoch in range(1, 7):
            logits = np.where(truth, 2.0, -2.0) + rng.normal(0, 1, truth.shape)
            run.log_samples(sample_id=np.arange(150), label=label.astype(int), logits=logits, mode="eval", epoch=epoch)
    rows = xaicli.open_run(tmp_path / "run").findings().data.to_dicts()
    first = next(row for row in rows if row["finding"] == "doubted_label")
    assert first["sample_id"] == 11
    assert first["suggested_label"] == np.flatnonzero(truth[11]).tolist()
    assert first["reason"].startswith("owl is ")


def test_without_a_positive_nothing_is_said_of_how_it_is_found(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        for labels, epoch in (([0, 1, 0, 0], 1), ([0, 0, 0, 0], 2)):
            logits = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [3.0, 0.0]])
            run.log_samples(sample_id=[1, 2, 3, 4], label=labels, logits=logits, mode="eval", epoch=epoch)
    page = xaicli.open_run(tmp_path / "run").errors().html()
    assert "none of 4 samples is 1; how it is found cannot be told" in page
    assert "best F1: no sample is positive" in page


@pytest.mark.parametrize("task", ["binary", "multilabel", "regression", "sequence"])
def test_values_none_of_whose_samples_is_judged_are_told(tmp_path, capsys, task):
    """Of 6 samples those of camera c lack what they would be judged by; those without a camera too."""
    lost = [False, False, True, False, False, True]
    camera = ["a", "b", "c", "a", "b", None]
    with xaicli.Run(tmp_path / "run", task=task) as run:
        run.log_facts(range(6), camera=camera)
        rows = {
            "binary": {"label": [None if gone else i % 2 for i, gone in enumerate(lost)], "logits": [[0.0, 1.0]] * 6},
            "multilabel": {
                "label": [None if gone else [i % 2] for i, gone in enumerate(lost)],
                "prediction": [[0]] * 6,
            },
            "regression": {"label": [float("nan") if gone else 1.0 * i for i, gone in enumerate(lost)]},
            "sequence": {"loss": [float("nan") if gone else 1.0 * i for i, gone in enumerate(lost)]},
        }[task]
        if task == "regression":
            rows["prediction"] = [0.0] * 6
        run.log_samples(sample_id=range(6), mode="eval", epoch=1, **rows)
    found = asked(capsys, tmp_path / "run", "--by", "camera")
    assert {row["value"] for row in found["groups"] if row["column"] == "camera"} == {"a", "b"}
    (said,) = [text for text in found["warnings"] if "camera" in text]
    lacking = {"sequence": "a finite loss", "binary": "a label and a prediction with a probability"}
    none = f"none of 2 samples has {lacking.get(task, 'a label and a prediction')}"
    assert said == f"eval: camera (missing), c are in no group: {none}"
    whole = asked(capsys, tmp_path / "run", "--by", "camera", "--where", "camera = 'a'")
    assert not [text for text in whole["warnings"] if "in no group" in text]
