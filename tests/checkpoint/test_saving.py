"""What the shim writes: loadable without code, complete or absent, and the caller's model as it was."""

from __future__ import annotations

import random
import threading
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import xaicli
from tests.checkpoint import hostile
from tests.checkpoint.conftest import Digits, gradient
from xaicli.checkpoint.load import load_checkpoint
from xaicli.checkpoint.save import save_checkpoint


class Branching(nn.Module):
    """What torch cannot export: the path depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight if x.sum() > 0 else -x


class Pair(nn.Module):
    """Two inputs, two named outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 2), nn.Linear(4, 2)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": self.left(a) + self.right(b), "left": self.left(a)}


class Named(nn.Module):
    """Parameters whose names are no identifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.ParameterDict({"a-b": nn.Parameter(torch.ones(3)), "c d": nn.Parameter(torch.ones(3))})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale["a-b"] * self.scale["c d"]


class Attention(nn.Module):
    """What transformers are made of, on several positions."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x).mean(1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cells(x)[0][:, -1]


class Mixed(nn.Module):
    """Constants, a passage without gradient, autocast, a complex transform, an index."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            offset = self.linear(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.linear(x)
        mask = torch.ones(x.shape[0], 3, dtype=torch.bool)
        mixed = torch.einsum("...i,ij->...j", x.float() + offset, torch.tensor([[1.0, 2.0, 3.0]] * 3))
        return torch.where(mask, torch.fft.fft(mixed).abs(), torch.full_like(mixed, float("-inf")))


class Counting(nn.Module):
    """A number that depends on the values, with what torch asserts about it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n_positive = (x > 0).sum().item()
        torch._check(n_positive >= 0)
        return x * n_positive


class Fixed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(4, -1) * 2


def test_any_torch_can_read_it_weights_only(ckpt: Path, model: Digits) -> None:
    content = torch.load(ckpt, weights_only=True)
    assert content["format"] == "xai-checkpoint"
    assert content["version"] == 1
    assert content["label_names"] == ["cat", "dog", "hen", "owl"]
    assert (content["epoch"], content["step"], content["arch"]) == (3, 120, "zoo:digits")
    assert content["inputs"] == [{"name": "image", "shape": [1, 6, 6], "dtype": "float32"}]
    assert content["state_dict"].keys() == model.state_dict().keys()


def test_the_graph_inside_holds_neither_samples_nor_source(ckpt: Path) -> None:
    graph = bytes(torch.load(ckpt, weights_only=True)["graph"].numpy())
    members = hostile.members_of(graph)
    assert members[hostile.SAMPLES] == b""
    assert b"stack_trace" not in members[hostile.GRAPH]
    assert b"conftest" not in graph


def test_the_callers_model_is_not_changed(tmp_path: Path, images: torch.Tensor) -> None:
    model = Digits().train()
    model.head.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    identities = [id(parameter) for parameter in model.parameters()]
    state = torch.get_rng_state()
    save_checkpoint(model, tmp_path / "ckpt.pt", example_inputs=images[:2])
    assert [module.training for module in model.modules()] == modes
    assert [id(parameter) for parameter in model.parameters()] == identities
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_forward_that_draws_leaves_the_trainings_random_numbers(tmp_path: Path) -> None:
    class Drawing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.drawn = random.random(), float(np.random.rand())
            return x * self.scale

    random.seed(1), np.random.seed(1)
    expected = random.random(), float(np.random.rand())
    random.seed(1), np.random.seed(1)
    save_checkpoint(Drawing(), tmp_path / "ckpt.pt", example_inputs=torch.ones(2, 3))
    assert (random.random(), float(np.random.rand())) == expected


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_one_example_is_enough_for_any_batch(batch: int, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        save_checkpoint(model, tmp_path / "ckpt.pt", example_inputs=torch.randn(1, 3))
    loaded = load_checkpoint(tmp_path / "ckpt.pt")
    x = torch.randn(batch, 3)
    assert loaded.facts.static_batch is None
    torch.testing.assert_close(gradient(loaded.model, x), gradient(model, x))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Named(), (3,)),
        (Attention(), (4, 8)),
        (Recurrent(), (5, 3)),
        (Mixed(), (3,)),
        (Counting(), (3,)),
        (nn.Sequential(nn.Conv1d(2, 3, 3, padding="same"), nn.MaxPool1d(2), nn.GELU("tanh"), nn.Flatten()), (2, 8)),
    ],
    ids=["names", "attention", "recurrent", "mixed", "counting", "signal"],
)
def test_real_architectures_pass_the_inspection(model: nn.Module, shape: tuple[int, ...], tmp_path: Path) -> None:
    model = model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        save_checkpoint(model, tmp_path / "ckpt.pt", example_inputs=torch.randn(2, *shape))
    x = torch.randn(3, *shape)
    loaded = load_checkpoint(tmp_path / "ckpt.pt").model
    torch.testing.assert_close(gradient(loaded, x), gradient(model, x), rtol=1e-3, atol=1e-4)


def test_several_inputs_by_name_and_several_outputs(tmp_path: Path) -> None:
    model = Pair()
    a, b = torch.randn(2, 3), torch.randn(2, 4)
    save_checkpoint(model, tmp_path / "ckpt.pt", example_inputs={"b": b, "a": a})
    loaded = load_checkpoint(tmp_path / "ckpt.pt")
    assert loaded.facts.input_names == ("a", "b")
    assert loaded.facts.input_shapes == ((3,), (4,))
    for name, value in model(a, b).items():
        torch.testing.assert_close(loaded.model(a, b)[name], value)


def test_a_model_torch_cannot_export_is_saved_without_a_graph(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="holds no graph, because torch could not export") as caught:
        path = save_checkpoint(Branching(), tmp_path / "ckpt.pt", example_inputs=torch.ones(2, 3))
    assert caught[0].filename == __file__
    content = torch.load(path, weights_only=True)
    assert content["graph"] is None
    assert content["graph_error"].startswith("its forward goes another way")
    assert torch.equal(content["state_dict"]["weight"], torch.ones(3))


def test_without_examples_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no example_inputs were given"):
        save_checkpoint(nn.Linear(2, 2), tmp_path / "ckpt.pt")


def test_a_model_of_one_batch_size_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="one batch size only.*its forward fixes the size of the batch"):
        save_checkpoint(Fixed(), tmp_path / "ckpt.pt", example_inputs=torch.randn(4, 3))
    assert load_checkpoint(tmp_path / "ckpt.pt").facts.static_batch == 4


@pytest.mark.parametrize("given", [[1, 2], {"nothing": torch.zeros(1, 2)}])
def test_examples_of_another_kind_are_named_and_the_weights_saved(given: Any, tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    with pytest.warns(UserWarning, match=r"no graph, because (example_inputs holds|forward takes no 'nothing')"):
        path = save_checkpoint(model, tmp_path / "ckpt.pt", example_inputs=given)
    assert torch.equal(torch.load(path, weights_only=True)["state_dict"]["weight"], model.weight)


class Optional(nn.Module):
    """Arguments that may be left out, between those that are given."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(
        self, x: torch.Tensor, cache: Any = None, mask: torch.Tensor | None = None, *, twice: bool = False
    ) -> torch.Tensor:
        assert cache is None
        y = self.linear(x if mask is None else x * mask)
        return 2 * y if twice else y


@pytest.mark.parametrize("order", ["by name", "by place", "with a flag"])
def test_an_argument_between_inputs_can_be_left_out(order: str, tmp_path: Path) -> None:
    model, x, mask = Optional(), torch.randn(5, 4), torch.rand(5, 4)
    given: Any = {"mask": mask[:2], "x": x[:2]}
    if order == "by place":
        given = (x[:2], None, mask[:2])
    elif order == "with a flag":
        given["twice"] = True
    loaded = load_checkpoint(save_checkpoint(model, tmp_path / "ckpt.pt", example_inputs=given))
    assert loaded.facts.input_names == ("x", "mask")
    own = model(x, mask=mask, twice=order == "with a flag")
    torch.testing.assert_close(loaded.model(x, mask), own)


def test_one_tensor_for_two_inputs_stays_two_inputs(tmp_path: Path) -> None:
    x = torch.randn(2, 3)
    model = Towers()
    loaded = load_checkpoint(save_checkpoint(model, tmp_path / "ckpt.pt", example_inputs=(x, x)))
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    torch.testing.assert_close(loaded.model(a, b), model(a, b))


class Towers(nn.Module):
    """Two inputs of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return self.one(a) - 2 * self.other(b)


class Holding(nn.Module):
    """What modules hold that cannot be copied: an activation with its history, a lock, a generator."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.utils.spectral_norm(nn.Linear(4, 3))
        self.lock = threading.Lock()
        self.numbers = (number for number in range(3))
        self.kept: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.inner(x)
        self.kept = [y]
        return y.relu()


def test_a_model_that_holds_what_cannot_be_copied_is_saved_with_its_graph(tmp_path: Path) -> None:
    model, x = Holding(), torch.randn(5, 4)
    model(x)
    model.eval()
    kept, lock = model.kept[0], model.lock
    loaded = load_checkpoint(save_checkpoint(model, tmp_path / "ckpt.pt", example_inputs=x[:2]))
    torch.testing.assert_close(loaded.model(x), model(x))
    assert model.lock is lock
    assert kept.grad_fn is not None


def test_the_task_is_kept_where_it_is_known(tmp_path: Path) -> None:
    x = torch.randn(2, 3)
    assert load_checkpoint(save_checkpoint(nn.Linear(3, 2), tmp_path / "a.pt", example_inputs=x)).facts.task is None
    path = save_checkpoint(nn.Linear(3, 2), tmp_path / "b.pt", example_inputs=x, task="multilabel")
    assert load_checkpoint(path).facts.task == "multilabel"
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], label=[0.5, 1.5], prediction=[0.25, 1.0], mode="eval", epoch=1)
        path = run.save_checkpoint(nn.Linear(3, 1), example_inputs=x)
    assert load_checkpoint(path).facts.task == "regression"


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_text_model_takes_ids_and_mask_of_any_length(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "bert":
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        config = transformers.BertConfig(vocab_size=60, num_labels=3, initializer_range=0.5, **sizes)
        model = transformers.BertForSequenceClassification(config).eval()
    else:
        config = transformers.GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2, num_labels=3, pad_token_id=0)
        model = transformers.GPT2ForSequenceClassification(config).eval()
    ids = torch.randint(5, 60, (4, 7))
    mask = torch.ones_like(ids)
    ids[1, 4:] = mask[1, 4:] = 0
    given = {"attention_mask": mask[:2], "input_ids": ids[:2]}
    path = save_checkpoint(model, tmp_path / "ckpt.pt", example_inputs=given)
    loaded = load_checkpoint(path)
    assert loaded.facts.input_names == ("input_ids", "attention_mask")
    assert loaded.facts.input_dtypes == ("int64", "int64")
    assert loaded.facts.task == "classification"
    for length in (7, 4):
        own = model(input_ids=ids[:, :length], attention_mask=mask[:, :length]).logits
        torch.testing.assert_close(loaded.model(ids[:, :length], mask[:, :length])["logits"], own)


class MeanOfWords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(ids).mean(1))


def test_three_tokens_are_enough_for_any_length(tmp_path: Path) -> None:
    model, ids = MeanOfWords().eval(), torch.arange(12).reshape(2, 6) % 9
    loaded = load_checkpoint(save_checkpoint(model, tmp_path / "ckpt.pt", example_inputs=ids[:, :3]))
    for length in (3, 2, 6):
        torch.testing.assert_close(loaded.model(ids[:, :length]), model(ids[:, :length]))


def test_a_failed_write_leaves_the_old_file(ckpt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ckpt.pt"
    path.write_bytes(ckpt.read_bytes())

    def fail(descriptor: int) -> None:
        del descriptor
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"), pytest.warns(match="no graph"):
        save_checkpoint(nn.Linear(2, 2), path)
    assert path.read_bytes() == ckpt.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["ckpt.pt"]


def test_wrappers_are_taken_off(tmp_path: Path, model: Digits, images: torch.Tensor) -> None:
    path = save_checkpoint(nn.DataParallel(model), tmp_path / "ckpt.pt", example_inputs=images[:2])
    assert torch.load(path, weights_only=True)["state_dict"].keys() == model.state_dict().keys()


def test_members_are_stored_as_torch_stores_them(ckpt: Path) -> None:
    with zipfile.ZipFile(ckpt) as file:
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}


class Deciding(nn.Module):
    """Goes one of two ways by its values: no graph holds that."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x if x.sum() > 0 else -x)


def test_a_model_that_cannot_be_exported_is_told_in_one_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match="torch could not export the model") as told:
        save_checkpoint(Deciding(), tmp_path / "m.pt", example_inputs=torch.ones(2, 3))
    assert [len(str(warning.message)) < 500 for warning in told] == [True]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("given", [None, "segmentation"])
def test_a_run_says_what_its_model_means(given: str | None, tmp_path: Path) -> None:
    """What the caller says, else what the recorded labels tell for certain."""
    from xaicli.recorder.run import Run

    model, x = nn.Linear(4, 3), torch.rand(2, 5, 4)
    with Run(tmp_path / "run") as run:
        logits = model(x).detach()
        run.log_samples(sample_id=[0, 1], label=logits.argmax(2), logits=logits, mode="eval", epoch=1, step=1)
        run.save_checkpoint(model, example_inputs=x, task=given)
    facts = load_checkpoint(tmp_path / "run" / "checkpoints" / "ckpt.pt").facts
    assert facts.task == (given or "sequence")


def test_another_word_for_a_task_is_told_and_costs_no_checkpoint(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="says no task: 'colours' is none of"):
        save_checkpoint(nn.Linear(4, 3), tmp_path / "m.pt", example_inputs=torch.rand(2, 4), task="colours")
    assert load_checkpoint(tmp_path / "m.pt").facts.task is None


def test_the_warning_that_there_is_no_graph_names_the_line_that_saved(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run.save_checkpoint(Branching(), example_inputs=torch.ones(2, 3))
        save_checkpoint(Branching(), tmp_path / "other.pt", example_inputs=torch.ones(2, 3))
    assert [warning.filename for warning in told if "holds no graph" in str(warning.message)] == [__file__] * 2
