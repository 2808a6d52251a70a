"""Collectors read an output as what it is: logits, probabilities, several labels, values, a class at every place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import xaicli
from xaicli import ClassificationMetricsCollector, SegmentationMetricsCollector
from xaicli.collectors.collect import CollectionError, collect_metrics
from xaicli.collectors.predictor import Predictor
from xaicli.recorder.run import Run
from xaicli.tables.table import Table

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)) * 2


class Net(nn.Module):
    def __init__(self, outputs: int, last: Callable[[Tensor], Any] = lambda y: y) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear, self.last = nn.Linear(4, outputs), last

    def forward(self, x: Tensor) -> Any:
        return self.last(self.linear(x))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run(tmp_path / "run", strict=True) as opened:
        yield opened


def collected(run: Run, model: Any, labels: Any, collector: Any = None, x: Tensor = X) -> pa.Table:
    table = Table.from_arrays(x, labels)
    got = collect_metrics(
        table, collector or ClassificationMetricsCollector(), model, run=run, dataloader_args={"batch_size": 5}
    )
    return got.tables["metrics"]


def test_a_classifier_however_it_ends(run: Run) -> None:
    with torch.no_grad():
        logits = Net(3)(X)
    y = torch.where(torch.arange(12) % 4 == 0, (logits.argmax(1) + 1) % 3, logits.argmax(1))
    expected = {
        "loss": functional.cross_entropy(logits, y, reduction="none"),
        "confidence": logits.softmax(1).amax(1),
        "label_prob": logits.softmax(1)[torch.arange(12), y],
        "accuracy": (logits.argmax(1) == y).float(),
        "entropy": torch.distributions.Categorical(logits=logits).entropy(),
    }
    ends: tuple[Callable[[Tensor], Any], ...] = (
        lambda z: z,
        lambda z: z.softmax(1),
        lambda z: z.log_softmax(1),
        lambda z: {"features": z @ torch.rand(3, 8), "preds": z.softmax(1)},
        lambda z: (z.mean(), z),
    )
    for end in ends:
        rows = collected(run, Net(3, end), y)
        for name, values in expected.items():
            assert [float(v) for v in rows[name].to_pylist()] == pytest.approx(values.tolist(), abs=1e-5), name


def test_yes_and_no(run: Run) -> None:
    with torch.no_grad():
        z = Net(1)(X)[:, 0]
    for labels in ((z > 0).long(), (z > 0).float()):
        for end in (lambda y: y, torch.sigmoid, lambda y: torch.sigmoid(y)[:, 0]):
            rows = collected(run, Net(1, end), labels)
            assert all(rows["accuracy"].to_pylist())
            assert rows["confidence"].to_pylist() == pytest.approx(torch.sigmoid(z.abs()).tolist(), abs=1e-6)
            loss = functional.binary_cross_entropy_with_logits(z, labels.float(), reduction="none")
            assert rows["loss"].to_pylist() == pytest.approx(loss.tolist(), abs=1e-5)


def test_several_labels(run: Run) -> None:
    with torch.no_grad():
        z = Net(4)(X)
    truth = (z > 0).long()
    truth[0, 0] = 1 - truth[0, 0]
    for model, task in ((Net(4, torch.sigmoid), None), (Net(4), "multilabel")):
        rows = collected(run, model, truth, ClassificationMetricsCollector(task=task)).to_pylist()
        for i, row in enumerate(rows):
            assert row["confidence"] == pytest.approx(float(torch.sigmoid(z[i]).max()), abs=1e-6)
            assert row["label"] == truth[i].nonzero()[:, 0].tolist()
            assert row["predicted"] == (z[i] > 0).nonzero()[:, 0].tolist()
            assert row["accuracy"] is (i != 0)
            assert row["n_wrong"] == (i == 0)
            loss = functional.binary_cross_entropy_with_logits(z[i], truth[i].float())
            assert row["loss"] == pytest.approx(float(loss), abs=1e-5)
        both, either = (
            set(rows[0]["label"]) & set(rows[0]["predicted"]),
            set(rows[0]["label"]) | set(rows[0]["predicted"]),
        )
        assert rows[0]["jaccard"] == pytest.approx(len(both) / len(either))
    rows = collected(run, Net(4), truth.bool()).to_pylist()  # rows of any number of classes are no one-hot labels
    assert [row["label"] for row in rows] == [row.nonzero()[:, 0].tolist() for row in truth]
    with pytest.raises(CollectionError, match="one class of them, or any number"):
        collected(run, Net(4), functional.one_hot(z.argmax(1), 4), _Undecided())


def test_one_hot_labels_are_classes_until_a_row_says_otherwise(run: Run) -> None:
    with torch.no_grad():
        z = Net(4)(X)
    y = z.argmax(1)
    hard = collected(run, Net(4), y)
    for labels in (functional.one_hot(y, 4), functional.one_hot(y, 4).bool(), functional.one_hot(y, 4).double()):
        assert collected(run, Net(4), labels)["loss"].to_pylist() == pytest.approx(hard["loss"].to_pylist())
    labels = functional.one_hot(y, 4)
    labels[7] = 1  # in the second batch of five
    with pytest.raises(CollectionError, match="rows of one class each hold another number") as caught:
        collected(run, Net(4), labels)
    assert "multilabel" in caught.value.hint


def test_several_values_are_no_probabilities_of_classes(run: Run) -> None:
    with torch.no_grad():
        values = Net(2)(X).double()
    truth = values * 1.5 + 1
    rows = collected(run, Net(2), truth)
    assert rows["loss"].to_pylist() == pytest.approx(((truth - values) ** 2).mean(1).tolist(), abs=1e-5)
    assert "accuracy" not in rows.column_names
    with pytest.raises(CollectionError, match="do not sum to one") as caught:
        collected(run, Net(2), truth.sigmoid())
    assert "regression" in caught.value.hint
    soft = truth.softmax(1)
    found = collected(run, Net(2), soft)
    assert found["predicted"].to_pylist() == values.argmax(1).tolist()
    assert found["label"].to_pylist() == soft.argmax(1).tolist()


def test_labels_as_people_have_them(run: Run) -> None:
    with torch.no_grad():
        y = Net(3)(X).argmax(1)
    hard = collected(run, Net(3), y)
    names = ("ant", "bee", "cat")
    as_texts = Table([(X[i], names[int(y[i])]) for i in range(12)])
    classes = ClassificationMetricsCollector(names)
    got = collect_metrics(as_texts, classes, Net(3), run=run).tables["metrics"]
    assert got["loss"].to_pylist() == pytest.approx(hard["loss"].to_pylist())
    assert got["label"].to_pylist() == y.tolist()
    some: list[Any] = [None if i == 4 else int(y[i]) for i in range(12)]
    for table in (Table([(X[i], some[i]) for i in range(12)]), Table([{"x": X[i], "y": some[i]} for i in range(12)])):
        got = collect_metrics(table, ClassificationMetricsCollector(), Net(3), run=run).tables["metrics"]
        assert got["label"].to_pylist() == some
        assert [value is None for value in got["loss"].to_pylist()] == [i == 4 for i in range(12)]
    floats = y.double()
    floats[4] = torch.nan
    got = collected(run, Net(3), floats)
    assert got["label"].to_pylist() == some
    assert got["accuracy"].to_pylist() == [None if i == 4 else True for i in range(12)]


def test_labels_that_are_no_class_are_counted(run: Run) -> None:
    labels = torch.tensor([0, 1, 2, 9, -1, -100] * 2)
    with pytest.warns(UserWarning, match=r"4 of 12 labels are none of the model's classes \(-1, 9\)"):
        rows = collected(run, Net(3), labels)
    assert rows["accuracy"].null_count == 6


def test_a_text_that_is_no_class_costs_no_other_label(run: Run) -> None:
    with torch.no_grad():
        y = Net(3)(X).argmax(1)
    names = ("ant", "bee", "cat")
    texts: list[Any] = [names[k] for k in y]
    texts[3], texts[7], texts[9] = "?", "dog", None
    expected: list[Any] = [None if i in (3, 7, 9) else int(k) for i, k in enumerate(y)]
    hard = collected(run, Net(3), y)["loss"].to_pylist()
    mixed = [names.index(text) if text in names else text for text in texts]
    for labels in (texts, mixed):
        got = collect_metrics(
            Table([(X[i], labels[i]) for i in range(12)]),
            ClassificationMetricsCollector(names),
            Net(3),
            run=run,
            dataloader_args={"batch_size": 5},
        )
        rows = got.tables["metrics"]
        assert rows["label"].to_pylist() == expected
        losses = [None if expected[i] is None else pytest.approx(hard[i]) for i in range(12)]
        assert rows["loss"].to_pylist() == losses
        assert rows["predicted"].to_pylist() == y.tolist()
        assert got.doubts == (
            "2 of 12 labels are none of the model's classes ('?', 'dog'): what needs a label is missing for them",
        )
    nameless = collect_metrics(
        Table([(X[i], texts[i]) for i in range(12)]), ClassificationMetricsCollector(), Net(3), run=run
    )
    assert nameless.tables["metrics"]["predicted"].to_pylist() == y.tolist()
    assert nameless.doubts[0].startswith("11 labels are texts, and the classes have no names")


def test_a_set_with_what_is_no_class_costs_no_other_set(run: Run) -> None:
    sets: list[Any] = [[0, 2], [1], ["bee", "ant"], [0, 7], ["dog"], [], None, [2], [0], [1], [2], [0, 1, 2]]
    truth = [{0, 2}, {1}, {0, 1}, None, None, set(), None, {2}, {0}, {1}, {2}, {0, 1, 2}]
    collector = ClassificationMetricsCollector(("ant", "bee", "cat"), task="multilabel")
    got = collect_metrics(Table([(X[i], sets[i]) for i in range(12)]), collector, Net(3), run=run)
    rows = got.tables["metrics"]
    assert [None if row is None else set(row) for row in rows["label"].to_pylist()] == truth
    with torch.no_grad():
        z = Net(3)(X)
    for i, (row, loss) in enumerate(zip(truth, rows["loss"].to_pylist(), strict=True)):
        one = torch.tensor([float(k in (row or ())) for k in range(3)])
        want = None if row is None else float(functional.binary_cross_entropy_with_logits(z[i], one))
        assert loss == (None if want is None else pytest.approx(want, abs=1e-6))
    assert got.doubts == (
        "2 of 12 labels are none of the model's classes (7, 'dog'): what needs a label is missing for them",
    )


def test_soft_labels_are_what_the_recorder_makes_of_them(run: Run, tmp_path: Path) -> None:
    soft = torch.randn(12, 3, generator=torch.Generator().manual_seed(4)).softmax(1)
    with torch.no_grad():
        z = Net(3)(X)
    rows = collected(run, Net(3), soft)
    expected = {
        "loss": functional.cross_entropy(z, soft, reduction="none"),
        "label_prob": (soft * z.softmax(1)).sum(1),
        "el2n": (z.softmax(1) - soft).norm(dim=1),
    }
    for name, values in expected.items():
        assert rows[name].to_pylist() == pytest.approx(values.tolist(), abs=1e-5), name
    assert rows["label"].to_pylist() == soft.argmax(1).tolist()
    with Run(tmp_path / "logged") as logged:
        logged.log_samples(sample_id=range(12), label=soft, logits=z, mode="eval", epoch=1, step=1)
    recorded = xaicli.open_run(tmp_path / "logged").scan(mode="eval").collect().sort("sample_id")
    for name in ("loss", "label_prob"):
        assert rows[name].to_pylist() == pytest.approx(recorded[name].to_list(), abs=1e-6), name
    explained = xaicli.saliency(Net(3), X, labels=soft.numpy(), methods="gradient", device="cpu").data
    assert explained["label_prob"].to_list() == pytest.approx(recorded["label_prob"].to_list(), abs=1e-6)
    own = ClassificationMetricsCollector(loss_fn=nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1))
    smooth = functional.cross_entropy(z, soft, reduction="none", label_smoothing=0.1)
    assert collected(run, Net(3), soft, own)["loss"].to_pylist() == pytest.approx(smooth.tolist(), abs=1e-5)
    broken = soft.clone()
    broken[7] = torch.nan
    broken[8] *= 0.5
    rows = collected(run, Net(3, lambda y: y.softmax(1)), broken)  # the first batch is sound
    want = [None if i in (7, 8) else pytest.approx(float(v), abs=1e-5) for i, v in enumerate(expected["loss"])]
    assert rows["loss"].to_pylist() == want
    assert rows["label"].to_pylist() == [None if i in (7, 8) else int(k) for i, k in enumerate(soft.argmax(1))]


def test_a_last_batch_of_one_that_is_squeezed_away(run: Run) -> None:
    y = (torch.arange(11) % 2).long()
    whole = collected(run, Net(1), y, ClassificationMetricsCollector(task="binary"), X[:11])
    squeezed = collected(run, Net(1, lambda z: z.squeeze()), y, ClassificationMetricsCollector(task="binary"), X[:11])
    assert squeezed["loss"].to_pylist() == pytest.approx(whole["loss"].to_pylist())
    whole = collected(run, Net(3), y, x=X[:11])
    assert collected(run, Net(3, lambda z: z.squeeze(0)), y, x=X[:11])["loss"].to_pylist() == pytest.approx(
        whole["loss"].to_pylist()
    )


def test_a_constant_that_a_collector_fills_is_said(run: Run) -> None:
    with pytest.warns(UserWarning, match="the constant 'loss' is left out"):
        collect_metrics(
            Table.from_arrays(X, torch.arange(12) % 3),
            ClassificationMetricsCollector(),
            Net(3),
            run=run,
            constants={"loss": 1.0},
        )


class _Undecided(ClassificationMetricsCollector):
    """Asks as saliency does: with no task in mind."""

    def compute_metrics(self, batch: Any, predictor_output: Any) -> dict[str, Any]:
        return {"a": [predictor_output.head(labels=batch[1]).classes] * len(batch[0])}


def test_values_are_neither_right_nor_wrong(run: Run) -> None:
    truth = torch.linspace(-3.3, 4.1, 12)
    with torch.no_grad():
        answer = Net(1)(X)[:, 0]
    rows = collected(run, Net(1), truth)
    assert "accuracy" not in rows.column_names
    assert rows["predicted"].to_pylist() == pytest.approx(answer.tolist(), abs=1e-6)
    assert rows["residual"].to_pylist() == pytest.approx((truth - answer).tolist(), abs=1e-5)
    assert rows["abs_error"].to_pylist() == pytest.approx((truth - answer).abs().tolist(), abs=1e-5)
    assert rows["loss"].to_pylist() == pytest.approx((truth - answer).square().tolist(), abs=1e-4)


def test_a_class_at_every_place(run: Run) -> None:
    x = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(2))
    y = torch.randint(0, 3, (6, 5), generator=torch.Generator().manual_seed(3))
    y[1, 3:], y[2] = -100, -100
    with torch.no_grad():
        logits = Net(3)(x)
    rows = collected(run, Net(3), y, x=x).to_pylist()
    for i, row in enumerate(rows):
        kept = y[i] >= 0
        assert row["n_tokens"] == int(kept.sum())
        if not kept.any():
            assert row["loss"] is row["token_accuracy"] is row["label_prob"] is None
            continue
        loss = functional.cross_entropy(logits[i], y[i], ignore_index=-100)
        assert row["loss"] == pytest.approx(float(loss), abs=1e-5)
        assert row["token_accuracy"] == pytest.approx(float((logits[i].argmax(1) == y[i])[kept].float().mean()))


def test_a_sample_the_model_breaks_on_is_alone(run: Run) -> None:
    x = X.clone()
    x[7, 0] = torch.nan
    y = torch.zeros(12, dtype=torch.long)
    for end in (lambda z: z, lambda z: z.softmax(1)):
        clean, broken = collected(run, Net(3, end), y), collected(run, Net(3, end), y, x=x)
        kept = [i for i in range(12) if i != 7]
        for name in ("loss", "confidence", "predicted", "accuracy", "entropy"):
            assert clean[name].take(kept).equals(broken[name].take(kept)), name
        row = broken.to_pylist()[7]
        assert row["predicted"] is row["accuracy"] is row["loss"] is None


@pytest.mark.parametrize("odd", [[torch.inf, torch.inf, 0.0], [-torch.inf] * 3])
def test_a_sample_of_which_the_scores_say_nothing_is_of_no_class(run: Run, odd: list[float]) -> None:
    x = X.clone()
    x[7] = 1e9
    y = torch.zeros(12, dtype=torch.long)
    end = lambda z: torch.where(z.abs().amax(1, keepdim=True) > 1e6, torch.tensor(odd), z)  # noqa: E731
    clean, broken = collected(run, Net(3, end), y), collected(run, Net(3, end), y, x=x)
    kept = [i for i in range(12) if i != 7]
    for name in ("loss", "predicted", "accuracy"):
        assert clean[name].take(kept).equals(broken[name].take(kept)), name
    row = broken.to_pylist()[7]
    assert row["predicted"] is row["accuracy"] is None


def test_masks_of_yes_and_no_and_of_classes(run: Run) -> None:
    x = torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))

    class Segmenter(nn.Module):
        def __init__(self, channels: int, last: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.last = nn.Conv2d(1, channels, 1), last

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.conv(x))

    with torch.no_grad():
        yes = (Segmenter(1, lambda y: y)(x)[:, 0] > 0).long()
        classes = Segmenter(3, lambda y: y)(x).argmax(1)
    for end in (lambda y: y, torch.sigmoid, lambda y: torch.sigmoid(y[:, 0])):
        rows = collected(run, Segmenter(1, end), yes, SegmentationMetricsCollector(["no", "yes"]), x)
        assert rows["mean_iou"].to_pylist() == [1.0] * 3
        assert rows["pixel_accuracy"].to_pylist() == [1.0] * 3
    for end in (lambda y: y, lambda y: y.softmax(1), lambda y: y.permute(0, 2, 3, 1)):
        rows = collected(run, Segmenter(3, end), classes, SegmentationMetricsCollector(["a", "b", "c"]), x)
        assert rows["mean_iou"].to_pylist() == [1.0] * 3
    alone = SegmentationMetricsCollector(["no", "yes"], task="segmentation:probabilities")
    assert collected(run, nn.Identity(), yes, alone, yes.float())["mean_iou"].to_pylist() == [1.0] * 3


def test_the_numbers_are_the_model_s_own_and_what_they_were_read_as_is_said(run: Run) -> None:
    assert Predictor(Net(3)).precision == "fp32"
    table = Table.from_arrays(X, torch.zeros(12, dtype=torch.long))
    got = collect_metrics(table, ClassificationMetricsCollector(), Net(3, lambda y: y.softmax(1)), run=run)
    assert got.decided == (
        "read as classification, probabilities of 3 classes (the model ends in softmax): its labels are classes",
    )
    with pytest.raises(CollectionError, match="logits or probabilities cannot be told"):
        collect_metrics(table, ClassificationMetricsCollector(), Net(3, torch.exp), run=run)
    said = ClassificationMetricsCollector(task="classification:logits")
    assert xaicli.collect_metrics(table, said, Net(3, torch.exp), run=run).tables["metrics"].num_rows == 12


def test_lists_of_classes_stay_with_their_samples(run: Run) -> None:
    with torch.no_grad():
        z = Net(4)(X)
    for sets in ([[0, 1], [2, 3], [1, 3]] * 4, [[0], [], [1, 2, 3]] * 4):
        hot = torch.zeros(12, 4)
        for i, classes in enumerate(sets):
            hot[i, classes] = 1
        loss = functional.binary_cross_entropy_with_logits(z, hot, reduction="none").mean(1)
        tuples = list(zip(X, sets, strict=True))
        for table in (Table(tuples), Table([{"x": x, "y": y} for x, y in tuples])):
            rows = collect_metrics(
                table,
                ClassificationMetricsCollector(task="multilabel"),
                Net(4),
                run=run,
                dataloader_args={"batch_size": 4},
            ).tables["metrics"]
            assert rows["label"].to_pylist() == sets
            assert rows["loss"].to_pylist() == pytest.approx(loss.tolist(), abs=1e-6)


def test_masks_of_floats_and_pixels_that_do_not_count(run: Run) -> None:
    x = torch.randn(4, 3, 6, 6)
    truth = torch.randint(0, 3, (4, 6, 6))
    collector, net = SegmentationMetricsCollector(["a", "b", "c"]), nn.Conv2d(3, 3, 1)
    as_numbers = collect_metrics(Table.from_arrays(x, truth), collector, net, run=run).tables["metrics"]
    as_floats = collect_metrics(Table.from_arrays(x, truth.float()), collector, net, run=run).tables["metrics"]
    assert as_floats["mean_iou"].to_pylist() == as_numbers["mean_iou"].to_pylist()
    one = nn.Conv2d(3, 1, 1)
    binary = SegmentationMetricsCollector(["no", "yes"])
    found = [
        collect_metrics(Table.from_arrays(x, mask), binary, one, run=run).tables["metrics"]["mean_iou"].to_pylist()
        for mask in ((truth > 0).long(), (truth > 0).float(), (truth > 0).float()[:, None])
    ]
    assert found[0] == found[1] == found[2]
    truth[0, 0], truth[1, 0, :2] = 255, 7
    with pytest.warns(UserWarning, match="pixels of the truth") as said:
        collect_metrics(Table.from_arrays(x, truth), collector, net, run=run)
    texts = " ".join(str(warning.message) for warning in said)
    assert "6 of 144 pixels of the truth are ignored (255)" in texts
    assert "2 of 144 pixels of the truth are of no class (7)" in texts


def test_numbers_of_a_set_that_say_nothing_do_not_count_and_are_counted(run: Run) -> None:
    with torch.no_grad():
        z = Net(3)(X)
    y = torch.randint(0, 2, (12, 3), generator=torch.Generator().manual_seed(4))
    y[2, 1], y[3, 0], y[5] = -1, -100, -1
    for truth in (y, y.float(), torch.where(y < 0, torch.nan, y.float())):
        table = Table.from_arrays(X, truth)
        got = collect_metrics(table, ClassificationMetricsCollector(task="multilabel"), Net(3), run=run)
        assert got.doubts == ("5 numbers of the labels are neither 0 nor 1: they do not count",)
        for i, row in enumerate(got.tables["metrics"].to_pylist()):
            kept = y[i] >= 0
            if i == 5:
                assert row["label"] is row["loss"] is row["accuracy"] is row["label_prob"] is row["jaccard"] is None
                continue
            own, right = z[i][kept], y[i][kept]
            loss = functional.binary_cross_entropy_with_logits(own, right.float())
            assert row["loss"] == pytest.approx(float(loss), abs=1e-5)
            assert row["label"] == [k for k in range(3) if y[i, k] == 1]
            assert row["n_wrong"] == int(((own > 0) != (right == 1)).sum())
            assert row["accuracy"] is (row["n_wrong"] == 0)
            each = torch.where(right == 1, own.sigmoid(), 1 - own.sigmoid())
            assert row["label_prob"] == pytest.approx(float(each.log().mean().exp()), abs=1e-5)


def test_one_hot_labels_are_classes_that_are_told_of(run: Run) -> None:
    truth = torch.arange(12) % 3
    hot = functional.one_hot(truth, 3)
    plain = collected(run, Net(3), truth)
    for labels in (hot, hot.float(), hot.bool()):
        got = collect_metrics(Table.from_arrays(X, labels), ClassificationMetricsCollector(), Net(3), run=run)
        rows = got.tables["metrics"]
        assert rows["label"].to_pylist() == truth.tolist()
        assert rows["loss"].to_pylist() == pytest.approx(plain["loss"].to_pylist(), abs=1e-6)
        assert [said for said in got.doubts if "12 labels are rows of zeros and a one" in said and "multilabel" in said]
    none = hot.clone()
    none[7], none[8] = 0, 1
    said = ClassificationMetricsCollector(task="classification")
    got = collect_metrics(Table.from_arrays(X, none), said, Net(3), run=run, dataloader_args={"batch_size": 4})
    rows = got.tables["metrics"].to_pylist()
    assert [i for i, row in enumerate(rows) if row["label"] is None] == [7, 8]
    assert [i for i, row in enumerate(rows) if row["loss"] is None] == [7, 8]
    assert "2 labels are rows that name no one class" in got.doubts[0]


def test_no_scalar_is_a_mean_of_class_numbers(run: Run) -> None:
    truth = torch.arange(12) % 3
    got = collect_metrics(Table.from_arrays(X, truth), ClassificationMetricsCollector(), Net(3), run=run)
    assert "accuracy" in got.aggregates
    assert not {"label", "predicted"} & set(got.aggregates)

    def own(batch: Any, output: Any) -> dict[str, Any]:
        return {"prediction": output.forward.argmax(1), "n_wrong": (output.forward.argmax(1) != batch[1]).long()}

    own_scalars = collect_metrics(Table.from_arrays(X, truth), own, Net(3), run=run).aggregates
    with torch.no_grad():
        wrong = (Net(3)(X).argmax(1) != truth).float().mean()
    assert own_scalars == {"n_wrong": pytest.approx(float(wrong))}
    # Values of a regression have a mean.
    values = collect_metrics(Table.from_arrays(X, truth + 0.5), ClassificationMetricsCollector(), Net(1), run=run)
    assert values.aggregates["label"] == pytest.approx(1.5)


def test_sigmoids_under_classification_are_probabilities_of_no_one_distribution(run: Run) -> None:
    with torch.no_grad():
        each = Net(3)(X).sigmoid()
    y = each.argmax(1)
    y[0] = (y[0] + 1) % 3
    rows = collected(run, Net(3, torch.sigmoid), y)
    assert "entropy" not in rows.column_names
    assert rows["predicted"].to_pylist() == each.argmax(1).tolist()
    assert rows["accuracy"].to_pylist() == [i > 0 for i in range(12)]
    own = each.gather(1, y[:, None])[:, 0]
    assert rows["label_prob"].to_pylist() == pytest.approx(own.tolist(), abs=1e-6)
    assert rows["loss"].to_pylist() == pytest.approx((-own.log()).tolist(), abs=1e-5)
    assert rows["confidence"].to_pylist() == pytest.approx(each.amax(1).tolist(), abs=1e-6)
