"""A table as a Parquet file: encodings chosen per column, page checksums, facts in the footer; whole or not there."""

from __future__ import annotations

import errno
import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xaicli import files
from xaicli.parquet.reading import TAIL_BYTES, FileRecord, Passes, footer_size
from xaicli.vocabulary import EPOCH, LABEL, MODE, PASS, PREDICTION, SAMPLE_ID, STEP

_PRUNING = (SAMPLE_ID, STEP, EPOCH, LABEL, PREDICTION)
"""Statistics are kept only where they let a reader skip row groups; float ranges do not."""
_FACTS = b"xai"
_DIGEST_BYTES = 12
_DISTINCT_SHARE = 4
"""A dictionary pays where a value repeats this many times on average."""


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
        passes=passes_of(table) if _is_of_samples(table) and {PASS, STEP} <= set(table.column_names) else None,
    )


def passes_of(table: pa.Table) -> Passes:
    """(pass, its first step) of each pass that rows are of, ascending."""
    import pyarrow.compute as pc

    turns, steps = table.column(PASS), table.column(STEP)
    each = sorted(turn for turn in pc.unique(turns).to_pylist() if turn is not None)
    # Not `group_by`, which imports more than a training has.
    of = (steps if len(each) == 1 else steps.filter(pc.equal(turns, turn)) for turn in each)
    return tuple((turn, pc.min(found).as_py()) for turn, found in zip(each, of, strict=True))


def _is_of_samples(table: pa.Table) -> bool:
    """Whether its rows are those of a folder of `data/`."""
    return EPOCH in json.loads((table.schema.metadata or {}).get(_FACTS, b"{}"))


def encode(table: pa.Table, *, row_group_rows: int = 131_072) -> memoryview:
    """The bytes of a Parquet file that holds a table."""
    table = _as_folders_say(_with_facts(table))
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


def _as_folders_say(table: pa.Table) -> pa.Table:
    """The table as a reader of whole folders wants it, which takes `mode` and `epoch` from the folders' names.

    Arrow, hence pandas, gives these the type of a dictionary, and reads no folder whose files have a column of the same
    name and another type. A dictionary of texts can be stored, one of numbers cannot: the epoch is in the footer only.
    """
    if _is_of_samples(table) and EPOCH in table.column_names:
        table = table.drop_columns([EPOCH])
    at = table.schema.get_field_index(MODE)
    if at < 0 or not pa.types.is_string(table.schema.field(at).type):
        return table
    return table.set_column(at, MODE, table.column(at).dictionary_encode())


def _with_facts(table: pa.Table) -> pa.Table:
    """The table with what a reader asks most often in its metadata, so that it need not read the rows to know.

    Under the key `xai`, beside what is there: `non_finite` {metric: NaN and infinite values}, `steps` [first, last],
    `passes`, and `sorted_ids`, a digest of the ids where they strictly increase: no sample repeats then, and equal
    digests mean equal samples.
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
    if PASS in table.column_names:
        facts["passes"] = sorted(pc.unique(table.column(PASS)).to_pylist())
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
            size = chunk.type.bit_width // 8  # not `to_numpy`, which imports pandas
            digests[0].update(memoryview(chunk.buffers()[1])[chunk.offset * size : (chunk.offset + len(chunk)) * size])
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
        if pa.types.is_dictionary(kind):
            dictionary.append(name)
        elif pa.types.is_floating(kind):
            encodings[name] = "BYTE_STREAM_SPLIT"
        elif pa.types.is_list(kind) and kind.value_type in (pa.float32(), pa.float64()):
            # Half precision stays plain: DuckDB reads it in no other encoding.
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
