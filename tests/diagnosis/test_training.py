"""`xai steps` on a training with a bad batch, against plain Python."""

import json
import math

import numpy as np
import pytest

import xaicli
from xaicli.cli import main
from xaicli.errors import XaiError

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
    assert "Step 41 of epoch 2 had" in run.steps(step=41).html()
    for words, said in (({"step": 9999}, "9999"), ({"around": 9999}, "9999"), ({"step": 3, "spikes": 2}, "--step")):
        with pytest.raises(XaiError) as error:
            run.steps(**words)
        assert said in error.value.message
