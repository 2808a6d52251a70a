"""`xai steps` on a training with a bad batch, against plain Python."""

import json
import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

import xaicli
from xaicli.cli import main
from xaicli.diagnosis.steps import gaps
from xaicli.errors import XaiError
from xaicli.reader import Reader
from xaicli.report.charts import LineChart, Multiples
from xaicli.report.model import Table

N, BATCH, EPOCHS = 240, 8, 5
SPIKES = [41, 71, 101, 131]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A training of four spikes and one NaN; samples 7, 8 and 9 stand in each spike: {step: {sample: loss}}."""
    path = tmp_path_factory.mktemp("steps") / "run"
    rng = np.random.default_rng(0)
    logged, step = {}, 0
    with xaicli.Run(path, label_names=["cat", "dog"]) as run:
        for epoch in range(1, EPOCHS + 1):
            order = rng.permutation([i for i in range(N) if i not in (7, 8, 9)]).tolist()
            batches = [order[at : at + BATCH] for at in range(0, len(order), BATCH)]
            batches[10] = [7, 8, 9, *batches[10][3:]]
            for ids in batches:
                step += 1
                loss = np.exp(rng.normal(-1, 0.1, len(ids)) - step / 100)
                if step in SPIKES:
                    loss[:3] *= 60
                if step == 77:
                    loss[0] = math.nan
                run.log_samples(
                    sample_id=ids, label=[i % 2 for i in ids], loss=loss, mode="train", epoch=epoch, step=step
                )
                logged[step] = dict(zip(ids, loss.astype(np.float32).tolist(), strict=True))
        run.log_samples(sample_id=[0], label=[0], loss=[0.1], mode="eval", epoch=1, step=1)
    return path, logged


def asked(capsys, *arguments):
    assert main(["steps", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_batch_and_the_spikes(recorded, capsys):
    path, logged = recorded
    found = asked(capsys, path)
    assert found["selection"]["mode"] == ["train"]
    for row in found["rows"]:
        values = [v for v in logged[row["step"]].values() if not math.isnan(v)]
        assert row["loss"] == pytest.approx(sum(values) / len(values), rel=1e-6)
        assert row["n"] == len(logged[row["step"]])
    assert [row["step"] for row in found["rows"] if row["is_spike"]] == SPIKES
    first = found["spikes"][0]
    assert {spike["step"] for spike in found["spikes"]} == set(SPIKES)
    assert [s["height"] for s in found["spikes"]] == sorted((s["height"] for s in found["spikes"]), reverse=True)
    total = sum(logged[first["step"]].values())
    for sample in first["samples"]:
        assert sample["share"] == pytest.approx(logged[first["step"]][sample["sample_id"]] / total, rel=1e-5)
    assert {sample["sample_id"] for sample in first["samples"][:3]} == {7, 8, 9}
    (bad,) = found["first_non_finite"]
    assert (bad["step"], bad["non_finite"]) == (77, 1)
    assert bad["samples"][0]["value"] is None
    assert found["counts"]["non_finite"] == 1
    assert {row["sample_id"] for row in found["returning"]} == {7, 8, 9}
    assert len(asked(capsys, path, "--spikes", 1)["spikes"]) == 1


def test_one_step_with_histories(recorded, capsys):
    path, logged = recorded
    found = asked(capsys, path, "--step", 41)
    losses = logged[41]
    assert [row["sample_id"] for row in found["rows"]] == sorted(losses, key=lambda i: -losses[i])
    history = found["rows"][0]["history"]
    sample = found["rows"][0]["sample_id"]
    assert [point["value"] for point in history] == pytest.approx(
        [batch[sample] for batch in logged.values() if sample in batch]
    )
    everywhere = [i % 2 for batch in logged.values() for i in batch]
    for item in found["mix"]:
        assert item["n"] == sum(i % 2 == item["label"] for i in losses)
        assert item["expected"] == pytest.approx(len(losses) * everywhere.count(item["label"]) / len(everywhere))


def test_the_mix_of_a_batch_of_one_step_has_every_value(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        for step in (1, 2):
            run.log_samples(
                sample_id=range(30), label=list(range(30)), loss=[1.0] * 30, mode="train", epoch=1, step=step
            )
    (batch,) = (found := asked(capsys, tmp_path / "run", "--step", 1))["batches"]
    assert sorted(item["label"] for item in batch["mix"]) == list(range(30))
    assert len(found["mix"]) == len(found["rows"]) == 30


def test_around_a_step(recorded, capsys):
    path, logged = recorded
    found = asked(capsys, path, "--around", 70)
    assert [row["step"] for row in found["rows"]] == [s for s in logged if abs(s - 70) <= 50]
    assert {spike["step"] for spike in found["spikes"]} == {41, 71, 101}


def test_every_row_of_a_batch_counts(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="train", epoch=1, step=1)
        run.log_samples(sample_id=[1, 3], loss=[5.0, 7.0], mode="train", epoch=1, step=2)
    assert [row["loss"] for row in asked(capsys, tmp_path / "run")["rows"]] == [1.5, 6.0]
    last = asked(capsys, tmp_path / "run", "--duplicates", "last")
    assert [row["loss"] for row in last["rows"]] == [2.0, 6.0]
    assert last["counts"]["duplicates"] == 1


def test_pages_and_what_cannot_be_asked(recorded):
    run = xaicli.open_run(recorded[0])
    page = run.steps().html()
    assert "4 spikes of loss" in page
    assert "#7" in page
    assert "Step 41 of epoch 2 jumped to" in run.steps(step=41).html()
    for words, said in (
        ({"step": 9999}, "9999"),
        ({"around": 9999}, "9999"),
        ({"around": -5}, "--around"),
        ({"step": 3, "spikes": 2}, "--step"),
    ):
        with pytest.raises(XaiError) as error:
            run.steps(**words)
        assert said in error.value.message


@pytest.mark.parametrize("few", [False, True])
def test_labels_that_are_numbers_are_told_by_fifth(tmp_path, capsys, few):
    """Batch 20 has the highest labels alone; fifths are by all rows, and samples differ in how many they have."""
    rng = np.random.default_rng(0)
    target = np.round(rng.gamma(2, 3, 200), 5) if not few else rng.integers(0, 4, 200) + 0.5
    target[0] = math.nan
    rows, batches = [], {}
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        for step in range(1, 41):
            ids = rng.choice(200, 10, replace=False, p=np.arange(1, 201) / 20100)
            if step == 20:
                ids = np.argsort(np.nan_to_num(target))[-10:]
            loss = rng.uniform(0.9, 1.1, 10) * (50 if step == 20 else 1)
            run.log_samples(
                sample_id=ids,
                label=target[ids],
                prediction=target[ids] + 1,
                loss=loss,
                mode="train",
                epoch=1,
                step=step,
            )
            batches[step] = target[ids].astype(np.float32)
            rows += batches[step].tolist()
    known = np.array([value for value in rows if not math.isnan(value)])
    ends = np.quantile(known, [0.2, 0.4, 0.6, 0.8]) if not few else np.unique(known)[:-1]
    (batch,) = asked(capsys, tmp_path / "run", "--step", 20)["batches"]
    found = [item for item in batch["mix"] if item["column"] == "label"]
    n = [item["n"] for item in found if item["name"] != "missing"]
    expected = [item["expected"] for item in found if item["name"] != "missing"]
    every = np.bincount(np.searchsorted(ends, known), minlength=len(ends) + 1)
    here = np.bincount(np.searchsorted(ends, batches[20]), minlength=len(ends) + 1)
    assert sorted(n) == sorted(here.tolist())
    assert sorted(expected) == pytest.approx(sorted(10 * every / len(rows)))
    assert {item["label"] for item in found} == {None}
    if len(rows) > len(known):
        assert [item["n"] for item in found if item["name"] == "missing"] == [0]
    first = found[0]
    assert (first["n"], first["name"]) == (10, "3.5") if few else first["name"].startswith("above")
    assert first["p"] == pytest.approx(stats.binom.sf(9, 10, first["expected"] / 10))
    report = xaicli.open_run(tmp_path / "run").steps().report
    (table,) = (b for b in report.sections[0].blocks if isinstance(b, Table) and "against the mix" in b.title)
    assert table.rows[0][:3] == ("label", first["name"], 10)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A training whose gradients turn NaN at step 40: every loss is NaN from 41 on; steps 21 to 23 were not logged."""
    path = tmp_path_factory.mktemp("steps") / "run"
    rng = np.random.default_rng(1)
    with xaicli.Run(path) as run:
        run.log_facts(list(range(64)), camera=["front" if i < 8 else "back" for i in range(64)])
        for step in range(1, 61):
            epoch = 1 + (step > 30)
            ids = rng.permutation(np.arange(8, 64))[:8] if step != 15 else np.arange(8)
            loss = rng.uniform(0.9, 1.1, 8) if step <= 40 else np.full(8, math.nan)
            if step == 15:
                loss *= 20
            run.log({"lr": 0.1 / step, "grad_norm": math.nan if step == 40 else 1 + step % 3, "step": step})
            if step not in (21, 22, 23):
                run.log_samples(sample_id=ids, loss=loss, mode="train", epoch=epoch, step=step)
    return path


def test_nan_gradients_are_told_by_the_batch_before(broken, capsys):
    found = asked(capsys, broken)
    (first,) = found["first_non_finite"]
    assert (first["step"], first["non_finite"], first["loss"]) == (41, 8, None)
    assert first["before"]["step"] == 40
    assert len(first["before"]["samples"]) == 5
    assert sum(row["share"] for row in first["before"]["samples"]) == pytest.approx(5 / 8, abs=0.05)
    assert found["non_finite_scalars"] == [
        {"mode": "train", "ds_id": "", "key": "grad_norm", "epoch": None, "step": 40, "n": 1}
        | {"last_epoch": None, "last_step": 40, "counts_otherwise": False}
    ]
    told = xaicli.open_run(broken).steps().report.sentence
    assert "at step 41 of epoch 2, in all 8 samples" in told
    assert "look at the batch before it, step 40" in told
    assert "no few samples hold it" in told
    assert "grad_norm at step 40" in told


def test_scalars_stand_beside_a_spike(broken, capsys):
    (spike,) = asked(capsys, broken)["spikes"]
    scalars = {row["key"]: row for row in spike["scalars"]}
    assert spike["step"] == 15
    assert scalars["lr"]["value"] == pytest.approx(0.1 / 15)
    assert scalars["lr"]["usual"] == pytest.approx(np.median([0.1 / s for s in range(1, 61)]))
    assert scalars["grad_norm"] == {"key": "grad_norm", "epoch": None, "step": 15, "value": 1.0, "usual": 2.0}


def test_facts_of_a_spike_against_the_expected(broken, capsys):
    (spike,) = asked(capsys, broken)["spikes"]
    assert spike["samples"][0]["facts"] == {"camera": "front"}
    front = next(item for item in spike["mix"] if item["name"] == "front")
    assert (front["column"], front["n"]) == ("camera", 8)
    rows = 57 * 8
    assert front["expected"] == pytest.approx(8 * 8 / rows)
    assert front["p"] == pytest.approx((8 / rows) ** 8)
    assert front["q"] == pytest.approx(2 * front["p"])


def test_steps_that_were_not_logged_are_gaps(broken, capsys):
    found = asked(capsys, broken)
    assert found["gaps"] == [
        {"mode": "train", "ds_id": "", "epoch": 1, "rank": 0, "after": 20, "before": 24, "missing": 3}
    ]


def test_the_first_sentence_tells_the_longest_gap(broken, recorded):
    first = xaicli.open_run(broken).steps().report.sentence.split(". ")[0]
    assert first == "57 batches, 1 spike of loss; the longest gap: between steps 20 and 24 of epoch 1 (3 batches)"
    assert "gap" not in xaicli.open_run(recorded[0]).steps().report.sentence


def test_the_help_tells_which_modes_are_taken(broken, capsys):
    assert main(["steps", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "[default: train, else eval]" in said
    assert "[default: eval]" not in said
    assert asked(capsys, broken)["selection"]["mode"] == ["train"]


@pytest.mark.parametrize("metric", ["correct", "margin", "label_prob"])
def test_a_rise_of_what_is_good_is_no_spike(tmp_path, capsys, metric):
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(1, 61):
            value = [1.0, 1.0] if step == 30 else [0.0, 1.0 / (4 + step % 3)]
            value = np.array(value) > 0.5 if metric == "correct" else value
            run.log_samples(sample_id=[1, 2], mode="train", epoch=1, step=step, **{metric: value})
    for more in ([], ["--step", "30"], ["--metric", metric]):
        assert main(["steps", str(tmp_path / "run"), *more]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"a rise of {metric} is no spike, since high is good there" in said
        assert "--metric loss" in said
    assert main(["findings", str(tmp_path / "run"), "--mode", "train", "--metric", metric, "--json"]) == 0
    assert [row for row in json.loads(capsys.readouterr().out)["rows"] if row["finding"] == "spike"] == []
    assert main(["check", str(tmp_path / "run"), "--rule", "spikes <= 0", "--json"]) == 2
    (rule,) = json.loads(capsys.readouterr().out)["rows"]
    assert rule["value"] is None


def test_a_rise_of_what_nobody_said_is_bad_is_told_and_judged_by_none(tmp_path, capsys):
    run = tmp_path / "run"
    with xaicli.Run(run) as recorder:
        for step in range(1, 61):
            value = [9.0, 9.0] if step == 30 else [0.5, 1.0 / (4 + step % 3)]
            recorder.log_samples(sample_id=[1, 2], iou=value, mode="train", epoch=1, step=step)
    found = asked(capsys, run)
    assert [spike["step"] for spike in found["spikes"]] == [30]
    assert "which end of iou is good is not known: its rises are told as spikes" in found["warnings"]
    assert asked(capsys, run, "--step", "30")["warnings"] == found["warnings"]
    for question in ([], ["--step", "30"]):
        assert main(["steps", str(run), *question, "--format", "md,html", "-o", str(tmp_path / "pages"), "-q"]) == 0
    capsys.readouterr()
    told = (tmp_path / "pages" / "steps.md").read_text()
    assert "| step | epoch | rank | iou | usual |" in told
    for page in ("steps", "step-30"):
        assert "By share of iou: step 30" in (tmp_path / "pages" / f"{page}.md").read_text()
        assert "loss" not in (tmp_path / "pages" / f"{page}.md").read_text()
    assert main(["findings", str(run), "--mode", "train", "--metric", "iou", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row for row in told["rows"] if row["finding"] == "spike"] == []
    assert any("which end of iou is good is not known" in said for said in told["warnings"])
    assert main(["check", str(run), "--rule", "spikes <= 0", "--json"]) == 2
    (rule,) = json.loads(capsys.readouterr().out)["rows"]
    assert rule["outcome"] == "not asked"
    assert "which end of iou is good is not known" in rule["reason"]
    assert main(["watch", str(run), "--once", "--json"]) == 0
    assert any("which end of iou is good" in said for said in json.loads(capsys.readouterr().out)["warnings"])


def test_distances_between_steps():
    every = steps_of([10, 20, 30, 60, 70, 80, 90], epoch=1)
    assert gaps(every).rows() == [(1, 0, 30, 60, 2)]
    uneven = steps_of([1, 2, 5, 7, 8, 20], epoch=1)
    assert gaps(uneven).height == 0
    both = pl.concat([steps_of([1, 2, 3, 4, 5], epoch=1), steps_of([900, 901, 902], epoch=2)])
    assert gaps(both).height == 0
    assert gaps(every.clear()).columns == ["epoch", "rank", "after", "before", "missing"]
    assert gaps(steps_of([4], epoch=1)).height == 0


def steps_of(numbers, *, epoch):
    return pl.DataFrame({"epoch": epoch, "step": numbers, "rank": 0}, schema_overrides={"rank": pl.Int16})


def test_samples_of_a_spike_say_where_else_they_stood(recorded, capsys):
    path, logged = recorded
    for spike in asked(capsys, path)["spikes"]:
        for sample in spike["samples"]:
            others = [s for s in SPIKES if s != spike["step"] and sample["sample_id"] in logged[s]]
            assert sample["also_in"] == others
            values = [batch[sample["sample_id"]] for batch in logged.values() if sample["sample_id"] in batch]
            known = [value for value in values if not math.isnan(value)]
            assert [p["value"] for p in sample["history"] if p["value"] is not None] == pytest.approx(known)


def test_each_epoch_is_read_once_for_the_spikes(recorded, monkeypatch):
    read = []
    own = Reader.of_epoch

    def noted(self, place, columns, *args, **options):
        read.append((place.epoch, tuple(columns)))
        return own(self, place, columns, *args, **options)

    monkeypatch.setattr(Reader, "of_epoch", noted)
    xaicli.open_run(recorded[0]).steps()
    whole = [epoch for epoch, columns in read if {"sample_id", "step", "loss"} <= set(columns)]
    assert sorted(whole) == sorted(set(whole))
    assert len(read) == len(set(read))


def test_the_order_of_steps_survives_parts_and_compaction(tmp_path, capsys):
    """Batches of two ranks in many parts; the same sample twice an epoch."""
    path = tmp_path / "run"
    rng = np.random.default_rng(2)
    logged = {}
    for rank in (0, 1):
        with xaicli.Run(path, rank=rank) as run:
            for epoch in (1, 2):
                for step in range(30):
                    ids = rng.integers(0, 50, 4)
                    loss = rng.uniform(1, 2, 4).astype(np.float32)
                    number = 30 * epoch + step
                    run.log_samples(sample_id=ids, loss=loss, mode="train", epoch=epoch, step=number)
                    logged[number, rank] = (ids.tolist(), loss.tolist())
                    if step % 7 == 0:
                        run.flush()

    def held():
        found = asked(capsys, path)
        assert [(row["epoch"], row["step"], row["rank"]) for row in found["rows"]] == sorted(
            (step // 30, step, rank) for step, rank in logged
        )
        for row in found["rows"]:
            assert row["loss"] == pytest.approx(np.mean(logged[row["step"], row["rank"]][1]), rel=1e-6)
        one = asked(capsys, path, "--step", 47)["rows"]
        for rank in (0, 1):
            rows = [(row["sample_id"], row["value"]) for row in one if row["rank"] == rank]
            assert sorted(rows) == sorted(zip(*logged[47, rank], strict=True))

    held()
    assert main(["compact", str(path)]) == 0
    capsys.readouterr()
    held()


def test_only_what_is_not_finite_is_named(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(1, 9):
            run.log_samples(
                sample_id=[step, step + 100],
                loss=[math.inf if step == 7 else 0.0, 0.0],
                mode="train",
                epoch=1,
                step=step,
            )
    assert "in 1 of 2 samples: #7." in xaicli.open_run(tmp_path / "run").steps().report.sentence


def test_samples_without_a_loss_hide_no_sample_that_made_a_spike(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(1, 31):
            losses = [None] * 6 + [1.0, 90.0 if step == 20 else 1.0]
            labels = [None] * 6 + [0, 1]
            ids = np.arange(step * 8, step * 8 + 8)
            run.log_samples(sample_id=ids, label=labels, loss=losses, mode="train", epoch=1, step=step)
    found = asked(capsys, tmp_path / "run")
    (spike,) = found["spikes"]
    assert (spike["n"], spike["non_finite"], spike["missing"], spike["loss"]) == (8, 0, 6, 45.5)
    assert [(row["sample_id"], row["value"], row["name"]) for row in spike["samples"]] == [
        *((167, 90.0, "1"), (166, 1.0, "0")),
        *((sample_id, None, None) for sample_id in (160, 161, 162)),
    ]
    assert [row["share"] for row in spike["samples"][:3]] == pytest.approx([90 / 91, 1 / 91, None])
    assert {row["name"] for row in spike["mix"]} == {"(missing)", "0", "1"}
    assert found["first_non_finite"] == []
    opened = xaicli.open_run(tmp_path / "run")
    (reason,) = opened.findings(mode="train").data.filter(finding="spike")["reason"]
    assert reason == "loss 45.5 (usual 1) at step 20, most of it of #167 99 %, #166 1 %"
    report = opened.steps().report
    assert "over 2 of 8 samples, the others are without loss: one sample holds 99 % of it" in report.sentence
    said = opened.steps().html(no_images=True)
    assert "#167 99 %, #166 1 %, #160 missing" in said
    assert "not finite" not in said


def test_a_batch_whose_every_loss_is_nan_or_missing_is_told_by_the_one_before(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        for step, losses in enumerate([[1.0, None, 2.0], [math.nan, None, math.nan], [8.0, None, None]]):
            labels = [0.5, math.nan, 2.5]
            run.log_samples(sample_id=[1, 2, 3], label=labels, loss=losses, mode="train", epoch=1, step=step)
    found = asked(capsys, tmp_path / "run")
    assert [(row["loss"], row["non_finite"], row["missing"]) for row in found["rows"]] == [
        *((1.5, 0, 1), (None, 2, 1), (8.0, 0, 2)),
    ]
    (first,) = found["first_non_finite"]
    assert [row["sample_id"] for row in first["samples"]] == [1, 3, 2]
    assert [row["sample_id"] for row in first["before"]["samples"]] == [3, 1, 2]
    assert not any("name" in row for row in first["samples"])
    said = xaicli.open_run(tmp_path / "run").steps().report.sentence
    assert "not finite came at step 1 of epoch 1, in all 2 samples that have one (1 does not): the weights" in said


def test_what_two_attempts_logged_at_a_step_is_two_batches(tmp_path):
    rng = np.random.default_rng(0)
    logged = {}
    for attempt, steps in enumerate((range(1, 61), range(41, 101))):
        with xaicli.Run(tmp_path / "run") as run:
            for step in steps:
                loss = rng.uniform(0.9, 1.1, 4) * (30 if (attempt, step) == (0, 50) else 1)
                run.log_samples(sample_id=np.arange(4), label=[0] * 4, loss=loss, mode="train", epoch=1, step=step)
                logged[attempt, step] = float(loss.mean())
    opened = xaicli.open_run(tmp_path / "run")
    every = {(row["attempt"], row["step"]): row for row in opened.steps(attempts="all").data.to_dicts()}
    assert {key: row["loss"] for key, row in every.items()} == pytest.approx(logged, rel=1e-6)
    assert [key for key, row in every.items() if row["is_spike"]] == [(0, 50)]
    last = opened.steps()
    assert last.data.height == 100
    assert not last.data["is_spike"].any()
    one = opened.steps(step=50, attempts="all")
    assert [(batch["attempt"], batch["n"]) for batch in one.answer.extra["batches"]] == [(0, 4), (1, 4)]
    shares = one.data.group_by("attempt").agg(pl.col("share").sum())["share"]
    assert shares.to_list() == pytest.approx([1, 1])
    assert "attempt 1" in one.html()


def test_rows_that_no_step_tells_apart_are_told(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in (1, 2):
            for _ in range(3):
                run.log_samples(sample_id=np.arange(4), label=[0] * 4, loss=[1.0] * 4, mode="train", epoch=epoch)
    found = xaicli.open_run(tmp_path / "run").steps()
    said = "all rows of train of an epoch were logged at one step: each epoch is told as one batch"
    assert said in found.answer.warnings


@pytest.mark.parametrize(("metric", "called"), [("q", "q"), ("usual", "mean")])
def test_the_mean_of_a_batch_has_the_name_of_the_metric(tmp_path, metric, called):
    losses = {step: 1.0 + 0.01 * (step % 3) for step in range(1, 41)} | {30: 50.0}
    with xaicli.Run(tmp_path / "run") as run:
        for step, value in losses.items():
            run.log_samples(sample_id=[1, 2], mode="train", epoch=1, step=step, **{metric: [value, value + 1]})
        run.log_samples(sample_id=[1, 2], mode="train", epoch=1, step=41, **{metric: [math.nan, math.nan]})
    result = xaicli.open_run(tmp_path / "run").steps(metric=metric)
    told = json.loads(result.to_json())
    assert [row[called] for row in told["rows"]] == pytest.approx([value + 0.5 for value in losses.values()] + [None])
    assert [(row["step"], row[called]) for row in told["spikes"]] == [(30, 50.5)]
    (first,) = told["first_non_finite"]
    assert (first[called], first["before"][called]) == (None, pytest.approx(losses[40] + 0.5))
    assert not {"loss", None} & {key for row in told["rows"] for key in row}
    assert "jumped to 50.5 (usual 1.5" in result.html(no_images=True)
    one = json.loads(xaicli.open_run(tmp_path / "run").steps(metric=metric, step=30).to_json())
    assert [batch[called] for batch in one["batches"]] == [50.5]


def one_step_again_each_epoch(root, *, scalars):
    """Four epochs of 60 steps from 0; sample 999 makes step 7 of two of them jump; `scalars` gives what is logged."""
    rng = np.random.default_rng(3)
    with xaicli.Run(root) as run:
        for epoch in range(1, 5):
            for step in range(60):
                ids, loss = np.arange(step * 8, step * 8 + 8), rng.uniform(0.9, 1.1, 8)
                if step == 7 and epoch in (2, 4):
                    ids[0], loss[0] = 999, 80
                run.log_samples(sample_id=ids, label=ids % 3, loss=loss, mode="train", epoch=epoch, step=step)
                run.log(scalars(epoch, step))
    return root


def test_samples_of_a_spike_are_said_to_stand_in_no_other_than_theirs(tmp_path, capsys):
    """Two samples make each spike: what one of them stood in is not said of both."""
    pairs = {30: (900, 901), 50: (900, 901), 70: (900, 902), 90: (901, 902)}
    pairs |= {130: (903, 904), 150: (903, 905), 170: (904, 906)}
    rng = np.random.default_rng(3)
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(200):
            ids, loss = np.arange(8) + 8 * step % 800, rng.uniform(0.9, 1.1, 8)
            for place, odd in enumerate(pairs.get(step, ())):
                ids[place], loss[place] = odd, 5000 if step in (130, 150) else 500
            run.log_samples(sample_id=ids, label=ids % 3, loss=loss, mode="train", epoch=1, step=step)
    expected = {
        30: "all of them also stood in the spike at 50, some in others too",
        70: "each of them also stood in some of the spikes at 30, 50 and 90",
        130: "each of them also stood in one of the spikes at 150 and 170",
        150: "one of them also stood in the spike at 130",
    }
    found = asked(capsys, tmp_path / "run", "--spikes", "9")["spikes"]
    assert {spike["step"] for spike in found} == set(pairs)
    opened = xaicli.open_run(tmp_path / "run")
    for step, said in expected.items():
        assert f"% of it; {said}." in opened.steps(step=step).report.sentence
    assert main(["findings", str(tmp_path / "run"), "--mode", "train", "--json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out)["rows"] if row["finding"] == "spike"]
    (said,) = [row["reason"] for row in rows if "at step 150, " in row["reason"]]
    assert said.endswith(f"; {expected[150]}")
    (said,) = [row["reason"] for row in rows if "at step 130, " in row["reason"]]
    assert said.endswith(f"; {expected[130]}")


def test_scalars_of_steps_that_start_again_stand_beside_their_own_epoch(tmp_path, capsys):
    run = one_step_again_each_epoch(
        tmp_path / "run",
        scalars=lambda epoch, step: {"epoch": epoch, "step": step, "lr": 10.0**-epoch, "at": 60 * epoch + step},
    )
    found = asked(capsys, run)
    told = {(spike["epoch"], spike["step"]): {row["key"]: row for row in spike["scalars"]} for spike in found["spikes"]}
    assert sorted(told) == [(2, 7), (4, 7)]
    assert main(["findings", str(run), "--mode", "train", "--json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out)["rows"] if row["finding"] == "spike"]
    (said,) = [row["reason"] for row in rows if row["epoch"] == 2]
    assert " at step 7 of epoch 2, " in said
    assert said.endswith("; all of them also stood in the spike at 7 of epoch 4")
    assert told[2, 7]["lr"] == {"key": "lr", "epoch": 2, "step": 7, "value": 0.01, "usual": 0.01}
    assert told[4, 7]["lr"] == {"key": "lr", "epoch": 4, "step": 7, "value": 0.0001, "usual": 0.0001}
    assert (told[2, 7]["at"]["value"], told[2, 7]["at"]["usual"]) == (127, 127)
    assert (found["warnings"], found["counts"]["duplicates"]) == ([], 0)
    alone = asked(capsys, run, "--epoch", "2", "--step", "7")
    assert [row["value"] for row in alone["batches"][0]["scalars"]] == [127, 0.01]
    first = {spike["epoch"]: spike["samples"][0] for spike in found["spikes"]}
    assert (first[2]["sample_id"], first[2]["also_in"], first[2]["also_in_epochs"]) == (999, [7], [4])
    assert (first[4]["also_in"], first[4]["also_in_epochs"]) == ([7], [2])
    every = asked(capsys, run, "--step", "7")
    assert [(item["epoch"], item["n"]) for item in every["mix"] if item["label"] == 0] == [
        (1, 3),
        (2, 4),
        (3, 3),
        (4, 4),
    ]
    tables = [
        block for block in xaicli.open_run(run).steps(step=7).report.sections[0].blocks if isinstance(block, Table)
    ]
    assert [len(table.rows) for table in tables if "against the mix" in table.title] == [3, 3, 3, 3]
    report = xaicli.open_run(run).steps().report
    assert "also stood in the spike at 7 of epoch" in report.sentence
    page = xaicli.open_run(run).steps().html()
    assert "By share of loss: step 7 of epoch 2" in page
    assert "By share of loss: step 7 of epoch 4" in page
    line = next(block for block in report.sections[0].blocks if isinstance(block, LineChart)).series[0]
    assert line.x == tuple(range(240))


@pytest.mark.parametrize(
    ("scalars", "why"),
    [
        (lambda _, step: {"step": step, "lr": 1.0}, "no epoch was logged with it"),
        (lambda epoch, step: {"epoch": epoch, "step": 60 * epoch + step, "lr": 1.0}, "it was logged at go on"),
        (lambda epoch, step: {"epoch": epoch, "step": (60 * epoch + step - 60) // 4, "lr": 1.0}, "logged at go on"),
        (lambda epoch, step: {"epoch": epoch, "step": step // 2, "lr": 1.0}, "end before the middle of those"),
    ],
)
def test_scalars_that_count_their_steps_otherwise_stand_beside_no_batch(tmp_path, capsys, scalars, why):
    found = asked(capsys, one_step_again_each_epoch(tmp_path / "run", scalars=scalars))
    assert [spike["scalars"] for spike in found["spikes"]] == [[], []]
    (said,) = (warning for warning in found["warnings"] if "lr stands beside no batch" in warning)
    assert why in said


OTHER = "the batches at steps it was logged at are of other epochs than it"
OUTSIDE = "most steps it was logged at lie outside of those of the batches of their epoch"


def going_on_over_epochs(root, log, epochs=3):
    """A batch a step over epochs of 40, number 50 of 30 times the loss; `log` is told its epoch and number, from 1."""
    rng = np.random.default_rng(3)
    with xaicli.Run(root) as run:
        for epoch in run.epochs(epochs):
            for _ in run.steps(range(40), mode="train"):
                number = run.state.global_step
                loss = rng.gamma(4, 0.25, 8) * (30 if number == 50 else 1)
                run.log_samples(sample_id=range(8), loss=loss)
                if number % 4 == 0:
                    run.log(log(epoch, number))
    return root


@pytest.mark.parametrize(
    ("log", "epochs", "why"),
    [
        (lambda epoch, number: {"epoch": epoch, "step": number // 4}, 3, OTHER),
        (lambda _, number: {"step": number // 4}, 3, OTHER),
        (lambda epoch, number: {"epoch": epoch, "step": 8 * number}, 3, OTHER),
        (lambda epoch, number: {"epoch": epoch - 1, "step": number}, 3, OTHER),
        (lambda epoch, number: {"epoch": epoch, "step": 8 * number}, 1, OUTSIDE),
    ],
)
def test_optimizer_steps_and_samples_seen_are_no_steps_of_micro_batches(tmp_path, capsys, log, epochs, why):
    """`norm` is the number of its batch, and NaN at 48: what was logged behind a batch does not stand beside it."""
    values = {number: math.nan if number == 48 else float(number) for number in range(1, 121)}
    root = going_on_over_epochs(tmp_path / "run", lambda e, n: {**log(e, n), "norm": values[n], "lr": 1.0}, epochs)
    for words, key in (
        (("--spikes", 1), "spikes"),
        (("--step", 30), "batches"),
        (("--step", 30, "--epoch", 1), "batches"),
    ):
        found = asked(capsys, root, *words)
        assert [row["scalars"] for row in found[key]] == [[]] * (key == "batches" or epochs > 1)
        assert f"lr, norm stand beside no batch: {why}" in found["warnings"]
    report = xaicli.open_run(root).steps().report
    assert not any(isinstance(block, Multiples) for block in report.sections[0].blocks)
    if epochs > 1:
        (row,) = asked(capsys, root)["non_finite_scalars"]
        assert (row["key"], row["counts_otherwise"]) == ("norm", True)


def test_of_a_scalar_that_counts_otherwise_nothing_is_said_to_have_come_before_a_batch(tmp_path):
    """Losses are NaN from batch 60 of epoch 2 on; the norm is at batch 72, its step 18."""
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in run.epochs(3):
            for _ in run.steps(range(40), mode="train"):
                number = run.state.global_step
                loss = [1.0, 2.0] if number < 60 else [math.nan, math.nan]
                run.log_samples(sample_id=[1, 2], loss=loss)
                if number % 4 == 0:
                    norm = math.nan if number == 72 else 1.0
                    run.log({"epoch": epoch, "step": number // 4, "norm": norm})
    said = xaicli.open_run(tmp_path / "run").steps().report.sentence
    assert "look at the batch before it, step 59" in said
    assert "before that or then" not in said
    assert said.endswith("Not finite: norm at step 18.")


@pytest.mark.parametrize(
    "log",
    [
        lambda epoch, number: {"epoch": epoch, "step": number},
        lambda _, number: {"step": number},
        # Behind the last batch of an epoch the counter may stand a step further.
        lambda epoch, number: {"epoch": epoch, "step": number + (number % 40 == 0)},
        # At the beginning of an epoch alone: what was logged then holds until it is logged again.
        lambda epoch, number: {"epoch": epoch, "step": 40 * epoch - 39 + number % 2},
    ],
)
def test_scalars_of_the_steps_of_batches_stand_beside_them_wherever_in_an_epoch(tmp_path, capsys, log):
    root = going_on_over_epochs(tmp_path / "run", lambda e, n: {**log(e, n), "lr": 0.5**e})
    for number, epoch in ((30, 1), (50, 2), (119, 3)):
        found = asked(capsys, root, "--step", number)
        assert [row["value"] for row in found["batches"][0]["scalars"]] == [0.5**epoch]
        assert not any("beside no batch" in warning for warning in found["warnings"])


@pytest.mark.parametrize("hot", [{(1, 10), (2, 20), (3, 45)}, {(1, 45), (2, 20), (3, 10)}])
def test_scalars_stand_beside_the_few_batches_that_a_condition_leaves(tmp_path, capsys, hot):
    """Samples 1000 to 1002 stand in one batch of each epoch; whatever is asked, `at` is 1000 x epoch + step there."""
    rng = np.random.default_rng(3)
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in range(1, 4):
            for step in range(60):
                loss, ids = np.exp(rng.normal(-1, 0.25, 8)), rng.choice(500, 8, replace=False)
                if (epoch, step) in hot:
                    loss[:3], ids[:3] = 30, [1000, 1001, 1002]
                run.log_samples(sample_id=ids, loss=loss, mode="train", epoch=epoch, step=step)
                run.log({"epoch": epoch, "step": step, "at": 1000 * epoch + step})
    whole = asked(capsys, tmp_path / "run")
    assert {(b["epoch"], b["step"]) for b in whole["spikes"]} == hot
    values = [value for epoch in (1, 2, 3) for step in range(60) for value in [1000 * epoch + step]]
    for words in ((), ("--where", "sample_id >= 1000"), ("--where", "sample_id >= 1000", "--epoch", "2-3")):
        for epoch, step in hot if not words or len(words) == 2 else [one for one in hot if one[0] > 1]:
            found = asked(capsys, tmp_path / "run", *words, "--step", step)
            assert not any("beside no batch" in warning for warning in found["warnings"])
            (batch,) = (b for b in found["batches"] if b["epoch"] == epoch)
            place = 60 * (epoch - 1) + step
            usual = np.median(values[max(place - 50, 0) : place + 51])
            told = {"key": "at", "epoch": epoch, "step": step, "value": 1000 * epoch + step, "usual": usual}
            assert batch["scalars"] == [told]
    report = xaicli.open_run(tmp_path / "run").steps(where="sample_id >= 1000").report
    line = next(block for block in report.sections[0].blocks if isinstance(block, LineChart)).series[0]
    assert line.x == tuple(float(60 * (epoch - 1) + step) for epoch, step in sorted(hot))


def test_scalars_of_an_epoch_hold_for_its_batches_and_those_without_a_time_are_told(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in run.epochs(4):
            for step in run.steps(range(40), mode="train"):
                loss = 50.0 if (epoch, step) == (3, 20) else 1 + step % 3 / 10
                run.log_samples(sample_id=[1, 2], loss=[loss, loss])
            run.log({"epoch": epoch, "lr": 0.5**epoch, "norm": math.nan if epoch == 2 else 1.0})
    with xaicli.Run(tmp_path / "run") as run:
        run.log({"best": 3.0})
    found = asked(capsys, tmp_path / "run")
    (spike,) = found["spikes"]
    assert spike["scalars"] == [
        {"key": "lr", "epoch": 3, "step": None, "value": 0.125, "usual": None},
        {"key": "norm", "epoch": 3, "step": None, "value": 1.0, "usual": None},
    ]
    (said,) = (warning for warning in found["warnings"] if "beside no batch" in warning)
    assert said.startswith("best stands beside no batch: what was logged without a step and an epoch")
    norm = {"mode": "train", "ds_id": "", "key": "norm", "epoch": 2, "step": None}
    norm |= {"n": 1, "last_epoch": 2, "last_step": None, "counts_otherwise": False}
    assert found["non_finite_scalars"] == [norm]
    report = xaicli.open_run(tmp_path / "run").steps().report
    blocks = report.sections[0].blocks
    (table,) = (block for block in blocks if isinstance(block, Table) and block.title.startswith("Scalars"))
    assert table.rows[0][:4] == ("lr", "3", "of the epoch", 0.125)


def test_a_sample_of_one_spike_has_not_returned(tmp_path, capsys):
    """16 samples are in one batch alone, which spikes: chance would hardly bring that, yet none of them came back."""
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(400):
            ids = np.arange(16) + (1000 if step == 200 else 16 * (step % 5))
            loss = np.full(16, 40.0 if step == 200 else 1 + step % 3 / 10)
            run.log_samples(sample_id=ids, loss=loss, mode="train", epoch=1, step=step)
    found = asked(capsys, tmp_path / "run")
    assert [spike["step"] for spike in found["spikes"]] == [200]
    assert found["returning"] == []


def test_gaps_of_several_ranks_name_them(tmp_path):
    for rank in (0, 1):
        with xaicli.Run(tmp_path / "run", rank=rank) as run:
            for step in range(1, 61):
                if step not in (20, 21) and (rank, step) != (1, 40):
                    run.log_samples(sample_id=[rank], loss=[1.0], mode="train", epoch=1, step=step)
    result = xaicli.open_run(tmp_path / "run").steps()
    said = " ".join(result.markdown().split())
    assert said.count("between steps 19 and 22 of epoch 1 on both ranks (2 batches)") == 2
    assert (
        "No batch was logged between steps 19 and 22 of epoch 1 on both ranks (2 batches); between steps 39 and 41 "
        in said
    )
    assert "between steps 39 and 41 of epoch 1 on rank 1 (1 batch)." in said


def test_all_gaps_are_in_the_json(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(1, 401):
            if step % 10:
                run.log_samples(sample_id=[1], loss=[1.0], mode="train", epoch=1, step=step)
    assert [gap["after"] for gap in asked(capsys, tmp_path / "run")["gaps"]] == list(range(9, 399, 10))
    assert "36 more gaps: --json has all" in xaicli.open_run(tmp_path / "run").steps().markdown()


def test_each_attempt_has_its_own_scalars_beside_it(tmp_path, capsys):
    for attempt, steps in enumerate((range(1, 61), range(41, 101))):
        with xaicli.Run(tmp_path / "run") as run:
            for step in steps:
                loss = np.full(4, 1 + step % 3 / 10) * (30 if (attempt, step) in ((0, 50), (1, 55)) else 1)
                run.log_samples(sample_id=np.arange(4), loss=loss, mode="train", epoch=1, step=step)
                run.log({"epoch": 1, "step": step, "lr": 0.5 + attempt})
    found = asked(capsys, tmp_path / "run", "--attempts", "all")
    told = {(spike["attempt"], spike["step"]): spike["scalars"][0] for spike in found["spikes"]}
    assert {at: row["value"] for at, row in told.items()} == {(0, 50): 0.5, (1, 55): 1.5}
    assert told[0, 50]["usual"] == 0.5
    (spike,) = asked(capsys, tmp_path / "run")["spikes"]
    assert (spike["step"], spike["scalars"][0]["value"]) == (55, 1.5)


def test_gaps_are_of_what_was_logged_and_not_of_what_is_asked_about(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        run.log_facts([1, 2], camera=["front", "back"])
        for step in range(1, 41):
            if step not in (11, 12):
                ids = [1] if step in (21, 22, 23) else [1, 2]
                run.log_samples(sample_id=ids, label=[i - 1 for i in ids], loss=ids, mode="train", epoch=1, step=step)
    gap = {"mode": "train", "ds_id": "", "epoch": 1, "rank": 0, "after": 10, "before": 13, "missing": 2}
    for words in ((), ("--where", "camera = 'back'"), ("--label-map", "1=dog"), ("--duplicates", "last")):
        assert asked(capsys, tmp_path / "run", *words)["gaps"] == [gap]
    assert asked(capsys, tmp_path / "run", "--where", "sample_id = 2", "--around", 70)["gaps"] == []


@pytest.mark.parametrize("every", [1, 10])
def test_a_gap_is_told_wherever_it_is_asked_about(tmp_path, capsys, every):
    """A hundred batches an epoch, of the third the first three and the last two: what is usual the others say."""
    with xaicli.Run(tmp_path / "run") as run:
        for number in range(1, 401):
            if not 204 <= number <= 298:
                epoch = (number - 1) // 100 + 1
                run.log_samples(sample_id=[1], loss=[1.0], mode="train", epoch=epoch, step=every * number)
    gap = {"mode": "train", "ds_id": "", "epoch": 3, "rank": 0, "missing": 95}
    gap |= {"after": 203 * every, "before": 299 * every}
    near = [250, 203, 299] if every == 1 else [2040, 2980]
    touching = [("--around", step) for step in near] + [("--epoch", "3", "--around", near[0])]
    asking = [(), ("--epoch", "3"), ("--epoch", "2,3"), ("--where", "epoch = 3"), ("--epoch-frequency", "3"), *touching]
    for words in asking:
        assert asked(capsys, tmp_path / "run", *words)["gaps"] == [gap], words
    for words in (("--epoch", "2"), ("--around", 3500 if every == 10 else 360)):
        assert asked(capsys, tmp_path / "run", *words)["gaps"] == [], words
    said = xaicli.open_run(tmp_path / "run").steps(epoch="3").report.sentence
    assert f"the longest gap: between steps {203 * every:,} and {299 * every:,} of epoch 3 (95 batches)" in said


def test_classes_of_a_set_are_told_and_counted_each(tmp_path, capsys):
    sets = {i: [c for c in range(3) if (i >> c) & 1] for i in range(8)}
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=["a", "b", "c"]) as run:
        for step in range(1, 61):
            ids = [7, 3, 1] if step == 30 else [step % 8, (step + 1) % 8, (step + 2) % 8]
            loss = [90.0, 9.0, 1.0] if step == 30 else [1 + step % 3 / 10] * 3
            run.log_samples(sample_id=ids, label=[sets[i] for i in ids], loss=loss, mode="train", epoch=1, step=step)
    (spike,) = asked(capsys, tmp_path / "run")["spikes"]
    assert [(row["label"], row["name"]) for row in spike["samples"]] == [
        ([0, 1, 2], "a, b, c"),
        ([0, 1], "a, b"),
        ([0], "a"),
    ]
    rows = [[7, 3, 1], *([s % 8, (s + 1) % 8, (s + 2) % 8] for s in range(1, 61) if s != 30)]
    share = {c: sum(c in sets[i] for batch in rows for i in batch) / 180 for c in range(3)}
    mix = {item["name"]: item for item in spike["mix"]}
    assert {name: item["n"] for name, item in mix.items()} == {"a": 3, "b": 2, "c": 1}
    for number, name in enumerate("abc"):
        assert mix[name]["expected"] == pytest.approx(3 * share[number])
        assert mix[name]["p"] == pytest.approx(stats.binom.sf(mix[name]["n"] - 1, 3, share[number]))


def test_words_of_a_step_hide_neither_ranks_nor_what_is_not_finite(tmp_path):
    for rank in (0, 1):
        with xaicli.Run(tmp_path / "run", rank=rank) as run:
            for step in range(1, 61):
                loss = np.array([0.9, 1.0, 1.1, 1.0, 1.0, 1.0]) + step % 3 / 10
                if (rank, step) == (1, 30):
                    loss[:2] = math.nan, math.inf
                run.log_samples(sample_id=np.arange(6) + 6 * rank, loss=loss, mode="train", epoch=1, step=step)
    said = xaicli.open_run(tmp_path / "run").steps(step=30).report.sentence
    assert "Step 30 of epoch 1, rank 0, had 1 (usual 1.1)" in said
    assert "Step 30 of epoch 1, rank 1, had 1.025 (usual 1.1) over 4 of 6 samples, the others are not finite" in said
    assert "two samples hold 51 % of it" in said
    whole = xaicli.open_run(tmp_path / "run").steps().report.sentence
    assert "came at step 30 of epoch 1, rank 1, in 2 of 6 samples: #6 and #7." in whole


def test_around_a_step_only_its_scalars_are_told(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(1, 301):
            run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="train", epoch=1, step=step)
            run.log({"epoch": 1, "step": step, "gn": math.nan if step in (20, 250) else 1.0})
    assert [row["step"] for row in asked(capsys, tmp_path / "run")["non_finite_scalars"]] == [20]
    assert [row["step"] for row in asked(capsys, tmp_path / "run", "--around", 240)["non_finite_scalars"]] == [250]
    assert asked(capsys, tmp_path / "run", "--around", 150)["non_finite_scalars"] == []


def test_scalars_that_are_not_finite_are_told_where_the_loss_stays_finite(tmp_path, capsys):
    """A scaler skips its infinite first steps, and a NaN far behind them: no loss shows either."""
    odd = {0: math.inf, 1: math.inf, 2: math.inf, 300: math.nan}
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(400):
            loss = [1.0, 2.0 + step % 3 / 10]
            run.log_samples(sample_id=[1, 2], loss=loss, mode="train", epoch=1 + step // 50, step=step)
            run.log_samples(sample_id=[3, 4], loss=loss, mode="eval", epoch=1 + step // 50, step=step)
            run.log({"epoch": 1 + step // 50, "step": step, "grad_norm": odd.get(step, 1.0), "lr": 0.1})
    (row,) = asked(capsys, tmp_path / "run")["non_finite_scalars"]
    told = {"epoch": 1, "step": 0, "n": 4, "last_epoch": 7, "last_step": 300, "counts_otherwise": False}
    assert row == {"mode": "train", "ds_id": "", "key": "grad_norm", **told}
    said = "Not finite: grad_norm at step 0 (4 times, the last at step 300)."
    opened = xaicli.open_run(tmp_path / "run")
    assert opened.steps().report.sentence.endswith(f"no spike of loss. {said}")
    assert opened.steps(mode="all").report.sentence.count("grad_norm") == 1, "logged once, beside two modes"
    assert said in opened.steps().html(no_images=True)
    track = next(section for section in opened.report().report.sections if section.anchor == "steps")
    assert said in track.blocks[0].text
    for step, value in ((300, "NaN"), (0, "infinite")):
        whole = opened.steps(step=step).report.sentence
        assert whole.endswith(f"Not finite beside it: grad_norm is {value} at step {step}.")
    assert "ot finite" not in opened.steps(step=301).report.sentence
    main(["steps", str(tmp_path / "run"), "--no-progress"])
    assert said in " ".join(capsys.readouterr().out.split())


def test_scalars_of_epochs_that_are_not_asked_about_are_not_named(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(100):
            run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="train", epoch=1 + step // 20, step=step)
        run.log({"step": 90, "epoch": 5, "grad_norm": math.nan})
        run.log({"step": 91, "scale": math.inf})
    opened = xaicli.open_run(tmp_path / "run")
    keys = {
        asked: [row["key"] for row in opened.steps(epoch=asked).answer.extra["non_finite_scalars"]]
        for asked in ("3", "4-5", "5")
    }
    assert keys == {"3": [], "4-5": ["grad_norm", "scale"], "5": ["grad_norm", "scale"]}
    assert "ot finite" not in opened.steps(epoch="3").report.sentence
    assert "grad_norm at step 90" in opened.steps().report.sentence


def test_a_scalar_that_stands_beside_other_batches_says_beside_which_it_does_not(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in range(1, 5):
            for step in range(30):
                run.log_samples(
                    sample_id=[1, 2], loss=[1.0, 2.0], mode="train", epoch=epoch, step=30 * (epoch - 1) + step
                )
                run.log({"epoch": epoch, "step": 30 * (epoch - 1) + step, "lr": 0.1})
            for step in range(10):
                run.log_samples(sample_id=[3, 4], loss=[1.0, 2.0], mode="eval", ds_id="day", epoch=epoch, step=step)
    why = "the steps of the batches start again with the epochs, and those it was logged at go on"
    told = {mode: asked(capsys, tmp_path / "run", "--mode", mode)["warnings"] for mode in ("train", "eval", "all")}
    said = [f"lr stands beside no batch of eval day: {why}"]
    assert told == {"train": [], "eval": said, "all": said}


def test_the_first_batches_of_a_training_stand_and_have_not_jumped(tmp_path, capsys):
    """The loss falls from 3 in ten steps; step 120 jumps, and is lower than the start."""
    rng, means = np.random.default_rng(4), {}
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(200):
            loss = np.full(8, 0.3 * 10.0 ** max(1 - step / 10, 0)) * rng.uniform(0.98, 1.02)
            loss[0] += 4.0 * (step == 120)
            means[step] = loss.astype(np.float32).mean()
            ids = np.arange(8) + step % 5 * 8
            run.log_samples(sample_id=ids, loss=loss, label=ids % 2, mode="train", epoch=1 + step // 100, step=step)
    found = asked(capsys, tmp_path / "run", "--spikes", "20")
    spikes = {spike["step"]: spike for spike in found["spikes"]}
    assert {0, 1, 2, 120} <= set(spikes)
    assert {step for step, spike in spikes.items() if spike["at_start"]} == set(spikes) & set(range(10))
    assert "at_start" not in found["rows"][0]
    usual = np.exp(np.median(np.log([means[step] for step in range(51)])))
    opened = xaicli.open_run(tmp_path / "run")
    said = f"Step 0 of epoch 1 stands at {means[0]:.3g} (usual {usual:.3g} after it)"
    assert said in opened.steps().report.sentence
    assert said in opened.steps(step=0).report.sentence
    assert "Step 120 of epoch 2 jumped to" in opened.steps(step=120).report.sentence
    within = asked(capsys, tmp_path / "run", "--epoch", "2", "--step", "100")["batches"]
    within += asked(capsys, tmp_path / "run", "--epoch", "2", "--step", "101")["batches"]
    assert [batch["at_start"] for batch in within] == [True, False], "nothing asked about stands before the first"
    late = asked(capsys, tmp_path / "run", "--around", "150", "--spikes", "9")["spikes"]
    assert [(spike["step"], spike["at_start"]) for spike in late] == [(120, False)], "those before it stand, too"
    assert main(["findings", str(tmp_path / "run"), "--json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out)["rows"] if row["finding"] == "spike"]
    assert [" at step 120," in row["reason"] for row in rows] == [True]
    # Every fifth batch has the same samples, the very first one, too.
    assert {sample["sample_id"] for sample in spikes[120]["samples"]} <= set(range(8))
    jumped = [step for step in spikes if step > 9 and step % 5 == 0 and step != 120]
    assert [sample["also_in"] for sample in spikes[120]["samples"]] == [jumped] * len(spikes[120]["samples"])
    assert "also in the spikes" not in rows[0]["reason"]


def test_a_condition_that_no_row_meets_is_said(recorded, capsys):
    for question in ([], ["--step", "41"], ["--around", "41"]):
        assert main(["steps", str(recorded[0]), *question, "--where", "label > 5"]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "no row of train meets --where 'label > 5'" in said


def test_values_of_other_ranks_that_do_not_count_are_told_beside_batches(tmp_path):
    folder = tmp_path / "run"
    for rank in (0, 1):
        with xaicli.Run(folder, rank=rank) as run:
            for step in range(1, 61):
                loss = 24.0 if (rank, step) == (1, 30) else 1.0 + step % 3 / 10
                ids = [10 * rank + k for k in range(4)]
                run.log_samples(sample_id=ids, label=[0] * 4, loss=[loss] * 4, mode="train", epoch=1, step=step)
                run.log({"epoch": 1, "step": step, "gn": 900.0 if loss == 24.0 else 1.0})
    read = xaicli.open_run(folder)
    (told,) = (said for said in read.scalars().answer.warnings if "not count" in said)
    assert told.startswith("1 value of gn does not count: rank 0's")
    spike = read.steps(mode="train")
    assert spike.answer.extra["spikes"][0]["rank"] == 1
    for answer in (spike, read.steps(mode="train", step=30), read.report(mode="train")):
        assert [said for said in answer.answer.warnings if "not count" in said] == [told]
