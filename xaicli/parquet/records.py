"""What finished files must be: their rows and checksums, in an append-only list per attempt and rank.

Page checksums do not cover a file's footer, so the CRC-32 of the whole file and of its footer are kept here.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from xaicli.files import make_folder, write_all
from xaicli.layout import RunLayout


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
