"""A small training on real digits with some labels flipped on purpose: what `xai demo` records.

It is also the shortest complete example of the recorder in a training loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xaicli.errors import missing_extra
from xaicli.recorder.run import Run
from xaicli.words import percent

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

LABEL_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
EPOCHS = 12
_BATCH = 64
_INK = 16.0
_EVAL_EVERY = 5
"""Every fifth digit is held out for the eval pass."""


@dataclass(frozen=True)
class Digits:
    """Digits with the labels a model is to be trained on.

    Attributes:
        sample_id: (N,) int64.
        images: (N, 1, 8, 8) float32 in [0, 1].
        label: (N,) int64, some of them flipped.
        true_label: (N,) int64.
    """

    sample_id: NDArray[np.int64]
    images: NDArray[np.float32]
    label: NDArray[np.int64]
    true_label: NDArray[np.int64]

    @property
    def flipped(self) -> NDArray[np.bool_]:
        """(N,), true where the label is wrong on purpose."""
        return np.not_equal(self.label, self.true_label)

    def part(self, chosen: NDArray[np.bool_]) -> Digits:
        """The digits where `chosen`, (N,), is true."""
        return Digits(self.sample_id[chosen], self.images[chosen], self.label[chosen], self.true_label[chosen])


def digits_file() -> Path:
    """Where the digits are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    return next(
        path
        for path in (package / "sample_data" / "digits.parquet", package.parent / "sample_data" / "digits.parquet")
        if path.is_file()
    )


def load_digits(*, flip: float = 0.05, seed: int = 0) -> Digits:
    """The 1,797 digits with a share of their labels flipped to another class.

    Args:
        flip: The share of labels to flip, in [0, 1].
        seed: Which labels, and to what.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(digits_file())
    true_label = table["label"].to_numpy().astype(np.int64)
    pixels = table["pixels"].combine_chunks().flatten().to_numpy()
    draw = np.random.default_rng(seed)
    wrong = draw.choice(len(true_label), round(flip * len(true_label)), replace=False)
    label = true_label.copy()
    label[wrong] = (label[wrong] + draw.integers(1, len(LABEL_NAMES), len(wrong))) % len(LABEL_NAMES)
    images = (pixels.reshape(-1, 1, 8, 8) / _INK).astype(np.float32)
    return Digits(table["sample_id"].to_numpy().astype(np.int64), images, label, true_label)


def build_model() -> torch.nn.Module:
    """A convolutional net of 10,000 parameters: (batch, 1, 8, 8) to (batch, 10) logits."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(32 * 4 * 4, len(LABEL_NAMES)),
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread: products of so small nets end sooner than other threads wake, which cost ten times as much.

    Raises:
        XaiError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise missing_extra("training the demo", "saliency") from error
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def record(
    run_dir: str | Path,
    *,
    epochs: int = EPOCHS,
    flip: float = 0.05,
    seed: int = 0,
    on_epoch: Callable[[int, int], None] | None = None,
) -> Digits:
    """Train on the digits and record every sample of every pass.

    Args:
        run_dir: The run directory to write.
        epochs: How many passes over the training digits.
        flip: The share of labels flipped on purpose, in [0, 1].
        seed: For the flips, the weights and the order of the samples.
        on_epoch: Called with (epochs done, epochs) after each epoch.

    Returns:
        All digits, with the labels trained on and the true ones.

    Raises:
        XaiError: torch is not installed.
    """
    import torch
    from torch.nn import functional

    torch.manual_seed(seed)
    digits = load_digits(flip=flip, seed=seed)
    held_out = digits.sample_id % _EVAL_EVERY == 0
    train, evaluation = digits.part(~held_out), digits.part(held_out)
    model = build_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    n_flipped = f"{digits.flipped.sum()} of {len(digits.label):,}"
    note = f"{n_flipped} labels ({percent(flip)}) were flipped on purpose (seed {seed})"
    config = {"notes": note, "lr": 3e-3, "batch_size": _BATCH, "epochs": epochs, "flip": flip, "seed": seed}
    with Run(
        run_dir, config=config, total_epochs=epochs, label_names=LABEL_NAMES, keep_probs=True, resume="never"
    ) as run:
        run.log_images(digits.sample_id, ((1 - digits.images) * 255).astype(np.uint8))
        run.log_inputs(evaluation.sample_id, evaluation.images, label=evaluation.label)
        for epoch in run.epochs(epochs):
            model.train()
            losses = []
            for ids, x, y in run.steps(_batches(train, seed + epoch), mode="train"):
                logits = model(x)
                loss = functional.cross_entropy(logits, y, reduction="none")
                run.log_samples(sample_id=ids, label=y, logits=logits, loss=loss)
                optimizer.zero_grad()
                loss.mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.detach())
            run.log({"epoch": epoch, "train_loss": torch.cat(losses).mean()})
            model.eval()
            with torch.no_grad():
                for ids, x, y in run.steps(_batches(evaluation), mode="eval"):
                    run.log_samples(sample_id=ids, label=y, logits=model(x))
            if on_epoch:
                on_epoch(epoch, epochs)
        run.save_checkpoint(
            model, example_inputs=torch.from_numpy(evaluation.images[:2]), label_names=LABEL_NAMES, input_range=(0, 1)
        )
    return digits


def _batches(digits: Digits, seed: int | None = None) -> Iterator[tuple[NDArray[np.int64], torch.Tensor, torch.Tensor]]:
    import torch

    order = np.arange(len(digits.label)) if seed is None else np.random.default_rng(seed).permutation(len(digits.label))
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        yield digits.sample_id[batch], torch.from_numpy(digits.images[batch]), torch.from_numpy(digits.label[batch])
