"""Checkpoints that run code or take memory when loaded without care, each with the reason it must be refused for."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Members = dict[str, bytes]
Edit = Callable[[Members, Path], None]

GRAPH = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLES = "data/sample_inputs/model.pt"


class Touch:
    """A pickle of this makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


def members_of(archive: bytes) -> Members:
    """The members of an archive without its root folder."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {info.filename.partition("/")[2]: file.read(info) for info in file.infolist()}


def archive_of(members: Members, *, root: str = "model", compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in members.items():
            file.writestr(f"{root}/{name}", data)
    return buffer.getvalue()


def edited(archive: bytes, edit: Edit, canary: Path) -> bytes:
    members = members_of(archive)
    edit(members, canary)
    return archive_of(members)


def code_text(canary: Path) -> str:
    return f"__import__('pathlib').Path({str(canary)!r}).touch()"


def _pickled(canary: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Touch(canary), buffer)
    return buffer.getvalue()


def _json(members: Members, name: str, change: Callable[[Any], None]) -> None:
    content = json.loads(members[name])
    change(content)
    members[name] = json.dumps(content).encode()


def _first_weight(content: Any) -> Any:
    return next(iter(content["config"].values()))


def pickled_weights(members: Members, canary: Path) -> None:
    def change(content: Any) -> None:
        entry = _first_weight(content)
        entry["use_pickle"], entry["tensor_meta"] = True, None

    _json(members, WEIGHTS, change)
    members["data/weights/weight_0"] = _pickled(canary)


def legacy_weights(members: Members, canary: Path) -> None:
    members["data/weights/model.pt"] = _pickled(canary)


def legacy_constants(members: Members, canary: Path) -> None:
    members["data/constants/model.pt"] = _pickled(canary)


def _constant(members: Members, path_name: str, data: bytes) -> None:
    members[f"data/constants/{path_name}"] = data
    entry = {"path_name": path_name, "is_param": False, "use_pickle": True, "tensor_meta": None}
    _json(members, CONSTANTS, lambda content: content["config"].update({"thing": entry}))


def opaque_constant(members: Members, canary: Path) -> None:
    _constant(members, "opaque_obj_0", pickle.dumps(Touch(canary)))


def custom_constant(members: Members, canary: Path) -> None:
    _constant(members, "custom_obj_0", pickle.dumps(Touch(canary)))


def pickled_constant(members: Members, canary: Path) -> None:
    _constant(members, "tensor_0", _pickled(canary))


def shared_library(members: Members, canary: Path) -> None:
    members["data/aotinductor/model/wrapper.so"] = b"\x7fELF" + str(canary).encode()


def extra_member(members: Members, canary: Path) -> None:
    members["data/weights/run_me.py"] = code_text(canary).encode()


def escaping_member(members: Members, canary: Path) -> None:
    members["../../escaped"] = str(canary).encode()


def _edit_graph(members: Members, change: Callable[[Any], None]) -> None:
    _json(members, GRAPH, change)


def shape_expression(members: Members, canary: Path) -> None:
    def change(content: Any) -> None:
        sizes = content["graph_module"]["graph"]["tensor_values"]["image"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = code_text(canary)

    _edit_graph(members, change)


def unknown_symbol(members: Members, canary: Path) -> None:
    del canary

    def change(content: Any) -> None:
        sizes = content["graph_module"]["graph"]["tensor_values"]["image"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = "Symbol('s999', positive=True, integer=True)"

    _edit_graph(members, change)


def endless_power(members: Members, canary: Path) -> None:
    del canary

    def change(content: Any) -> None:
        sizes = content["graph_module"]["graph"]["tensor_values"]["image"]["sizes"]
        sizes[0]["as_expr"]["expr_str"] = "Pow(Integer(9), Pow(Integer(9), Integer(9999999)))"

    _edit_graph(members, change)


def guard(members: Members, canary: Path) -> None:
    _edit_graph(members, lambda content: content.update(guards_code=[f"{code_text(canary)} or True"]))


def node_name(members: Members, canary: Path) -> None:
    evil = f"x = open({str(canary)!r}, 'w'); conv2d"
    members[GRAPH] = members[GRAPH].replace(b'"conv2d"', json.dumps(evil).encode())


def parameter_name(members: Members, canary: Path) -> None:
    evil = f"features.0.weight\"); open({str(canary)!r}, 'w'); (\""
    for name in (GRAPH, WEIGHTS):
        members[name] = members[name].replace(b'"features.0.weight"', json.dumps(evil).encode())


def argument_name(members: Members, canary: Path) -> None:
    def change(content: Any) -> None:
        call = content["graph_module"]["module_call_graph"][0]["signature"]
        call["forward_arg_names"] = [f"image=open({str(canary)!r}, 'w')"]

    _edit_graph(members, change)


def _replace_target(members: Members, target: str) -> None:
    def change(content: Any) -> None:
        content["graph_module"]["graph"]["nodes"][0]["target"] = target

    _edit_graph(members, change)


def python_operator(members: Members, canary: Path) -> None:
    del canary
    _replace_target(members, "torch.os.system")


def library_operator(members: Members, canary: Path) -> None:
    del canary
    _replace_target(members, "torch.ops.load_library")


def custom_operator(members: Members, canary: Path) -> None:
    del canary
    _replace_target(members, "torch.ops.mylibrary.launch.default")


def file_operator(members: Members, canary: Path) -> None:
    del canary
    _replace_target(members, "torch.ops.aten.from_file.default")


def hidden_attribute(members: Members, canary: Path) -> None:
    del canary
    _replace_target(members, "torch.ops.aten.__class__.__init__")


def unchecked_memory(members: Members, canary: Path) -> None:
    del canary
    _replace_target(members, "torch.ops.aten._sparse_csr_tensor_unsafe.default")


def text_argument(members: Members, canary: Path) -> None:
    def change(content: Any) -> None:
        node = content["graph_module"]["graph"]["nodes"][0]
        node["inputs"].append({"name": "padding", "arg": {"as_string": f"'+open({str(canary)!r},'w')+'"}, "kind": 1})

    _edit_graph(members, change)


def imported_tree(members: Members, canary: Path) -> None:
    del canary

    def change(content: Any) -> None:
        call = content["graph_module"]["module_call_graph"][0]["signature"]
        call["out_spec"] = json.dumps(
            [
                1,
                {
                    "type": "collections.defaultdict",
                    "context": json.dumps({"default_factory_module": "antigravity", "default_factory_name": "x"}),
                    "children_spec": [],
                },
            ]
        )

    _edit_graph(members, change)


def training_graph(members: Members, canary: Path) -> None:
    del canary

    def change(content: Any) -> None:
        for node in content["graph_module"]["graph"]["nodes"]:
            for argument in node["inputs"]:
                if argument["name"] == "training":
                    argument["arg"] = {"as_bool": True}

    _edit_graph(members, change)


def oversized_weight(members: Members, canary: Path) -> None:
    del canary

    def change(content: Any) -> None:
        meta = _first_weight(content)["tensor_meta"]
        meta["sizes"] = [{"as_int": 2**40}]
        meta["strides"] = [{"as_int": 0}]

    _json(members, WEIGHTS, change)


def empty_weight(members: Members, canary: Path) -> None:
    del canary
    members["data/weights/weight_0"] = b""


def two_graphs(members: Members, canary: Path) -> None:
    del canary
    members["models/other.json"] = members[GRAPH]


PACKAGES: dict[str, tuple[Edit, str]] = {
    "pickled_weights": (pickled_weights, "pickled weights"),
    "legacy_weights": (legacy_weights, "pickled weights of the old format"),
    "legacy_constants": (legacy_constants, "pickled weights of the old format"),
    "opaque_constant": (opaque_constant, "an opaque constant"),
    "custom_constant": (custom_constant, "a custom constant"),
    "pickled_constant": (pickled_constant, "pickled weights"),
    "shared_library": (shared_library, "a shared library"),
    "extra_member": (extra_member, "a member that no exported model needs"),
    "escaping_member": (escaping_member, "leaves its folder"),
    "shape_expression": (shape_expression, "a shape expression that is more than integer arithmetic"),
    "unknown_symbol": (unknown_symbol, "a shape expression that is more than integer arithmetic"),
    "endless_power": (endless_power, "a shape expression that is more than integer arithmetic"),
    "guard": (guard, "a guard that is more than a comparison"),
    "node_name": (node_name, "no identifier"),
    "parameter_name": (parameter_name, "plain"),
    "argument_name": (argument_name, "no identifier"),
    "python_operator": (python_operator, "none of torch's own ATen operators"),
    "library_operator": (library_operator, "none of torch's own ATen operators"),
    "custom_operator": (custom_operator, "none of torch's own ATen operators"),
    "file_operator": (file_operator, "an operator that reaches outside its tensors"),
    "hidden_attribute": (hidden_attribute, "none of torch's own ATen operators"),
    "unchecked_memory": (unchecked_memory, "an operator that reaches outside its tensors"),
    "text_argument": (text_argument, "a text that is no plain word"),
    "imported_tree": (imported_tree, "a class of its own"),
    "training_graph": (training_graph, "a model exported in training mode"),
    "oversized_weight": (oversized_weight, "a tensor larger than its storage"),
    "empty_weight": (empty_weight, "a tensor larger than its storage"),
    "two_graphs": (two_graphs, "2 graphs instead of one"),
}
"""{name: (what is done to a good archive, the reason for refusing it)}."""

RUN_ON_LOAD = ("pickled_weights", "legacy_weights", "opaque_constant", "pickled_constant", "shape_expression")
"""Those that torch.export.load itself runs: they show that the corpus is alive."""


def with_sample_inputs(archive: bytes, canary: Path) -> bytes:
    """A good archive but for its sample inputs, which torch unpickles."""
    return edited(archive, lambda members, path: members.update({SAMPLES: _pickled(path)}), canary)


def overlapping(archive: bytes) -> bytes:
    """An archive in whose list a second member shares the bytes of the first."""
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a") as file:
        first = file.infolist()[0]
        twin = zipfile.ZipInfo(first.filename + "x")
        for field in ("header_offset", "file_size", "compress_size", "CRC", "compress_type"):
            setattr(twin, field, getattr(first, field))
        file.filelist.append(twin)
        file._didModify = True  # type: ignore[attr-defined]
    return buffer.getvalue()


def linked(archive: bytes) -> bytes:
    """An archive with a symbolic link."""
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a") as file:
        info = zipfile.ZipInfo(file.infolist()[0].filename.partition("/")[0] + "/data/weights/weight_99")
        info.external_attr = 0o120777 << 16
        file.writestr(info, os.fspath("/etc/passwd"))
    return buffer.getvalue()
