"""Labels that the outputs cannot know: neither right nor wrong, told, counted, and no loss to their neighbours."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.recorder.fake_cuda import FakeCuda, on_device, run_on
from tests.recorder.recorded import column, rows
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.run import Run
from xaicli.recorder.scores import derive_on_device, derive_sequences_on_device

LOGITS = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [0.0, 0.0, 4.0]], np.float32)


def entropy_of(logits: Any, label: int) -> float:
    row = [float(value) for value in logits]
    return math.log(sum(math.exp(value) for value in row)) - row[label]


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
@pytest.mark.parametrize("classes", [3, 50])
@pytest.mark.parametrize("kind", ["logits", "probs"])
@pytest.mark.parametrize("make", [list, np.array, torch.tensor, lambda label: np.array(label, np.int16)])
def test_a_label_that_is_no_class_is_neither_right_nor_wrong(
    tmp_path: Path, classes: int, kind: str, make: Any
) -> None:
    logits = np.pad(LOGITS, ((0, 0), (0, classes - 3)), constant_values=-9.0)
    scores: dict[str, Any] = {kind: logits if kind == "logits" else torch.from_numpy(logits).softmax(1).numpy()}
    given = [[0, 1, 2], [-1, 0, classes], [0, 1, 2], [classes + 4, -100, 2]]
    with Run(tmp_path / "run") as run:
        for step, label in enumerate(given):
            run.log_samples(sample_id=np.arange(3), label=make(label), step=step, epoch=1, **scores)
    assert sum(run.stats()["refused"]["label"].values()) == 3
    assert run.stats()["labels_ignored"] == 1
    for row in rows(tmp_path / "run").to_pylist():
        label, at = given[row["step"]][row["sample_id"]], logits[row["sample_id"]]
        assert row["prediction"] == int(at.argmax())
        if 0 <= label < classes:
            assert (row["label"], row["correct"]) == (label, label == int(at.argmax()))
            assert row["loss"] == pytest.approx(entropy_of(at, label), rel=1e-4)
        else:
            assert [row[name] for name in ("label", "correct", "loss", "margin", "el2n")] == [None] * 5


def log_unknown_labels(run: Run) -> None:
    for step in range(5):
        run.log_samples(sample_id=np.arange(3), label=np.array([-1, 0, 1]), logits=LOGITS, step=step, epoch=1)


def test_it_is_told_once_with_the_callers_line_and_strictly_raised(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with pytest.warns(RecorderWarning, match="label -1 is no class of the 3 of the scores") as said:
        log_unknown_labels(run)
    run.close()
    assert [warning.filename for warning in said] == [__file__]
    with Run(tmp_path / "strict", strict=True) as run:
        run.log_samples(sample_id=np.arange(3), label=np.array([0, 0, 1]), logits=LOGITS, step=0)
        for label in ([-1, 0, 1], [0, 3, 1]):
            with pytest.raises(ValueError, match="no class of the 3"):
                run.log_samples(sample_id=np.arange(3), label=np.array(label), logits=LOGITS, step=1)


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_of_several_kinds_of_labels_each_odd_one_is_missing_alone(tmp_path: Path) -> None:
    def labels(name: str, label: Any, **given: Any) -> list[Any]:
        options = {key: given.pop(key) for key in ("task", "label_names") if key in given}
        n = len(label)
        with Run(tmp_path / name, **options) as run:
            run.log_samples(sample_id=range(n), label=label, step=1, epoch=1, **given)
        assert sum(run.stats()["refused"]["label"].values()) >= 1
        return rows(tmp_path / name).to_pylist()  # type: ignore[no-any-return]

    found = labels("texts", ["cat", "bird"], logits=LOGITS[:2, :2], label_names=["cat", "dog"])
    assert [(row["label"], row["correct"]) for row in found] == [("cat", False), (None, None)]
    found = labels("lists", [[0, 2], [7], [-1], [1]], logits=np.ones((4, 3)), task="multilabel")
    assert [row["label"] for row in found] == [[0, 2], None, None, [1]]
    assert [row["n_wrong"] for row in found] == [1, None, None, 2]
    matrix = np.array([[1, 0, 1], [0, -100, 1], [0, math.nan, 1], [0.5, 0, 0]])
    found = labels("sets", matrix, logits=np.ones((4, 3)), task="multilabel")
    assert [row["label"] for row in found] == [[0, 2], None, None, None]
    found = labels("soft", np.array([[0.2, 0.8, 0], [0.9, 0.9, 0]]), logits=LOGITS[:2], task="classification")
    soft = functional.cross_entropy(torch.from_numpy(LOGITS[:1]), torch.tensor([[0.2, 0.8, 0]]))
    assert [row["loss"] for row in found] == [pytest.approx(soft.item(), rel=1e-5), None]
    assert [(row["label"], row["correct"]) for row in found] == [(1, False), (None, None)]
    found = labels("reals", [1.5, "x", 2.0], prediction=[1.0, 2.0, 3.0], task="regression")
    assert [row["residual"] for row in found] == [0.5, None, -1.0]


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
@pytest.mark.parametrize("make", [list, np.array])
def test_a_real_number_among_classes_is_missing_alone(tmp_path: Path, make: Any) -> None:
    with Run(tmp_path / "run") as run:
        for step, label in enumerate(([0, 1, 2], [0, 1.5, 2])):
            run.log_samples(sample_id=range(3), label=make(label), logits=LOGITS, step=step, epoch=step)
    assert [row["label"] for row in rows(tmp_path / "run").to_pylist()] == [0, 1, 2, 0, None, 2]


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_tokens_that_are_no_classes_do_not_count(tmp_path: Path) -> None:
    logits, label = torch.zeros(1, 4, 3), torch.tensor([[0, 7, -100, 2]])
    with Run(tmp_path / "run", task="sequence") as run:
        run.log_samples(sample_id=[1], label=label, logits=logits, step=1, epoch=1)
    (row,) = rows(tmp_path / "run").to_pylist()
    assert (row["n_tokens"], row["loss"]) == (2, pytest.approx(math.log(3), rel=1e-5))
    assert sum(run.stats()["refused"]["label"].values()) == 1


def test_scores_that_are_not_numbers_predict_nothing(tmp_path: Path) -> None:
    nan = math.nan
    batches: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {"label": [0, 0], "logits": [[nan, 1.0], [2.0, 1.0]]}),
        ({}, {"label": [0, 0], "probs": [[nan, nan], [0.9, 0.1]]}),
        ({}, {"label": [0, 0], "logits": [nan, -1.0]}),
        ({}, {"label": [0, 0], "logits": np.pad([[nan, 1.0], [2.0, 1.0]], ((0, 0), (0, 3000)))}),
        ({"task": "multilabel"}, {"label": [[], [0]], "logits": [[nan, nan], [2.0, -1.0]]}),
    ]
    for number, (options, batch) in enumerate(batches):
        with Run(tmp_path / str(number), strict=True, **options) as run:
            run.log_samples(sample_id=[1, 2], step=1, epoch=1, **batch)
        found = rows(tmp_path / str(number)).to_pylist()
        assert [(row["prediction"] is None, row["correct"]) for row in found] == [(True, None), (False, True)]
    top = torch.tensor([[nan, 1.0], [2.0, 1.0]])
    on_device = derive_on_device(top, torch.tensor([0, 0]), are_logits=True, with_loss=True)
    assert on_device["prediction"].tolist() == [-(2**31), 0]


@pytest.mark.parametrize("classes", [3, 3000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_row_of_scores_that_says_nothing_predicts_nothing(tmp_path: Path, classes: int, dtype: torch.dtype) -> None:
    inf = math.inf
    said: list[tuple[list[float], int | None]] = [
        ([inf, inf, 0.0], None),
        ([-inf, -inf, -inf], None),
        ([inf, inf, inf], None),
        ([math.nan, 9.0, 0.0], None),
        ([0.0, inf, 1.0], 1),
        ([-inf, -2.0, -inf], 1),
        ([-2.0, -1.0, -inf], 1),
        ([-5.0, -5.0, -9.0], 0),
    ]
    scores = torch.full((len(said), classes), -inf, dtype=dtype)
    scores[:, :3] = torch.tensor([row for row, _ in said])
    right = [found for _, found in said]
    label = torch.ones(len(said), dtype=torch.int64)
    correct = [None if found is None else found == 1 for found in right]
    given: dict[str, Any] = {"tensor": scores, "array": scores.double().numpy(), "list": scores.tolist()}
    for name, logits in given.items():
        with Run(tmp_path / name, strict=True) as run:
            run.log_samples(sample_id=range(len(said)), label=label, logits=logits, step=1, epoch=1)
        found = rows(tmp_path / name).to_pylist()
        assert [(row["prediction"], row["correct"]) for row in found] == list(zip(right, correct, strict=True)), name
    there = derive_on_device(scores, label, are_logits=True, with_loss=True)["prediction"].tolist()
    assert [None if one == -(2**31) else one for one in there] == right
    tokens = torch.stack([scores, scores[4].expand_as(scores)], 1)  # a second place that is right
    with Run(tmp_path / "tokens", task="sequence", strict=True) as run:
        run.log_samples(
            sample_id=range(len(said)), label=label[:, None].expand(-1, 2), logits=tokens.float(), step=1, epoch=1
        )
    accuracies = [row["token_accuracy"] for row in rows(tmp_path / "tokens").to_pylist()]
    there = derive_sequences_on_device(tokens, label[:, None].expand(-1, 2), are_logits=True, ignored=-100)
    for each in (accuracies, there["token_accuracy"].tolist()):
        assert [None if math.isnan(one) else one for one in each] == [
            None if one is None else (1.0 if one == 1 else 0.5) for one in right
        ]


@pytest.mark.parametrize("odd", [[math.nan, 0.0, 0.0], [math.inf, math.inf, 0.0], [-math.inf] * 3])
@pytest.mark.parametrize("cuda", [False, True])
def test_of_named_classes_a_row_that_says_nothing_costs_itself_alone(
    tmp_path: Path, odd: list[float], cuda: bool
) -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], odd, [0.0, 1.0, 2.0]])
    device = FakeCuda()
    run = run_on(device, tmp_path / "run", label_names=["a", "b", "c"], strict=True)
    run.log_samples(
        sample_id=[1, 2, 3], label=["a", "b", "b"], logits=on_device(logits) if cuda else logits, step=1, epoch=1
    )
    device.land()
    run.close()
    found = rows(tmp_path / "run").to_pylist()
    assert [(row["label"], row["prediction"], row["correct"]) for row in found] == [
        ("a", "a", True),
        ("b", None, None),
        ("b", "c", False),
    ]


def test_probabilities_that_are_all_zero_predict_nothing(tmp_path: Path) -> None:
    probs = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.0, 1.0], [math.inf, math.inf]])
    label = torch.tensor([0, 0, 1, 0])
    for name, given in (("tensor", probs), ("array", probs.numpy())):
        with Run(tmp_path / name, strict=True) as run:
            run.log_samples(sample_id=range(4), label=label, probs=given, step=1, epoch=1)
        assert [row["prediction"] for row in rows(tmp_path / name).to_pylist()] == [None, 0, 1, None]
    there = derive_on_device(probs, label, are_logits=False, with_loss=True)["prediction"].tolist()
    assert there == [-(2**31), 0, 1, -(2**31)]


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_a_label_of_one_score_may_be_its_probability(tmp_path: Path) -> None:
    z, y = torch.tensor([0.3, -2.0, 5.0]), torch.tensor([0.9, 0.1, 0.4])
    with Run(tmp_path / "run", task="binary", strict=True) as run:
        run.log_samples(sample_id=range(3), label=y, logits=z, step=1, epoch=1)
    found = rows(tmp_path / "run").to_pylist()
    loss = functional.binary_cross_entropy_with_logits(z, y, reduction="none")
    assert [row["loss"] for row in found] == pytest.approx(loss.tolist(), rel=1e-5)
    assert [(row["label"], row["correct"]) for row in found] == [(1, True), (0, True), (0, False)]
    with pytest.warns(RecorderWarning, match='Run\\(task="binary"\\) says otherwise'), Run(tmp_path / "open") as run:
        run.log_samples(sample_id=range(3), label=y, logits=z, step=1, epoch=1)
    with pytest.warns(RecorderWarning, match='Run\\(task="regression"\\) says otherwise'), Run(tmp_path / "x") as run:
        run.log_samples(sample_id=[1, 2], label=[1.0, 2.0], prediction=[2.0, 2.0], step=1, epoch=1)


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
@pytest.mark.parametrize("where", [on_device, list])
def test_a_label_that_is_no_class_of_scores_on_a_device(tmp_path: Path, where: Any) -> None:
    device = FakeCuda()
    run = run_on(device, tmp_path / "run")
    scores = torch.from_numpy(LOGITS).clone()
    scores[2, 0] = math.nan
    run.log_samples(sample_id=[1, 2, 3], label=where([-1, 2, 0]), logits=on_device(scores), step=1, epoch=1)
    device.land()
    run.close()
    found = rows(tmp_path / "run").to_pylist()
    assert [(row["label"], row["prediction"], row["correct"]) for row in found] == [
        (None, 2, None),
        (2, 0, False),
        (0, None, None),
    ]
    assert found[0]["loss"] is None
    assert found[1]["loss"] == pytest.approx(entropy_of(LOGITS[1], 2), rel=1e-5)
    assert sum(run.stats()["refused"]["label"].values()) == 1


@pytest.mark.parametrize("make", [np.array, np.int64, int])
def test_arrays_without_axes_are_labels_as_numbers_are(tmp_path: Path, make: Any) -> None:
    scores = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]
    with Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=range(4), label=[make(i) for i in (0, 1, 2, 0)], logits=scores, mode="eval", epoch=1)
    found = sorted(rows(tmp_path / "run").to_pylist(), key=lambda row: row["sample_id"])
    assert [row["label"] for row in found] == [0, 1, 2, 0]
    assert [row["correct"] for row in found] == [True, True, True, False]


@pytest.mark.parametrize(
    ("ignore_label", "label"),
    [("void", [0, 1, 0]), (1, ["cat", "void", "cat"]), ("void", ["cat", "void", "cat"]), (1, [0, 1, 0])],
)
@pytest.mark.parametrize("as_array", [False, True])
def test_the_ignored_label_is_known_by_its_name_and_by_its_number(
    tmp_path: Path, ignore_label: int | str, label: list[Any], as_array: bool
) -> None:
    given = np.array(label) if as_array and isinstance(label[0], int) else label
    with Run(tmp_path / "run", strict=True, label_names=["cat", "void"], ignore_label=ignore_label) as run:
        for step in range(2):  # the second batch is like the one before
            ids = np.arange(3) + 3 * step
            run.log_samples(sample_id=ids, label=given, prediction=given, mode="train", epoch=1, step=step)
    cat = label[0]
    assert column(tmp_path / "run", "label") == [cat, None, cat] * 2
    assert column(tmp_path / "run", "correct") == [True, None, True] * 2


@pytest.mark.parametrize(("ignore_label", "label"), [("void", [0, 1]), (7, ["cat", "dog"])])
def test_an_ignored_label_of_another_kind_than_the_labels_is_told(
    tmp_path: Path, ignore_label: int | str, label: list[Any]
) -> None:
    told = pytest.warns(RecorderWarning, match=f"ignore_label={ignore_label!r} is none of the labels")
    with told, Run(tmp_path / "run", ignore_label=ignore_label) as run:
        run.log_samples(sample_id=[0, 1], label=label, mode="train", epoch=1, step=1)
    assert column(tmp_path / "run", "label") == label


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("scored", [False, True])
def test_the_label_that_stands_for_a_missing_one_is_told_and_counted(
    tmp_path: Path, dtype: Any, *, scored: bool
) -> None:
    """As NaN cast to int32 gives it; in a first batch, and in those like it; a missing one beside is no such."""
    given = {"logits": np.eye(3)} if scored else {"loss": np.zeros(3)}
    run = Run(tmp_path / "run")

    def log() -> None:
        for step, first in enumerate((-(2**31), 0, 0, -(2**31), -(2**31))):
            label = np.array([first, 1, 2], dtype)
            run.log_samples(sample_id=np.arange(3), label=label, mode="eval", epoch=1, step=step, **given)
        run.log_samples(sample_id=[0, 1, 2], label=[None, 1, 2], mode="eval", epoch=1, step=5, **given)
        run.close()

    with pytest.warns(RecorderWarning, match="-2147483648"):
        log()
    told = run.stats()["refused"]["label"]
    assert column(tmp_path / "run", "label") == [None, 0, 0, None, None, None] + [1] * 6 + [2] * 6
    assert sum(told.values()) == 3
