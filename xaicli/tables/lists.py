"""Lists of samples beside a data set: which of them to train on, with what weight, and whose label is corrected.

What `xai select` and `xai relabel apply` write, and what people write by hand. Takes no torch with it.
"""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xaicli.errors import UsageError, XaiError
from xaicli.files import for_arrow, taken
from xaicli.tables.cells import bare_ids, below_remarks, header, is_whole, read_cells, without_guards, without_remarks
from xaicli.tables.labels import Classes, Spelt, Written, class_number, is_row
from xaicli.tables.rows import Rows, Unreadable
from xaicli.tables.schema import CategoricalLabel, Schema
from xaicli.vocabulary import DS_ID, LABEL, MODE, SAMPLE_ID, Mode
from xaicli.words import quoted, unguarded, unquoted

if TYPE_CHECKING:
    from torch.utils.data import Sampler

    from xaicli.tables.table import Table

WEIGHT = "weight"
_KINDS = "one id a line (.txt), CSV (.csv), Parquet (.parquet), JSON (.json) or JSON lines (.jsonl) with sample_id"
NOT_UTF8 = "it is not in UTF-8: a spreadsheet saves it as CSV UTF-8"
_SHOWN = 5
_TYPED = frozenset({".parquet", ".pq", ".json", ".jsonl", ".ndjson"})


RowPlace = tuple[str, str | None]
"""Where a row of a list says that its sample was recorded: mode, or ""; ds_id, or None where it does not say."""
ANYWHERE: RowPlace = ("", None)


@dataclass(frozen=True)
class SampleList:
    """Samples by id.

    Attributes:
        source: Where it is from, for messages.
        ids: The ids as they stand there, each once.
        weights: One a sample as it stands there; None where there are none.
        labels: One a sample; None where there are none.
        called: What the class of each label is called, where it is a table that `xai relabel apply` writes and says so.
        only: The (mode, ds_id) that every row names; None where there are several, or none.
    """

    source: str
    ids: tuple[Any, ...]
    weights: tuple[Any, ...] | None = None
    labels: tuple[Any, ...] | None = None
    called: tuple[Any, ...] | None = None
    only: RowPlace | None = None

    def rows(self, ids: Sequence[Any]) -> dict[int, int]:
        """Where these samples are in a data set: {row: place in this list}, by row.

        Ids are compared as text, for a file may hold nothing else. Those that are not there are warned about.

        Args:
            ids: The id of every row of the data set.

        Raises:
            XaiError: None of them is there.
        """
        places: dict[str, list[int]] = {}
        for row, sample_id in enumerate(ids):
            places.setdefault(str(_plain(sample_id)), []).append(row)
        found: dict[int, int] = {}
        unknown = []
        for place, sample_id in enumerate(self.ids):
            text = str(sample_id)
            spellings = text, *filter(None, (unguarded(text), text.strip(), _without_decimals(text)))
            rows = next((places[one] for one in spellings if one in places), None)
            if rows is None:
                unknown.append(text)
            found |= dict.fromkeys(rows or (), place)
        if unknown and not found:
            raise XaiError(
                f"none of the {len(self.ids):,} samples of {self.source} is in the data set",
                hint=f"it names {_some(unknown)}; the data set holds {_some(list(places))}: Table(..., ids=...)",
            )
        if unknown:
            warnings.warn(
                f"{len(unknown):,} of the {len(self.ids):,} samples of {self.source} "
                f"{'is' if len(unknown) == 1 else 'are'} not in the data set: "
                f"{_some(unknown)}",
                stacklevel=4,
            )
        return dict(sorted(found.items()))


@dataclass(frozen=True)
class Recorded:
    """Where the samples of a data set were recorded, as far as is said.

    Attributes:
        mode: None where nobody said.
        ds_id: Likewise; "" is the data set without a name.
    """

    mode: str | None = None
    ds_id: str | None = None

    def has(self, place: RowPlace) -> bool:
        """Whether a row of a list may be about it: one that names nothing may."""
        mode, ds_id = place
        return (not mode or self.mode in (None, mode)) and (ds_id is None or self.ds_id in (None, ds_id))


def read_list(source: Any, recorded: Recorded | None = None) -> SampleList:
    """A list of samples.

    Args:
        source: A file (text with one id a line, CSV, Parquet, JSON, JSON lines), the answer of `RunReader.select`, a
            frame with a column `sample_id`, a mapping from ids to weights or labels, or ids.
        recorded: Which rows are looked at, where the list says of which samples each is: those of this mode and data
            set; all when None.

    Raises:
        XaiError: It cannot be read, names no sample, or is about several data sets.
    """
    name, columns = columns_of(source)
    if recorded is not None and SAMPLE_ID in columns:
        columns = _rows_of(name, columns, recorded)
    ids = columns.get(SAMPLE_ID)
    if ids is None:
        raise XaiError(f"{name} has no column sample_id", hint=f"its columns: {', '.join(map(str, columns))}; {_KINDS}")
    if {"x0", "y0", "x1", "y1"} <= columns.keys():
        raise XaiError(
            f"{name} is about boxes, and a list has one row a sample", hint="your own data set reads corrected boxes"
        )
    _refuse_shared_ids(name, columns, ids)
    kept: dict[str, int] = {}
    missing = 0
    for place, sample_id in enumerate(ids):
        if sample_id is None:
            missing += 1
        else:
            kept[str(_plain(sample_id))] = place
    if not kept:
        raise XaiError(f"{name} names no sample", hint=_KINDS)
    repeated = len(ids) - missing - len(kept)
    if missing:
        said = "row of {} without an id is left out" if missing == 1 else "rows of {} without an id are left out"
        warnings.warn(f"{missing:,} {said.format(name)}", stacklevel=4)
    if repeated:
        said = "row of {} names" if repeated == 1 else "rows of {} name"
        warnings.warn(f"{repeated:,} {said.format(name)} a sample again: its last one counts", stacklevel=4)
    places = list(kept.values())
    # In a table of `relabel export` a column `name` is a fact.
    is_ours = columns.keys() >= {LABEL, "name", "by", "when"} and "recorded_label" not in columns
    weights, labels, called = (
        tuple(_plain(columns[key][place]) for place in places) if key in columns else None
        for key in (WEIGHT, LABEL, "name")
    )
    listed = tuple(_plain(ids[place]) for place in places)
    named = set(places_of(columns))
    only = next(iter(named)) if len(named) == 1 and any(named) and next(iter(named))[0] else None
    return SampleList(name, listed, weights, labels, called if is_ours else None, only)


def is_of(place: RowPlace, pair: tuple[str, str]) -> bool:
    """Whether a row of a list may be about a (mode, ds_id)."""
    return place[0] in ("", pair[0]) and place[1] in (None, pair[1])


def places_of(columns: Mapping[str, Sequence[Any]]) -> list[RowPlace]:
    """What each row of a list of samples names; where it has a mode, an empty data set is the one without a name."""
    n = len(columns[SAMPLE_ID])
    modes, sets = (columns.get(key) or [None] * n for key in (MODE, DS_ID))
    rows = ((_known(mode), _known(ds_id)) for mode, ds_id in zip(modes, sets, strict=True))
    named = ((str(mode or "").strip(), str(ds_id or "")) for mode, ds_id in rows)
    return [(mode, ds_id if ds_id or (mode and DS_ID in columns) else None) for mode, ds_id in named]


def _known(value: Any) -> Any:
    """A cell; None where a frame of pandas has NaN or NA for nothing."""
    return None if type(value).__name__ == "NAType" or (isinstance(value, float) and math.isnan(value)) else value


class PlacedId(str):
    """An id of a file that says where the sample was recorded.

    Attributes:
        place: What the file says.
        file: The file as it was named, behind an `@`; "" where it has no name.
    """

    __slots__ = ("file", "place")

    place: RowPlace
    file: str

    @classmethod
    def of(cls, text: str, place: RowPlace, file: str = "") -> str:
        """The id, with its place where there is one."""
        if place == ANYWHERE:
            return text
        made = cls(text)
        made.place, made.file = place, file
        return made


def ids_of_columns(columns: Mapping[str, Sequence[Any]], file: str = "") -> list[str]:
    """The ids of a list, of rows that have one; each a `PlacedId` where the columns mode or ds_id say where it is."""
    rows = zip(columns[SAMPLE_ID], places_of(columns), strict=True)
    return [PlacedId.of(str(one), place, file) for one, place in rows if _known(one) is not None]


def asked_in_files(ids: Any) -> dict[str, list[str]]:
    """What of a selection says how ids were asked for whose files say where they were recorded; empty without such."""
    if not isinstance(ids, list) or not any(isinstance(one, PlacedId) and one.file for one in ids):
        return {}
    typed = dict.fromkeys((one.file if isinstance(one, PlacedId) else "") or quoted(str(one)) for one in ids)
    return {"ids_asked": list(typed)}


def _rows_of(name: str, columns: Mapping[str, Sequence[Any]], recorded: Recorded) -> Mapping[str, Sequence[Any]]:
    """The rows of a list that are about a data set; the others are counted."""
    own = [place for place, one in enumerate(places_of(columns)) if recorded.has(one)]
    if not own and columns[SAMPLE_ID]:
        of = " ".join(one for one in (recorded.mode, recorded.ds_id) if one)
        raise XaiError(f"no row of {name} is about samples of {of}", hint="its mode and ds_id say which each is about")
    if left := len(columns[SAMPLE_ID]) - len(own):
        said = "row of {} is" if left == 1 else "rows of {} are"
        warnings.warn(f"{left:,} {said.format(name)} about other samples, as their mode and ds_id say", stacklevel=5)
    return {key: [values[place] for place in own] for key, values in columns.items()}


def is_typed(source: Any) -> bool:
    """Whether a source of samples tells numbers from texts, as CSV does not."""
    return not isinstance(source, str | os.PathLike) or Path(source).suffix.lower() in _TYPED


def _refuse_shared_ids(name: str, columns: Mapping[str, Sequence[Any]], ids: Sequence[Any]) -> None:
    """Refuse a list in which one id stands for samples of several data sets.

    Raises:
        XaiError: It does.
    """
    places: dict[str, RowPlace] = {}
    for sample_id, place in zip(ids, places_of(columns), strict=True):
        before = places.setdefault(str(_plain(sample_id)), place)
        if before != place:
            told = " and ".join(" ".join(filter(None, one)) or '""' for one in (before, place))
            raise XaiError(
                f"{name} is about several data sets, and sample {_plain(sample_id)} is in {told}",
                hint="an id of one can be another sample in the next: Table(..., mode=..., ds_id=...), or choose from "
                "one: --mode train --ds-id NAME",
            )


def _without_decimals(text: str) -> str:
    """A whole number as such: what pandas and spreadsheets make 7.0 of."""
    number = text.strip().removesuffix(".0").removeprefix("+")
    return number if number.removeprefix("-").isdecimal() else text


def _weight(value: Any, source: str) -> float:
    try:
        # A spreadsheet in much of Europe writes 0,5.
        weight = float(value.replace(",", ".") if isinstance(value, str) and value.count(",") == 1 else value)
    except (TypeError, ValueError):
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise XaiError(f"{source}: {value!r} is no weight", hint="a number from 0 for every sample")
    return weight


def _named(source: Any) -> str:
    """What a source is called in messages."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return "the given answer" if hasattr(source, "answer") else f"the given {type(source).__name__}"


def columns_of(source: Any) -> tuple[str, Mapping[str, Sequence[Any]]]:
    """What a source is called, and its columns."""
    name = _named(source)
    if isinstance(source, str | os.PathLike):
        return name, read_columns(Path(source))
    source = source.data if hasattr(source, "answer") else source
    if isinstance(source, Mapping) and SAMPLE_ID in source:
        return name, {str(key): list(values) for key, values in source.items()}
    if isinstance(source, Mapping):
        return name, {SAMPLE_ID: list(source), LABEL: list(source.values()), WEIGHT: list(source.values())}
    if hasattr(source, "columns") and not isinstance(source, Sequence):  # polars, pandas, Arrow
        names = list(getattr(source, "column_names", source.columns))
        return name, {str(key): _listed(source[key]) for key in names}
    if isinstance(source, Iterable):
        return name, {SAMPLE_ID: _listed(source)}
    raise UsageError(f"{source!r} is no list of samples", hint=_KINDS)


def _listed(values: Any) -> list[Any]:
    for convert in ("to_list", "tolist", "to_pylist"):
        if hasattr(values, convert):
            found: list[Any] = getattr(values, convert)()
            return found
    return list(values)


def read_columns(path: Path, *, is_raw: bool = False) -> dict[str, list[Any]]:
    """The columns of a file of samples; of CSV and text as text.

    An empty text is one wherever the file tells it from nothing at all: in Parquet, JSON and as `""` in CSV.

    Args:
        path: Text with one id a line, CSV, Parquet, JSON or JSON lines.
        is_raw: Leave in CSV what keeps a spreadsheet from running a text, as in a file that others wrote.

    Raises:
        XaiError: It cannot be read, or is no such file.
    """
    suffix = path.suffix.lower()
    try:
        match suffix:
            case ".parquet" | ".pq":
                import pyarrow.parquet as pq

                found: dict[str, list[Any]] = pq.read_table(for_arrow(taken(path))).to_pydict()
                return found
            case ".csv" | ".tsv":
                return _of_csv(read_text(path), "\t" if suffix == ".tsv" else None, is_raw=is_raw)
            case ".json":
                return _of_json(json.loads(read_text(path)))
            case ".jsonl" | ".ndjson":
                return _of_json([json.loads(line) for line in read_text(path).split("\n") if line.strip()])
            case ".txt" | ".ids" | "":
                return columns_of_text(read_text(path))
            case _:
                raise XaiError(f"{path}: {suffix} is no kind of list", hint=_KINDS)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error).strip().split("\n")[0]
        hint = NOT_UTF8 if isinstance(error, UnicodeDecodeError) else _KINDS
        raise XaiError(f"{path} cannot be read: {said}", hint=hint) from error


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or UTF-16 as its byte order mark says.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is no such text.
    """
    return decoded(taken(path).read_bytes())


def decoded(content: bytes) -> str:
    """Bytes as `read_text` reads them."""
    return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


def columns_of_text(text: str) -> dict[str, list[Any]]:
    """The columns of a text: CSV where its first line names a column `sample_id`, else one id a line.

    A line that begins with `# ` is a remark, and where all ids are numbers, so is what `bare_ids` tells.
    """
    text = _from_heading(text)
    if any(SAMPLE_ID in _names(text, separator) for separator in _SEPARATORS):
        return _of_csv(text, None)
    lines = id_lines(text)
    kept = [line for line in lines if line != "#" and not line.startswith(("# ", "#\t"))]
    return {SAMPLE_ID: [unquoted(line) for line in bare_ids(kept) if line is not None]}


def _from_heading(text: str) -> str:
    """A text from its heading on where that stands below remarks."""
    below = below_remarks(text)
    return below if any(SAMPLE_ID in _names(below, separator) for separator in _SEPARATORS) else text


def id_lines(text: str) -> list[str]:
    """The lines of a list with one id a line as they are typed, without the blanks about them and those of nothing."""
    return [line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip()]


_SEPARATORS = ",;\t|"
"""A spreadsheet in much of Europe has semicolons between its values."""


def _names(text: str, separator: str) -> list[str]:
    return [unguarded(name.strip()) for name in header(text, separator)]


def _of_csv(text: str, separator: str | None, *, is_raw: bool = False) -> dict[str, list[Any]]:
    text = _from_heading(text)
    if separator is None:
        named = [one for one in _SEPARATORS if SAMPLE_ID in (names := _names(text, one)) and len(names) > 1]
        separator = named[0] if named else max(",;\t", key=lambda one: len(header(text, one)))
    cells = read_cells(without_remarks(text, separator, SAMPLE_ID), separator)
    columns = {
        unguarded(name.strip()): column.to_pylist()
        for name, column in zip(cells.names, cells.columns, strict=True)
        if name
    }
    return columns if is_raw else without_our_guards(columns)


def without_our_guards(columns: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Columns of texts that were read raw from CSV, as they were before they were written to it."""
    return {name: without_guards(pa.array(values, pa.string())).to_pylist() for name, values in columns.items()}


def _of_json(found: Any) -> dict[str, list[Any]]:
    """The rows of an answer's JSON, a list of objects, or a list of ids."""
    rows = found.get("rows", found) if isinstance(found, dict) else found
    if isinstance(rows, dict):
        return {str(key): list(values) for key, values in rows.items() if isinstance(values, list)}
    if not isinstance(rows, list):
        raise ValueError("it holds no list of samples")
    if not rows:
        return {SAMPLE_ID: []}  # of no row nobody can tell the columns
    if not all(isinstance(row, dict) for row in rows):
        return {SAMPLE_ID: rows}
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _plain(value: Any) -> Any:
    """An id or a label without the array or tensor about it."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


def _some(ids: Sequence[Any]) -> str:
    return ", ".join(quoted(str(i), special="") for i in ids[:_SHOWN]) + (
        f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
    )


def chosen_rows(
    source: Any, ids: Sequence[Any], recorded: Recorded | None = None
) -> tuple[NDArray[np.intp], NDArray[np.float64] | None]:
    """Which rows of a data set a list chooses, ascending, and what they weigh.

    Args:
        source: As `read_list` takes it.
        ids: The id of every row.
        recorded: Likewise.

    Returns:
        The rows, and their weights: None where the list has none, or all weigh 1.

    Raises:
        XaiError: The list cannot be read, or names none of the rows.
    """
    listed = read_list(source, recorded)
    found = listed.rows(ids)
    rows = np.fromiter(found, np.intp, len(found))
    if listed.weights is None:
        return rows, None
    weights = np.array([_weight(listed.weights[place], listed.source) for place in found.values()])
    return rows, None if (weights == 1).all() else weights


def sampler_of(
    source: Any,
    dataset: Table | Sequence[int | str] | int,
    *,
    n: int | None = None,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Sampler[int]:
    """A sampler over a data set that takes the samples of a list, by their weights where it has any.

    Args:
        source: What `xai select` wrote, or anything else `Table(select=...)` takes.
        dataset: The data set it samples: a `Table`, the id of each of its rows, or its length where the row numbers are
            the ids.
        n: How many an epoch draws by weight; as many as weigh anything when None.
        seed: Of the sampler's own random numbers.
        rank: Which process of a distributed training it is for; not where the trainer shares out samplers itself, as
            Lightning and accelerate do.
        world_size: How many processes there are. Each takes its part of the same draws, all as many: where they do not
            go up, the first are taken again, as torch's `DistributedSampler` does.

    Returns:
        `WeightedRandomSampler`, with replacement, where the weights differ; else `SubsetRandomSampler`. With a
        `world_size` above 1 one over a part of its draws.

    Raises:
        XaiError: The list cannot be read, names none of the rows, or all its samples weigh nothing.
        UsageError: `n` without weights: every sample is taken once; a rank that is none of the processes.
    """
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} is none of {world_size} processes", hint=f"0 to {max(world_size, 1) - 1}")
    whole = _sampler_of(source, dataset, n, seed)
    if world_size == 1:
        return whole
    from xaicli.tables.shares import SharedSampler

    return SharedSampler(whole, rank, world_size)


def _sampler_of(source: Any, dataset: Table | Sequence[int | str] | int, n: int | None, seed: int) -> Sampler[int]:
    import torch
    from torch.utils.data import SubsetRandomSampler, WeightedRandomSampler

    if isinstance(dataset, int):
        ids: Sequence[Any] = range(dataset)
    else:
        known: Any = getattr(dataset, "sample_ids", dataset)
        ids = range(len(dataset)) if known is None else known
    rows, weights = chosen_rows(source, ids)
    generator = torch.Generator().manual_seed(seed)
    if weights is None:
        if n is not None:
            raise UsageError("n is how many are drawn by weight, and the list has no weights", hint="leave n out")
        return SubsetRandomSampler(rows.tolist(), generator=generator)
    every = np.zeros(len(ids))
    every[rows] = weights
    drawn = int(np.count_nonzero(every)) if n is None else n
    if not every.any():
        raise XaiError(f"all samples of {_named(source)} weigh nothing", hint="some weight must be above 0")
    return WeightedRandomSampler(every.tolist(), drawn, replacement=True, generator=generator)


@dataclass(frozen=True)
class ChosenRows:
    """Some rows of a data set, in its order."""

    rows: Rows
    chosen: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Any:
        return self.rows[int(self.chosen[index])]


@dataclass(frozen=True)
class Relabelled:
    """A data set with some labels corrected.

    Attributes:
        rows: The data set.
        corrections: {row: label}.
        label: Where a sample has its label: a key of a mapping, or a place in a tuple; None for `label`, or the second
            of two.
        names: Class names, for corrections that are given as such.
        source: Where the corrections are from.
        is_typed: Whether the source tells numbers from texts, as CSV does not.
        called: {row: what the class of its label is called}, where the source says so.
    """

    rows: Rows
    corrections: Mapping[int, Any]
    label: str | int | None
    names: Mapping[str, Any]
    source: str
    is_typed: bool = False
    called: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        sample = self.rows[index]
        if index not in self.corrections or isinstance(sample, Unreadable):
            return sample
        place = self._place(sample)
        value = self._like(sample[place], self.corrections[index], self.called.get(index, ""))
        if isinstance(sample, Mapping):
            return {**sample, place: value}
        changed = [*sample]
        changed[place] = value
        if hasattr(sample, "_make"):
            return sample._make(changed)
        return changed if isinstance(sample, list) else tuple(changed)

    def check(self, ids: Sequence[Any]) -> None:
        """Say now, not in the middle of a training, what cannot be put right: each label, tried in one sample.

        Args:
            ids: The id of every row.

        Raises:
            XaiError: A label cannot stand in place of that sample's.
        """
        first: dict[tuple[type, str, str], int] = {}
        for row, new in self.corrections.items():
            first.setdefault((type(new), str(new), self.called.get(row, "")), row)
        sample = next((one for row in first.values() if not isinstance(one := self.rows[row], Unreadable)), None)
        if sample is None:
            return
        old = sample[self._place(sample)]
        for row in first.values():
            try:
                self._like(old, self.corrections[row], self.called.get(row, ""))
            except XaiError as error:
                raise XaiError(f"sample {ids[row]}: {error.message}", hint=error.hint) from None

    def _place(self, sample: Any) -> Any:
        """Where a sample has its label.

        Raises:
            XaiError: That is not known.
        """
        if isinstance(sample, Mapping):
            key = LABEL if self.label is None else self.label
            if key in sample:
                return key
            raise XaiError(
                f"a sample has no {key!r} to correct by {self.source}",
                hint=f"say which it is: Table(..., relabel=..., label=KEY); it has {', '.join(map(str, sample))}",
            )
        if isinstance(sample, tuple | list):
            if self.label is None and len(sample) == 2:
                return 1
            if isinstance(self.label, int) and -len(sample) <= self.label < len(sample):
                return self.label % len(sample)
        raise XaiError(
            f"where is the label of a {type(sample).__name__}, to correct it by {self.source}?",
            hint="Table(..., relabel=..., label=KEY), or label=1 for the second of a tuple",
        )

    @property
    def _texts(self) -> Spelt:
        """How a text of the source is spelt that stands alone."""
        return Spelt.NAME if self.is_typed else Spelt.EITHER

    def _like(self, old: Any, new: Any, called: str, texts: Spelt | None = None) -> Any:
        """A corrected label as the data set spells its own.

        Args:
            old: A label of the data set.
            new: The corrected one.
            called: What its class is called, where the source says so.
            texts: How a text is spelt; as those of the source that stand alone when None.

        Raises:
            XaiError: It cannot be.
        """
        try:
            row, texts = _flat(old), self._texts if texts is None else texts
            if row is not None:
                written = Written.of(new, texts)
                if written.is_list and _are_rows(row, written.values):
                    return self._row(old, row, written)
                if written.is_list and isinstance(old, list | tuple):
                    like = (self._like(old[0], one, "", written.spelt) if old else one for one in written.values)
                    return type(old)(like)
            elif isinstance(old, str) and not isinstance(new, list | tuple):
                return self._text(old, new, called, texts)
            elif getattr(old, "ndim", 0) == 0 and not isinstance(new, list | tuple):
                plain = self._number(new, called, texts, whole=isinstance(_plain(old), int))
                if isinstance(old, bool | int | float):
                    return type(old)(plain)
                if hasattr(old, "new_tensor"):
                    return old.new_tensor(plain)
                if isinstance(old, np.generic | np.ndarray):
                    return np.asarray(plain).astype(old.dtype)[()]
        except (TypeError, ValueError):
            pass
        raise XaiError(
            f"label {new!r} of {self.source} cannot stand in place of {old!r}",
            hint="labels are numbers, texts, or lists of classes; correct others with Table.map",
        )

    def _row(self, old: Any, row: Sequence[Any], new: Written) -> Any:
        """A row of 0 and 1 in place of another, from one or from a set of classes.

        Raises:
            XaiError: One of the two is a set of classes, or may be.
            ValueError: A class has no place in the row, or is named twice.
        """
        width, given = len(row), list(new.values)
        if new.row is not None:
            if not (is_row(row) or set(row) == {0, 1}) or len(given) != width:
                raise XaiError(
                    f"label {given!r} of {self.source} is a row of 0 and 1, and the data set has {list(row)!r}",
                    hint="write the classes of each sample, as xai relabel apply does",
                )
            told = [int(place in new.row) for place in range(width)]
        else:
            if width == 2 and new.may_be_row:
                raise XaiError(
                    f"label {given!r} of {self.source} may be two classes, or a row of 0 and 1 as the data set has",
                    hint="correct such rows with Table.map",
                )
            numbers = [self._number(one, "", new.spelt, whole=True) for one in given]
            if len(set(numbers)) != len(numbers) or not all(0 <= one < width for one in numbers):
                raise ValueError(new)
            told = [int(place in numbers) for place in range(width)]
        if isinstance(old, list | tuple):
            return type(old)(type(one)(there) for one, there in zip(row, told, strict=True))
        return old.new_tensor(told) if hasattr(old, "new_tensor") else np.asarray(told).astype(old.dtype)

    def _text(self, old: str, new: Any, called: str, texts: Spelt) -> str:
        """A label as text: by its name, and a number only in place of one.

        Raises:
            XaiError: A number is to stand among names.
        """
        is_text = isinstance(new, str) and texts is Spelt.NAME
        is_number = not is_text and is_whole(str(new))
        if meant := self._meant(new, called, texts):
            return next(name for name, value in self.names.items() if value == meant[0])
        if is_number and called:
            return called
        if is_number and not (isinstance(new, str) and is_whole(old)):
            raise XaiError(
                f"label {new!r} of {self.source} is a number, and the data set has names: {old!r}",
                hint='Table(..., schema={"label": CategoricalLabel("label", [NAME, ...])}) says which is which',
            )
        return str(new)

    def _number(self, new: Any, called: str, texts: Spelt, *, whole: bool) -> Any:
        if isinstance(new, str) and (meant := self._meant(new, called, texts)):
            return meant[0]
        value = class_number(new) if whole and isinstance(new, str) else float(new)
        if value is None or not math.isfinite(value) or (whole and not float(value).is_integer()):
            raise ValueError(new)
        return int(new) if whole and isinstance(new, int) else int(value) if whole else value

    def _meant(self, new: Any, called: str, texts: Spelt) -> tuple[Any, ...]:
        """The class that a label means; none where nothing is known of it.

        Raises:
            XaiError: It may be either of several, or the number of another.
        """
        classes, text = Classes(self.names, set(self.names.values())), str(new)
        spelt = texts if isinstance(new, str) else Spelt.NUMBER
        meant = classes.meant(text, spelt, called)
        names = {str(value): quoted(name) for name, value in self.names.items()}
        if len(meant) > 1:
            either = " and ".join(names[str(value)] for value in meant)
            raise XaiError(f"label {quoted(text)} of {self.source} may be either of {either}", hint="name one as it is")
        for number in classes.instead(text, spelt, called):
            raise XaiError(
                f"label {quoted(text)} of {self.source} may be the class called {names[str(meant[0])]}, "
                f"or class {number}, which is called {names[str(number)]}",
                hint="a Parquet file tells numbers from names: xai relabel apply ... -o FILE.parquet",
            )
        return meant


def _flat(label: Any) -> Sequence[Any] | None:
    """The entries of a label that is a list, or an array or a tensor of one dimension; None for any other."""
    if isinstance(label, list | tuple):
        return label
    listed = label.tolist() if getattr(label, "ndim", None) == 1 and hasattr(label, "tolist") else None
    return listed if isinstance(listed, list) else None


def _are_rows(old: Sequence[Any], new: Sequence[Any]) -> bool:
    """Whether one of two labels is a row of 0 and 1, and none a list of values."""
    are_values = any(isinstance(one, float) and not one.is_integer() for one in (*old, *new))
    return not are_values and (is_row(old) or is_row(new))


def relabelled(
    rows: Rows,
    ids: Sequence[Any],
    source: Any,
    *,
    label: str | int | None,
    schema: Mapping[str, Schema],
    recorded: Recorded | None = None,
) -> Relabelled:
    """A data set with the labels of a list in place of its own.

    Args:
        rows: The data set.
        ids: The id of every row.
        source: As `read_list` takes it, with labels; an empty label corrects nothing.
        label: As in `Relabelled`.
        schema: The schemas of its columns, for class names.
        recorded: As `read_list` takes it; when None, a list of another split than train is warned about.

    Raises:
        XaiError: The list has no labels, or one of them cannot stand in place of the first sample's.
    """
    listed = read_list(source, recorded)
    if recorded is None and listed.only is not None and listed.only[0] != Mode.TRAIN:
        of = " ".join(filter(None, listed.only))
        said = f"{listed.source} is about samples of {of}: Table(..., mode=..., ds_id=...) says which these rows are"
        warnings.warn(said, stacklevel=4)
    if listed.labels is None:
        raise XaiError(
            f"{listed.source} has no labels", hint="a column label beside sample_id, as xai relabel apply writes"
        )
    found = listed.rows(ids)
    corrections = {row: listed.labels[place] for row, place in found.items() if listed.labels[place] not in (None, "")}
    if not corrections:
        warnings.warn(f"{listed.source} has no label filled in: nothing is corrected", stacklevel=3)
    kind = schema.get(LABEL if not isinstance(label, str) else label)
    names = {str(name): value for value, name in kind.names.items()} if isinstance(kind, CategoricalLabel) else {}
    called = {row: str(listed.called[place] or "") for row, place in found.items()} if listed.called else {}
    made = Relabelled(rows, corrections, label, names, listed.source, is_typed(source), called)
    made.check(ids)
    return made
