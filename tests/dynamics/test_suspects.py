"""Planted wrong labels are found, named, explained; memorised ones are warned of; truth scores every ranking."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score, roc_auc_score

import xaicli
from tests.dynamics import planted
from tests.dynamics.planted import Planted
from tests.written_run import WrittenRun
from xaicli.cli import main
from xaicli.dynamics.computed import Statistics, compute
from xaicli.dynamics.findings import Finding, findings, rank_jumps
from xaicli.dynamics.label_issues import label_issues
from xaicli.dynamics.metrics import Plan
from xaicli.dynamics.statistics import dynamics, scores_by
from xaicli.dynamics.suspects import deviations, predictions, reason, suspects, suspicion, two_groups
from xaicli.dynamics.tracker import Tracker
from xaicli.dynamics.truth import grade, suggestions
from xaicli.errors import UsageError, XaiError
from xaicli.layout import RunLayout
from xaicli.queries.resolution import resolve
from xaicli.queries.selection import Selection
from xaicli.reader import Reader, open_reader
from xaicli.recorder.run import Run
from xaicli.report.model import Table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted.plant(tmp_path_factory.mktemp("planted") / "run")


@pytest.fixture(scope="module")
def memorised(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted.plant(tmp_path_factory.mktemp("memorised") / "run", memorise=True)


def opened(run: Planted, **words: str) -> tuple[Reader, Selection]:
    reader = open_reader(RunLayout(run.root))
    return reader, resolve(reader, **words)


def passed(run: Planted) -> tuple[Reader, Selection, Statistics]:
    reader, selection = opened(run)
    return reader, selection, compute(reader, selection)


def truth_file(run: Planted, path: Path) -> Path:
    pl.DataFrame({"sample_id": range(len(run.true_label)), "label": run.true_label}).write_csv(path)
    return path


def test_suspects_are_the_planted_ones(run: Planted) -> None:
    data = suspects(*passed(run), top=len(run.wrong)).data
    assert len(set(data["sample_id"]) & run.wrong) >= 0.95 * len(run.wrong)
    scores = data["score"].to_list()
    assert scores == sorted(scores, reverse=True)
    assert 0.5 < scores[-1] <= scores[0] <= 1.0
    found = data.filter(pl.col("sample_id").is_in(list(run.wrong)))
    right = [run.true_label[key] == suggested for key, suggested in found.select("sample_id", "suggested_label").rows()]
    assert np.mean(right) > 0.95
    assert (data["label"] != data["suggested_label"]).all()


def test_every_suspect_has_a_reason_in_words(run: Planted) -> None:
    for row in suspects(*passed(run), top=5).data.to_dicts():
        assert f"predicted {planted.NAMES[row['suggested_label']]}" in row["reason"]
        assert "of 300 samples" in row["reason"]
        assert "of 12 times" in row["reason"] or "never learned" in row["reason"]


def test_never_more_than_the_suspicious_half(run: Planted) -> None:
    data = suspects(*passed(run), top=10_000).data
    assert data.height <= 150
    assert suspects(*passed(run), top=0).data.height == 0
    with pytest.raises(UsageError):
        suspects(*passed(run), top=-1)


def test_history_finds_what_the_final_loss_no_longer_shows(memorised: Planted, tmp_path: Path) -> None:
    truth = dynamics(*opened(memorised), truth=truth_file(memorised, tmp_path / "truth.csv")).extra["truth"]
    assert truth["suspects"]["auroc"] > 0.95
    assert truth["loss_last"]["auroc"] < 0.7
    assert set(truth) >= {
        "loss_mean",
        "loss_last",
        "confidence",
        "aum",
        "el2n",
        "correctness",
        "suspects",
        "label_issues",
    }


def test_memorisation_is_warned_of(memorised: Planted, run: Planted) -> None:
    assert not any("memorised" in text for text in passed(run)[2].warnings)
    for question in (suspects, findings):
        said = [text for text in question(*passed(memorised)).warnings if "memorised" in text]
        assert len(said) == 1
        assert "does not mean clean" in said[0]
    assert sum("memorised" in text for text in dynamics(*opened(memorised)).warnings) == 1


@pytest.mark.parametrize(
    ("n_right", "n_last", "told"),
    [
        (1939, 1939, None),
        (1950, 1930, "97.5 % of the train labels are predicted at epoch 3 and 96.5 % at epoch 12;"),
        (1970, 1970, "98.5 % of the train labels are predicted at epoch 3 and 98.5 % at epoch 12;"),
        (1981, 1981, "99.1 % of the train labels are predicted at epoch 3 and 99.1 % at epoch 12;"),
    ],
)
def test_memorisation_is_told_from_where_observations_no_longer_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], n_right: int, n_last: int, told: str | None
) -> None:
    """1,600 of 2,000 labels are predicted at first; from epoch 3 on more, in the last epoch so many."""
    ids = np.arange(2000)
    with Run(tmp_path / "run") as run:
        for epoch in range(1, 13):
            right = ids < (1600 if epoch < 3 else n_right if epoch < 12 else n_last)
            loss = np.where(right, 0.01, 3.0) + 0.001 * (ids + epoch)
            run.log_samples(sample_id=ids, label=0 * ids, prediction=1 - right, loss=loss, mode="train", epoch=epoch)
    for command in ("findings", "dynamics", "track-report"):
        assert main([command, str(tmp_path / "run"), "--mode", "train", "--json"]) == 0
        warnings = json.loads(capsys.readouterr().out)["warnings"]
        said = [text for text in warnings if "memorised" in text]
        assert len(said) == (told is not None), warnings
        if told:
            assert told in said[0]
            after = "after epoch 3 only the first 10 observations of a sample count for suspects"
            assert said[0].endswith(after)


@pytest.mark.parametrize(
    "told", [{"correct": True}, {"label": 3, "prediction": 3}, {"label": 3, "prediction": 3, "correct": True}]
)
def test_memorisation_is_seen_by_what_the_run_has_of_right_and_wrong(tmp_path: Path, told: dict[str, Any]) -> None:
    """All 50 training samples are right at epoch 2, a half of them at epoch 1; the evaluation is asked about."""
    run = WrittenRun(tmp_path / "run")
    wrong = {name: False if name == "correct" else value + (name == "prediction") for name, value in told.items()}
    run.write(
        {"mode": mode, "epoch": epoch, "sample_id": key, "loss": 1.0 + key, **(wrong if key % 2 < 2 - epoch else told)}
        for mode in ("train", "eval")
        for epoch in (1, 2)
        for key in range(50)
    )
    reader = open_reader(run.layout)
    for last, expected in ((1, 0), (2, 1)):
        selection = resolve(reader, mode="eval", epoch=f"1-{last}")
        warnings = findings(reader, selection, compute(reader, selection)).warnings
        said = [text for text in warnings if "100.0 % of the train labels are predicted at epoch 2" in text]
        assert len(said) == expected, warnings
        assert sum("memorised" in text for text in warnings) == expected


def test_label_issues(run: Planted) -> None:
    answer = label_issues(*opened(run))
    found = set(answer.data["sample_id"])
    assert len(found & run.wrong) >= 0.75 * len(run.wrong)
    assert len(found & run.wrong) >= 0.9 * len(found)
    assert answer.data["epoch"].unique().to_list() == [12]
    assert (answer.data["label"] != answer.data["suggested_label"]).all()
    assert answer.data["score"].is_sorted(descending=True)


def test_label_issues_use_an_epoch_before_memorisation(memorised: Planted) -> None:
    answer = label_issues(*opened(memorised))
    assert answer.data["epoch"].max() < 12  # type: ignore[operator]
    assert len(set(answer.data["sample_id"]) & memorised.wrong) >= 0.75 * len(memorised.wrong)
    late = label_issues(*opened(memorised, epoch="11-12"))
    assert late.data.is_empty()
    assert any("memorised" in text and "do not mean clean" in text for text in late.warnings)


def test_text_labels(tmp_path: Path) -> None:
    run = planted.plant(tmp_path / "run", n=120, epochs=6, text_labels=True)
    data = suspects(*passed(run), top=12).data
    assert set(data["suggested_label"]) <= set(planted.NAMES)
    assert len(set(data["sample_id"]) & run.wrong) >= 10
    assert set(label_issues(*opened(run)).data["suggested_label"]) <= set(planted.NAMES)
    path = tmp_path / "truth.parquet"
    names = [planted.NAMES[number] for number in run.true_label]
    pl.DataFrame({"sample_id": range(120), "label": names}).write_parquet(path)
    assert dynamics(*opened(run), truth=path).extra["truth"]["suspects"]["auroc"] > 0.9


@pytest.mark.parametrize("spelt", ["number", "name", "mislabelled"])
def test_truth_may_be_spelt_in_several_ways(run: Planted, tmp_path: Path, spelt: str) -> None:
    path = tmp_path / "truth.csv"
    columns = {
        "number": {"label": run.true_label},
        "name": {"label": [planted.NAMES[number] for number in run.true_label]},
        "mislabelled": {"mislabelled": (run.label != run.true_label).astype(int)},
    }[spelt]
    pl.DataFrame({"sample_id": range(300), **columns}).write_csv(path)
    answer = dynamics(*opened(run), truth=path)
    frame = answer.data
    score = roc_auc_score(run.label != run.true_label, frame["loss_mean"])
    assert answer.extra["truth"]["loss_mean"]["auroc"] == pytest.approx(score)


def test_truth_of_some_samples(run: Planted, tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    pl.DataFrame({"sample_id": range(100), "label": run.true_label[:100]}).write_csv(path)
    answer = dynamics(*opened(run), truth=path)
    assert any("knows 100 of 300" in text for text in answer.warnings)


def test_samples_that_nothing_ranks_are_counted_beside_a_truth(tmp_path: Path) -> None:
    n, loss = 40, np.arange(40) / 10
    loss[[3, 4, 39]] = np.nan
    with xaicli.Run(tmp_path / "run") as recording:
        for epoch in (1, 2):
            recording.log_samples(sample_id=np.arange(n), label=[0, 1] * 20, loss=loss, mode="eval", epoch=epoch)
    path = tmp_path / "truth.csv"
    path.write_text("sample_id,mislabelled\n" + "".join(f"{k},{int(k > 30)}\n" for k in range(39)))
    warnings = xaicli.open_run(tmp_path / "run").dynamics(truth=path).answer.warnings
    assert [text for text in warnings if "scored" in text and "last" in text] == [
        "2 of the 39 samples of eval that are scored have no label or no finite value to be suspected by: "
        "suspects has them last"
    ]


def test_truth_that_says_nothing_or_twice_is_told(run: Planted, tmp_path: Path) -> None:
    path = tmp_path / "truth.csv"
    right, wrong = sorted(set(range(300)) - run.wrong)[0], min(run.wrong)
    path.write_text(f"sample_id,mislabelled\n{right},1\n{right},0\n{wrong},1.0\nnobody,1\n5000,\n")
    answer = dynamics(*opened(run), truth=path)
    assert [text for text in answer.warnings if " of " in text and str(path) in text] == [
        f"2 rows of {path} without an id of the run's kind, or without a truth: left out",
        f"1 row of {path} about a sample that it names again: the last counts",
    ]
    assert answer.extra["truth"]["suspects"]["auroc"] == 1.0  # the second row about the first sample is the one


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,label\n1,2\n", "has no column sample_id"),
        ("sample_id,x\n1,2\n", "has neither label nor mislabelled"),
        ("sample_id,label\n90001,2\n", "knows no sample"),
        ("sample_id,label\n1,wolf\n", "no label 'wolf'"),
        ("sample_id,mislabelled\n1,1\n2,maybe\n", "says mislabelled of a sample: maybe"),
        (None, "cannot be read"),
    ],
)
def test_truth_that_cannot_be_used(run: Planted, tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "truth.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(XaiError, match=message):
        dynamics(*opened(run), truth=path)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.booleans()), min_size=2, max_size=40))
def test_grades_equal_those_of_scikit_learn(samples: list[tuple[float, bool]]) -> None:
    scores, wrong = np.array([score for score, _ in samples]), np.array([bad for _, bad in samples])
    found = grade(scores, wrong)
    if wrong.all() or not wrong.any():
        assert found == {"auroc": None, "ap": None, "p_at_100": None}
        return
    assert found["auroc"] == pytest.approx(roc_auc_score(wrong, scores))
    assert found["ap"] == pytest.approx(average_precision_score(wrong, scores))
    assert found["p_at_100"] == pytest.approx(wrong.mean())


def test_findings_of_every_kind(run: Planted) -> None:
    data = findings(*passed(run), top=4).data
    kinds = data.group_by("finding").len().rows()
    assert {kind for kind, _ in kinds} <= set(Finding)
    assert all(n <= 4 for _, n in kinds)
    assert {Finding.SUSPECT, Finding.AMBIGUOUS, Finding.FORGOTTEN} <= {kind for kind, _ in kinds}
    assert data["reason"].is_not_null().all()
    assert set(data.filter(finding="suspect")["sample_id"]) <= run.wrong


def test_a_departing_label_is_found(tmp_path: Path) -> None:
    """Eight labels with losses near 1; the loss of label 5 grows, that of the others shrinks."""
    draw = np.random.default_rng(0)
    run = WrittenRun(tmp_path / "run")
    run.write(
        {"epoch": epoch, "sample_id": key, "label": key % 8, "loss": value + draw.normal(0, 0.02)}
        for epoch in range(1, 9)
        for key in range(80)
        for value in [1 + epoch / 4 if key % 8 == 5 else 1 - epoch / 20]
    )
    reader = open_reader(run.layout)
    selection = resolve(reader)
    data = findings(reader, selection, compute(reader, selection)).data.filter(finding="departing_label")
    assert data["label"].to_list() == [5]
    assert data["sample_id"].to_list() == [None]
    assert "mean loss 3" in data["reason"][0]


def test_a_departing_label_of_several_passes_is_told_once(tmp_path: Path) -> None:
    label = np.arange(60) % 6
    with xaicli.Run(tmp_path / "run") as run:
        for epoch, eval_pass in product((1, 2, 3), (0, 1)):
            loss = np.where(label == 5, 5.0, 0.5) + 0.01 * label + 0.1 * eval_pass
            run.log_samples(sample_id=range(60), label=label, loss=loss, mode="eval", epoch=epoch, eval_pass=eval_pass)
    data = xaicli.open_run(tmp_path / "run").findings().answer.data.filter(finding="departing_label")
    assert data.select("label", "epoch").rows() == [(5, 3)]
    assert "mean loss 5.15 at epoch 3, the median label's is 0.625" in data["reason"][0]


def test_jumps_are_the_largest(tmp_path: Path) -> None:
    """All ranks move a little at every epoch; every tenth sample once rises far, the lowest ones the farthest."""
    rng, n = np.random.default_rng(6), 400
    run = WrittenRun(tmp_path / "run")
    level = np.linspace(1, 5, n)
    for epoch in range(1, 9):
        loss = level + rng.normal(0, 0.05, n)
        if epoch >= 5:
            loss[::10] = 5.5
        run.write({"epoch": epoch, "sample_id": key, "label": 0, "loss": float(loss[key])} for key in range(n))
    reader = open_reader(run.layout)
    selection = resolve(reader)
    data = rank_jumps(reader, selection, compute(reader, selection), top=7).data
    assert data["score"].to_list() == dynamics(reader, selection).data["rank_jump"].top_k(7).to_list()
    assert set(data["sample_id"]) <= set(range(0, 200, 10))
    assert set(data["direction"]) == {"up"}
    assert set(data["epoch"]) == {5}


def test_ranks_that_hardly_move_are_no_news(tmp_path: Path) -> None:
    """Where nearly no rank changes, one percentile is many times the usual move; half of all ranks is one, too."""
    run = WrittenRun(tmp_path / "run")
    level = {epoch: {key: float(key) for key in range(100)} for epoch in range(1, 8)}
    level[4] |= {3: 4.5}
    level[6] |= {90: 40.5}
    run.write(
        {"epoch": epoch, "sample_id": key, "label": 0, "loss": loss}
        for epoch, losses in level.items()
        for key, loss in losses.items()
    )
    reader = open_reader(run.layout)
    selection = resolve(reader)
    found = compute(reader, selection)
    every = found.frames["eval", ""].filter(pl.col("rank_jump") > 6)["sample_id"].to_list()
    assert {3, 90} <= set(every)
    jumps = rank_jumps(reader, selection, found, top=7).data
    assert jumps["sample_id"].to_list() == [90]
    answer = findings(reader, selection, found)
    assert answer.data.filter(finding="rank_jump")["sample_id"].to_list() == [90]
    assert answer.extra["found"]["rank_jump"] == 1


def test_a_run_with_losses_only(tmp_path: Path) -> None:
    run = WrittenRun(tmp_path / "run")
    run.write(
        {"epoch": epoch, "sample_id": key, "label": 0, "loss": float(key)} for epoch in (1, 2, 3) for key in range(9)
    )
    reader = open_reader(run.layout)
    selection = resolve(reader)
    found = compute(reader, selection)
    assert suspects(reader, selection, found).data.is_empty()  # the largest is 2 robust deviations from the median
    assert label_issues(reader, selection).data.is_empty()
    assert "keep_probs" in label_issues(reader, selection).warnings[0]
    assert findings(reader, selection, found).data.is_empty()


def test_the_command_line(run: Planted, tmp_path: Path, xai: object) -> None:
    truth = truth_file(run, tmp_path / "truth.csv")
    status, out, err = xai("dynamics", run.root, "--truth", truth, "--early-epochs", 3, "--json")  # type: ignore[operator]
    assert (status, err.count("error")) == (0, 0)
    answer = json.loads(out)
    assert answer["command"] == "dynamics"
    assert answer["selection"]["early_epochs"] == 3
    assert set(answer["truth"]["suspects"]) == {"auroc", "ap", "p_at_100"}
    assert len(answer["rows"]) == 300
    assert {"sample_id", "confidence", "variability", "region", "rank_jump_direction"} <= set(answer["rows"][0])
    status, out, _ = xai("findings", run.root, "--top", 2)  # type: ignore[operator]
    assert status == 0
    assert "learned and forgotten 4 times" in out
    status, out, err = xai("dynamics", run.root, "--early-epochs", 0)  # type: ignore[operator]
    assert (status, out) == (2, "")
    assert "--early-epochs must be at least 1" in err


def test_one_sample_alone_is_no_suspect(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as recorded:
        for epoch in (1, 2, 3):
            recorded.log_samples(
                sample_id=[7], label=[1], logits=np.array([[2.0, -1.0]]), mode="eval", epoch=epoch, step=epoch
            )
    reader = open_reader(RunLayout(tmp_path / "run"))
    selection = resolve(reader)
    assert suspects(reader, selection, compute(reader, selection)).data.is_empty()


def suspected(root: Path, **words: str) -> pl.DataFrame:
    reader = open_reader(RunLayout(root))
    selection = resolve(reader, **words)
    return suspects(reader, selection, compute(reader, selection), top=1000).data


def losses(root: Path, *, far: tuple[int, ...] = (), unlabelled: int = 0, epochs: int = 6) -> Path:
    """Random losses of 200 samples of four labels, some far out, the first few without a label."""
    draw = np.random.default_rng(5)
    run = WrittenRun(root)
    run.write(
        {
            "epoch": epoch,
            "sample_id": key,
            "label": None if key < unlabelled else key % 4,
            "loss": float(draw.random()) + (20 if key in far or key < unlabelled else 0) + key % 4,
        }
        for epoch in range(1, epochs + 1)
        for key in range(200)
    )
    return root


def test_random_losses_make_no_suspects(tmp_path: Path) -> None:
    assert suspected(losses(tmp_path / "run")).height <= 2


def test_without_predictions_suspects_stand_far_out_among_their_label(tmp_path: Path) -> None:
    far = (11, 42, 97, 160)
    data = suspected(losses(tmp_path / "run", far=far))
    assert set(far) <= set(data["sample_id"])
    assert data.height <= 6
    assert data["suggested_label"].null_count() == data.height
    assert all("robust deviations beyond the median of its label" in reason for reason in data["reason"])


def test_a_sample_without_a_label_is_no_suspect(tmp_path: Path) -> None:
    assert not set(suspected(losses(tmp_path / "run", unlabelled=60))["sample_id"]) & set(range(60))


def test_deviations_by_hand() -> None:
    """Of 1, 2, 3, 4, 100 the median is 3, the MAD 1; of 7, 7, 7, 9 the MAD is 0 and the mean distance 0.5 counts."""
    values = pl.Series([1.0, 2, 3, 4, 100, 7, 7, 7, 9, 5, None, 6])
    group = pl.Series(["a"] * 5 + ["b"] * 4 + ["c", "a", None])
    found = deviations(values, group).to_list()
    assert found[:5] == pytest.approx([-2 / 1.4826, -1 / 1.4826, 0, 1 / 1.4826, 97 / 1.4826])
    assert found[5:9] == pytest.approx([0, 0, 0, 2 / (0.5 * np.sqrt(np.pi / 2))])
    assert found[9:] == [None, None, None]


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_net_that_has_learned_nothing_accuses_nobody(tmp_path: Path, classes: int) -> None:
    draw = np.random.default_rng(classes)
    with Run(tmp_path / "run") as run:
        for epoch in range(1, 9):
            logits = draw.normal(size=(200, classes)).astype(np.float32)
            run.log_samples(
                sample_id=np.arange(200),
                label=np.arange(200) % classes,
                logits=logits,
                mode="eval",
                epoch=epoch,
                step=epoch,
            )
    assert suspected(tmp_path / "run").height <= 8


def test_outliers_of_a_regression(tmp_path: Path) -> None:
    """Residuals grow with the target: 3 is usual for large targets, far out for small ones; sample 7 is off by 3."""
    draw = np.random.default_rng(2)
    target = np.linspace(0.0, 100.0, 250)
    run = WrittenRun(tmp_path / "run")
    run.write(
        {
            "epoch": epoch,
            "sample_id": key,
            "label": float(target[key]),
            "prediction": float(target[key] + (3.0 if key == 7 else draw.normal(0, 0.02 + target[key] / 50))),
            "loss": 1.0,
        }
        for epoch in range(1, 7)
        for key in range(250)
    )
    data = suspected(run.layout.root)
    assert data["sample_id"][0] == 7
    assert data.height <= 8
    assert data["suggested_label"][0] == pytest.approx(target[7] + 3)
    assert data["reason"][0].startswith("mean absolute residual 3 over 6 observations")
    for engine in ("polars", "duckdb"):
        reader = open_reader(run.layout)
        selection = resolve(reader, engine=engine)
        answer = dynamics(reader, selection)
        assert answer.data["label"].to_list() == pytest.approx(target.tolist())
        assert (
            findings(reader, selection, compute(reader, selection)).data.filter(finding="suspect").height == data.height
        )
    assert label_issues(reader, selection).data.is_empty()


def test_a_target_is_held_against_the_fifth_that_errors_puts_it_in(tmp_path: Path) -> None:
    """Sample 33 is the lowest target of the highest fifth, all of which are hard; the fifth below is easy."""
    target = np.arange(42.0)
    off = np.where(target > 33, 3.0, 0.3) + 0.01 * (target % 7)
    off[27], off[33] = 2.0, 1.0
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        for epoch in (1, 2, 3):
            run.log_samples(sample_id=range(42), label=target, prediction=target - off, mode="eval", epoch=epoch)
    groups = {group["value"]: group["n"] for group in xaicli.open_run(tmp_path / "run").errors().answer.extra["groups"]}
    assert groups == {"up to 8": 9, "9 to 16": 8, "17 to 24": 8, "25 to 32": 8, "above 32": 9}
    data = suspected(tmp_path / "run")
    assert data["sample_id"].to_list() == [27]
    usual = float(np.median(off[25:33]))
    assert f"above {usual:.3g}, the median of its fifth of the labels (25 to 32); predicted" in data["reason"][0]


def test_sets_of_labels(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    run = WrittenRun(tmp_path / "run")
    run.write(
        {
            "epoch": epoch,
            "sample_id": key,
            "label": [key % 3, 3] if key % 2 else [],
            "prediction": [key % 3],
            "loss": float(draw.random()) + 30 * (key == 5),
        }
        for epoch in (1, 2, 3)
        for key in range(60)
    )
    assert suspected(run.layout.root)["sample_id"].to_list() == [5]  # no other stands far out
    reader = open_reader(run.layout)
    for engine in ("polars", "duckdb"):
        selection = resolve(reader, engine=engine)
        labels = dynamics(reader, selection).data["label"].to_list()
        assert labels == [[key % 3, 3] if key % 2 else [] for key in range(60)]
        assert findings(reader, selection, compute(reader, selection)).data.height > 0


def test_ranks_are_followed_only_where_they_are_asked_for(run: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, selection = opened(run)
    with_ranks = scores_by(reader, selection, "rank_jump")
    monkeypatch.setattr("xaicli.dynamics.ranks.RankJumps.update", None)
    means = scores_by(reader, selection, "mean")
    assert means is not None
    assert with_ranks is not None
    assert set(means) == set(with_ranks)
    monkeypatch.undo()
    with pytest.raises(XaiError, match="no statistic 'men'") as raised:
        scores_by(reader, selection, "men")
    assert "mean" in raised.value.hint


def test_late_observations_count_alike_from_the_fifth_on() -> None:
    values = np.random.default_rng(0).uniform(0, 2, 25)
    with ThreadPoolExecutor(1) as helper:
        tracker = Tracker(Plan(("loss",), frozenset({"loss", "el2n", "margin"}), "label", jumps=False), helper)
        for epoch, value in enumerate(values.astype(np.float32), 1):
            row = {"sample_id": [7], "loss": [value], "el2n": [value], "margin": [value]}
            tracker.add(
                epoch, pl.DataFrame(row, schema_overrides=dict.fromkeys(("loss", "el2n", "margin"), pl.Float32))
            )
        frame = tracker.frame()
    weights = np.minimum(np.arange(1, 26), 5) ** 2
    expected = np.average(values.astype(np.float32).astype(float), weights=weights)
    for name in ("loss_recent", "el2n_recent", "aum_recent"):
        assert frame[name][0] == pytest.approx(expected)


def test_once_labels_are_memorised_only_first_observations_count(tmp_path: Path) -> None:
    """At epoch 5 all labels are right: of later observations only those count that are of the first ten of a sample."""
    rng, n, epochs = np.random.default_rng(0), 100, 16
    seen: dict[int, list[tuple[int, float, float]]] = {i: [] for i in range(n + 1)}
    with Run(tmp_path / "run") as run:
        for epoch in range(1, epochs + 1):
            # Sample 7 is absent from a third of the epochs, the last one comes when all is memorised.
            ids = [i for i in range(n) if i != 7 or epoch % 3] + ([n] if epoch > 5 else [])
            loss, norm = rng.uniform(0, 3, (2, len(ids))).astype(np.float32)
            loss[3] = np.nan if epoch == 2 else loss[3]
            n_wrong = 50 if epoch < 5 else 0 if epoch % 2 else 60  # a fall later on does not unlearn it
            label = np.arange(len(ids)) % 2
            prediction = np.where(np.arange(len(ids)) < n_wrong, 1 - label, label)
            run.log_samples(
                sample_id=ids, label=label, prediction=prediction, loss=loss, el2n=norm, mode="train", epoch=epoch
            )
            for i, a, b in zip(ids, loss.tolist(), norm.tolist(), strict=True):
                seen[i].append((epoch, a, b))
    memorised = 5
    for engine in ("polars", "duckdb"):
        reader = open_reader(RunLayout(tmp_path / "run"))
        selection = resolve(reader, mode=["train"], engine=engine)
        frame = compute(reader, selection).frames["train", ""]
        for name, place in (("loss_recent", 1), ("el2n_recent", 2)):
            found = dict(zip(frame["sample_id"], frame[name], strict=True))
            for i, rows in seen.items():
                known = [(row[0], row[place]) for row in rows if np.isfinite(row[place])]
                kept = [(min(k, 5) ** 2, x) for k, (at, x) in enumerate(known, 1) if k <= 10 or at <= memorised]
                expected = sum(w * x for w, x in kept) / sum(w for w, _ in kept)
                assert found[i] == pytest.approx(expected, rel=1e-6), (engine, name, i)


def test_the_best_cut_explains_what_theory_says() -> None:
    rng = np.random.default_rng(1)
    assert two_groups(rng.normal(size=200_000)) == pytest.approx(2 / np.pi, abs=0.004)
    assert two_groups(rng.uniform(size=200_000)) == pytest.approx(3 / 4, abs=0.004)
    assert two_groups(np.array([1.0, 1.0, 5.0, 5.0, 5.0])) == pytest.approx(1)
    assert two_groups(np.array([3.0, 3.0])) == 0
    assert two_groups(np.array([])) == 0
    # All cuts by hand.
    few = np.array([0.1, 0.4, 0.5, 2.0, 2.2])
    best = max(sum(len(p) * (p.mean() - few.mean()) ** 2 for p in (few[:k], few[k:])) for k in range(1, 5))
    assert two_groups(few) == pytest.approx(best / (len(few) * few.var()))


def test_error_norms_of_two_groups_decide_and_others_do_not() -> None:
    """Sample 0 has the highest error norm, sample 1 the highest loss."""
    rng, n = np.random.default_rng(2), 5000
    loss = rng.normal(1, 0.1, n)
    loss[[0, 1]] = 1.0, 9.0
    clear = np.where(np.arange(n) % 7 == 0, 1.3, 0.1) + rng.normal(0, 0.01, n)
    one_group = rng.normal(0.7, 0.05, n)
    for norms, first in ((clear, 0), (one_group, 1)):
        norms[[0, 1]] = 1.4, np.median(norms)
        frame = pl.DataFrame({"label": [0] * n, "el2n_recent": norms, "loss_recent": loss, "aum_recent": -loss})
        assert suspicion(frame).arg_max() == first


def test_the_rate_of_wrong_labels_is_estimated_by_label(run: Planted) -> None:
    answer = suspects(*passed(run), top=10)
    true = np.asarray(run.true_label)
    given = compute(*opened(run)).frames[("train", "")].sort("sample_id")["label"].to_numpy()
    for row in answer.extra["label_noise"]:
        own = given == row["label"]
        assert row["n"] == own.sum()
        assert row["rate"] == pytest.approx((true[own] != given[own]).mean(), abs=0.05)
        assert (row["low"], row["high"]) == pytest.approx(
            stats.binomtest(row["contradicted"], row["n"]).proportion_ci(0.95, "wilson")
        )
        assert row["name"] == planted.NAMES[row["label"]]


@pytest.mark.parametrize(("rate", "epochs", "unsure"), [(0.1, 3, True), (0.005, 5, True), (0.5, 8, False)])
def test_a_network_that_is_not_sure_yet_estimates_no_number(
    tmp_path: Path, rate: float, epochs: int, unsure: bool
) -> None:
    """A tenth of the labels of digits is wrong, and softmax regression learns them by steps of 32."""
    digits, rng = load_digits(), np.random.default_rng(0)
    x, label, n = digits.data / 16, digits.target.copy(), len(digits.target)
    wrong = rng.choice(n, n // 10, replace=False)
    label[wrong] = (label[wrong] + rng.integers(1, 10, len(wrong))) % 10
    weights, logits = np.zeros((64, 10)), np.zeros((n, 10))
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in range(1, epochs + 1):
            for batch in np.array_split(rng.permutation(n), n // 32):
                logits[batch] = x[batch] @ weights
                probs = special.softmax(logits[batch], axis=1)
                weights -= rate * x[batch].T @ (probs - np.eye(10)[label[batch]]) / len(batch)
            run.log_samples(sample_id=np.arange(n), label=label, logits=logits, mode="train", epoch=epoch)
    result = xaicli.open_run(tmp_path / "run").findings(mode="train")
    noise = json.loads(result.to_json())["label_noise"]
    counted = sum(row["contradicted"] for row in noise)
    assert {row["unsure"] for row in noise} == {unsure}
    assert counted < 0.75 * len(wrong) if unsure else counted == pytest.approx(len(wrong), rel=0.15)
    page = " ".join(result.markdown().split())
    assert (f"about {counted:,} of 1,797 samples may be wrong" in page) == (not unsure)
    assert ("no estimate yet" in page) == unsure
    assert ("an estimate of the rate of wrong labels" in page) == (not unsure)


def test_no_rate_is_estimated_of_rows_that_the_model_does_not_train_on(tmp_path: Path) -> None:
    """Every label is right, and the model is wrong of a fifth of the samples all along."""
    rng, n = np.random.default_rng(8), 600
    label = rng.integers(0, 4, n)
    said = np.where(np.arange(n) % 5 == 0, (label + 1) % 4, label)
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in range(1, 6):
            logits = rng.normal(0, 0.3, (n, 4))
            logits[np.arange(n), said] += 4
            run.log_samples(sample_id=np.arange(n), label=label, logits=logits, mode="eval", epoch=epoch)
    result = xaicli.open_run(tmp_path / "run").findings()
    noise = json.loads(result.to_json())["label_noise"]
    assert {row["label"]: (row["n"], row["contradicted"]) for row in noise} == {
        k: (int((label == k).sum()), int(((label == k) & (said != label)).sum())) for k in range(4)
    }
    for row in noise:
        assert (row["rate"], row["low"], row["high"], row["unsure"]) == (None, None, None, None)
        assert "its own mistakes look like wrong labels" in row["reason"]
    page = " ".join(result.markdown().split())
    assert "(120 of 600 samples contradicted by the model in the early epochs, its own mistakes among them)" in page
    assert "may be wrong" not in page
    assert "share (95 % interval)" not in page
    assert "no rate of wrong labels: the model does not train on these rows" in page


def test_all_suspected_pairs_are_told(tmp_path: Path) -> None:
    """Of 7 labels each is taken for each other: 42 pairs."""
    pairs = [(a, b) for a in range(7) for b in range(7) if a != b]
    right = [(a, a) for a in range(7) for _ in range(60)]
    given, true = map(np.array, zip(*pairs, *right, strict=True))
    rng, n = np.random.default_rng(4), len(given)
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in range(1, 5):
            logits = rng.normal(0, 0.1, (n, 7))
            logits[np.arange(n), true] += 5
            run.log_samples(sample_id=np.arange(n), label=given, logits=logits, mode="train", epoch=epoch)
    result = xaicli.open_run(tmp_path / "run").findings(mode="train")
    told = json.loads(result.to_json())["suspected_pairs"]
    assert sorted((row["label"], row["suggested_label"]) for row in told) == pairs
    assert {row["n"] for row in told} == {1}
    assert list(result.report.tables["findings-pairs"]()) == told
    assert "20 of 42: --format csv or --json has all" in result.markdown()


def test_suggested_labels_are_held_against_the_truth(run: Planted, tmp_path: Path) -> None:
    reader, selection, found = passed(run)
    answer = suspects(reader, selection, found, top=50)
    told = suggestions(reader, answer, truth_file(run, tmp_path / "truth.csv"))
    rows = [row for row in answer.data.to_dicts() if row["sample_id"] in run.wrong]
    right = sum(row["suggested_label"] == run.true_label[row["sample_id"]] for row in rows)
    assert told is not None
    assert (told["n"], told["right"], told["accuracy"]) == (len(rows), right, right / len(rows))
    pl.DataFrame({"sample_id": [0], "mislabelled": [1]}).write_csv(tmp_path / "flags.csv")
    assert suggestions(reader, answer, tmp_path / "flags.csv") is None


def test_suspects_are_counted_by_label_and_suggestion(run: Planted) -> None:
    answer = suspects(*passed(run), top=50)
    counted = {(row["label"], row["suggested_label"]): row["n"] for row in answer.extra["suspected_pairs"]}
    expected = Counter(answer.data.drop_nulls("suggested_label").select("label", "suggested_label").rows())
    assert counted == expected
    assert [row["n"] for row in answer.extra["suspected_pairs"]] == sorted(counted.values(), reverse=True)
    for row in answer.extra["suspected_pairs"]:
        assert (row["name"], row["suggested_name"]) == tuple(
            planted.NAMES[row[key]] for key in ("label", "suggested_label")
        )


def test_no_score_is_above_one_whatever_the_rounding_of_its_mean() -> None:
    """The sample that every statistic ranks last, among numbers of samples whose ranks' means round up."""
    for n in range(2, 400):
        order = [float(i) for i in range(n)]
        down = order[::-1]
        frame = pl.DataFrame({"el2n_recent": order, "loss_recent": order, "aum_recent": down, "label": [0] * n})
        best = suspicion(frame).max()
        assert best is not None
        assert 1.0 - 1e-12 < best <= 1.0  # type: ignore[operator]


def test_a_place_is_among_the_samples_that_have_the_value(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 300)
    label = [None if i % 10 == 0 else int(y + (i % 29 == 1)) % 3 for i, y in enumerate(true)]
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in range(1, 5):
            logits = rng.normal(0, 0.3, (300, 3))
            logits[np.arange(300), true] += epoch
            run.log_samples(sample_id=np.arange(300), label=label, logits=logits, mode="eval", epoch=epoch)
    found = xaicli.open_run(tmp_path / "run").findings().data.filter(pl.col("finding") == "suspect")
    assert found.height
    assert all(reason.endswith("of 270 samples") for reason in found["reason"])


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 samples: 200 right by a hair, whose evidence is the strongest; 30 others contradicted in the first epochs."""
    rng, n = np.random.default_rng(3), 600
    label = np.arange(n) % 10
    path = tmp_path_factory.mktemp("late") / "run"
    with xaicli.Run(path) as run:
        for epoch in range(1, 9):
            logits = rng.normal(0, 0.01, (n, 10))
            logits[np.arange(n), label] = 3 + rng.random(n)
            logits[:200] = 0
            logits[np.arange(200), label[:200]] = 0.02 + 0.02 * rng.random(200)
            if epoch <= 3:
                logits[np.arange(200, 230), (label[200:230] + 1) % 10] = 6
            run.log_samples(sample_id=np.arange(n), label=label, logits=logits, mode="eval", epoch=epoch)
    return path


def test_who_was_never_contradicted_takes_no_suspects_place(late: Path) -> None:
    opened, expected = xaicli.open_run(late), set(range(200, 230))
    for top in (5, 10, 30, 100):
        rows = opened.findings(top=top).data.filter(pl.col("finding") == "suspect")
        assert rows.height == min(top, 30)
        assert set(rows["sample_id"]) <= expected
    result = opened.report()
    told = json.loads(result.to_json())
    assert [row["sample_id"] for row in told["suspects"]] == rows["sample_id"].to_list()
    assert {row["sample_id"] for row in told["suspects"]} == expected
    assert "No suspects" not in result.markdown()
    parts = next(part.blocks for part in result.report.sections if part.anchor == "suspects")
    ranks = [
        row[3]
        for block in parts
        if isinstance(block, Table) and [one.title for one in block.columns[3:4]] == ["score"]
        for row in block.rows
    ]
    assert ranks == [round(row["score"], 4) for row in told["suspects"][:25]]
    assert [row["sample_id"] for row in result.report.tables["suspects"]().to_dicts()] == rows["sample_id"].to_list()


def test_suspects_and_their_pairs_are_all_counted_where_not_all_are_listed(tmp_path: Path) -> None:
    """250 of 1,000 labels are contradicted throughout: label 0 by 1 in 150 samples, label 2 by 3 in 100."""
    rng, n = np.random.default_rng(5), 1000
    label = np.arange(n) % 4
    said = label.copy()
    said[np.flatnonzero(label == 0)[:150]] = 1
    said[np.flatnonzero(label == 2)[:100]] = 3
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in range(1, 6):
            logits = rng.normal(0, 0.1, (n, 4))
            logits[np.arange(n), said] += 4
            run.log_samples(sample_id=np.arange(n), label=label, logits=logits, mode="eval", epoch=epoch)
    opened = xaicli.open_run(tmp_path / "run")
    page, found = opened.report(), opened.findings()
    told, first = json.loads(page.to_json()), json.loads(found.to_json())
    assert len(told["suspects"]) == 100
    for answer in (told, first):
        assert answer["n_suspects"] == [{"mode": "eval", "ds_id": "", "n": 250}]
        pairs = [(row["label"], row["suggested_label"], row["n"]) for row in answer["suspected_pairs"]]
        assert pairs == [(0, 1, 150), (2, 3, 100)]
    assert first["found"]["suspect"] == 250
    assert "eval: the first 25 of 250 samples" in " ".join(page.markdown().split())
    beside = "The first 100 of 250 are in suspects.csv and report.json, which --format csv,json writes."
    assert beside in " ".join(page.markdown().split())
    assert "suspected labels 10 of 250 (" in found.report.sentence
    one = opened.findings(top=1).report
    titles = [block.title for section in one.sections for block in section.blocks if isinstance(block, Table)]
    assert "The first of 250 samples, each with its reason" in titles


def test_sudden_rank_changes_are_the_same_in_findings_and_on_the_page(tmp_path: Path) -> None:
    """All ranks move a little at every epoch; sample 0 once rises from the lowest to the highest."""
    rng, n = np.random.default_rng(6), 400
    level = np.linspace(1, 5, n)
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in range(1, 9):
            loss = level + rng.normal(0, 0.3, n)
            loss[0] = 1.0 if epoch < 5 else 5.0
            run.log_samples(sample_id=np.arange(n), label=np.arange(n) % 3, loss=loss, mode="eval", epoch=epoch)
    opened = xaicli.open_run(tmp_path / "run")
    jumps = json.loads(opened.report().to_json())["rank_jumps"]
    found = opened.findings(top=10).data.filter(pl.col("finding") == "rank_jump")
    assert [row["sample_id"] for row in jumps] == found["sample_id"].to_list()
    assert 0 in found["sample_id"].to_list()
    assert any(
        isinstance(b, Table)
        for part in opened.report().report.sections
        if part.anchor == "rank-changes"
        for b in part.blocks
    )
    assert all(row["score"] >= 6 and abs(row["rank_to"] - row["rank_from"]) >= 0.1 for row in jumps)


@pytest.mark.parametrize(("place", "told"), [(1, True), (200, True), (1000, True), (1020, False)])
def test_a_place_in_the_middle_of_all_is_no_reason(place: int, told: bool) -> None:
    row = {"n_obs": 6, "n_counted": 6, "correctness": 0, "suggested_label": 2, "suggested_times": 6}
    said = reason(row, {"confidence": (place, 2000)}, {2: "owl"})  # type: ignore[arg-type]
    assert said.startswith("never learned; always predicted owl")
    assert ("lowest confidence of 2,000 samples" in said) is told
    # Where nothing else is known it stays: a suspect has a reason.
    alone = reason({"n_obs": 6, "suggested_label": None}, {"confidence": (place, 2000)}, {})  # type: ignore[arg-type]
    assert "lowest confidence" in alone


@pytest.fixture(scope="module")
def slowly_memorised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 of 400 labels are contradicted in epochs 7 to 11, others by another class each time; then all are right."""
    n = 400
    rng, label, wrong = np.random.default_rng(8), np.arange(n) % 10, np.arange(n) < 40
    learned = rng.integers(0, 8, n)
    path = tmp_path_factory.mktemp("slowly") / "run"
    with xaicli.Run(path) as run:
        for epoch in range(1, 41):
            off = np.where(wrong, 3 * (7 <= epoch <= 11), np.where(epoch <= learned, 1 + (epoch + np.arange(n)) % 9, 0))
            logits = rng.normal(0, 0.1, (n, 10))
            logits[np.arange(n), (label + off) % 10] += np.where(wrong, 9, 2)
            run.log_samples(sample_id=np.arange(n), label=label, logits=logits, mode="train", epoch=epoch)
    return path


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_suspects_stay_suspects_however_long_a_training_goes_on(slowly_memorised: Path, engine: str) -> None:
    """97 % of the labels are right from epoch 12 on: what is predicted after it neither adds to a third nor takes."""
    if engine == "duckdb":
        pytest.importorskip("duckdb")
    opened = xaicli.open_run(slowly_memorised)
    for last in (12, 16, 40):
        rows = opened.findings(mode="train", epoch=f"1-{last}", top=400, engine=engine).data
        found = rows.filter(pl.col("finding") == "suspect")
        assert set(found["sample_id"]) == set(range(40)), last
        early = ", 5 of the first 12" if last > 12 else ""
        assert all(
            f"5 times predicted {(key + 3) % 10}{early}; " in said + "; "
            for key, said in found["sample_id", "reason"].rows()
        )


@pytest.mark.parametrize("memorised", [None, 4, 12])
@pytest.mark.parametrize("duplicates", ["last", "all"])
def test_what_counts_of_the_predictions_is_what_counts_for_the_score(
    tmp_path: Path, duplicates: str, memorised: int | None
) -> None:
    """Samples that miss epochs, two passes of some epochs, rows logged twice, against counts in plain Python."""
    rng = np.random.default_rng(9)
    told: list[dict[str, Any]] = []
    for epoch, turn in product(range(1, 21), (0, 1)):
        if turn == 0 or epoch % 5 == 0:
            for key in np.flatnonzero(rng.random(30) < 0.8).tolist():
                for step in range(2 if epoch == 9 and key % 3 == 0 else 1):
                    said = int(rng.integers(0, 3)) if rng.random() < 0.9 else None
                    row = {"epoch": epoch, "pass": turn, "step": 10 * epoch + 2 * turn + step, "sample_id": key}
                    told.append({**row, "mode": "train", "label": 0, "prediction": said, "loss": 1.0})
    run = WrittenRun(tmp_path / "run")
    run.write(told)
    reader = open_reader(run.layout)
    selection = resolve(reader, duplicates=duplicates)
    chosen = pl.DataFrame({"sample_id": range(30), "label": pl.Series([0] * 30, dtype=pl.Int32)})
    found = predictions(reader, selection, ("train", ""), chosen, memorised).rows_by_key("sample_id", named=True)
    twice = duplicates == "all"
    for key in range(30):
        own = [row for row in told if row["sample_id"] == key]
        rows = list({(row["epoch"], row["pass"], twice and row["step"]): row for row in own}.values())
        counting = [row for k, row in enumerate(rows) if memorised is None or row["epoch"] <= memorised or k < 10]
        every, early = (Counter(r["prediction"] for r in part if r["prediction"]) for part in (rows, counting))
        suggested = min(every, key=lambda label: (-every[label], label))
        (row,) = found[key]
        assert row == {
            "n_counted": len(counting),
            "suggested_label": suggested,
            "suggested_times": every[suggested],
            "suggested_counted": early[suggested],
            "steady_times": max(early.values()),
        }
