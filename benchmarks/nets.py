"""The networks the saliency benchmark runs.

Speed does not depend on the weights: LeNet, ResNet-18 and -50 and ViT-Ti/16 have random ones, and batch norms get
statistics that keep activations in range. Fidelity does: three small nets are trained on digits.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class LeNet(nn.Sequential):
    """Two convolutions and three linear layers on 28 px digits (LeCun et al. 1998)."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 3),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(64 * 9, 64),
            nn.ReLU(inplace=True),
            nn.Linear(64, 10),
        )


class _Residual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        width = outside // 4 if bottleneck else outside
        kernels = [(1, 1), (3, stride), (1, 1)] if bottleneck else [(3, stride), (3, 1)]
        channels = [inside, width, width, outside] if bottleneck else [inside, width, outside]
        layers: list[nn.Module] = []
        for (kernel, step), a, b in zip(kernels, channels[:-1], channels[1:], strict=True):
            layers += [nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers[:-1])
        same = inside == outside and stride == 1
        short = [nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)]
        self.short = nn.Identity() if same else nn.Sequential(*short)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.short(x))


def resnet(depth: int) -> nn.Module:
    """ResNet-18 or -50 (He et al. 2015)."""
    bottleneck = depth == 50
    counts = [3, 4, 6, 3] if bottleneck else [2, 2, 2, 2]
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
    ]
    inside = 64
    for stage, count in enumerate(counts):
        outside = 64 * 2**stage * (4 if bottleneck else 1)
        for number in range(count):
            layers.append(_Residual(inside, outside, 2 if stage and not number else 1, bottleneck))
            inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 1000))


class ViT(nn.Module):
    """ViT-Ti/16 (Dosovitskiy et al. 2020; the tiny size is DeiT's)."""

    def __init__(
        self,
        width: int = 192,
        depth: int = 12,
        heads: int = 3,
        patch: int = 16,
        size: int = 224,
        channels: int = 3,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.places = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.ModuleList([_Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], dim=1) + self.places
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, 0]))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


def small_resnet() -> nn.Module:
    """Two residual blocks on 28 px digits."""
    first = [nn.Conv2d(1, 12, 3, 1, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    blocks = [_Residual(12, 12, 1, bottleneck=False), _Residual(12, 24, 2, bottleneck=False)]
    return nn.Sequential(*first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))


TRAINED: dict[str, Callable[[], nn.Module]] = {
    "lenet": LeNet,
    "resnet": small_resnet,
    "vit": lambda: ViT(32, 2, 4, 7, 28, channels=1, classes=10),
}
"""Nets of 28 px digits that are trained before they are explained."""


def trained(name: str, images: Tensor, labels: Tensor, *, seed: int, epochs: int = 8) -> nn.Module:
    """One of `TRAINED`, trained with Adam on (N, 1, 28, 28) digits."""
    torch.manual_seed(seed)
    model = TRAINED[name]().train()
    steps = epochs * -(-len(images) // 64)
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "lenet": (LeNet, (1, 28, 28)),
    "resnet18": (lambda: resnet(18), (3, 224, 224)),
    "resnet50": (lambda: resnet(50), (3, 224, 224)),
    "vit_ti": (ViT, (3, 224, 224)),
}
"""{name: (builder, shape of one input)}."""


def build(name: str) -> nn.Module:
    """A net in evaluation mode, the same weights every time."""
    torch.manual_seed(0)
    model = NETS[name][0]().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(2.0)  # type: ignore[union-attr]
    return model
