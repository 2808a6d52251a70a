"""The report of each label's metric over time: overview, small multiples with bands, table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.report.charts import Times, Tone
from xaicli.report.labelcharts import (
    BAND_WORDS,
    CELLS,
    TITLES,
    LabelHistory,
    finite,
    label_sentence,
    of_everyone,
    overview,
    small_multiples,
)
from xaicli.report.model import IN_CSV, Block, Cell, Column, Report, Table, Text, Views, either, rest_of
from xaicli.report.numbers import listed
from xaicli.report.page import Names, Page, Part, RunFacts, among, as_list, conditions, headline, report_of, words_of
from xaicli.vocabulary import Bounds

_TABLE_ROWS = 5000
_MOST_LABELS = 10_000
"""More labels of one (mode, ds_id, metric) are not gone through one by one."""


def labels_report(answer: Answer, facts: RunFacts | None = None, without_finite: pl.DataFrame | None = None) -> Report:
    """The page of `xai labels`.

    Args:
        answer: Rows `{mode, ds_id, metric, label, name, epoch, step, n, mean, std, min, max, bounds}`.
        facts: The run.
        without_finite: Where these labels have values, but none that is finite.
    """
    page = Page(facts) if facts else Page()
    bounds = [Bounds(item) for item in as_list(answer.selection["bounds"])]
    data, left_out = few_enough(answer.data)
    parts = list(
        by_subject(
            with_gaps(data, without_finite), answer.selection.get("axis"), answer.extra.get("without_finite", ())
        )
    )
    limits = among(conditions(answer.selection))
    shown = [
        Part(words, label_blocks(words, labels, bounds, page.names, key=f"l{index}", limits=limits))
        for index, (words, labels) in enumerate(parts)
    ]
    metrics = [str(metric) for metric in as_list(answer.selection.get("metric"))]
    report = report_of(
        answer,
        page,
        shown,
        name="labels",
        title=f"Labels: {', '.join(metrics) or 'nothing recorded'}",
        sentence=headline([(words, label_sentence(labels, limits, bounds[0])) for words, labels in parts]),
        nothing=_nothing(answer, metrics),
        rules=[(f"band {bound}", BAND_WORDS[bound]) for bound in bounds],
        tables={"labels": lambda: flat_rows(answer.data)},
    )
    return replace(report, warnings=(*report.warnings, *left_out))


def _nothing(answer: Answer, metrics: Sequence[str]) -> str:
    """Why there is no label: no value is finite, or none is there."""
    limits = conditions(answer.selection)
    if answer.counts.non_finite:
        recorded = "is recorded there" if limits else "was recorded"
        return f"No label has a finite {listed(list(metrics))}{among(limits)}: what {recorded} is NaN or infinite."
    if answer.extra.get("without_finite"):
        return f"No label has a value of {listed(list(metrics))}{among(limits)}: its rows were recorded without one."
    return "No labels: nothing was recorded here, or the selection leaves nothing."


def few_enough(data: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The rows of as many labels as a page can hold, and what to say of the others.

    Of more labels than that of one (mode, ds_id, metric), those with the highest and the lowest last mean are kept.
    """
    if data.height <= _MOST_LABELS:
        return data, ()
    subject = ["metric", "mode", "ds_id"]
    last = data.sort("epoch").group_by(*subject, "label").agg(pl.col("mean").drop_nulls().last())
    place, n = pl.col("mean").rank("ordinal").over(subject), pl.len().over(subject)
    kept = last.filter((n <= _MOST_LABELS) | (place <= _MOST_LABELS // 2) | (place > n - _MOST_LABELS // 2))
    if kept.height == last.height:
        return data, ()
    said = (
        f"of {last.height:,} labels this page is about the {kept.height:,} with the highest and lowest last mean; "
        f"{either(IN_CSV)} has all"
    )
    return data.join(kept, on=[*subject, "label"], how="semi", maintain_order="left"), (said,)


def with_gaps(data: pl.DataFrame, without_finite: pl.DataFrame | None) -> pl.DataFrame:
    """The rows, and of the labels among them those without figures, of places where no value is finite."""
    if without_finite is None or without_finite.is_empty():
        return data
    key = ["mode", "ds_id", "metric", "label"]
    gaps = without_finite.join(data.select(key).unique(), on=key, how="semi")
    return pl.concat([data, gaps.with_columns(pl.lit(0, data.schema["n"]).alias("n"))], how="diagonal")


def by_subject(
    data: pl.DataFrame, over: str | None = None, without_finite: Sequence[Mapping[str, Any]] = ()
) -> Iterator[tuple[str, list[LabelHistory]]]:
    """Each (mode, ds_id, metric) in words, with its labels from the highest last mean to the lowest.

    Args:
        data: The rows of `labels`.
        over: The time axis.
        without_finite: metric, mode, ds_id and label of those that are in the last epoch without a finite value.
    """
    subject = ["metric", "mode", "ds_id"]
    present = {(*(one[name] for name in subject), one["label"]) for one in without_finite}
    begun = data.group_by(subject, maintain_order=True).agg(pl.min("epoch")).sort("epoch", maintain_order=True)
    of_each = data.partition_by(subject, as_dict=True) if begun.height > 1 else {}
    for key in begun.select(subject).iter_rows():
        mine = of_each.get(key, data)
        # As a rule they lie so: a million rows with lists are slow to move, and are there twice meanwhile.
        order = mine.select(pl.arg_sort_by("label", "epoch", maintain_order=True)).to_series()
        mine = mine if order.is_sorted() else mine[order]
        times = Times.of(over, _places(mine))
        found = LabelHistory.all_of(mine, times, name_of)
        if present:
            found = [replace(one, is_in_last=(*key, one.last["label"]) in present) for one in found]
        yield words_of(*key), sorted(found, key=lambda label: label.rank)


def _places(mine: pl.DataFrame) -> list[dict[str, Any]]:
    """The places of one (metric, mode, ds_id), each once, with their last step."""
    place = [name for name in ("epoch", "pass") if name in mine.columns]
    return mine.group_by(place).agg(pl.col("step").max()).to_dicts()


def label_blocks(
    words: str,
    labels: Sequence[LabelHistory],
    bounds: Sequence[Bounds],
    names: Names,
    *,
    key: str = "l",
    limits: str = "",
) -> Iterator[Block]:
    """Overview, a grid of small charts per bound, and the last epoch as a table.

    Args:
        words: What the labels are measured by, in words.
        labels: From the highest last mean to the lowest.
        bounds: The bands to show.
        names: Hands out file names.
        key: The start of the keys that link a label's lines; unique on the page.
        limits: Among which rows, where conditions leave rows out.
    """
    if not any(finite(mean) for label in labels for mean in label.means):
        yield Text(f"Every value here{limits} is NaN or infinite: there is no line to draw.", Tone.BAD)
    else:
        keyed = [(f"{key}-{index}", label) for index, label in enumerate(labels)]
        yield overview(words, labels, names, key, limits)
        everyone = of_everyone(labels) if len(labels) > 1 else None
        shown = keyed if len(keyed) <= CELLS else [*keyed[: CELLS // 2], *keyed[-CELLS // 2 :]]
        views: dict[str, tuple[Block, ...]] = {}
        for bound in bounds:
            views[TITLES[bound]] = (small_multiples(words, shown, everyone, bound, names, total=len(labels)),)
        yield Views(names("bands", words), "band", views)
    yield _table(words, labels, bounds, names, key)


def _table(words: str, labels: Sequence[LabelHistory], bounds: Sequence[Bounds], names: Names, key: str) -> Table:
    wanted = [bound for bound in bounds if bound not in (Bounds.NONE, Bounds.STD, Bounds.RANGE)]
    pairs = [Column(f"{TITLES[bound]} {side}", Cell.NUMBER) for bound in wanted for side in ("low", "high")]
    rows, numbers = [], ("mean", "std", "min", "max")
    passes = any(number for label in labels[:1] for _, number in label.times.places)
    for label in labels[:_TABLE_ROWS]:
        last = label.last
        extra = [v for bound in wanted for v in _ends((last["bounds"] or {}).get(bound))]
        rows.append(
            (
                label.name,
                last["n"],
                *(last[key] for key in numbers),
                *extra,
                label.course,
                last["epoch"],
                *([last["pass"] or 0] if passes else []),
            )
        )
    left_out = len(labels) - len(rows)
    # The least, the mean and the most of a label stand side by side.
    widths = [float(row[5] - row[4]) for row in rows if finite(row[4]) and finite(row[5]) and row[5] > row[4]]
    apart = statistics.median(widths) if widths else math.inf
    return Table(
        name=names("table", words),
        title=f"Each label at its last epoch: {words}",
        columns=(
            Column("label"),
            Column("n", Cell.INTEGER),
            *(Column(key, Cell.NUMBER, apart=apart if key != "std" else math.inf) for key in numbers),
            *pairs,
            Column("mean over epochs", Cell.SPARKLINE),
            Column("epoch", Cell.INTEGER),
            *([Column("pass", Cell.INTEGER)] if passes else []),
        ),
        rows=tuple(rows),
        note=rest_of(f"and {left_out:,} more labels", IN_CSV) if left_out else "",
        keys=tuple(f"{key}-{index}" for index in range(len(rows))),
        rest_in=IN_CSV,
    )


def _ends(pair: Any) -> tuple[Any, Any]:
    return (pair[0], pair[-1]) if pair else (None, None)


def flat_rows(data: pl.DataFrame) -> pl.DataFrame:
    """The rows with `bounds` spread over two columns each, for a CSV file."""
    dtype = data.schema["bounds"]
    bands = [field for field in dtype.fields if field.dtype.is_nested()] if isinstance(dtype, pl.Struct) else []
    ends = [
        pl.col("bounds").struct.field(band.name).list.get(place).alias(f"{band.name}_{side}")
        for band in bands
        for place, side in ((0, "low"), (-1, "high"))
    ]
    return data.select(pl.exclude("bounds"), *ends)


def name_of(row: Mapping[str, Any]) -> str:
    """What a label is called: its name, else its value."""
    return str(row["name"]) if row.get("name") not in (None, "") else str(row["label"])
