"""The only writer and verifier of Parquet files: encodings, checksums, atomic appearance.

A file appears only complete: temporary name, fsync, rename, fsync of the folder.
"""

from xaicli.parquet.contents import Contents
from xaicli.parquet.durable import make_folder, sync_folder, write_all, write_bytes
from xaicli.parquet.encoding import encode
from xaicli.parquet.reading import checked_footer, decoded, opened, read, verify
from xaicli.parquet.records import FileRecord, append_record, read_records
from xaicli.parquet.writing import write

__all__ = [
    "Contents",
    "FileRecord",
    "append_record",
    "checked_footer",
    "decoded",
    "encode",
    "make_folder",
    "opened",
    "read",
    "read_records",
    "sync_folder",
    "verify",
    "write",
    "write_all",
    "write_bytes",
]
