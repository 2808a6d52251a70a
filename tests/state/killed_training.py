"""A training to be killed: `python killed_training.py` forks one for each line `RUN_DIR STYLE SECONDS` it reads.

It loads torch once; each training is a process of its own that kills itself with SIGKILL SECONDS after it has
resumed (0: never). The answer is a line with the exit status.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch

from xaicli import Run

EPOCHS, STEPS, BATCH = 3, 8, 5
TRAIN_IDS, EVAL_IDS = range(STEPS * BATCH), range(1000, 1012)


class Training:
    """The same numbers every time: dropout, shuffling and noise come from generators that the state keeps."""

    def __init__(self, run: Run) -> None:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        self.run = run
        self.inputs = torch.randn(2000, 6)
        self.labels = self.inputs.sum(1).gt(0).long()
        self.model = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Dropout(0.3), torch.nn.Linear(16, 2))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 7, 0.7)
        self.order: list[int] = []

    @property
    def belongings(self) -> dict[str, dict[str, object]]:
        return {
            "models": {"net": self.model},
            "optimizers": {"adam": self.optimizer},
            "objects": {"scheduler": self.scheduler, "order": self.order},
        }

    def save(self) -> None:
        self.run.state.save_state(**self.belongings)

    def resume(self) -> None:
        try:
            self.run.state.load_state(**self.belongings)
        except FileNotFoundError:
            self.run.state.reset("killed")

    def shuffle(self) -> None:
        self.order[:] = random.sample(TRAIN_IDS, len(TRAIN_IDS))

    def learn(self, ids: list[int]) -> None:
        x = self.inputs[ids] + 0.01 * float(np.random.rand()) * torch.randn(len(ids), 6)
        logits = self.model.train()(x)
        loss = torch.nn.functional.cross_entropy(logits, self.labels[ids], reduction="none")
        self.run.log_samples(sample_id=ids, label=self.labels[ids], logits=logits, loss=loss)
        self.optimizer.zero_grad()
        loss.mean().backward()
        self.optimizer.step()
        self.scheduler.step()
        self.run.state.write_summary("loss", loss.mean())
        self.run.log({"step": self.run.state.global_step, "lr": self.scheduler.get_last_lr()[0]})

    @torch.no_grad()
    def judge(self, ids: list[int]) -> None:
        logits = self.model.eval()(self.inputs[ids])
        self.run.log_samples(sample_id=ids, label=self.labels[ids], logits=logits)

    def by_epochs(self) -> None:
        """Saved at the end of each epoch, with the run's own loops."""
        for epoch in self.run.epochs(EPOCHS):
            self.shuffle()
            for number in self.run.steps(range(STEPS)):
                self.learn(self.order[number * BATCH : (number + 1) * BATCH])
                time.sleep(0.005)
            for ids in self.run.steps(torch.tensor(EVAL_IDS).split(BATCH), mode="eval"):
                self.judge(ids.tolist())
            self.run.log({"epoch": epoch, "epochs_done": epoch})
            self.save()

    def by_batches(self) -> None:
        """Saved every third batch, in the middle of epochs, with the run's own loops over a shuffling loader."""
        loader = torch.utils.data.DataLoader(TRAIN_IDS, batch_size=BATCH, shuffle=True)  # type: ignore[arg-type]
        for epoch in self.run.epochs(EPOCHS):
            for ids in self.run.steps(loader):
                self.learn(ids.tolist())
                time.sleep(0.005)
                if (self.run.state.batch_idx or 0) % 3 == 0:
                    self.save()
            for ids in self.run.steps(torch.tensor(EVAL_IDS).split(BATCH), mode="eval"):
                self.judge(ids.tolist())
            self.run.log({"epoch": epoch, "epochs_done": epoch})

    def by_steps(self) -> None:
        """Saved every third step, in the middle of epochs, with a loop of the user's own."""
        state = self.run.state
        while state.epoch_idx < EPOCHS or (state.batch_idx or 0) < STEPS:
            if state.batch_idx in (None, STEPS):
                state.epoch_idx += 1
                state.batch_idx = 0
                self.shuffle()
            state.mode = "train"
            number = state.batch_idx
            state.update_batch_idx()
            state.update_global_step()
            self.learn(self.order[number * BATCH : (number + 1) * BATCH])
            time.sleep(0.005)
            if state.batch_idx % 3 == 0:
                self.save()
            if state.batch_idx == STEPS:
                state.mode = "eval"
                self.judge(list(EVAL_IDS))


def train(run_dir: str, style: str, seconds: float) -> None:
    with Run(run_dir, name="killed", strict=True) as run:
        training = Training(run)
        training.resume()
        if seconds:
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        getattr(training, f"by_{style}")()
        torch.save(training.model.state_dict(), Path(run_dir) / "weights.pt")
        run.close()
    os._exit(0)


def main() -> None:
    torch.set_num_threads(1)
    # The first step of an optimizer loads a good part of torch: here once, not in every training.
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.sum().backward()
    torch.optim.Adam([weight]).step()
    for line in sys.stdin:
        run_dir, style, seconds = line.split()
        child = os.fork()
        if child == 0:
            train(run_dir, style, float(seconds))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
