"""Folders of one file, archives that break off, and files in place of commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed import checkpoint as distributed_checkpoint

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
    found = inspect_checkpoint(tmp_path)
    assert {tensor.name for tensor in found.tensors} == {"weight", "bias"}
    assert found.verdict == "with --arch"
    (note,) = found.facts.notes
    assert note.startswith("pytorch_model.bin is a pickle, read without running any of it")
    assert note.endswith(f"xai checkpoint convert {tmp_path} -o model.safetensors")


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


def test_pickled_weights_of_a_hugging_face_folder_load_with_its_configuration(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config).eval()
    ids = torch.randint(5, 40, (4, 6))
    mask = torch.ones_like(ids)
    mask[1:, 3:] = 0
    config.architectures = ["BertForSequenceClassification"]
    config.save_pretrained(tmp_path)
    state = {**model.state_dict(), "bert.embeddings.position_ids": torch.arange(512)[None]}
    torch.save(state, tmp_path / "pytorch_model.bin")
    loaded = load_checkpoint(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids), model(ids).logits)
        alone = loaded.model(input_ids=ids, attention_mask=mask)
        torch.testing.assert_close(alone, model(ids, attention_mask=mask).logits)
    assert loaded.facts.input_names == ("input_ids",)
    assert {"attention_mask", "token_type_ids"} <= set(loaded.facts.optional_inputs)
    assert "labels" not in loaded.facts.optional_inputs
    found = inspect_checkpoint(tmp_path)
    assert (found.verdict, found.facts.kind, found.facts.sha256) == ("as it is", "hugging_face", loaded.facts.sha256)
    assert found.facts.label_names == loaded.facts.label_names
    assert {tensor.name for tensor in found.tensors} == set(state)
    assert f"xai checkpoint convert {tmp_path}" in found.facts.notes[-1]
    written = convert_checkpoint(tmp_path, tmp_path.parent / "model.safetensors")
    assert torch.equal(load_file(written)["classifier.weight"], model.classifier.weight)
    (tmp_path / "config.json").write_text('{"architectures": ["A"], "auto_map": {"AutoModel": "a.A"}}')
    assert inspect_checkpoint(tmp_path).verdict == "with --arch"
    config.save_pretrained(tmp_path)
    torch.save({k: v for k, v in state.items() if "classifier" not in k}, tmp_path / "pytorch_model.bin")
    with pytest.raises(XaiError, match="2 missing") as told:
        load_checkpoint(tmp_path)
    assert "classifier.weight" in told.value.hint


def test_a_mask_beside_the_ids_reaches_the_model_of_a_folder(tmp_path: Path, capsys: Any) -> None:
    from xaicli.cli import main

    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=40, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
        )
    ).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(20 if weight.ndim == 2 else 1)
    model.save_pretrained(tmp_path / "model")
    ids = torch.randint(5, 40, (4, 6))
    mask = torch.ones_like(ids)
    mask[1:, 2:] = 0
    np.savez(tmp_path / "texts.npz", input_ids=ids, attention_mask=mask, weight=np.ones(4))
    command = ["saliency", "--model", str(tmp_path / "model"), "--data", str(tmp_path / "texts.npz"), "--pick", "first"]
    assert main([*command, "--methods", "gradient", "--json", "-o", str(tmp_path / "out"), "--samples", "4"]) == 0
    answer = json.loads(capsys.readouterr().out)
    with torch.no_grad():
        own = model(ids, attention_mask=mask).logits.softmax(1).amax(1)
        unmasked = model(ids).logits.softmax(1).amax(1)
    np.testing.assert_allclose([row["top_prob"] for row in answer["rows"]], own, atol=1e-5)
    assert (own - unmasked).abs().max() > 1e-3
    assert any("weight of" in note and "not used" in note for note in answer["warnings"])


BESIDE = ("optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "sampler.bin", "training_args.bin")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "pytorch_model_fsdp.bin"])
def test_a_folder_of_a_trainer_is_its_one_file_of_weights(tmp_path: Path, name: str) -> None:
    model = nn.Linear(4, 2)
    folder = tmp_path / "checkpoint-20"
    folder.mkdir()
    _saved(model.state_dict(), folder / name)
    for other in BESIDE:
        torch.save({"state": {0: {"exp_avg": torch.ones(2, 4)}}}, folder / other)
    torch.save({"cpu": torch.zeros(4)}, folder / "rng_state.pth")
    (folder / "trainer_state.json").write_text('{"epoch": 2.0}')
    loaded = load_checkpoint(folder, arch=lambda: nn.Linear(4, 2))
    assert torch.equal(loaded.model.weight, model.weight)  # type: ignore[arg-type]
    assert loaded.facts.path == folder / name
    (folder / "model_1.safetensors").write_bytes((folder / name).read_bytes())
    with pytest.raises(XaiError, match="without config") as caught:
        load_checkpoint(folder, arch=lambda: nn.Linear(4, 2))
    assert "model_1.safetensors" in caught.value.hint


def test_parts_of_ranks_are_told_unless_the_weights_lie_whole_beside_them(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    (tmp_path / "global_step10").mkdir()
    (tmp_path / "zero_to_fp32.py").write_text("")
    with pytest.raises(XaiError, match="a DeepSpeed checkpoint"):
        load_checkpoint(tmp_path, arch=lambda: nn.Linear(4, 2))
    _saved(model.state_dict(), tmp_path / "model.safetensors")
    loaded = load_checkpoint(tmp_path, arch=lambda: nn.Linear(4, 2))
    assert torch.equal(loaded.model.weight, model.weight)  # type: ignore[arg-type]
    parts = tmp_path / "fsdp"
    (parts / "pytorch_model_fsdp_0").mkdir(parents=True)
    torch.save({}, parts / "optimizer.bin")
    with pytest.raises(XaiError, match=r"accelerate \(FSDP\)") as caught:
        load_checkpoint(parts, arch=lambda: nn.Linear(4, 2))
    assert f"dcp_to_torch {parts}/pytorch_model_fsdp_0 model.pt" in caught.value.hint


def test_an_epoch_of_minus_one_is_none(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    torch.save({"epoch": -1, "step": 7, "model": model.state_dict()}, tmp_path / "last.pt")
    facts = load_checkpoint(tmp_path / "last.pt", arch=lambda: nn.Linear(4, 2)).facts
    assert (facts.epoch, facts.step) == (None, 7)


@pytest.mark.parametrize("ask", [load_checkpoint, inspect_checkpoint, convert_checkpoint])
@pytest.mark.parametrize("form", ["model", "optim", "fsdp", "fsdp index"])
def test_a_part_that_one_rank_saved_is_named_for_what_it_is(ask: Any, form: str, tmp_path: Path) -> None:
    path = tmp_path / f"zero_pp_rank_0_mp_rank_00_{form}_states.pt"
    if form == "model":
        left = {"weight": torch.empty(0), "bias": torch.ones(2)}
        shapes = [{"weight": torch.Size([2, 4]), "bias": torch.Size([2])}]
        path = tmp_path / "renamed.pt"
        torch.save({"module": left, "param_shapes": shapes, "ds_version": "0.14"}, path)
    elif form == "optim":
        torch.save({"optimizer_state_dict": {"fp32_flat_groups": [torch.zeros(10)]}}, path)
    else:
        distributed_checkpoint.save(nn.Linear(4, 2).state_dict(), checkpoint_id=tmp_path, no_dist=True)
        path = tmp_path / {"fsdp": "__0_0.distcp", "fsdp index": ".metadata"}[form]
    with pytest.raises(XaiError) as caught:
        ask(path)
    if form.startswith("fsdp"):
        assert str(path) + " is a part of a distributed checkpoint of torch (FSDP)" in caught.value.message
        assert caught.value.hint.endswith(f"dcp_to_torch {tmp_path} model.pt")
    else:
        assert str(path) + " is a part of a DeepSpeed checkpoint" in caught.value.message
        assert "python zero_to_fp32.py . model" in caught.value.hint
    assert not list(tmp_path.glob("*.safetensors"))


def test_what_deepspeed_saves_whole_is_read(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    shapes = [{name: value.shape for name, value in model.state_dict().items()}]
    torch.save({"module": model.state_dict(), "param_shapes": shapes}, tmp_path / "mp_rank_00_model_states.pt")
    loaded = load_checkpoint(tmp_path / "mp_rank_00_model_states.pt", arch=lambda: nn.Linear(4, 2)).model
    assert torch.equal(loaded.weight, model.weight)  # type: ignore[arg-type]
