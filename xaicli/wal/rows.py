"""The rows of a segment as the tables of its parts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from xaicli import vocabulary as words
from xaicli.layout import PartName
from xaicli.manifest import ColumnFacts
from xaicli.wal.arrays import plain_array, text_again
from xaicli.wal.derived import derive
from xaicli.wal.frames import (
    NULL_INT,
    NULL_LENGTH,
    SCORES,
    WITH_GAPS,
    Folder,
    Frame,
    SegmentFacts,
    is_missing,
    is_varied,
    item_size,
    storage,
)

_IN_FILE = {"float32": "float", "float64": "double", WITH_GAPS: "int32"}


def dtypes_of(plan: Iterable[tuple[str, str]]) -> dict[str, str]:
    """{column: its Arrow type in a part} of a batch's columns in a segment, and of those that follow from scores."""
    dtypes: dict[str, str] = {}
    for name, dtype in plan:
        if name in SCORES:
            made = words.DERIVED_METRICS if words.LABEL in dtypes else (words.TOP_PROB, words.ENTROPY)
            dtypes |= {metric: dtypes.get(metric, "float") for metric in made}
            dtypes.setdefault(words.PREDICTION, "int32")
            if SCORES[name][1]:
                dtypes[words.PROBS] = "list<halffloat>"
        elif name == words.CORRECT:
            dtypes[name] = "bool"
        elif "int" in dtype and not dtype.startswith("list<"):
            whole = {words.SAMPLE_ID: "int64", words.LABEL: "int32", words.PREDICTION: "int32"}
            dtypes[name] = whole.get(name, "float")
        else:
            dtypes[name] = in_file(dtype)
    return dtypes


def in_file(dtype: str) -> str:
    """The Arrow type in a part of what a segment holds as this type."""
    if dtype.startswith("float16["):
        return "list<halffloat>"
    return "float" if dtype in ("float16", "bool") else _IN_FILE.get(dtype, dtype)


def with_those_of(known: Sequence[ColumnFacts], frames: Iterable[Frame]) -> tuple[ColumnFacts, ...]:
    """The run's columns with those that frames bring: a killed process may not have come to write them down.

    The first batch of a kind says what its columns are stored as; later ones may come as the caller's own types.
    """
    named = {column.name: column.dtype for column in known}
    plans = {id(frame.columns): frame.columns for frame in frames if frame.place}
    found: dict[str, str] = {}
    for plan in plans.values():
        found = dtypes_of(plan) | found
    if found.keys() <= named.keys():
        return tuple(known)
    return in_order(with_correct(found | named))


def with_correct(columns: Mapping[str, str]) -> dict[str, str]:
    """{column: Arrow type} with whether predictions are right, where labels and predictions can be compared."""
    comparable = columns.get(words.LABEL) == columns.get(words.PREDICTION) in ("int32", "string")
    return {**columns, words.CORRECT: "bool"} if comparable else dict(columns)


def in_order(columns: Mapping[str, str]) -> tuple[ColumnFacts, ...]:
    """The run's columns in the order of a part.

    Args:
        columns: {name: Arrow type} of the id, label, prediction, correct, probs and metrics seen so far, metrics in the
            order of their appearance.
    """
    fixed = {
        words.SAMPLE_ID: (columns.get(words.SAMPLE_ID, "int64"), words.Role.ID),
        words.MODE: ("string", words.Role.ORIGIN),
        words.DS_ID: ("string", words.Role.ORIGIN),
        words.EPOCH: ("int32", words.Role.TIME),
        words.PASS: ("int16", words.Role.TIME),
        words.STEP: ("int64", words.Role.TIME),
        words.ATTEMPT: ("int16", words.Role.ORIGIN),
        words.RANK: ("int16", words.Role.ORIGIN),
    }
    facts = [ColumnFacts(name, dtype, role.value) for name, (dtype, role) in fixed.items()]
    for name in (words.LABEL, words.PREDICTION, words.CORRECT):
        if name in columns:
            facts.append(ColumnFacts(name, columns[name], words.Role.LABEL.value))
    metrics = [name for name in columns if name not in words.RESERVED_COLUMNS]
    facts += [ColumnFacts(name, columns[name], words.Role.METRIC.value) for name in metrics]
    if words.PROBS in columns:
        facts.append(ColumnFacts(words.PROBS, columns[words.PROBS], words.Role.LABEL.value))
    return tuple(facts)


def beyond_single(values: NDArray[Any]) -> str:
    """Which numbers there are that single precision does not hold, as it holds others: finite ones that it takes for
    infinite, or whole ones that it takes for another (beyond 2^53 all numbers are whole, and none is meant so); "".
    """
    if values.dtype.kind != "f" or values.dtype.itemsize <= 4 or not len(values):
        return ""
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.abs(values)
        large = values[size > _ALL_WHOLE]
        if not len(large):
            return ""
        size = size[size > _ALL_WHOLE]
        if (np.isfinite(large) & (size > _LARGEST)).any():
            return "numbers beyond single precision"
        whole = (size <= _NONE_MEANT) & (large == np.floor(large)) & (large != large.astype(np.float32))
    return "whole numbers beyond 2^24" if whole.any() else ""


def too_wide(content: memoryview, frames: Sequence[Frame], columns: Sequence[ColumnFacts]) -> dict[str, str]:
    """The metrics that single precision does not hold, although the run's columns say so, each with its such numbers.

    Args:
        content: The segment's bytes after the header.
        frames: Its frames of rows.
        columns: The run's columns.
    """
    single = {column.name for column in columns if column.dtype == "float"}
    found: dict[str, str] = {}
    for frame in frames:
        if not any(dtype == "float64" and name in single for name, dtype in frame.columns):
            continue  # as most are: what follows takes its time
        at = frame.start
        for name, dtype in frame.columns:
            if dtype == "float64" and name in single - found.keys():
                why = beyond_single(np.frombuffer(content, np.float64, frame.rows, at))
                found |= {name: why} if why else {}
            at += item_size(dtype) * frame.rows
    return found


def widened(columns: Sequence[ColumnFacts], names: Collection[str]) -> tuple[ColumnFacts, ...]:
    """The columns with those of these names in double precision."""
    return tuple(replace(column, dtype="double") if column.name in names else column for column in columns)


_ALL_WHOLE, _NONE_MEANT = 2.0**24, 2.0**53
_LARGEST = float(np.finfo(np.float32).max)
_LABELS = {words.LABEL, words.PREDICTION}
BEYOND = "has a value beyond 32 bits"
LEAST = f"is {NULL_INT}, which stands for a missing one"
OF_ANOTHER_KIND = "is of another kind than before in this run"
"""Why a label or prediction of a part may be null; the second where two processes begin at once, with a kind each."""
IGNORED = "is the one that stands for none"
"""Why a label is null that was never to be one."""


def arrow_type(dtype: str) -> pa.DataType:
    """The type of a column in a part."""
    if dtype.startswith("list<"):
        return pa.list_(pa.int32() if "int32" in dtype else pa.float16())
    if dtype.startswith("float16"):
        return pa.list_(pa.float16())
    return {"float": pa.float32(), "double": pa.float64()}.get(dtype) or pa.type_for_alias(dtype)


def by_folder(frames: Sequence[Frame]) -> dict[Folder, list[Frame]]:
    """The frames of rows by the (mode, ds_id, epoch) they belong to, in order; those of records are passed over."""
    folders: dict[Folder, list[Frame]] = {}
    for frame in frames:
        if frame.place:
            folders.setdefault(frame.place.folder, []).append(frame)
    return folders


def to_table(
    content: memoryview,
    frames: Sequence[Frame],
    folder: Folder,
    facts: SegmentFacts,
    columns: Sequence[ColumnFacts],
    left_out: Counter[tuple[str, str]] | None = None,
) -> pa.Table:
    """The rows of a segment in one folder as the table of a part, in the order they were logged.

    A label or prediction beyond 32 bits, or of another kind than the run's, is null: there is no room for it in a part.

    Args:
        content: The segment's bytes after the header.
        frames: Its frames of that folder.
        folder: Their mode, ds_id and epoch.
        facts: Whose rows they are.
        columns: The run's columns; those the segment lacks are null.
        left_out: Counts such labels and predictions, {(column, why): rows}.

    Raises:
        ValueError: The ids are of another kind than the run's.
    """
    empty = pa.Table.from_batches([], pa.schema([(column.name, arrow_type(column.dtype)) for column in columns]))
    shared = _Shared(folder, facts, columns, Counter() if left_out is None else left_out)
    return pa.concat_tables([empty, *(_piece(content, alike, shared) for alike in _same_plan(frames))])


class _Shared(NamedTuple):
    """What all rows of a part have in common."""

    folder: Folder
    facts: SegmentFacts
    columns: Sequence[ColumnFacts]
    left_out: Counter[tuple[str, str]]

    def complete(self, logged: dict[str, pa.Array], n: int) -> pa.Table:
        """The columns of a part: those logged, those that are the same in every row, and nulls."""
        mode, ds_id, epoch = self.folder
        texts = {words.MODE: mode, words.DS_ID: ds_id}
        numbers = {
            words.EPOCH: np.int32(epoch),
            words.ATTEMPT: np.int16(self.facts.attempt),
            words.RANK: np.int16(self.facts.rank),
        }
        arrays: dict[str, Any] = {}
        for column in self.columns:
            if column.name in texts:
                arrays[column.name] = text_again(texts[column.name], n)
            elif column.name in numbers:
                arrays[column.name] = plain_array(np.full(n, numbers[column.name]))
            elif column.name in logged:
                arrays[column.name] = logged[column.name]
            else:
                arrays[column.name] = pa.nulls(n, arrow_type(column.dtype))
        return pa.table(arrays)


def part_metadata(facts: SegmentFacts, folder: Folder, sequence: int) -> dict[str, str]:
    """The footer key of a part."""
    mode, ds_id, epoch = folder
    known = {"version": words.FORMAT_VERSION, "run_id": facts.run_id, "attempt": facts.attempt, "rank": facts.rank}
    known |= {"mode": mode, "ds_id": ds_id, "epoch": epoch, "sequence": sequence}
    return {"xai": json.dumps(known)}


def records_metadata(run_id: str, part: PartName) -> dict[str, str]:
    """The footer key of a part of what is logged beside samples."""
    known = {"run_id": run_id, "attempt": part.attempt, "rank": part.rank, "sequence": part.first}
    return {"xai": json.dumps({"version": words.FORMAT_VERSION, **known})}


def _same_plan(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    group: list[Frame] = []
    for frame in frames:
        if group and frame.columns is not group[0].columns and frame.columns != group[0].columns:
            yield group
            group = []
        group.append(frame)
    if group:
        yield group


class _Block(NamedTuple):
    """Frames of one plan and length, one right after the other: a table of bytes with a frame a line."""

    lines: NDArray[np.uint8]
    rows: int

    def column(self, row_bytes: int, size: int) -> NDArray[np.uint8]:
        """The bytes of a column of `size` bytes a row, which `row_bytes` bytes a row come before."""
        part = self.lines[:, row_bytes * self.rows : (row_bytes + size) * self.rows]
        return np.ascontiguousarray(part) if len(part) > 1 else part[0]


def _blocks(content: memoryview, frames: Sequence[Frame]) -> Iterator[_Block]:
    """Frames of one plan in as few blocks as there may be; copying these is far less work than copying each frame.

    Frames of one length at equal distances make a block: what lies between them, frames of another place perhaps, is
    stepped over.
    """
    at = 0
    while at < len(frames):
        first = frames[at]
        length, n, stride = first.end - first.start, 1, 0
        for frame in frames[at + 1 :]:
            before = frames[at + n - 1].start
            stride = stride or frame.start - before
            if (frame.rows, frame.end - frame.start, frame.start - before) != (first.rows, length, stride):
                break
            n += 1
        yield _Block(np.ndarray((n, length), np.uint8, content, first.start, (stride, 1)), first.rows)
        at += n


def _piece(content: memoryview, frames: Sequence[Frame], shared: _Shared) -> pa.Table:
    """The rows of frames that share a plan."""
    rows = [frame.rows for frame in frames]
    blocks = list(_blocks(content, frames))
    numbers: dict[str, NDArray[Any]] = {}
    row_bytes = 0
    for name, dtype in frames[0].columns:
        size = item_size(dtype)
        pieces = [block.column(row_bytes, size) for block in blocks]
        raw = b"".join(pieces) if len(pieces) > 1 else pieces[0]  # type: ignore[arg-type]
        row_bytes += size
        base, width = storage(dtype)
        values = np.frombuffer(raw, base)
        numbers[name] = values.reshape(-1, width) if width else values
    offsets = [frame.start + frame.rows * row_bytes for frame in frames]
    varied = {name: dtype for name, dtype in frames[0].columns if is_varied(dtype)}
    texts = {name: numbers.pop(name) for name in varied}
    for name in _LABELS & numbers.keys():
        is_given = (name, WITH_GAPS) not in frames[0].columns
        numbers[name] = _fitting(name, numbers[name], shared, is_given=is_given)
    for name in SCORES.keys() & numbers.keys():
        numbers = _derived(name, numbers.pop(name), numbers) | numbers
    wanted = {column.name: column.dtype for column in shared.columns}
    for name in {words.SAMPLE_ID, *_LABELS} & numbers.keys() & wanted.keys():
        numbers[name] = _of_kind(name, numbers[name], wanted[name], shared)
    arrays = {name: _array(values, wanted[name]) for name, values in numbers.items() if name in wanted}
    for name, array in _texts(content, offsets, rows, texts, varied).items():
        if name in wanted and array.type != arrow_type(wanted[name]):
            if name not in _LABELS:
                raise ValueError(f"{name} {OF_ANOTHER_KIND}")
            shared.left_out[name, OF_ANOTHER_KIND] += len(array) - array.null_count
            array = pa.nulls(len(array), arrow_type(wanted[name]))
        arrays[name] = array
    arrays[words.STEP] = plain_array(np.repeat(np.array([frame.step for frame in frames], np.int64), rows))
    turns = [frame.place.turn if frame.place else 0 for frame in frames]
    arrays[words.PASS] = plain_array(np.repeat(np.array(turns, np.int16), rows))
    label, prediction = arrays.get(words.LABEL), arrays.get(words.PREDICTION)
    if label is not None and prediction is not None and label.type == prediction.type in (pa.int32(), pa.string()):
        arrays.setdefault(words.CORRECT, pc.equal(label, prediction))
    return shared.complete(arrays, sum(rows))


def _fitting(name: str, values: NDArray[Any], shared: _Shared, *, is_given: bool) -> NDArray[Any]:
    """Labels or predictions with what stands for a missing one where there is none, or none that 32 bits hold."""
    if values.dtype.kind not in "iu":
        return values
    if name == words.LABEL and is_given and (least := int((values == NULL_INT).sum())):
        shared.left_out[name, LEAST] += least
    if values.dtype.itemsize > 4:
        with np.errstate(all="ignore"):
            beyond = values.astype(np.int32) != values
        if beyond.any():
            shared.left_out[name, BEYOND] += int(beyond.sum())
            values = np.where(beyond, np.int64(NULL_INT), values.astype(np.int64))
    ignored = shared.facts.ignore_label
    if name == words.LABEL and ignored is not None and bool((values == ignored).any()):
        shared.left_out[name, IGNORED] += int((values == ignored).sum())
        values = np.where(values == ignored, np.int64(NULL_INT), values.astype(np.int64))
    return values


def _of_kind(name: str, values: NDArray[Any], wanted: str, shared: _Shared) -> NDArray[Any]:
    """Numbers as ids, labels or predictions of the run; what stands for missing ones where the run has texts, say.

    Raises:
        ValueError: Ids are of another kind.
    """
    if name == words.SAMPLE_ID:
        if wanted != "int64":
            raise ValueError(f"{name} {OF_ANOTHER_KIND}")
        return values
    if wanted == "double" or (wanted == "int32" and values.dtype.kind in "iub"):
        return values
    known = ~np.isnan(values) if values.dtype.kind == "f" else values != NULL_INT
    shared.left_out[name, OF_ANOTHER_KIND] += int(known.sum())
    return np.full(len(values), NULL_INT, np.int64)


def _derived(name: str, scores: NDArray[Any], numbers: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The columns that follow from scores of (rows, classes)."""
    are_logits, kept = SCORES[name]
    found = derive(scores, numbers.get(words.LABEL), are_logits=are_logits, with_loss=words.LOSS not in numbers)
    derived = {words.PREDICTION: found.prediction, **found.metrics}
    return derived | ({words.PROBS: found.probs.astype(np.float16)} if kept else {})


def _array(values: NDArray[Any], dtype: str) -> pa.Array:
    """A column in the type it has in a part; ranks may differ in what they keep in double precision."""
    kind = arrow_type(dtype)
    if values.ndim == 2:
        flat = plain_array(np.ascontiguousarray(values).reshape(-1))
        gone = is_missing(values[:, 0])
        mask = None if gone is None else pa.array(gone)
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=mask).cast(kind)
    if kind == pa.bool_():  # `correct`, of which NaN is neither
        unknown = np.isnan(values) if values.dtype.kind == "f" else None
        return plain_array(values.astype(np.bool_, copy=False), unknown)
    if kind == pa.string() or pa.types.is_list(kind):
        return pa.nulls(len(values), kind)  # numbers that stand for missing texts or sets
    missing = is_missing(values)
    with np.errstate(all="ignore"):  # beyond float32 is infinite
        if kind == pa.float64() and values.dtype.kind in "iu":
            return plain_array(values.astype(np.float64), values == NULL_INT)
        plain = values.astype(kind.to_pandas_dtype(), copy=False)
    return plain_array(plain, plain == NULL_INT if kind == pa.int32() else missing)


def _texts(
    content: memoryview,
    offsets: list[int],
    rows: list[int],
    lengths: dict[str, NDArray[Any]],
    dtypes: Mapping[str, str],
) -> dict[str, pa.Array]:
    """The columns of texts and lists, whose bytes follow one after the other at `offsets` in each frame."""
    edges = np.concatenate([[0], np.cumsum(rows)])
    arrays = {}
    for name, each in lengths.items():
        absent = each == NULL_LENGTH
        ends = np.concatenate([[0], np.cumsum(np.where(absent, 0, each), dtype=np.int64)])
        sizes = np.diff(ends[edges]).tolist()
        text = b"".join([content[at : at + size] for at, size in zip(offsets, sizes, strict=True)])
        offsets = [at + size for at, size in zip(offsets, sizes, strict=True)]
        arrays[name] = _varied_array(text, ends, absent, dtypes[name])
    return arrays


def _varied_array(text: bytes, ends: NDArray[np.int64], absent: NDArray[np.bool_], dtype: str) -> pa.Array:
    validity = pa.py_buffer(np.packbits(~absent, bitorder="little").tobytes())
    kind = arrow_type(dtype)
    if kind == pa.string():
        buffers = [validity, pa.py_buffer(ends.astype(np.int32).tobytes()), pa.py_buffer(text)]
        return pa.Array.from_buffers(kind, len(absent), buffers)
    width = kind.value_type.bit_width // 8
    values = pa.Array.from_buffers(kind.value_type, len(text) // width, [None, pa.py_buffer(text)])
    buffers = [validity, pa.py_buffer((ends // width).astype(np.int32).tobytes())]
    return pa.Array.from_buffers(kind, len(absent), buffers, children=[values])
