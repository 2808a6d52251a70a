"""Models and checkpoints that the tests of this folder share: an export takes a second, so each is made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from xaicli.checkpoint.save import save_checkpoint

torch.set_num_threads(1)


class Digits(nn.Module):
    """A small net with what real ones have: convolution, BatchNorm, an in-place ReLU, dropout."""

    def __init__(self, n_labels: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 16, n_labels))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(image))


def gradient(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """d (sum of the first output) / d input."""
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    return found


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's memory of known graphs is neither read nor written."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def model() -> Digits:
    """A trained-looking model: moved weights, moved statistics, in evaluation mode."""
    torch.manual_seed(0)
    made = Digits().train()
    with torch.no_grad():
        made(torch.randn(32, 1, 6, 6) * 2 + 1)
    return made.eval()


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def ckpt(tmp_path_factory: pytest.TempPathFactory, model: Digits, images: torch.Tensor) -> Path:
    """The shim's checkpoint of the model."""
    return save_checkpoint(
        model,
        tmp_path_factory.mktemp("saved") / "ckpt.pt",
        example_inputs=images[:2],
        label_names=["cat", "dog", "hen", "owl"],
        input_range=(-1, 2),
        mean=[0.5],
        std=[0.25],
        arch="zoo:digits",
        epoch=3,
        step=120,
    )


@pytest.fixture(scope="session")
def pt2(tmp_path_factory: pytest.TempPathFactory, model: Digits, images: torch.Tensor) -> Path:
    """The model as torch's own export writes it, sample inputs and stack traces included."""
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    axes = ({0: torch.export.Dim("batch", min=1)},)
    torch.export.save(torch.export.export(model, (images[:2],), dynamic_shapes=axes), path)
    return path


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file that every payload makes; after the test it must not be there."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code of the checkpoint ran"


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs count as checked in a child already, which takes seconds; test_child.py is about that."""
    monkeypatch.setattr("xaicli.checkpoint.load.check_in_child", lambda *_: None)


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A folder with the user's own module `zoo`."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "zoo.py").write_text(
        "from torch import nn\n"
        "class Digits(nn.Module):\n"
        "    def __init__(self, n_labels=4):\n"
        "        super().__init__()\n"
        "        self.features = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True))\n"
        "        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 16, n_labels))\n"
        "    def forward(self, image):\n"
        "        return self.head(self.features(image))\n"
        "def digits(n_labels=4):\n"
        "    return Digits(n_labels)\n"
        "class Quiet(Digits):\n"
        "    def train(self, mode=True):\n"
        "        super().train(mode)  # and returns nothing, as many do\n"
        "number = 7\n"
    )
    return folder
