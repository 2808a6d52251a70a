"""The report of groups of samples that fare differently from all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.report.charts import Tone
from xaicli.report.model import IN_CSV, Block, Cell, Column, Report, Table, Text, rest_of
from xaicli.report.numbers import count, cut_among, shorts
from xaicli.report.page import Page, Part, report_of, words_of
from xaicli.words import percent

_ROWS = 200
_NOTHING = "no slice has enough samples with a finite value, and others beside it: nothing was compared."


def slices_report(answer: Answer, page: Page | None = None) -> Report:
    """The page of `xai slices`.

    Args:
        answer: A row a slice, the worst first; `searched` tells of each (mode, ds_id, metric) what was looked at.
        page: The run.
    """
    page = page or Page()
    rows = list(answer.data.iter_rows(named=True))
    parts = []
    for searched in answer.extra["searched"]:
        words = words_of(searched["metric"], searched["mode"], searched["ds_id"])
        own = [row for row in rows if all(row[key] == searched[key] for key in ("mode", "ds_id", "metric"))]
        parts.append(Part(words, _blocks(own, searched, words, page), _sentence(own, searched, words)))
    return report_of(
        answer,
        page,
        parts,
        name="slices",
        title="Where the data is worst",
        rules=(
            ("slice", "samples that share the value of a column, or of two; numbers of many values by quintile"),
            ("difference", "mean of the slice minus mean of all other samples, with Welch's 95 % interval"),
            ("reported", "q at most 5 %, after Benjamini and Hochberg; slices that others explain are left out"),
            ("order", "difference times share of the samples, the worst first"),
        ),
        tables={"slices": lambda: [_flat(row) for row in rows] or answer.data.select(*_columns(answer.data))},
    )


def _named(row: Mapping[str, Any], separator: str = " x ") -> str:
    return separator.join(f"{item['column']} {item['value']}" for item in row["facts"])


def _sentence(rows: Sequence[Mapping[str, Any]], searched: Mapping[str, Any], words: str) -> str:
    looked = f"of {count(searched['looked_at'], 'slice')} with enough samples"
    worse = [row for row in rows if row["worse"]]
    if not searched["looked_at"]:
        return f"{words}: {_NOTHING}"
    if not worse:
        return f"{words}: no slice {looked} {_none_worse(searched)}."
    first = worse[0]
    mean, others = shorts((first["mean"], first["rest_mean"]), 3)
    said = (
        f"{words}: {cut_among(_named(first), map(_named, rows), 80)} is worst: {searched['metric']} {mean} against "
        f"{others}, {count(first['n'], 'sample')} ({_percent(first['share'])})"
    )
    if first["wrong_share"] is not None:
        said += f", {_percent(first['wrong_share'])} of all wrong predictions"
    return f"{said}. {len(worse):,} {looked} {'is' if len(worse) == 1 else 'are'} worse than the rest."


def _none_worse(searched: Mapping[str, Any]) -> str:
    """What is said where none is told as worse; those that were not compared may be."""
    others = f"; {searched['not_compared']:,} more differ and were not compared" if searched["not_compared"] else ""
    return f"is worse than the rest by more than chance brings{others}"


def _percent(share: float) -> str:
    return percent(share, 0 if share >= 0.095 else 1)


def _blocks(rows: Sequence[Mapping[str, Any]], searched: Mapping[str, Any], words: str, page: Page) -> Iterator[Block]:
    left = [
        f"{searched['explained']:,} more differ, which those here explain" if searched["explained"] else "",
        f"{searched['not_compared']:,} more differ and were not compared" if searched["not_compared"] else "",
    ]
    note = "; ".join(part for part in left if part)
    for title, worse in (("Worse than all others", True), ("Better than all others", False)):
        part = [row for row in rows if row["worse"] is worse]
        if part:
            yield _table(part, f"{title}: {words}", page.names("worse" if worse else "better", words), note)
            note = ""
        elif worse and not searched["looked_at"]:
            yield Text(_NOTHING.capitalize(), Tone.FAINT)
        elif worse:
            yield Text(f"No slice {_none_worse(searched)}.", Tone.GOOD)


def _table(rows: Sequence[Mapping[str, Any]], title: str, name: str, note: str) -> Table:
    has_wrong = any(row["wrong_share"] is not None for row in rows)
    columns = [Column("slice", whole=True), Column("samples", Cell.INTEGER), Column("share", Cell.NUMBER)]
    columns += [Column("mean", Cell.NUMBER), Column("others", Cell.NUMBER), Column("95 % interval of the difference")]
    columns += [Column("of wrong", Cell.NUMBER)] if has_wrong else []
    table = []
    for row in rows[:_ROWS]:
        interval = " to ".join(shorts((row["low"], row["high"]), 3))
        cells: list[Any] = [_named(row), row["n"], _percent(row["share"]), row["mean"], row["rest_mean"], interval]
        cells += ["–" if row["wrong_share"] is None else _percent(row["wrong_share"])] if has_wrong else []
        table.append(tuple(cells))
    if len(rows) > _ROWS:
        note = "; ".join(filter(None, (rest_of(f"{len(rows) - _ROWS:,} more", IN_CSV), note)))
    return Table(name, title, tuple(columns), tuple(table), note, rest_in=IN_CSV)


def _columns(data: pl.DataFrame) -> list[pl.Expr]:
    """The columns of `_flat`, of no rows."""
    plain = [name for name in data.columns if name not in ("facts", "sample_ids")]
    return [pl.lit("").alias("slice"), *map(pl.col, plain), pl.lit("").alias("sample_ids")]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in row.items() if key not in ("facts", "sample_ids")}
    return {"slice": _named(row), **plain, "sample_ids": row["sample_ids"]}
