"""Which run is better, against scipy and by hand."""

import json
import math

import numpy as np
import pytest
from scipy import stats

import xaicli
from xaicli import api
from xaicli.cli import main
from xaicli.diagnosis.paired import accuracy_difference, mean_difference, run_difference
from xaicli.errors import UsageError

N = 600


def test_means_against_scipy():
    rng = np.random.default_rng(0)
    first = rng.exponential(1, 500)
    last = first + rng.normal(0.1, 0.5, 500)
    spoilt_first, spoilt_last = np.append(first, [np.nan, 3.0]), np.append(last, [1.0, np.inf])
    found = mean_difference(spoilt_first, spoilt_last)
    assert (found.n, found.method) == (500, "paired bootstrap")
    assert found.difference == pytest.approx((last - first).mean())
    assert found.p == pytest.approx(stats.ttest_rel(last, first).pvalue, rel=1e-6)
    interval = stats.bootstrap(((last - first),), np.mean, method="percentile", random_state=1).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(interval), abs=0.006)
    assert mean_difference(first, last) == found  # the same each time


def test_means_of_many_samples_have_the_normal_limit():
    rng = np.random.default_rng(0)
    first, gain = rng.normal(size=30_000), rng.normal(0.01, 1, 30_000)
    found = mean_difference(first, first + gain)
    assert found.method == "paired normal"
    assert (found.low, found.high) == pytest.approx(stats.norm.interval(0.95, gain.mean(), stats.sem(gain)))


def test_odd_means():
    assert mean_difference(np.array([1.0, np.nan]), np.array([1.0, 2.0])) is None
    same = mean_difference(np.ones(5), np.ones(5))
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    shifted = mean_difference(np.ones(5), np.full(5, 2.0))
    assert (shifted.low, shifted.high, shifted.p) == (1, 1, 0)


@pytest.mark.parametrize(
    ("lost", "won", "both", "neither"), [(3, 11, 80, 6), (0, 0, 5, 5), (0, 4, 0, 0), (40, 38, 1, 1)]
)
def test_accuracies_against_the_exact_test(lost, won, both, neither):
    counts = [lost, won, both, neither]
    first = np.repeat([True, False, True, False], counts)
    last = np.repeat([False, True, True, False], counts)
    found, n = accuracy_difference(first, last), sum(counts)
    assert found.difference == pytest.approx((won - lost) / n)
    expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert found.p == pytest.approx(expected)
    # Agresti and Min: half a sample more in each of the four cells.
    b, c, total = lost + 0.5, won + 0.5, n + 2
    error = math.sqrt(b / total + c / total - ((c - b) / total) ** 2) / math.sqrt(total)
    assert found.low == pytest.approx(max((c - b) / total - 1.959964 * error, -1), abs=1e-6)
    assert found.high == pytest.approx(min((c - b) / total + 1.959964 * error, 1), abs=1e-6)


def test_the_interval_of_accuracies_covers_the_truth():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        kind = rng.choice(4, 200, p=[0.05, 0.10, 0.75, 0.10])
        found = accuracy_difference(np.isin(kind, [0, 2]), np.isin(kind, [1, 2]))
        held += found.low <= 0.05 <= found.high
    assert held / 400 >= 0.93


def test_runs_against_welch():
    first, last = [0.91, 0.90, 0.93], [0.95, 0.94, 0.97, 0.93]
    found = run_difference(first, last)
    expected = stats.ttest_ind(last, first, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-5)
    assert run_difference([0.9], [0.8, 0.7]) is None


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three seeds of `a` and `b`; `b` is right more often. {run: (right, loss)} of the last epoch."""
    folder = tmp_path_factory.mktemp("paired")
    logged = {}
    common = np.random.default_rng(7).random(N)
    for name, accuracy in (("a", 0.80), ("b", 0.90)):
        for seed in range(3):
            rng = np.random.default_rng([ord(name), seed])
            right = 0.8 * common + 0.2 * rng.random(N) < accuracy
            loss = np.where(right, 0.2, 1.5) + rng.normal(0, 0.1, N)
            label = np.arange(N) % 5
            taken = np.where(right, label, (label + 1) % 5)
            with xaicli.Run(folder / f"{name}-{seed}") as run:
                for epoch in (1, 2):
                    run.log_samples(
                        sample_id=np.arange(N),
                        label=label,
                        prediction=taken,
                        correct=right,
                        loss=loss + (2 - epoch),
                        mode="eval",
                        epoch=epoch,
                    )
            logged[f"{name}-{seed}"] = right, loss.astype(np.float32).astype(float)
    return folder, logged


def asked(capsys, *arguments):
    assert main(["compare", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_two_runs(runs, capsys):
    folder, logged = runs
    found = {row["metric"]: row for row in asked(capsys, folder / "a-0", folder / "b-0")["paired"]}
    (right_a, loss_a), (right_b, loss_b) = logged["a-0"], logged["b-0"]
    accuracy = found["correct"]
    assert accuracy["values"] == pytest.approx([right_a.mean(), right_b.mean()])
    won, lost = int((right_b & ~right_a).sum()), int((right_a & ~right_b).sum())
    assert accuracy["p"] == pytest.approx(stats.binomtest(won, won + lost).pvalue)
    assert (accuracy["better"], accuracy["n"]) == ("last", N)
    loss = found["loss"]
    assert loss["difference"] == pytest.approx((loss_b - loss_a).mean(), abs=1e-6)
    assert loss["p"] == pytest.approx(stats.ttest_rel(loss_b, loss_a).pvalue, rel=1e-4)
    assert loss["better"] == "last"
    said = api.compare(folder / "a-0", folder / "b-0").report.sentence
    points = f"{100 * (right_b.mean() - right_a.mean()):.2g}"
    assert f"b-0 is better than a-0 by {points} points of accuracy (95 % " in said
    turned = api.compare(folder / "b-0", folder / "a-0").report.sentence
    assert f"b-0 is better than a-0 by {points} points of accuracy (95 % " in turned


def test_each_later_run_is_held_against_the_first(runs, capsys):
    folder, _ = runs
    found = asked(capsys, folder / "a-0", folder / "a-1", folder / "b-0")["paired"]
    assert [row["last"].rsplit("/")[-1] for row in found if row["metric"] == "loss"] == ["a-1", "b-0"]
    same = [row for row in found if row["last"].endswith("a-1") and row["metric"] == "correct"]
    assert same[0]["better"] is None or same[0]["p"] < 0.05


def test_runs_of_a_group_are_replicates(runs, capsys):
    folder, logged = runs
    found = {row["metric"]: row for row in asked(capsys, folder, "--group", "a=*a-*", "--group", "b=*b-*")["paired"]}
    for metric, part in (("correct", 0), ("loss", 1)):
        means = [[float(np.mean(logged[f"{name}-{seed}"][part])) for seed in range(3)] for name in "ab"]
        expected = stats.ttest_ind(means[1], means[0], equal_var=False)
        row = found[metric]
        assert row["difference"] == pytest.approx(np.mean(means[1]) - np.mean(means[0]), abs=1e-6)
        assert row["p"] == pytest.approx(expected.pvalue, rel=1e-3)
        assert (row["low"], row["high"]) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-3)
        assert (row["first"], row["last"], row["n"]) == ("a", "b", 6)
    with pytest.raises(UsageError, match="two groups"):
        api.compare(folder, group=["a=*a-*"])
    with pytest.raises(UsageError, match="one run alone"):
        api.compare(folder, group=["a=*a-0", "b=*b-*"])
    with pytest.raises(UsageError, match="in two groups"):
        api.compare(folder, group=["a=*a-*", "b=*"])


def test_only_samples_of_both_count(tmp_path, capsys):
    for name, ids, loss in (("a", [1, 2, 3, 4], [1, 2, 3, math.nan]), ("b", [2, 3, 4, 5], [4, 6, 1, 1])):
        with xaicli.Run(tmp_path / name) as run:
            run.log_samples(sample_id=ids, loss=np.array(loss, np.float32), mode="eval", epoch=1)
    (row,) = asked(capsys, tmp_path / "a", tmp_path / "b")["paired"]
    assert (row["n"], row["values"], row["difference"]) == (2, [2.5, 5.0], 2.5)


def test_runs_without_common_samples_are_told(tmp_path, capsys):
    for name, ids in (("a", [1, 2, 3]), ("b", [4, 5, 6]), ("c", [2, 3, 4])):
        with xaicli.Run(tmp_path / name) as run:
            run.log_samples(sample_id=ids, loss=np.array([1, 2, 4], np.float32), mode="eval", epoch=1)
    a, b, c = (tmp_path / name for name in "abc")
    found = asked(capsys, a, b, c)
    assert [(row["last"], row["n"], row["difference"]) for row in found["paired"]] == [(str(c), 2, -1.5)]
    said = f"eval: no difference of {a} and {b} is told, since they have fewer than two samples with values in common"
    assert said in found["warnings"]
    assert f"3 of the 3 samples of eval in {a} are not in {b}" in found["warnings"]
    alone = [f"1 of the 3 samples of eval in {one} is not in {other}" for one, other in ((a, c), (c, a))]
    assert asked(capsys, a, c)["warnings"] == alone


def test_runs_that_do_not_differ_are_named(tmp_path):
    for name in "abc":
        with xaicli.Run(tmp_path / name) as run:
            run.log_samples(sample_id=[1, 2, 3], loss=np.array([1, 2, 4], np.float32), mode="eval", epoch=1)
    said = xaicli.compare(*(tmp_path / name for name in "abc")).report.sentence
    assert [f"no difference in mean loss at all between a and {other} (" in said for other in "bc"] == [True, True]


def test_accuracy_counts_samples_whose_loss_is_not_finite(tmp_path, capsys):
    for name, taken in (("a", [0, 1, 1, 0]), ("b", [0, 1, 0, 1])):
        with xaicli.Run(tmp_path / name) as run:
            loss = np.array([1, math.nan, math.inf, 2], np.float32)
            run.log_samples(
                sample_id=[1, 2, 3, 4], label=[0, 1, 0, 1], prediction=taken, loss=loss, mode="eval", epoch=1
            )
    found = {row["metric"]: row for row in asked(capsys, tmp_path / "a", tmp_path / "b")["paired"]}
    assert (found["correct"]["n"], found["correct"]["values"]) == (4, [0.5, 1.0])
    assert found["loss"]["n"] == 2
    alone = asked(capsys, tmp_path / "a", tmp_path / "b", "--metric", "correct")
    assert [row["metric"] for row in alone["paired"]] == ["correct"]
    assert next(row for row in alone["rows"] if row["kind"] == "metric")["values"] == [0.5, 1.0]


def test_stale_samples_of_groups_are_counted_and_told(tmp_path, capsys):
    """Of 100 samples two runs of a lack 10 and 15 in the last epoch, 5 of them both; one of b has 3 without a loss."""
    rng = np.random.default_rng(5)
    absent = {"a-0": set(range(10)), "a-1": set(range(5, 20)), "b-0": set(), "b-1": set()}
    for name, missing in absent.items():
        with xaicli.Run(tmp_path / name) as run:
            for epoch in (1, 2):
                ids = np.array([i for i in range(100) if epoch == 1 or i not in missing])
                loss = rng.random(len(ids)) + (name[0] == "b")
                if (name, epoch) == ("b-1", 2):
                    loss[50:53] = np.nan
                right = np.where(rng.random(len(ids)) < 0.8, 1, 0)
                run.log_samples(sample_id=ids, label=right**0, prediction=right, loss=loss, mode="eval", epoch=epoch)
    groups = ("--group", "a=*a-*", "--group", "b=*b-*")
    found = {row["metric"]: row for row in asked(capsys, tmp_path, *groups)["paired"]}
    assert {metric: (row["n"], row["stale"]) for metric, row in found.items()} == {"correct": (4, 20), "loss": (4, 23)}
    said = " ".join(api.compare(tmp_path, group=["a=*a-*", "b=*b-*"]).markdown().split())
    assert "4 runs, 20 samples stale in some of them)" in said
    assert "stale: no finite value in the run's last epoch; the last there is counts" in said


def test_runs_in_no_group_take_nothing_from_the_groups(tmp_path, capsys):
    """A smoke test of some samples, one of other samples and one without losses lie beside two groups of seeds."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 3
    losses: dict[str, list[float]] = {"old": [], "new": []}

    def recorded(name: str, ids: np.ndarray, loss: np.ndarray | None) -> None:
        with xaicli.Run(tmp_path / "runs" / name) as run:
            values = {} if loss is None else {"loss": loss}
            run.log_samples(
                sample_id=ids, label=labels[ids % 200], prediction=labels[ids % 200], **values, mode="eval", epoch=1
            )

    for group, level in (("old", 2.0), ("new", 1.0)):
        for seed in range(3):
            loss = np.float32(level + rng.normal(scale=0.3, size=200))
            recorded(f"{group}-{seed}", np.arange(200), loss)
            losses[group].append(float(loss.astype(np.float64).mean()))
    command = ["compare", str(tmp_path / "runs"), "--group", "old=old-*", "--group", "new=new-*", "--json"]
    right = stats.ttest_ind(losses["new"], losses["old"], equal_var=False)

    def of_loss() -> dict[str, object]:
        assert main(command) == 0
        (row,) = [row for row in json.loads(capsys.readouterr().out)["paired"] if row["metric"] == "loss"]
        return row

    alone = of_loss()
    assert alone["values"] == pytest.approx([np.mean(losses["old"]), np.mean(losses["new"])])
    assert alone["p"] == pytest.approx(right.pvalue)
    recorded("smoke-test", np.arange(20), np.full(20, 9.0))
    recorded("without-loss", np.arange(200), None)
    assert of_loss() == alone
    recorded("other-samples", np.arange(1000, 1100), np.full(100, 9.0))
    assert of_loss() == alone
