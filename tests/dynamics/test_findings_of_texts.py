"""What `findings` and `labels` say of sequences: they have tokens, and no label."""

import json

import numpy as np
import pytest

import xaicli
from xaicli.cli import main
from xaicli.errors import XaiError


@pytest.fixture
def texts(tmp_path):
    """Twenty texts whose losses lie near 2 a token, and one at 9."""
    rng = np.random.default_rng(0)
    losses = 2 + rng.normal(size=21) / 10
    losses[13] = 9.0
    with xaicli.Run(tmp_path / "run", task="sequence") as run:
        run.log_facts(np.arange(21), source=["web", "book", "lab"] * 7)
        for epoch in range(1, 5):
            run.log_samples(
                sample_id=np.arange(21),
                loss=losses,
                label_prob=np.exp(-losses) * (1 + epoch / 10),
                n_tokens=np.full(21, 5),
                mode="eval",
                epoch=epoch,
            )
    return tmp_path / "run", losses


def test_a_sequence_far_above_the_others_is_found(texts):
    run, losses = texts
    rows = xaicli.open_run(run).findings().data.to_dicts()
    far = [row for row in rows if row["finding"] == "far_out_sequence"]
    middle = np.median(losses.astype(np.float32))
    scale = 1.4826 * np.median(np.abs(losses.astype(np.float32) - middle))
    assert [row["sample_id"] for row in far] == [13]
    assert far[0]["score"] == pytest.approx((9 - middle) / scale, rel=1e-4)
    assert far[0]["reason"].startswith("mean loss 9 a token over 4 observations, ")
    assert far[0]["reason"].endswith("the median of 21 sequences")
    said = " ".join(row["reason"] for row in rows)
    assert "of its label" not in said
    assert "the probability of its tokens" in said


def test_labels_of_texts_are_their_tokens(texts):
    run, losses = texts
    opened = xaicli.open_run(run)
    with pytest.raises(XaiError, match="labels are their tokens") as refused:
        opened.labels()
    assert "xai errors" in refused.value.hint
    means = {row["label"]: row["mean"] for row in opened.labels(label_key="source", epoch="4").data.to_dicts()}
    wanted = {name: losses[i::3].mean() for i, name in enumerate(("web", "book", "lab"))}
    assert means == pytest.approx(wanted, rel=1e-5)


def test_a_fact_groups_sequences_and_is_no_label_of_theirs(texts, tmp_path):
    run, _ = texts
    opened = xaicli.open_run(run)
    with xaicli.Run(run) as more:
        more.log_facts(np.arange(21), day=list(range(21)))
    for key in ("source", "day"):
        found = json.loads(opened.findings(label_key=key).to_json())
        rows = [row["sample_id"] for row in found["rows"] if row["finding"] == "far_out_sequence"]
        assert (rows, found["found"].get("suspect"), found["n_suspects"][0]["n"]) == ([13], None, 0)
    assert main(["track-report", str(run), "--label-key", "source", "-o", str(tmp_path / "o"), "--format", "json"]) == 0
    told = json.loads((tmp_path / "o" / "report.json").read_text())
    assert (told["suspects"], told["n_suspects"][0]["n"]) == ([], 0)
    groups = json.loads(opened.errors(label_key="day").to_json())["groups"]
    assert "day" in {row["column"] for row in groups}


@pytest.mark.parametrize("key", ["label", "source"])
@pytest.mark.parametrize("rule", ["suspects", "label_issues"])
def test_rules_of_wrong_labels_do_not_apply_to_sequences(texts, tmp_path, capsys, rule, key):
    run, _ = texts
    asked = [str(run), "--rule", rule, "--label-key", key]
    for command in (["select", *asked], ["relabel", "export", *asked, "--to", "csv", "-o", str(tmp_path / "x.csv")]):
        assert main(command) == 1
        told = capsys.readouterr().err
        assert "is of one label a sample, and the labels of" in told.replace("\n", " ")
        assert "--rule hardest" in told.replace("\n", " ")
    with pytest.raises(XaiError, match="no correct") as refused:
        xaicli.open_run(run).select(rule="forgotten")
    assert refused.value.hint.endswith("--rule hardest")
    assert xaicli.open_run(run).select(rule="hardest", n=1).data["sample_id"].to_list() == [13]


def test_label_issues_do_not_apply_to_numbers(tmp_path):
    label = np.arange(40)
    given = {"label": label, "prediction": label + np.where(label == 7, 9.0, 0.1)}
    run = xaicli.Run(tmp_path / "run", task="regression", keep_probs=True)
    with pytest.warns(match="those of a regression task are not kept"):
        run.log_samples(sample_id=label, **given, mode="eval", epoch=1)
    run.close()
    opened = xaicli.open_run(tmp_path / "run")
    with pytest.raises(XaiError, match=r"is of one class a sample, and the labels of .* are numbers") as refused:
        opened.select(rule="label_issues")
    assert "--rule suspects" in refused.value.hint
    assert opened.select(rule="suspects").data["sample_id"].to_list() == [7]
    with pytest.raises(XaiError, match="no correct") as refused:
        opened.select(rule="forgotten")
    assert refused.value.hint.endswith("--rule hardest")
