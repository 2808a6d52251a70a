"""safetensors files: plain tensors with a JSON header, in which `xai checkpoint convert` keeps what it knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from xaicli.checkpoint.facts import CheckpointFacts, described
from xaicli.checkpoint.files import shards
from xaicli.checkpoint.package import TensorFacts
from xaicli.errors import DamagedFileError, XaiError
from xaicli.files import write_whole

_HEADER_KEY = "xai"
_BITS = {"BOOL": 8, "BF16": 16, "E8M0": 8}


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, of an index's files, or of those of a folder, on the CPU.

    Raises:
        DamagedFileError: A file is not complete, or contradicts itself.
        XaiError: safetensors is not installed, or a file of the index is missing.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise _not_installed(path) from error
    tensors: dict[str, torch.Tensor] = {}
    for file in _files(path):
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise DamagedFileError(f"{file} is no whole safetensors file: {error}", hint="copy it again") from error
    return tensors


def describe_tensors(path: Path, facts: CheckpointFacts) -> tuple[tuple[TensorFacts, ...], CheckpointFacts]:
    """Names, shapes and dtypes of what `read_tensors` reads, and the facts in its header, without reading the tensors.

    Raises:
        DamagedFileError: A file is not complete, or contradicts itself.
        XaiError: safetensors is not installed, or a file of the index is missing.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise _not_installed(path) from error
    tensors: list[TensorFacts] = []
    for path_of_one in _files(path):
        try:
            with safe_open(path_of_one, "pt") as file:
                header = file.metadata() or {}
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
                tensors += [_tensor(name, part.get_dtype(), part.get_shape()) for name, part in slices.items()]
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise DamagedFileError(
                f"{path_of_one} is no whole safetensors file: {error}", hint="copy it again"
            ) from error
        facts = _with_header(facts, header)
    return tuple(tensors), facts


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return shards(path) if any(path.glob("*.index.json")) else sorted(path.glob("*.safetensors"))
    return shards(path) if path.suffix == ".json" else [path]


def write_tensors(path: Path, weights: Mapping[str, torch.Tensor], facts: CheckpointFacts) -> Path:
    """Write weights and facts as a safetensors file that appears complete or not at all.

    Raises:
        XaiError: safetensors is not installed.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise _not_installed(path) from error
    # The format has no shared storage: tied weights are written twice.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    header = {"format": "pt", _HEADER_KEY: json.dumps(_description(facts))}
    return write_whole(path, save(plain, metadata=header), durable=True)


def _description(facts: CheckpointFacts) -> dict[str, object]:
    names, shapes, dtypes = facts.input_names or (), facts.input_shapes or (), facts.input_dtypes or ()
    complete = len(names) == len(shapes) == len(dtypes)
    return {
        "inputs": [
            {"name": name, "shape": shape, "dtype": dtype}
            for name, shape, dtype in (zip(names, shapes, dtypes, strict=True) if complete else ())
        ],
        **{
            key: getattr(facts, key)
            for key in ("label_names", "input_range", "mean", "std", "epoch", "step", "task", "arch")
        },
    }


def _with_header(facts: CheckpointFacts, header: Mapping[str, str]) -> CheckpointFacts:
    if (text := header.get(_HEADER_KEY)) is None:
        return facts
    try:
        return described(json.loads(text), facts)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{facts.path} has a header that cannot be read: {error}") from error


def _tensor(name: str, dtype: str, shape: list[int]) -> TensorFacts:
    n_elements = 1
    for length in shape:
        n_elements *= length
    bits = _BITS.get(dtype) or int("".join(c for c in dtype.split("_")[0] if c.isdigit())[:2])
    return TensorFacts(name, dtype.lower(), tuple(shape), n_elements * bits // 8)


def _not_installed(path: Path) -> XaiError:
    return XaiError(f"{path} needs safetensors", hint="pip install 'xaicli[saliency]'")
