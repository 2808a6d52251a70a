"""A failed save leaves the old state, a failed load changes nothing, and no state folder can run code."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import xaicli
from tests.state.training_things import Training, same
from xaicli.checkpoint.save import save_checkpoint
from xaicli.layout import RunLayout
from xaicli.maintenance.doctor import examine
from xaicli.state import TrainingState
from xaicli.state.folder import saved_states


class Refusing:
    """Something stateful that fails on loading, after it has begun."""

    def __init__(self) -> None:
        self.values = {"a": 1}

    def state_dict(self) -> dict[str, int]:
        return dict(self.values)

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.values["a"] = state["a"]
        if state["a"] == 2:
            raise RuntimeError("no, thank you")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    training = Training()
    training.train(3)
    path = training.state.save_state(tmp_path / "states", **training.belongings)
    assert path is not None
    return path


def fails_and_changes_nothing(
    folder: Path, error: type[Exception] | tuple[type[Exception], ...], match: str | None = None, **changed: Any
) -> None:
    """Loading raises, and a training that had gone elsewhere is as it was."""
    training = Training("adam", "step", seed=5)
    training.train(2)
    before = training.everything()
    belongings = {name: {**things, **changed.pop(name, {})} for name, things in training.belongings.items()}
    with pytest.raises(error, match=match):
        training.state.load_state(folder, **belongings, **changed)
    assert same(training.everything(), before)


def net(*sizes: int) -> torch.nn.Module:
    return torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)))


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        (
            {"models": {"net": net(4, 8)}},
            r"models\['net'\]: the saved names differ; missing: none, unexpected: 0.weight|1.",
        ),
        ({"models": {"other": net(4, 8)}}, r"models\['other'\]: it is not in the state, which holds: net"),
        ({"optimizers": {"opt": torch.optim.SGD(net(4, 8).parameters())}}, "is a optimizer SGD but was saved as"),
        ({"optimizers": {"opt": torch.optim.Adam(net(4, 8).parameters())}}, r"hold \[2\] parameters but .* \[6\]"),
        ({"objects": {"scheduler": random.Random()}}, "generator random.Random but was saved as a state_dict"),
        ({"objects": {"losses": {}}}, "it is a dict but was saved as a list"),
        ({"objects": {"losses": np.zeros(3)}}, "of shape"),
        ({"objects": {"noise": np.random.Generator(np.random.MT19937())}}, "generator"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(saved: Path, changed: dict[str, Any], match: str) -> None:
    fails_and_changes_nothing(saved, ValueError, match, **changed)


def test_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    TrainingState().save_state(tmp_path, models={"m": net(4, 8)})
    with pytest.raises(ValueError, match=r"0.weight is of shape \[9, 4\] but was saved as of shape \[8, 4\]"):
        TrainingState().load_state(tmp_path, models={"m": net(4, 9)})


def test_an_optimizers_state_of_other_shapes_is_refused(tmp_path: Path) -> None:
    def trained(model: torch.nn.Module) -> torch.optim.Optimizer:
        optimizer = torch.optim.Adam(model.parameters())
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        return optimizer

    TrainingState().save_state(tmp_path, optimizers={"o": trained(net(4, 8))})
    fresh = torch.optim.Adam(net(4, 9).parameters())
    with pytest.raises(ValueError, match="exp_avg of parameter 0"):
        TrainingState().load_state(tmp_path, optimizers={"o": fresh})
    assert not fresh.state


def test_an_object_that_refuses_late_undoes_everything(tmp_path: Path) -> None:
    training, refusing = Training(), Refusing()
    training.train(1)
    refusing.values["a"] = 2
    belongings = training.belongings
    belongings["models"]["last"] = (last := net(2, 2))
    belongings["objects"]["refusing"] = refusing
    path = training.state.save_state(tmp_path, **belongings)
    assert path is not None
    victim, weights = Refusing(), last.state_dict()["0.weight"].clone()
    changed = {"objects": {"refusing": victim}, "models": {"last": last}}
    fails_and_changes_nothing(path, ValueError, "RuntimeError: no, thank you", **changed)
    assert victim.values == {"a": 1}
    assert torch.equal(last.state_dict()["0.weight"], weights)


def test_a_hook_that_fails_undoes_everything(saved: Path) -> None:
    def refuse(_: int, step: int) -> None:
        raise OSError(f"cannot note step {step}")

    training = Training(seed=4)
    training.state = TrainingState(on_load=refuse, name="hooked")
    before = training.everything()
    with pytest.raises(ValueError, match="cannot note step 4"):
        training.state.load_state(saved, **training.belongings)
    assert same(training.everything(), before)


def test_no_state_is_a_file_not_found(tmp_path: Path) -> None:
    fails_and_changes_nothing(tmp_path / "nowhere", FileNotFoundError, "does not exist")
    fails_and_changes_nothing(tmp_path, FileNotFoundError, "holds no saved state")


@pytest.mark.parametrize("name", ["tensors.pt", "arrays.npz"])
def test_a_missing_part_is_a_file_not_found(saved: Path, name: str) -> None:
    (saved / name).unlink()
    fails_and_changes_nothing(saved, FileNotFoundError, name)


@pytest.mark.parametrize("name", ["state.json", "tensors.pt", "arrays.npz"])
def test_no_damaged_byte_goes_unnoticed(saved: Path, name: str) -> None:
    whole = (saved / name).read_bytes()
    places = random.Random(1).sample(range(len(whole)), 40)
    for place in places:
        byte = bytes([whole[place] ^ 0x11])
        (saved / name).write_bytes(whole[:place] + byte + whole[place + 1 :])
        with pytest.raises(ValueError, match=name):
            TrainingState().load_state(saved)
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        (saved / name).write_bytes(whole[:length])
        if name == "state.json" and length == len(whole) - 1:
            continue  # the last byte is a line end
        fails_and_changes_nothing(saved, ValueError, name)


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change `state.json` and set its checksum right, as an attacker would."""
    facts = json.loads((folder / "state.json").read_text())
    del facts["crc32"]
    for name in facts["files"]:
        content = (folder / name).read_bytes()
        facts["files"][name] = {"bytes": len(content), "crc32": zlib.crc32(content)}
    change(facts)
    checksum = zlib.crc32(json.dumps(facts, separators=(",", ":")).encode())
    (folder / "state.json").write_text(json.dumps({"crc32": checksum, **facts}))


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no training": lambda f: f.pop("training"),
    "no random": lambda f: f.pop("random"),
    "newer": lambda f: f.update(version=2),
    "foreign": lambda f: f.update(format="zip"),
    "step is text": lambda f: f["training"]["values"].update(global_step="7"),
    "step is true": lambda f: f["training"]["values"].update(global_step=True),
    "no epoch": lambda f: f["training"]["values"].pop("epoch_idx"),
    "bad summary": lambda f: f["training"]["summary"].update(values=[[1]]),
    "bad graphs": lambda f: f["training"].update(custom_graphs={"g": [1]}),
    "unknown kind of value": lambda f: f["objects"].update(x={"kind": "data", "value": {"$eval": "1"}}),
    "no such tensor": lambda f: f["objects"].update(x={"kind": "data", "value": {"$tensor": "999"}}),
    "a module, not a dtype": lambda f: f["objects"].update(x={"kind": "data", "value": {"$dtype": "load"}}),
    "object scalar": lambda f: f["objects"].update(x={"kind": "data", "value": {"$scalar": ["|O8", "AAAAAAAAAAA="]}}),
    "unhashable set": lambda f: f["objects"].update(x={"kind": "data", "value": {"$set": [[]]}}),
    "deep": lambda f: f["objects"].update(x={"kind": "data", "value": nested(900)}),
    "data without a value": lambda f: f["objects"].update(x={"kind": "data"}),
    "a loop of -1 batches": lambda f: f["training"].update(loop={"done": -1, "random": None}),
    "a loop without generators": lambda f: f["training"].update(loop={"done": 1, "random": {}}),
    "files are a list": lambda f: f.update(files=[]),
    "models are a list": lambda f: f.update(models=[]),
    "a model without kind": lambda f: f["models"].update(net={}),
    "model values are text": lambda f: f["models"]["net"]["value"].update({"0.weight": "x"}),
    "python's generator": lambda f: f["random"].update(python=[1, 2]),
    "torch's generator": lambda f: f["random"].update(torch=None),
    "a scheduler's state": lambda f: f["objects"]["scheduler"].update(value=[1]),
    "a generator's state": lambda f: f["objects"]["noise"].update(value={"bit_generator": "PCG64", "state": 7}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_forged_state_is_refused_and_changes_nothing(saved: Path, name: str) -> None:
    rewritten(saved, CHANGES[name])
    fails_and_changes_nothing(saved, ValueError)


@pytest.mark.parametrize("depth", [990, 5_000, 200_000])
def test_a_state_nested_too_deeply_is_refused(saved: Path, depth: int) -> None:
    (saved / "state.json").write_text('{"format": "xai-state", "x": ' + "[" * depth + "]" * depth + "}")
    fails_and_changes_nothing(saved, ValueError, "state.json")


class Evil:
    """A pickle of this writes a file when it is loaded without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_pickled_code_is_never_run(saved: Path, tmp_path: Path) -> None:
    target = tmp_path / "ran"
    torch.save({"0": Evil(target)}, saved / "tensors.pt")
    rewritten(saved, lambda _: None)
    fails_and_changes_nothing(saved, ValueError, "tensors.pt")
    np.savez(saved / "arrays.npz", x=np.array([Evil(target)], dtype=object))
    torch.save({}, saved / "tensors.pt")
    rewritten(saved, lambda _: None)
    fails_and_changes_nothing(saved, ValueError, "arrays.npz")
    assert not target.exists()


def test_a_packed_archive_is_refused(saved: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.zeros(10_000_000))
    with zipfile.ZipFile(saved / "arrays.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.npy", content.getvalue())
    rewritten(saved, lambda _: None)
    fails_and_changes_nothing(saved, ValueError, "compressed or overlapping")


@pytest.mark.parametrize(
    ("thing", "match"),
    [
        (torch.empty(3, device="meta"), r"objects\['x'\].*on meta"),
        (torch.eye(3).to_sparse(), "sparse"),
        ({"deep": [1, object()]}, r"objects\['x'\].*\['deep'\]\[1\] is a builtins.object"),
        (np.array([object()]), "array of objects"),
        (lambda: 1, "function"),
        (type("Half", (), {"state_dict": lambda _: {}})(), "no load_state_dict"),
    ],
)
def test_what_no_state_can_hold_leaves_the_old_state(tmp_path: Path, thing: object, match: str) -> None:
    state = TrainingState()
    state.update_global_step()
    state.save_state(tmp_path)
    listing = sorted(tmp_path.rglob("*"))
    state.update_global_step()
    with pytest.raises(ValueError, match=match):
        state.save_state(tmp_path, objects={"x": thing})
    assert sorted(tmp_path.rglob("*")) == listing
    state.load_state(tmp_path)
    assert state.global_step == 1


def test_a_value_that_holds_itself_is_refused(tmp_path: Path) -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="holds itself"):
        TrainingState().save_state(tmp_path, objects={"x": circle})


def test_a_full_disk_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training()
    training.train(1)
    training.state.save_state(tmp_path, **training.belongings)
    listing = sorted(tmp_path.rglob("*"))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    training.train(1)
    for module, name in ((np, "savez"), (torch, "save"), (os, "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(OSError, match="No space left"):
                training.state.save_state(tmp_path, **training.belongings)
        assert sorted(tmp_path.rglob("*")) == listing
    assert [state.step for state in saved_states(tmp_path)] == [1]


def test_a_disk_that_refuses_is_told_in_its_own_words(tmp_path: Path) -> None:
    """Not in those of torch's archive writer, which name no reason: files here may have 100 kB."""
    told: list[tuple[str, Exception]] = []
    state = TrainingState(RunLayout(tmp_path / "run"), on_fault=lambda what, error: told.append((what, error)))
    model = torch.nn.Linear(1000, 1000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        assert state.save_state(models={"net": model}) is None
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(model, tmp_path / "ckpt.pt", arch="torch.nn:Linear")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(what, error.errno) for what, error in told if isinstance(error, OSError)] == [
        ("training state", errno.EFBIG)
    ]
    assert not (tmp_path / "ckpt.pt").exists()
    assert state.save_state(models={"net": model}) is not None


@pytest.mark.parametrize("keep", [0, -1])
def test_keeping_nothing_is_refused(tmp_path: Path, keep: int) -> None:
    with pytest.raises(ValueError, match="keep must be at least 1"):
        TrainingState().save_state(tmp_path, keep=keep)


@pytest.mark.parametrize("thing", [3, None, {"w": 1.0}, torch.nn.Linear, torch.zeros(2)])
@pytest.mark.parametrize("group", ["models", "optimizers"])
def test_what_is_no_model_or_optimizer_is_refused_by_name(tmp_path: Path, group: str, thing: Any) -> None:
    state = TrainingState()
    state.save_state(tmp_path)
    listing = sorted(tmp_path.rglob("*"))
    for act in (state.save_state, state.load_state):
        with pytest.raises(ValueError, match=rf"{group}\['m'\] is .*objects={{name: thing}}"):
            act(tmp_path, **{group: {"m": thing}})
    assert sorted(tmp_path.rglob("*")) == listing


def test_models_must_be_named() -> None:
    with pytest.raises(TypeError, match="models must be a dict"):
        TrainingState().save_state("unused", models=net(2, 2))  # type: ignore[arg-type]


SAVER = """
import sys, numpy
from xaicli.state import TrainingState
state = TrainingState()
while True:
    state.update_global_step()
    state.save_state(sys.argv[1], objects={"x": numpy.full(500_000, state.global_step), "step": state.global_step})
    if state.global_step == 1:
        print("saved", flush=True)  # from here on there is a whole state, whenever the kill comes
"""


def test_a_killed_save_leaves_a_whole_state(tmp_path: Path) -> None:
    chance = random.Random(3)
    for _ in range(8):
        with subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0.05, 0.3))
            process.send_signal(signal.SIGKILL)
        state = TrainingState()
        back = state.load_state(tmp_path)
        assert back["step"] == state.global_step
        assert (back["x"] == back["step"]).all()
    assert len(saved_states(tmp_path)) <= 3
    TrainingState().save_state(tmp_path)
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".tmp")]


@pytest.mark.parametrize("name", ["state.json", "tensors.pt", "arrays.npz"])
def test_the_doctor_names_a_damaged_state(tmp_path: Path, name: str) -> None:
    training = Training()
    with xaicli.Run(tmp_path, name="x") as run:
        run.state.write_summary("loss", 1.0)
        path = run.state.save_state(**training.belongings)
    assert path is not None
    assert examine(RunLayout(tmp_path)).findings == ()
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 0x10
    (path / name).write_bytes(content)
    (tmp_path / "state" / "summary.json").write_text("{")
    found = {finding.path: finding.reason for finding in examine(RunLayout(tmp_path)).findings}
    assert set(found) == {"state/state-000001", "state/summary.json"}
    assert name in found["state/state-000001"]
