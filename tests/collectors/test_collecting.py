"""`collect_metrics`: one pass, every collector, nothing changed, faults named."""

from __future__ import annotations

import copy
import functools
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image as Pictures
from torch import nn

import xaicli
from xaicli.collectors.classification import ClassificationMetricsCollector
from xaicli.collectors.collect import CollectionError, collect_metrics
from xaicli.collectors.collector import MetricsCollector
from xaicli.collectors.embeddings import EmbeddingsMetricsCollector
from xaicli.collectors.outputs import PredictorOutput
from xaicli.collectors.predictor import Predictor
from xaicli.errors import UsageError, XaiError
from xaicli.recorder.run import Run
from xaicli.tables.rows import Unreadable
from xaicli.tables.table import Table

N = 10
HEAD = ["example_id", "input_table", "split", "epoch", "step", "attempt"]


ASKED = [4, 2]
"""The first batch and half of it: whether the model answers alike."""


class Counting(nn.Module):
    """Doubles its input and notes how many samples each of its passes had, where nobody puts it back."""

    passes: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))
        self.passes.clear()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes.append(len(x))
        return x * self.factor


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run(tmp_path / "run", strict=True) as opened:
        yield opened


@pytest.fixture
def table() -> Table:
    return Table.from_arrays(np.arange(N, dtype=np.float32), np.arange(N) % 3, name="ten")


def doubled(_batch: Any, output: PredictorOutput) -> dict[str, Any]:
    return {"doubled": output.forward}


class Difference(MetricsCollector):
    """Output minus input, with a schema."""

    def compute_metrics(self, batch: Any, predictor_output: PredictorOutput) -> dict[str, Any]:
        return {"difference": (predictor_output.forward - batch[0]).tolist(), "label": batch[1]}

    @property
    def column_schemas(self) -> Mapping[str, Any]:
        return {"difference": xaicli.Float("output - input", 0.0, 9.0), "label": ["a", "b", "c"]}


def scalars(run: Run) -> dict[str, float]:
    run.flush()
    frame = pl.read_parquet(run.layout.scalars / "*.parquet")
    return dict(zip(frame["key"], frame["value"], strict=True))


def test_all_collectors_share_one_forward_a_batch(run: Run, table: Table) -> None:
    model = Counting().train()
    args = {"batch_size": 4}
    collected = collect_metrics(table, [doubled, Difference()], model, run=run, split="val", dataloader_args=args)
    assert model.passes == [*ASKED, 4, 4, 2]
    assert model.training
    frame = pl.read_parquet(run.layout.tables / "metrics" / "*.parquet")
    assert frame.columns == [*HEAD, "doubled", "difference", "label"]
    assert frame["example_id"].to_list() == list(range(N))
    assert frame["doubled"].to_list() == [2.0 * i for i in range(N)]
    assert frame["difference"].to_list() == [float(i) for i in range(N)]
    assert set(frame["split"]) == {"val"}
    assert collected.paths[0].parent == run.layout.tables / "metrics"
    assert scalars(run) == {
        "val/doubled": 9.0,
        "val/difference": 4.5,
        "val/label/a": 0.4,
        "val/label/b": 0.3,
        "val/label/c": 0.3,
    }


def test_constants_are_columns_and_the_time_axis(run: Run, table: Table) -> None:
    for epoch in (1, 2):
        collect_metrics(table, doubled, Counting(), run=run, constants={"epoch": epoch})
    frame = pl.read_parquet(run.layout.tables / "metrics" / "*.parquet")
    assert frame["epoch"].to_list() == [1] * N + [2] * N
    run.flush()
    assert pl.read_parquet(run.layout.scalars / "*.parquet")["step"].to_list() == [1, 2]


def test_the_time_is_the_training_s_own(run: Run, table: Table) -> None:
    for epoch in run.epochs(2):
        for _ in run.steps([0, 1, 2]):
            pass
        rows = collect_metrics(table, doubled, Counting(), run=run).tables["metrics"]
        assert rows.slice(0, 1).select(["epoch", "step", "attempt"]).to_pylist() == [
            {"epoch": epoch, "step": 3 * epoch, "attempt": 0}
        ]
    run.flush()
    frame = pl.read_parquet(run.layout.scalars / "*.parquet")
    assert frame.select("step", "epoch", "axis").rows() == [(3, 1, "step"), (6, 2, "step")]


def test_what_a_resumed_run_has_undone_does_not_count(tmp_path: Path, table: Table) -> None:
    for steps in (range(1, 5), range(3, 6)):
        with Run(tmp_path / "run", strict=True) as run:
            for step in steps:
                run.state.global_step = run.state.epoch_idx = step
                run.log_samples(sample_id=[0], loss=[1.0])
                collect_metrics(table, doubled, Counting(), run=run)
    answer = xaicli.open_run(tmp_path / "run").query(
        "SELECT step, attempt, count(*) AS n FROM metrics GROUP BY step, attempt ORDER BY step"
    )
    assert answer.data.rows() == [(1, 0, N), (2, 0, N), (3, 1, N), (4, 1, N), (5, 1, N)]


def test_columns_of_another_kind_go_to_a_table_of_their_own(run: Run, table: Table) -> None:
    for value in (1.0, "one", 2.0, "two"):
        collect_metrics(table, lambda _b, _o, v=value: {"v": [v] * N}, Counting(), run=run)
    kept = {path.name: pl.read_parquet(path / "*.parquet")["v"].unique().sort() for path in run.layout.tables.iterdir()}
    assert {name: values.to_list() for name, values in kept.items()} == {
        "metrics": [1.0, 2.0],
        "metrics-2": ["one", "two"],
    }


class Some:
    """Samples of which some cannot be read, each for a reason of its own."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> float:
        if index == 1:
            raise OSError("image file is truncated")
        return 1 / (index - 3)


def test_samples_that_cannot_be_read_are_left_out_and_named(run: Run) -> None:
    named = ("sample f: OSError: image file is truncated", "sample p: ZeroDivisionError: division by zero", "gone")
    rows = Table(Some(), ids=list("efgpqr")).map(lambda value: Unreadable("gone") if value == 0.5 else value)
    for workers in (0, 1):
        with pytest.warns(UserWarning, match="3 samples are left out: sample f: OSError"):
            got = collect_metrics(
                rows, doubled, Counting(), run=run, dataloader_args={"batch_size": 2, "num_workers": workers}
            )
        assert got.tables["metrics"]["example_id"].to_pylist() == [0, 2, 4]
        assert got.tables["metrics"]["doubled"].to_pylist() == pytest.approx([-2 / 3, -2.0, 2.0])
        assert got.unreadable == named
    with pytest.raises(XaiError, match="cannot be read: sample f: OSError: image file"):
        collect_metrics(rows, doubled, Counting(), run=run, strict=True)
    with pytest.raises(XaiError, match="no sample can be read"):
        collect_metrics(rows.map(list), doubled, Counting(), run=run)


def test_the_active_run_is_meant_when_none_is_given(tmp_path: Path, table: Table) -> None:
    with xaicli.init(tmp_path / "active") as run:
        xaicli.collect_metrics(table, doubled, Counting())
        assert (run.layout.tables / "metrics" / "schema.json").is_file()
    with pytest.raises(ValueError, match="no active run"):
        xaicli.collect_metrics(table, doubled, Counting())


def test_ids_of_the_table_and_zero_weights(run: Run) -> None:
    table = Table.from_dict(
        {"x": np.arange(4, dtype=np.float32), "weight": np.array([1.0, 0.0, 2.0, 0.0])}, ids=["a", "b", "c", "d"]
    )
    collected = collect_metrics(table, doubled, Counting(), run=run, exclude_zero_weights=True)
    assert collected.tables["metrics"].select(["example_id", "sample_id", "doubled"]).to_pylist() == [
        {"example_id": 0, "sample_id": "a", "doubled": 0.0},
        {"example_id": 2, "sample_id": "c", "doubled": 4.0},
    ]
    everything = collect_metrics(table, doubled, Counting(), run=run)
    assert everything.tables["metrics"].num_rows == 4
    with pytest.raises(UsageError, match="has no samples"):
        collect_metrics(Table([1.0], weights=[0]), doubled, Counting(), run=run, exclude_zero_weights=True)


def test_random_transforms_repeat_and_training_randomness_is_untouched(run: Run) -> None:
    def noisy(sample: Any) -> Any:
        return sample[0] + torch.rand(()) + np.random.rand() + random.random()

    table = Table.from_arrays(np.zeros(N, np.float32)).map(noisy)

    def draw() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    def seeded() -> None:
        random.seed(5), np.random.seed(5), torch.manual_seed(5)

    seeded()
    expected = draw()
    seeded()
    first = collect_metrics(table, doubled, Counting(), run=run).tables["metrics"]["doubled"].to_pylist()
    assert draw() == expected
    second = collect_metrics(table, doubled, Counting(), run=run).tables["metrics"]["doubled"].to_pylist()
    assert first == second
    assert len(set(first)) == N


def test_workers_and_collation_of_the_caller(run: Run) -> None:
    table = Table([{"x": float(i)} for i in range(5)])
    collected = collect_metrics(
        table,
        lambda batch, _output: {"n": [len(batch)] * len(batch)},
        Predictor(Counting(), preprocess_fn=lambda batch: torch.tensor([sample["x"] for sample in batch])),
        run=run,
        dataloader_args={"batch_size": 2, "num_workers": 1, "collate_fn": list},
    )
    assert collected.tables["metrics"]["n"].to_pylist() == [2, 2, 2, 2, 1]
    with pytest.raises(UsageError, match="dataloader_args holds 'shuffle'"):
        collect_metrics(table, doubled, Counting(), run=run, dataloader_args={"shuffle": True})


def test_samples_that_make_no_batch_are_told(run: Run, tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True)
        Pictures.new("L", (2, 2), 100).save(tmp_path / "pictures" / name)
    table = Table.from_image_folder(tmp_path / "pictures")
    for workers in (0, 1):
        with pytest.raises(XaiError, match="the samples cannot be put into a batch"):
            collect_metrics(table, doubled, Counting(), run=run, dataloader_args={"num_workers": workers})
    table.map_collect_metrics(lambda sample: (torch.tensor(sample[0].getpixel((0, 0))), sample[1]))
    rows = collect_metrics(table, doubled, Counting(), run=run).tables["metrics"]
    assert rows.select(["sample_id", "doubled"]).to_pylist() == [
        {"sample_id": "a/1.png", "doubled": 200.0},
        {"sample_id": "b/2.png", "doubled": 200.0},
    ]


def test_progress_counts_samples(run: Run, table: Table) -> None:
    seen: list[tuple[int, int]] = []
    collect_metrics(
        table, doubled, Counting(), run=run, dataloader_args={"batch_size": 4}, progress=lambda *now: seen.append(now)
    )
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_rows_may_repeat_under_the_ids_of_the_batch(run: Run, table: Table) -> None:
    def twice(_batch: Any, output: PredictorOutput) -> dict[str, Any]:
        ids = [i for i in output.example_id for _ in range(2)]
        return {"example_id": ids, "copy": [0, 1] * len(output.example_id)}

    collected = collect_metrics(table, [doubled, twice], Counting(), run=run, dataloader_args={"batch_size": 3})
    assert collected.tables["metrics"].num_rows == N
    assert collected.tables["metrics-twice"]["example_id"].to_pylist() == [i for i in range(N) for _ in range(2)]


class Faulty:
    """A collector function that misbehaves in its second batch."""

    __name__ = "faulty"

    def __init__(self, fault: Any) -> None:
        self.fault = fault
        self.calls = 0

    def __call__(self, _batch: Any, output: PredictorOutput) -> Any:
        self.calls += 1
        good = {"value": [1.0] * len(output.forward)}
        return good if self.calls == 1 else self.fault(good, output)


def raising(_good: Any, _output: Any) -> Any:
    return 1 / 0


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (lambda _good, _output: {"value": [1.0]}, "column 'value' has 1 values where the batch has 4"),
        (lambda good, _output: good | {"more": good["value"]}, "column 'more' is new: the batches before had value"),
        (lambda good, _output: {"other": good["value"]}, "column 'other' is new"),
        (lambda _good, _output: {}, "column 'value' is missing"),
        (lambda _good, _output: {"value": [object()] * 4}, "column 'value' holds values that are no column: object"),
        (lambda _good, _output: {"value": ["a"] * 4}, "column 'value' is string where the batches before had double"),
        (lambda _good, _output: [1, 2], "it returned a list, not columns by name"),
        (lambda _good, _output: {"value": 1.0}, "column 'value' is a single float"),
        (lambda _good, _output: {"example_id": [99], "value": [1.0]}, "example_id 99 is not in the batch"),
        (raising, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_fault_names_collector_and_batch_and_the_others_are_kept(
    run: Run, table: Table, fault: Any, told: str
) -> None:
    model = Counting().train()
    faulty = Faulty(fault)
    with pytest.raises(CollectionError) as caught:
        collect_metrics(table, [faulty, doubled], model, run=run, dataloader_args={"batch_size": 4})
    assert "collector faulty failed in batch 1 (example_id 4 to 7): " + told in caught.value.message
    assert "kept from the other collectors: metrics" in caught.value.hint
    assert (faulty.calls, model.passes, model.training) == (2, [*ASKED, 4, 4, 2], True)
    frame = pl.read_parquet(run.layout.tables / "metrics" / "*.parquet")
    assert frame.columns == [*HEAD, "doubled"]
    assert frame["doubled"].to_list() == [2.0 * i for i in range(N)]
    assert caught.value.collected.tables["metrics"].num_rows == N
    assert scalars(run) == {"doubled": 9.0}


def test_two_collectors_of_one_column_are_told(run: Run, table: Table) -> None:
    with pytest.raises(CollectionError, match="column 'doubled' is already collected by doubled"):
        collect_metrics(table, [doubled, lambda _b, o: {"doubled": o.forward}], Counting(), run=run)


def test_integers_then_floats_and_nothing_but_nulls(run: Run, table: Table) -> None:
    def mixed(_batch: Any, output: PredictorOutput) -> dict[str, Any]:
        n, first = len(output.example_id), output.example_id[0] == 0
        return {"grows": [1] * n if first else [0.5] * n, "empty": [None] * n, "late": [None if first else 2.0] * n}

    rows = collect_metrics(table, mixed, Counting(), run=run, dataloader_args={"batch_size": 5}).tables["metrics"]
    assert rows["grows"].to_pylist() == [1.0] * 5 + [0.5] * 5
    assert rows["empty"].null_count == N
    assert rows["late"].to_pylist() == [None] * 5 + [2.0] * 5
    assert scalars(run) == {"grows": 0.75, "late": 2.0}


def test_means_leave_out_what_is_not_finite(run: Run, table: Table) -> None:
    values = [1.0, float("nan"), float("inf"), 3.0, None] * 2
    collect_metrics(table, lambda _b, _o: {"v": values, "ok": [True, False] * 5}, Counting(), run=run)
    assert scalars(run) == {"v": 2.0, "ok": 0.5}


def test_a_fault_of_the_model_names_the_batch_and_restores(run: Run, table: Table) -> None:
    class Breaking(Counting):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x[0] == 4:
                raise RuntimeError("broken")
            return super().forward(x)

    model = Breaking().train()
    state = torch.random.get_rng_state()
    with pytest.raises(RuntimeError, match="broken") as caught:
        collect_metrics(table, doubled, model, run=run, dataloader_args={"batch_size": 2})
    assert caught.value.__notes__ == ["while the model ran on batch 2 (example_id 4 to 5)"]
    assert model.training
    assert torch.is_grad_enabled()
    assert torch.equal(state, torch.random.get_rng_state())


def test_what_is_no_collector_is_told(run: Run, table: Table) -> None:
    with pytest.raises(UsageError, match="Difference is no metrics collector"):
        collect_metrics(table, Difference, Counting(), run=run)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no metrics collector given"):
        collect_metrics(table, [], Counting(), run=run)
    with pytest.raises(CollectionError, match="MetricsCollector does not override compute_metrics"):
        collect_metrics(table, MetricsCollector(), Counting(), run=run)


def test_preprocessing_and_silent_aggregates(run: Run, table: Table) -> None:
    collector = xaicli.FunctionalMetricsCollector(
        lambda batch, output: {"sum": batch + output},
        {"sum": xaicli.Int()},
        False,
        preprocess_fn=lambda batch, output: (batch[0].long(), output.forward.long()),
    )
    rows = collect_metrics(table, collector, Counting(), run=run).tables["metrics"]
    assert rows["sum"].to_pylist() == [3 * i for i in range(N)]
    assert list(run.layout.scalars.glob("*")) == []
    with pytest.raises(XaiError, match="two spellings"):
        xaicli.FunctionalMetricsCollector(doubled, {"a": xaicli.Int()}, schema={"a": xaicli.Int()})


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class Holder:
    def __init__(self, model: nn.Module) -> None:
        self.parts = {"model": model}

    def __call__(self, x: torch.Tensor) -> Any:
        return self.parts["model"](x)


@pytest.mark.parametrize(
    "made",
    [
        lambda model: lambda x: model(x),
        lambda model: model.forward,
        lambda model: Holder(model),
        lambda model: Holder(model).__call__,
        lambda model: functools.partial(Holder.__call__, Holder(model)),
        lambda model: Predictor(lambda x: model(x)),
    ],
)
def test_a_function_runs_the_modules_behind_it_in_evaluation_mode(run: Run, made: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    model, x, y = Normed().train(), torch.randn(6, 3), torch.tensor([0, 1, 1, 0, 1, 0])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    table = Table.from_arrays(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collected = collect_metrics(
            table, ClassificationMetricsCollector(), made(model), run=run, dataloader_args={"batch_size": 4}
        )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    expected = nn.functional.cross_entropy(copy.deepcopy(model).eval()(x), y, reduction="none")
    assert np.allclose(collected.tables["metrics"]["loss"].to_numpy(), expected.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: nn.functional.dropout(x, 0.5), "draws random numbers"),
        (lambda x: x - x.mean(0), "depends on the other samples"),
    ],
)
def test_a_function_that_does_not_answer_alike_is_told(run: Run, answer: Callable[..., Any], said: str) -> None:
    table = Table.from_arrays(torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2]))
    with pytest.warns(UserWarning, match=said):
        collected = collect_metrics(table, ClassificationMetricsCollector(task="classification"), answer, run=run)
    assert said in collected.doubts[0]


class TimeFirst(nn.Module):
    """A recurrent net as torch makes it: (steps, samples, classes), for samples of (steps, features)."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.head = nn.LSTM(5, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.net(x.transpose(0, 1))[0])
        return answer


@pytest.mark.parametrize("as_function", [False, True])
@pytest.mark.parametrize("task", [None, "token_classification"])
@pytest.mark.parametrize(("n", "batch"), [(8, 8), (16, 8), (1, 8), (12, 12)])
def test_answers_that_have_time_first_are_refused_also_where_a_batch_has_as_many_samples(
    run: Run, n: int, batch: int, task: str | None, as_function: bool
) -> None:
    """Of 8 steps and 8 samples each step's loss would stand in the row of a sample."""
    model = TimeFirst().eval()
    x, y = torch.randn(n, 8, 5), torch.randint(0, 4, (n, 8))
    table = Table.from_arrays(x, y)
    collector = ClassificationMetricsCollector(task=task)
    answer = model if not as_function else lambda x: model(x)
    refused = r"has the samples on axis 1, not on its first: its shape is \(8, N, 4\)"
    fits = as_function and n % 8  # a function is asked afterwards: what does not fit fails by then
    with pytest.raises(XaiError, match=None if fits else refused):
        collect_metrics(table, collector, answer, run=run, dataloader_args={"batch_size": batch})
    assert not list(run.layout.root.glob("tables/*/*.parquet"))
    turned = collect_metrics(
        table,
        collector,
        lambda x: model(x).transpose(0, 1),
        run=run,
        dataloader_args={"batch_size": batch},
    )
    own = nn.functional.cross_entropy(model(x).permute(1, 2, 0), y, reduction="none").mean(1)
    assert np.allclose(turned.tables["metrics"]["loss"].to_numpy(), own.detach().numpy(), atol=1e-5)


def test_embeddings_of_a_layer_that_has_time_first_are_refused(run: Run) -> None:
    model, x = TimeFirst().eval(), torch.randn(8, 8, 5)
    table = Table.from_arrays(x, torch.zeros(8, dtype=torch.long))
    with pytest.raises(XaiError, match="layer net gives has the samples on axis 1"):
        collect_metrics(table, EmbeddingsMetricsCollector(["net"]), model, run=run)
    own = EmbeddingsMetricsCollector(["net"], lambda found: found.mean(0))
    found = collect_metrics(table, own, model, run=run).tables["metrics"]["embeddings_net"].to_pylist()
    assert np.allclose(found, model.net(x.transpose(0, 1))[0].mean(0).detach(), atol=1e-5)


def test_samples_held_against_each_other_are_told(run: Run) -> None:
    class Pairs(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            made = super().forward(x)
            return made @ made.T

    with pytest.warns(UserWarning, match=r"shape \(N, N\) for N samples: each is held against the others"):
        collect_metrics(Table.from_arrays(torch.randn(6, 3), torch.arange(6)), first_column, Pairs(3, 4), run=run)


def first_column(_: Any, output: Any) -> dict[str, Any]:
    return {"first": output[:, 0]}


def test_a_function_that_gives_its_answers_in_order_is_asked_for_each_once_in_order(run: Run) -> None:
    logits = torch.randn(6, 3).split(2)
    answers = iter(logits)
    collected = collect_metrics(
        Table.from_arrays(torch.zeros(6, 3), torch.arange(6) % 3),
        ClassificationMetricsCollector(task="classification"),
        lambda _: next(answers),
        run=run,
        dataloader_args={"batch_size": 2},
    )
    assert collected.tables["metrics"]["predicted"].to_pylist() == torch.cat(logits).argmax(1).tolist()
    assert collected.doubts == ()


def clamped(layer: nn.Linear) -> None:
    layer.weight.data.clamp_(-0.05, 0.05)


def shrunk(layer: nn.Linear) -> None:
    layer.weight.data.mul_(0.9)


def bounded(layer: nn.Linear) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.renorm(layer.weight, 2, 0, 0.1))


@pytest.mark.parametrize("write", [clamped, shrunk, bounded])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("as_function", [False, True])
def test_weights_that_forward_writes_in_place_are_put_back(
    run: Run, write: Any, fails: bool, as_function: bool
) -> None:
    class Bounding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> Any:
            write(self.layer)
            if fails:
                raise ValueError("it fails")
            return self.layer(x)

    model = Bounding()
    before = model.layer.weight.detach().clone()
    given: Any = (lambda x: model(x)) if as_function else model
    table = Table.from_arrays(torch.randn(6, 3), torch.arange(6) % 3)
    with pytest.raises(ValueError, match="it fails") if fails else nullcontext():
        collect_metrics(table, ClassificationMetricsCollector(), given, run=run)
    assert torch.equal(model.layer.weight, before)
