"""What `findings` and `labels` say of sequences: they have tokens, and no label."""

import numpy as np
import pytest

import xaicli
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
