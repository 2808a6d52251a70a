"""Segmentation measures against counts by hand and against a plain loop over pixels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pictures
from torch import nn
from torch.nn import functional

from xaicli import SegmentationMetricsCollector
from xaicli.collectors.collect import CollectionError, collect_metrics
from xaicli.errors import XaiError
from xaicli.recorder.run import Run
from xaicli.tables.column import schema_of
from xaicli.tables.schema import Mask
from xaicli.tables.table import Table

NAMES = ["sky", "road", "car"]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run(tmp_path / "run", strict=True) as opened:
        yield opened


def collected(run: Run, predicted: Any, truth: Any = None, **options: Any) -> Any:
    arrays = (predicted,) if truth is None else (predicted, truth)
    collector = SegmentationMetricsCollector(NAMES, **options)
    return collect_metrics(Table.from_arrays(*arrays), collector, nn.Identity(), run=run).tables["metrics"]


def test_by_hand(run: Run) -> None:
    truth = torch.tensor([[[0, 0, 1], [0, 1, 255]]])
    masks = torch.tensor([[[0, 1, 1], [0, 1, 2]]])
    row = collected(run, masks, truth).to_pylist()[0]
    assert row["pixel_accuracy"] == pytest.approx(4 / 5)
    assert row["iou_sky"] == pytest.approx(2 / 3)
    assert row["iou_road"] == pytest.approx(2 / 3)
    assert row["iou_car"] is None
    assert row["mean_iou"] == pytest.approx(2 / 3)
    assert row["dice"] == pytest.approx((4 / 5 + 4 / 5) / 2)
    assert np.array_equal(np.asarray(Pictures.open(io.BytesIO(row["predicted_mask"]))), masks[0].numpy())


def by_pixel(truth: Any, masks: Any) -> dict[str, Any]:
    """IoU of each class from sets of pixels."""
    pixels = [(y, x) for y in range(truth.shape[0]) for x in range(truth.shape[1]) if truth[y, x] != 255]
    found: dict[str, Any] = {}
    for value, name in enumerate(NAMES):
        true = {p for p in pixels if truth[p] == value}
        predicted = {p for p in pixels if masks[p] == value}
        found[f"iou_{name}"] = len(true & predicted) / len(true | predicted) if true | predicted else None
    defined = [v for v in found.values() if v is not None]
    found["mean_iou"] = sum(defined) / len(defined) if defined else None
    right = sum(truth[p] == masks[p] for p in pixels)
    found["pixel_accuracy"] = float(right) / len(pixels) if pixels else None
    return found


def test_by_a_loop_over_pixels_from_logits_of_another_size(run: Run) -> None:
    rng = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 3, (6, 8, 8), generator=rng)
    truth[0], truth[1, :4] = 255, 255
    logits = torch.randn(6, 3, 4, 4, generator=rng)
    masks = functional.interpolate(logits, size=(8, 8), mode="bilinear").argmax(1)
    rows = collected(run, logits, truth[:, None], save_masks=False).to_pylist()
    for row, true, mask in zip(rows, truth.numpy(), masks.numpy(), strict=True):
        for name, value in by_pixel(true, mask).items():
            assert row[name] == (None if value is None else pytest.approx(value, abs=1e-6)), name
    assert "predicted_mask" not in rows[0]


def test_classes_without_a_name_are_none(run: Run) -> None:
    truth, masks = torch.tensor([[[0, 7, 9, -1]]]), torch.tensor([[[0, 7, 1, 0]]])
    row = collected(run, masks, truth).to_pylist()[0]
    assert [row[f"iou_{name}"] for name in NAMES] == [pytest.approx(1 / 2), 0.0, None]
    assert row["pixel_accuracy"] == pytest.approx(2 / 4)


def test_without_truth_there_is_the_mask_alone_and_schemas_name_classes(run: Run) -> None:
    rows = collected(run, torch.zeros(2, 3, 4, 4))
    assert rows.column_names[6:] == ["predicted_mask"]
    assert schema_of(rows.schema.field("predicted_mask")) == Mask(classes=NAMES)


def test_what_does_not_fit_is_told(run: Run) -> None:
    with pytest.raises(CollectionError, match=r"truth has shape \(2, 5, 5\), the prediction \(2, 4, 4\)"):
        collected(run, torch.zeros(2, 4, 4, dtype=torch.long), torch.zeros(2, 5, 5))
    with pytest.raises(CollectionError, match=r"has shape \(2, 3\), not"):
        collected(run, torch.zeros(2, 3))
    with pytest.raises(XaiError, match="label_map needs class values"):
        SegmentationMetricsCollector({300: "far"})


@pytest.mark.parametrize("ending", [nn.Identity(), nn.Sigmoid()])
@pytest.mark.parametrize("kind", [torch.int64, torch.float32])
def test_masks_keep_the_axis_of_one_class(run: Run, ending: nn.Module, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    pictures, net = torch.rand(3, 2, 5, 6), nn.Conv2d(2, 1, 1)
    found = (net(pictures) > net(pictures).median()).long()
    with torch.no_grad():
        net.bias -= net(pictures).median()
    truth = found.clone()
    truth[:, :, :2] = 1 - truth[:, :, :2]
    collector = SegmentationMetricsCollector(["ground", "car"])
    table = Table.from_arrays(pictures, truth.to(kind))
    rows = collect_metrics(table, collector, nn.Sequential(net, ending), run=run).tables["metrics"]
    assert rows["pixel_accuracy"].to_pylist() == pytest.approx([0.6] * 3)
    both = ((found == 1) & (truth == 1)).sum((1, 2, 3)) / ((found == 1) | (truth == 1)).sum((1, 2, 3))
    assert rows["iou_car"].to_pylist() == pytest.approx(both.tolist())


@pytest.mark.parametrize("task", ["binary", "binary:logits", "multilabel", "classification", "regression"])
def test_a_task_that_gives_no_masks_is_refused_by_name(task: str) -> None:
    with pytest.raises(XaiError, match=f"the task {task} is none of pictures' masks") as said:
        SegmentationMetricsCollector(["ground", "road"], task=task)
    assert "one channel is read as yes and no" in said.value.hint


@pytest.mark.parametrize("task", [None, "segmentation", "segmentation:logits"])
def test_one_channel_is_yes_and_no(run: Run, task: str | None) -> None:
    logits = torch.tensor([[[[2.0, -1.0], [3.0, -2.0]]]])
    truth = torch.tensor([[[1, 1], [0, 0]]])
    collector = SegmentationMetricsCollector(["ground", "road"], task=task)
    found = collect_metrics(Table.from_arrays(logits, truth), collector, nn.Identity(), run=run).tables["metrics"]
    row = found.to_pylist()[0]
    assert row["iou_road"] == pytest.approx(1 / 3)
    assert row["iou_ground"] == pytest.approx(1 / 3)
    assert row["pixel_accuracy"] == pytest.approx(1 / 2)
