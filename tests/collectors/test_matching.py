"""Matching against COCO's evaluation written out as plain loops; overlaps by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from xaicli.collectors.objects import (
    Matches,
    Objects,
    Outcome,
    bounding_box,
    box_overlaps,
    decode,
    encode,
    mask_overlaps,
    match,
    run_lengths,
)


def coco(truth: Objects, predicted: Objects, overlaps: NDArray[Any], threshold: float) -> tuple[list[int], list[int]]:
    """`COCOeval.evaluateImg` (its own matching loop, class by class), crowds last among the true objects."""
    to_truth, to_predicted = [-1] * len(predicted.label), [-1] * len(truth.label)
    for label in {*truth.label.tolist(), *predicted.label.tolist()}:
        gts = sorted((t for t, value in enumerate(truth.label) if value == label), key=lambda t: bool(truth.crowd[t]))
        dts = [p for p, value in enumerate(predicted.label) if value == label]
        dts.sort(key=lambda p: -predicted.confidence[p])
        for p in dts:
            iou, m = min(threshold, 1 - 1e-10), -1
            for t in gts:
                if to_predicted[t] >= 0 and not truth.crowd[t]:
                    continue
                if m > -1 and not truth.crowd[m] and truth.crowd[t]:
                    break
                if overlaps[p, t] < iou:
                    continue
                iou, m = overlaps[p, t], t
            if m == -1:
                continue
            to_truth[p] = m
            to_predicted[m] = p
    return to_truth, [-1 if truth.crowd[t] else p for t, p in enumerate(to_predicted)]


@st.composite
def pictures(draw: Any) -> tuple[Objects, Objects, NDArray[Any]]:
    """Few coarse overlaps and confidences, so that ties are common."""
    n, m = draw(st.integers(0, 6)), draw(st.integers(0, 6))

    def some(length: int, values: list[Any]) -> list[Any]:
        return draw(st.lists(st.sampled_from(values), min_size=length, max_size=length))

    truth = Objects(
        np.asarray(some(n, [0, 1]), np.int64), np.ones(n), np.asarray(some(n, [False, False, True]), np.bool_)
    )
    predicted = Objects(
        np.asarray(some(m, [0, 1]), np.int64), np.asarray(some(m, [0.2, 0.5, 0.9]), float), np.zeros(m, np.bool_)
    )
    overlaps = np.asarray(some(n * m, [0.0, 0.3, 0.5, 0.5, 0.75, 1.0]), float).reshape(m, n)
    return truth, predicted, overlaps


@given(pictures(), st.sampled_from([0.3, 0.5, 0.75, 1.0]))
def test_as_coco_matches(picture: tuple[Objects, Objects, NDArray[Any]], threshold: float) -> None:
    truth, predicted, overlaps = picture
    found: Matches = match(truth, predicted, overlaps, threshold)
    to_truth, to_predicted = coco(truth, predicted, overlaps, threshold)
    assert found.predicted.tolist() == to_truth
    assert found.truth.tolist() == to_predicted
    hits = [t for t in to_truth if t >= 0 and not truth.crowd[t]]
    assert found.predicted_outcome.count(Outcome.TP) == found.truth_outcome.count(Outcome.TP) == len(hits)
    assert found.truth_outcome.count(Outcome.IGNORED) == truth.crowd.sum()
    assert found.predicted_outcome.count(Outcome.FP) == to_truth.count(-1)
    for p, t in enumerate(to_truth):
        if t >= 0:
            assert found.predicted_iou[p] == overlaps[p, t] >= min(threshold, 1 - 1e-10)


def objects(labels: list[int], confidence: list[float] | None = None, crowd: list[bool] | None = None) -> Objects:
    n = len(labels)
    return Objects(np.asarray(labels), np.asarray(confidence or [1.0] * n), np.asarray(crowd or [False] * n, np.bool_))


def test_the_surer_prediction_takes_the_object() -> None:
    found = match(objects([0]), objects([0, 0], [0.6, 0.9]), np.array([[0.9], [0.6]]), 0.5)
    assert found.predicted.tolist() == [-1, 0]
    assert found.predicted_outcome == [Outcome.FP, Outcome.TP]
    assert found.predicted_iou.tolist() == [0.9, 0.6]
    assert found.truth_iou.tolist() == [0.6]


def test_classes_do_not_mix_and_empty_pictures_are_fine() -> None:
    found = match(objects([0]), objects([1]), np.array([[1.0]]), 0.5)
    assert found.predicted_outcome == [Outcome.FP]
    assert found.truth_outcome == [Outcome.FN]
    assert found.predicted_iou.tolist() == [0.0]
    nothing = match(objects([]), objects([]), np.zeros((0, 0)), 0.5)
    assert nothing.predicted_outcome == nothing.truth_outcome == []
    assert match(objects([]), objects([0]), np.zeros((1, 0)), 0.5).predicted_outcome == [Outcome.FP]
    assert match(objects([0]), objects([]), np.zeros((0, 1)), 0.5).truth_outcome == [Outcome.FN]


def test_box_overlaps_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [5, 5, 5, 9]], float)
    truth = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [10, 0, 20, 10]], float)
    found = box_overlaps(boxes, truth, np.zeros(3, np.bool_))
    assert found[0] == pytest.approx([1.0, 25 / 175, 0.0])
    assert found[1].tolist() == found[2].tolist() == [0.0, 0.0, 0.0]
    assert box_overlaps(boxes[:1], truth, np.array([False, True, False]))[0, 1] == pytest.approx(25 / 100)


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_masks_survive_run_lengths_and_overlap_as_sets(height: int, width: int, data: Any) -> None:
    bits = st.lists(st.booleans(), min_size=height * width, max_size=height * width)
    masks = np.asarray([data.draw(bits) for _ in range(3)]).reshape(3, height, width)
    for mask in masks:
        counts = encode(mask)
        assert np.array_equal(decode(counts, height, width), mask)
        assert sum(counts) == height * width
        assert all(count > 0 for count in counts[1:])
    found = mask_overlaps(masks[:1], masks[1:], np.array([False, True]))
    first, second, crowd = ({tuple(p) for p in np.argwhere(mask)} for mask in masks)
    assert found[0, 0] == pytest.approx(len(first & second) / len(first | second) if first | second else 0)
    assert found[0, 1] == pytest.approx(len(first & crowd) / len(first) if first else 0)


def test_run_lengths_are_those_of_coco() -> None:
    assert encode(np.array([[0, 1], [0, 1], [1, 1]])) == [2, 4]
    assert encode(np.array([[1, 0], [1, 0]])) == [0, 2, 2]
    with pytest.raises(ValueError, match="runs of 5 pixels do not fill a mask of 2 x 2"):
        decode([2, 3], 2, 2)
    assert bounding_box(np.array([[0, 0, 0], [0, 1, 1], [0, 0, 0]])) == (1.0, 1.0, 3.0, 2.0)
    assert bounding_box(np.zeros((2, 2))) == (0.0, 0.0, 0.0, 0.0)


def compressed(counts: list[int]) -> str:
    """`rleToString` of COCO's evaluation code."""
    text = ""
    for i, count in enumerate(counts):
        value, more = count - (counts[i - 2] if i > 2 else 0), True
        while more:
            low, value = value & 31, value >> 5
            more = value != (-1 if low & 16 else 0)
            text += chr(low + (32 if more else 0) + 48)
    return text


@given(st.lists(st.integers(0, 10**6), max_size=30))
def test_compressed_runs_are_those_of_coco(counts: list[int]) -> None:
    assert run_lengths(compressed(counts)) == counts
    assert run_lengths(compressed(counts).encode()) == counts


def test_a_mask_as_coco_compresses_it() -> None:
    # Written by pycocotools.mask.encode.
    counts = "[6P1800WOJ`06@J`069000000000000000000000000000000U6"
    mask = np.zeros((40, 30), bool)
    mask[3:35, 5:25] = True
    mask[10:12, 7:9] = False
    assert np.array_equal(decode(run_lengths(counts), 40, 30), mask)
    assert run_lengths("0d0") == [0, 20]
    for text in ("P", "0 0", b"\xff"):
        with pytest.raises(ValueError, match="run lengths"):
            run_lengths(text)


def test_masks_and_overlaps_are_those_of_pycocotools() -> None:
    coco_masks = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    masks = rng.random((6, 17, 11)) > np.linspace(0.1, 0.9, 6)[:, None, None]
    theirs = [coco_masks.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    for mask, one in zip(masks, theirs, strict=True):
        assert run_lengths(one["counts"]) == encode(mask)
        assert bounding_box(mask)[2] - bounding_box(mask)[0] == coco_masks.toBbox(one)[2]
    crowd = np.array([False, True, False])
    expected = coco_masks.iou(theirs[:3], theirs[3:], crowd.astype(np.uint8).tolist())
    assert mask_overlaps(masks[:3], masks[3:], crowd) == pytest.approx(expected)
