"""What kept inputs tell of samples without facts: how bright a picture is, how long a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.errors import XaiError
from xaicli.reader import Reader
from xaicli.sources.inputs import BadSampleError
from xaicli.sources.pictures import Preparation
from xaicli.sources.table import open_kept
from xaicli.vocabulary import SAMPLE_ID

BRIGHTNESS, LENGTH = "brightness", "length"
_IDS, _MASK = "input_ids", "attention_mask"
MOST = 20_000
"""So many inputs are read."""


def kept_inputs(reader: Reader) -> tuple[pl.DataFrame, str]:
    """What the inputs of `run.log_inputs` are like, and a word where not all were read.

    Returns:
        Rows sample_id, and of the kinds there are brightness (the mean of a picture's pixels, 0 black to 1 white) and
        length (how many tokens a row of whole numbers has, those left out that its attention mask leaves out); no
        columns but the id where no inputs were kept.
    """
    kind = reader.stored.get(SAMPLE_ID, pl.Int64())
    nothing = pl.DataFrame(schema={SAMPLE_ID: kind})
    if not reader.layout.inputs.is_dir():
        return nothing, ""
    try:
        kept = open_kept(reader.layout, None, Preparation(), strict=False, contents=reader.contents)
    except XaiError:
        return nothing, ""
    rows: list[dict[str, Any]] = []
    for position, sample_id in enumerate(kept.sample_ids[:MOST]):
        try:
            sample = kept.read(position)
        except (BadSampleError, XaiError, ValueError, OSError):
            continue
        bright = float(np.asarray(sample.picture).mean()) / 255 if sample.picture is not None else None
        length = _length(sample.arrays) if sample.picture is None else None
        rows.append({SAMPLE_ID: sample_id, BRIGHTNESS: bright, LENGTH: length})
    frame = pl.DataFrame(rows, schema={SAMPLE_ID: kind, BRIGHTNESS: pl.Float64(), LENGTH: pl.Int64()}, strict=False)
    told = frame.select(SAMPLE_ID, *(name for name in (BRIGHTNESS, LENGTH) if frame[name].null_count() < frame.height))
    left = len(kept.sample_ids) - MOST
    return told, f"{left:,} of {len(kept.sample_ids):,} kept inputs were not looked at" if left > 0 else ""


def _length(arrays: Mapping[str, NDArray[Any]]) -> int | None:
    """How many tokens a text has; None for what is no row of whole numbers."""
    tokens = arrays.get(_IDS, next(iter(arrays.values())))
    if tokens.dtype.kind not in "iu" or tokens.ndim != 1:
        return None
    mask = arrays.get(_MASK)
    return int(np.count_nonzero(mask)) if mask is not None and mask.shape == tokens.shape else len(tokens)
