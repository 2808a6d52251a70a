"""Small models whose gradients are known or easy to compute otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def conv_net(classes: int = 5, size: int = 8, seed: int = 0) -> nn.Module:
    """Convolutions, batch norm with real statistics, in-place ReLU, dropout."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(8 * (size // 2) ** 2, classes),
    )
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 2, size, size))
    return model.eval()


def smooth_net(inputs: int = 6, classes: int = 3, seed: int = 0) -> nn.Module:
    """A net with continuous second derivatives."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 12), nn.Tanh(), nn.Linear(12, classes))


class Calling(nn.Module):
    """A model made of a function of its inputs, with one linear layer to keep it trainable."""

    def __init__(self, function: Callable[..., Any], inputs: int = 4, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(inputs, outputs)
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self.linear, *inputs)
