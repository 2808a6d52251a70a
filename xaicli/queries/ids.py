"""Sample ids as the user writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl

from xaicli.errors import UsageError, XaiError, unknown
from xaicli.queries.selection import Catalogue, Selection, words
from xaicli.reader import Place, Reader
from xaicli.vocabulary import SAMPLE_ID

Ids = Iterable[Any] | str | int | None
"""Sample ids in Python: one, several in whatever holds them, or a text with commas as typed."""

_INTEGER = re.compile(r"[+-]?[0-9]+(\.0*)?")
_NEAREST = 5
_COMPARED = 20_000
"""Close matches among more text ids than this would take longer than the answer."""


def parse_ids(source: Catalogue, given: Ids) -> list[Any]:
    """The ids, each once, as the run's kind.

    Args:
        source: The run or table.
        given: One id, any list, array, series or tensor of them, or a text with commas as on the command line.

    Raises:
        XaiError: An id that is no integer of 64 bits where the run's ids are.
        UsageError: Truth values, which say which samples are meant by position.
    """
    where = source.described
    items = list(dict.fromkeys(_listed(given)))
    dtype = source.dtypes.get(SAMPLE_ID)
    if dtype is None or not dtype.is_integer():
        return [str(item) for item in items]
    return list(dict.fromkeys(_integer(item, where) for item in items))


def _listed(given: Ids) -> list[Any]:
    """The items of whatever holds ids: numpy arrays and scalars, tensors, pandas and polars series, any iterable."""
    if given is None:
        return []
    if isinstance(given, str):
        return words(given) or []
    for convert in ("to_list", "tolist"):
        if hasattr(given, convert):
            given = getattr(given, convert)()
            break
    items = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [given]
    plain = [item.item() if hasattr(item, "item") else item for item in items]
    if any(isinstance(item, bool) for item in plain):
        raise UsageError("ids are truth values", hint="give the ids themselves, as in ids[mask]")
    return plain


def _integer(item: Any, where: str) -> int:
    """An id of a run whose ids are integers."""
    if not _INTEGER.fullmatch(text := str(item).strip()):
        raise XaiError(f"no sample_id {str(item)!r} in {where}", hint="the run's ids are integers")
    number = int(text.partition(".")[0])
    if not -(1 << 63) <= number < 1 << 63:
        raise XaiError(f"no sample_id {number} in {where}", hint="the run's ids are integers of at most 64 bits")
    return number


def refuse_unknown(reader: Reader, selection: Selection, wanted: Iterable[Any], known: set[Any]) -> None:
    """Raise for the first listed id that no selected row has, offering close ones.

    Raises:
        XaiError: There is such an id.
    """
    missing = [item for item in wanted if item not in known]
    if not missing:
        return
    pair = selection.pairs[0]
    frame, _ = reader.frame(Place(*pair, selection.epochs[pair][-1]), [SAMPLE_ID])
    where = f"{reader.layout.root}, {' '.join(filter(None, pair))}"
    raise unknown("sample_id", missing[0], _near(frame[SAMPLE_ID], missing[0]), where=where)


def _near(ids: pl.Series, missing: Any) -> list[Any]:
    if not ids.dtype.is_integer():
        return ids.head(_COMPARED).sort().to_list()
    distance = np.abs(ids.to_numpy().astype(np.float64) - float(missing))
    return sorted(ids.gather(np.argsort(distance, kind="stable")[:_NEAREST]).to_list())
