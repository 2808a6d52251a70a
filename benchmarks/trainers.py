"""What the callbacks cost a training step, beside the same trainer without one, on the CPU.

    python benchmarks/trainers.py                 # a table; libraries that are not installed are left out

Every line trains the same model on the same batches without the callback and with it, in turns, some fits each. Timed
is the processor's time of a whole step of the trainer, from the end of one to the end of the next, the recorder's own
thread included: the loader, forward, backward, optimizer and what the trainer itself does between them are in both. The
ratio is that of the medians over all steps of all fits but the first ones of each, in which a step is watched closely.
How many operations of torch a step calls is told beside, as each is looked at while it is watched: those of a Lightning
step, and of a compute_loss of the caller's.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from nets import resnet
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

BATCH = 32
FIRST = 5
"""Steps of a fit that are left out."""
WORDS, LENGTH = 1000, 32

Fit = Callable[[list[Any]], list[float]]
"""Trains with these callbacks, and gives the seconds of each step."""


class Operations(TorchFunctionMode):
    """Counts the operations that are called while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += 1
        return func(*args, **(kwargs or {}))


def mlp() -> nn.Module:
    """A network so small that the trainer itself is most of the step."""
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def bert() -> Any:
    """A BERT of four layers, 128 wide, that classifies texts."""
    transformers = import_module("transformers")
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        num_labels=10,
    )
    return transformers.BertForSequenceClassification(config)


def pictures(n: int) -> list[tuple[int, torch.Tensor, int]]:
    """Pictures of 32 px."""
    return [(i, x, i % 10) for i, x in enumerate(torch.randn(n, 3, 32, 32))]


def rows(n: int) -> list[tuple[int, torch.Tensor, int]]:
    """Rows of 32 numbers."""
    return [(i, x, i % 10) for i, x in enumerate(torch.randn(n, 32))]


def texts(n: int) -> list[dict[str, Any]]:
    """Texts of one length, as their tokens."""
    ids = torch.randint(0, WORDS, (n, LENGTH))
    mask = torch.ones(LENGTH, dtype=torch.long)
    return [{"sample_id": i, "input_ids": one, "attention_mask": mask, "labels": i % 10} for i, one in enumerate(ids)]


def of_tuple(net: Any, batch: Any) -> torch.Tensor:
    """The loss of (id, input, label)."""
    return functional.cross_entropy(net(batch[1]), batch[2])


def of_texts(net: Any, batch: Any) -> torch.Tensor:
    """The loss of texts, whose logits are the step's."""
    logits = net(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return functional.cross_entropy(logits, batch["labels"])


class Times:
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    @property
    def steps(self) -> list[float]:
        """The seconds of each step but the first ones."""
        pairs = zip(self.ends[:-1], self.ends[1:], strict=True)
        return [end - begin for begin, end in pairs][FIRST:]


def by_lightning(net: nn.Module, data: Any, loss: Callable[[Any, Any], torch.Tensor], folder: Path) -> Fit:
    """Trains by a Lightning module that has the network for a part."""
    lightning = import_module("lightning.pytorch")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            del batch_idx
            return loss(self.net, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    class Ends(lightning.Callback):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.times = Times()

        def on_train_batch_end(self, *_args: Any) -> None:
            self.times.ends.append(time.process_time())

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}

    def fit(callbacks: list[Any]) -> list[float]:
        ends = Ends()
        options = {"enable_checkpointing": False, "default_root_dir": folder, "max_epochs": 1, "accelerator": "cpu"}
        trainer = lightning.Trainer(callbacks=[*callbacks, ends], **options, **quiet)
        trainer.fit(Module(), DataLoader(data, batch_size=BATCH, drop_last=True))
        return ends.times.steps

    return fit


def by_transformers(net: Any, data: Any, loss: Callable[[Any, Any], torch.Tensor] | None, folder: Path) -> Fit:
    """Trains by the transformers Trainer, by its own loss or by one of the caller's."""
    transformers = import_module("transformers")
    transformers.logging.set_verbosity_error()

    class Own(transformers.Trainer):  # type: ignore[misc, name-defined]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_others: Any) -> Any:
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            value = functional.cross_entropy(outputs.logits, labels)
            return (value, outputs) if return_outputs else value

    class Ends(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.times = Times()

        def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
            self.times.ends.append(time.process_time())

    def fit(callbacks: list[Any]) -> list[float]:
        ends = Ends()
        arguments = transformers.TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            dataloader_drop_last=True,
        )
        kind = transformers.Trainer if loss is None else Own
        trainer = kind(model=net, args=arguments, train_dataset=data, callbacks=[*callbacks, ends])
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        return ends.times.steps

    return fit


@contextmanager
def quietly() -> Iterator[None]:
    """Without what the callbacks say once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger = logging.getLogger("xaicli.integrations")
        level, handler = logger.level, logging.NullHandler()
        logger.addHandler(handler)
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)


def compared(fit: Fit, callback: Callable[[], list[Any]], fits: int) -> tuple[list[float], list[float]]:
    """The steps without the callback and with it, in turns."""
    bare: list[float] = []
    recorded: list[float] = []
    fit([])
    for _ in range(fits):
        bare += fit([])
        recorded += fit(callback())
    return bare, recorded


def lines(folder: Path, scale: int) -> Iterator[tuple[str, str, Fit, int]]:
    """Each line: what it is called, the callback's module, how it trains, and how many operations are looked at."""
    torch.manual_seed(0)
    few = BATCH * max(3 * scale, FIRST + 2)  # of the shortest fit some steps are left
    kinds: Sequence[tuple[str, Any, Any, Any]] = (
        ("small MLP", mlp(), rows(BATCH * 20 * scale), of_tuple),
        ("ResNet-18, 32 px", resnet(18), pictures(few), of_tuple),
    )
    if find_spec("lightning"):
        for name, net, data, loss in kinds:
            yield f"Lightning, {name}", "lightning", by_lightning(net, data, loss, folder), operations(net, data, loss)
    if find_spec("transformers"):
        net, data = bert(), texts(few)
        n = operations(net, data, of_texts)
        if find_spec("lightning"):
            yield "Lightning, small BERT", "lightning", by_lightning(net, data, of_texts, folder), n
        yield "transformers, small BERT", "transformers", by_transformers(net, data, None, folder), 0
        yield "transformers, the same, own loss", "transformers", by_transformers(net, data, of_texts, folder), n


def operations(net: Any, data: Any, loss: Callable[[Any, Any], torch.Tensor]) -> int:
    """How many operations a step calls."""
    with Operations() as seen:
        loss(net, next(iter(DataLoader(data, batch_size=BATCH))))
    return seen.n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=7, help="fits without and with, each")
    parser.add_argument("--scale", type=int, default=5, help="how long each fit is")
    parser.add_argument("--only", help="lines with this in their name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'one step':36} {'operations':>10} {'bare ms':>9} {'with ms':>9} {'added ms':>9} {'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder, quietly():
        for name, module, fit, n in lines(Path(folder), options.scale):
            if options.only and options.only not in name:
                continue
            own = import_module(f"xaicli.integrations.{module}")
            number = iter(range(10**6))

            def callback(own: Any = own, name: str = name, number: Iterator[int] = number) -> list[Any]:
                return [own.XaiCallback(Path(folder) / f"{name}-{next(number)}", save_checkpoint=False)]

            bare, recorded = (statistics.median(one) * 1e3 for one in compared(fit, callback, options.fits))
            print(
                f"{name:36} {n:10} {bare:9.3f} {recorded:9.3f} {recorded - bare:9.3f} {recorded / bare:7.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
