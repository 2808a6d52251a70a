"""The only writer and verifier of Parquet files: encodings, checksums, atomic appearance.

A file appears only complete: temporary name, fsync, rename, fsync of the folder. Page checksums do not cover the
footer, so the CRC-32 of the whole file and of its footer are kept apart, in an append-only record per attempt and rank.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xaicli.errors import DamagedFileError
from xaicli.layout import RunLayout
from xaicli.vocabulary import EPOCH, LABEL, PREDICTION, SAMPLE_ID, STEP

_TAIL = 8
"""The last bytes of a Parquet file: the footer's length (4) and the magic (4)."""
_PRUNING = (SAMPLE_ID, STEP, EPOCH, LABEL, PREDICTION)
"""Statistics are kept only where they let a reader skip row groups; float ranges do not."""
_FACTS = b"xai"
_DIGEST_BYTES = 12
_DISTINCT_SHARE = 4
"""A dictionary pays where a value repeats this many times on average."""


_BATCH_ROWS = 131_072
"""Rows decoded at a time, across row groups."""


@dataclass(frozen=True)
class FileRecord:
    """What a finished file must be.

    Attributes:
        path: Relative to the run directory, with forward slashes.
        rows: Rows in the file.
        bytes: Its size.
        crc32: CRC-32 of all of its bytes.
        footer_crc32: CRC-32 of the footer, its length and magic included.
    """

    path: str
    rows: int
    bytes: int
    crc32: int
    footer_crc32: int


def write(table: pa.Table, path: Path, *, root: Path, row_group_rows: int = 131_072) -> FileRecord:
    """Write a table so that the file is either absent or complete, also after power loss.

    Args:
        table: Any rows; encodings are chosen per column.
        path: Where the file appears; missing folders are made.
        root: The run directory, which the record's path is relative to.
        row_group_rows: Rows of a row group.

    Raises:
        OSError: The file cannot be written; no temporary file is left where it can be removed.
    """
    if not root.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the run directory is gone", str(root))
    content = encode(table, row_group_rows=row_group_rows)
    write_bytes(content, path)
    footer = _footer_size(content[-_TAIL:])
    return FileRecord(
        path=path.relative_to(root).as_posix(),
        rows=table.num_rows,
        bytes=len(content),
        crc32=zlib.crc32(content),
        footer_crc32=zlib.crc32(content[len(content) - footer :]),
    )


def encode(table: pa.Table, *, row_group_rows: int = 131_072) -> memoryview:
    """The bytes of a Parquet file that holds a table."""
    table = _with_facts(table)
    dictionary, encodings = _encodings(table)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=row_group_rows,
        # Four pages a chunk of float32: looking a sample up unpacks one of them.
        data_page_size=row_group_rows,
        compression="zstd",
        compression_level=1,
        use_dictionary=dictionary,
        column_encoding=encodings or None,
        write_statistics=[name for name in _PRUNING if name in table.column_names],
        write_page_checksum=True,
    )
    return memoryview(sink.getvalue()).cast("B")


def _with_facts(table: pa.Table) -> pa.Table:
    """The table with what a reader asks most often in its metadata, so that it need not read the rows to know.

    Under the key `xai`, beside what is there: `non_finite` {metric: NaN and infinite values}, `steps` [first, last],
    and `sorted_ids`, a digest of the ids where they strictly increase: no sample repeats then, and equal digests mean
    equal samples.
    """
    import pyarrow.compute as pc

    if not {SAMPLE_ID, STEP} <= set(table.column_names) or not table.num_rows:
        return table
    metadata = dict(table.schema.metadata or {})
    facts = json.loads(metadata.get(_FACTS, b"{}"))
    facts["non_finite"] = {
        field.name: table.num_rows - table.column(field.name).null_count - _n_finite(table.column(field.name))
        for field in table.schema
        if pa.types.is_floating(field.type)
    }
    steps = pc.min_max(table.column(STEP)).as_py()
    facts["steps"] = [steps["min"], steps["max"]]
    if digest := _sorted_digest(table.column(SAMPLE_ID)):
        facts["sorted_ids"] = digest
    return table.replace_schema_metadata({**metadata, _FACTS: json.dumps(facts).encode()})


def _n_finite(column: pa.ChunkedArray) -> int:
    import pyarrow.compute as pc

    # Arrow knows no is_finite for half floats.
    wide = column.cast(pa.float32()) if pa.types.is_float16(column.type) else column
    return int(pc.sum(pc.is_finite(wide)).as_py() or 0)


def _sorted_digest(ids: pa.ChunkedArray) -> str | None:
    """BLAKE2b of strictly increasing ids; None for others."""
    import pyarrow.compute as pc

    if ids.null_count or pc.any(pc.less_equal(ids.slice(1), ids.slice(0, len(ids) - 1))).as_py():
        return None
    digests = [hashlib.blake2b(digest_size=_DIGEST_BYTES), hashlib.blake2b(digest_size=_DIGEST_BYTES)]
    # Values, or lengths and characters apart: the same digests however the rows are chunked.
    for chunk in ids.chunks:
        if pa.types.is_integer(ids.type):
            digests[0].update(chunk.to_numpy())
        else:
            text = chunk.cast(pa.large_string())
            offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset : text.offset + len(text) + 1]
            digests[0].update(np.diff(offsets).tobytes())
            digests[1].update(memoryview(text.buffers()[2] or b"")[offsets[0] : offsets[-1]])
    return "".join(digest.hexdigest() for digest in digests)


def _encodings(table: pa.Table) -> tuple[list[str], dict[str, str]]:
    """The columns that get a dictionary, and the encodings of the others by their path in the file."""
    dictionary: list[str] = []
    encodings: dict[str, str] = {}
    for name, kind in zip(table.column_names, table.schema.types, strict=True):
        if pa.types.is_floating(kind):
            encodings[name] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_list(kind) and pa.types.is_floating(kind.value_type):
            encodings[f"{name}.list.element"] = "BYTE_STREAM_SPLIT"
        elif name in (SAMPLE_ID, STEP) and pa.types.is_integer(kind):
            encodings[name] = "DELTA_BINARY_PACKED"
        elif name == SAMPLE_ID and pa.types.is_string(kind):
            encodings[name] = "DELTA_BYTE_ARRAY"
        elif pa.types.is_integer(kind) or pa.types.is_string(kind):
            if _repeats(table.column(name)):
                dictionary.append(name)
            else:
                encodings[name] = "DELTA_BINARY_PACKED" if pa.types.is_integer(kind) else "DELTA_BYTE_ARRAY"
    return dictionary, encodings


def _repeats(column: pa.ChunkedArray) -> bool:
    import pyarrow.compute as pc

    sample = column.slice(0, 16_384)
    distinct = pc.count_distinct(sample).as_py()
    return bool(distinct <= 16 or distinct * _DISTINCT_SHARE <= len(sample))


def reached(point: str) -> None:
    """A named point on the way of a file to the disk. Does nothing; a test puts a kill or a fault in its place."""
    del point


def write_bytes(content: bytes | memoryview, path: Path) -> None:
    """Make a file appear complete under its name.

    Raises:
        OSError: It cannot be written.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            reached("opened")
            write_all(descriptor, content)
            reached("written")
            os.fsync(descriptor)
            reached("synced")
        finally:
            os.close(descriptor)
        temporary.rename(path)
        reached("renamed")
        sync_folder(path.parent)
        reached("folder synced")
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write every byte, whatever the size of the single writes."""
    view = memoryview(content).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, each durable in its parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def opened(path: Path, record: FileRecord | None = None) -> Iterator[pq.ParquetFile]:
    """A file open for verified reading: its footer is checked here, its pages as they are read.

    Args:
        path: The file.
        record: What the file must be; without one only its pages can be checked.

    Raises:
        FileNotFoundError: There is no such file; a compaction may have replaced it.
        DamagedFileError: The bytes are not those that were written; also raised for faults inside the `with` block.
    """
    try:
        metadata = None if record is None else _metadata(path, record)
        with pq.ParquetFile(path, metadata=metadata, page_checksum_verification=True, memory_map=False) as file:
            yield file
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException, ValueError, OverflowError, MemoryError) as error:
        raise _damaged(path, str(error)) from error


def read(
    path: Path,
    columns: Sequence[str] | None = None,
    row_groups: Sequence[int] | None = None,
    record: FileRecord | None = None,
) -> pa.Table:
    """Read a file with its page checksums verified, and its footer against the record where there is one.

    Args:
        path: The file.
        columns: The columns wanted; all when None.
        row_groups: The row groups wanted; all when None.
        record: What the file must be.

    Raises:
        FileNotFoundError: There is no such file; a compaction may have replaced it.
        DamagedFileError: The bytes are not those that were written.
    """
    with opened(path, record) as file:
        return decoded(file, columns, row_groups)


def decoded(
    file: pq.ParquetFile, columns: Sequence[str] | None = None, row_groups: Sequence[int] | None = None
) -> pa.Table:
    """The rows of an open file, in half the time and memory of decoding all row groups at once."""
    wanted = None if columns is None else list(columns)
    chosen = list(range(file.num_row_groups) if row_groups is None else row_groups)
    batches = list(file.iter_batches(_BATCH_ROWS, chosen, wanted)) if chosen else []
    return pa.Table.from_batches(batches) if batches else file.read_row_groups(chosen, columns=wanted)


def verify(path: Path, record: FileRecord | None = None) -> None:
    """Check every byte of a file: against its record, or else by decoding every page.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedFileError: The bytes are not those that were written.
    """
    if record is None:
        read(path)
        return
    try:
        with path.open("rb") as file:
            crc = size = 0
            while block := file.read(1 << 20):
                crc, size = zlib.crc32(block, crc), size + len(block)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _damaged(path, str(error)) from error
    if (size, crc) != (record.bytes, record.crc32):
        found = f"{size} bytes, crc32 {crc:08x}"
        raise _damaged(path, f"it has {found}; {record.bytes} bytes, crc32 {record.crc32:08x} were written")


def checked_footer(path: Path, record: FileRecord) -> bytes:
    """The footer of a file, its length and magic included, read once and compared with the record.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedFileError: It is not what was written.
    """
    try:
        with path.open("rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size != record.bytes:
                raise _damaged(path, f"it has {size} bytes, {record.bytes} were written")
            file.seek(max(0, size - _TAIL))
            length = min(_footer_size(file.read(_TAIL)), size)
            file.seek(size - length)
            footer = file.read(length)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _damaged(path, str(error)) from error
    if zlib.crc32(footer) != record.footer_crc32:
        raise _damaged(path, "its footer is not what was written")
    return footer


def _metadata(path: Path, record: FileRecord) -> pq.FileMetaData:
    """The footer of a file, parsed from the very bytes that were checked."""
    metadata = pq.read_metadata(pa.BufferReader(checked_footer(path, record)))
    if metadata.num_rows != record.rows:
        raise _damaged(path, f"it has {metadata.num_rows} rows, {record.rows} were written")
    return metadata


def _footer_size(tail: bytes | memoryview) -> int:
    return int.from_bytes(bytes(tail[:4]), "little") + _TAIL


def _damaged(path: Path, reason: str) -> DamagedFileError:
    return DamagedFileError(f"{path} is damaged: {reason}", hint="see what else is: xai doctor RUN_DIR")


def append_record(layout: RunLayout, attempt: int, rank: int, record: FileRecord) -> None:
    """Keep a file's checksums; one line with its own checksum, appended in one write.

    Raises:
        OSError: The line cannot be written; the file it is about stays good.
    """
    path = layout.records_file(attempt, rank)
    make_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
        write_all(descriptor, (b"\n" if torn else b"") + _line(asdict(record)))
    finally:
        os.close(descriptor)


def read_records(layout: RunLayout) -> dict[str, FileRecord]:
    """The records of all finished files by their path relative to the run; a damaged line is passed over."""
    records: dict[str, FileRecord] = {}
    for path in sorted(layout.attempts.glob("*.files")):
        try:
            lines = path.read_bytes().splitlines()
        except OSError:
            continue
        for line in lines:
            if record := _parse(line):
                records[record.path] = record
    return records


def _line(facts: Mapping[str, Any]) -> bytes:
    return json.dumps({**facts, "check": _check(facts)}, sort_keys=True).encode() + b"\n"


def _parse(line: bytes) -> FileRecord | None:
    try:
        facts = json.loads(line)
        if facts.pop("check") != _check(facts):
            return None
        known = {key: facts[key] for key in FileRecord.__dataclass_fields__}
        return FileRecord(**known)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _check(facts: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(dict(facts), sort_keys=True).encode()):08x}"
