"""Lists of samples as files that a training or another command reads back, as `tables/lists.py` does."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from xaicli.errors import UnwrittenError, UsageError
from xaicli.files import appearing, write_whole
from xaicli.render.machine import csv_parts, rows_json
from xaicli.tables.lists import WEIGHT, columns_of_text, id_lines
from xaicli.vocabulary import DS_ID, MODE, SAMPLE_ID
from xaicli.words import quoted, unquoted

KINDS = ("txt", "csv", "parquet", "json", "jsonl")
"""The formats of a list, which are their suffixes."""


def write_list(rows: pl.DataFrame, path: Path) -> Path:
    """Write samples as the suffix of a file says: `.txt` the ids, one a line; the others all columns.

    In CSV, text that a spreadsheet would run as a formula gets an apostrophe in front, which reading takes off again.

    Args:
        rows: A row a sample.
        path: The file, replaced whole.

    Returns:
        `path`.

    Raises:
        UsageError: The suffix is none of these; or ids cannot stand one a line, are of several data sets, weighted.
        UnwrittenError: It cannot be written.
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in KINDS:
        raise UsageError(f"{path} is no list of samples", hint="its suffix says which: " + ", ".join(KINDS))
    try:
        if kind == "txt":
            return write_whole(path, ids_text(rows).encode("utf-8", "surrogateescape"))
        with appearing(path) as file:
            if kind == "csv":
                file.writelines(part.encode() for part in csv_parts(rows))
            elif kind == "parquet":
                rows.write_parquet(file)
            elif kind == "json":
                file.write(rows_json(rows).encode("utf-8", "surrogatepass"))
            else:
                rows.write_ndjson(file)
    except OSError as error:
        raise UnwrittenError(
            f"{error.filename or path} cannot be written: {error.strerror or error}", hint="name another file with -o"
        ) from error
    return path


def ids_text(rows: pl.DataFrame) -> str:
    """The ids, one a line; in double quotes where a line would be read as something else.

    Raises:
        UsageError: An id holds a line break, the ids are of several data sets, or samples weigh more or less than 1.
    """
    if WEIGHT in rows.columns and (rows[WEIGHT] != 1).any():
        raise UsageError(
            "a list of ids alone cannot hold weights: it would name the chosen and all others alike",
            hint="write csv, parquet, json or jsonl, or leave out --weight",
        )
    if {MODE, DS_ID} <= set(rows.columns) and rows.select(MODE, DS_ID).n_unique() > 1:
        raise UsageError(
            "a list of ids alone cannot say of which data set each is, and these are of several",
            hint="choose one with --mode and --ds-id, or write csv or parquet",
        )
    lines: list[str] = []
    for sample_id in rows[SAMPLE_ID].cast(pl.String):
        line = quoted(sample_id, special="#" if sample_id.startswith("#") else "")  # a remark in a list to check
        taken_for_heading = not lines and columns_of_text(line) != {SAMPLE_ID: [sample_id]}
        if id_lines(line) != [line] or unquoted(line) != sample_id or taken_for_heading:
            raise UsageError(f"sample_id {sample_id!r} cannot stand on a line of its own", hint="write csv or parquet")
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)
