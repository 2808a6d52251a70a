"""The only writer and verifier of Parquet files: encodings and checksums."""

from xaicli.parquet.encoding import encode, passes_of, write
from xaicli.parquet.reading import (
    Contents,
    FileRecord,
    Passes,
    append_record,
    checked_footer,
    decoded,
    identity_of,
    opened,
    read,
    read_records,
    verify,
)

__all__ = [
    "Contents",
    "FileRecord",
    "Passes",
    "append_record",
    "checked_footer",
    "decoded",
    "encode",
    "identity_of",
    "opened",
    "passes_of",
    "read",
    "read_records",
    "verify",
    "write",
]
