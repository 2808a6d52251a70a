"""What `select` chooses, held against plain Python over the same rows."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections import Counter
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import xaicli
from xaicli.choices import candidates
from xaicli.choices.candidates import k_centres
from xaicli.choices.groups import draws_of, evenly, grouped
from xaicli.choices.rules import choice
from xaicli.errors import UsageError, XaiError

N, EPOCHS = 60, 4
NAMES = ["cat", "dog", "owl"]


def probability(i: int, epoch: int) -> float:
    """Of the label of a sample: no two alike at the end."""
    return 0.05 + 0.9 * ((7 * i + 13 * epoch * (i % 5)) % 61) / 61 + i / 10_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> xaicli.RunReader:
    path = tmp_path_factory.mktemp("choices") / "run"
    label = [i % 3 if i % 10 else 0 for i in range(N)]
    with xaicli.Run(path, label_names=NAMES) as run:
        run.log_facts(
            range(N), camera=["front" if i % 4 else "rear" for i in range(N)], age=[float(i) for i in range(N)]
        )
        for epoch in range(1, EPOCHS + 1):
            # The last sample is absent at the end: its value is older.
            n = N - 1 if epoch == EPOCHS else N
            p = [probability(i, epoch) for i in range(n)]
            probs = [
                [x if c == label[i] else (1 - x) * (0.9 if c == (label[i] + 1) % 3 else 0.1) for c in range(3)]
                for i, x in enumerate(p)
            ]
            run.log_samples(sample_id=range(n), label=label[:n], probs=probs, mode="train", epoch=epoch)
    return xaicli.open_run(path)


def last(i: int) -> float:
    return probability(i, EPOCHS - 1 if i == N - 1 else EPOCHS)


def ids(run: xaicli.RunReader, rule: str, **how: object) -> list[int]:
    found: list[int] = (
        run.select(rule=rule, mode="train", **how).data.filter(pl.col("rank").is_not_null())["sample_id"].to_list()
    )
    return found


def test_the_hardest_have_the_highest_loss_and_the_lowest_probability(run: xaicli.RunReader) -> None:
    by_loss = sorted(range(N), key=lambda i: (last(i), i))  # the loss falls with the probability
    assert ids(run, "hardest", n=7) == by_loss[:7]
    assert ids(run, "easy", n=7) == by_loss[::-1][:7]
    assert ids(run, "hardest", n=7, metric="label_prob") == by_loss[:7]
    assert ids(run, "hardest", share=0.1) == by_loss[:6]
    mean = {i: np.mean([-math.log(probability(i, e)) for e in range(1, EPOCHS + (i < N - 1))]) for i in range(N)}
    assert ids(run, "hardest", n=9, stat="mean") == sorted(range(N), key=lambda i: (-mean[i], i))[:9]
    assert N - 1 not in ids(run, "easy", n=N - 1, complete_only=True)


@pytest.mark.parametrize("rule", ["hardest", "ambiguous", "forgotten", "loss > 0.6"])
def test_the_suspects_among_the_chosen_are_counted_and_not_called_wrong(run: xaicli.RunReader, rule: str) -> None:
    """Most of them are right here: nobody planted a wrong label."""
    suspects = set(ids(run, "suspects"))
    found = run.select(rule=rule, n=20, mode="train")
    n = len(suspects & set(found.data["sample_id"]))
    assert 0 < n < 20
    said = next(warning for warning in found.answer.warnings if "relabel" in warning)
    chosen = found.data.height
    are = "is" if n == 1 else "are"
    assert said.startswith(f"{n} of the {chosen} chosen of train {are} suspected of a wrong label, the model's own")
    assert "probably" not in said


def test_what_is_left_out_is_not_counted_among_the_chosen(run: xaicli.RunReader) -> None:
    """One sample is not complete: each number is of what its sentence says."""
    suspects = set(ids(run, "suspects"))
    found = run.select(rule="hardest", n=20, mode="train", complete_only=True)
    n = len(suspects & set(found.data["sample_id"]))
    assert found.data.height == 20
    assert [one[: one.index(" of train")] for one in found.answer.warnings] == ["1 sample", f"{n} of the 20 chosen"]


@pytest.mark.parametrize("rule", ["easy", "balanced", "random"])
def test_rules_that_prefer_no_wrong_labels_do_not_look_for_them(run: xaicli.RunReader, rule: str) -> None:
    found = run.select(rule=rule, n=50, mode="train")
    assert set(ids(run, "suspects")) & set(found.data["sample_id"])
    assert not [one for one in found.answer.warnings if "suspected" in one]


def test_of_each_label_the_hardest(run: xaicli.RunReader) -> None:
    label = [i % 3 if i % 10 else 0 for i in range(N)]
    found = run.select(rule="hardest", n=4, per_label=True, mode="train")
    expected = []
    for value in range(3):
        expected += sorted((i for i in range(N) if label[i] == value), key=lambda i: (last(i), i))[:4]
    assert found.data["sample_id"].to_list() == expected
    drawn = Counter(row["label"] for row in found.answer.extra["random"].iter_rows(named=True))
    assert drawn == {0: 4, 1: 4, 2: 4}


def test_the_ambiguous_varied_most(run: xaicli.RunReader) -> None:
    spread = {i: np.std([probability(i, e) for e in range(1, EPOCHS + (i < N - 1))]) for i in range(N)}
    found = ids(run, "ambiguous", n=8)
    assert len(set(found)) == 8
    assert [spread[i] for i in found] == pytest.approx(sorted(spread.values(), reverse=True)[:8], abs=1e-6)


def test_the_forgotten_are_those_that_were_learned_before(run: xaicli.RunReader) -> None:
    times = {}
    for i in range(N):
        right = [probability(i, e) > 0.9 * (1 - probability(i, e)) for e in range(1, EPOCHS + (i < N - 1))]
        times[i] = sum(a and not b for a, b in pairwise(right))
    expected = sorted((i for i in times if times[i]), key=lambda i: (-times[i], i))
    assert expected
    assert ids(run, "forgotten") == expected
    found = run.select(rule="forgotten", n=N, mode="train")
    assert found.data.height == len(expected)
    assert any(f"asked for {N}, only {len(expected)} are there" in warning for warning in found.answer.warnings)
    # A share is a number of samples, too.
    found = run.select(rule="forgotten", share=0.95, mode="train")
    assert found.data["sample_id"].to_list() == expected
    said = f"asked for {round(0.95 * N)}, only {len(expected)} are there"
    assert len(expected) < round(0.95 * N)
    assert any(said in warning for warning in found.answer.warnings)
    each = Counter(i % 3 if i % 10 else 0 for i in range(N))
    there = Counter(i % 3 if i % 10 else 0 for i in expected)
    short = [f"{NAMES[c]} {there[c]} of {each[c]}" for c in range(3) if there[c] < each[c]]
    found = run.select(rule="forgotten", share=1, per_label=True, mode="train")
    said = f"asked for 100 % of each label, only: {', '.join(short)}"
    assert any(said in warning for warning in found.answer.warnings)


def test_a_condition_is_a_rule_over_columns_facts_and_statistics(run: xaicli.RunReader) -> None:
    expected = {i for i in range(N) if i % 4 == 0 and last(i) < 0.5}
    assert set(ids(run, "camera = 'rear' AND label_prob < 0.5")) == expected
    assert ids(run, "camera = 'rear' AND label_prob < 0.5", n=2) == sorted(expected, key=lambda i: (last(i), i))[:2]
    assert set(run.select(where="camera = 'rear' AND label_prob < 0.5", mode="train").data["sample_id"]) == expected
    assert set(ids(run, "n_obs < 4")) == {N - 1}
    with pytest.raises(UsageError, match="--rule"):
        ids(run, "nothing > 3")


def test_a_condition_without_a_column_holds_of_all_or_of_none(run: xaicli.RunReader) -> None:
    assert sorted(ids(run, "1 = 1")) == list(range(N))
    assert ids(run, "1 = 2") == []
    everyone = run.select(rule="'a' = 'a'", weight=0.0, mode="train").data
    assert everyone["weight"].to_list() == [0.0] * N


def test_embeddings_are_only_asked_about_where_a_rule_goes_by_them(run: xaicli.RunReader) -> None:
    with pytest.raises(UsageError, match="--table says which embeddings, and the rule is hardest"):
        run.select(rule="hardest", n=1, mode="train", table="vectors")
    with pytest.raises(UsageError, match="--column says which embeddings, and the rule is loss > 1"):
        run.select(rule="loss > 1", mode="train", column=["a"])


def test_random_is_a_draw_that_the_seed_repeats(run: xaicli.RunReader) -> None:
    first = ids(run, "random", n=20)
    assert len(set(first)) == 20
    assert first == ids(run, "random", n=20)
    assert first != ids(run, "random", n=20, seed=1)
    control = run.select(rule="random", n=20, mode="train").answer.extra["random"]["sample_id"].to_list()
    assert len(set(control)) == 20
    assert control != first
    # Each sample has the same chance: of 60 draws of 10 of 60 each is chosen about ten times.
    times = Counter(i for seed in range(60) for i in ids(run, "random", n=10, seed=seed))
    assert set(times) == set(range(N))
    assert max(times.values()) < 25


def test_balanced_has_as_many_of_each(run: xaicli.RunReader) -> None:
    found = run.select(rule="balanced", n=30, mode="train")
    assert Counter(found.data["label"]) == {0: 10, 1: 10, 2: 10}
    assert found.data["sample_id"].n_unique() == 30
    by_camera = run.select(rule="balanced", by="camera", mode="train")
    assert Counter(i % 4 == 0 for i in by_camera.data["sample_id"]) == {True: 15, False: 15}
    fifths = run.select(rule="balanced", by="age", n=10, mode="train").data["sample_id"].to_list()
    assert Counter(i // 12 for i in fifths) == {0: 2, 1: 2, 2: 2, 3: 2, 4: 2}
    many = run.select(rule="balanced", by="camera", n=50, mode="train")
    assert Counter(i % 4 == 0 for i in many.data["sample_id"]) == {True: 15, False: 35}
    assert any("too few samples to be balanced" in warning for warning in many.answer.warnings)


def test_balancing_weights_give_each_label_the_same_sum(run: xaicli.RunReader) -> None:
    data = run.select(rule="balanced", weight=1, mode="train").data
    assert data.height == N
    sums = data.group_by("label").agg(pl.col("weight").sum())["weight"].to_list()
    assert sums == pytest.approx([N / 3] * 3)


def test_weights_list_every_sample_once(run: xaicli.RunReader) -> None:
    data = run.select(rule="hardest", n=5, weight=0, mode="train").data
    assert sorted(data["sample_id"]) == list(range(N))
    assert data.filter(pl.col("weight") == 0)["sample_id"].to_list() == ids(run, "hardest", n=5)
    assert set(data["weight"]) == {0.0, 1.0}


def test_what_is_left_out_is_told(run: xaicli.RunReader) -> None:
    found = run.select(rule="easy", n=50, mode="train")
    left = [i for i in sorted(range(N), key=lambda i: (last(i), i)) if i not in set(found.data["sample_id"])]
    assert [row["sample_id"] for row in found.answer.extra["left_out"]] == left
    mix = {row["value"]: row for row in found.answer.extra["mix"] if row["column"] == "label"}
    for value, name in enumerate(NAMES):
        assert mix[name]["n"] == sum((i % 3 if i % 10 else 0) == value for i in range(N))
        assert mix[name]["chosen"] == found.data.filter(pl.col("label") == value).height
    assert {row["value"] for row in found.answer.extra["mix"] if row["column"] == "camera"} == {"front", "rear"}


def plain_k_centres(points: list[list[float]], k: int) -> list[int]:
    mean = [sum(column) / len(points) for column in zip(*points, strict=True)]
    chosen = [min(range(len(points)), key=lambda i: (math.dist(points[i], mean), i))]
    while len(chosen) < k:
        left = [i for i in range(len(points)) if i not in chosen]
        chosen.append(max(left, key=lambda i: (min(math.dist(points[i], points[c]) for c in chosen), -i)))
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_k_centres_are_those_of_plain_python(seed: int) -> None:
    draws = np.random.default_rng(seed)
    points = draws.integers(-4, 5, (40, 3)).astype(float)  # so that equally far is equal
    points[7] = points[3]
    rows, far = k_centres(points, 40)
    assert rows.tolist() == plain_k_centres(points.tolist(), 40)
    for number, row in enumerate(rows.tolist()[1:], 1):
        assert far[number] == pytest.approx(min(math.dist(points[row], points[c]) for c in rows[:number]))


def test_k_centres_of_some_rows_are_those_of_the_rows_alone_and_nothing_is_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(candidates, "_BLOCK", 1 << 14)
    draws = np.random.default_rng(0)
    points = draws.integers(-99, 100, (4000, 200)).astype(np.float32)
    points[5] = np.nan
    rows = np.flatnonzero((np.arange(4000) % 3 != 0) & candidates.all_finite(points))
    assert 5 not in rows
    tracemalloc.start()
    found, far = k_centres(points, 12, rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < points.nbytes / 4
    whole = points[rows].astype(np.float64)
    nearest, expected = np.full(len(rows), np.inf), [int(np.linalg.norm(whole - whole.mean(axis=0), axis=1).argmin())]
    for _ in range(11):
        nearest = np.minimum(nearest, np.linalg.norm(whole - whole[expected[-1]], axis=1))
        expected.append(int(nearest.argmax()))
    assert found.tolist() == expected
    assert far[1:] == pytest.approx(
        [min(np.linalg.norm(whole[at] - whole[old]) for old in expected[:n]) for n, at in enumerate(expected) if n]
    )


def test_diverse_samples_of_collected_embeddings(run: xaicli.RunReader) -> None:
    points = np.random.default_rng(1).normal(size=(N, 4)).astype(np.float32)
    with xaicli.Run(run.layout.root, resume="allow") as writing:
        writing.add_metrics_data({"sample_id": list(range(N)), "layer": points}, name="vectors")
    assert ids(run, "diverse", n=9, table="vectors", column="layer") == plain_k_centres(points.tolist(), 9)
    with pytest.raises(XaiError, match="no table"):
        ids(run, "diverse", n=9, table="nothing")


def numbered_alike(path: Path, splits: dict[str, dict[int, int]], *, said: str = "split") -> dict[Any, Any]:
    """A run of train and eval, both numbered from 0, and vectors {(split, epoch): points} that others go by, too."""
    rng, found = np.random.default_rng(6), {}
    with xaicli.Run(path) as run:
        for mode in ("train", "eval"):
            for epoch in (1, 2, 3):
                run.log_samples(sample_id=range(40), loss=rng.random(40), mode=mode, epoch=epoch)
        for split, of_epochs in splits.items():
            for epoch, n in of_epochs.items():
                found[split, epoch] = points = rng.normal(size=(n, 3))
                more = {said: [split] * n} if split else {}
                run.add_metrics_data({"sample_id": range(n), "epoch": [epoch] * n, **more, "v": points}, name="metrics")
    return found


@pytest.mark.parametrize("order", [("train", "eval"), ("eval", "train")])
@pytest.mark.parametrize("said", ["split", "mode"])
def test_diverse_samples_are_of_the_split_that_is_called_as_the_mode(
    order: tuple[str, str], said: str, tmp_path: Path
) -> None:
    points = numbered_alike(tmp_path / "run", {split: {1: 40} for split in order}, said=said)
    opened = xaicli.open_run(tmp_path / "run")
    right = {split: plain_k_centres(points[split, 1].tolist(), 5) for split in order}
    assert right["train"] != right["eval"]
    found = opened.select(rule="diverse", n=5, mode="train,eval")
    for mode in order:
        assert found.data.filter(pl.col("mode") == mode)["sample_id"].to_list() == right[mode]
        exported = opened.relabel_export(tmp_path / "x.csv", rule="diverse", n=5, mode=mode)
        assert exported.data["sample_id"].to_list() == right[mode]
        shown = opened.embeddings(split=mode).data
        assert shown["split"].unique().to_list() == [mode]
    assert found.answer.extra["embeddings"] == [
        {"mode": mode, "ds_id": "", "split": mode, "epoch": 1} for mode in ("train", "eval")
    ]
    assert not [one for one in found.answer.warnings if "split" in one]
    assert "train: table metrics, split train, epoch 1; eval: table metrics, split eval, epoch 1" in found.html()
    assert ids(opened, "diverse", n=5, split="eval") == right["eval"]
    with pytest.raises(XaiError, match="no split 'evil' in the embeddings of table 'metrics'"):
        ids(opened, "diverse", n=5, split="evil")


def test_splits_of_the_same_samples_are_never_one_list(tmp_path: Path, xai: Any) -> None:
    points = numbered_alike(tmp_path / "run", {"": {1: 40}, "val": {1: 25}, "train": {1: 40}})
    run = tmp_path / "run"
    words = ("select", run, "--mode", "eval", "--rule", "diverse", "--n", "5", "--json")
    status, _, err = xai(*words)
    assert status == 2 or status == 1
    assert "splits \"\", train, val of table 'metrics' have embeddings of the same samples" in err
    assert "xai select --mode eval --rule diverse --split val" in err
    for split in ("val", ""):
        status, out, err = xai(*words, "--split", split)
        assert (status, err) == (0, "")
        chosen = [row["sample_id"] for row in json.loads(out)["rows"]]
        assert chosen == plain_k_centres(points[split, 1].tolist(), 5)
    found = xaicli.open_run(run).select(rule="diverse", n=5, mode="train").data["sample_id"].to_list()
    assert found == plain_k_centres(points["train", 1].tolist(), 5)


def test_the_only_split_that_has_the_samples_is_taken_and_named(tmp_path: Path) -> None:
    points = numbered_alike(tmp_path / "run", {"val": {1: 40}})
    found = xaicli.open_run(tmp_path / "run").select(rule="diverse", n=5, mode="train")
    assert found.data["sample_id"].to_list() == plain_k_centres(points["val", 1].tolist(), 5)
    assert "train goes by the embeddings of split val, which alone has its samples" in found.answer.warnings


@pytest.mark.parametrize(
    ("how", "epoch"),
    [
        ({}, 3),
        ({"epoch": "1"}, 1),
        ({"epoch": "first"}, 1),
        ({"epoch": "1-2"}, 1),
        ({"epoch_frequency": 3}, 3),
        ({"where": "epoch = 1"}, 1),
        ({"where": "loss >= 0"}, 3),
    ],
)
def test_diverse_samples_of_an_epoch_go_by_its_embeddings(how: dict[str, Any], epoch: int, tmp_path: Path) -> None:
    """The other split was collected later: its epochs are its own."""
    points = numbered_alike(tmp_path / "run", {"train": {1: 40, 3: 40}, "eval": {4: 40}})
    opened = xaicli.open_run(tmp_path / "run")
    found = opened.select(rule="diverse", n=5, mode="train", **how)
    assert found.data["sample_id"].to_list() == plain_k_centres(points["train", epoch].tolist(), 5)
    assert found.answer.extra["embeddings"] == [{"mode": "train", "ds_id": "", "split": "train", "epoch": epoch}]
    exported = opened.relabel_export(tmp_path / "x.csv", rule="diverse", n=5, mode="train", **how)
    assert exported.data["sample_id"].to_list() == found.data["sample_id"].to_list()
    assert opened.embeddings(split="train").data["epoch"].unique().to_list() == [3]


def test_an_epoch_without_embeddings_names_those_that_have_some(tmp_path: Path, xai: Any) -> None:
    numbered_alike(tmp_path / "run", {"train": {1: 40, 3: 40}, "eval": {2: 40}})
    words = ("select", tmp_path / "run", "--mode", "train", "--rule", "diverse", "--n", "5")
    for option in (("--epoch", "2"), ("--epoch-frequency", "2"), ("--where", "epoch = 2")):
        status, _, err = xai(*words, *option)
        assert status
        assert "table 'metrics' has no embedding of split train of epoch 2" in err
        assert "hint: embeddings were collected at epoch 1, 3" in err


def test_embeddings_without_an_epoch_or_a_data_set_say_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    points = {ds_id: rng.normal(size=(20, 3)) for ds_id in ("north", "south")}
    with xaicli.Run(tmp_path / "run") as run:
        for ds_id in points:
            run.log_samples(sample_id=range(20), loss=rng.random(20), mode="train", ds_id=ds_id, epoch=1)
            run.add_metrics_data({"sample_id": range(20), "v": points[ds_id], "ds_id": [ds_id] * 20}, name="told")
            run.add_metrics_data({"sample_id": range(20), "v": points[ds_id], "split": [ds_id] * 20}, name="called")
        run.add_metrics_data({"sample_id": range(20), "v": points["north"]}, name="neither")
    opened = xaicli.open_run(tmp_path / "run")
    for table in ("told", "called", "neither"):
        found = opened.select(rule="diverse", n=4, mode="train", epoch="1", table=table)
        for ds_id, own in points.items():
            expected = plain_k_centres((own if table != "neither" else points["north"]).tolist(), 4)
            assert found.data.filter(pl.col("ds_id") == ds_id)["sample_id"].to_list() == expected
        said = any("the embeddings say no data set" in one for one in found.answer.warnings)
        assert said is (table == "neither")
        assert f"the embeddings of table {table!r} say no epoch: they are as collected" in found.answer.warnings


def test_embeddings_that_were_taken_back_are_counted(tmp_path: Path) -> None:
    for epochs, x in (((1, 2), [0.0, 1.0, 2.0]), ((2,), [9.0, 1.0, 5.0])):
        with xaicli.Run(tmp_path / "run") as writing:
            for epoch in epochs:
                writing.log_samples(sample_id=[1, 2, 3], loss=[1.0] * 3, mode="train", epoch=epoch, step=epoch)
                points = np.array([[one, 0.0] for one in x])
                writing.add_metrics_data({"sample_id": [1, 2, 3], "epoch": [epoch] * 3, "v": points}, name="vectors")
    run = xaicli.open_run(tmp_path / "run")
    found = {a: run.select(rule="diverse", n=1, table="vectors", attempts=a).answer for a in ("last", "all")}
    assert found["last"].data["sample_id"][0] == 3  # the nearest to the mean of 9, 1 and 5
    assert [one.counts.taken_back for one in found.values()] == [3 + 3, 0]
    said = (
        "attempt 1 took back 3 rows of attempt 0 in table vectors from epoch 2, step 2 on: "
        "xai info, samples and most others count them with --attempts all"
    )
    assert [said in one.warnings for one in found.values()] == [True, False]


def test_what_is_in_no_group_is_left_out_of_balancing_weights(tmp_path: Path) -> None:
    """Of 60 samples the last 12 have no camera; 36 are of one and 12 of the other."""
    with xaicli.Run(tmp_path / "run") as made:
        made.log_facts(range(48), camera=["front"] * 36 + ["rear"] * 12)
        made.log_samples(sample_id=range(60), label=[0] * 60, loss=np.arange(60.0), mode="train", epoch=0)
    found = xaicli.open_run(tmp_path / "run").select(rule="balanced", by="camera", weight=1, mode="train")
    (numbers,) = found.answer.extra["chosen"]
    assert [numbers[key] for key in ("samples", "there", "chosen", "random")] == [60, 48, 48, 48]
    assert any("12 samples of train have no camera, and are left out" in one for one in found.answer.warnings)
    weights = dict(found.data.select("sample_id", "weight").iter_rows())
    assert weights == pytest.approx({n: 48 / 72 if n < 36 else 2.0 if n < 48 else 0.0 for n in range(60)})
    assert found.data["rank"].to_list() == [*range(1, 49), *[None] * 12]
    assert [row["sample_id"] for row in found.answer.extra["left_out"]] == list(range(59, 47, -1))
    assert "48 samples of 60 chosen" in found.report.sentence


def test_a_set_of_classes_is_balanced_over_its_classes() -> None:
    values = pl.Series([[0], [0], [0, 1], [1], [2], [], None, [0]], dtype=pl.List(pl.Int32))
    groups = grouped(values)
    assert groups.names == ("0", "1", "2", "(none)")
    assert [rows.tolist() for rows in groups.rows] == [[0, 1, 2, 7], [2, 3], [4], [5]]
    assert groups.unknown.tolist() == [6]
    taken = evenly(groups, 4, draws_of(0)).tolist()
    assert len(set(taken)) == 4
    assert {4, 5} <= set(taken)
    assert sorted(evenly(groups, 99, draws_of(0)).tolist()) == [0, 1, 2, 3, 4, 5, 7]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"rule": "hardest"}, "how many"),
        ({"rule": None}, "--rule"),
        ({"rule": "hardets", "n": 1}, "no rule 'hardets'"),
        ({"rule": "hardest", "n": 0}, "at least 1"),
        ({"rule": "hardest", "n": 1, "share": 0.5}, "--n and --share"),
        ({"rule": "hardest", "share": 1.5}, "--share"),
        ({"rule": "hardest", "n": 1, "by": "label"}, "--by"),
        ({"rule": "balanced", "per_label": True}, "--per-label"),
        ({"rule": "random", "n": 1, "weight": -1.0}, "--weight"),
        ({"rule": "balanced", "n": 9, "weight": 1.0}, "--n says how many"),
        ({"rule": "balanced", "share": 0.5, "weight": 1.0}, "--share says how many"),
        ({"rule": "balanced", "weight": 0.0}, "0 would leave out every sample"),
        ({"rule": "suspects", "per_label": True}, "--per-label needs a number"),
        ({"rule": "loss > 2", "per_label": True}, "--per-label needs a number"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(how: dict[str, object], said: str) -> None:
    with pytest.raises(XaiError, match=said):
        choice(**how)  # type: ignore[arg-type]


def test_a_run_without_metrics_is_drawn_from(tmp_path: Path, xai: Any) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2, 3, 4, 5], label=[0, 0, 1, 1, None], mode="train", epoch=1)
    reader = xaicli.open_run(tmp_path / "run")
    assert sorted(reader.select(rule="random", n=5).data["sample_id"]) == [1, 2, 3, 4, 5]
    even = reader.select(rule="balanced", n=2)
    assert sorted(even.data["label"]) == [0, 1]
    assert any("1 sample of train has no label" in warning for warning in even.answer.warnings)
    assert set(reader.select(rule="label = 1").data["sample_id"]) == {3, 4}
    with pytest.raises(XaiError, match="no metrics"):
        reader.select(rule="hardest", n=1)
    status, out, _ = xai(
        "select", tmp_path / "run", "--rule", "random", "--n", "2", "--format", "html", "-o", tmp_path / "out"
    )
    assert status == 0
    assert "2 samples of 5" in out


def test_attempts_passes_and_duplicates_count_once(tmp_path: Path) -> None:
    for attempt in range(2):
        with xaicli.Run(tmp_path / "run", resume="allow") as run:
            for epoch in (1, 2) if attempt == 0 else (2,):
                run.log_samples(
                    sample_id=[1, 2, 3, 3],
                    label=[0, 0, 0, 0],
                    loss=[3.0 - attempt, 2.5, 1.0, 9.0 * (epoch == 1)],
                    mode="train",
                    epoch=epoch,
                    step=epoch,
                )
    reader = xaicli.open_run(tmp_path / "run")
    found = reader.select(rule="hardest", n=3)
    assert found.data["sample_id"].to_list() == [2, 1, 3]
    assert found.data["score"].to_list() == [2.5, 2.0, 0.0]
    assert found.answer.counts.taken_back == 4
    assert found.answer.counts.duplicates
    assert reader.select(rule="hardest", n=3, attempts="all").answer.counts.taken_back == 0


RULES = (*("hardest", "easy", "ambiguous", "forgotten", "suspects", "label_issues", "balanced", "diverse", "random"),)
CONDITION = "label_prob >= 0"
ORDERED = ("hardest", "easy", CONDITION)
OPTIONS: dict[str, tuple[tuple[object, ...], tuple[str, ...]]] = {
    "stat": (("mean", "max", "first"), ORDERED),
    "metric": (("loss,margin", ["loss", "margin"]), ()),
    "per_label": ((True,), tuple(rule for rule in (*RULES, CONDITION) if rule != "balanced")),
    "weight": ((3.0, 0.0), tuple(rule for rule in (*RULES, CONDITION) if rule != "balanced")),
    "by": (("camera",), ("balanced",)),
    "table": (("metrics2",), ("diverse",)),
    "column": (("first",), ("diverse",)),
    "split": (("val",), ("diverse",)),
    "complete_only": ((True,), (*RULES, CONDITION)),
}
"""Values of an option, and the rules that honour it: all others refuse it by its name."""


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> xaicli.RunReader:
    """Every rule finds some of its samples, and no two options give the same list."""
    rng = np.random.default_rng(3)
    path, n = tmp_path_factory.mktemp("choices") / "run", 48
    label = np.arange(n) % 3
    with xaicli.Run(path, label_names=NAMES, keep_probs=True) as run:
        run.log_facts(range(n), camera=["rear" if i % 4 == 0 else "front" for i in range(n)])
        for epoch in range(1, EPOCHS + 1):
            logits = (
                rng.normal(size=(n, 3))
                + 1.2 * np.eye(3)[label]
                - 4 * np.eye(3)[label] * (np.arange(n) % 8 == 1)[:, None]
            )
            logits[np.arange(n) % 8 == 1, (label[np.arange(n) % 8 == 1] + 1) % 3] += 4
            few = n - 6 * (epoch == EPOCHS)  # the last are stale
            run.log_samples(sample_id=np.arange(few), label=label[:few], logits=logits[:few], mode="train", epoch=epoch)
        for name in ("metrics", "metrics2"):
            for split in ("train", "val") if name == "metrics" else (None,):
                vectors = {one: rng.normal(size=(n, 3)).astype(np.float32) for one in ("first", "second")}
                run.add_metrics_data({"example_id": list(range(n)), "split": [split] * n, **vectors}, name=name)
    return xaicli.open_run(path)


@pytest.mark.parametrize("rule", [*RULES, CONDITION])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_is_honoured_by_a_rule_or_refused_by_name(
    embedded: xaicli.RunReader, rule: str, option: str
) -> None:
    how: dict[str, Any] = {"rule": rule, "mode": "train"}
    if not (rule == "balanced" and option == "weight"):
        how["n"] = 48 if option == "complete_only" else 6
    if rule == "diverse":
        how.update(table="metrics", column=["second"])
    columns = ["sample_id", "rank", "weight"]
    plain = embedded.select(**how).data.select(columns)
    values, honouring = OPTIONS[option]
    for value in values:
        if rule in honouring:
            found = embedded.select(**{**how, option: value}).data.select(columns)
            assert found.height
            if (rule, option) == ("label_issues", "complete_only"):  # it looks at the last epoch alone
                assert found["sample_id"].max() < 42  # type: ignore[operator]
            else:
                assert not found.equals(plain), (option, value)
        elif option == "weight" and rule == "balanced":
            with pytest.raises(UsageError, match="--n says how many"):
                embedded.select(**{**how, "n": 6, option: value})
        else:
            named = "--metric" if option == "metric" else f"--{option.replace('_', '-')}"
            with pytest.raises(UsageError, match=f"{named}|one metric"):
                embedded.select(**{**how, option: value})


@pytest.mark.parametrize("rule", [*(rule for rule in RULES if rule != "diverse"), CONDITION])
def test_an_export_honours_what_it_is_given_or_says_that_it_changes_nothing(
    embedded: xaicli.RunReader, tmp_path: Path, rule: str
) -> None:
    how: dict[str, Any] = {"rule": rule, "mode": "train", "n": 6, "to": "csv"}

    def made(**more: Any) -> tuple[list[int], str]:
        result = embedded.relabel_export(tmp_path / "x.csv", **{**how, **more})
        return result.data["sample_id"].to_list(), " ".join(result.answer.warnings)

    plain, said = made()
    assert "changes nothing" not in said
    with pytest.raises(UsageError, match="one metric"):
        made(metric="loss,margin")
    by_margin, said = made(metric="entropy")
    assert (by_margin != plain) is (rule in ORDERED)
    assert ("--metric changes nothing" in said) is (rule not in ORDERED)
    seeded, said = made(seed=5)
    assert (seeded != plain) is (rule in ("random", "balanced"))
    assert ("--seed changes nothing" in said) is (rule not in ("random", "balanced"))
    if rule == "balanced":
        with pytest.raises(UsageError, match="--per-label"):
            made(per_label=True)
    else:
        assert made(per_label=True)[0] != plain
    _, said = made(prefix="/data/")
    assert "--prefix is put before none" in said


def test_weights_that_leave_out_every_sample_are_told(embedded: xaicli.RunReader) -> None:
    found = embedded.select(rule=CONDITION, weight=0.0, mode="train")
    assert set(found.data["weight"]) == {0.0}
    assert any("no sampler can draw" in warning for warning in found.answer.warnings)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("label_name = 'owl'", lambda i, _: i % 3 == 2),
        ("label_name = 'owl' AND camera = 'rear'", lambda i, _: i % 3 == 2 and i % 4 == 0),
        ("label_name <> prediction_name", lambda _, right: not right),
        ("label_name IN ('cat', 'dog') AND correct", lambda i, right: i % 3 < 2 and right),
    ],
)
def test_conditions_know_labels_by_name(
    embedded: xaicli.RunReader, tmp_path: Path, condition: str, expected: Any
) -> None:
    """As `samples --where` and SQL know them, whichever option the condition is given by, and whatever groups."""
    last_rows = embedded.scan(mode="train").collect().sort("epoch").unique("sample_id", keep="last")
    right = dict(last_rows.select("sample_id", "correct").iter_rows())
    wanted = {i for i in range(48) if expected(i, right[i])}
    assert 0 < len(wanted) < 48
    for how in ({"rule": condition}, {"where": condition}, {"rule": condition, "label_key": "prediction"}):
        assert set(embedded.select(mode="train", **how).data["sample_id"]) == wanted, how
        exported = embedded.relabel_export(tmp_path / "x.csv", mode="train", **how).data  # type: ignore[arg-type]
        assert set(exported["sample_id"]) == wanted, how


@pytest.mark.parametrize("command", ["select", "relabel export"])
@pytest.mark.parametrize("option", ["--rule", "--where"])
def test_a_condition_that_cannot_be_asked_is_told_by_its_own_option(
    embedded: xaicli.RunReader, xai: Any, command: str, option: str
) -> None:
    for condition in ("nosuch = 'owl'", "label = 'owl' +", "sum(loss) > 2"):
        status, out, err = xai(*command.split(), embedded.layout.root, "--mode", "train", option, condition)
        assert (status, out) == (2, "")
        assert err.startswith(f"error: {option} ")
        assert ("--where" in err) is (option == "--where")


def test_a_condition_on_the_epoch_is_of_the_last_row(run: xaicli.RunReader, xai: Any, tmp_path: Path) -> None:
    assert ids(run, f"epoch = {EPOCHS - 1}") == [N - 1]  # the one that is absent at the end
    assert sorted(ids(run, f"epoch = {EPOCHS}")) == list(range(N - 1))
    both = [i for i in range(N - 1) if -math.log(last(i)) > 1]
    found = run.select(where=f"loss > 1 AND epoch = {EPOCHS}", mode="train")
    assert sorted(found.data["sample_id"].to_list()) == both
    assert any("--epoch asks about another" in one for one in found.answer.warnings)
    at = run.select(rule="epoch = 2 AND loss > 1", epoch=2, mode="train").data["sample_id"].to_list()
    assert sorted(at) == [i for i in range(N) if -math.log(probability(i, 2)) > 1]
    words = ("relabel", "export", run.layout.root, "--mode", "train", "--rule", f"epoch = {EPOCHS - 1}", "--json")
    status, out, _ = xai(*words, "-o", tmp_path / "t.json")
    assert status == 0
    assert [row["sample_id"] for row in json.loads(out)["rows"]] == [N - 1]


@pytest.mark.parametrize("kind", ["whole", "date"])
def test_numbers_and_dates_of_many_values_are_balanced_by_fifth(tmp_path: Path, kind: str) -> None:
    start = date(2026, 1, 1)
    values: list[Any] = [i if kind == "whole" else start + timedelta(days=i) for i in range(100)]
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts(range(100), of=values, few=[i % 7 for i in range(100)])
        run.log_samples(sample_id=range(100), label=[0] * 100, loss=[1.0] * 100, mode="train", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    assert Counter(i // 20 for i in ids(opened, "balanced", by="of", n=50)) == dict.fromkeys(range(5), 10)
    assert Counter(i % 7 for i in ids(opened, "balanced", by="few", n=35)) == dict.fromkeys(range(7), 5)


def test_of_more_groups_than_are_chosen_the_seed_draws(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts(range(200), site=[f"site {i // 2:03d}" for i in range(200)])
        run.log_samples(sample_id=range(200), label=[0] * 200, loss=[1.0] * 200, mode="train", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    found = opened.select(rule="balanced", by="site", n=30, mode="train")
    assert any("30 of the 100 values of site" in one for one in found.answer.warnings)
    drawn = [{i // 2 for i in ids(opened, "balanced", by="site", n=30, seed=seed)} for seed in range(5)]
    assert all(len(sites) == 30 for sites in drawn)
    assert len(set().union(*drawn)) > 60  # 83 are expected; the first 30 each time were 30
    # Of the odd ones of 110, ten sites have two, and which ones the seed draws, too.
    odd = [n for n, k in Counter(i // 2 for i in ids(opened, "balanced", by="site", n=110)).items() if k == 2]
    assert len(odd) == 10
    assert sorted(odd) != list(range(10))


def test_a_statistic_of_another_metric_is_told_with_its_option(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        for epoch in (1, 2):
            run.log_samples(
                sample_id=[1, 2], label=[1.0, 2.0], prediction=[1.5, 9.0], loss=[0.1, 9.0], mode="train", epoch=epoch
            )
    opened = xaicli.open_run(tmp_path / "run")
    with pytest.raises(UsageError) as refused:
        opened.select(rule="abs_error_mean > 5", mode="train")
    assert "--metric abs_error has the statistics of abs_error" in str(refused.value.hint)
    assert ids(opened, "abs_error_mean > 5", metric="abs_error") == [2]


def test_what_sets_of_classes_cannot_be_asked_names_a_way_that_works(tmp_path: Path) -> None:
    labels = np.array([[i % 2, i % 3 == 0, 1] for i in range(30)], int)
    with xaicli.Run(tmp_path / "run", task="multilabel") as run:
        for epoch in (1, 2):
            logits = 3.0 * labels - 1 + np.cos(np.arange(90.0) * epoch).reshape(30, 3)
            run.log_samples(sample_id=range(30), label=labels, logits=logits, mode="train", epoch=epoch)
    opened = xaicli.open_run(tmp_path / "run")
    for rule, ways in (("ambiguous", ("hardest", "forgotten")), ("label_issues", ("suspects",))):
        with pytest.raises(XaiError) as told:
            opened.select(rule=rule, n=5, mode="train")
        assert "keep_probs" not in f"{told.value} {told.value.hint}"
        assert "log it" not in told.value.hint
        for way in ways:
            assert way in told.value.hint
            opened.select(rule=way, n=5, mode="train")


def test_as_many_sets_of_classes_are_drawn_as_were_chosen_and_of_each_class_nearly_as_many(tmp_path: Path) -> None:
    rng, n, classes = np.random.default_rng(5), 600, 8
    labels = rng.random((n, classes)) < np.linspace(0.05, 0.5, classes)
    loss = rng.random(n)
    with xaicli.Run(tmp_path / "run", task="multilabel") as run:
        run.log_samples(sample_id=range(n), label=labels.astype(int), loss=loss, mode="train", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    order = np.argsort(-loss)
    for each in (1, 5, 20):
        hardest = {int(i) for one in range(classes) for i in order[labels[order, one]][:each]}
        hardest |= {int(i) for i in order[~labels[order].any(axis=1)][:each]}
        drawn = []
        for seed in (0, 0, 1):
            found = opened.select(rule="hardest", n=each, per_label=True, mode="train", seed=seed).answer
            assert set(found.data["sample_id"]) == hardest
            drawn.append(found.extra["random"]["sample_id"].to_list())
            assert len(set(drawn[-1])) == len(drawn[-1]) == len(hardest)
            mine, others = (labels[list(one)].sum(axis=0) for one in (hardest, drawn[-1]))
            assert np.abs(mine - others).max() <= 2, (each, seed, mine, others)
            mix = {row["value"]: row["random"] for row in found.extra["mix"] if row["column"] == "label"}
            assert [mix[str(one)] for one in range(classes)] == others.tolist()
        assert drawn[0] == drawn[1] != drawn[2]
        assert len(hardest & set(drawn[0])) < len(hardest) / 2  # they are drawn, and not looked for


def test_that_labels_are_memorised_is_told_where_suspects_are(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        label = [i % 3 for i in range(60)]
        for epoch in range(1, 4):
            run.log_samples(
                sample_id=range(60), label=label, prediction=label, loss=[i / 60 for i in range(60)], epoch=epoch
            )
    opened = xaicli.open_run(tmp_path / "run")
    told = {
        rule: any("memorised" in one for one in opened.select(rule=rule, n=5, mode="train").answer.warnings)
        for rule in ("hardest", "forgotten", "suspects", "easy", "balanced", "random")
    }
    assert [rule for rule, is_told in told.items() if is_told] == ["hardest", "forgotten", "suspects"]


def test_the_mix_counts_the_samples_without_a_fact(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([0, 1, 2], camera=["front, left", "rear", "rear"])
        run.log_samples(sample_id=range(8), label=[0, 1] * 4, loss=[float(i) for i in range(8)], mode="eval", epoch=1)
    found = xaicli.open_run(tmp_path / "run").select(rule="hardest", n=6)
    drawn = set(found.answer.extra["random"]["sample_id"])
    mix = {row["value"]: row for row in found.answer.extra["mix"] if row["column"] == "camera"}
    own = {"front, left": {0}, "rear": {1, 2}, None: {3, 4, 5, 6, 7}}
    assert {value: (row["n"], row["chosen"], row["random"]) for value, row in mix.items()} == {
        value: (len(ids), len(ids & {2, 3, 4, 5, 6, 7}), len(ids & drawn)) for value, ids in own.items()
    }
    assert None not in {row["value"] for row in found.answer.extra["mix"] if row["column"] == "label"}
    (table,) = (
        block for block in found.report.sections[0].blocks if getattr(block, "title", "").startswith("Mix by camera")
    )
    assert [row[:3] for row in table.rows] == [("front, left", 1, 0), ("rear", 2, 1), ("(missing)", 5, 5)]
    assert table.note == 'none chosen of: "front, left"'


def test_the_mix_is_of_every_fact_and_says_which_have_too_many_values(tmp_path: Path) -> None:
    """Twelve facts, and one that every sample has another value of; what is balanced by stands next to the label."""
    facts = {f"fact{k}": [f"v{(i + k) % 3}" for i in range(60)] for k in range(11)}
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts(range(60), **facts, camera=["front", "rear"] * 30, path=[f"{i}.png" for i in range(60)])
        run.log_samples(sample_id=range(60), label=[0, 1] * 30, loss=np.arange(60.0), mode="train", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    for how, first in (
        ({"rule": "hardest"}, ["label", "fact0", "fact1"]),
        ({"rule": "balanced", "by": "fact9"}, ["label", "fact9"]),
        ({"rule": "balanced", "by": "path"}, ["label", "path"]),
    ):
        found = opened.select(n=10, mode="train", **how)
        mix = found.answer.extra["mix"]
        columns = list(dict.fromkeys(row["column"] for row in mix))
        by_path = how.get("by") == "path"
        assert columns[: len(first)] == first
        assert sorted(columns) == sorted(["label", *facts, "camera", *(["path"] if by_path else [])])
        others = [] if by_path else [{"mode": "train", "ds_id": "", "column": "path", "values": 60}]
        assert found.answer.extra["not_mixed"] == others
        chosen = set(found.data["sample_id"])
        for name, values in facts.items():
            told = {row["value"]: (row["n"], row["chosen"]) for row in mix if row["column"] == name}
            assert told == {value: (20, sum(values[i] == value for i in chosen)) for value in ("v0", "v1", "v2")}, name
        text = found.html()
        beside = columns[7:]
        assert f"--json has the mix by {', '.join(beside)}." in text
        assert ("No mix by what has more than 50 values: path (60)." in text) != by_path


@pytest.mark.parametrize("label", [True, False])
def test_what_could_be_chosen_is_counted_and_not_what_was(embedded: xaicli.RunReader, label: bool) -> None:
    n = embedded.select(rule="random", n=1, mode="train").answer.extra["chosen"][0]["samples"]
    for how in ({"rule": "diverse", "table": "metrics"}, *([] if label else [{"rule": "balanced"}])):
        (told,) = embedded.select(n=2, mode="train", per_label=label, **how).answer.extra["chosen"]
        assert (told["there"], told["samples"]) == (n, n)
        assert told["chosen"] < n


@pytest.mark.parametrize("option", ["rule", "where", "both"])
def test_a_condition_sees_values_that_are_not_finite_as_everything_else_does(tmp_path: Path, option: str) -> None:
    """As `--where` of every command and `xai query`: NaN is above all numbers, and neither of them is missing."""
    loss = {1: [0.5] * 8, 2: [2.0, 0.5, math.nan, math.inf, -math.inf, None, 3.0]}
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=range(8), label=[0] * 8, loss=loss[1], mode="train", epoch=1)
        run.log_samples(sample_id=range(7), label=[0] * 7, loss=loss[2], mode="train", epoch=2)
    opened = xaicli.open_run(tmp_path / "run")
    last = {**dict(enumerate(loss[1])), **dict(enumerate(loss[2]))}
    above = {i for i, value in last.items() if value is not None and not value <= 1}
    number = {i for i, value in last.items() if value is not None and math.isfinite(value)}
    cases = {
        "loss > 1": above,
        "NOT (loss - loss = 0)": set(last) - number - {5},
        "loss < 0": {4},
        "loss IS NULL": {5},
        "loss > 1 AND loss_last > 1": {0, 6},
    }
    for sql, expected in cases.items():
        if "loss_last" in sql and option == "both":
            continue
        how = {"rule": {"rule": sql}, "where": {"where": sql}, "both": {"rule": "random", "n": 9, "where": sql}}[option]
        if option == "both":  # rows, of which a sample has several
            rows = [(i, value) for epoch in (1, 2) for i, value in enumerate(loss[epoch])]
            expected = {
                i
                for i, value in rows
                if {
                    "loss > 1": value is not None and not value <= 1,
                    "NOT (loss - loss = 0)": value is not None and not math.isfinite(value),
                    "loss < 0": value is not None and value < 0,
                    "loss IS NULL": value is None,
                }[sql]
            }
        assert set(opened.select(mode="train", **how).data["sample_id"]) == expected, sql
        made = opened.relabel_export(tmp_path / "x.csv", mode="train", **how)
        assert set(made.data["sample_id"]) == expected, sql


def test_a_column_alone_is_a_condition(tmp_path: Path, xai: Any) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts(range(4), ok=[True, False, True, None], hardest=[False, True, False, False])
        run.log_samples(sample_id=range(4), label=[0] * 4, loss=[1.0, 2, 3, 4], mode="train", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    assert opened.select(where="ok", mode="train").data["sample_id"].to_list() == [2, 0]
    assert opened.select(where="hardest", mode="train").data["sample_id"].to_list() == [1]
    status, _, err = xai("select", tmp_path / "run", "--mode", "train", "--rule", "ok")
    assert status == 2
    assert "or of a column alone --rule '(ok)'" in err
    assert opened.select(rule="(ok)", mode="train").data["sample_id"].to_list() == [2, 0]


def test_of_a_signed_residual_neither_end_is_the_hardest_without_a_word(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        run.log_samples(sample_id=range(4), label=[0.0] * 4, prediction=[-3.0, 8.0, -1.0, 2.0], mode="train", epoch=1)
    run_of = xaicli.open_run(tmp_path / "run")
    for rule, first in (("hardest", 0), ("easy", 1)):
        found = run_of.select(rule=rule, n=1, mode="train", metric="residual")
        assert found.data["sample_id"][0] == first
        assert [said for said in found.answer.warnings if said.startswith("which end of residual is good is not known")]
    found = run_of.select(rule="hardest", n=1, mode="train", metric="abs_error")
    assert found.data["sample_id"][0] == 1
    assert not [said for said in found.answer.warnings if "which end" in said]
