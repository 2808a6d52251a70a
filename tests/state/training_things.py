"""A small training to save, resume and compare."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from xaicli.state import TrainingState

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01)),
    "rmsprop": lambda p: torch.optim.RMSprop(p, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "adamax": lambda p: torch.optim.Adamax(p),
    "adafactor": lambda p: torch.optim.Adafactor(p),
}

SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "step": lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
    "one_cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=50),
    "warm_restarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "lambda": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "sequential": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o, [torch.optim.lr_scheduler.ConstantLR(o, 0.1), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
}


class Training:
    """A model with everything that a training carries from step to step."""

    def __init__(
        self, optimizer: str = "adam", scheduler: str = "step", *, seed: int = 0, total_epochs: int = 3
    ) -> None:
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 2)
        )
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.scheduler = SCHEDULERS[scheduler](self.optimizer)
        self.generator = np.random.default_rng(seed)
        self.losses: list[float] = []
        self.state = TrainingState(total_epochs=total_epochs)
        self.state.reset(f"training {seed}")

    @property
    def belongings(self) -> dict[str, Any]:
        return {
            "models": {"net": self.model},
            "optimizers": {"opt": self.optimizer},
            "objects": {"scheduler": self.scheduler, "noise": self.generator, "losses": self.losses},
        }

    def train(self, steps: int) -> None:
        for _ in range(steps):
            x = torch.rand(6, 4) + random.random() + float(np.random.rand()) + float(self.generator.random())
            loss = (self.model(x) ** 2).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self.losses.append(loss.item())
            self.state.update_global_step()
            self.state.write_summary("loss", loss)

    def everything(self) -> Any:
        """All that a save must keep and a failed load must leave alone, comparable with `same`."""
        state = {
            name: value for name, value in vars(self.state).items() if not name.startswith("_") and name != "summary"
        }
        return (
            {name: value.clone() for name, value in self.model.state_dict().items()},
            self.optimizer.state_dict(),
            self.scheduler.state_dict(),
            self.generator.bit_generator.state,
            list(self.losses),
            {**state, "custom_graphs": {k: list(v) for k, v in self.state.custom_graphs.items()}},
            self.state.summary.to_json(),
            random.getstate(),
            np.random.get_state(),
            torch.get_rng_state(),
        )


def same(one: Any, two: Any) -> bool:
    """Deep equality that knows tensors and arrays."""
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, np.ndarray):
        return isinstance(two, np.ndarray) and one.dtype == two.dtype and np.array_equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return type(one) is type(two) and (one == two or (one != one and two != two))
