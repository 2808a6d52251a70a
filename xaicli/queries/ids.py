"""Sample ids as the user writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl

from xaicli.errors import unknown
from xaicli.queries.selection import Selection, words
from xaicli.reader import Place, Reader
from xaicli.vocabulary import SAMPLE_ID

_NEAREST = 5
_COMPARED = 20_000
"""Close matches among more text ids than this would take longer than the answer."""


def parse_ids(reader: Reader, given: Sequence[Any] | str | int | None) -> list[Any]:
    """The ids, each once, as the run's kind; a text with commas is several, as on the command line.

    Raises:
        XaiError: Text where the run's ids are integers.
    """
    if isinstance(given, str | int):
        given = words(given)
    items = list(dict.fromkeys(given or ()))
    dtype = reader.dtypes.get(SAMPLE_ID)
    if dtype is None or not dtype.is_integer():
        return [str(item) for item in items]
    try:
        return list(dict.fromkeys(int(item) for item in items))
    except ValueError:
        wrong = next(item for item in items if not str(item).strip().lstrip("+-").isdigit())
        raise unknown("sample_id", wrong, ["integers"], where=str(reader.layout.root)) from None


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
