"""The only writer and verifier of Parquet files: encodings and checksums."""

from xaicli.parquet.encoding import encode, write
from xaicli.parquet.reading import (
    Contents,
    FileRecord,
    append_record,
    checked_footer,
    decoded,
    opened,
    read,
    read_records,
    verify,
)

__all__ = [
    "Contents",
    "FileRecord",
    "append_record",
    "checked_footer",
    "decoded",
    "encode",
    "opened",
    "read",
    "read_records",
    "verify",
    "write",
]
