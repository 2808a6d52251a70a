"""The report of collected embeddings: a picture for every layer, split and epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.report.charts import ScatterChart, Tone
from xaicli.report.facts import points_named
from xaicli.report.model import Block, Report, Text
from xaicli.report.numbers import count, sample_name
from xaicli.report.page import Names, Page, Part, RunFacts, report_of, words_of

_NAMED = 600


def embeddings_report(answer: Answer, facts: RunFacts | None = None) -> Report:
    """The page of `xai embeddings`.

    Args:
        answer: Rows column, split, epoch, sample_id, x, y, colour.
        facts: The run.
    """
    page = Page(facts) if facts else Page()
    n_columns = answer.data["column"].n_unique()
    sentence = f"{count(answer.data['sample_id'].n_unique(), 'sample')} in the space of {count(n_columns, 'layer')}"
    colour = answer.selection.get("colour")
    return report_of(
        answer,
        page,
        [Part(title, embedding_blocks(answer, title, frame, page.names)) for title, frame in by_picture(answer.data)],
        name="embeddings",
        title="Embeddings",
        sentence=sentence + (f", coloured by {colour}." if colour else "."),
        nothing="No samples.",
        tables={"embeddings": lambda: answer.data},
    )


def by_picture(data: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each (column, split, epoch) in words, with its rows."""
    for (column, split, epoch), frame in data.group_by("column", "split", "epoch", maintain_order=True):
        yield words_of(column, split, "" if epoch is None else f"epoch {epoch}"), frame


def embedding_blocks(answer: Answer, title: str, frame: pl.DataFrame, names: Names) -> Iterator[Block]:
    """The picture of one column at one time, or why there is none."""
    shown = frame.filter(pl.col("x").is_finite() & pl.col("y").is_finite())
    if shown.is_empty():
        yield Text("No sample has a finite embedding.", Tone.FAINT)
        return
    by = answer.selection.get("colour")
    few = shown.height <= _NAMED
    yield ScatterChart(
        name=names("embedding", title),
        title=title,
        x_label="first dimension",
        y_label="second dimension",
        x=tuple(shown["x"]),
        y=tuple(shown["y"]),
        colour=() if by is None else tuple(_plain(value) for value in shown["colour"]),
        colours=_groups(shown["colour"], answer.extra.get("classes", ())),
        names=points_named(shown, _hovers(shown)) if few else (),
        legend=f"Each dot is a sample, coloured by {by}." if by else "Each dot is a sample.",
        alt=f"{count(shown.height, 'sample')} in the plane of {title}",
    )


def _hovers(frame: pl.DataFrame) -> Iterator[str]:
    for sample_id, colour in frame.select("sample_id", "colour").iter_rows():
        yield f"{sample_name(sample_id)} {'' if colour is None else colour}"


def _groups(values: pl.Series, classes: Sequence[str]) -> tuple[str, ...]:
    """The groups that occur: the classes in their order, then others by name; none where colours are numbers."""
    if values.dtype != pl.String:
        return ()
    present = set(values.drop_nulls())
    return (*(name for name in classes if name in present), *sorted(present - set(classes)))


def _plain(value: Any) -> float | str | None:
    """A colour value; NaN is none."""
    return None if value is None or value != value else value
