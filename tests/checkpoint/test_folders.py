"""Folders of one file, archives that break off, and files in place of commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from xaicli.checkpoint.inspection import inspect_checkpoint
from xaicli.checkpoint.load import load_checkpoint
from xaicli.checkpoint.save import convert_checkpoint
from xaicli.errors import XaiError


def _saved(state: dict[str, torch.Tensor], path: Path) -> None:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "last.ckpt", "weights.pth"])
def test_a_folder_of_one_file_is_that_file(tmp_path: Path, name: str) -> None:
    model = nn.Linear(3, 2)
    _saved(model.state_dict(), tmp_path / name)
    (tmp_path / "README.md").write_text("what it is")
    loaded = load_checkpoint(tmp_path, arch=lambda: nn.Linear(3, 2))
    assert torch.equal(loaded.model.weight, model.weight)  # type: ignore[arg-type]
    assert loaded.facts.path == tmp_path / name
    assert {tensor.name for tensor in inspect_checkpoint(tmp_path).tensors} == {"weight", "bias"}
    with pytest.raises(XaiError, match="holds weights but no model"):
        load_checkpoint(tmp_path)


def test_pickled_weights_beside_a_configuration_load_with_arch(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    torch.save({"lr": 1e-3}, tmp_path / "training_args.bin")
    loaded = load_checkpoint(tmp_path, arch=lambda: nn.Linear(3, 2))
    assert torch.equal(loaded.model.weight, model.weight)  # type: ignore[arg-type]
    assert {tensor.name for tensor in inspect_checkpoint(tmp_path).tensors} == {"weight", "bias"}


def test_a_conversion_says_which_weights_it_took(tmp_path: Path) -> None:
    state = nn.Linear(3, 2).state_dict()
    torch.save({"generator": state, "ema": {name: 2 * value for name, value in state.items()}}, tmp_path / "two.pt")
    with pytest.warns(UserWarning, match="took the weights under 'generator'; others by --weights: ema"):
        written = convert_checkpoint(tmp_path / "two.pt")
    assert torch.equal(load_file(written)["weight"], state["weight"])


def test_a_folder_of_two_files_is_asked_for_one(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        torch.save(nn.Linear(3, 2).state_dict(), tmp_path / name)
    with pytest.raises(XaiError, match="a folder without config") as told:
        load_checkpoint(tmp_path, arch=lambda: nn.Linear(3, 2))
    assert told.value.hint == "name one of its files: a.pt, b.pt"


def test_an_archive_that_breaks_off_is_named_for_what_it_is(tmp_path: Path) -> None:
    torch.save(nn.Linear(300, 20).state_dict(), tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    for part in (0.1, 0.5, 0.99):
        (tmp_path / "cut.pt").write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(XaiError, match=r"begins as a zip archive .* and breaks off before its end"):
            load_checkpoint(tmp_path / "cut.pt", arch=lambda: nn.Linear(300, 20))


def test_a_file_in_place_of_a_command_is_told_which(tmp_path: Path, capsys: Any) -> None:
    from xaicli.cli import main

    file = tmp_path / "a.pt"
    torch.save(nn.Linear(3, 2).state_dict(), file)
    assert main(["checkpoint", str(file)]) == 2
    said = capsys.readouterr().err
    assert "has no command" in said
    assert f"xai checkpoint inspect {file}" in said.replace("\n", "")
