"""Boxes and instance masks: the long table, the counts, and matching again without the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch

from xaicli import BoundingBoxMetricsCollector, InstanceMaskMetricsCollector, average_precision, rematch
from xaicli.collectors.collect import CollectionError, collect_metrics
from xaicli.errors import UsageError, XaiError
from xaicli.recorder.run import Run
from xaicli.tables.column import schema_of
from xaicli.tables.schema import CategoricalLabel
from xaicli.tables.table import Table

TRUTH = [
    {"boxes": torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]]), "labels": torch.tensor([0, 1])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)},
    {"boxes": torch.tensor([[0.0, 0, 50, 50]]), "labels": torch.tensor([0]), "iscrowd": torch.tensor([1])},
]
PREDICTED = [
    {
        "boxes": torch.tensor([[0.0, 0, 10, 8], [1, 1, 10, 10], [20, 20, 30, 30]]),
        "labels": torch.tensor([0, 0, 0]),
        "scores": torch.tensor([0.9, 0.8, 0.7]),
    },
    {"boxes": torch.tensor([[0.0, 0, 1, 1]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.3])},
    {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([0]), "scores": torch.tensor([0.6])},
]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run(tmp_path / "run", strict=True) as opened:
        yield opened


def collected(
    run: Run, collector: Any, truth: Any = None, predicted: Any = None, **options: Any
) -> dict[str, pa.Table]:
    """Collect over pictures that are numbers: the model looks its output up."""
    predicted = PREDICTED if predicted is None else predicted
    table = Table(list(enumerate(TRUTH if truth is None else truth)))
    args = {"batch_size": 2, "collate_fn": lambda samples: tuple(zip(*samples, strict=True))}
    model = lambda numbers: [predicted[int(i)] for i in numbers]  # noqa: E731
    result = collect_metrics(table, collector, model, run=run, dataloader_args=args, **options)
    return dict(result.tables)


def test_a_row_an_object_and_counts_a_picture(run: Run) -> None:
    tables = collected(run, BoundingBoxMetricsCollector(["cat", "dog"]))
    rows = tables["boxes"].to_pylist()
    shown = [(r["example_id"], r["instance_id"], r["source"], r["label"], r["outcome"], r["match_id"]) for r in rows]
    assert shown == [
        (0, 0, "gt", 0, "tp", 2),
        (0, 1, "gt", 1, "fn", None),
        (0, 2, "pred", 0, "tp", 0),
        (0, 3, "pred", 0, "fp", None),
        (0, 4, "pred", 0, "fp", None),
        (1, 0, "pred", 1, "fp", None),
        (2, 0, "gt", 0, "ignored", None),
        (2, 1, "pred", 0, "ignored", 0),
    ]
    assert rows[2]["iou"] == pytest.approx(0.8)
    assert rows[3]["iou"] == pytest.approx(0.81)
    assert rows[4]["iou"] == 0.0
    assert [rows[2][name] for name in ("x0", "y0", "x1", "y1")] == [0, 0, 10, 8]
    assert rows[0]["confidence"] is None
    assert tables["metrics"].select(["tp", "fp", "fn"]).to_pylist() == [
        {"tp": 1, "fp": 2, "fn": 1},
        {"tp": 0, "fp": 1, "fn": 0},
        {"tp": 0, "fp": 0, "fn": 0},
    ]
    assert tables["metrics"]["mean_iou"].to_pylist() == [pytest.approx(0.8), None, None]
    run.flush()
    scalars = pl.read_parquet(run.layout.scalars / "*.parquet")
    values = dict(zip(scalars["key"], scalars["value"], strict=True))
    assert values["precision"] == pytest.approx(1 / 4)
    assert values["recall"] == pytest.approx(1 / 2)
    assert values["fp"] == 1.0


def test_boxes_are_asked_for_as_samples_are(run: Run, xai: Any) -> None:
    collected(run, BoundingBoxMetricsCollector(["cat", "dog"]), split="val")
    run.close()
    arguments = ("samples", run.layout.root, "--table", "boxes", "--metric", "iou", "--reduce", "min", "--max", 0)
    status, out, err = xai(*arguments, "--json")
    assert status == 0, err
    rows = json.loads(out)["rows"]
    shown = [(row["mode"], row["sample_id"], row["score"]) for row in rows]
    assert shown == [("val", 0, 0.0), ("val", 1, 0.0), ("val", 2, 1.0)]
    _, out, _ = xai(*arguments)
    assert "cat" in out
    assert "dog" in out


def random_pictures(n: int, masks: bool = False) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Pictures of overlapping objects, some without any."""
    rng = np.random.default_rng(3)

    def some(count: int) -> dict[str, Any]:
        low = rng.integers(0, 12, (count, 2)).astype(float)
        boxes = np.concatenate([low, low + rng.integers(1, 12, (count, 2))], axis=1)
        objects: dict[str, Any] = {"boxes": boxes, "labels": rng.integers(0, 2, count)}
        objects["scores"] = rng.choice([0.1, 0.4, 0.9], count) + rng.normal(0, 1e-9, count)
        objects["iscrowd"] = rng.random(count) < 0.2
        if masks:
            grid = np.stack(np.meshgrid(np.arange(24), np.arange(24)), axis=-1)
            objects["masks"] = np.asarray(
                [((grid >= box[:2]) & (grid < box[2:])).all(axis=-1) & (rng.random((24, 24)) < 0.8) for box in boxes]
            ).reshape(count, 24, 24)
        return objects

    return [some(int(rng.integers(0, 6))) for _ in range(n)], [some(int(rng.integers(0, 6))) for _ in range(n)]


@pytest.mark.parametrize(
    ("collector", "name", "masks"),
    [(BoundingBoxMetricsCollector, "boxes", False), (InstanceMaskMetricsCollector, "instances", True)],
)
def test_matching_stored_rows_again_is_matching_the_model_again(
    run: Run, collector: Any, name: str, masks: bool
) -> None:
    truth, predicted = random_pictures(30, masks)
    at = {
        threshold: collected(
            run, collector(["a", "b"], iou_threshold=threshold), truth, predicted, constants={"epoch": epoch}
        )
        for epoch, threshold in enumerate((0.3, 0.5, 0.75))
    }
    stored = parquet.read_table(sorted((run.layout.tables / name).glob("*.parquet")))
    assert stored.num_rows == sum(tables[name].num_rows for tables in at.values())
    assert len(set(at[0.3][name]["outcome"].to_pylist())) == 4
    for threshold, tables in at.items():
        again = rematch(stored, threshold)
        for epoch in range(3):
            part = again.filter(pa.compute.equal(again["epoch"], epoch))
            for column in ("iou", "match_id", "outcome", "iou_threshold"):
                assert part[column].to_pylist() == tables[name][column].to_pylist(), (threshold, column)
        assert again.drop_columns(["iou", "match_id", "outcome", "iou_threshold"]).equals(
            stored.drop_columns(["iou", "match_id", "outcome", "iou_threshold"])
        )
    assert at[0.3][name]["outcome"].to_pylist() != at[0.75][name]["outcome"].to_pylist()
    assert rematch(pl.from_arrow(stored), 0.5)["outcome"].to_pylist() == rematch(stored, 0.5)["outcome"].to_pylist()


def test_average_precision_at_101_recalls(run: Run) -> None:
    boxes = [[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50], [20, 20, 30, 28], [0, 0, 10, 9]]
    truth = [
        {"boxes": [boxes[0]], "labels": [0]},
        {"boxes": [boxes[1], boxes[2]], "labels": [0, 1], "iscrowd": [0, 0]},
    ]
    predicted = [
        {"boxes": [boxes[0], boxes[4]], "labels": [0, 0], "scores": [0.9, 0.8]},
        {"boxes": [boxes[3], boxes[0]], "labels": [0, 2], "scores": [0.7, 0.9]},
    ]
    result = collect_metrics(
        Table(list(enumerate(truth))),
        BoundingBoxMetricsCollector(["a", "b", "c"]),
        lambda numbers: [predicted[int(i)] for i in numbers],
        run=run,
        dataloader_args={"collate_fn": lambda samples: tuple(zip(*samples, strict=True))},
    )
    # Right, wrong, right: 51 recalls up to a half at precision 1, 50 up to 1 at 2/3. Class b is never found.
    expected = (51 + 50 * 2 / 3) / 101
    rows = result.tables["boxes"]
    assert average_precision(rows) == pytest.approx({0: expected, 1: 0.0})
    assert average_precision(pl.from_arrow(rows)) == average_precision(rows)
    assert result.aggregates["average_precision"] == pytest.approx(expected / 2)
    # The third prediction's IoU is 0.8: at 0.9 only the first is right.
    assert average_precision(rows, [0.5, 0.9]) == pytest.approx({0: (expected + 51 / 101) / 2, 1: 0.0})


def test_coco_annotations_and_other_formats_mean_the_same(run: Run) -> None:
    plain = collected(run, BoundingBoxMetricsCollector(["cat", "dog"]))["boxes"]

    def coco(picture: dict[str, Any]) -> list[dict[str, Any]]:
        crowd = picture.get("iscrowd", torch.zeros(len(picture["labels"])))
        return [
            {"bbox": [x0, y0, x1 - x0, y1 - y0], "category_id": label + 90, "score": score, "iscrowd": int(is_crowd)}
            for (x0, y0, x1, y1), label, score, is_crowd in zip(
                picture["boxes"].tolist(),
                picture["labels"].tolist(),
                picture.get("scores", torch.ones(len(picture["labels"]))).tolist(),
                crowd.tolist(),
                strict=True,
            )
        ]

    mapped = BoundingBoxMetricsCollector(["cat", "dog"], {90: 0, 91: 1})
    again = collected(run, mapped, [coco(p) for p in TRUTH], [coco(p) for p in PREDICTED])["boxes"]
    assert again["outcome"].to_pylist() == plain["outcome"].to_pylist()
    assert again["label"].to_pylist() == plain["label"].to_pylist()

    def centred(picture: dict[str, Any]) -> dict[str, Any]:
        low, high = picture["boxes"][:, :2], picture["boxes"][:, 2:]
        return picture | {"boxes": torch.cat([(low + high) / 2, high - low], dim=1)}

    other = BoundingBoxMetricsCollector(["cat", "dog"], box_format="cxcywh")
    boxes = collected(run, other, [centred(p) for p in TRUTH], [centred(p) for p in PREDICTED])["boxes"]
    assert [boxes[c].to_pylist() for c in ("x0", "y1")] == [plain[c].to_pylist() for c in ("x0", "y1")]


def test_a_mask_without_a_box_gets_its_own(run: Run) -> None:
    mask = np.zeros((1, 1, 6, 8), np.float32)
    mask[0, 0, 1:3, 2:7] = 0.9
    predicted = [{"masks": torch.tensor(mask), "labels": [0], "scores": [0.5]}]
    truth = [{"masks": mask[:, 0] > 0, "labels": [0]}]
    rows = collected(run, InstanceMaskMetricsCollector(["cell"]), truth, predicted)["instances"].to_pylist()
    assert [rows[1][name] for name in ("x0", "y0", "x1", "y1", "iou", "outcome")] == [2, 1, 7, 3, 1.0, "tp"]
    assert (rows[1]["height"], rows[1]["width"]) == (6, 8)
    assert rows[1]["counts"] == rows[0]["counts"]
    coco = [[{"category_id": 0, "segmentation": {"size": [6, 8], "counts": rows[1]["counts"]}}], []]
    again = collected(run, InstanceMaskMetricsCollector(["cell"]), coco, [*predicted, []])
    assert again["instances"]["iou"].to_pylist() == [1.0, 1.0]
    assert again["metrics"]["fn"].to_pylist() == [0, 0]


def test_preprocessing_and_columns_of_the_caller(run: Run) -> None:
    collector = BoundingBoxMetricsCollector(
        ["cat", "dog"],
        preprocess_fn=lambda batch, output: ([t | {} for t in batch[1]], output.forward),
        extra_metrics_fn=lambda truth, _predicted: {"n_true": [len(t["labels"]) for t in truth]},
    )
    assert collected(run, collector)["metrics"]["n_true"].to_pylist() == [2, 0, 1]
    schema = parquet.read_schema(next((run.layout.tables / "boxes").glob("*.parquet")))
    assert schema_of(schema.field("label")) == CategoricalLabel(classes=["cat", "dog"])


@pytest.mark.parametrize(
    ("truth", "predicted", "told"),
    [
        ([{"boxes": [[0, 0, 1, 1]]}], [PREDICTED[0]], "an annotation has no 'labels'; it holds boxes"),
        ([TRUTH[0]], [{"boxes": [[0, 0, 1, 1]], "labels": [0]}], "an annotation has no 'scores'"),
        ([TRUTH[0]], [PREDICTED[0] | {"labels": [0]}], "an annotation has 3 boxes for 1 labels"),
        ([5], [PREDICTED[0]], "the annotations of a picture are a int"),
    ],
)
def test_what_is_no_annotation_is_told(run: Run, truth: Any, predicted: Any, told: str) -> None:
    with pytest.raises(CollectionError) as caught:
        collected(run, BoundingBoxMetricsCollector(["cat", "dog"]), truth, predicted)
    assert told in caught.value.message
    assert "batch 0 (example_id 0 to 0)" in caught.value.message


def test_other_faults_are_told(run: Run) -> None:
    with pytest.raises(UsageError, match=r"iou_threshold=1.5 is not in \(0, 1\]"):
        BoundingBoxMetricsCollector(["cat"], iou_threshold=1.5)
    with pytest.raises(XaiError, match="no box format 'yxyx'"):
        BoundingBoxMetricsCollector(["cat"], box_format="yxyx")
    with pytest.raises(CollectionError, match="no label '0' in label_mapping"):
        collected(run, BoundingBoxMetricsCollector(["cat"], {90: 0}))
    with pytest.raises(XaiError, match="the table has no column 'example_id': its rows are no objects"):
        rematch(pa.table({"a": [1]}), 0.5)


def test_average_precision_is_that_of_pycocotools(run: Run) -> None:
    coco, evaluation = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    rng = np.random.default_rng(5)

    def some(n: int, near: Any = None) -> Any:
        corners = rng.uniform(0, 60, (n, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(4, 30, (n, 2))], axis=1)
        for i in range(0 if near is None else min(n, len(near["boxes"]))):
            boxes[i] = near["boxes"][i] + rng.normal(0, 2, 4)
        labels = rng.integers(0, 3, n)
        labels[: 0 if near is None else len(near["labels"][:n])] = [] if near is None else near["labels"][:n]
        return {"boxes": boxes, "labels": labels}

    truth = [some(int(n)) for n in rng.integers(0, 6, 30)]
    found = [some(int(rng.integers(0, 8)), near) for near in truth]
    for one in truth:
        one["iscrowd"] = rng.random(len(one["labels"])) < 0.15
    for one in found:
        one["scores"] = rng.random(len(one["labels"]))
    table = Table([(torch.zeros(1), one) for one in truth])
    pictures = iter(found)
    rows = collect_metrics(
        table,
        BoundingBoxMetricsCollector(["a", "b", "c"]),
        lambda images: [next(pictures) for _ in images],
        run=run,
        dataloader_args={"collate_fn": lambda samples: tuple(zip(*samples, strict=True))},
    ).tables["boxes"]

    def listed(pictures: Any, predicted: bool) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        for number, one in enumerate(pictures):
            for i, (x0, y0, x1, y1) in enumerate(one["boxes"].tolist()):
                item = {"image_id": number, "category_id": int(one["labels"][i]), "bbox": [x0, y0, x1 - x0, y1 - y0]}
                item |= {"score": float(one["scores"][i])} if predicted else {"iscrowd": int(one["iscrowd"][i])}
                items.append(item | {"id": len(items) + 1, "area": (x1 - x0) * (y1 - y0)})
        return items

    truths = coco.COCO()
    truths.dataset = {
        "images": [{"id": number} for number in range(len(truth))],
        "annotations": listed(truth, False),
        "categories": [{"id": k} for k in range(3)],
    }
    truths.createIndex()
    judged = evaluation.COCOeval(truths, truths.loadRes(listed(found, True)), "bbox")
    judged.evaluate()
    judged.accumulate()
    precision = judged.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class) of all areas, 100 objects
    for k, mean in average_precision(rows, judged.params.iouThrs).items():
        assert mean == pytest.approx(float(precision[:, :, k].mean()), abs=1e-9)


def test_boxes_that_cannot_be_are_kept_and_counted(run: Run) -> None:
    truth = {"boxes": [[0, 0, 4, 4], [5, 5, 9, 9]], "labels": [0, 7]}
    found = {
        "boxes": [[0, 0, float("nan"), 4], [0, 0, 4, 4], [9, 9, 5, 5]],
        "labels": [0, 0, 0],
        "scores": [0.9, 0.8, 0.7],
    }
    table = Table([(torch.zeros(3, 8, 8), truth)])
    arguments = {"collate_fn": lambda samples: tuple(zip(*samples, strict=True))}
    with pytest.warns(UserWarning, match="boxes") as said:
        rows = collect_metrics(
            table, BoundingBoxMetricsCollector(["ant"]), lambda _: [found], run=run, dataloader_args=arguments
        ).tables["boxes"]
    assert rows["outcome"].to_pylist() == ["tp", "fn", "fp", "tp", "fp"]
    texts = " ".join(str(warning.message) for warning in said)
    assert "1 boxes hold a value that is not finite" in texts
    assert "1 boxes end before they begin" in texts
    assert "classes that have no name: 7" in texts
