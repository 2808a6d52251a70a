"""What torch compiles of a training is compiled, and run, as without the callback."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

import xaicli
from tests.integrations.trainers import quiet_trainer, said_by_xai
from xaicli.integrations.capture import captured

N, EPOCHS = 16, 2
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
ROWS = [{"sample_id": 100 + i, "x": X[i].tolist(), "labels": int(Y[i])} for i in range(N)]


class Counting:
    """A backend that counts its graphs, and how often they ran."""

    def __init__(self) -> None:
        self.graphs = self.runs = 0

    def __call__(self, graph: Any, _inputs: Any) -> Callable[..., Any]:
        self.graphs += 1

        def run(*args: Any) -> Any:
            self.runs += 1
            return graph.forward(*args)

        return run


class Net(nn.Module):
    """A classifier with a compiled activation, or a compiled function of its last layer and the criterion."""

    def __init__(self, kind: str, counting: Counting) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 8), nn.Linear(4, 2)

        def gated(x: torch.Tensor) -> torch.Tensor:
            a, b = x.chunk(2, -1)
            return functional.silu(a) * b

        def judged(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = self.last(gated(x))
            return logits, functional.cross_entropy(logits, y)

        self.is_whole = kind == "activation"
        self.function = torch.compile(gated if self.is_whole else judged, backend=counting, fullgraph=True)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        if not self.is_whole:
            logits, loss = self.function(self.first(x), labels)
            return {"loss": loss, "logits": logits}
        logits = self.last(self.function(self.first(x)))
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def _by_transformers(kind: str, path: Path, callback: Any, counting: Counting) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="the transformers Trainer needs accelerate")
    arguments = transformers.TrainingArguments(
        output_dir=str(path / "out"), num_train_epochs=EPOCHS, per_device_train_batch_size=4, eval_strategy="epoch",
        per_device_eval_batch_size=4, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    model = Net(kind, counting)
    callbacks = [] if callback is None else [callback]
    transformers.Trainer(
        model=model, args=arguments, train_dataset=ROWS, eval_dataset=ROWS, callbacks=callbacks
    ).train()
    return model


def _by_lightning(kind: str, path: Path, callback: Any, counting: Counting) -> nn.Module:
    lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = Net(kind, counting)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            return self.net(torch.stack(batch["x"], 1).float(), batch["labels"])

        validation_step = training_step

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.3)

    model = Module()
    loader = DataLoader(ROWS, batch_size=4)  # type: ignore[arg-type]
    quiet_trainer([] if callback is None else callback, path, max_epochs=EPOCHS).fit(model, loader, loader)
    return model.net


def _callback(engine: str, run: Path) -> Any:
    module = pytest.importorskip(f"xaicli.integrations.{engine}")
    return module.XaiCallback(run, save_checkpoint=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["activation", "criterion"])
@pytest.mark.parametrize("engine", ["transformers", "lightning"])
def test_a_compiled_function_is_compiled_and_run_as_without_the_callback(
    engine: str, kind: str, tmp_path: Path
) -> None:
    train = _by_transformers if engine == "transformers" else _by_lightning
    found = []
    for callback in (None, _callback(engine, tmp_path / "run")):
        torch._dynamo.reset()
        counting = Counting()
        model = train(kind, tmp_path, callback, counting)
        found.append((counting.graphs, counting.runs, model))
    (graphs, runs, alone), (own_graphs, own_runs, recorded) = found
    assert graphs > 0
    assert (own_graphs, own_runs) == (graphs, runs)
    for name, value in alone.state_dict().items():
        assert torch.equal(value, recorded.state_dict()[name]), name
    with torch.no_grad():
        logits = recorded.last(functional.silu((h := recorded.first(X))[:, :4]) * h[:, 4:])
    rows = xaicli.open_run(tmp_path / "run").scan().collect()
    assert len(rows.filter(pl.col("mode") == "train")) == N * EPOCHS
    last = rows.filter((pl.col("mode") == "eval") & (pl.col("epoch") == EPOCHS)).sort("sample_id")
    expected = functional.cross_entropy(logits, Y, reduction="none")
    assert last["label"].to_list() == Y.tolist()
    assert last["loss"].to_list() == pytest.approx(expected.tolist(), abs=1e-5)


class Theirs(TorchFunctionMode):
    """A mode of the caller's, such as a default device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def test_a_criterion_beside_a_compiled_function_is_seen_and_modes_of_the_caller_stay() -> None:
    compiled = torch.compile(lambda x: functional.silu(x), backend="eager")
    own = torch._dynamo.eval_frame._maybe_set_eval_frame
    with captured(None, closely=True) as step:
        with Theirs() as theirs:
            answers = compiled(X)
            assert torch.overrides._get_current_function_mode_stack()[-1] is theirs
            loss = functional.cross_entropy(answers[:, :2], Y)
        functional.mse_loss(compiled(X), X)
    assert torch.overrides._get_current_function_mode_stack() == []
    assert torch.utils._python_dispatch._get_current_dispatch_mode_stack() == []
    assert torch._dynamo.eval_frame._maybe_set_eval_frame is own
    assert [one.by for one in step.judged] == [functional.cross_entropy, functional.mse_loss]
    assert step.ran_compiled
    assert step.judged[0].loss is not None
    assert torch.equal(step.judged[0].loss, loss)


def test_a_compiled_function_that_fails_leaves_the_step_watched() -> None:
    def fails(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(f"on purpose, of {len(x)}")

    compiled = torch.compile(fails, backend="eager")
    with captured(None, closely=True) as step:
        with pytest.raises(RuntimeError, match="on purpose"):
            compiled(X)
        functional.mse_loss(X, X)
    assert [one.by for one in step.judged] == [functional.mse_loss]
    assert torch.overrides._get_current_function_mode_stack() == []


class Numbers(nn.Module):
    """Answers with one number a sample; with labels also with the squared error."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        answers = self.net(x)[:, 0]
        loss = {} if labels is None else {"loss": functional.mse_loss(answers, labels)}
        return {**loss, "logits": answers}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_outside", [True, False])
def test_a_criterion_outside_of_a_model_that_the_trainer_compiles_is_read_and_one_inside_said_not_to_be(
    is_outside: bool, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="the transformers Trainer needs accelerate")

    class Outside(transformers.Trainer):  # type: ignore[misc, name-defined]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = functional.mse_loss(outputs["logits"], labels)
            return (loss, outputs) if return_outputs else loss

    model = Numbers()
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), num_train_epochs=1, per_device_train_batch_size=4, eval_strategy="epoch",
        save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, torch_compile=True,
        torch_compile_backend="eager",
    )  # fmt: skip
    data = [{**row, "labels": float(row["labels"])} for row in ROWS]
    trainer = (Outside if is_outside else transformers.Trainer)(
        model=model, args=arguments, train_dataset=data, eval_dataset=data,
        callbacks=[_callback("transformers", tmp_path / "run")],
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    assert any("which criterion" in text for text in said_by_xai(caught)) is not is_outside
    got = xaicli.open_run(tmp_path / "run").scan(mode="eval").collect().sort("sample_id")
    assert len(got) == N
    if is_outside:
        with torch.no_grad():
            answers = model(X)["logits"]
        assert got["prediction"].to_list() == pytest.approx(answers.tolist(), abs=1e-5)
        assert got["loss"].to_list() == pytest.approx(((answers - Y) ** 2).tolist(), abs=1e-5)
