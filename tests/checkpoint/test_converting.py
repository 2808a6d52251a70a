"""`xai checkpoint inspect` and `convert`: any file becomes one that cannot run code, with its facts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.checkpoint.conftest import Digits, gradient
from xaicli.checkpoint.archive import RefusedError
from xaicli.checkpoint.facts import Kind
from xaicli.checkpoint.inspection import Verdict, inspect_checkpoint
from xaicli.checkpoint.load import load_checkpoint, read_checkpoint
from xaicli.checkpoint.save import convert_checkpoint
from xaicli.cli import main
from xaicli.errors import UsageError, XaiError

Shown = pytest.CaptureFixture[str]


def test_weights_and_facts_survive_safetensors(
    ckpt: Path, tmp_path: Path, model: Digits, images: torch.Tensor, zoo: Path
) -> None:
    path = convert_checkpoint(ckpt, tmp_path / "model.safetensors")
    loaded = load_checkpoint(path, arch="zoo:digits", pythonpath=[zoo])
    facts = loaded.facts
    assert (facts.kind, facts.epoch, facts.step, facts.mean) == (Kind.SAFETENSORS, 3, 120, (0.5,))
    assert (facts.label_names, facts.input_shapes) == (("cat", "dog", "hen", "owl"), ((1, 6, 6),))
    torch.testing.assert_close(gradient(loaded.model, images), gradient(model, images))


@pytest.mark.parametrize("form", ["pt2", "pt"])
def test_weights_become_a_graph(form: str, tmp_path: Path, model: Digits, images: torch.Tensor, zoo: Path) -> None:
    torch.save({"state_dict": model.state_dict(), "epoch": 5}, tmp_path / "train.pth")
    path = convert_checkpoint(
        tmp_path / "train.pth",
        to=form,
        arch="zoo:digits",
        pythonpath=[zoo],
        input_shape=[(1, 6, 6)],
        label_names=["a", "b", "c", "d"],
    )
    assert path == tmp_path / f"train.{form}"
    loaded = load_checkpoint(path)
    assert loaded.facts.static_batch is None
    for batch in (images, images[:1]):
        torch.testing.assert_close(gradient(loaded.model, batch), gradient(model, batch))
    if form == "pt":
        assert (loaded.facts.epoch, loaded.facts.label_names) == (5, ("a", "b", "c", "d"))


def test_a_graph_becomes_the_shims_checkpoint(pt2: Path, tmp_path: Path, model: Digits, images: torch.Tensor) -> None:
    path = convert_checkpoint(pt2, tmp_path / "ckpt.pt", label_names=["cat", "dog", "hen", "owl"])
    loaded = load_checkpoint(path)
    assert (loaded.facts.kind, loaded.facts.input_shapes) == (Kind.XAI, ((1, 6, 6),))
    torch.testing.assert_close(gradient(loaded.model, images), gradient(model, images))


def test_a_graph_gives_its_weights(pt2: Path, tmp_path: Path, model: Digits) -> None:
    from safetensors.torch import load_file

    found = load_file(convert_checkpoint(pt2, tmp_path / "weights.safetensors"))
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[key], value) for key, value in model.state_dict().items())


class Counting(nn.Module):
    """A model that looks at its values: torch cannot export it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * len(x.nonzero().tolist())


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ["train.pt", "whole.pt", "script.pt"])
def test_weights_are_converted_without_running_what_they_lie_in(
    name: str, tmp_path: Path, model: Digits, images: torch.Tensor, zoo: Path, recwarn: pytest.WarningsRecorder
) -> None:
    if name == "train.pt":
        torch.save({"state_dict": model.state_dict(), "args": Namespace(lr=1)}, tmp_path / name)
    elif name == "whole.pt":
        torch.save(model, tmp_path / name)
    else:
        torch.jit.save(torch.jit.trace(model, images[:2]), tmp_path / name)
    recwarn.clear()
    for trust in (False, True):
        path = convert_checkpoint(tmp_path / name, trust=trust)
        loaded = load_checkpoint(path, arch="zoo:digits", pythonpath=[zoo])
        torch.testing.assert_close(gradient(loaded.model, images), gradient(model, images))
    assert not [w for w in recwarn if "trusting" in str(w.message)]


def test_a_trusted_module_becomes_a_graph(tmp_path: Path, model: Digits, images: torch.Tensor) -> None:
    torch.save(model, tmp_path / "whole.pt")
    with pytest.warns(UserWarning, match="trusting"):
        path = convert_checkpoint(tmp_path / "whole.pt", to="pt2", trust=True, input_shape=[(1, 6, 6)])
    torch.testing.assert_close(gradient(load_checkpoint(path).model, images), gradient(model, images))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_trusted_program_becomes_a_graph(tmp_path: Path, model: Digits, images: torch.Tensor) -> None:
    torch.jit.save(torch.jit.trace(model, images[:2]), tmp_path / "script.pt")
    with pytest.warns(UserWarning, match="trusting"):
        path = convert_checkpoint(tmp_path / "script.pt", to="pt2", trust=True, input_shape=[(1, 6, 6)])
    torch.testing.assert_close(gradient(load_checkpoint(path).model, images), gradient(model, images))


def test_what_torch_cannot_export_says_what_to_do(tmp_path: Path) -> None:
    torch.save(Counting(), tmp_path / "whole.pt")
    for form in ("pt2", "pt"):
        with pytest.raises(XaiError, match="torch cannot export") as raised, pytest.warns(match="trusting"):
            convert_checkpoint(tmp_path / "whole.pt", to=form, output=tmp_path / "o", trust=True, input_shape=[(2,)])
        assert "safetensors" in raised.value.hint
        assert not (tmp_path / "o").exists()


def test_a_graph_needs_to_know_its_input(tmp_path: Path, model: Digits, zoo: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "model.pth")
    with pytest.raises(UsageError, match="does not say what its inputs look like") as raised:
        convert_checkpoint(tmp_path / "model.pth", to="pt2", arch="zoo:digits", pythonpath=[zoo])
    assert "--input-shape" in raised.value.hint


def test_a_checkpoint_is_never_replaced_by_itself(ckpt: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="would replace"):
        convert_checkpoint(ckpt, ckpt)
    with pytest.raises(UsageError, match="'onnx'") as raised:
        convert_checkpoint(ckpt, tmp_path / "model.onnx")
    assert "safetensors, pt2, pt" in raised.value.hint


def test_inspection_tells_each_kind(ckpt: Path, pt2: Path, tmp_path: Path, model: Digits) -> None:
    own = inspect_checkpoint(ckpt)
    assert (own.facts.kind, own.verdict, own.runs, own.refusal) == (Kind.XAI, Verdict.AS_IT_IS, (), "")
    assert {t.name: t.shape for t in own.tensors}["features.0.weight"] == (3, 1, 3, 3)
    assert own.operators is not None
    assert own.operators["torch.ops.aten.conv2d.default"] == 1
    graph = inspect_checkpoint(pt2)
    assert (graph.facts.kind, graph.verdict) == (Kind.EXPORTED, Verdict.AS_IT_IS)
    assert sum(t.n_bytes for t in graph.tensors) == sum(t.n_bytes for t in own.tensors)
    torch.save({"model": model.state_dict(), "model_ema": model.state_dict(), "epoch": 2}, tmp_path / "train.pt")
    train = inspect_checkpoint(tmp_path / "train.pt")
    assert (train.facts.kind, train.verdict, train.facts.epoch) == (Kind.TRAINING_DICT, Verdict.WITH_ARCH, 2)
    assert train.weight_sets == ("model", "model_ema")
    torch.save(model, tmp_path / "whole.pt")
    whole = inspect_checkpoint(tmp_path / "whole.pt")
    assert (whole.facts.kind, whole.verdict) == (Kind.PICKLED_MODULE, Verdict.WITH_ARCH)
    assert "tests.checkpoint.conftest.Digits, if it were unpickled" in whole.runs
    assert {t.name: t.shape for t in whole.tensors}["features.0.weight"] == (3, 1, 3, 3)
    weights = inspect_checkpoint(convert_checkpoint(ckpt, tmp_path / "m.safetensors"))
    assert (weights.facts.kind, weights.verdict) == (Kind.SAFETENSORS, Verdict.WITH_ARCH)
    assert sum(t.n_bytes for t in weights.tensors) == sum(t.n_bytes for t in own.tensors)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_inspection_of_torchscript_lists_its_code(tmp_path: Path, model: Digits, images: torch.Tensor) -> None:
    torch.jit.save(torch.jit.trace(model, images[:2]), tmp_path / "script.pt")
    found = inspect_checkpoint(tmp_path / "script.pt")
    assert (found.facts.kind, found.verdict) == (Kind.TORCHSCRIPT, Verdict.WITH_TRUST)
    assert any(name.startswith("code/") for name in found.runs)


def test_the_command_prints_json(ckpt: Path, capsys: Shown) -> None:
    import hashlib

    assert main(["checkpoint", "inspect", str(ckpt), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema_version"], answer["command"]) == (1, "checkpoint inspect")
    assert answer["checkpoint"]["sha256"] == hashlib.sha256(ckpt.read_bytes()).hexdigest()
    assert answer["checkpoint"]["loads"] == "as it is"
    assert answer["counts"]["rows"] == len(answer["rows"]) == 9
    assert answer["rows"][0].keys() == {"name", "dtype", "shape", "bytes"}


def test_the_command_prints_text(ckpt: Path, capsys: Shown) -> None:
    assert main(["checkpoint", "inspect", str(ckpt)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("ckpt.pt: a checkpoint of xai\n")
    assert "It loads as it is." in shown
    assert "input image: 1 x 6 x 6 float32" in shown
    assert "would run: nothing of its own" in shown
    assert "features.0.weight" in shown


def test_the_command_converts(ckpt: Path, tmp_path: Path, capsys: Shown, zoo: Path, model: Digits) -> None:
    assert main(["checkpoint", "convert", str(ckpt), "-o", str(tmp_path / "a.pt2"), "-q"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.pt2'}\n"
    torch.save(model.state_dict(), tmp_path / "w.pth")
    arguments = ["--arch", "zoo:digits", "--pythonpath", str(zoo), "--input-shape", "1,6,6", "--json"]
    assert main(["checkpoint", "convert", str(tmp_path / "w.pth"), "-o", str(tmp_path / "b.pt"), *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"] == [str(tmp_path / "b.pt")]
    assert load_checkpoint(tmp_path / "b.pt").facts.input_shapes == ((1, 6, 6),)


def test_the_command_says_what_it_trusts(tmp_path: Path, model: Digits, capsys: Shown) -> None:
    torch.save(model, tmp_path / "whole.pt")
    given = ["--to", "pt2", "--input-shape", "1,6,6", "--trust-checkpoint"]
    assert main(["checkpoint", "convert", str(tmp_path / "whole.pt"), *given]) == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: trusting")
    assert "sha256" in said
    assert "tests.checkpoint.conftest.Digits" in said


@pytest.mark.parametrize(("arguments", "status"), [(["--input-shape", "a,b"], 2), (["--to", "onnx"], 2)])
def test_wrong_usage_ends_with_two(arguments: list[str], status: int, ckpt: Path, capsys: Shown) -> None:
    assert main(["checkpoint", "convert", str(ckpt), *arguments]) == status
    assert "error: " in capsys.readouterr().err


def test_a_missing_file_ends_with_one(tmp_path: Path, capsys: Shown) -> None:
    assert main(["checkpoint", "inspect", str(tmp_path / "no.pt")]) == 1
    assert "hint: " in capsys.readouterr().err


def test_names_from_elsewhere_cannot_colour_the_terminal(tmp_path: Path, capsys: Shown) -> None:
    torch.save({"a\x1b[31mred": torch.zeros(1), "b\u202e": torch.zeros(1)}, tmp_path / "model.pt")
    assert main(["checkpoint", "inspect", str(tmp_path / "model.pt")]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def quantised(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(6, 3)), {nn.Linear})
        torch.save(model.state_dict(), path)
    return path


def test_quantised_weights_are_refused_and_never_left_out(tmp_path: Path) -> None:
    path = quantised(tmp_path / "q.pt")
    found = inspect_checkpoint(path)
    assert found.verdict is Verdict.NOT
    assert "quantised" in found.refusal
    assert "quantised" in {tensor.dtype for tensor in found.tensors}
    with pytest.raises(XaiError, match="quantised"):
        convert_checkpoint(path)
    assert not path.with_suffix(".safetensors").exists()


def test_what_holds_no_weights_loads_in_no_way(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    found = inspect_checkpoint(tmp_path / "none.pt")
    assert (found.verdict, "no weights" in found.refusal) == (Verdict.NOT, True)


def test_tensors_below_those_taken_are_told(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "more": {"v": torch.ones(3), "n": 1}}, tmp_path / "a.pt")
    with pytest.warns(UserWarning, match="none below more"):
        convert_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c", "d", "e"]])
def test_label_names_are_as_many_as_the_classes(names: list[str], tmp_path: Path, model: Digits, zoo: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "m.pth")
    with pytest.raises(UsageError, match=r"\(N, 4\)"):
        convert_checkpoint(
            tmp_path / "m.pth", to="pt", arch="zoo:digits", pythonpath=[zoo], input_shape=[(1, 6, 6)], label_names=names
        )


def test_notes_of_a_conversion_are_warnings_of_its_json(
    tmp_path: Path, model: Digits, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": model.state_dict(), "ema": model.state_dict()}, tmp_path / "m.pth")
    assert main(["checkpoint", "convert", str(tmp_path / "m.pth"), "--json", "--input-shape", "1,6,6"]) == 0
    shown = capsys.readouterr()
    notes = json.loads(shown.out)["warnings"]
    assert any("--weights" in note for note in notes)
    assert any("--input-shape was not used" in note for note in notes)
    assert all(note in shown.err for note in notes)


def test_broken_weights_are_counted_by_name_before_anything_is_loaded(tmp_path: Path, model: Digits) -> None:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    weights["head.2.weight"][1, :5] = torch.nan
    weights["head.2.bias"][0] = torch.inf
    weights["mask"] = torch.full((2, 2), -torch.inf).triu(1)  # what a mask holds is meant so
    said = "2 of the weights hold NaN or infinite values: "
    parts = ["head.2.bias (1 of 4)", "head.2.weight (5 of 192)"]
    torch.save(weights, tmp_path / "plain.pt")
    torch.save({"model": weights, "optimizer": {"exp_avg": torch.tensor([torch.nan])}}, tmp_path / "training.pt")
    save_file(weights, tmp_path / "weights.safetensors")
    for name in ("plain.pt", "training.pt", "weights.safetensors"):
        notes = inspect_checkpoint(tmp_path / name).facts.notes
        (note,) = [note.replace("model.", "") for note in notes if "NaN" in note]
        assert note.startswith(said)
        assert sorted(note.removeprefix(said).split(", ")) == parts
        with pytest.warns(UserWarning, match=re.escape(said)):
            convert_checkpoint(tmp_path / name, tmp_path / "written.safetensors")
        assert torch.equal(load_file(tmp_path / "written.safetensors")["head.2.bias"], weights["head.2.bias"])
    assert not [note for note in inspect_checkpoint(_saved(tmp_path, model)).facts.notes if "NaN" in note]


def _saved(folder: Path, model: nn.Module) -> Path:
    torch.save(model.state_dict(), folder / "whole.pt")
    return folder / "whole.pt"


def test_broken_weights_of_a_graph_are_counted(tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    with torch.no_grad():
        net.weight[0, 1] = torch.nan
    torch.export.save(torch.export.export(net, (torch.zeros(2, 3),)), tmp_path / "net.pt2")
    said = "1 of the weights hold NaN or infinite values: weight (1 of 6)"
    assert said in inspect_checkpoint(tmp_path / "net.pt2").facts.notes
    with pytest.warns(UserWarning, match=re.escape(said)):
        convert_checkpoint(tmp_path / "net.pt2", tmp_path / "written.pt2")


SHARDED = """
import sys
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from xaicli.checkpoint.save import save_checkpoint
from xaicli.errors import XaiError
import xaicli

folder, rank = sys.argv[1], int(sys.argv[2])

def shard(world):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting{world}", rank=rank, world_size=world)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    if rank == 0:
        torch.save(net.state_dict(), f"{folder}/whole{world}.pt")
    fully_shard(net, mesh=init_device_mesh("cpu", (world,)))
    torch.save({"model": net.state_dict(), "epoch": 3}, f"{folder}/sharded{world}-{rank}.pt")
    for ask in (lambda: save_checkpoint(net, f"{folder}/own{world}-{rank}.pt", arch="a:b"),
                lambda: xaicli.saliency(net, torch.ones(3, 4), methods="gradient")):
        try:
            ask()
            print("done")
        except XaiError as error:
            print(error.message, "|", error.hint)
    dist.barrier()
    dist.destroy_process_group()

if rank == 0:
    shard(1)
shard(2)
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")
def test_what_fsdp_sharded_is_read_where_it_is_whole_and_refused_where_it_is_a_part(tmp_path: Path) -> None:
    """By one process alone, and then by it and another."""
    command = [sys.executable, "-W", "ignore", "-c", SHARDED, str(tmp_path)]
    children = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True) for rank in range(2)]
    said = [child.communicate(timeout=100)[0].splitlines() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    alone, parts = said[0][:2], (said[0][2:], said[1])
    for lines in (alone, *parts):
        assert "sharded" in lines[1]
        assert "full_state_dict=True" in lines[1]

    whole = torch.load(tmp_path / "whole1.pt", weights_only=True)
    read = read_checkpoint(tmp_path / "sharded1-0.pt").weights
    assert read is not None
    assert read.weights.keys() == whole.keys()
    assert all(torch.equal(read.weights[name], value) for name, value in whole.items())
    assert alone[0] == "done"
    own = torch.load(tmp_path / "own1-0.pt", weights_only=True)["state_dict"]
    assert all(torch.equal(own[name], value) for name, value in whole.items())

    with pytest.raises(RefusedError, match="one rank's shard") as error:
        read_checkpoint(tmp_path / "sharded2-0.pt")
    assert "full_state_dict=True" in error.value.hint
    assert inspect_checkpoint(tmp_path / "sharded2-0.pt").verdict is Verdict.NOT
    assert all("sharded" in lines[0] for lines in parts)


@pytest.mark.parametrize("to", ["safetensors", "pt"])
def test_names_of_classes_are_as_many_as_the_checkpoint_has(sample_run: Path, tmp_path: Path, to: str) -> None:
    path = sample_run / "checkpoints" / "ckpt.pt"  # of ten digits
    with pytest.raises(UsageError, match=r"^2 label names were given, and .*ckpt\.pt names 10 classes"):
        convert_checkpoint(path, tmp_path / f"m.{to}", label_names=["a", "b"])
    assert not list(tmp_path.iterdir())
    written = convert_checkpoint(path, tmp_path / f"m.{to}", label_names=[*"abcdefghij"])
    assert read_checkpoint(written).facts.label_names == tuple("abcdefghij")
