"""Writing a table as a file."""

from __future__ import annotations

import errno
import zlib
from pathlib import Path

import pyarrow as pa

from xaicli import files
from xaicli.parquet.encoding import encode
from xaicli.parquet.reading import TAIL_BYTES, footer_size
from xaicli.parquet.records import FileRecord


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
    files.write_whole(path, content, durable=True, made_in=root)
    footer = footer_size(content[-TAIL_BYTES:])
    return FileRecord(
        path=path.relative_to(root).as_posix(),
        rows=table.num_rows,
        bytes=len(content),
        crc32=zlib.crc32(content),
        footer_crc32=zlib.crc32(content[len(content) - footer :]),
    )
