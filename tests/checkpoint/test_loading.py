"""Good files of every kind load and give the gradients of the eager model."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from tests.checkpoint import hostile
from tests.checkpoint.conftest import Digits, gradient
from xaicli.checkpoint.archive import RefusedError
from xaicli.checkpoint.facts import Kind
from xaicli.checkpoint.load import load_checkpoint
from xaicli.errors import DamagedFileError, UsageError, XaiError

Saver = Callable[[Digits, Path], None]


def _state_dict(model: Digits, path: Path) -> None:
    torch.save(model.state_dict(), path)


def _parallel(model: Digits, path: Path) -> None:
    torch.save({f"module.{key}": value for key, value in model.state_dict().items()}, path)


def _compiled_and_parallel(model: Digits, path: Path) -> None:
    torch.save({f"module._orig_mod.{key}": value for key, value in model.state_dict().items()}, path)


def _compiled_parts(model: Digits, path: Path) -> None:
    torch.save({key.replace("features.", "features._orig_mod."): v for key, v in model.state_dict().items()}, path)


def _mixed(model: Digits, path: Path) -> None:
    torch.save({**model.state_dict(), "epoch": 3, "arch": "digits"}, path)


def _training(key: str) -> Saver:
    def save(model: Digits, path: Path) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        content = {key: model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7, "step": 70, "lr": [0.1]}
        torch.save(content, path)

    return save


def _lightning(model: Digits, path: Path) -> None:
    weights = {f"model.{key}": value for key, value in model.state_dict().items()}
    content = {
        "state_dict": {**weights, "criterion.weight": torch.ones(4)},
        "pytorch-lightning_version": "2.5.0",
        "epoch": 2,
        "global_step": 40,
        "hyper_parameters": {"lr": 0.1},
        "loops": {},
    }
    torch.save(content, path)


def _legacy(model: Digits, path: Path) -> None:
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)


def _safetensors(model: Digits, path: Path) -> None:
    from safetensors.torch import save_file

    save_file(model.state_dict(), path)


KINDS: dict[str, tuple[Saver, Kind]] = {
    "plain.pt": (_state_dict, Kind.STATE_DICT),
    "parallel.pth": (_parallel, Kind.STATE_DICT),
    "compiled.pth": (_compiled_and_parallel, Kind.STATE_DICT),
    "parts.pth": (_compiled_parts, Kind.STATE_DICT),
    "mixed.pth": (_mixed, Kind.STATE_DICT),
    "legacy.pth": (_legacy, Kind.STATE_DICT),
    "state_dict.pt": (_training("state_dict"), Kind.TRAINING_DICT),
    "model.pt": (_training("model"), Kind.TRAINING_DICT),
    "model_state_dict.pt": (_training("model_state_dict"), Kind.TRAINING_DICT),
    "net.tar": (_training("net"), Kind.TRAINING_DICT),
    "odd.pt": (_training("student"), Kind.TRAINING_DICT),
    "last.ckpt": (_lightning, Kind.LIGHTNING),
    "model.safetensors": (_safetensors, Kind.SAFETENSORS),
}


@pytest.mark.parametrize("name", KINDS)
def test_weights_with_arch_give_the_eager_gradients(
    name: str, model: Digits, images: torch.Tensor, tmp_path: Path, zoo: Path
) -> None:
    save, kind = KINDS[name]
    save(model, tmp_path / name)
    loaded = load_checkpoint(tmp_path / name, arch="zoo:digits", pythonpath=[zoo])
    assert loaded.facts.kind is kind
    assert not any(module.training for module in loaded.model.modules())
    torch.testing.assert_close(gradient(loaded.model, images), gradient(model, images))


def test_the_shims_checkpoint_needs_no_code(ckpt: Path, model: Digits, images: torch.Tensor) -> None:
    loaded = load_checkpoint(ckpt)
    facts = loaded.facts
    assert (facts.kind, facts.epoch, facts.step, facts.static_batch) == (Kind.XAI, 3, 120, None)
    assert facts.label_names == ("cat", "dog", "hen", "owl")
    assert (facts.input_names, facts.input_shapes, facts.input_dtypes) == (("image",), ((1, 6, 6),), ("float32",))
    assert (facts.input_range, facts.mean, facts.std) == ((-1.0, 2.0), (0.5,), (0.25,))
    for batch in (images, images[:1]):
        torch.testing.assert_close(gradient(loaded.model, batch), gradient(model, batch))


def test_the_shims_weights_fit_the_architecture_too(ckpt: Path, model: Digits, images: torch.Tensor, zoo: Path) -> None:
    loaded = load_checkpoint(ckpt, arch="zoo:Digits", arch_args='{"n_labels": 4}', pythonpath=[zoo])
    assert type(loaded.model).__name__ == "Digits"
    torch.testing.assert_close(gradient(loaded.model, images), gradient(model, images))


def test_an_exported_graph_loads(pt2: Path, model: Digits, images: torch.Tensor) -> None:
    loaded = load_checkpoint(pt2)
    assert loaded.facts.kind is Kind.EXPORTED
    assert (loaded.facts.input_shapes, loaded.facts.static_batch) == (((1, 6, 6),), None)
    assert loaded.model.eval() is loaded.model.train() is loaded.model
    torch.testing.assert_close(gradient(loaded.model, images), gradient(model, images))


def test_the_name_of_a_file_does_not_matter(pt2: Path, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(pt2.read_bytes())
    assert load_checkpoint(tmp_path / "model.bin").facts.kind is Kind.EXPORTED


@pytest.mark.usefixtures("checked")
def test_a_static_graph_says_its_batch(tmp_path: Path, model: Digits, images: torch.Tensor) -> None:
    torch.export.save(torch.export.export(model, (images[:3],)), tmp_path / "model.pt2")
    loaded = load_checkpoint(tmp_path / "model.pt2")
    assert loaded.facts.static_batch == 3
    torch.testing.assert_close(gradient(loaded.model, images[:3]), gradient(model, images[:3]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_and_pickled_modules_load_when_trusted(tmp_path: Path, model: Digits, images: torch.Tensor) -> None:
    torch.jit.save(torch.jit.trace(model, images[:2]), tmp_path / "script.pt")
    torch.save(model, tmp_path / "pickled.pt")
    torch.save({"model": model, "epoch": 1}, tmp_path / "inside.pt")
    for name, kind in (
        ("script.pt", Kind.TORCHSCRIPT),
        ("pickled.pt", Kind.PICKLED_MODULE),
        ("inside.pt", Kind.PICKLED_MODULE),
    ):
        with pytest.warns(UserWarning, match=f"trusting .*{name} .sha256 [0-9a-f]{{64}}., which may run: ") as said:
            loaded = load_checkpoint(tmp_path / name, trust=True)
        assert loaded.facts.kind is kind
        assert loaded.facts.sha256 in str(said[0].message)
        torch.testing.assert_close(gradient(loaded.model, images), gradient(model, images))


def test_trust_is_not_used_where_it_is_not_needed(ckpt: Path, recwarn: pytest.WarningsRecorder) -> None:
    load_checkpoint(ckpt, trust=True)
    assert not [warning for warning in recwarn if "trusting" in str(warning.message)]


def test_a_trusted_graph_of_any_operators_loads(tmp_path: Path, canary: Path, pt2: Path, images: torch.Tensor) -> None:
    data = hostile.edited(pt2.read_bytes(), hostile.extra_member, canary)
    (tmp_path / "model.pt2").write_bytes(data)
    with pytest.raises(RefusedError):
        load_checkpoint(tmp_path / "model.pt2")
    with pytest.warns(UserWarning, match="run_me"):
        assert load_checkpoint(tmp_path / "model.pt2", trust=True).model(images).shape == (5, 4)


def test_weights_without_a_model_say_what_to_type(tmp_path: Path, model: Digits) -> None:
    torch.save(model.state_dict(), tmp_path / "model.pt")
    with pytest.raises(XaiError, match="holds weights but no model") as raised:
        load_checkpoint(tmp_path / "model.pt")
    assert "--arch module:factory" in raised.value.hint


def test_a_checkpoint_without_a_graph_names_its_arch_but_imports_nothing(tmp_path: Path, canary: Path) -> None:
    from xaicli.checkpoint.save import save_checkpoint

    (tmp_path / "stranger.py").write_text(f"open({str(canary)!r}, 'w')")
    path = save_checkpoint(nn.Linear(2, 2), tmp_path / "ckpt.pt", arch="stranger:make")
    with pytest.raises(XaiError, match="no graph was saved: no example_inputs were given") as raised:
        load_checkpoint(path, pythonpath=[tmp_path])
    assert "--arch stranger:make" in raised.value.hint


def test_keys_that_differ_are_listed(tmp_path: Path, model: Digits, zoo: Path) -> None:
    weights = dict(model.state_dict())
    weights["extra.bias"] = torch.zeros(1)
    del weights["features.0.bias"]
    weights["head.2.bias"] = torch.zeros(9)
    torch.save(weights, tmp_path / "model.pt")
    with pytest.raises(XaiError, match="1 missing, 1 unexpected, 1 of another shape") as raised:
        load_checkpoint(tmp_path / "model.pt", arch="zoo:digits", pythonpath=[zoo])
    assert "missing: features.0.bias; unexpected: extra.bias" in raised.value.hint
    assert "head.2.bias (9,) for (4,)" in raised.value.hint


def test_averaged_weights_are_chosen_by_name(tmp_path: Path, model: Digits, images: torch.Tensor, zoo: Path) -> None:
    averaged = {key: value * 2 for key, value in model.state_dict().items()}
    torch.save({"model": model.state_dict(), "ema": {"module": averaged}, "optimizer": {}}, tmp_path / "model.pt")
    plain = load_checkpoint(tmp_path / "model.pt", arch="zoo:digits", pythonpath=[zoo])
    torch.testing.assert_close(plain.model(images), model(images))
    ema = load_checkpoint(tmp_path / "model.pt", arch="zoo:digits", pythonpath=[zoo], weights="ema.module")
    assert torch.equal(ema.model.head[2].weight, model.head[2].weight * 2)
    with pytest.raises(XaiError, match="no weights 'emma'") as raised:
        load_checkpoint(tmp_path / "model.pt", arch="zoo:digits", pythonpath=[zoo], weights="emma")
    assert "ema.module" in raised.value.hint


def test_a_short_name_of_the_weights_will_do(tmp_path: Path, model: Digits, zoo: Path) -> None:
    torch.save({"model": model.state_dict(), "ema": {"module": model.state_dict()}}, tmp_path / "model.pt")
    load_checkpoint(tmp_path / "model.pt", arch="zoo:digits", pythonpath=[zoo], weights="ema")
    averaged = torch.optim.swa_utils.AveragedModel(model)
    torch.save({"model": model.state_dict(), "model_ema": averaged.state_dict()}, tmp_path / "timm.pt")
    load_checkpoint(tmp_path / "timm.pt", arch="zoo:digits", pythonpath=[zoo], weights="ema")


@pytest.mark.parametrize(
    ("arch", "reason"),
    [
        ("zoo:digit", "no name 'digit' in zoo"),
        ("nowhere:make", "No module named 'nowhere'"),
        ("zoo:number", "not callable|makes a int"),
        ("zoo", "is not module:factory"),
        ("timm:resnet18", "needs timm"),
    ],
)
def test_an_arch_that_cannot_be_is_named(arch: str, reason: str, tmp_path: Path, model: Digits, zoo: Path) -> None:
    if arch.startswith("timm") and importlib.util.find_spec("timm"):
        pytest.skip("timm is installed")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    with pytest.raises(XaiError, match=reason) as raised:
        load_checkpoint(tmp_path / "model.pt", arch=arch, pythonpath=[zoo])
    assert raised.value.hint


def test_an_arch_of_timm_is_made_without_its_weights(
    tmp_path: Path, model: Digits, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timm itself is not needed to test what it is asked for."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def create_model(name: str, **options: Any) -> nn.Module:
        asked.append((name, options))
        return Digits(options["num_classes"])

    timm = types.SimpleNamespace(list_models=lambda: ["resnet18", "vit_tiny"], create_model=create_model)
    monkeypatch.setitem(sys.modules, "timm", timm)  # type: ignore[arg-type]
    torch.save(model.state_dict(), tmp_path / "model.pt")
    loaded = load_checkpoint(tmp_path / "model.pt", arch="timm:resnet18", arch_args={"num_classes": 4})
    assert asked == [("resnet18", {"pretrained": False, "num_classes": 4})]
    torch.testing.assert_close(loaded.model(images), model(images))
    with pytest.raises(XaiError, match="no timm model 'resnet81'") as raised:
        load_checkpoint(tmp_path / "model.pt", arch="timm:resnet81")
    assert "resnet18" in raised.value.hint


def test_an_arch_that_is_not_needed_is_said(pt2: Path) -> None:
    assert "--arch was not used" in load_checkpoint(pt2, arch="zoo:digits").facts.notes[0]


@pytest.mark.usefixtures("checked")
def test_a_graph_whose_axes_all_vary(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    axes = ({0: Dim("batch"), 2: Dim("height", min=8), 3: Dim("width", min=8)},)
    program = torch.export.export(model, (torch.randn(2, 1, 16, 16),), dynamic_shapes=axes)
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = load_checkpoint(tmp_path / "model.pt2")
    assert (loaded.facts.input_shapes, loaded.facts.static_batch) == (None, None)
    x = torch.randn(3, 1, 20, 9)
    torch.testing.assert_close(gradient(loaded.model, x), gradient(model, x))


class Turned(nn.Module):
    """Makes contiguous what is contiguous already where it is exported, and looks at it as a row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.transpose(0, 1).permute(1, 0, 2).contiguous().view(len(x), -1) ** 2).cumsum(1)


def test_a_graph_takes_what_lies_in_another_order_of_memory(tmp_path: Path) -> None:
    """As attention's answers do on another device than the one that the graph was made on."""
    x = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0))
    torch.export.save(torch.export.export(Turned(), (x,)), tmp_path / "turned.pt2")
    model = load_checkpoint(tmp_path / "turned.pt2").model
    assert "contiguous" not in model.code, "else nothing is tested"
    turned = x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    assert not turned.is_contiguous()
    found = model(turned)
    assert torch.equal(found, (x.reshape(6, -1) ** 2).cumsum(1))
    found[:, -1].sum().backward()
    assert torch.equal(turned.grad, 2 * x)


def test_arguments_of_an_arch_are_json(tmp_path: Path, zoo: Path) -> None:
    torch.save(Digits(7).state_dict(), tmp_path / "model.pt")
    load_checkpoint(tmp_path / "model.pt", arch="zoo:digits", arch_args='{"n_labels": 7}', pythonpath=[zoo])
    for text in ("[7]", "{n_labels"):
        with pytest.raises(UsageError, match="--arch-args"):
            load_checkpoint(tmp_path / "model.pt", arch="zoo:digits", arch_args=text, pythonpath=[zoo])
    with pytest.raises(XaiError, match="unexpected keyword argument 'n'") as raised:
        load_checkpoint(tmp_path / "model.pt", arch="zoo:digits", arch_args={"n": 7}, pythonpath=[zoo])
    assert "it takes n_labels" in raised.value.hint


def test_an_architecture_whose_train_returns_nothing(tmp_path: Path, model: Digits, zoo: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    loaded = load_checkpoint(tmp_path / "weights.pt", arch="zoo:Quiet", pythonpath=[zoo])
    x = torch.rand(2, 1, 6, 6)
    assert torch.equal(loaded.model(x), model.eval()(x))


def test_the_search_path_is_left_as_it_was(tmp_path: Path, model: Digits, zoo: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "model.pt")
    before = list(sys.path)
    load_checkpoint(tmp_path / "model.pt", arch="zoo:digits", pythonpath=[zoo])
    assert sys.path == before


class Computing(nn.Module):
    """A model with a buffer that no checkpoint keeps, computed when it is built."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("scale", torch.arange(3.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x * self.scale)


def test_computed_buffers_are_computed(tmp_path: Path) -> None:
    model = Computing()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    loaded = load_checkpoint(tmp_path / "model.pt", arch=Computing)
    x = torch.randn(4, 3)
    torch.testing.assert_close(loaded.model(x), model(x))


def test_half_weights_take_the_models_dtype(tmp_path: Path, model: Digits, zoo: Path) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    torch.save(half, tmp_path / "model.pt")
    loaded = load_checkpoint(tmp_path / "model.pt", arch="zoo:digits", pythonpath=[zoo])
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}


def test_a_dict_without_weights_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "note": "hello"}, tmp_path / "model.pt")
    with pytest.raises(XaiError, match="holds no weights") as raised:
        load_checkpoint(tmp_path / "model.pt", arch=nn.Identity)
    assert "epoch (int), note (str)" in raised.value.hint


def test_what_is_not_there_is_named_with_what_is(ckpt: Path) -> None:
    with pytest.raises(XaiError, match="there is no checkpoint") as raised:
        load_checkpoint(ckpt.parent / "chkpt.pt")
    assert "ckpt.pt" in raised.value.hint


@pytest.mark.parametrize(
    "content", [b"hello, this is text", b"PK\x05\x06" + b"\0" * 18, b"\x89PNG\r\n\x1a\n" + b"\0" * 99]
)
def test_other_files_are_no_checkpoints(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(XaiError, match=r"model\.pt"):
        load_checkpoint(tmp_path / "model.pt")


def test_a_zip_of_something_else_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(hostile.archive_of({"readme.txt": b"hello"}))
    with pytest.raises(XaiError, match="none of torch's") as raised:
        load_checkpoint(tmp_path / "model.pt")
    assert "readme.txt" in raised.value.hint


def test_a_newer_version_is_refused_clearly(ckpt: Path, tmp_path: Path) -> None:
    torch.save({**torch.load(ckpt, weights_only=True), "version": 2}, tmp_path / "ckpt.pt")
    with pytest.raises(XaiError, match="checkpoint version 2; this xai reads up to 1"):
        load_checkpoint(tmp_path / "ckpt.pt")


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": 7},
        {"mean": ["x"]},
        {"graph": "text"},
        {"epoch": "last"},
        {"inputs": [{}]},
        {"std": [0]},
        {"inputs": [{"name": "x", "shape": [-1], "dtype": "float32"}]},
    ],
)
def test_facts_of_another_type_are_damage(change: dict[str, Any], ckpt: Path, tmp_path: Path) -> None:
    torch.save({**torch.load(ckpt, weights_only=True), **change}, tmp_path / "ckpt.pt")
    with pytest.raises(XaiError, match="damaged"):
        load_checkpoint(tmp_path / "ckpt.pt")


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_a_hugging_face_folder_gives_logits(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=8,
        patch_size=4,
        id2label={0: "cat", 1: "dog"},
        label2id={"cat": 0, "dog": 1},
    )
    model = ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))
    loaded = load_checkpoint(tmp_path)
    facts = loaded.facts
    assert (facts.kind, facts.label_names, facts.input_shapes) == (Kind.HUGGING_FACE, ("cat", "dog"), ((3, 8, 8),))
    assert (facts.mean, facts.std) == ((0.5,) * 3, (0.25,) * 3)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    (expected,) = torch.autograd.grad(model(pixel_values=x).logits[:, 0].sum(), x)
    torch.testing.assert_close(gradient(loaded.model, x.detach()), expected)


def _bert(folder: Path) -> Any:
    """A small BERT with tied embeddings and a head, saved."""
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertForMaskedLM(BertConfig(vocab_size=20, max_position_embeddings=8, **sizes)).eval()
    model.save_pretrained(folder)
    return model


def _without(folder: Path, name: str) -> None:
    from safetensors.torch import load_file, save_file

    kept = load_file(folder / "model.safetensors")
    del kept[name]
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def _configured(folder: Path, **changed: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changed}))


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_weights_that_a_hugging_face_folder_lacks_are_not_made_up(tmp_path: Path) -> None:
    model = _bert(tmp_path)
    ids = torch.tensor([[3, 4, 5]])
    loaded = load_checkpoint(tmp_path)
    torch.testing.assert_close(loaded.model(ids), model(ids).logits)  # tied weights are in the file once
    assert not loaded.facts.notes
    _configured(tmp_path, architectures=["BertForSequenceClassification"])
    with pytest.raises(XaiError, match="4 missing") as raised:  # a pooler's and a head's weight and bias
        load_checkpoint(tmp_path)
    assert "classifier.weight" in raised.value.hint
    _configured(tmp_path, architectures=["BertForMaskedLM"], vocab_size=30)
    with pytest.raises(XaiError, match=r"0 missing, \d of another shape") as raised:
        load_checkpoint(tmp_path)
    assert "(20, 8) for (30, 8)" in raised.value.hint
    _configured(tmp_path, architectures=["BertModel"], vocab_size=20)
    _without(tmp_path, "bert.encoder.layer.0.output.dense.bias")
    with pytest.raises(XaiError, match="missing") as raised:
        load_checkpoint(tmp_path)
    assert "output.dense.bias" in raised.value.hint


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_hugging_face_weights_that_are_left_out_cut_or_quantised_are_told(tmp_path: Path) -> None:
    from transformers.utils import logging

    _bert(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    _configured(tmp_path, num_hidden_layers=0)
    loudness = logging.get_verbosity()
    assert any("left out 16 weights" in note for note in load_checkpoint(tmp_path).facts.notes)
    assert logging.get_verbosity() == loudness
    (tmp_path / "model.safetensors").write_bytes(whole[:-10])
    with pytest.raises(DamagedFileError, match="no whole safetensors"):
        load_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(whole)
    _configured(tmp_path, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    with pytest.raises(XaiError, match=r"transformers cannot load it: \w+") as raised:
        load_checkpoint(tmp_path)
    assert "--arch" in raised.value.hint


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_a_file_of_a_hugging_face_folder_under_arch_names_the_folder(tmp_path: Path) -> None:
    _bert(tmp_path)
    with pytest.raises(XaiError, match="do not fit") as raised:
        load_checkpoint(tmp_path / "model.safetensors", arch=lambda: torch.nn.Sequential(torch.nn.Linear(3, 2)))
    assert f"try {tmp_path} without --arch" in raised.value.hint


def test_a_hugging_face_folder_of_pickles_that_run_code_is_refused(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "ran"),)

    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["ViTForImageClassification"]}))
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Runs()}))
    with pytest.raises(RefusedError, match="runs code when it is read"):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(XaiError, match="holds no weights"):
        load_checkpoint(tmp_path)
