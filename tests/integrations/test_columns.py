"""What a callback makes of the answers at every place of a sequence or a picture."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch
from torch.nn import functional

from xaicli.heads.head import Head, Task, Values
from xaicli.integrations.capture import Judged, Step
from xaicli.integrations.columns import Told, columns_of, without_left_out
from xaicli.recorder.run import Run
from xaicli.vocabulary import Mode


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sequence_without_a_label_that_counts_has_no_value(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    values, label = torch.randn(3, 7, 5).to(dtype), torch.randint(0, 7, (3, 5))
    label[1], label[2, :3] = -100, -100
    columns = columns_of(Head(Task.SEQUENCE, Values.LOGITS, 7), values, label)
    with Run(tmp_path / "run", strict=True, task="sequence") as run:
        run.log_samples(sample_id=[0, 1, 2], mode="train", epoch=1, step=1, **columns)
    found = pl.read_parquet(tmp_path / "run" / "data").sort("sample_id")
    each = functional.cross_entropy(values.float(), label, reduction="none")
    expected = [float(each[i][label[i] != -100].mean()) if i != 1 else None for i in range(3)]
    assert found["loss"].to_list() == [pytest.approx(one, rel=1e-5) if one is not None else None for one in expected]
    assert found["n_tokens"].to_list() == [5.0, 0.0, 2.0]
    for name in ("loss", "label_prob", "token_accuracy", "entropy", "worst_token", "worst_token_loss"):
        assert [value is None for value in found[name]] == [False, True, False]


def test_a_causal_model_answers_about_the_next_place() -> None:
    torch.manual_seed(0)
    logits, tokens = torch.randn(4, 6, 9), torch.randint(0, 9, (4, 6))
    columns = columns_of(Head(Task.SEQUENCE, Values.LOGITS, 9), logits.movedim(2, 1), tokens, shifted=True)
    each = functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
    torch.testing.assert_close(columns["loss"], each.mean(1))
    assert columns["worst_token"].tolist() == (each.argmax(1) + 1).tolist()


def test_a_picture_s_places_are_its_pixels() -> None:
    torch.manual_seed(0)
    logits, classes = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    classes[0, 0] = 255  # no class of three
    columns = columns_of(Head(Task.SEGMENTATION, Values.LOGITS, 3), logits, classes)
    each = functional.cross_entropy(logits, classes, ignore_index=255, reduction="none")
    assert columns["n_tokens"].tolist() == [15.0, 20.0]
    torch.testing.assert_close(columns["loss"], torch.stack([each[0].sum() / 15, each[1].mean()]))


@pytest.mark.parametrize("shifted", [True, False])
def test_the_losses_of_tokens_are_kept_where_the_run_keeps_them(shifted: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    logits, tokens = torch.randn(4, 6, 9), torch.randint(0, 9, (4, 6))
    tokens[0, :3], tokens[1, 4:], tokens[2] = -100, -100, -100
    columns = columns_of(
        Head(Task.SEQUENCE, Values.LOGITS, 9), logits.movedim(2, 1), tokens, shifted=shifted, keep_tokens=True
    )
    with Run(tmp_path / "run", strict=True, task="sequence", keep_tokens=True) as run:
        run.log_samples(sample_id=[0, 1, 2, 3], mode="train", epoch=1, step=1, **columns)
    found = pl.read_parquet(tmp_path / "run" / "data").sort("sample_id")
    for i, row in enumerate(found.iter_rows(named=True)):
        answers, truth = (logits[i, :-1], tokens[i, 1:]) if shifted else (logits[i], tokens[i])
        each = functional.cross_entropy(answers, truth, reduction="none")
        kept = each[truth != -100]
        assert row["token_losses"] == pytest.approx(kept.tolist(), rel=2e-3)
        assert row["n_tokens"] == len(kept)
        if len(kept):
            assert row["loss"] == pytest.approx(float(kept.mean()), rel=1e-5)
            assert row["worst_token"] == int(each.masked_fill(truth == -100, -1).argmax()) + int(shifted)


def test_of_masks_with_nearly_the_same_mean_the_one_counts_whose_mean_the_loss_is() -> None:
    """As of a model that knows nothing yet: all places have nearly the same loss. Where two means are the loss, or
    rounding hides which is, none counts.
    """
    values = 5e-5 * torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(0))
    truth, mask = torch.ones(2, 4, dtype=torch.long), torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]])
    longer = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    each = functional.cross_entropy(values, truth, reduction="none")
    mean, of_longer = each[mask > 0].mean(), each[longer > 0].mean()
    assert all(0 < abs(mean - one) / mean < 5e-5 for one in (of_longer, each.mean()))

    def counted(loss: torch.Tensor, values: torch.Tensor = values) -> list[list[int]] | None:
        batch = {"attention_mask": mask, "longer_mask": longer}
        judged = Judged(values, truth, Values.LOGITS, False)
        found = without_left_out(Step(returned=loss), batch, judged, values, truth, Told(), Mode.EVAL)
        return None if found is None else (found >= 0).long().tolist()

    assert counted(mean) == mask.tolist()
    assert counted(of_longer) == longer.tolist()
    assert counted(each.mean()) == [[1] * 4] * 2
    assert counted((mean + of_longer) / 2) is None
    assert counted(torch.tensor(2.0).log(), torch.zeros(2, 2, 4)) is None
