"""The report of a training step by step: batch losses, spikes, and the samples that stood in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.report.charts import LineChart, Series, Tone
from xaicli.report.model import Block, Cell, Column, Report, Section, Table, Text
from xaicli.report.numbers import count, cut, listed, short
from xaicli.report.page import Page, Part, as_list, made, report_of, run_line, words_of

_POINTS = 2000
_NEWS = 1.5
"""A label stands out in a step where it has so many times the rows its part of the training would bring."""


def steps_report(answer: Answer, page: Page | None = None) -> Report:
    """The page of `xai steps`.

    Args:
        answer: A row a batch, with `spikes`, `first_non_finite` and `returning` beside.
        page: The run.
    """
    page = page or Page()
    parts = []
    for (mode, ds_id), batches in answer.data.group_by("mode", "ds_id", maintain_order=True):
        words = words_of(mode, ds_id)
        parts.append(Part(words, _blocks(answer, (mode, ds_id), batches, words, page)))
    return report_of(
        answer,
        page,
        parts,
        name="steps",
        title="What happened at which step",
        sentence=_sentence(answer),
        nothing="No batches: the selection leaves nothing.",
        rules=(
            ("batch", "the rows of one step and rank; its loss is the mean of the finite values"),
            ("spike", "log loss above the median of the 101 steps around by 6 x 1.4826 x MAD"),
            ("returning samples", "binomial, corrected after Benjamini and Hochberg; q at most 5 %"),
        ),
        tables={"steps": lambda: answer.data},
    )


def step_report(answer: Answer, page: Page | None = None) -> Report:
    """The page of `xai steps --step N`.

    Args:
        answer: A row a sample of the step, by share of its loss, with `batches` and `mix` beside.
        page: The run, with thumbnails of the samples.
    """
    page = page or Page()
    step = answer.selection["step"]
    said = " ".join(_batch_words(batch, answer.data.filter(_of(batch)).to_dicts()) for batch in answer.extra["batches"])
    blocks: list[Block] = []
    for number, batch in enumerate(answer.extra["batches"]):
        rows = answer.data.filter(_of(batch)).to_dicts()
        mix = [item for item in answer.extra["mix"] if item["rank"] == batch["rank"]]
        words = f"step {step}" + (f", rank {batch['rank']}" if len(answer.extra["batches"]) > 1 else "")
        blocks.append(_samples_table(rows, words, page, f"samples-{number}"))
        if mix:
            blocks.append(_mix_table(mix, words, f"mix-{number}"))
    return Report(
        name=f"step-{step}",
        title=f"Step {step}",
        run_line=run_line(answer, page.facts),
        sentence=said,
        sections=(Section("The samples of the step", "samples", tuple(blocks)),),
        made=made(answer, ("share", "of the sum of the step's finite losses")),
        warnings=answer.warnings,
        tables={f"step-{step}": lambda: answer.data.drop("history")},
    )


def _of(batch: Mapping[str, Any]) -> pl.Expr:
    return pl.all_horizontal(pl.col(key) == batch[key] for key in ("mode", "ds_id", "epoch", "step", "rank"))


def _sentence(answer: Answer) -> str:
    n, spikes = answer.data.height, int(answer.data["is_spike"].sum() or 0)
    metric = "".join(map(str, as_list(answer.selection.get("metric"))))
    said = [f"{count(n, 'batch', 'batches')}, {count(spikes, 'spike') if spikes else 'no spike'} of {metric}."]
    said += [_batch_words(spike, spike["samples"]) for spike in answer.extra["spikes"][:1]]
    for first in answer.extra["first_non_finite"][:1]:
        said.append(
            f"The first {metric} that is not finite came at step {first['step']} of epoch {first['epoch']}: "
            f"{count(first['non_finite'], 'sample')} of {first['n']:,}."
        )
    if back := answer.extra["returning"]:
        shown = listed([f"#{row['sample_id']}" for row in back])
        said.append(f"More often in spikes than chance would bring: {shown}.")
    return " ".join(said)


def _batch_words(batch: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> str:
    """What a batch was, and how much of it few samples hold."""
    said = f"Step {batch['step']} of epoch {batch['epoch']}"
    if batch["loss"] is None:
        return f"{said}: no finite loss in {count(batch['n'], 'sample')}."
    said += f" had {short(batch['loss'], 3)} (usual {short(batch['usual'], 3)})"
    held, few = 0.0, 0
    for row in samples[:3]:
        if row["share"] is not None:
            held, few = held + row["share"], few + 1
    return f"{said}: {count(few, 'sample')} of {batch['n']:,} hold{'s' if few == 1 else ''} {100 * held:.0f} % of it."


def _blocks(answer: Answer, place: tuple[Any, Any], batches: pl.DataFrame, words: str, page: Page) -> Iterator[Block]:
    metric = "".join(map(str, as_list(answer.selection.get("metric"))))
    yield _chart(batches, metric, words, page)
    spikes = _here(answer.extra["spikes"], place)
    if spikes:
        yield _spikes_table(spikes, words, page)
    else:
        yield Text("No batch stands out from those around it.", Tone.GOOD)
    for first in _here(answer.extra["first_non_finite"], place):
        yield _samples_table(first["samples"], f"first non-finite, step {first['step']}", page, "non-finite")
    for spike in spikes:
        yield _samples_table(spike["samples"], f"step {spike['step']}", page, "spike")
        if news := [item for item in spike["mix"] if item["n"] >= _NEWS * item["expected"] and item["n"] > 1]:
            yield _mix_table(news, f"step {spike['step']}", page.names("mix", words, spike["step"], spike["rank"]))
    if back := _here(answer.extra["returning"], place):
        yield _returning_table(back, words, page)


def _here(rows: Sequence[Mapping[str, Any]], place: tuple[Any, Any]) -> list[Mapping[str, Any]]:
    return [row for row in rows if (row["mode"], row["ds_id"]) == place]


def _chart(batches: pl.DataFrame, metric: str, words: str, page: Page) -> LineChart:
    """Batch losses over the steps; of many the highest of each stretch, so that no spike is lost."""
    lines = []
    ranks = batches["rank"].unique().sort()
    for order, rank in enumerate(ranks):
        rows = batches.filter(pl.col("rank") == rank)
        every = -(-rows.height // _POINTS)
        thin = (
            rows.with_columns((pl.int_range(pl.len()) // every).alias("stretch"))
            .group_by("stretch")
            .agg(pl.col("step").sort_by("loss", nulls_last=False).last(), pl.col("loss").max())
            .sort("stretch")
        )
        name = metric if len(ranks) == 1 else f"rank {rank}"
        lines.append(Series(name, tuple(map(float, thin["step"])), tuple(thin["loss"]), colour=order))
        usual = rows.gather_every(every)
        tone = Tone.MEDIAN if len(ranks) == 1 else Tone.FAINT
        lines.append(Series("usual", tuple(map(float, usual["step"])), tuple(usual["usual"]), tone))
    finite = [value for line in lines for value in line.y if value is not None]
    most = batches.height > _POINTS
    return LineChart(
        name=page.names("steps", words),
        title=f"{metric} of each batch, {words}",
        x_label="step",
        y_label=metric,
        series=tuple(lines),
        legend="Of each stretch of steps the highest batch." if most else "",
        alt=f"{metric} of {count(batches.height, 'batch', 'batches')} over the steps, {words}.",
        y_log=bool(finite) and min(finite) > 0 and max(finite) / min(finite) > 100,
    )


def _spikes_table(spikes: Sequence[Mapping[str, Any]], words: str, page: Page) -> Table:
    rows = tuple(
        (
            str(s["step"]),
            str(s["epoch"]),
            str(s["rank"]),
            s["loss"],
            s["usual"],
            s["height"],
            s["n"],
            _top(s["samples"]),
        )
        for s in spikes
    )
    titles = ("loss", "usual", "deviations")
    return Table(
        page.names("spikes", words),
        f"The highest spikes, {words}",
        (
            *(Column(title) for title in ("step", "epoch", "rank")),
            *(Column(title, Cell.NUMBER) for title in titles),
            Column("samples", Cell.INTEGER),
            Column("most of it"),
        ),
        rows,
        note="see all samples of a step with --step N",
    )


def _top(samples: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"#{row['sample_id']} {_percent(row['share'], 'not finite')}" for row in samples[:3])


def _percent(share: float | None, absent: str = "–") -> str:
    return absent if share is None else f"{100 * share:.0f} %"


def _samples_table(rows: Sequence[Mapping[str, Any]], words: str, page: Page, name: str) -> Table:
    has_label = any(row.get("label") is not None for row in rows)
    has_prediction = any(row.get("prediction") is not None for row in rows)
    has_history = any(row.get("history") for row in rows)
    columns = [Column("sample"), *([Column("label")] if has_label else [])]
    columns += [Column("prediction")] if has_prediction else []
    columns += [Column("value", Cell.NUMBER), Column("share")]
    columns += [Column("history", Cell.SPARKLINE)] if has_history else []
    table = []
    for row in rows:
        cells: list[Any] = [str(row["sample_id"])]
        cells += [page.label_name(row["label"])] if has_label else []
        cells += [page.label_name(row["prediction"])] if has_prediction else []
        cells += [row["value"], _percent(row["share"])]
        cells += [tuple(point["value"] for point in row["history"] or ())] if has_history else []
        table.append(tuple(cells))
    return Table(page.names(name, words), f"By share of the loss: {words}", tuple(columns), tuple(table))


def _mix_table(mix: Sequence[Mapping[str, Any]], words: str, name: str) -> Table:
    rows = tuple((cut(item["name"]), item["n"], item["expected"]) for item in mix)
    columns = (Column("label"), Column("here", Cell.INTEGER), Column("expected", Cell.NUMBER))
    return Table(name, f"Labels against the mix of all rows: {words}", columns, rows)


def _returning_table(back: Sequence[Mapping[str, Any]], words: str, page: Page) -> Table:
    rows = tuple((str(row["sample_id"]), row["n_spikes"], row["n"], row["expected"], row["q"]) for row in back)
    return Table(
        page.names("returning", words),
        f"In spikes more often than chance would bring, {words}",
        (
            Column("sample"),
            Column("in spikes", Cell.INTEGER),
            Column("in batches", Cell.INTEGER),
            Column("expected", Cell.NUMBER),
            Column("q", Cell.NUMBER),
        ),
        rows,
    )
