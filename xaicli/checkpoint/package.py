"""`.pt2` archives: what may be in one, and the rebuilt archive that is given to torch.

torch's own loader unpickles, imports and dlopens what an archive asks for. It never sees the file: it gets an archive
written here, of the admitted graph and the raw bytes of tensors whose sizes have been checked, without sample inputs.
"""

from __future__ import annotations

import io
import json
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xaicli.checkpoint.archive import Archive, damaged, refused
from xaicli.checkpoint.program import Program, ProgramError, admit, shown

if TYPE_CHECKING:
    import torch

_MODEL = re.compile(r"models/(\w+)\.json", re.ASCII)
_WEIGHT = re.compile(r"data/weights/weight_\d+", re.ASCII)
_CONSTANT = re.compile(r"data/constants/tensor_\d+", re.ASCII)
_HEADERS = ("archive_format", "archive_version", "byteorder", ".data/version", "version", ".data/serialization_id")
_LARGEST_JSON = 64 * 2**20

_DTYPES = {
    1: ("uint8", 1),
    2: ("int8", 1),
    3: ("int16", 2),
    4: ("int32", 4),
    5: ("int64", 8),
    6: ("float16", 2),
    7: ("float32", 4),
    8: ("float64", 8),
    9: ("complex32", 4),
    10: ("complex64", 8),
    11: ("complex128", 16),
    12: ("bool", 1),
    13: ("bfloat16", 2),
    28: ("uint16", 2),
    29: ("float8_e4m3fn", 1),
    30: ("float8_e5m2", 1),
    34: ("uint32", 4),
    35: ("uint64", 8),
}
"""torch's export schema: number -> (name, bytes)."""

_STRIDED = 7


@dataclass(frozen=True)
class TensorFacts:
    """A tensor in a checkpoint."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True)
class Package:
    """An admitted `.pt2` archive.

    Attributes:
        program: Its graph.
        tensors: Its weights and constants.
        rebuilt: The archive to give to `torch.export.load`.
        dropped: The members that were left out.
    """

    program: Program
    tensors: tuple[TensorFacts, ...]
    rebuilt: bytes
    dropped: tuple[str, ...]

    def values(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Its weights and constants by name, with their values."""
        import torch

        with zipfile.ZipFile(io.BytesIO(self.rebuilt)) as file:
            for folder in ("weights", "constants"):
                config = next(n for n in file.namelist() if n.endswith(f"_{folder}_config.json"))
                for name, entry in json.loads(file.read(config))["config"].items():
                    data, meta = bytearray(file.read(f"graph/data/{folder}/{entry['path_name']}")), entry["tensor_meta"]
                    if not data:
                        continue
                    flat = torch.frombuffer(data, dtype=getattr(torch, dtype_name(meta["dtype"])))
                    sizes, strides = ([int(n["as_int"]) for n in meta[key]] for key in ("sizes", "strides"))
                    yield name, flat.as_strided(sizes, strides, int(meta["storage_offset"]["as_int"]))


def is_package(archive: Archive) -> bool:
    """Whether an archive is an exported model."""
    return "archive_format" in archive.members or any(_MODEL.fullmatch(name) for name in archive.members)


def dtype_name(number: int) -> str:
    """NumPy's (or torch's) name for a dtype of the export schema."""
    return _DTYPES[number][0]


def open_package(archive: Archive) -> Package:
    """Check a whole `.pt2` archive and rebuild it.

    Raises:
        RefusedError: It holds something beyond a graph and raw tensors.
        DamagedFileError: It is not complete.
    """
    model = _only_model(archive)
    dropped = tuple(sorted(name for name in archive.members if _drops(archive, name, model)))
    try:
        program = admit(_json_bytes(archive, f"models/{model}.json"))
    except ProgramError as error:
        raise refused(archive.path, str(error)) from error
    kept = {name: archive.read(name) for name in _HEADERS if name in archive.members}
    if kept.get("byteorder", b"little") != sys.byteorder.encode():
        raise refused(archive.path, "tensors of another byte order", hint="export the model on a machine like this one")
    kept[f"models/{model}.json"] = program.text
    kept[f"data/sample_inputs/{model}.pt"] = b""
    tensors: list[TensorFacts] = []
    for folder, pattern in (("weights", _WEIGHT), ("constants", _CONSTANT)):
        name = f"data/{folder}/{model}_{folder}_config.json"
        config = _config(archive, name)
        for key, entry in config.items():
            tensors.append(_check_payload(archive, key, entry, f"data/{folder}/", pattern))
            member = f"data/{folder}/{entry['path_name']}"
            kept[member] = archive.read(member) if member not in kept else kept[member]
        plain = {key: _plain_payload(entry) for key, entry in config.items()}
        kept[name] = json.dumps({"config": plain}).encode()
    return Package(program, tuple(tensors), _zip(kept), dropped)


def _only_model(archive: Archive) -> str:
    models = [match[1] for name in archive.members if (match := _MODEL.fullmatch(name))]
    if len(models) != 1:
        raise refused(archive.path, f"{len(models)} graphs instead of one", hint="export one model a file")
    return models[0]


def _drops(archive: Archive, name: str, model: str) -> bool:
    """Whether a member is left out of the rebuilt archive; one that must not be there at all is refused by name."""
    if name in (*_HEADERS, f"models/{model}.json") or _WEIGHT.fullmatch(name) or _CONSTANT.fullmatch(name):
        return False
    if name in (f"data/weights/{model}_weights_config.json", f"data/constants/{model}_constants_config.json"):
        return False
    if name == f"data/sample_inputs/{model}.pt" or name.startswith("extra/"):
        return True
    raise refused(archive.path, f"{_reason(name)} ({shown(name)})")


def _reason(name: str) -> str:
    if name.endswith((".so", ".dll", ".dylib", ".pyd", ".cubin")):
        return "a shared library"
    if name.startswith("data/aotinductor/"):
        return "compiled code"
    if name.startswith("data/constants/opaque_obj_"):
        return "an opaque constant, which is a pickle"
    if name.startswith("data/constants/custom_obj_"):
        return "a custom constant, which is a pickle"
    if re.fullmatch(r"data/(weights|constants)/\w+\.pt", name, re.ASCII):
        return "pickled weights of the old format"
    return "a member that no exported model needs"


def _config(archive: Archive, name: str) -> dict[str, Any]:
    try:
        config = json.loads(_json_bytes(archive, name))["config"]
        if not all(isinstance(key, str) and isinstance(entry, dict) for key, entry in config.items()):
            raise TypeError("entries are no objects")
        return dict(config)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(archive.path, f"{name}: {error}") from error


def _json_bytes(archive: Archive, name: str) -> bytes:
    if name not in archive.members:
        raise damaged(archive.path, f"it has no {name}")
    if archive.members[name].size > _LARGEST_JSON:
        raise refused(archive.path, f"a description of {archive.members[name].size:,} bytes ({name})")
    return archive.read(name)


def _check_payload(
    archive: Archive, key: str, entry: Mapping[str, Any], folder: str, pattern: re.Pattern[str]
) -> TensorFacts:
    path_name = str(entry.get("path_name"))
    member = folder + path_name
    if re.fullmatch(r"[\w -]+(\.[\w -]+)*", key, re.ASCII) is None:
        raise refused(archive.path, f"a tensor with no plain name ({shown(key)})")
    if entry.get("use_pickle") is not False:
        raise refused(archive.path, f"pickled weights ({shown(member)} for {shown(key)})")
    if not pattern.fullmatch(member):
        raise refused(archive.path, f"{_reason(member)} ({shown(member)} for {shown(key)})")
    if member not in archive.members:
        raise damaged(archive.path, f"it has no {member}")
    try:
        return _measured(archive, key, entry["tensor_meta"], archive.members[member].size)
    except (KeyError, TypeError, ValueError) as error:
        raise refused(archive.path, f"a tensor without plain sizes ({shown(key)})") from error


def _measured(archive: Archive, key: str, meta: Mapping[str, Any], stored: int) -> TensorFacts:
    dtype, item_bytes = _DTYPES[meta["dtype"]]
    sizes = [_natural(size) for size in meta["sizes"]]
    strides = [_natural(stride) for stride in meta["strides"]]
    offset = _natural(meta["storage_offset"])
    if meta["layout"] != _STRIDED or len(sizes) != len(strides):
        raise ValueError("no strided tensor")
    n_elements = 1
    for size in sizes:
        n_elements *= size
    reach = 0 if n_elements == 0 else offset + 1 + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
    if max(n_elements, reach) * item_bytes > stored:
        claim = max(n_elements, reach) * item_bytes
        raise refused(archive.path, f"a tensor larger than its storage ({shown(key)}: {claim:,} of {stored:,} bytes)")
    return TensorFacts(key, dtype, tuple(sizes), n_elements * item_bytes)


def _plain_payload(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A checked entry with nothing but what was checked, its tensor on the CPU."""
    meta = entry["tensor_meta"]
    return {
        "path_name": entry["path_name"],
        "is_param": entry.get("is_param") is True,
        "use_pickle": False,
        "tensor_meta": {
            **{key: meta[key] for key in ("dtype", "sizes", "strides", "storage_offset", "layout")},
            "requires_grad": meta.get("requires_grad") is True,
            "device": {"type": "cpu", "index": None},
        },
    }


def _natural(value: Mapping[str, Any]) -> int:
    number = value["as_int"]
    if type(number) is not int or number < 0 or len(value) != 1:
        raise ValueError(f"{value} is no size")
    return number


def _zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(f"graph/{name}"), data)
    return buffer.getvalue()
