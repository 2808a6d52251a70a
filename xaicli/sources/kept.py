"""The inputs a run kept with `run.log_inputs`: exactly what the model saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xaicli.errors import XaiError
from xaicli.layout import PartName, RunLayout
from xaicli.sources.inputs import BadSampleError, IndexedSource, Sample
from xaicli.sources.pictures import Preparation
from xaicli.sources.table import ParquetRows

_ADVICE = "name the data with --data, or keep inputs while training: run.log_inputs(ids, x, label=y)"

Place = tuple[ParquetRows, int]
"""A row: the file and its number in it."""

_COLUMNS = ("label", "dtype", "shape", "data")


def open_kept(layout: RunLayout, mode: str | None, preparation: Preparation, *, strict: bool) -> IndexedSource:
    """Open the inputs kept in a run.

    Args:
        layout: The run.
        mode: Only inputs of this mode; any when None.
        preparation: How to draw them; the values are never changed.
        strict: Whether a damaged file is an error instead of being left out.

    Raises:
        XaiError: The run kept none.
    """
    rows: dict[Any, dict[str, Place]] = {}
    modes: set[str] = set()
    problems: list[str] = []
    for path in _parts(layout.inputs):
        try:
            modes |= _index(path, mode, rows)
        except XaiError as error:
            if strict:
                raise XaiError(f"{path}: {error.message}", hint="find damage with: xai doctor") from error
            problems.append(path.name)
    if not rows:
        damage = f"; {len(problems)} damaged files were left out" if problems else ""
        of_mode = f" of mode {mode}" if mode else ""
        others = f"there are some of mode {', '.join(sorted(modes))}: leave --mode out; else " if modes else ""
        raise XaiError(f"{layout.root} holds no kept inputs{of_mode}{damage}", hint=others + _ADVICE)
    ids = list(rows)

    def read(position: int) -> Sample:
        arrays: dict[str, NDArray[Any]] = {}
        label = None
        for name, (file, row) in rows[ids[position]].items():
            facts = file.row(row, _COLUMNS)
            arrays[name] = _array(facts)
            label = facts["label"]
        return Sample(arrays, label, preparation.picture(next(iter(arrays.values()))))

    return IndexedSource(
        ids,
        read,
        f"the inputs kept in {layout.root}",
        strict,
        elsewhere="the run may have logged it without its inputs: " + _ADVICE,
    )


def _parts(folder: Path) -> list[Path]:
    """The parts in the order they were written; a link is none, for a run brings its own files only."""
    own = [path for path in folder.glob("*.parquet") if not path.is_symlink()]
    named = [(name, path) for path in own if (name := PartName.parse(path.name))]
    return [path for _, path in sorted(named)]


def _index(path: Path, mode: str | None, rows: dict[Any, dict[str, Place]]) -> set[str]:
    """Note where each sample's newest inputs are: a later row for a sample takes the place of an earlier one.

    Returns:
        The modes there are inputs of.
    """
    file = ParquetRows([path])
    here: dict[Any, dict[str, Place]] = {}
    modes: set[str] = set()
    columns = (file.column(name) for name in ("sample_id", "mode", "name"))
    for row, (sample_id, row_mode, name) in enumerate(zip(*columns, strict=True)):
        modes.add(row_mode)
        if mode is None or row_mode == mode:
            here.setdefault(sample_id, {})[name] = (file, row)
    for sample_id, places in here.items():
        rows.setdefault(sample_id, {}).update(places)
    return modes


def _array(facts: dict[str, Any]) -> NDArray[Any]:
    try:
        dtype = np.dtype(facts["dtype"])
        shape = tuple(int(n) for n in facts["shape"])
        if dtype.kind not in "biuf" or any(n < 0 for n in shape):
            raise ValueError(f"dtype {dtype}, shape {shape}")
        return np.frombuffer(facts["data"], dtype=dtype).reshape(shape)
    except (TypeError, ValueError) as error:
        raise BadSampleError(f"its bytes are no such array ({error})") from error
