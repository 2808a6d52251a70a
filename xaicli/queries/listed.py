"""Samples that are listed by id, of which a file may say where each was recorded."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from xaicli.errors import UsageError, XaiError, unknown
from xaicli.queries.selection import Catalogue, Pair, Selection, left_out_by
from xaicli.reader import Place, Reader
from xaicli.tables.lists import ANYWHERE, PlacedId, RowPlace, asked_in_files, columns_of, ids_of_columns, is_of
from xaicli.vocabulary import SAMPLE_ID
from xaicli.words import split

Ids = Iterable[Any] | str | int | None
"""Sample ids in Python: one, several in whatever holds them, a frame with `sample_id`, or a text as typed."""

_INTEGER = re.compile(r"[+-]?[0-9]+(\.0*)?")
_NEAREST = 5
_SHOWN = 12
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
    """The items of whatever holds ids: numpy arrays and scalars, tensors, pandas and polars series, any iterable.

    Raises:
        UsageError: Truth values, or lists within.
    """
    if given is None:
        return []
    if isinstance(given, str):
        return split(given)
    for convert in ("to_list", "tolist"):
        if hasattr(given, convert):
            given = getattr(given, convert)()
            break
    items = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [given]
    if any(isinstance(item, list | tuple | Mapping) or math.prod(getattr(item, "shape", ())) != 1 for item in items):
        raise UsageError(
            "ids are one list, and what was given has rows or lists of them",
            hint="ids.ravel() makes one of an array; a frame names its ids in a column sample_id",
        )
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
    """Raise for listed ids that no selected row has: first for those that are nowhere, offering close ones.

    Raises:
        XaiError: There is such an id.
    """
    missing = [item for item in wanted if item not in known]
    if not missing:
        return
    pair = selection.pairs[0]
    last, limits = Place(*pair, selection.epochs[pair][-1]), left_out_by(reader, selection)
    ids = reader.sample_ids() if limits else reader.frame(last, [SAMPLE_ID])[0][SAMPLE_ID]
    there = [item for item in missing if item in set(ids)] if limits else []
    if len(there) == len(missing):
        stands = f"sample_id {missing[0]!r} is in {reader.described}, but in no row selected"
        raise XaiError(stands, hint=f"left out by {limits}")
    where = reader.described if limits else f"{reader.layout.described}, {' '.join(filter(None, pair))}"
    absent = [item for item in missing if item not in there]
    notes = [f"nor is there {_together(absent[1:])}"] if absent[1:] else []
    notes += [f"{_together(there)} left out by {limits}"] if there else []
    raise unknown("sample_id", absent[0], _near(ids, absent[0]), where=where, note="; ".join(notes))


def _together(ids: Sequence[Any]) -> str:
    return ", ".join(map(str, ids[:_SHOWN])) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")


def _near(ids: pl.Series, missing: Any) -> list[Any]:
    if not ids.dtype.is_integer():
        return ids.head(_COMPARED).sort().to_list()
    distance = np.abs(ids.to_numpy().astype(np.float64) - float(missing))
    return sorted(ids.gather(np.argsort(distance, kind="stable")[:_NEAREST]).to_list())


@dataclass(frozen=True)
class Listed:
    """The listed samples.

    Attributes:
        ids: Each once, as the run's kind.
        places: Where each was recorded as its list says, for ids of lists that do: `ANYWHERE` where a row does not.
    """

    ids: list[Any]
    places: Mapping[Any, Sequence[RowPlace]]
    asked: Mapping[str, list[str]] = field(default_factory=dict)
    """`asked_in_files`: ids alone would ask for more."""

    def of(self, pair: Pair) -> list[Any]:
        """The ids that are meant in one (mode, ds_id)."""
        return [one for one in self.ids if any(is_of(place, pair) for place in self.places.get(one, (ANYWHERE,)))]

    def each(self) -> list[tuple[Any, RowPlace]]:
        """Every id with each place that is named for it."""
        return [(one, place) for one in self.ids for place in self.places.get(one, (ANYWHERE,))]

    def within(self, pairs: Collection[Pair]) -> list[Any]:
        """The ids that are meant in any of some (mode, ds_id)."""
        meant = {one for pair in pairs for one in self.of(pair)}
        return [one for one in self.ids if one in meant]

    def not_in(self, pairs: Collection[Pair]) -> list[str]:
        """What is said of rows that are about other splits or data sets than those selected.

        Raises:
            XaiError: All of them are.
        """
        named = [place for places in self.places.values() for place in places]
        other = [place for place in named if not any(is_of(place, pair) for pair in pairs)]
        if not other:
            return []
        told = ", ".join(f"{n:,} of {_named(place)}" for place, n in Counter(other).most_common())
        here = ", ".join(map(_named, pairs))
        if len(other) == len(named) and len(self.places) == len(self.ids):
            modes = ",".join(dict.fromkeys(place[0] for place in other if place[0]))
            raise XaiError(
                f"the listed samples are not of {here}: by mode and ds_id of their list {told}",
                hint=f"--mode {modes}"
                if modes and not {place[0] for place in other} & {one[0] for one in pairs}
                else "--ds-id chooses their data set",
            )
        return [f"listed samples are not of {here}, and left out: by mode and ds_id of their list {told}"]

    def refuse_absent(self, known: Mapping[Pair, Collection[Any]]) -> None:
        """Raise for a listed id that is not where its list says.

        Args:
            known: The ids of each (mode, ds_id).

        Raises:
            XaiError: There is one.
        """
        for sample_id, places in self.places.items():
            for place in places:
                here = [pair for pair in known if is_of(place, pair)]
                if place != ANYWHERE and here and not any(sample_id in known[pair] for pair in here):
                    raise XaiError(
                        f"no sample_id {sample_id!r} in {_named(place)}, where its list has it",
                        hint="the columns mode and ds_id of a list say which rows are meant",
                    )


def _of_columns(given: Any) -> Any:
    """The ids of a frame with their places, as of a file with its columns; anything else as it is."""
    given = given.collect() if isinstance(given, pl.LazyFrame) else given
    is_frame = hasattr(given, "columns") and not isinstance(given, Sequence)
    if not (is_frame or hasattr(given, "answer") or (isinstance(given, Mapping) and SAMPLE_ID in given)):
        return given
    name, columns = columns_of(given)
    if SAMPLE_ID not in columns:
        raise XaiError(f"{name} has no column sample_id", hint=f"its columns: {', '.join(columns)}")
    return ids_of_columns(columns)


def _named(place: RowPlace) -> str:
    return " ".join(filter(None, place)) or '""'


def listed(source: Catalogue, given: Ids) -> Listed:
    """The listed samples.

    Args:
        source: The run or table.
        given: As `parse_ids` takes it; a list with `PlacedId` where a file says where a sample was recorded; or a
            frame, an answer or a mapping of columns, which is what a file of it would be.

    Raises:
        XaiError: An id that is none of the run's kind, or a frame has none.
        UsageError: As `parse_ids`.
    """
    given = _of_columns(given)
    ids = parse_ids(source, given)
    if not isinstance(given, list) or not any(isinstance(one, PlacedId) for one in given):
        return Listed(ids, {})
    places: dict[Any, dict[RowPlace, None]] = {}
    for one in given:
        place = one.place if isinstance(one, PlacedId) else ANYWHERE
        places.setdefault(parse_ids(source, [one])[0], {})[place] = None
    return Listed(ids, {one: list(own) for one, own in places.items()}, asked_in_files(given))
