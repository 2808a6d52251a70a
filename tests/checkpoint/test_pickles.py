"""Pickles are read as data: every value is the one that was saved, and nothing that a pickle names ever runs."""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import enum
import functools
import inspect
import io
import os
import pickle
import struct
import sys
import tarfile
import types
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from tests.checkpoint.conftest import Digits, gradient
from xaicli.checkpoint.archive import RefusedError
from xaicli.checkpoint.inspection import Verdict, inspect_checkpoint
from xaicli.checkpoint.load import load_checkpoint
from xaicli.checkpoint.pickles import Inert
from xaicli.checkpoint.save import convert_checkpoint
from xaicli.checkpoint.tensors import OddTensor, StoredTensor, plain_array
from xaicli.checkpoint.torch_file import read_torch
from xaicli.errors import DamagedFileError, XaiError

Saver = Callable[[Any, Path], None]


def _legacy(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def _pickle(protocol: int) -> Saver:
    def save(value: Any, path: Path) -> None:
        path.write_bytes(pickle.dumps(value, protocol=protocol))

    return save


SAVERS: dict[str, Saver] = {
    "torch": torch.save,
    "torch, protocol 4": functools.partial(torch.save, pickle_protocol=4),
    "torch before 1.6": _legacy,
    "pickle 0": _pickle(0),
    "pickle 2": _pickle(2),
    "pickle 5": _pickle(5),
}


class Marked(torch.Tensor):
    """A class of tensors of somebody's own."""


def _tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shared = torch.arange(12.0)
    complex_values = torch.randn(3, dtype=torch.complex64)
    return {
        "plain": torch.randn(3, 4),
        "transposed": torch.randn(3, 4).t(),
        "part": torch.randn(10)[2:7],
        "first": shared[:5],
        "second": shared[3:].view(3, 3),
        "half": torch.randn(3).half(),
        "bfloat16": torch.randn(3).bfloat16(),
        "float8": torch.randn(4).to(torch.float8_e4m3fn),
        "uint16": torch.tensor([1, 2], dtype=torch.uint16),
        "int8": torch.tensor([-1, 2], dtype=torch.int8),
        "bool": torch.tensor([True, False]),
        "complex": complex_values,
        "conjugate": complex_values.conj(),
        "negated": complex_values.clone().conj().imag,
        "one": torch.tensor(3),
        "none": torch.zeros(0, 3),
        "parameter": nn.Parameter(torch.randn(2)),
        "subclass": torch.randn(2).as_subclass(Marked),
    }


@pytest.mark.parametrize("saver", SAVERS)
def test_every_tensor_comes_back(saver: str, tmp_path: Path) -> None:
    saved = _tensors()
    SAVERS[saver](saved, tmp_path / "a.pt")
    content = read_torch(tmp_path / "a.pt")
    assert content.value.keys() == saved.keys()
    for name, own in saved.items():
        expected = own.detach().as_subclass(torch.Tensor).resolve_conj().resolve_neg()
        found = content.value[name].read()
        assert (found.dtype, found.shape, found.stride()) == (expected.dtype, expected.shape, expected.stride()), name
        if expected.dtype == torch.float8_e4m3fn:
            found, expected = found.view(torch.uint8), expected.view(torch.uint8)
        assert torch.equal(found, expected), name
    assert content.unknown == {f"{Marked.__module__}.Marked": 1}
    if "torch" in saver:  # pickle itself writes a storage once for each tensor
        one, other = (content.value[name].read().untyped_storage().data_ptr() for name in ("first", "second"))
        assert one == other


def test_a_file_of_the_other_byte_order_is_read(tmp_path: Path) -> None:
    from tests.checkpoint import hostile

    buffer = io.BytesIO()
    value = torch.tensor([1.5, -2.0])
    torch.save({"w": value, "z": torch.tensor([1 + 2j])}, buffer)
    members = hostile.members_of(buffer.getvalue())
    members["byteorder"] = b"big" if sys.byteorder == "little" else b"little"
    members["data/0"] = struct.pack(">2f", 1.5, -2.0)
    members["data/1"] = struct.pack(">2f", 1, 2)
    (tmp_path / "a.pt").write_bytes(hostile.archive_of(members))
    found = read_torch(tmp_path / "a.pt").value
    assert torch.equal(found["w"].read(), value)
    assert found["z"].read().item() == 1 + 2j


def test_torchs_first_form_is_read(tmp_path: Path) -> None:
    """A tar archive, as torch wrote it before 0.1.10; torch itself still reads it, and is the judge."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return "11" if isinstance(value, torch.Tensor) else None

    storages, tensors, whole = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pickle.dump(1, storages, protocol=2)
    pickle.dump((7, "cpu", torch.FloatStorage), storages, protocol=2)
    storages.write(struct.pack("<q6f", 6, *range(6)))
    pickle.dump([], storages, protocol=2)
    pickle.dump(1, tensors, protocol=2)
    pickle.dump((11, 7, torch.FloatTensor), tensors, protocol=2)
    tensors.write(struct.pack("<ii2q2qq", 2, 0, 2, 2, 3, 1, 1))
    Pickler(whole, protocol=2).dump({"w": torch.zeros(2, 2)})
    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        for name, file in (("storages", storages), ("tensors", tensors), ("pickle", whole)):
            info = tarfile.TarInfo(name)
            info.size = len(file.getvalue())
            archive.addfile(info, io.BytesIO(file.getvalue()))
    found = read_torch(tmp_path / "old.pth").value["w"].read()
    assert found.tolist() == [[1, 2], [4, 5]]
    assert torch.equal(found, torch.load(tmp_path / "old.pth", weights_only=False)["w"])


class Colour(enum.Enum):
    RED = 1


PLAIN: dict[str, Any] = {
    "ordered": collections.OrderedDict(a=1, b=2),
    "counter": collections.Counter("aab"),
    "default": collections.defaultdict(list, {"x": [1]}),
    "queue": collections.deque([1, 2], maxlen=3),
    "set": {1, 2},
    "frozen": frozenset({"a"}),
    "complex": 1 - 2j,
    "bytes": b"x\xff",
    "bytearray": bytearray(b"ab"),
    "path": PurePosixPath("a/b"),
    "settings": argparse.Namespace(lr=0.1, out=PurePosixPath("x")),
    "when": datetime.datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
    "day": datetime.date(2020, 1, 2),
    "size": (1, 2),
    "large": 10**40,
    "nothing": None,
    "nested": [({"a": [1, (2,)]},)],
}


@pytest.mark.parametrize("saver", SAVERS)
def test_plain_values_come_back(saver: str, tmp_path: Path) -> None:
    SAVERS[saver]({**PLAIN, "torch": torch.Size([1, 2])}, tmp_path / "a.pt")
    content = read_torch(tmp_path / "a.pt")
    assert content.value == {**PLAIN, "torch": (1, 2)}
    assert not content.unknown


ARRAYS: dict[str, Any] = {
    "float": np.float64(0.9),
    "integer": np.int64(-3),
    "truth": np.bool_(True),
    "array": np.arange(6.0).reshape(2, 3),
    "by column": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "text": np.array(["ab", "c"]),
    "big": np.arange(3, dtype=">i4"),
    "empty": np.zeros((0, 2), np.float32),
    "date": np.datetime64("2020-01-01T00:00:01", "ns"),
}


@pytest.mark.parametrize("saver", SAVERS)
def test_values_of_numpy_come_back(saver: str, tmp_path: Path) -> None:
    SAVERS[saver](ARRAYS, tmp_path / "a.pt")
    content = read_torch(tmp_path / "a.pt")
    for name, own in ARRAYS.items():
        found = plain_array(content.value[name]) if isinstance(own, np.ndarray) else content.value[name]
        assert found is not None
        assert found.dtype == own.dtype, name
        assert np.array_equal(found, own), name
    assert not content.unknown


def test_other_classes_stand_inert_named_and_counted(tmp_path: Path) -> None:
    gone = types.ModuleType("config_library")
    gone.Settings = type("Settings", (dict,), {"__module__": "config_library"})  # type: ignore[attr-defined]
    sys.modules["config_library"] = gone
    try:
        settings_of = gone.Settings(lr=1)  # type: ignore[attr-defined]
        value = {"one": settings_of, "colour": Colour.RED, "part": functools.partial(max, 1), "other": gone.Settings()}  # type: ignore[attr-defined]
        torch.save(value, tmp_path / "a.pt")
    finally:
        del sys.modules["config_library"]
    content = read_torch(tmp_path / "a.pt")
    assert content.unknown == {"config_library.Settings": 2, f"{__name__}.Colour": 1, "functools.partial": 1}
    assert content.value["one"].entries == {"lr": 1}
    assert isinstance(content.value["colour"], Inert)
    assert "config_library" not in sys.modules


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: torch.eye(2).to_sparse(), "not dense"),
        (lambda: torch.eye(2).to_sparse_csr(), "not dense"),
        (lambda: torch.zeros(2, device="meta"), "without values"),
        (lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "not dense"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested")
def test_odd_tensors_are_named_and_take_nothing_with_them(
    make: Callable[[], torch.Tensor], what: str, tmp_path: Path
) -> None:
    value = make()
    torch.save({"model": {"w": torch.ones(2)}, "buffer": value}, tmp_path / "a.pt")
    content = read_torch(tmp_path / "a.pt").value
    assert isinstance(content["buffer"], OddTensor)
    assert what in content["buffer"].what
    assert isinstance(content["model"]["w"], StoredTensor)


class Calls:
    """A pickle of this calls something when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.called = (function, arguments)

    def __reduce__(self) -> Any:
        return self.called


def _payloads(canary: Path) -> dict[str, Any]:
    code = f"open({str(canary)!r}, 'w')"
    return {
        "system": Calls(os.system, f"touch {canary}"),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "open": Calls(open, str(canary), "w"),
        "touch": Calls(Path.touch, canary),
        "mkdir": Calls(os.mkdir, str(canary)),
        "import": Calls(__import__, "antigravity"),
        "run": Calls(__import__("subprocess").run, ["touch", str(canary)]),
        "popen": Calls(__import__("subprocess").Popen, ["touch", str(canary)]),
        "runpy": Calls(__import__("runpy").run_path, str(canary)),
        "shutil": Calls(__import__("shutil").copy, "/etc/hostname", str(canary)),
        "computed": Calls(functools.partial(open, str(canary), "w")),
    }


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", list(_payloads(Path("x"))))
def test_what_only_code_would_call_is_refused_by_name(name: str, protocol: int, tmp_path: Path, canary: Path) -> None:
    payload = _payloads(canary)[name]
    torch.save({"model": {"w": torch.ones(1)}, "x": payload}, tmp_path / "a.pt", pickle_protocol=max(protocol, 2))
    with pytest.raises(RefusedError, match="runs code when it is read") as raised:
        load_checkpoint(tmp_path / "a.pt", arch="zoo:digits")
    assert "xai checkpoint convert" in raised.value.hint
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(payload, protocol=max(protocol, 2)))
    with pytest.raises(RefusedError, match="runs code when it is read"):
        load_checkpoint(tmp_path / "b.pkl")


def test_a_function_from_elsewhere_is_never_called(tmp_path: Path, canary: Path) -> None:
    torch.save({"model": {"w": torch.ones(1)}, "x": Calls(_touch, str(canary))}, tmp_path / "a.pt")
    content = read_torch(tmp_path / "a.pt")
    assert content.unknown == {f"{__name__}._touch": 1}
    assert content.value["x"].arguments == (str(canary),)


def test_a_function_made_by_a_package_is_never_called(tmp_path: Path) -> None:
    raw = b"\x80\x02" + b"cmaker\nof\nU\x01a\x85R" + b"U\x01b\x85R."
    (tmp_path / "a.pkl").write_bytes(raw)
    content = read_torch(tmp_path / "a.pkl")
    assert content.unknown == {"maker.of": 2}


def _touch(path: str) -> None:
    Path(path).touch()


def test_a_key_that_takes_for_ever_to_hash_is_refused(tmp_path: Path) -> None:
    nested: Any = ()
    for _ in range(60):
        nested = (nested, nested)
    # Each level is the one below twice: 60 instructions.
    raw = b"\x80\x02}" + b")" + b"2\x86" * 60 + b"K\x01s."
    (tmp_path / "a.pkl").write_bytes(raw)
    with pytest.raises(DamagedFileError, match="no plain value"):
        read_torch(tmp_path / "a.pkl")


def test_an_escape_that_no_pickle_writes_is_damage(tmp_path: Path) -> None:
    """Python's own reader takes it with a DeprecationWarning, which is an error here."""
    (tmp_path / "sound.pkl").write_bytes(b"(dS'na\\tme'\nI3\ns.")
    assert read_torch(tmp_path / "sound.pkl").value == {"na\tme": 3}
    (tmp_path / "a.pkl").write_bytes(b"(dS'na\\ome'\nI3\ns.")
    with pytest.raises(DamagedFileError, match="invalid escape sequence"):
        read_torch(tmp_path / "a.pkl")


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damage_anywhere_in_a_pickle_is_an_error_or_a_value(data: st.DataObject, tmp_path: Path) -> None:
    whole = pickle.dumps({**PLAIN, **ARRAYS, "x": Colour.RED}, protocol=data.draw(st.sampled_from([2, 4])))
    raw = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(3, len(raw)))]
    (tmp_path / "a.pkl").write_bytes(bytes(raw))
    with contextlib.suppress(XaiError):
        read_torch(tmp_path / "a.pkl")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damage_anywhere_in_a_file_is_an_error_or_a_value(data: st.DataObject, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(
        {"model": nn.Linear(2, 2), "n": np.float64(1), "o": collections.OrderedDict(w=torch.ones(3))},
        buffer,
        _use_new_zipfile_serialization=data.draw(st.booleans()),
    )
    raw = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a.pt").write_bytes(bytes(raw))
    with contextlib.suppress(XaiError):
        inspect_checkpoint(tmp_path / "a.pt")
        load_checkpoint(tmp_path / "a.pt", arch=lambda: nn.Linear(2, 2), weights="model")


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("form", ["module", "training dict", "TorchScript", "parallel", "numpy"])
def test_weights_come_out_of_a_pickled_module_without_its_class(
    form: str, tmp_path: Path, model: Digits, images: torch.Tensor, zoo: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "a.pt"
    if form == "TorchScript":
        torch.jit.save(torch.jit.script(model), path)
    elif form == "numpy":
        path.write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in model.state_dict().items()}}, protocol=2))
    else:
        content = {"module": model, "training dict": {"model": model, "epoch": 3}, "parallel": nn.DataParallel(model)}
        torch.save(content[form], path)
    recwarn.clear()
    loaded = load_checkpoint(path, arch="zoo:digits", pythonpath=[zoo])
    torch.testing.assert_close(gradient(loaded.model, images), gradient(model, images))
    converted = convert_checkpoint(path, tmp_path / "a.safetensors")
    loaded = load_checkpoint(converted, arch="zoo:digits", pythonpath=[zoo])
    torch.testing.assert_close(gradient(loaded.model, images), gradient(model, images))
    assert not [w for w in recwarn if "trusting" in str(w.message)]


@pytest.mark.parametrize("protocol", [0, 1, 2, 5])
def test_a_plain_pickle_of_a_state_dict(
    protocol: int, tmp_path: Path, model: Digits, images: torch.Tensor, zoo: Path
) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(model.state_dict(), protocol=protocol))
    loaded = load_checkpoint(tmp_path / "a.pkl", arch="zoo:digits", pythonpath=[zoo])
    torch.testing.assert_close(gradient(loaded.model, images), gradient(model, images))


class Difference(nn.Module):
    """Two inputs whose order counts."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a - 2 * b


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_trusted_torchscript_takes_its_inputs_by_name(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Difference()), tmp_path / "a.pt")
    with pytest.warns(UserWarning, match="trusting"):
        model = load_checkpoint(tmp_path / "a.pt", trust=True).model
    a, b = torch.randn(2, 3), torch.randn(2, 3)
    torch.testing.assert_close(model(b=b, a=a), a - 2 * b)
    torch.testing.assert_close(model(a, b), a - 2 * b)
    assert list(inspect.signature(model.forward).parameters) == ["a", "b"]


def test_a_module_of_odd_parts_takes_nothing_down(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    model._non_persistent_buffers_set = Colour.RED  # type: ignore[assignment]
    torch.save(model, tmp_path / "a.pt")
    loaded = load_checkpoint(tmp_path / "a.pt", arch=lambda: nn.Linear(2, 2))
    assert torch.equal(loaded.model.state_dict()["weight"], model.weight)


def test_what_was_not_built_is_a_note_of_the_loaded_model(tmp_path: Path, model: Digits, zoo: Path) -> None:
    content = {"state_dict": model.state_dict(), "colours": [Colour.RED], "best": np.float64(0.5), "epoch": 4}
    torch.save(content, tmp_path / "a.pt")
    loaded = load_checkpoint(tmp_path / "a.pt", arch="zoo:digits", pythonpath=[zoo])
    assert loaded.facts.epoch == 4
    assert loaded.facts.notes == (f"1 object of classes that were not built: {__name__}.Colour",)
    found = inspect_checkpoint(tmp_path / "a.pt")
    assert found.verdict is Verdict.WITH_ARCH
    assert found.facts.notes == loaded.facts.notes


def test_a_trusted_module_loads_though_another_class_is_missing(
    tmp_path: Path, model: Digits, images: torch.Tensor
) -> None:
    gone = types.ModuleType("config_library")
    gone.Settings = type("Settings", (), {"__module__": "config_library"})  # type: ignore[attr-defined]
    sys.modules["config_library"] = gone
    torch.save({"model": model, "settings": gone.Settings()}, tmp_path / "a.pt")  # type: ignore[attr-defined]
    del sys.modules["config_library"]
    with pytest.warns(UserWarning, match="trusting"):
        loaded = load_checkpoint(tmp_path / "a.pt", trust=True)
    torch.testing.assert_close(gradient(loaded.model, images), gradient(model, images))
    assert loaded.facts.notes == ("1 object of classes that are not installed: config_library.Settings",)


def without(name: str, **classes: Any) -> Any:
    """A module that can be imported while something is saved, and not afterwards."""
    gone = types.ModuleType(name)
    for of, base in classes.items():
        setattr(gone, of, type(of, (base,), {"__module__": name}))
    sys.modules[name] = gone
    return gone


class _Pair(nn.Module):
    def __init__(self, one: nn.Module) -> None:
        super().__init__()
        self.one = one
        self.other = nn.Linear(2, 2)


@pytest.mark.parametrize("place", ["whole", "in a training's dict", "a layer", "in an object"])
@pytest.mark.parametrize("name", ["networks_of_mine", "__main__"])
def test_a_trusted_module_whose_class_is_not_here_is_told_with_the_way_out(
    name: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "__main__":
        monkeypatch.setitem(sys.modules, name, sys.modules[name])
    gone = without(name, Net=nn.Linear, Trainer=object)
    trainer = gone.Trainer()
    trainer.model = gone.Net(2, 2)
    held = {
        "whole": trainer.model,
        "in a training's dict": {"epoch": 3, "model": trainer.model},
        "in an object": trainer,
    }
    torch.save(held.get(place, _Pair(trainer.model)), tmp_path / "a.pt")
    del sys.modules[name]
    sys.modules.setdefault("__main__", types.ModuleType("__main__"))
    missing = "Net" if place != "in an object" else "(Net|Trainer)"
    why = f"No module named '{name}'" if name != "__main__" else f"__main__ has no {missing}"
    with (
        pytest.warns(UserWarning, match="trusting"),
        pytest.raises(XaiError, match=rf"a\.pt needs code that is not here: {why} \({name}\.{missing}\)") as raised,
    ):
        load_checkpoint(tmp_path / "a.pt", trust=True)
    assert "--arch module:factory takes its weights" in raised.value.hint
    assert ("--pythonpath DIR" in raised.value.hint) is (name != "__main__")
    if place != "a layer":
        notes = inspect_checkpoint(tmp_path / "a.pt").facts.notes
        assert raised.value.hint in notes[-1]
        assert f"{name}.Net" in notes[-1]


def test_a_module_that_fails_where_it_is_imported_is_no_damage(tmp_path: Path) -> None:
    torch.save(without("fails_at_import", Net=nn.Linear).Net(2, 2), tmp_path / "a.pt")
    del sys.modules["fails_at_import"]
    (tmp_path / "fails_at_import.py").write_text("raise RuntimeError('no display')")
    with (
        pytest.warns(UserWarning, match="trusting"),
        pytest.raises(XaiError, match="fails_at_import, which fails where it is imported: RuntimeError: no display"),
    ):
        load_checkpoint(tmp_path / "a.pt", trust=True, pythonpath=[tmp_path])


def test_of_several_trusted_modules_the_one_asked_for_is_loaded(tmp_path: Path) -> None:
    held = {"generator": nn.Linear(2, 3), "nets": [nn.Linear(2, 4)], "discriminator": nn.Linear(2, 5)}
    torch.save(held, tmp_path / "a.pt")
    for name, n_outputs in (("generator", 3), ("nets.0", 4), ("discriminator", 5)):
        with pytest.warns(UserWarning, match="trusting"):
            model = load_checkpoint(tmp_path / "a.pt", trust=True, weights=name).model
        assert model(torch.ones(1, 2)).shape == (1, n_outputs)
