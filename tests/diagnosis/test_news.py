"""What is news: planted falls, rises, trust and spikes are found, steady trainings have none."""

import json

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

import xaicli
from xaicli.cli import main

NAMES = ["cat", "dog", "owl", "fox"]
EACH, EPOCHS = 200, 6


def planted(path, *, seed=0, spoilt=True):
    """Six epochs; spoilt, owls are taken for foxes in the last two, and the model is surer than it is right."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(4), EACH)
    logged = []
    with xaicli.Run(path, label_names=NAMES) as run:
        for epoch in range(1, EPOCHS + 1):
            taken = np.where(rng.random(len(label)) < 0.85, label, rng.integers(0, 4, len(label)))
            if spoilt and epoch >= EPOCHS - 1:
                taken = np.where((label == 2) & (rng.random(len(label)) < 0.5), 3, taken)
            right = label == taken
            sure = rng.uniform(0.9, 1, len(label)) if spoilt else rng.uniform(0.8, 0.97, len(label))
            run.log_samples(
                sample_id=np.arange(len(label)),
                label=label,
                prediction=taken,
                correct=right,
                top_prob=sure.astype(np.float32),
                loss=np.where(right, 0.1, 2.0) * rng.uniform(0.9, 1.1, len(label)),
                mode="eval",
                epoch=epoch,
            )
            logged.append((taken, sure))
    return label, logged


def asked(capsys, command, *arguments):
    assert main([command, *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def of_kind(found, kind):
    return [row for row in found["rows"] if row["finding"] == kind]


def test_what_was_planted_is_found(tmp_path, capsys):
    label, logged = planted(tmp_path / "run")
    found = asked(capsys, "findings", tmp_path / "run")
    f1 = [metrics.f1_score(label, taken, average=None) for taken, _ in logged]
    best = max(f1[:-1], key=lambda one: one[2])[2]
    (fell,) = [row for row in of_kind(found, "falling_label") if row["label"] == 2]
    assert fell["score"] == pytest.approx(best - f1[-1][2])
    assert f"F1 of owl {f1[-1][2]:.2f}, it was {best:.2f}" in fell["reason"]
    shares = [((label == 2) & (taken == 3)).sum() / EACH for taken, _ in logged]
    (pair,) = of_kind(found, "confused_pair")
    assert (pair["label"], pair["suggested_label"]) == (2, 3)
    assert pair["score"] == pytest.approx(shares[-1] - min(shares))
    assert f"owl is taken for fox in {100 * shares[-1]:.0f} %" in pair["reason"]
    (sure,) = of_kind(found, "over_confident")
    taken, top_prob = logged[-1]
    gaps = top_prob.astype(np.float32).astype(float) - (taken == label)
    assert sure["score"] == pytest.approx(gaps.mean())
    low, high = stats.norm.interval(0.95, gaps.mean(), gaps.std() / np.sqrt(len(gaps)))
    surer = f"surer than right by {100 * gaps.mean():.1f} points (95 % interval {100 * low:.1f} to {100 * high:.1f};"
    assert surer in sure["reason"]
    assert found["found"]["confused_pair"] == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_steady_training_has_no_news(tmp_path, capsys, seed):
    planted(tmp_path / "run", seed=seed, spoilt=False)
    found = asked(capsys, "findings", tmp_path / "run")
    for kind in ("falling_label", "confused_pair", "over_confident", "spike"):
        assert of_kind(found, kind) == []


def test_a_spike_is_a_finding_with_its_samples(tmp_path, capsys):
    rng = np.random.default_rng(0)
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(1, 81):
            ids = rng.choice(np.arange(10, 500), 16, replace=False)
            loss = rng.uniform(0.9, 1.1, 16)
            if step == 50:
                ids[:2], loss[:2] = [3, 4], [90.0, 30.0]
            run.log_samples(sample_id=ids, label=ids % 2, loss=loss, mode="train", epoch=1 + step // 41, step=step)
        run.log_samples(sample_id=[1, 2], label=[0, 1], loss=[0.1, 0.2], mode="eval", epoch=2)
    (spike,) = of_kind(asked(capsys, "findings", tmp_path / "run"), "spike")
    assert (spike["mode"], spike["sample_id"], spike["epoch"], spike["label"]) == ("train", 3, 2, 1)
    assert "at step 50, most of it of #3 " in spike["reason"]
    report = xaicli.open_run(tmp_path / "run").report(mode="eval")
    said = " ".join(block.text for s in report.report.sections for block in s.blocks if hasattr(block, "text"))
    assert "Step 50 of epoch 2 jumped to" in said
    assert report.answer.extra["spikes"][0]["step"] == 50


def test_spikes_are_those_of_the_epochs_and_data_sets_selected(tmp_path, capsys):
    """Sample 3 makes one in each of eight epochs, the higher the later; those of data set b are higher still."""
    rng = np.random.default_rng(0)
    with xaicli.Run(tmp_path / "run") as run:
        for ds_id, least in (("a", 10.0), ("b", 100.0)):
            for step in range(20, 180):
                ids, loss = np.arange(16), rng.uniform(0.9, 1.1, 16)
                if step % 20 == 10:
                    loss[3] = least * 3 ** (step // 20)
                run.log_samples(
                    sample_id=ids, label=ids % 2, loss=loss, mode="train", ds_id=ds_id, epoch=step // 20, step=step
                )
        for epoch in (2, 4, 6):
            run.log_samples(sample_id=[1, 2], label=[0, 1], loss=[0.1, 0.2], mode="eval", epoch=epoch)

    def told(*arguments: object) -> list[tuple[str, int, float]]:
        rows = of_kind(asked(capsys, "findings", tmp_path / "run", *arguments), "spike")
        return [(row["ds_id"], row["epoch"], row["score"]) for row in rows]

    for words in (
        ["--mode", "train", "--ds-id", "a", "--epoch-frequency", 2],
        ["--mode", "train", "--ds-id", "b", "--epoch", "1,3,7"],
    ):
        spikes = asked(capsys, "steps", tmp_path / "run", *words, "--spikes", 3)["spikes"]
        expected = {(spike["ds_id"], spike["epoch"], spike["height"]) for spike in spikes}
        assert len(expected) == 3
        assert set(told(*words)) == expected
    assert {epoch for _, epoch, _ in told("--mode", "eval", "--epoch", "2,4")} == {2, 4}
    reasons = of_kind(asked(capsys, "findings", tmp_path / "run", "--mode", "train", "--ds-id", "a"), "spike")
    (last,) = [row["reason"] for row in reasons if row["epoch"] == 8]
    assert last.endswith("; it also stood in the spikes at 30, 50, 70, 90 and 3 more")


def test_the_track_report_says_who_is_taken_for_whom(tmp_path):
    label, logged = planted(tmp_path / "run")
    result = xaicli.open_run(tmp_path / "run").report()
    (section,) = [section for section in result.report.sections if section.anchor == "confusion"]
    said = section.blocks[0].text
    taken, _ = logged[-1]
    assert f"{100 * (label == taken).mean():.1f} %" in said
    assert "most often owl is taken for fox" in said
    assert "F1 fell since an earlier epoch: owl" in said
    assert "surer than it is right" in said
    (found,) = json.loads(json.dumps(result.answer.extra["confusions"]))
    assert found["overall"]["mcc"] == pytest.approx(metrics.matthews_corrcoef(label, taken))
    first = found["pairs"][0]
    assert first["n"] == ((label == 2) & (taken == 3)).sum()
    assert [first[key] for key in ("label", "name", "prediction", "prediction_name")] == [2, "owl", 3, "fox"]
    assert {row["label"]: (row["name"], row["taken_name"]) for row in found["fell"]}[2] == ("owl", None)
    assert all(row["name"] == NAMES[row["label"]] for row in found["fell"])
    assert [(rose["name"], rose["taken_name"]) for rose in found["rose"]] == [("owl", "fox")]


def test_a_class_of_sets_that_fell_is_told_as_a_set(tmp_path, capsys):
    rng = np.random.default_rng(0)
    label = (rng.random((400, 3)) < 0.5).astype(int)
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=NAMES[:3]) as run:
        for epoch in (1, 2, 3):
            probs = np.where(label == 1, 0.9, 0.1)
            if epoch == 3:
                probs[:200, 1] = 1 - probs[:200, 1]
            run.log_samples(sample_id=np.arange(400), label=label, probs=probs, mode="eval", epoch=epoch)
    (fell,) = of_kind(asked(capsys, "findings", tmp_path / "run"), "falling_label")
    assert fell["label"] == [1]
    taken = label[:, 1].copy()
    taken[:200] = 1 - taken[:200]
    assert fell["score"] == pytest.approx(1 - metrics.f1_score(label[:, 1], taken))


def test_a_spike_that_no_few_samples_hold_is_not_said_to_be_held(tmp_path, capsys):
    rng = np.random.default_rng(0)
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(1, 81):
            loss = rng.uniform(0.9, 1.1, 20) * (8 if step == 50 else 1)
            run.log_samples(sample_id=np.arange(20), label=[0, 1] * 10, loss=loss, mode="train", epoch=1, step=step)
    (spike,) = of_kind(asked(capsys, "findings", tmp_path / "run"), "spike")
    assert "most of it" not in spike["reason"]
    assert "at step 50, spread over 20 samples, first #" in spike["reason"]


def test_a_spike_is_told_by_the_samples_that_make_it(tmp_path, capsys):
    """Sample 7 is nearly all of it: those beside it, which add next to nothing, are not named."""
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(1, 81):
            loss = np.linspace(0.9, 1.1, 20)
            loss[7] = 40_000.0 if step == 50 else 1.0
            run.log_samples(sample_id=np.arange(20), label=[0, 1] * 10, loss=loss, mode="train", epoch=1, step=step)
    (spike,) = of_kind(asked(capsys, "findings", tmp_path / "run"), "spike")
    assert spike["reason"] == "loss 2001 (usual 1) at step 50, most of it of #7 99.95 %"


def test_a_training_too_large_to_search_unasked_is_told(tmp_path, capsys, monkeypatch):
    planted(tmp_path / "run")
    last = max(asked(capsys, "findings", tmp_path / "run")["selection"]["epoch"])
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], label=[0, 1], loss=[0.1, 0.2], mode="train", epoch=last, step=10**6)
    monkeypatch.setattr("xaicli.diagnosis.news._MOST_ROWS", 1)
    found = asked(capsys, "findings", tmp_path / "run")
    said = "the 2 rows of train, more than 1, were not searched for spikes of the loss: xai steps does it when asked"
    assert said in found["warnings"]
    assert of_kind(found, "falling_label")
    sections = xaicli.open_run(tmp_path / "run").report().report.sections
    (section,) = [section for section in sections if section.anchor == "steps"]
    assert "were not searched for spikes" in section.blocks[0].text


@pytest.mark.parametrize(("n", "is_told"), [(1, False), (29, False), (30, True)])
def test_a_few_samples_make_no_over_confident_model(tmp_path, capsys, n, is_told):
    with xaicli.Run(tmp_path / "run") as run:
        labels = np.arange(n) % 2
        run.log_samples(sample_id=np.arange(n), label=labels, prediction=1 - labels, top_prob=[0.9] * n, epoch=1)
    told = of_kind(asked(capsys, "findings", tmp_path / "run"), "over_confident")
    assert [row["score"] for row in told] == ([pytest.approx(0.9, abs=1e-6)] if is_told else [])


def test_over_confidence_says_how_many_it_leaves_out(tmp_path, capsys):
    labels = np.arange(100) % 2
    sure = np.where(np.arange(100) < 40, np.nan, 0.9)
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=np.arange(100), label=labels, prediction=1 - labels, top_prob=sure, epoch=1)
    (told,) = of_kind(asked(capsys, "findings", tmp_path / "run"), "over_confident")
    assert told["score"] == pytest.approx(0.9, abs=1e-6)
    assert "top_prob is missing of 40 of the 100 samples, which are left out" in told["reason"]
    sections = xaicli.open_run(tmp_path / "run").report().report.sections
    (section,) = [section for section in sections if section.anchor == "confusion"]
    assert "; 40 samples without a finite top_prob are left out of this." in section.blocks[0].text


@pytest.mark.parametrize(
    ("label", "taken", "is_told"),
    [
        ([0, 1, 2, 2], [2, 2, 2, 2], True),
        ([0, 1, 2, 2], [2, 2, 2, 1], False),
        ([0, 0, 0, 0], [0, 2, 2, 2], False),  # one label, of which some are right
        ([0, 0, 0, 0], [1, 1, 2, 2], False),
        ([0, 0, 1, 1], [2, 2, 2, 2], True),
    ],
)
def test_a_model_that_predicts_one_class_is_told(tmp_path, label, taken, is_told):
    with xaicli.Run(tmp_path / "run", label_names=["ant", "bee", "cat"]) as run:
        run.log_samples(
            sample_id=range(4), label=label, prediction=taken, loss=[1.0, 2.0, 3.0, 4.0], mode="eval", epoch=1
        )
    opened = xaicli.open_run(tmp_path / "run")
    for result in (opened.confusion(), opened.report()):
        text = " ".join(result.markdown().split())
        assert ("every one is predicted cat" in text) == is_told
        assert ("most often" in text) != is_told
