"""Tables: images as bytes or paths, arrays as lists, or one feature a column.

Parquet is read a row group at a time, CSV as a whole.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xaicli.errors import XaiError
from xaicli.files import for_arrow
from xaicli.layout import PartName, RunLayout
from xaicli.sources.arrays import ID_NAMES, INPUT_NAMES, LABEL_NAMES
from xaicli.sources.inputs import NOWHERE, BadSampleError, IndexedSource, Pair, Sample, Words
from xaicli.sources.pictures import Preparation
from xaicli.tables.cells import read_csv_ids, read_typed_csv
from xaicli.vocabulary import Mode
from xaicli.words import chosen_names, quoted

if TYPE_CHECKING:
    from xaicli.parquet import Contents

_PATH_NAMES = ("path", "image_path", "file", "filename", "file_name", "img", "file_path")

_SPLITS_OF = {
    "train": ("train",),
    "eval": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test",),
    "infer": ("test",),
}
_SPLITS = frozenset(split for splits in _SPLITS_OF.values() for split in splits)

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
TABLES = (".parquet", ".pq", *_SEPARATORS)
"""How the names of table files end."""

_GROUPS_KEPT = 4
_LARGEST_GROUP = 8 * 2**30

Reader = Callable[[dict[str, Any]], tuple[NDArray[Any], NDArray[np.uint8] | None]]


def open_table(path: Path, preparation: Preparation, *, mode: str | None = None, strict: bool) -> IndexedSource:
    """Open a CSV or Parquet file, or all Parquet files of a folder as one table.

    The input is what the model calls its inputs, where columns have these names, else the first of: a column with a
    usual name ("image", "pixels") or the name of a path column, of image bytes, of paths (from the table's own folder),
    or of lists; else every numeric column is one feature. Labels and ids are told by their names ("label", "id").

    Raises:
        XaiError: It is no such table, or holds no input.
    """
    tables, reads_mode = ([path], False) if not path.is_dir() else _tables(path, mode)
    table = CsvRows(path) if path.suffix.lower() in _SEPARATORS else ParquetRows(tables)
    names = table.schema.names
    # What the model calls its inputs is no label and no id; rows of token ids are no ids of samples.
    free = [name for name in names if name not in preparation.names]
    id_name = next((name for name in ID_NAMES if name in free and _is_id(table.schema.field(name).type)), None)
    label_name = next((name for name in LABEL_NAMES if name in free), None)
    usual = next((name for name in (*INPUT_NAMES, *_PATH_NAMES) if name in names), None)
    inputs = [name for name in preparation.names if name in names] or ([usual] if usual is not None else [])
    folder = path if path.is_dir() else path.parent
    readers = {name: _reader(table.schema.field(name), folder, preparation) for name in inputs}
    columns = tuple(inputs)
    no_numbers: list[str] = []
    if not inputs:
        columns = tuple(f.name for f in table.schema if _is_number(f.type) and f.name not in (id_name, label_name))
        readers = {"": _features(columns)}
        no_numbers = [name for name in names if name not in (*columns, id_name, label_name)]
    if not columns:
        raise XaiError(f"{path} holds no inputs", hint=f"its columns: {', '.join(names)}; name the input x or image")
    labels = table.column(label_name) if label_name else None

    def read(position: int) -> Sample:
        row = table.row(position, columns)
        found = {name: reader(row) for name, reader in readers.items()}
        arrays = {("" if len(found) == 1 else name): array for name, (array, _) in found.items()}
        return Sample(arrays, labels[position] if labels else None, next(iter(found.values()))[1])

    ids = table.column(id_name) if id_name else range(len(table))
    likely = [name for name in names if name not in columns and re.search("label|target|class", name.lower())]
    said = f"{path} has no column of labels by its name; rename one of {', '.join(likely)} to label"
    notes = [said] if label_name is None and likely else []
    if id_name and (unnamed := sum(one is None for one in ids)):
        notes.append(f"{unnamed:,} {'row' if unnamed == 1 else 'rows'} of {path} without {id_name}: left out")
    if no_numbers:
        notes.append(f"columns of {path} that hold no numbers are no features: {', '.join(no_numbers)}")
    return IndexedSource(
        ids,
        read,
        str(path),
        strict,
        _class_names(table.schema, label_name),
        tuple(notes),
        reads_mode=reads_mode,
        features=() if inputs else columns,
    )


def _tables(path: Path, mode: str | None) -> tuple[list[Path], bool]:
    """The tables of a folder, of one split where their names tell several, as Hugging Face writes them.

    Returns:
        The tables, and whether the mode may choose among them.

    Raises:
        XaiError: They are of several splits, and the mode says none.
    """
    tables = sorted(path.glob("*.parquet"))
    splits = {table: table.name.split("-")[0].split(".")[0] for table in tables}
    if not set(splits.values()) <= _SPLITS or len(set(splits.values())) == 1:
        return tables, False
    wanted = [table for table, split in splits.items() if mode is not None and split in _SPLITS_OF.get(mode, ())]
    if not wanted:
        shown = ", ".join(dict.fromkeys(splits.values()))
        raise XaiError(f"{path} holds tables of several splits: {shown}", hint=f"name a file: --data {tables[0]}")
    return wanted, True


def _class_names(schema: Any, label: str | None) -> tuple[str, ...] | None:
    """The names of the labels, where the table says them as Hugging Face's ClassLabel does."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
        return tuple(map(str, names)) if isinstance(names, list) else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _reader(field: Any, folder: Path, preparation: Preparation) -> Reader:
    """How the value of a column becomes an input and a picture, told from the column's type."""
    import pyarrow as pa

    name, kind = field.name, field.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return lambda row: preparation.decoded(_given(row[name]))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return lambda row: preparation.decoded(folder / _given(row[name]))
    if pa.types.is_struct(kind):  # as Hugging Face datasets keep images
        return lambda row: preparation.decoded(_struct_image(_given(row[name]), folder))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        dtype = _innermost(kind).to_pandas_dtype()
        return lambda row: preparation.from_array(_regular(_given(row[name]), dtype), name)
    raise XaiError(f"column {name} is {kind}: no image, path or list", hint="name the input column x or image")


def _features(columns: tuple[str, ...]) -> Reader:
    def read(row: dict[str, Any]) -> tuple[NDArray[Any], None]:
        return np.array([float(_given(row[name])) for name in columns], dtype=np.float32), None

    return read


def _given(value: Any) -> Any:
    if value is None:
        raise BadSampleError("it has no value")
    return value


def _struct_image(value: dict[str, Any], folder: Path) -> bytes | Path:
    if isinstance(data := value.get("bytes"), bytes):
        return data
    return folder / str(_given(value.get("path")))


def _regular(values: Any, dtype: Any) -> NDArray[Any]:
    try:
        array = np.array(values)
        return array.astype(dtype)
    except (TypeError, ValueError) as error:
        raise BadSampleError(f"its lists make no array ({error})") from error


def _innermost(kind: Any) -> Any:
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    return kind


def _is_id(kind: Any) -> bool:
    import pyarrow as pa

    return not (pa.types.is_nested(kind) or pa.types.is_floating(kind))


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


class CsvRows:
    """A CSV file (`.tsv`: separated by tabs), read as one table; its first line holds the names of its columns.

    Args:
        path: The file.

    Raises:
        XaiError: It is no readable table, or its first line holds numbers.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        try:
            self._table = read_typed_csv(path, _SEPARATORS[path.suffix.lower()])
        except (OSError, pa.ArrowException) as error:
            raise XaiError(f"{path} is no readable table: {error}", hint="lines of as many values as names") from error
        self.schema = self._table.schema
        names = self.schema.names
        if names and all(re.fullmatch(r"[-+.\deE]+", name) for name in names):
            raise XaiError(
                f"the first line of {path} holds numbers, not the names of its columns",
                hint="write a line of names above it, the label's column as label",
            )
        if twice := [name for name in names if names.count(name) > 1]:
            raise XaiError(f"{path} has two columns {twice[0]}", hint="give each column a name of its own")
        for name in (name for name in ID_NAMES if name in names):
            self._table = _with_ids_as_written(self._table, name, path)
        self.schema = self._table.schema

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def column(self, name: str) -> list[Any]:
        """All values of one column."""
        values: list[Any] = self._table[name].to_pylist()
        return values

    def row(self, position: int, columns: tuple[str, ...]) -> dict[str, Any]:
        """Some columns of one row."""
        row: dict[str, Any] = self._table.select(list(columns)).slice(position, 1).to_pylist()[0]
        return row


def _with_ids_as_written(table: Any, name: str, path: Path) -> Any:
    """The table with its ids as texts where one of them is none of a number: 007 is not 7."""
    import pyarrow as pa
    import pyarrow.compute as pc

    at, kind = table.schema.names.index(name), table.schema.field(name).type
    if not (pa.types.is_string(kind) or pa.types.is_integer(kind)):
        return table
    ids = read_csv_ids(path, _SEPARATORS[path.suffix.lower()], name)
    if pa.types.is_integer(kind) and not pc.any(pc.match_substring_regex(ids, r"^\s*[+-]?0\d")).as_py():
        return table
    return table.set_column(at, name, ids)


class ParquetRows:
    """Several Parquet files of the same columns, read as one table.

    Args:
        paths: The files, in order.
        contents: What keeps small files, so that none is opened twice.

    Raises:
        XaiError: A file is no readable Parquet table, or a row group unpacks to more than memory should hold.
    """

    def __init__(self, paths: Sequence[Path], contents: Contents | None = None) -> None:
        import pyarrow as pa

        from xaicli.parquet import Contents

        self._paths = tuple(paths)
        self._contents = contents or Contents()
        self._groups: list[tuple[Path, int]] = []
        sizes: list[int] = []
        for path in paths:
            try:
                with self._opened(path) as file:  # not kept open: a run may have thousands
                    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
                    self.schema = file.schema_arrow
            except (OSError, pa.ArrowException) as error:
                raise XaiError(f"{path} is no readable Parquet table: {error}", hint="is the file whole?") from error
            if too_large := [group.total_byte_size for group in groups if group.total_byte_size > _LARGEST_GROUP]:
                raise XaiError(f"{path} unpacks to {too_large[0]:,} bytes", hint="use smaller row groups")
            self._groups += [(path, number) for number in range(len(groups))]
            sizes += [group.num_rows for group in groups]
        self._ends = list(accumulate(sizes))
        self._read = lru_cache(maxsize=_GROUPS_KEPT)(self._read_group)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def column(self, name: str) -> list[Any]:
        """All values of one small column (ids, labels).

        Raises:
            XaiError: It cannot be read.
        """
        import pyarrow as pa

        values: list[Any] = []
        try:
            for path in self._paths:
                with self._opened(path) as file:
                    values += file.read([name])[name].to_pylist()
            return values
        except (OSError, pa.ArrowException, KeyError) as error:
            raise XaiError(f"column {name} cannot be read: {error}", hint="is the file whole?") from error

    def row(self, position: int, columns: tuple[str, ...]) -> dict[str, Any]:
        """Some columns of one row.

        Raises:
            BadSampleError: They cannot be read.
        """
        import pyarrow as pa

        group = bisect_right(self._ends, position)
        start = self._ends[group - 1] if group else 0
        try:
            found: dict[str, Any] = self._read(group, columns).slice(position - start, 1).to_pylist()[0]
        except (OSError, pa.ArrowException, KeyError, IndexError) as error:
            raise BadSampleError(f"its row cannot be read ({error})") from error
        return found

    def _read_group(self, group: int, columns: tuple[str, ...]) -> Any:
        path, number = self._groups[group]
        with self._opened(path) as file:
            return file.read_row_group(number, list(columns))

    def _opened(self, path: Path) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        content = self._contents.of(path)
        return pq.ParquetFile(
            for_arrow(path) if content is None else pa.BufferReader(content), page_checksum_verification=True
        )


_ADVICE = "name the data with --data, or keep inputs while training: run.log_inputs(ids, x, label=y)"

Place = tuple[ParquetRows, int]
"""A row: the file and its number in it."""
Logged = Callable[[Collection[Any]], Mapping[tuple[str, str], Collection[Any]]]
"""Those of some ids that have rows in each (mode, ds_id)."""
Key = tuple[str, str, Any]
"""(mode, ds_id, sample_id)."""

_COLUMNS = ("label", "dtype", "shape", "data")
_WORDS = ("tokens", "special")
OF_PLACES = "labels"
"""Kept beside a model's inputs under this name is the label of each place of a sample's text, below 0 where none is."""


def open_kept(
    layout: RunLayout,
    mode: Sequence[str] | None,
    preparation: Preparation,
    *,
    strict: bool,
    ds_id: Sequence[str] | None = None,
    contents: Contents | None = None,
    logged: Logged | None = None,
) -> IndexedSource:
    """Open the inputs kept in a run: a sample for each (mode, ds_id, sample_id).

    An input that was kept in a mode stands for its sample of that; one with the same id that was kept without a mode
    stands for those that have none of their own, and is left out where there are none.

    Args:
        layout: The run.
        mode: Only inputs of these modes, `all`, or `!MODE` for all but one; any when None.
        ds_id: Only inputs of these data sets, or `!ID` for all but one; any when None.
        preparation: How to draw them; the values are never changed.
        strict: Whether a damaged file is an error instead of being left out.
        contents: What keeps the small files of the run.
        logged: Tells of which (mode, ds_id) the inputs are that were kept without a mode: of every one where their id
            has rows. None takes all of them where no mode and data set is named, and else none.

    Raises:
        XaiError: The run kept none, or none of what is named.
    """
    every: dict[Key, dict[str, Place]] = {}
    problems: list[str] = []
    for path in _parts(layout.inputs):
        try:
            _index(ParquetRows([path], contents), every)
        except XaiError as error:
            if strict:
                raise XaiError(f"{path}: {error.message}", hint="find damage with: xai doctor") from error
            problems.append(path.name)
    pairs = sorted({key[:2] for key in every})
    anywhere = {key[-1] for key in every if key[:2] == NOWHERE}
    placed: dict[Any, set[Pair]] = {}
    for name, of_set, sample_id in every:
        if (name, of_set) != NOWHERE:
            placed.setdefault(sample_id, set()).add((name, of_set))
    doubtful = anywhere if mode or ds_id else anywhere & placed.keys()
    rows_of = logged(doubtful) if doubtful and logged else {}
    places = {*pairs, *(pair for pair, ids in rows_of.items() if ids)}
    modes, absent_modes = _among({mode for mode, _ in places}, mode, known=tuple(Mode))
    ds_ids, absent_ids = _among({one for name, one in places if name in modes}, ds_id)
    chosen = {pair for pair in places if pair[0] in modes and pair[1] in ds_ids}
    if chosen == places:
        own, doubles = anywhere, anywhere & placed.keys() if logged else set()
    else:
        own = {one for one in anywhere if any(one in rows_of.get(pair, ()) for pair in chosen)}
        own |= {one for one in anywhere & placed.keys() if placed[one] & chosen}
        doubles = own & placed.keys()
    left_to = {one: {pair for pair in chosen - placed[one] if one in rows_of.get(pair, ())} for one in doubles}
    held = {one: placed[one] & chosen for one in doubles}
    own = own - {one for one, pairs in left_to.items() if not pairs}
    known = [(pair, rows_of[pair]) for pair in sorted(chosen) if pair in rows_of]
    of_chosen = {one: [pair for pair, ids in known if one in ids] for one in own}
    stands_for = {one: sorted(left_to.get(one, pairs)) for one, pairs in of_chosen.items() if pairs}
    keys = [key for key in every if (key[-1] in own if key[:2] == NOWHERE else key[:2] in chosen)]
    notes = [f"damaged files of kept inputs are left out: {', '.join(problems)}"] if problems else []
    if keys:
        left = [name for name in mode or () if name in modes - {one for one, _ in chosen}]
        notes += [
            f"{name} is left out: it has no input of ds_id {', '.join(map(quoted, ds_id or ()))}" for name in left
        ]
        notes += _of_no_mode(len(anywhere), len(anywhere - own - doubles), chosen, left_to, held)
    if not keys:
        damage = f"; {len(problems)} damaged files were left out" if problems else ""
        asked = {"mode": absent_modes or mode, "ds-id": absent_ids or ds_id}
        said_of = {name: ", ".join(one or repr(one) for one in said) for name, said in asked.items() if said}
        of = "".join(f" of {name} {said}" for name, said in said_of.items())
        there = _listed({*pairs} - {NOWHERE})
        named = f"of {'mode ' if ds_id is None else ''}{there}" if there else "without a mode, of other samples"
        options = " and ".join(f"--{name}" for name in said_of)
        others = f"there are some {named}: leave {options} out; else " if every else ""
        of_run = {name for name, _ in (*pairs, *(logged(anywhere) if logged else ()))}
        unknown = [one for one in absent_modes or mode or () if one in {*Mode} - of_run]
        lacking = f"the run has no mode {', '.join(unknown)}; " if unknown else ""
        raise XaiError(f"{layout.described} holds no kept inputs{of}{damage}", hint=lacking + others + _ADVICE)

    every_set = _among({one for _, one in places}, ds_id)[0]
    by_option = {
        pair: ", ".join(
            f"--{name} {','.join(map(quoted, said))}"
            for name, said, leaves in (("mode", mode, pair[0] not in modes), ("ds-id", ds_id, pair[1] not in every_set))
            if said and (leaves or pair == NOWHERE)
        )
        for pair in {*places, NOWHERE} - chosen
    }

    def read(position: int) -> Sample:
        arrays: dict[str, NDArray[Any]] = {}
        words: dict[str, Words] = {}
        label = None
        for name, (file, row) in every[keys[position]].items():
            facts = file.row(row, (*_COLUMNS, *(c for c in _WORDS if c in file.schema.names)))
            arrays[name] = _array(facts)
            if (said := _words(facts, arrays[name])) is not None:
                words[name] = said
            label = frozenset(facts["label"]) if isinstance(facts["label"], list) else facts["label"]
        if label is None and OF_PLACES in arrays and OF_PLACES not in preparation.names:
            label = arrays.pop(OF_PLACES).tolist()
        return Sample(arrays, label, preparation.picture(next(iter(arrays.values()))), words)

    return IndexedSource(
        [sample_id for *_, sample_id in keys],
        read,
        f"the inputs kept in {layout.described}",
        strict,
        notes=tuple(notes),
        elsewhere="the run may have logged it without its inputs: " + _ADVICE,
        left_out=_left_out(every.keys() - set(keys), rows_of, by_option) if chosen != places else {},
        pairs=[key[:2] for key in keys],
        places=() if anywhere and chosen == places else sorted(chosen - {NOWHERE}),
        stands_for=stands_for,
    )


def _left_out(
    left: Collection[Key], rows_of: Mapping[Pair, Collection[Any]], by_option: Mapping[Pair, str]
) -> dict[Any, dict[Pair, str]]:
    """Of each sample that is left out, by its id: of which (mode, ds_id) it is, and the options that leave that out.

    Args:
        left: The inputs that were not chosen.
        rows_of: Of which (mode, ds_id) the ids are whose input was kept without a mode.
        by_option: The options that leave out a (mode, ds_id).
    """
    found: dict[Any, dict[Pair, str]] = {}
    for mode, ds_id, sample_id in left:
        stands_for = [pair for pair, ids in rows_of.items() if sample_id in ids]
        of = [(mode, ds_id)] if (mode, ds_id) != NOWHERE else stands_for or [NOWHERE]
        found.setdefault(sample_id, {}).update({pair: by_option[pair] for pair in of if pair in by_option})
    return found


def _of_no_mode(
    n: int, left: int, chosen: set[Pair], left_to: Mapping[Any, set[Pair]], held: Mapping[Any, set[Pair]]
) -> list[str]:
    """Which of the inputs that were kept without a mode are left out, and what those beside others stand for.

    Args:
        n: How many there are.
        left: How many are of no sample that is meant.
        chosen: The (mode, ds_id) of the samples that are meant.
        left_to: Of each whose id has an input kept in a mode, too: the (mode, ds_id) that it alone stands for.
        held: And those of the other inputs.
    """
    said, of_all = [], f"of the {n:,} inputs that were kept without a mode"
    if left:
        said.append(f"{left:,} {of_all} are of no sample of {_listed(chosen - {NOWHERE})}: they are left out")
    if stood_for := [one for one, pairs in left_to.items() if not pairs]:
        there = _listed(set().union(*(held[one] for one in stood_for)))
        said.append(
            f"{len(stood_for):,} {of_all} are of samples that have one kept in {there}: that one stands for them"
        )
    if beside := [one for one, pairs in left_to.items() if pairs and held[one]]:
        there, others = (_listed(set().union(*(of[one] for one in beside))) for of in (held, left_to))
        said.append(f"{len(beside):,} {of_all} have the id of one kept in {there}: they stand for samples of {others}")
    return said


def _listed(pairs: Collection[Pair]) -> str:
    return ", ".join(" ".join(filter(None, pair)) for pair in sorted(pairs))


def _among(there: set[str], given: Sequence[str] | None, *, known: Collection[str] = ()) -> tuple[set[str], list[str]]:
    """What words mean of the modes or data sets that inputs are kept of, and the words for what is not there.

    Args:
        there: The modes or data sets.
        given: The words; None for all.
        known: What may be left out though it is not there.
    """
    if given is None:
        return there, []
    try:
        return set(chosen_names("name", given, sorted(there), allowed={*there, *known}, where="the run")), []
    except XaiError:
        words = [one for one in given if one not in there and one.removeprefix("!") not in {*there, *known, "all"}]
        return set(), words or [one for one in given if one not in there] or list(given)


def _parts(folder: Path) -> list[Path]:
    """The parts in the order they were written; a link is none, for a run brings its own files only."""
    own = [path for path in folder.glob("*.parquet") if not path.is_symlink()]
    named = [(name, path) for path in own if (name := PartName.parse(path.name))]
    return [path for _, path in sorted(named)]


def _index(file: ParquetRows, every: dict[Key, dict[str, Place]]) -> None:
    """Note where each sample's newest inputs are: a later row takes the place of an earlier one.

    Raises:
        XaiError: The file is damaged: a column lacks its name, or cannot be read.
    """
    if lost := [name for name in _COLUMNS if name not in file.schema.names]:
        raise XaiError(f"it has no column {lost[0]}", hint=_ADVICE)
    here: dict[Key, dict[str, Place]] = {}
    columns = (file.column(name) for name in ("mode", "ds_id", "sample_id", "name"))
    for row, (mode, ds_id, sample_id, name) in enumerate(zip(*columns, strict=True)):
        here.setdefault((mode or "", ds_id or "", sample_id), {})[name] = (file, row)
    for key, places in here.items():
        every.setdefault(key, {}).update(places)


def _array(facts: dict[str, Any]) -> NDArray[Any]:
    try:
        dtype = np.dtype(facts["dtype"])
        shape = tuple(int(n) for n in facts["shape"])
        if dtype.kind not in "biuf" or any(n < 0 for n in shape):
            raise ValueError(f"dtype {dtype}, shape {shape}")
        return np.frombuffer(facts["data"], dtype=dtype).reshape(shape)
    except (TypeError, ValueError) as error:
        raise BadSampleError(f"its bytes are no such array ({error})") from error


def _words(facts: dict[str, Any], array: NDArray[Any]) -> Words | None:
    """What the tokens stand for, their numbers where that is not known; None where nothing fitting is kept."""
    texts, special = facts.get("tokens"), facts.get("special")
    if not isinstance(texts, list) or array.ndim != 1 or len(texts) != len(array):
        return None
    read = tuple(str(n) if text is None else str(text) for text, n in zip(texts, array.tolist(), strict=True))
    return Words(read, frozenset(special) if isinstance(special, list) else None)
