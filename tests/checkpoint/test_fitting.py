"""Weights fit as strictly as with torch and safetensors, under the names that wrappers and versions gave them."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from tests.checkpoint.conftest import Digits, gradient
from xaicli.checkpoint.archive import RefusedError
from xaicli.checkpoint.inspection import Verdict, inspect_checkpoint
from xaicli.checkpoint.load import load_checkpoint
from xaicli.checkpoint.save import convert_checkpoint
from xaicli.checkpoint.torch_file import read_torch
from xaicli.checkpoint.weights import choose_weights
from xaicli.errors import DamagedFileError, XaiError
from xaicli.state.randomness import randomness_kept


class Tied(nn.Module):
    """Two layers of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(torch.relu(self.first(x))))


class Plain(nn.Module):
    """Tensors that are no buffers: an attribute, one in a list, a table of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.scales = torch.tensor(0.5), [torch.tensor(2.0)]
        self.linear = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear((x - self.mean) * self.scales[0])


X = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))


def same(path: Path, arch: Callable[[], nn.Module], model: nn.Module, x: torch.Tensor = X, **options: Any) -> None:
    """The loaded model answers as the one that was saved."""
    with torch.no_grad():
        torch.testing.assert_close(load_checkpoint(path, arch=arch, **options).model(x), model.eval()(x))


class Own(nn.Sequential):
    """Has an `eval()` and a `train()` that are no switches, or that fail."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(nn.Linear(4, 8), nn.Dropout(0.9), nn.Linear(8, 2))
        self.fails = fails

    def train(self, *loader: Any, epochs: int = 3) -> Own:
        if self.fails:
            raise ValueError("no adapter to merge")
        raise AssertionError((loader, epochs))

    def eval(self, *loader: Any) -> Own:
        return self.train(*loader)


class Trained(Own):
    """Its `train(loader)` trains."""

    def train(self, loader: Any, epochs: int = 3) -> Own:  # type: ignore[override]
        return super().train(loader, epochs=epochs)


def test_an_eval_of_its_own_that_is_no_switch_is_not_called_and_one_that_fails_is_named(tmp_path: Path) -> None:
    model = Trained()
    torch.save(model.state_dict(), tmp_path / "a.pt")
    with torch.no_grad():
        expected = model[2](model[0](X))
        torch.testing.assert_close(load_checkpoint(tmp_path / "a.pt", arch=Trained).model(X), expected)
    with pytest.raises(XaiError, match=r"eval\(\) of the model's Own fails: ValueError: no adapter to merge"):
        load_checkpoint(tmp_path / "a.pt", arch=lambda: Own(fails=True))


def test_tied_weights_of_safetensors(tmp_path: Path) -> None:
    model = Tied()
    save_model(model, str(tmp_path / "a.safetensors"))
    same(tmp_path / "a.safetensors", Tied, model)
    loaded = load_checkpoint(tmp_path / "a.safetensors", arch=Tied).model
    assert loaded.first.weight is loaded.second.weight


def test_tied_weights_that_differ_in_the_file_are_said_to(tmp_path: Path) -> None:
    model = Tied()
    weights = {**model.state_dict(), "second.weight": torch.ones(4, 4)}
    torch.save(weights, tmp_path / "a.pt")
    loaded = load_checkpoint(tmp_path / "a.pt", arch=Tied)
    expected = Tied()
    expected.load_state_dict(weights)
    torch.testing.assert_close(loaded.model.first.weight, expected.first.weight)
    assert torch.equal(loaded.model.first.weight, torch.ones(4, 4))
    assert any("first.weight and second.weight" in n and "that of second.weight" in n for n in loaded.facts.notes)
    torch.save(model.state_dict(), tmp_path / "b.pt")
    assert not load_checkpoint(tmp_path / "b.pt", arch=Tied).facts.notes


@pytest.mark.filterwarnings("ignore:torch.ao.quantization")
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_pickled_module_of_quantised_layers_is_refused_as_such(form: str, tmp_path: Path) -> None:
    quantised = torch.ao.quantization.quantize_dynamic(Plain(), {nn.Linear}, dtype=torch.qint8)
    torch.save(quantised, tmp_path / "a.pt", _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(RefusedError, match=r"quantised \('linear.weight'\)"):
        load_checkpoint(tmp_path / "a.pt", arch=Plain)


def test_a_frozen_program_says_that_its_weights_are_constants(tmp_path: Path) -> None:
    scripted = torch.jit.freeze(torch.jit.trace(Tied().eval(), X))
    scripted.save(str(tmp_path / "a.pt"))
    with pytest.raises(XaiError, match="without weights") as raised:
        load_checkpoint(tmp_path / "a.pt", arch=Tied)
    assert "--trust-checkpoint without --arch" in raised.value.hint
    whole = load_checkpoint(tmp_path / "a.pt", trust=True).model
    torch.testing.assert_close(whole(X), torch.jit.load(str(tmp_path / "a.pt"))(X))


OTHER_STATES: dict[str, tuple[Callable[[], object], str]] = {
    "optimizer": (lambda: torch.optim.Adam(Tied().parameters()).state_dict(), "the state of an optimizer"),
    "kept optimizer": (
        lambda: {"optim": torch.optim.Adam(Tied().parameters()).state_dict(), "epoch": 3},
        "optim (state of an optimizer)",
    ),
    "averages": (lambda: {"ema": {"decay": 0.9, "shadow_params": [*Tied().parameters()]}}, "without names"),
}


@pytest.mark.parametrize("case", OTHER_STATES)
def test_what_is_no_model_is_named(case: str, tmp_path: Path) -> None:
    make, said = OTHER_STATES[case]
    torch.save(make(), tmp_path / "a.pt")
    with pytest.raises(XaiError, match="holds no weights") as raised:
        load_checkpoint(tmp_path / "a.pt", arch=Tied)
    assert said in raised.value.hint


def test_a_missing_weight_that_nothing_is_tied_to_is_an_error(tmp_path: Path) -> None:
    weights = {key: value for key, value in Tied().state_dict().items() if key != "first.bias"}
    torch.save(weights, tmp_path / "a.pt")
    with pytest.raises(XaiError, match="1 missing, 0 unexpected") as raised:
        load_checkpoint(tmp_path / "a.pt", arch=Tied)
    assert "first.bias" in raised.value.hint


def test_plain_tensors_of_a_module_keep_their_values(tmp_path: Path) -> None:
    model = Plain()
    torch.save(model.state_dict(), tmp_path / "a.pt")
    same(tmp_path / "a.pt", Plain, model)


def test_building_a_model_leaves_the_callers_random_numbers(tmp_path: Path) -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    def build() -> Plain:
        drawn()
        return Plain()

    torch.save(Plain().state_dict(), tmp_path / "a.pt")
    with randomness_kept():
        expected = drawn()
    load_checkpoint(tmp_path / "a.pt", arch=build)
    assert drawn() == expected


@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_weights_older_than_the_counters_of_batchnorm(
    form: str, tmp_path: Path, model: Digits, images: torch.Tensor
) -> None:
    weights = {k: v.clone() for k, v in model.state_dict().items() if "num_batches" not in k}
    if form == "pt":
        torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}}, tmp_path / "a.pt")
    else:
        save_file(weights, tmp_path / "a.safetensors")
    same(tmp_path / f"a.{form}", Digits, model, images)
    del weights["features.1.running_var"]
    torch.save(weights, tmp_path / "b.pt")
    with pytest.raises(XaiError, match="1 missing"):
        load_checkpoint(tmp_path / "b.pt", arch=Digits)


def _old(kind: Callable[..., nn.Module]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(kind(nn.Linear(4, 3)), nn.Linear(3, 2))

    return build


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
@pytest.mark.parametrize("older", [True, False])
def test_norms_in_the_spelling_of_either_time(norm: str, older: bool, tmp_path: Path) -> None:
    spelled = [_old(getattr(nn.utils, norm)), _old(getattr(nn.utils.parametrizations, norm))]
    written, read = spelled if older else spelled[::-1]
    model = written()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3)
    model.train()
    model(X)
    torch.save(model.state_dict(), tmp_path / "a.pt")
    same(tmp_path / "a.pt", read, model)


PREFIXES = ["model.", "module.model.", "model.module.", "model._orig_mod.", "net.module._orig_mod.", "a.b.c."]


@pytest.mark.parametrize("wrapper", ["", "module."])
def test_pruned_weights_are_their_product_with_the_mask(wrapper: str, tmp_path: Path) -> None:
    from torch.nn.utils import prune

    pruned = Tied()
    prune.l1_unstructured(pruned.head, "weight", 0.5)  # type: ignore[no-untyped-call]
    assert int((pruned.head.weight == 0).sum()) == 4
    torch.save({wrapper + key: value for key, value in pruned.state_dict().items()}, tmp_path / "w.pt")
    same(tmp_path / "w.pt", Tied, pruned)
    assert "1 pruned weight by" in " ".join(load_checkpoint(tmp_path / "w.pt", arch=Tied).facts.notes)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_any_depth(prefix: str, tmp_path: Path, model: Digits, images: torch.Tensor) -> None:
    weights = {prefix + key: value for key, value in model.state_dict().items()}
    torch.save({"state_dict": {**weights, "criterion.weight": torch.ones(2)}}, tmp_path / "a.ckpt")
    same(tmp_path / "a.ckpt", Digits, model, images)
    notes = " ".join(load_checkpoint(tmp_path / "a.ckpt", arch=Digits).facts.notes)
    assert "criterion.weight" in notes


def test_wrappers_of_parts_inside_names(tmp_path: Path, model: Digits, images: torch.Tensor) -> None:
    weights = {key.replace("features.", "features.module."): value for key, value in model.state_dict().items()}
    torch.save(weights, tmp_path / "a.pt")
    same(tmp_path / "a.pt", Digits, model, images)


def test_two_parts_that_fit_are_asked_about(tmp_path: Path, model: Digits, images: torch.Tensor) -> None:
    weights = {f"student.{key}": -value.float() for key, value in model.state_dict().items()}
    weights |= {f"teacher.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": weights}, tmp_path / "a.ckpt")
    with pytest.raises(XaiError, match="several parts") as raised:
        load_checkpoint(tmp_path / "a.ckpt", arch=Digits)
    assert "--weights: student, teacher" in raised.value.hint
    same(tmp_path / "a.ckpt", Digits, model, images, weights="teacher")


def test_averaged_weights_beside_the_plain_are_told(tmp_path: Path, model: Digits, images: torch.Tensor) -> None:
    other = {key: value * 0.5 for key, value in model.state_dict().items()}
    torch.save({"model": model.state_dict(), "ema": {"module": other}}, tmp_path / "a.pt")
    loaded = load_checkpoint(tmp_path / "a.pt", arch=Digits)
    torch.testing.assert_close(gradient(loaded.model, images), gradient(model, images))
    assert loaded.facts.notes == ("took the weights under 'model'; others by --weights: ema.module",)


def test_two_networks_of_usual_names_are_asked_about(tmp_path: Path, model: Digits) -> None:
    torch.save({"net": model.state_dict(), "model": model.state_dict()}, tmp_path / "a.pt")
    with pytest.raises(XaiError, match="several sets") as raised:
        load_checkpoint(tmp_path / "a.pt", arch=Digits)
    assert "net, model" in raised.value.hint


@pytest.mark.parametrize(("key", "name"), [("model", "opt"), ("my_cnn", "adam"), ("net", "optimizer")])
def test_an_optimizer_that_is_saved_whole_is_no_network(tmp_path: Path, xai: Any, key: str, name: str) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(4, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / "all.pt"
    torch.save({key: model, name: optimizer, "states": {model[0].weight: {"mean": torch.ones(2)}}}, path)
    chosen = choose_weights(read_torch(path).value, path)
    assert chosen.key == key
    assert chosen.weights.keys() == model.state_dict().keys()
    assert all(torch.equal(chosen.weights[k], v) for k, v in model.state_dict().items())
    said = " ".join(chosen.notes)
    assert len(said) < 100
    assert "0x" not in said
    status, out, err = xai("checkpoint", "inspect", path, "--json")
    assert status == 0, err
    assert "0x" not in out
    names = {row["name"] for row in json.loads(out)["rows"]}
    moments = {f"{name}.state.{k}.{moment}" for k in range(4) for moment in ("step", "exp_avg", "exp_avg_sq")}
    assert moments <= names


def test_states_of_optimizers_and_random_numbers_are_no_networks(
    tmp_path: Path, model: Digits, images: torch.Tensor
) -> None:
    content = (3, model.state_dict(), {"rng": {"cpu": torch.get_rng_state(), "cuda": torch.get_rng_state()}})
    torch.save(content, tmp_path / "a.pt")
    same(tmp_path / "a.pt", Digits, model, images)


def test_a_weight_of_another_kind_of_number_is_named(tmp_path: Path, model: Digits) -> None:
    weights = {**model.state_dict(), "head.2.weight": torch.ones(4, 48, dtype=torch.int8)}
    torch.save(weights, tmp_path / "a.pt")
    with pytest.raises(XaiError, match="1 of another shape") as raised:
        load_checkpoint(tmp_path / "a.pt", arch=Digits)
    assert "torch.int8 for torch.float32" in raised.value.hint


def _shards(folder: Path, model: nn.Module) -> Path:
    names = list(model.state_dict())
    parts = {"model-00001-of-00002.safetensors": names[:3], "model-00002-of-00002.safetensors": names[3:]}
    folder.mkdir()
    for file, keys in parts.items():
        save_file({key: model.state_dict()[key].clone() for key in keys}, folder / file)
    index = {"metadata": {}, "weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("named", ["folder", "index"])
def test_shards_with_an_index(named: str, tmp_path: Path, model: Digits, images: torch.Tensor) -> None:
    folder = _shards(tmp_path / "m", model)
    path = folder if named == "folder" else folder / "model.safetensors.index.json"
    same(path, Digits, model, images)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(XaiError, match=r"model-00002-of-00002\.safetensors is missing"):
        load_checkpoint(path, arch=Digits)


PARTS = {
    "by its index": ("model-00002-of-00002.safetensors", True),
    "by its name": ("model-00002-of-00002.safetensors", False),
    "by its index alone": ("second.safetensors", True),
    "of pickles": ("pytorch_model-00002-of-00002.bin", True),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_several_is_told_as_one_and_written_as_no_whole(
    xai: Any, name: str, tmp_path: Path, model: Digits
) -> None:
    file, has_index = PARTS[name]
    names, weights = list(model.state_dict()), model.state_dict()
    first = file.replace("00002-of", "00001-of") if "00002-of" in file else "first.safetensors"
    for part, keys in ((first, names[:3]), (file, names[3:])):
        held = {key: weights[key].clone() for key in keys}
        torch.save(held, tmp_path / part) if part.endswith("bin") else save_file(held, tmp_path / part)
    index = tmp_path / ("pytorch_model.bin.index.json" if file.endswith("bin") else "model.safetensors.index.json")
    if has_index:
        index.write_text(json.dumps({"weight_map": {key: first if key in names[:3] else file for key in names}}))
    found = json.loads(xai("checkpoint", "inspect", tmp_path / file, "--json")[1])
    assert found["checkpoint"]["loads"] == "with the other parts"
    assert "part 2 of 2 of a model's weights" in found["checkpoint"]["refusal"]
    assert index.name in found["checkpoint"]["refusal"]
    assert sorted(row["name"] for row in found["rows"]) == sorted(names[3:])
    shown = xai("checkpoint", "inspect", tmp_path / file)[1]
    assert "It loads with the other parts." in shown
    assert "part 2 of 2" in shown
    for written in ("out.safetensors", "out.pt2"):
        given = ("--arch", "torch.nn:Identity") if written.endswith("pt2") else ()
        status, _, said = xai("checkpoint", "convert", tmp_path / file, "-o", tmp_path / written, *given)
        assert status == 1
        assert f"{file} is part 2 of 2 of a model's weights" in said
        assert index.name in said
        assert not (tmp_path / written).exists()
    if has_index:
        assert xai("checkpoint", "convert", index, "-o", tmp_path / "out.safetensors")[0] == 0
        assert set(load_file(tmp_path / "out.safetensors")) == set(names)
    else:
        status, _, said = xai("checkpoint", "inspect", tmp_path)
        assert status == 1
        assert "holds parts of a model's weights without their index" in said
        assert f"get {index.name}" in said


@pytest.mark.parametrize("file", ["model-00001-of-00001.safetensors", "fold-1-of-5.safetensors"])
def test_a_whole_that_is_called_like_a_part_is_one(file: str, tmp_path: Path, model: Digits) -> None:
    save_file(model.state_dict(), tmp_path / file)
    assert inspect_checkpoint(tmp_path / file).verdict is Verdict.WITH_ARCH
    written = convert_checkpoint(tmp_path / file, tmp_path / "out.safetensors")
    assert set(load_file(written)) == set(model.state_dict())


def test_an_adapter_is_told_by_its_file_as_by_its_folder(tmp_path: Path) -> None:
    save_file({"base_model.model.fc.lora_A.weight": torch.ones(2, 4)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    found = inspect_checkpoint(tmp_path / "adapter_model.safetensors")
    assert found.verdict is Verdict.NOT
    assert "an adapter (PEFT)" in found.refusal
    assert f"from_pretrained({str(tmp_path)!r}).merge_and_unload()" in found.refusal


def test_what_gathers_weights_without_values_is_named_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "global_step5").mkdir()
    (tmp_path / "zero_to_fp32.py").write_text("")
    path = tmp_path / "global_step5" / "weights.pt"
    torch.save({"first.weight": torch.ones(0)}, path)
    with pytest.raises(XaiError) as caught:
        load_checkpoint(path, arch=Digits)
    assert f"python {tmp_path}/zero_to_fp32.py {tmp_path} model, and name the file written" in caught.value.hint


def test_an_index_cannot_name_files_elsewhere(tmp_path: Path, model: Digits) -> None:
    folder = _shards(tmp_path / "m", model)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "../../secret.safetensors"}}')
    with pytest.raises(RefusedError, match="names other files"):
        load_checkpoint(folder, arch=Digits)


OTHERS = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n", "Git LFS pointer", "git lfs"),
    "page": (b"\n<!DOCTYPE html><html><body>403</body></html>", "web page", "download failed"),
    "answer": (b'<?xml version="1.0"?><Error>NoSuchKey</Error>', "XML answer", "download failed"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(20), "compressed", "gunzip"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5", "safetensors"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(20), "GGUF", "safetensors"),
    "numpy": (b"\x93NUMPY\x01\x00" + bytes(20), "NumPy array", "torch.save"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x051.9.0" + bytes(20), "ONNX", "onnx2torch"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(20), "TensorFlow Lite", "torch"),
    "json": (b'{"error": "not found"}', "JSON", "safetensors"),
    "text": (b"Entry not found", "text", "safetensors"),
    "zeros": (bytes(5000), "zeros only", "copy it again"),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_other_files_are_named_for_what_they_are(name: str, suffix: str, tmp_path: Path) -> None:
    content, what, way_out = OTHERS[name]
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(XaiError) as raised:
        load_checkpoint(tmp_path / f"a{suffix}")
    assert what in raised.value.message
    assert way_out in raised.value.hint


def _zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("metadata.json", "config.json", "model.weights.h5"), "a Keras model"),
        (("model.pt",), "a zip of checkpoints"),
        (("a.npy", "b.npy"), "a NumPy archive"),
        (("readme.txt", "folder/notes.txt"), "none of torch's"),
    ],
)
def test_other_archives_are_named_for_what_they_are(names: tuple[str, ...], what: str, tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(_zip(*names))
    with pytest.raises(XaiError, match=what) as raised:
        load_checkpoint(tmp_path / "a.pt")
    assert names[0] in raised.value.hint


@pytest.mark.parametrize("compress", [0, 3])
def test_a_file_of_joblib_is_no_damaged_one(compress: int, tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    path = tmp_path / "weights.pkl"
    joblib.dump({"first.weight": torch.ones(3, 2).numpy()}, path, compress=compress)
    with pytest.raises(XaiError, match="joblib") as raised:
        load_checkpoint(path)
    assert "joblib.load" in raised.value.hint
    assert "torch.save" in raised.value.hint


FOLDERS = {
    "adapter_config.json": ("PEFT", "merge_and_unload"),
    ".metadata": ("FSDP", "dcp_to_torch"),
    "zero_to_fp32.py": ("DeepSpeed", "zero_to_fp32.py"),
    "saved_model.pb": ("TensorFlow", "torch"),
}


@pytest.mark.parametrize("mark", FOLDERS)
def test_folders_of_other_kinds_say_how_they_are_converted(mark: str, tmp_path: Path) -> None:
    (tmp_path / mark).write_bytes(b"")
    what, way_out = FOLDERS[mark]
    with pytest.raises(XaiError, match=what) as raised:
        load_checkpoint(tmp_path)
    assert way_out in raised.value.hint
    assert "PosixPath" not in raised.value.hint


LAYOUTS = {
    "base_model.model.first.lora_A.weight": (torch.ones(2, 4), "merge_and_unload"),
    "_fsdp_wrapped_module._flat_param": (torch.ones(30), "FULL_STATE_DICT"),
    "first.weight.absmax": (torch.ones(4), "quantised"),
    "first.weight": (torch.ones(0), "zero_to_fp32.py"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_weights_of_other_layouts_say_how_they_are_converted(name: str, tmp_path: Path) -> None:
    value, way_out = LAYOUTS[name]
    torch.save({"module": {name: value}}, tmp_path / "a.pt")
    with pytest.raises(XaiError, match="do not fit") as raised:
        load_checkpoint(tmp_path / "a.pt", arch=Tied)
    assert way_out in raised.value.hint


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_file_that_ends_early_is_called_damaged(form: str, share: float, tmp_path: Path, model: Digits) -> None:
    path = tmp_path / "a.pt"
    if form == "safetensors":
        save_file({key: value.clone() for key, value in model.state_dict().items()}, path)
    else:
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DamagedFileError) as raised:
        load_checkpoint(path, arch=Digits)
    assert str(path) in raised.value.message


def test_a_user_without_a_home_loads_and_saves(
    ckpt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Digits, images: torch.Tensor
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.chdir(tmp_path)
    loaded = load_checkpoint(ckpt)
    torch.testing.assert_close(gradient(loaded.model, images), gradient(model, images))
    assert not list(tmp_path.iterdir())


def test_a_part_behind_wrappers_is_chosen_by_the_name_that_the_hint_gives(
    tmp_path: Path, model: Digits, images: torch.Tensor
) -> None:
    other = {f"module.key.{key}": value * 0 for key, value in model.state_dict().items()}
    weights = {f"module.query.{key}": value for key, value in model.state_dict().items()} | other
    for name, content in (("plain", weights), ("training", {"state_dict": weights, "epoch": 3})):
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(XaiError, match="several parts") as caught:
            load_checkpoint(tmp_path / f"{name}.pt", arch=Digits)
        assert "--weights: query, key" in caught.value.hint
        same(tmp_path / f"{name}.pt", Digits, model, images, weights="query")
    with pytest.raises(XaiError, match="no weights 'que'"):
        load_checkpoint(tmp_path / "plain.pt", arch=Digits, weights="que")


@pytest.mark.parametrize("named", ["folder", "index"])
def test_parts_that_torch_save_wrote_with_their_index(
    named: str, tmp_path: Path, model: Digits, images: torch.Tensor
) -> None:
    keys, weights = list(model.state_dict()), model.state_dict()
    files = {key: f"pytorch_model-0000{1 + (i > 1)}-of-00002.bin" for i, key in enumerate(keys)}
    for file in set(files.values()):
        torch.save({key: weights[key] for key in keys if files[key] == file}, tmp_path / file)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    path = tmp_path if named == "folder" else index
    same(path, Digits, model, images)
    with pytest.raises(XaiError) as caught:
        load_checkpoint(tmp_path / "pytorch_model-00001-of-00002.bin", arch=Digits)
    assert "part 1 of 2" in caught.value.hint
    index.write_text(json.dumps({"weight_map": files | {keys[0]: "../a.bin"}}))
    with pytest.raises(RefusedError, match="names other files"):
        load_checkpoint(path, arch=Digits)
    index.write_text(json.dumps({"weight_map": files}))
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(XaiError, match=r"pytorch_model-00002-of-00002\.bin is missing"):
        load_checkpoint(path, arch=Digits)


class Temporary(nn.Module):
    """A buffer that is made anew and not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("scale", torch.tensor([2.0]), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * self.scale


def test_weights_of_torchscript_that_keeps_what_is_not_saved(tmp_path: Path) -> None:
    model = Temporary().eval()
    torch.jit.script(model).save(str(tmp_path / "a.pt"))
    same(tmp_path / "a.pt", Temporary, model)


def test_a_part_of_the_same_names_and_another_size_is_no_choice(
    tmp_path: Path, model: Digits, images: torch.Tensor
) -> None:
    weights = {f"student.{key}": value for key, value in model.state_dict().items()}
    weights |= {f"teacher.{key}": torch.ones(3, *value.shape) for key, value in model.state_dict().items()}
    torch.save(weights, tmp_path / "a.pt")
    same(tmp_path / "a.pt", Digits, model, images)
    assert "'student.'" in " ".join(load_checkpoint(tmp_path / "a.pt", arch=Digits).facts.notes)


def test_weights_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    net.register_buffer("mask", torch.full((2, 2), -torch.inf))

    def build() -> nn.Module:
        made = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        made.register_buffer("mask", torch.zeros(2, 2))
        return made

    torch.save(net.state_dict(), tmp_path / "whole.pt")
    assert load_checkpoint(tmp_path / "whole.pt", arch=build).facts.notes == ()  # an infinite buffer is a mask
    with torch.no_grad():
        net[0].weight[1] = torch.nan
        net[1].weight[2] = torch.inf
        net[1].running_var[0] = torch.nan
    torch.save(net.state_dict(), tmp_path / "broken.pt")
    (said,) = load_checkpoint(tmp_path / "broken.pt", arch=build).facts.notes
    assert said.startswith("3 of the weights hold NaN or infinite values")
    assert "0.weight (4 of 12), 1.weight (1 of 3), 1.running_var (1 of 3)" in said
    scripted = torch.jit.script(net)
    scripted.save(str(tmp_path / "scripted.pt"))
    with pytest.warns(UserWarning, match="trusting"):
        loaded = load_checkpoint(tmp_path / "scripted.pt", trust=True)
    assert said in loaded.facts.notes
