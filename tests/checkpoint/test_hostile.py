"""A checkpoint from a stranger runs no code, takes no endless memory, and is refused with its reason."""

from __future__ import annotations

import contextlib
import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.checkpoint import hostile
from tests.checkpoint.conftest import Digits, gradient
from xaicli.checkpoint.archive import RefusedError
from xaicli.checkpoint.inspection import Verdict, inspect_checkpoint
from xaicli.checkpoint.load import load_checkpoint
from xaicli.cli import main
from xaicli.errors import DamagedFileError, XaiError

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


@pytest.mark.parametrize("name", hostile.PACKAGES)
def test_a_crafted_graph_is_refused_with_its_reason(name: str, pt2: Path, tmp_path: Path, canary: Path) -> None:
    edit, reason = hostile.PACKAGES[name]
    path = tmp_path / "model.pt2"
    path.write_bytes(hostile.edited(pt2.read_bytes(), edit, canary))
    with pytest.raises(RefusedError) as raised:
        load_checkpoint(path)
    assert reason in raised.value.message
    assert f"xai checkpoint convert {path}" in raised.value.hint or raised.value.hint


@pytest.mark.parametrize("name", hostile.PACKAGES)
def test_a_crafted_graph_inside_the_shims_checkpoint_is_refused_too(
    name: str, ckpt: Path, pt2: Path, tmp_path: Path, canary: Path
) -> None:
    edit, reason = hostile.PACKAGES[name]
    content = torch.load(ckpt, weights_only=True)
    crafted = bytearray(hostile.edited(pt2.read_bytes(), edit, canary))
    torch.save({**content, "graph": torch.frombuffer(crafted, dtype=torch.uint8)}, tmp_path / "ckpt.pt")
    with pytest.raises(RefusedError) as raised:
        load_checkpoint(tmp_path / "ckpt.pt")
    assert reason in raised.value.message


@pytest.mark.parametrize("name", hostile.RUN_ON_LOAD)
def test_the_corpus_is_alive(name: str, pt2: Path, tmp_path: Path) -> None:
    """What is refused here does run in torch's own loader: the payloads are no paper tigers."""
    mark = tmp_path / "ran"
    crafted = hostile.edited(pt2.read_bytes(), hostile.PACKAGES[name][0], mark)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(Exception):
            torch.export.load(io.BytesIO(crafted))
    assert mark.exists()


def test_inspecting_a_crafted_graph_says_what_it_would_run(pt2: Path, tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(hostile.edited(pt2.read_bytes(), hostile.opaque_constant, canary))
    found = inspect_checkpoint(path)
    assert found.verdict is Verdict.WITH_TRUST
    assert "opaque constant" in found.refusal
    assert found.runs == (found.refusal,)


def test_sample_inputs_are_dropped_unread(
    pt2: Path, tmp_path: Path, canary: Path, model: Digits, images: torch.Tensor
) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(hostile.with_sample_inputs(pt2.read_bytes(), canary))
    loaded = load_checkpoint(path).model
    torch.testing.assert_close(gradient(loaded, images), gradient(model, images))


def test_stack_traces_and_other_remarks_do_no_harm(
    pt2: Path, tmp_path: Path, canary: Path, images: torch.Tensor
) -> None:
    evil = f"\\n    open({str(canary)!r}, 'w')\\n"
    members = hostile.members_of(pt2.read_bytes())
    members[hostile.GRAPH] = members[hostile.GRAPH].replace(b'"stack_trace": "', f'"stack_trace": "{evil}'.encode())
    (tmp_path / "model.pt2").write_bytes(hostile.archive_of(members))
    load_checkpoint(tmp_path / "model.pt2").model(images)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin"])
def test_a_pickle_is_refused_and_what_it_calls_is_named(suffix: str, tmp_path: Path, canary: Path) -> None:
    path = tmp_path / f"model{suffix}"
    torch.save({"state_dict": {"w": torch.zeros(2)}, "x": hostile.Touch(canary)}, path)
    with pytest.raises(RefusedError) as raised:
        load_checkpoint(path)
    assert "io.open" in raised.value.message or "_io.open" in raised.value.message
    assert f"xai checkpoint convert {path} --trust-checkpoint" in raised.value.hint


@pytest.mark.parametrize("variable", ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"])
def test_no_variable_opens_the_door(
    variable: str, pt2: Path, tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    torch.save({"w": torch.zeros(2), "x": hostile.Touch(canary)}, tmp_path / "model.pt")
    with pytest.raises(RefusedError):
        load_checkpoint(tmp_path / "model.pt")
    (tmp_path / "model.pt2").write_bytes(hostile.with_sample_inputs(pt2.read_bytes(), canary))
    load_checkpoint(tmp_path / "model.pt2")


def test_an_old_bare_pickle_is_refused(tmp_path: Path, canary: Path) -> None:
    for protocol in (2, 4):
        (tmp_path / "model.pth").write_bytes(pickle.dumps(hostile.Touch(canary), protocol=protocol))
        with pytest.raises(RefusedError, match=r"runs code when it is read: \w*io\.open\n"):
            load_checkpoint(tmp_path / "model.pth")
    torch.save({"x": hostile.Touch(canary)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(RefusedError) as raised:
        load_checkpoint(tmp_path / "old.pth")
    assert "open" in raised.value.message


def test_a_pickled_module_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "model.pt")
    with pytest.raises(RefusedError) as raised:
        load_checkpoint(tmp_path / "model.pt")
    assert "torch.nn.modules.container.Sequential" in raised.value.message


def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "model.pt")
    with pytest.raises(RefusedError, match="TorchScript"):
        load_checkpoint(tmp_path / "model.pt")


def test_a_zero_stride_giant_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(10**12)}, tmp_path / "model.pt")
    with pytest.raises(RefusedError, match="larger than its storage") as raised:
        load_checkpoint(tmp_path / "model.pt")
    assert "4,000,000,000,000 of 4 bytes" in raised.value.message


def test_a_sparse_giant_is_refused(tmp_path: Path) -> None:
    with torch.sparse.check_sparse_tensor_invariants(False):
        giant = torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1), (10**12,))
    torch.save({"w": giant}, tmp_path / "model.pt")
    with pytest.raises(RefusedError, match="not dense"):
        load_checkpoint(tmp_path / "model.pt")


def test_a_tensor_without_values_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(10**12, device="meta")}, tmp_path / "model.pt")
    with pytest.raises(RefusedError, match="without values"):
        load_checkpoint(tmp_path / "model.pt")


def test_a_graph_of_the_old_format_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt2", "w") as file:
        for name in ("version", "serialized_exported_program.json", "serialized_state_dict.pt"):
            file.writestr(name, b"")
    with pytest.raises(RefusedError, match="as torch wrote it before") as raised:
        load_checkpoint(tmp_path / "model.pt2")
    assert "torch.export.save" in raised.value.hint


def test_a_list_of_lists_of_lists_takes_no_time(tmp_path: Path) -> None:
    nested: list[Any] = [torch.zeros(1)]
    for _ in range(60):
        nested = [nested, nested]
    torch.save({"state_dict": {"w": torch.zeros(2)}, "laughs": nested}, tmp_path / "model.pt")
    assert inspect_checkpoint(tmp_path / "model.pt").tensors[0].name == "state_dict.w"


def test_a_deflated_bomb_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(5_000_000)}, buffer)
    bomb = hostile.archive_of(hostile.members_of(buffer.getvalue()), compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000
    (tmp_path / "model.pt").write_bytes(bomb)
    with pytest.raises(RefusedError, match="a compressed member"):
        load_checkpoint(tmp_path / "model.pt")


def test_overlapping_members_are_refused(ckpt: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(hostile.overlapping(ckpt.read_bytes()))
    with pytest.raises(XaiError, match=r"overlap|two names"):
        load_checkpoint(tmp_path / "model.pt")


def test_links_in_an_archive_are_refused(pt2: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(hostile.linked(pt2.read_bytes()))
    with pytest.raises(RefusedError, match="a symbolic link"):
        load_checkpoint(tmp_path / "model.pt2")


def test_a_link_out_of_a_run_is_refused(ckpt: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (tmp_path / "run" / "xai.json").write_text("{}")
    (folder / "ckpt.pt").symlink_to(ckpt)
    with pytest.raises(RefusedError, match="a symbolic link that leaves its run"):
        load_checkpoint(folder / "ckpt.pt")
    (tmp_path / "run" / "linked").symlink_to(ckpt.parent)
    with pytest.raises(RefusedError, match="a symbolic link that leaves its run"):
        load_checkpoint(tmp_path / "run" / "linked" / "ckpt.pt")
    (folder / "real.pt").write_bytes(ckpt.read_bytes())
    (folder / "latest.pt").symlink_to("real.pt")
    assert load_checkpoint(folder / "latest.pt").facts.epoch == 3


@pytest.mark.parametrize("kind", ["ckpt", "pt2"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_called_damaged(
    kind: str, share: float, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole: Path = request.getfixturevalue(kind)
    path = tmp_path / whole.name
    data = whole.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DamagedFileError) as raised:
        load_checkpoint(path)
    assert str(path) in raised.value.message


@pytest.mark.parametrize("kind", ["ckpt", "pt2"])
def test_a_weight_that_changed_on_the_disk_is_damage(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """torch itself would load it and compute with it."""
    whole: Path = request.getfixturevalue(kind)
    data = bytearray(whole.read_bytes())
    weight = hostile.members_of(bytes(data))["data/0" if kind == "ckpt" else "data/weights/weight_0"]
    data[data.index(weight) + 3] ^= 0x10
    (tmp_path / whole.name).write_bytes(data)
    with pytest.raises(DamagedFileError, match="are not those that were written"):
        load_checkpoint(tmp_path / whole.name)


def test_an_archive_without_checksums_is_read(tmp_path: Path, model: Digits) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(model.state_dict(), tmp_path / "model.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert len(inspect_checkpoint(tmp_path / "model.pt").tensors) == 9


def test_flipped_bytes_never_crash(pt2: Path, tmp_path: Path) -> None:
    """Whatever 60 single changes do to an archive, the answer is an inspection or an XaiError."""
    data = bytearray(pt2.read_bytes())
    path = tmp_path / "model.pt2"
    for step in range(60):
        position = step * len(data) // 60
        changed = bytearray(data)
        changed[position] ^= 0x41
        path.write_bytes(changed)
        with contextlib.suppress(XaiError):
            assert inspect_checkpoint(path).facts.path == path


def test_bytes_before_and_after_an_archive_are_refused(pt2: Path, tmp_path: Path) -> None:
    for data in (pt2.read_bytes() + b"tail", b"head" + pt2.read_bytes(), pt2.read_bytes() + pt2.read_bytes()):
        (tmp_path / "model.pt2").write_bytes(data)
        with pytest.raises(XaiError):
            load_checkpoint(tmp_path / "model.pt2")


@pytest.mark.parametrize(
    "config",
    [
        '{"auto_map": {"AutoModel": "evil.Evil"}, "architectures": ["Evil"]}',
        '{"architectures": ["ViTModel"], "text_config": {"auto_map": {"AutoModel": "evil.Evil"}}}',
        '{"architectures": ["DetrModel"], "backbone": "evil/weights", "use_pretrained_backbone": true}',
    ],
)
def test_a_hugging_face_folder_that_fetches_code_is_refused(config: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "evil.py").write_text("raise SystemExit")
    with pytest.raises(RefusedError, match="fetches code"):
        load_checkpoint(tmp_path)


def test_settings_inside_a_run_are_not_the_users(
    tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run from a stranger brings `xai.toml` and a module; the user steps into it and types a command."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "xai.json").write_text("{}")
    (run / "evil.py").write_text(f"open({str(canary)!r}, 'w')")
    (run / "xai.toml").write_text('[saliency]\narch = "evil:make"\ndata = "evil:make"\npythonpath = ["."]\n')
    torch.save(nn.Linear(2, 2).state_dict(), run / "checkpoints" / "ckpt.pt")
    for folder in (run, run / "checkpoints"):
        monkeypatch.chdir(folder)
        assert main(["saliency", "--model", str(run / "checkpoints" / "ckpt.pt")]) != 0
        assert "error: " in capsys.readouterr().err


def test_the_command_line_refuses_quietly_and_shows_what_to_type(
    tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pt"
    torch.save({"x": hostile.Touch(canary)}, path)
    assert main(["checkpoint", "convert", str(path), "-o", str(tmp_path / "out.safetensors")]) == 1
    said = capsys.readouterr().err
    assert "error: " in said
    assert "hint: see what it would run: xai checkpoint inspect" in said
    assert not (tmp_path / "out.safetensors").exists()
    assert main(["checkpoint", "inspect", str(path)]) == 0
    assert "would run: " in capsys.readouterr().out
