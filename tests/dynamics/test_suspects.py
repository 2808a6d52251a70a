"""Planted wrong labels are found, named, explained; memorised ones are warned of; truth scores every ranking."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.dynamics import planted
from tests.dynamics.planted import Planted
from xaicli.dynamics.computed import Statistics, compute
from xaicli.dynamics.findings import Finding, findings
from xaicli.dynamics.jumps import rank_jumps
from xaicli.dynamics.label_issues import label_issues
from xaicli.dynamics.statistics import dynamics
from xaicli.dynamics.suspects import suspects
from xaicli.dynamics.truth import grade
from xaicli.errors import UsageError, XaiError
from xaicli.layout import RunLayout
from xaicli.queries.selection import Selection, resolve
from xaicli.reader import Reader, open_reader
from xaicli.recorder.run import Run


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
        assert "of 300" in row["reason"]
        assert "epochs" in row["reason"] or "never learned" in row["reason"]


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,label\n1,2\n", "has no column sample_id"),
        ("sample_id,x\n1,2\n", "has neither label nor mislabelled"),
        ("sample_id,label\n90001,2\n", "knows no sample"),
        ("sample_id,label\n1,wolf\n", "no label 'wolf'"),
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
    from tests.written_run import WrittenRun

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


def test_jumps_are_the_largest(run: Planted) -> None:
    reader, selection, found = passed(run)
    data = rank_jumps(reader, selection, found, top=7).data
    every = dynamics(reader, selection).data
    assert data["score"].to_list() == every["rank_jump"].top_k(7).to_list()
    assert set(data["direction"]) <= {"up", "down"}


def test_a_run_with_losses_only(tmp_path: Path) -> None:
    from tests.written_run import WrittenRun

    run = WrittenRun(tmp_path / "run")
    run.write(
        {"epoch": epoch, "sample_id": key, "label": 0, "loss": float(key)} for epoch in (1, 2, 3) for key in range(9)
    )
    reader = open_reader(run.layout)
    selection = resolve(reader)
    found = compute(reader, selection)
    assert suspects(reader, selection, found).data["sample_id"].to_list() == [8, 7, 6, 5, 4]
    assert suspects(reader, selection, found).data["suggested_label"].to_list() == [None] * 5
    assert label_issues(reader, selection).data.is_empty()
    assert "keep_probs" in label_issues(reader, selection).warnings[0]
    assert findings(reader, selection, found).data.height > 0


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
