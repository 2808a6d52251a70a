"""A state's tensors and arrays as files: `tensors.pt`, read weights-only, and `arrays.npz`, read without objects."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xaicli.state.encoding import Encoder

TENSORS, ARRAYS = "tensors.pt", "arrays.npz"
_BLOCK = 1 << 20


def write_values(folder: Path, encoder: Encoder) -> dict[str, Any]:
    """Write what an encoder has collected.

    Returns:
        {file name: {"bytes", "crc32"}} of the files written.
    """
    files = {}
    if encoder.tensors:
        import torch

        torch.save(encoder.tensors, folder / TENSORS)
        files[TENSORS] = _facts_of(folder / TENSORS)
    if encoder.arrays:
        import numpy as np

        np.savez(folder / ARRAYS, **encoder.arrays)
        files[ARRAYS] = _facts_of(folder / ARRAYS)
    return files


def _facts_of(path: Path) -> dict[str, int]:
    return {"bytes": path.stat().st_size, "crc32": _crc32(path)}


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def read_tensors(folder: Path, files: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a state, on the CPU; none where `files`, what `write_values` returned, names no such file.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is damaged, or holds something else.
    """
    path = verified(folder, TENSORS, files)
    if path is None:
        return {}
    import torch

    _refuse_packed(path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is none of its own
        raise ValueError(f"{path} cannot be read as tensors: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise ValueError(f"{path} holds something else than named tensors")
    return tensors


def read_arrays(folder: Path, files: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a state, likewise."""
    path = verified(folder, ARRAYS, files)
    if path is None:
        return {}
    import numpy as np

    _refuse_packed(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # likewise
        raise ValueError(f"{path} cannot be read as arrays: {error}") from error


def verified(folder: Path, name: str, files: Mapping[str, Any]) -> Path | None:
    """The path of a file whose bytes are those that were written; None where there is to be none.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is damaged.
    """
    if name not in files:
        return None
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"could not find {path}, a part of the training state")
    expected = files[name]
    if {"bytes": path.stat().st_size, "crc32": _crc32(path)} != expected:
        raise ValueError(f"{path} is damaged: its checksum does not fit; an older state may lie beside its folder")
    return path


def _refuse_packed(path: Path) -> None:
    """Refuse an archive whose members unpack to more than the file: no state is written so."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError(f"{path} holds compressed or overlapping members; no state is written so")
