"""What samples are, beside the samples that an answer tells of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.queries.selection import Selection
from xaicli.reader import Place, Reader
from xaicli.vocabulary import SAMPLE_ID

FACTS = "facts"
"""The column of what samples are: {fact: value}, null for what is not known."""


def with_facts(answer: Answer, reader: Reader, selection: Selection | None = None) -> Answer:
    """The answer with a column `facts` in each table whose rows are samples, and what is to be said of their facts.

    Args:
        answer: What a question gave.
        reader: The run.
        selection: Which rows it was about.
    """
    facts = reader.facts
    if not facts.names:
        return answer
    told = {
        name: _beside(frame, reader) if isinstance(frame, pl.DataFrame) else frame
        for name, frame in answer.extra.items()
    }
    data = _beside(answer.data, reader)
    warnings = [*answer.warnings, *(facts.warnings if facts.are_read else ()), *facts.mismatches()]
    warnings += _without(reader, selection) if selection is not None else ()
    shown = [
        frame[FACTS]
        for frame in (data, *told.values())
        if isinstance(frame, pl.DataFrame) and frame.schema.get(FACTS) == pl.Struct
    ]
    if shown and not any(_any_known(part) for part in shown):
        warnings += facts.of_no_sample()
    return replace(answer, data=data, extra=told, warnings=tuple(dict.fromkeys(warnings)))


def _beside(frame: pl.DataFrame, reader: Reader) -> pl.DataFrame:
    if SAMPLE_ID not in frame.columns or FACTS in frame.columns:
        return frame
    ids = frame[SAMPLE_ID]
    known = reader.facts.frame.schema[SAMPLE_ID]
    if ids.dtype != known and not (known.is_integer() and (ids.dtype.is_integer() or ids.dtype == pl.String)):
        return frame
    # Rows of several runs, and those of a check, have their ids as text.
    found = reader.facts.of(ids.cast(known, strict=False))
    facts = pl.struct(reader.facts.names)
    return frame.with_columns(found.select(pl.when(pl.col(SAMPLE_ID).is_not_null()).then(facts).alias(FACTS)))


def _any_known(facts: pl.Series) -> bool:
    """Whether any sample of a column of facts has one."""
    return any(fact.null_count() < fact.len() for fact in facts.struct.unnest().get_columns())


def _without(reader: Reader, selection: Selection) -> list[str]:
    """How many samples lack the fact that groups them: these are in no group."""
    key = selection.label_key
    if key not in reader.facts.dtypes:
        return []
    said = []
    for pair in selection.pairs:
        rows, _ = reader.frame(Place(*pair, selection.epochs[pair][-1]), [SAMPLE_ID, key])
        values = rows[key].fill_nan(None) if rows[key].dtype.is_float() else rows[key]
        if missing := values.null_count():
            where = " ".join(part for part in pair if part)
            said.append(f"{missing:,} of {rows.height:,} samples of {where} have no {key}: they are in no group")
    return said


def facts_by_sample(reader: Reader, ids: pl.Series) -> Mapping[Any, Mapping[str, Any]]:
    """{sample_id: {fact: value}} of some samples, without what is not known."""
    if not reader.facts.names:
        return {}
    rows = reader.facts.of(ids.unique()).iter_rows(named=True)
    return {row.pop(SAMPLE_ID): {name: value for name, value in row.items() if value is not None} for row in rows}
