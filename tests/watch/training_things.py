"""A training that is watched: records epochs, slowly, until it is told to end or killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import xaicli

N, BATCH = 200, 50


def loss_of(i: int, epoch: int) -> float:
    """The last samples are the worst, and label 3 falls behind."""
    return (1.0 + i / N) / epoch + (epoch if i % 4 == 3 else 0)


def train(path: str, epochs: int, pause: float, go_on: str = "") -> None:
    """Record so many epochs; then wait for a file before ending."""
    with xaicli.Run(path, total_epochs=epochs, label_names=["a", "b", "c", "d"]) as run:
        for epoch in run.epochs(epochs):
            for mode in ("train", "eval"):
                batches = [list(range(start, start + BATCH)) for start in range(0, N, BATCH)]
                for ids in run.steps(batches, mode=mode):
                    run.log_samples(
                        sample_id=ids,
                        label=[i % 4 for i in ids],
                        prediction=[0 for _ in ids],
                        loss=[loss_of(i, epoch) for i in ids],
                    )
                    time.sleep(pause)
        while go_on and not Path(go_on).exists():
            time.sleep(0.05)


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:])
