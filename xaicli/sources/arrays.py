"""Arrays: `.npz` and `.npy` files, and what a factory gives as arrays."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xaicli.errors import XaiError
from xaicli.sources.inputs import IndexedSource, Sample, plain
from xaicli.sources.pictures import Preparation

ID_NAMES = ("sample_id", "sample_ids", "id", "ids", "image_id", "index")
LABEL_NAMES = ("label", "labels", "y", "target", "targets", "class", "classes")
NAMES_OF_LABELS = ("label_names", "class_names", "target_names", "classes", "categories")
INPUT_NAMES = ("x", "X", "inputs", "input", "images", "image", "data", "features", "pixel_values", "pixels")
_LARGEST = 16 * 2**30
_WAY_OUT = "write it with numpy.savez(path, x=..., y=...)"


def open_arrays(path: Path, preparation: Preparation, *, strict: bool) -> IndexedSource:
    """Open a NumPy archive: an input array (or several), labels and ids, told by their names; or the inputs alone.

    Raises:
        XaiError: It is no such file, is too large, or holds pickled objects.
    """
    if path.suffix.lower() == ".npy":
        return from_arrays({"x": _mapped(path)}, str(path), preparation, strict=strict)
    arrays, refused = _read_npz(path)
    wanted = {*LABEL_NAMES, *ID_NAMES, *INPUT_NAMES, *preparation.names}
    if bad := [name for name in refused if name in wanted or not arrays]:
        raise XaiError(f"{path}: {bad[0]} is {refused[bad[0]]}", hint=_WAY_OUT)
    nameless = [name for name in arrays if re.fullmatch(r"arr_\d+", name) and name not in preparation.names]
    if len(nameless) > 1:
        raise XaiError(
            f"{path} holds {', '.join(nameless)}: which are inputs and which labels cannot be told", hint=_WAY_OUT
        )
    source = from_arrays(arrays, str(path), preparation, strict=strict)
    notes = tuple(f"{name} of {path} was left out: {why}" for name, why in refused.items())
    return replace(source, notes=(*source.notes, *notes))


def _mapped(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        said = "an array of pickled objects" if "allow_pickle" in str(error) or "objects" in str(error) else str(error)
        raise XaiError(f"{path} is no readable .npy: {said}", hint="write it with numpy.save(path, x)") from error
    return array


def from_arrays(
    arrays: Mapping[str, NDArray[Any]], name: str, preparation: Preparation, *, strict: bool
) -> IndexedSource:
    """A source of samples held in arrays, each (sample, ...).

    Args:
        arrays: The input under one of the usual names ("x", "images"), or several inputs under their own; labels and
            ids under theirs ("y", "label"; "sample_id").
        name: What to call it in errors.
        preparation: How pixels become input.
        strict: Whether a bad sample is an error.

    Raises:
        XaiError: There is no input, or the arrays differ in length.
    """
    names_key = next((key for key in NAMES_OF_LABELS if key in arrays and arrays[key].dtype.kind in "US"), None)
    rest = {key: value for key, value in arrays.items() if key != names_key}
    # What the model calls its inputs is no label and no id; rows of token ids are no ids of samples.
    label_key = next((key for key in LABEL_NAMES if key in rest and key not in preparation.names), None)
    id_key = next((k for k in ID_NAMES if k in rest and k not in preparation.names and rest[k].ndim == 1), None)
    usual = next((key for key in INPUT_NAMES if key in rest), None)
    named = [key for key in preparation.names if key in rest]
    inputs = {k: v for k, v in rest.items() if k not in (label_key, id_key) and v.ndim > 0 and v.dtype.kind in "biufc"}
    if named:
        inputs = {key: rest[key] for key in named}
    elif usual is not None:
        inputs = {usual: rest[usual]}
    if not inputs:
        raise XaiError(f"{name} holds no inputs", hint=f"it holds {', '.join(arrays) or 'nothing'}; name the inputs x")
    lengths = {key: len(arrays[key]) for key in (*inputs, *filter(None, (label_key, id_key)))}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{key} {n}" for key, n in lengths.items())
        raise XaiError(f"the arrays of {name} differ in length: {shown}", hint="name the input x and the labels y")
    for key, value in inputs.items():
        if len(inputs) == 1 and value.shape == preparation.shape and len(value) > 1:
            raise XaiError(
                f"{key} of {name} is one sample of shape {value.shape}, not a row of samples", hint="write x[None]"
            )
    n_samples = next(iter(lengths.values()))
    ids: Sequence[Any] = [plain(i) for i in arrays[id_key]] if id_key else range(n_samples)

    def read(position: int) -> Sample:
        prepared = {key: preparation.from_array(value[position], key) for key, value in inputs.items()}
        picture = next(iter(prepared.values()))[1]
        label = plain(arrays[label_key][position]) if label_key else None
        values = {("" if len(prepared) == 1 else key): array for key, (array, _) in prepared.items()}
        return Sample(values, label, picture)

    names = tuple(map(str, arrays[names_key])) if names_key else None
    known = {*inputs, label_key, id_key}
    left = [k for k, v in rest.items() if k not in known and v.ndim > 0 and v.dtype.kind in "biufc"]
    unused = (f"{', '.join(left)} of {name}: no input that is asked for, and not used",) if left else ()
    return IndexedSource(ids, read, name, strict, names, unused)


def _read_npz(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The arrays by name, and why others are not read."""
    arrays: dict[str, NDArray[Any]] = {}
    refused: dict[str, str] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(info.file_size for info in archive.infolist())
            if total > _LARGEST:
                raise XaiError(f"{path} unpacks to {total:,} bytes; at most {_LARGEST:,} are read")
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    with archive.open(info) as file:
                        data = file.read(info.file_size)
                    name = info.filename.removesuffix(".npy")
                    if isinstance(read := _read_npy(data), str):
                        refused[name] = read
                    else:
                        arrays[name] = read
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise XaiError(f"{path} is no readable .npz: {error}", hint=_WAY_OUT) from error
    return arrays, refused


def _read_npy(data: bytes) -> NDArray[Any] | str:
    # numpy allocates what the header claims before it reads: the claim must fit the bytes that are there.
    header = io.BytesIO(data)
    version = np.lib.format.read_magic(header)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(header)
    if dtype.hasobject:
        return "an array of pickled objects"
    if int(np.prod(shape, dtype=object)) * dtype.itemsize != len(data) - header.tell():
        raise ValueError("an array whose size is not that of its data")
    array: NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    return array
