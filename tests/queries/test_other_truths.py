"""A label key of another type than the predictions: said where it matters, and nothing else is lost."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import xaicli
from xaicli.cli import main
from xaicli.errors import UsageError, XaiError

IDS = [0, 1, 2, 3]
DAYS = [datetime.date(2026, 1, 1), datetime.date(2026, 1, 2)] * 2
KINDS: dict[str, dict[str, Any]] = {
    "classes": {"label": [0, 1, 1, 0], "probs": [[0.1, 0.9]] * 4},
    "unsure": {"label": [0, 1, 1, 0], "prediction": [0, 0, 1, 1]},
    "sets": {"label": [[0], [1], [0, 1], []], "prediction": [[0], [0], [0, 1], [1]]},
}


def recorded(root: Path, kind: str):
    with xaicli.Run(root, resume="never") as run:
        run.log_facts(IDS, camera=["front", "rear"] * 2, day=DAYS)
        for epoch in (1, 2, 3):
            # Sample 2 is learned and forgotten.
            correct = {} if kind != "unsure" else {"correct": [True, False, epoch != 2, False]}
            run.log_samples(
                sample_id=IDS,
                loss=[0.1, 0.2, 0.3, 0.4],
                mode="eval",
                epoch=epoch,
                step=epoch,
                **KINDS[kind],
                **correct,
            )
    return xaicli.open_run(root)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["camera", "day", "prediction"])
def test_no_truth_of_the_predictions(tmp_path, kind, key):
    opened = recorded(tmp_path / "run", kind)
    said = f"--label-key {key} cannot be held against the predictions"
    found = opened.findings(label_key=key)
    assert [warning for warning in found.answer.warnings if said in warning]
    with pytest.raises(UsageError, match=said):
        opened.errors(label_key=key)
    if kind == "unsure":
        rows = found.data.to_dicts()
        assert [(row["finding"], row["sample_id"]) for row in rows if row["finding"] == "forgotten"] == [
            ("forgotten", 2)
        ]


def test_numbers_of_a_metric_are_no_classes_for_anyone_who_suspects_labels(tmp_path):
    n = 60
    label = np.arange(n) % 3
    with xaicli.Run(tmp_path / "run", keep_probs=True) as run:
        run.log_facts(np.arange(n), bright=(np.arange(n) / 7).tolist())
        for epoch in (1, 2, 3):
            taken = np.where(np.arange(n) % 10 == 0, (label + epoch) % 3, label)
            probs = np.full((n, 3), 0.1) + 0.7 * np.eye(3)[taken]
            values = {"label": label, "probs": probs, "human": label}
            run.log_samples(sample_id=np.arange(n), mode="train", epoch=epoch, step=epoch, **values)
    opened = xaicli.open_run(tmp_path / "run")
    for key in ("human", "bright"):
        said = f"--label-key {key} cannot be held against the predictions"
        for rule in ("suspects", "label_issues"):
            with pytest.raises(UsageError, match=said) as error:
                opened.select(rule=rule, mode="train", label_key=key)
            assert ("run.log_facts(sample_id, human=...)" in error.value.hint) is (key == "human")
        with pytest.raises(UsageError, match=said):
            opened.relabel_export(tmp_path / "x.csv", mode="train", label_key=key)
        found = opened.findings(mode="train", label_key=key).answer
        assert [warning for warning in found.warnings if said in warning]
        assert found.extra["n_suspects"] == [{"mode": "train", "ds_id": "", "n": 0}]
        rows = opened.select(rule="hardest", n=3, mode="train", label_key=key).data["sample_id"].to_list()
        assert rows == opened.select(rule="hardest", n=3, mode="train").data["sample_id"].to_list()
    assert opened.select(rule="suspects", mode="train").data.height
    page = opened.report(mode="train", label_key="human")
    assert page.answer.extra["n_suspects"] == [{"mode": "train", "ds_id": "", "n": 0}]
    assert "--label-key human cannot be held against the predictions" in page.html(no_images=True)


def test_page_of_a_training(tmp_path):
    opened = recorded(tmp_path / "run", "classes")
    result = opened.report(label_key="camera")
    assert "--label-key camera cannot be held against the predictions" in result.html(no_images=True)
    assert "could not be computed" not in result.html(no_images=True)


def test_samples_are_told_neither_right_nor_wrong(tmp_path):
    opened = recorded(tmp_path / "run", "classes")
    for key in ("camera", "prediction"):
        page = opened.samples(label_key=key, max=2, min=2).html(no_images=True)
        assert f"--label-key {key} cannot be held against the predictions" in page
        assert "predicted wrongly" not in page
        assert "✓" not in page
    page = opened.samples(max=2, min=2).html(no_images=True)
    assert "1 is predicted wrongly" in page


def test_another_truth_is_named(tmp_path):
    opened = recorded(tmp_path / "run", "classes")
    (tmp_path / "facts.csv").write_text("sample_id,clean\n0,0\n1,0\n2,0\n3,0\n")
    page = opened.samples(label_key="clean", facts=tmp_path / "facts.csv", max=2, min=2).html(no_images=True)
    assert "all are predicted as something else than clean says" in page
    assert "predicted wrongly" not in page


TAKEN = 12
"""Epochs."""


def mislabelled(root: Path, *, other: bool = False):
    """Eighty samples, one in eight labelled wrongly, that a net predicts right first and as labelled in the end."""
    n = 80
    true = np.arange(n) % 3
    given = np.where(np.arange(n) % 8 == 0, (true + 1) % 3, true)
    rng = np.random.default_rng(1 + other)
    taken = {}
    with xaicli.Run(root, label_names=["cat", "dog", "owl"], resume="never") as run:
        run.log_facts(np.arange(n), clean=true.tolist(), named=[f"c{k}" for k in true])
        for epoch in range(1, TAKEN + 1):
            aim = given if epoch > 8 else np.where(rng.random(n) < 0.7, true, (true + 2) % 3)
            logits = rng.normal(size=(n, 3)).astype(np.float32) + 6 * np.eye(3, dtype=np.float32)[aim]
            taken[epoch] = logits.argmax(1)
            run.log_samples(sample_id=np.arange(n), label=given, logits=logits, mode="train", epoch=epoch, step=epoch)
    return xaicli.open_run(root), true, given, np.array([taken[epoch] for epoch in taken])


def test_right_is_by_the_label_key_in_every_reason(tmp_path):
    opened, true, given, taken = mislabelled(tmp_path / "run")
    right = taken == true
    assert (right != (taken == given)).any()
    for engine in ("polars", "duckdb"):
        found = opened.dynamics(label_key="clean", engine=engine)
        rows = {row["sample_id"]: row for row in found.data.to_dicts()}
        for sample, row in rows.items():
            own = right[:, sample]
            assert row["correctness"] == own.sum()
            assert row["forgetting"] == (own[:-1] & ~own[1:]).sum()
        # What was memorised are the labels given.
        assert [said for said in found.answer.warnings if "measured against label" in said]
        assert [said for said in found.answer.warnings if "memorised its labels: 100" in said]
    told = opened.findings(label_key="clean", top=100)
    suspects = [row for row in told.data.to_dicts() if row["finding"] == "suspect"]
    assert suspects
    for row in suspects:
        own = taken[:, row["sample_id"]]
        assert row["label"] == true[row["sample_id"]] != row["suggested_label"]
        n_right = int((own == row["label"]).sum())
        assert row["reason"].startswith(f"right {n_right} of {TAKEN} times" if n_right else "never learned")
        assert f"{(own == row['suggested_label']).sum()} times predicted" in row["reason"]
    pairs = told.answer.extra["suspected_pairs"]
    assert {pair["name"] for pair in pairs} <= {"cat", "dog", "owl"}
    assert all(pair["name"] == ["cat", "dog", "owl"][pair["label"]] for pair in pairs)


def test_a_class_has_one_name_in_answers_that_hold_the_key_against_the_predictions(tmp_path):
    opened, true, _, taken = mislabelled(tmp_path / "run")
    names, by_key = ["cat", "dog", "owl"], {"label_key": "clean", "mode": "train"}
    cell = opened.confusion(cell="dog,cat", epoch="4", top=80, **by_key)
    answers = [
        cell,
        opened.samples(max=4, min=4, **by_key),
        opened.steps(step=12, **by_key),
        opened.findings(**by_key),
        opened.report(**by_key),
    ]
    assert sorted(cell.data["sample_id"]) == np.flatnonzero((true == 1) & (taken[3] == 0)).tolist() != []
    for result in answers:
        whole = json.loads(result.to_json())
        listed = [rows for rows in whole.values() if isinstance(rows, list) and rows and isinstance(rows[0], dict)]
        rows = [row for part in listed for row in part if "name" in row and row["label"] is not None]
        ends = [(row["label"], row["name"]) for row in rows]
        ends += [
            (row["suggested_label"], row["suggested_name"]) for row in rows if row.get("suggested_label") is not None
        ]
        ends += [(row["prediction"], row["prediction_name"]) for row in rows if "prediction_name" in row]
        assert ends, whole["command"]
        assert [name for _, name in ends] == [names[label] for label, _ in ends], whole["command"]
        said = [
            warning for warning in whole["warnings"] if "predictions are right where they are clean; loss" in warning
        ]
        assert len(said) == 1, whole["command"]
        assert said[0].endswith("as recorded, measured against label")
    runs = [str(opened.layout.root)] * 2
    (said,) = [w for w in xaicli.compare(*runs, **by_key).answer.warnings if "measured against" in w]
    assert said == "predictions are right where they are clean; loss is as recorded, measured against label"


def test_a_group_is_no_truth(tmp_path):
    """Texts beside predictions by number group the samples; what is right stays as recorded."""
    opened, _, given, taken = mislabelled(tmp_path / "run")
    found = opened.dynamics(label_key="named")
    assert found.data.sort("sample_id")["correctness"].to_list() == (taken == given).sum(0).tolist()
    assert not [said for said in found.answer.warnings if "measured against" in said]


def test_runs_are_compared_by_the_truth_asked_for(tmp_path):
    first, true, given, one = mislabelled(tmp_path / "one")
    last, _, _, other = mislabelled(tmp_path / "other", other=True)
    for epoch, key in ((12, "clean"), (12, "label"), (4, "clean"), (4, "label")):
        truth = true if key == "clean" else given
        expected = [(taken[epoch - 1] == truth).mean() for taken in (one, other)]
        runs = [str(opened.layout.root) for opened in (first, last)]
        paired = xaicli.compare(*runs, mode="train", epoch=epoch, label_key=key).answer.extra["paired"]
        (accuracy,) = [row for row in paired if row["metric"] == "correct"]
        assert accuracy["values"] == pytest.approx(expected), (epoch, key)
        # So are its samples: which are right in each, and which flipped.
        told = xaicli.compare(*runs, mode="train", epoch=epoch, label_key=key, max=80, min=80).data
        right = np.array([taken[epoch - 1] == truth for taken in (one, other)])
        rows = told.filter(pl.col("kind") == "sample").select("sample_id", "group", "correct").rows()
        assert {sample for sample, _, _ in rows} == set(range(80))
        assert all(own == right[:, sample].tolist() for sample, _, own in rows), (epoch, key)
        flipped = {sample for sample, group, _ in rows if group == "flipped"}
        assert flipped == set(np.flatnonzero(right[0] != right[1]).tolist()), (epoch, key)
    confusion = last.confusion(label_key="clean").answer.extra["overall"][-1]
    assert confusion["accuracy"] == pytest.approx((other[-1] == true).mean())


@pytest.mark.parametrize(
    "site", [[f"p{k % 10}" for k in range(40)], [k % 10 for k in range(40)]], ids=["text", "number"]
)
def test_one_value_a_sample_is_no_truth_of_sets(tmp_path, site):
    rng = np.random.default_rng(0)
    labels = (rng.random((40, 4)) < 0.4).astype(int)
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=list("abcd"), resume="never") as run:
        run.log_facts(np.arange(40), site=site)
        for epoch in (1, 2):
            logits = rng.normal(size=(40, 4)) + 2 * labels - 1
            run.log_samples(sample_id=np.arange(40), label=labels, logits=logits, mode="train", epoch=epoch, step=epoch)
    opened = xaicli.open_run(tmp_path / "run")
    for told in (opened.findings(label_key="site"), opened.report(label_key="site")):
        assert told.answer.extra["n_suspects"] == [{"mode": "train", "ds_id": "", "n": 0}]
        assert [said for said in told.answer.warnings if "site cannot be held against the predictions" in said]
        assert not [said for said in told.answer.warnings if "could not be computed" in said]


def test_where_a_column_only_groups_nothing_else_is_made_up(tmp_path):
    """A text says neither what is right nor which label is wrong: said once, in the data as on the page."""
    opened, _, _, _ = mislabelled(tmp_path / "run")
    said = f"--label-key named cannot be held against the predictions of {opened.layout.described}"
    for told in (opened.samples(label_key="named"), opened.report(label_key="named")):
        assert told.answer.warnings.count(f"{said}: samples are told neither right nor wrong") == 1
        assert told.markdown().count("samples are told neither right nor wrong") == 1
    page = opened.report(label_key="named").markdown()
    # Of suspects and of label issues.
    assert page.count("None can be told: --label-key named cannot be held against the predictions of ") == 2
    assert "where predictions tell" not in page
    assert "predicted as" not in str(opened.report(label_key="named"))
    kept = opened.report(label_key="named").answer
    assert not [warning for warning in kept.warnings if "keep_probs" in warning]


def test_the_headline_is_by_the_truth_asked_for(tmp_path):
    opened, true, given, taken = mislabelled(tmp_path / "run")
    by_key = {"label_key": "clean", "mode": "train"}
    for select, truth, words in (({}, given, "labelled"), (by_key, true, "clean says")):
        page = str(opened.report(**select))
        share = f"{100 * (taken[-1] == truth).mean():.1f} %"
        assert f"{share} of 80 train samples with a prediction at epoch 12 are predicted as {words}" in " ".join(
            page.split()
        )


def test_a_spike_names_the_classes_of_the_truth(tmp_path):
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"], resume="never") as run:
        run.log_facts(np.arange(400), clean=[k % 2 for k in range(400)])
        for step in range(40):
            ids, loss = np.arange(step * 10, step * 10 + 10), np.full(10, 0.5 + 0.01 * (step % 3))
            loss[3] += 40 * (step == 30)
            run.log_samples(
                sample_id=ids, label=ids % 2, prediction=ids % 2, loss=loss, mode="train", epoch=1, step=step
            )
    opened = xaicli.open_run(tmp_path / "run")
    for told in (opened.report(label_key="clean"), opened.steps(label_key="clean")):
        (spike,) = told.answer.extra["spikes"]
        assert spike["samples"][0]["sample_id"] == 303
        assert [(row["label"], row["name"]) for row in spike["samples"][:1]] == [(1, "dog")]
        assert {row["name"] for row in spike["mix"] if row["column"] == "label"} <= {"cat", "dog"}


def numbers(root: Path):
    """Predictions of a regression off by noise; the labels of samples 0 to 5 are off by 80, the truth's are not.

    Returns:
        The run, the truth and the predictions of each epoch.
    """
    draw = np.random.default_rng(0)
    n = 200
    age = draw.integers(18, 80, n)
    given = age.astype(float)
    given[:6] += 80
    taken = age + draw.uniform(-3, 3, (4, n))
    taken[:, 150] = age[150] + 25
    with xaicli.Run(root, task="regression") as run:
        camera = ["front", "rear"] * (n // 2)
        run.log_facts(np.arange(n), age=age, exact=age.astype(float) + 0.25, camera=camera)
        for epoch, prediction in enumerate(taken, 1):
            run.log_samples(
                sample_id=np.arange(n), label=given, prediction=prediction, mode="eval", epoch=epoch, step=epoch
            )
    return xaicli.open_run(root), age.astype(float), taken


def far_from(truth: np.ndarray, taken: np.ndarray) -> set[int]:
    """Those more than 3 robust deviations above the median mean absolute residual of their fifth of the truth."""
    off = np.abs(taken - truth).mean(0)
    found: set[int] = set()
    # As `errors` cuts: at the values of the truth itself.
    fifth = np.searchsorted(np.quantile(truth, [0.2, 0.4, 0.6, 0.8], method="inverted_cdf"), truth)
    for part in range(5):
        own = np.flatnonzero(fifth == part)
        middle = np.median(off[own])
        scale = 1.4826 * np.median(np.abs(off[own] - middle))
        found |= {int(one) for one in own if off[one] > middle + 3 * scale}
    return found


@pytest.mark.parametrize("key", ["exact", "age"])
def test_a_column_of_numbers_is_the_truth_of_a_regression_throughout(tmp_path, key):
    opened, age, taken = numbers(tmp_path / "run")
    truth = age if key == "age" else age + 0.25
    wanted = far_from(truth, taken)
    assert 150 in wanted
    assert not wanted & set(range(6))
    said = "loss is as recorded, measured against label and not against"
    found = opened.findings(label_key=key, top=50)
    rows = found.data.filter(pl.col("finding") == "suspect")
    assert set(rows["sample_id"]) == wanted
    assert set(found.data["finding"]) <= {"suspect", "rank_jump"}  # no age is a group that departs
    first = rows.row(0, named=True)
    assert first["sample_id"] == 150
    assert first["label"] == truth[150]
    assert first["suggested_label"] == pytest.approx(taken[:, 150].mean(), rel=1e-6)
    assert f"{np.abs(taken - truth)[:, 150].mean():.3g} over 4 observations" in first["reason"]
    assert f"the median of its fifth of {key} (" in first["reason"]
    assert first["reason"].endswith(f"on average, {key} is {truth[150]:.4g}")
    assert found.answer.selection["label_is_truth"]
    chosen = opened.select(rule="suspects", n=50, label_key=key)
    assert set(chosen.data["sample_id"]) == wanted
    exported = opened.relabel_export(tmp_path / "doubts.csv", rule="suspects", label_key=key)
    assert set(pl.read_csv(tmp_path / "doubts.csv")["sample_id"]) == wanted
    report = opened.report(label_key=key)
    assert set(report.answer.extra["suspects"]["sample_id"]) == wanted
    for told in (found, chosen, exported, report, opened.samples(label_key=key), opened.dynamics(label_key=key)):
        assert [one for one in told.answer.warnings if f"{said} {key}" in one]
    with pytest.raises(XaiError, match="are numbers, and coco has classes"):
        opened.relabel_export(tmp_path / "doubts.json", to="coco", label_key=key)
    # What errors says of the same truth, and what is so without one.
    assert opened.errors(label_key=key).data["mae"][-1] == pytest.approx(np.abs(taken[-1] - truth).mean(), rel=1e-6)
    assert set(range(6)) <= set(opened.findings(top=50).data["sample_id"])
    assert opened.findings().answer.warnings == ()
    assert xaicli.compare(opened, tmp_path / "run", label_key=key).answer.warnings[-1].endswith(f"{said} {key}")


def test_of_a_regression_findings_say_that_a_group_has_no_suspects(tmp_path):
    opened, _, _ = numbers(tmp_path / "run")
    said = f"--label-key camera cannot be held against the predictions of {tmp_path / 'run'}"
    for told in (opened.findings(label_key="camera"), opened.findings(label_key="prediction")):
        assert told.answer.extra["n_suspects"] == [{"mode": "eval", "ds_id": "", "n": 0}]
    found = opened.findings(label_key="camera")
    assert found.answer.warnings == (f"{said}: none is a suspect",)
    assert said in found.html(no_images=True)
    assert "Who is taken for whom" not in opened.report(label_key="camera").markdown()


def test_what_is_right_by_the_recorded_label_is_said_where_a_column_is_no_truth_of_any_run(tmp_path):
    first, _, given, one = mislabelled(tmp_path / "one")
    last, *_, other = mislabelled(tmp_path / "other", other=True)
    said = f"--label-key named cannot be held against the predictions of {tmp_path / 'one'}"
    by_label = f"{said}: what is right is told as recorded, by label"
    compared = xaicli.compare(first, last, mode="train", label_key="named").answer
    (accuracy,) = [row for row in compared.extra["paired"] if row["metric"] == "correct"]
    assert accuracy["values"] == pytest.approx([(taken[-1] == given).mean() for taken in (one, other)])
    assert by_label in compared.warnings
    assert by_label in first.dynamics(label_key="named").answer.warnings
    assert by_label in first.select(rule="forgotten", n=3, mode="train", label_key="named").answer.warnings
    for key in ("label", "clean"):
        assert not [words for words in first.dynamics(label_key=key).answer.warnings if "by label" in words]
        compared = xaicli.compare(first, last, mode="train", label_key=key).answer
        assert not [words for words in compared.warnings if "by label" in words]
    # Losses alone have nothing right or wrong.
    for name in ("plain", "plainer"):
        with xaicli.Run(tmp_path / name) as run:
            run.log_facts([0, 1], camera=["front", "rear"])
            run.log_samples(sample_id=[0, 1], label=[0, 1], loss=[0.1, 0.2], mode="eval", epoch=1, step=1)
    told = xaicli.compare(tmp_path / "plain", tmp_path / "plainer", label_key="camera").answer
    assert told.warnings == ()


def test_without_predictions_a_sample_stands_out_among_those_of_its_column(tmp_path):
    losses = np.linspace(0.1, 0.2, 40)
    losses[7] = 5.0
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts(np.arange(40), camera=["front", "rear"] * 20)
        for epoch in (1, 2, 3):
            run.log_samples(sample_id=np.arange(40), label=[0] * 40, loss=losses, mode="train", epoch=epoch, step=epoch)
    rows = xaicli.open_run(tmp_path / "run").findings(label_key="camera").data
    (suspect,) = rows.filter(pl.col("finding") == "suspect").to_dicts()
    assert suspect["sample_id"] == 7
    assert "robust deviations beyond the median of its camera" in suspect["reason"]


def answered(opened: Any, command: str, *options: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    """The exit status of a command, and its JSON or what it says of why there is none."""
    status = main([command, str(opened.layout.root), *options, "--json"])
    told = capsys.readouterr()
    return status, json.loads(told.out) if status == 0 else told.err


def named(root: Path, **facts: list[Any]) -> tuple[Any, np.ndarray, np.ndarray]:
    """Two hundred samples of classes called by name, one in ten predicted as a dog, and facts of them."""
    rng = np.random.default_rng(0)
    label = rng.choice(["cat", "dog"], 200)
    taken = np.where(rng.random(200) < 0.9, label, "dog")
    with xaicli.Run(root, resume="never") as run:
        run.log_facts(np.arange(200), camera=list(np.where(np.arange(200) % 2, "front", "rear")), **facts)
        for epoch in (1, 2):
            run.log_samples(
                sample_id=np.arange(200),
                label=list(label),
                prediction=list(taken),
                top_prob=np.full(200, 0.93),
                loss=rng.random(200),
                mode="eval",
                epoch=epoch,
                step=epoch,
            )
    return xaicli.open_run(root), label, taken


def test_a_column_without_any_class_of_the_run_only_groups_though_its_kind_is_theirs(tmp_path, capsys):
    opened, label, taken = named(tmp_path / "run")
    said = f"camera cannot be held against the predictions of {tmp_path / 'run'}, for it holds none of their classes"
    for command, *options in (["confusion"], ["select", "--rule", "suspects"]):
        status, told = answered(opened, command, *options, "--label-key", "camera", capsys=capsys)
        assert (status != 0, said in told) == (True, True)
    _, found = answered(opened, "findings", "--label-key", "camera", capsys=capsys)
    assert (found["found"], "label_is_truth" in found["selection"]) == ({}, False)
    assert found["not_looked_for"] == ["suspect", "falling_label", "confused_pair", "over_confident"]
    (words,) = [warning for warning in found["warnings"] if said in warning]
    assert "over-confidence are not looked for; what was forgotten is told as recorded, by label" in words
    _, dynamics = answered(opened, "dynamics", "--label-key", "camera", capsys=capsys)
    assert [row["correctness"] for row in dynamics["rows"]] == (2 * (label == taken)).tolist()
    compared = xaicli.compare(opened, tmp_path / "run", label_key="camera").answer
    (accuracy,) = [row for row in compared.extra["paired"] if row["metric"] == "correct"]
    assert accuracy["values"] == pytest.approx([(label == taken).mean()] * 2)
    assert "Nothing stands out of what could be looked for" in opened.findings(label_key="camera").markdown()


def test_a_truth_that_holds_other_classes_too_says_which(tmp_path, capsys):
    seen = list(np.where(np.arange(200) % 50 == 0, "wolf", "dog"))
    opened, _, taken = named(tmp_path / "run", seen=seen)
    _, told = answered(opened, "confusion", "--label-key", "seen", capsys=capsys)
    assert told["overall"][-1]["accuracy"] == pytest.approx((taken == np.array(seen)).mean())
    where = tmp_path / "run"
    said = f"1 value of seen is no label or prediction of {where}, and no prediction is right there: wolf"
    for command in ("confusion", "findings", "dynamics", "samples"):
        assert answered(opened, command, "--label-key", "seen", capsys=capsys)[1]["warnings"].count(said) == 1
    assert xaicli.compare(opened, where, label_key="seen").answer.warnings.count(said) == 1
    # What a file says of samples of another run is no value here.
    (tmp_path / "more.csv").write_text("sample_id,more\n0,dog\n1,cat\n999,wolf\n")
    options = ("--label-key", "more", "--facts", str(tmp_path / "more.csv"))
    assert not [w for w in answered(opened, "confusion", *options, capsys=capsys)[1]["warnings"] if "wolf" in w]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_whole_numbers_held_as_floats_beside_missing_ones_are_classes(tmp_path, capsys, ending):
    opened, true, _, taken = mislabelled(tmp_path / "run")
    gold = pl.DataFrame({"sample_id": np.arange(80), "gold": [float(k) if i % 7 else None for i, k in enumerate(true)]})
    path = tmp_path / f"gold.{ending}"
    gold.write_csv(path) if ending == "csv" else gold.write_parquet(path)
    known = np.arange(80) % 7 != 0
    right = (taken == true)[:, known]
    options = ("--mode", "train", "--label-key", "gold", "--facts", str(path))
    _, told = answered(opened, "confusion", *options, capsys=capsys)
    assert (told["overall"][-1]["n"], told["overall"][-1]["without_label"]) == (known.sum(), 80 - known.sum())
    assert [one["accuracy"] for one in told["overall"]] == pytest.approx(list(right.mean(1)))
    assert {row["name"] for row in told["rows"]} == {"cat", "dog", "owl"}
    _, dynamics = answered(opened, "dynamics", *options, capsys=capsys)
    told = [row["correctness"] for row, there in zip(dynamics["rows"], known, strict=True) if there]
    assert told == list(right.sum(0))
    assert answered(opened, "findings", *options, capsys=capsys)[1]["not_looked_for"] == []
    compared = xaicli.compare(opened, tmp_path / "run", mode="train", label_key="gold", facts=path).answer
    (accuracy,) = [row for row in compared.extra["paired"] if row["metric"] == "correct"]
    assert accuracy["values"] == pytest.approx([right[-1].mean()] * 2)


def test_measured_numbers_are_no_classes_though_some_are_whole(tmp_path, capsys):
    opened, *_ = mislabelled(tmp_path / "run")
    for values in ("0.0,1.0,7.0", "0.0,1.5,2.0"):
        lines = "".join(f"{i},{value}\n" for i, value in enumerate(values.split(",")))
        (tmp_path / "m.csv").write_text("sample_id,size\n" + lines)
        options = ("--mode", "train", "--label-key", "size", "--facts", str(tmp_path / "m.csv"))
        status, told = answered(opened, "confusion", *options, capsys=capsys)
        assert (status != 0, "--label-key size cannot be held against" in told) == (True, True)


@pytest.mark.parametrize("loss", [None, float("nan")])
def test_findings_and_a_rule_of_suspects_say_that_nothing_speaks_of_any_label(tmp_path, capsys, loss):
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in (1, 2):
            beside = {"other": [0.5] * 40} if loss is None else {"loss": [loss] * 40}
            taken = [(i + (i % 5 == 0)) % 3 for i in range(40)]
            label = [i % 3 for i in range(40)]
            place = {"mode": "train", "epoch": epoch, "step": epoch}
            run.log_samples(sample_id=range(40), label=label, prediction=taken, **place, **beside)
    opened = xaicli.open_run(tmp_path / "run")
    why = "no label has a finite value that could speak for or against it"
    for command, *options in (["findings"], ["select", "--rule", "suspects", "--n", "3"]):
        _, told = answered(opened, command, *options, "--mode", "train", capsys=capsys)
        assert f"no suspects of train can be told: {why}" in told["warnings"]
    found = opened.findings(mode="train")
    assert found.answer.extra["not_looked_for"] == ["suspect"]
    assert "Nothing stands out of what could be looked for" in found.markdown()
    assert f"None can be told: {why}" in opened.report(mode="train").markdown()


def test_a_fact_that_stands_for_the_label_is_in_a_mix_once(tmp_path, capsys):
    opened, *_ = named(tmp_path / "run")
    by_key = ("--label-key", "camera")
    _, chosen = answered(opened, "select", "--rule", "hardest", "--n", "20", *by_key, capsys=capsys)
    assert [(row["column"], row["value"], row["n"]) for row in chosen["mix"]] == [
        ("camera", "front", 100),
        ("camera", "rear", 100),
    ]
    _, told = answered(opened, "steps", "--step", "2", "--mode", "eval", *by_key, capsys=capsys)
    assert sorted(row["name"] for row in told["batches"][0]["mix"]) == ["front", "rear"]


def unlabelled(root: Path, task: str) -> tuple[Any, list[int], list[int]]:
    """Ninety predictions, one in nine wrong by the fact truth, of a run that was told no label."""
    n = 3 if task == "classification" else 2
    true = [i % n for i in range(90)]
    taken = [(label + (i % 9 == 0)) % n for i, label in enumerate(true)]
    logits = np.zeros((90, n), np.float32)
    logits[np.arange(90), taken] = 6
    with xaicli.Run(root, task=task) as run:
        run.log_facts(range(90), truth=true)
        z = logits if n == 3 else logits[:, 1] - logits[:, 0]
        run.log_samples(sample_id=range(90), logits=z, mode="eval", epoch=1, step=1)
    return xaicli.open_run(root), true, taken


@pytest.mark.parametrize("task", ["classification", "binary"])
def test_predictions_without_labels_are_held_against_a_fact(tmp_path, capsys, task):
    opened, true, taken = unlabelled(tmp_path / "run", task)
    status, told = answered(opened, "confusion", "--label-key", "truth", capsys=capsys)
    assert (status, told["overall"][-1]["accuracy"]) == (0, pytest.approx(80 / 90))
    cells = {(one["label"], one["prediction"]): one["n"] for one in told["cells"]}
    assert cells == {pair: list(zip(true, taken, strict=True)).count(pair) for pair in zip(true, taken, strict=True)}
    (sure,) = told["calibration"]
    top = 1 / (1 + (1 if task == "binary" else 2) * np.exp(-6))
    assert (sure["n"], sure["over_confidence"]) == (90, pytest.approx(top - 80 / 90, abs=1e-5))
    found = opened.findings(label_key="truth", metric="top_prob").answer
    assert found.extra["found"]["over_confident"] == 1
    status, told = answered(opened, "confusion", capsys=capsys)
    assert (status != 0, "has no labels" in told) == (True, True)
    assert "--label-key COLUMN" in told


def doubled(root: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """A run whose recorded labels, predictions and true classes all differ."""
    i = np.arange(120)
    label = i % 2
    taken = np.where(i % 5 == 0, 1 - label, label)
    truth = np.where(i % 6 == 0, 1 - label, label)
    with xaicli.Run(root, label_names=["cat", "dog"]) as run:
        run.log_facts(i, truth=truth)
        sure = {"top_prob": np.full(120, 0.9), "loss": 0.1 + i / 120}
        run.log_samples(sample_id=i, label=label, prediction=taken, mode="eval", epoch=1, step=1, **sure)
    return xaicli.open_run(root), {"label": label, "taken": taken, "truth": truth}


@pytest.mark.parametrize("by", ["label", "correct"])
def test_groups_by_a_recorded_column_are_of_what_was_recorded(tmp_path, by):
    opened, held = doubled(tmp_path / "run")
    groups = held["label"] if by == "label" else (held["label"] == held["taken"]).astype(int)
    right = held["truth"] == held["taken"]
    names = ["cat", "dog"] if by == "label" else [False, True]
    expected = [(names[one], int((groups == one).sum()), right[groups == one].mean()) for one in (0, 1)]
    told = opened.confusion(label_key="truth", by=by).answer.extra["by"]
    assert [(row["value"], row["n"], row["accuracy"]) for row in told] == [
        (name, n, pytest.approx(share)) for name, n, share in expected
    ]
    told = opened.errors(label_key="truth", by=by).answer.extra["groups"]
    assert [(row["n"], row["accuracy"]) for row in told] == [(n, pytest.approx(share)) for _, n, share in expected]
    if by == "label":
        assert [row["value"] for row in told] == names


def test_a_list_balanced_by_the_recorded_label_is_so_beside_another_truth(tmp_path):
    opened, held = doubled(tmp_path / "run")
    answer = opened.select(rule="balanced", by="label", n=40, label_key="truth").answer
    mix = {(row["column"], row["value"]): (row["n"], row["chosen"]) for row in answer.extra["mix"]}
    assert {name: mix["label", name] for name in ("cat", "dog")} == {"cat": (60, 20), "dog": (60, 20)}
    chosen = answer.data["sample_id"].to_numpy()
    for value, name in enumerate(("cat", "dog")):
        own = held["truth"] == value
        assert mix["truth", name] == (own.sum(), own[chosen].sum())


def test_fifths_of_another_truth_are_named_by_it_and_stand_beside_those_of_the_label(tmp_path):
    i = np.arange(100)
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        run.log_facts(i, measured=99.0 - i)
        run.log_samples(sample_id=i, label=i * 1.0, prediction=i + 0.5, mode="eval", epoch=1, step=1)
    told = xaicli.open_run(tmp_path / "run").errors(label_key="measured", by="label")
    off = np.abs(99.0 - i - (i + 0.5))
    fifths = {"measured": [off[i >= 80], off[i < 20]], "label": [off[i < 20], off[i >= 80]]}
    for column, (first, last) in fifths.items():
        rows = [row for row in told.answer.extra["groups"] if row["column"] == column]
        assert len(rows) == 5
        assert [rows[0]["mae"], rows[-1]["mae"]] == pytest.approx([first.mean(), last.mean()])
    assert "most where measured is" in told.markdown()


def test_kept_probabilities_without_labels_are_said_to_lack_labels_alone(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run", keep_probs=True) as run:
        run.log_facts([0, 1, 2], part=[0, 1, 2])
        run.log_samples(sample_id=[0, 1, 2, 3], probs=np.full((4, 3), 1 / 3), mode="eval", epoch=1, step=1)
        run.log_samples(sample_id=[3], probs=np.full((1, 3), 1 / 3), mode="infer", epoch=1, step=1)
    opened = xaicli.open_run(tmp_path / "run")
    said = "no label was recorded beside the class probabilities of eval"
    report = opened.report(metric="top_prob").answer.warnings
    assert (said in report, [w for w in report if "keep_probs" in w]) == (True, [])
    for where, options in ((said, ()), ("no sample has a part", ("--label-key", "part", "--mode", "infer"))):
        asked = ("--rule", "label_issues", "--n", "2", "--metric", "top_prob", *options)
        status, told = answered(opened, "select", *asked, capsys=capsys)
        assert (status != 0, where in told, "keep_probs" in told, "label=..." in told) == (True, True, False, True)


def test_findings_of_sets_by_a_key_that_only_groups_look_for_no_single_label_in_doubt(tmp_path):
    found = recorded(tmp_path / "run", "sets").findings(label_key="camera").answer
    kinds = ["suspect", "doubted_label", "falling_label", "confused_pair", "over_confident"]
    assert found.extra["not_looked_for"] == kinds
    assert any("single labels in doubt, falling labels" in warning for warning in found.warnings)
