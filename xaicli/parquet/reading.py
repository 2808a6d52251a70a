"""Reading and verifying Parquet files: what a finished file must be, and that nothing else is decoded silently.

Page checksums do not cover a file's footer, so the CRC-32 of the whole file and of its footer are kept, with its rows,
in an append-only list per attempt and rank.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xaicli.errors import DamagedFileError
from xaicli.files import for_arrow, make_folder, write_all
from xaicli.layout import RunLayout

Passes = tuple[tuple[int, int], ...]
"""(pass, its first step) of each pass that rows are of, ascending."""


@dataclass(frozen=True)
class FileRecord:
    """What a finished file must be.

    Attributes:
        path: Relative to the run directory, with forward slashes.
        rows: Rows in the file.
        bytes: Its size.
        crc32: CRC-32 of all of its bytes.
        footer_crc32: CRC-32 of the footer, its length and magic included.
        passes: of rows of samples, their passes; None where that was not written down.
    """

    path: str
    rows: int
    bytes: int
    crc32: int
    footer_crc32: int
    passes: Passes | None = None


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


def read_records(layout: RunLayout, damaged: dict[Path, str] | None = None) -> dict[str, FileRecord]:
    """The records of all finished files by their path relative to the run; a damaged line is passed over.

    Args:
        layout: The run.
        damaged: Takes the lists that have such lines, or none at all, each with what is wrong with it.
    """
    records: dict[str, FileRecord] = {}
    for path in sorted(layout.attempts.glob("*.files")):
        try:
            content = path.read_bytes()
            if damaged is not None and not content.endswith(b"\n"):  # the last line may just be being written
                time.sleep(0.01)
                content = path.read_bytes()
        except OSError:
            continue
        found = [_parse(line) for line in content.splitlines()]
        records |= {record.path: record for record in found if record}
        if damaged is not None and (None in found or not found):
            damaged[path] = f"{found.count(None):,} lines fail their checksum" if found else "it is empty"
    return records


def _line(facts: Mapping[str, Any]) -> bytes:
    return json.dumps({**facts, "check": _check(facts)}, sort_keys=True).encode() + b"\n"


def _parse(line: bytes) -> FileRecord | None:
    try:
        facts = json.loads(line)
        if facts.pop("check") != _check(facts):
            return None
        passes = facts.get("passes")
        known = {key: facts[key] for key in FileRecord.__dataclass_fields__ if key != "passes"}
        return FileRecord(**known, passes=passes and tuple((int(turn), int(step)) for turn, step in passes))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _check(facts: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(dict(facts), sort_keys=True).encode()):08x}"


TAIL_BYTES = 8
"""The last bytes of a Parquet file: the footer's length (4) and the magic (4)."""
_BATCH_ROWS = 131_072
"""Rows decoded at a time, across row groups."""
_SMALL = 1 << 20
"""Bytes of a file that is read whole: reading its footer alone would take about as long."""
_MOST = 32 << 20
"""Bytes kept of all files together."""


Identity = tuple[int, int, int, int]
"""What tells a file from one that was put in its place."""


def identity_of(path: Path) -> Identity:
    """
    Raises:
        OSError: There is no such file, or it may not be asked for.
    """
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


class Contents:
    """The bytes of small files, each read when it is first asked for; as unverified as on the disk."""

    def __init__(self) -> None:
        self._kept: dict[Path, tuple[Identity, bytes]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def of(self, path: Path) -> bytes | None:
        """The bytes of a file; None where it is too large to keep, or enough are kept already, or it cannot be read.

        Those of one that is gone are known as long as the file was; where another has taken its place, its bytes.

        Raises:
            FileNotFoundError: There is no such file.
        """
        with self._lock:
            identity, old = self._kept.get(path, (None, None))
            try:
                now = identity_of(path)
                if now == identity:
                    return old
                if now[0] > min(_SMALL, _MOST - self._bytes):
                    return None
                content = path.read_bytes()
            except FileNotFoundError:
                if old is None:
                    raise
                return old
            except OSError:
                return None  # Whoever opens it says why.
            self._kept[path] = now, content
            self._bytes += len(content) - len(old or b"")
            return content


@contextlib.contextmanager
def opened(path: Path, record: FileRecord | None = None, contents: Contents | None = None) -> Iterator[pq.ParquetFile]:
    """A file open for verified reading: its footer is checked here, its pages as they are read.

    Args:
        path: The file.
        record: What the file must be; without one only its pages can be checked.
        contents: What keeps small files, so that none is opened twice.

    Raises:
        FileNotFoundError: There is no such file; a compaction may have replaced it.
        DamagedFileError: The bytes are not those that were written, or it is a link to a file that is gone; also raised
            for faults inside the `with` block.
    """
    try:
        content = contents.of(path) if contents else None
        metadata = None if record is None else _metadata(path, record, content)
        # Not buffered ahead: that would hold all wanted bytes of the file at once.
        with pq.ParquetFile(
            for_arrow(path) if content is None else pa.BufferReader(content),
            metadata=metadata,
            page_checksum_verification=True,
            memory_map=False,
            pre_buffer=False,
        ) as file:
            yield file
    except FileNotFoundError as error:
        if path.is_symlink() and not path.exists():
            # Nothing replaces it: it is not what a compaction leaves.
            raise _damaged(path, "it is a link to a file that is gone") from error
        raise
    except (OSError, pa.ArrowException, ValueError, OverflowError, MemoryError) as error:
        raise _damaged(path, str(error)) from error


def read(
    path: Path,
    columns: Sequence[str] | None = None,
    row_groups: Sequence[int] | None = None,
    record: FileRecord | None = None,
    contents: Contents | None = None,
) -> pa.Table:
    """Read a file with its page checksums verified, and its footer against the record where there is one.

    Args:
        path: The file.
        columns: The columns wanted; all when None.
        row_groups: The row groups wanted; all when None.
        record: What the file must be.
        contents: What keeps small files, so that none is opened twice.

    Raises:
        FileNotFoundError: There is no such file; a compaction may have replaced it.
        DamagedFileError: The bytes are not those that were written.
    """
    with opened(path, record, contents) as file:
        return decoded(file, columns, row_groups)


def decoded(
    file: pq.ParquetFile, columns: Sequence[str] | None = None, row_groups: Sequence[int] | None = None
) -> pa.Table:
    """The rows of an open file, in half the time and memory of decoding all row groups at once."""
    wanted = None if columns is None else list(columns)
    chosen = list(range(file.num_row_groups) if row_groups is None else row_groups)
    batches = list(file.iter_batches(_BATCH_ROWS, chosen, wanted)) if chosen else []
    return pa.Table.from_batches(batches) if batches else file.read_row_groups(chosen, columns=wanted)


def verify(path: Path, record: FileRecord | None = None, contents: Contents | None = None) -> None:
    """Check every byte of a file: against its record, or else by decoding every page.

    Args:
        path: The file.
        record: What the file must be.
        contents: What keeps small files, so that none is opened twice.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedFileError: The bytes are not those that were written.
    """
    if record is None:
        read(path, contents=contents)
        return
    try:
        content = contents.of(path) if contents else None
        with path.open("rb") if content is None else io.BytesIO(content) as file:
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


def checked_footer(path: Path, record: FileRecord, content: bytes | None = None) -> bytes:
    """The footer of a file, its length and magic included, read once and compared with the record.

    Args:
        path: The file.
        record: What the file must be.
        content: All its bytes, where they are at hand.

    Raises:
        FileNotFoundError: There is no such file.
        DamagedFileError: It is not what was written.
    """
    try:
        with path.open("rb", buffering=0) if content is None else io.BytesIO(content) as file:
            size = file.seek(0, os.SEEK_END)
            if size != record.bytes:
                raise _damaged(path, f"it has {size} bytes, {record.bytes} were written")
            file.seek(max(0, size - TAIL_BYTES))
            length = min(footer_size(file.read(TAIL_BYTES)), size)
            file.seek(size - length)
            footer = file.read(length)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _damaged(path, str(error)) from error
    if zlib.crc32(footer) != record.footer_crc32:
        raise _damaged(path, "its footer is not what was written")
    return footer


def _metadata(path: Path, record: FileRecord, content: bytes | None) -> pq.FileMetaData:
    """The footer of a file, parsed from the very bytes that were checked."""
    metadata = pq.read_metadata(pa.BufferReader(checked_footer(path, record, content)))
    if metadata.num_rows != record.rows:
        raise _damaged(path, f"it has {metadata.num_rows} rows, {record.rows} were written")
    return metadata


def footer_size(tail: bytes | memoryview) -> int:
    """Bytes of a footer with its length and magic, by a file's last `TAIL_BYTES`."""
    return int.from_bytes(bytes(tail[:4]), "little") + TAIL_BYTES


def _damaged(path: Path, reason: str) -> DamagedFileError:
    return DamagedFileError(f"{path} is damaged: {reason}", hint="see what else is: xai doctor RUN_DIR")
