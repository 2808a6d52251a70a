"""The report of who is taken for whom, and of how sure the model is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.report.charts import LineChart, Series, Tone
from xaicli.report.model import Block, Cell, Column, Figure, Figures, Report, Table, Text
from xaicli.report.numbers import count, cut, short
from xaicli.report.page import Page, Part, report_of, words_of
from xaicli.report.samples import samples_report
from xaicli.words import split

_MATRIX = 30
_PAIRS = 30
_LINES = 12
_SURE = 0.02
"""An over-confidence that is worth a word."""


def confusion_report(answer: Answer, page: Page | None = None) -> Report:
    """The page of `xai confusion`.

    Args:
        answer: A row a label and place, with `overall`, `cells`, `calibration`, `probabilities` and `by` beside.
        page: The run.
    """
    page = page or Page()
    parts = []
    for place in _last_places(answer):
        words = words_of(place["mode"], place["ds_id"])
        parts.append(Part(words, _blocks(answer, place, words, page), _sentence(answer, place, words)))
    return report_of(
        answer,
        page,
        parts,
        name="confusion",
        title="Who is taken for whom",
        rules=(
            ("accuracy", "share right, with Wilson's 95 % interval"),
            ("precision, recall, F1", "0 where undefined, which the column says"),
            ("calibration", "top_prob against correct in 15 bins of equal count; 95 % bootstrap intervals"),
        ),
        tables={
            "confusion": lambda: answer.data.with_columns(pl.col("undefined").list.join(" ")),
            "confusion-cells": lambda: pl.DataFrame(answer.extra["cells"], infer_schema_length=None),
        },
    )


def cell_report(answer: Answer, page: Page | None = None, *, population: pl.DataFrame | None = None) -> Report:
    """The page of `xai confusion --cell`.

    Args:
        answer: The samples of the cell, as `samples` answers, with their number in `n`.
        page: The run, with thumbnails and predictions of the samples.
        population: As for `samples_report`.
    """
    label, taken = split(str(answer.selection["cell"]))
    total = sum(row["n"] for row in answer.extra["n"])
    shown = answer.data.select("mode", "ds_id", "sample_id").unique().height
    said = f"{count(total, 'sample')} of {label} {'is' if total == 1 else 'are'} taken for {taken}"
    whole = samples_report(answer, page, population=population)
    return replace(
        whole,
        name="confusion-cell",
        title=f"{label} taken for {taken}",
        sentence=said + (f"; the {shown:,} with the highest values are shown." if shown < total else "."),
    )


def _last_places(answer: Answer) -> list[Mapping[str, Any]]:
    """The overall figures of the last place of each (mode, ds_id)."""
    found = {(row["mode"], row["ds_id"]): row for row in answer.extra["overall"]}
    return list(found.values())


def _of(rows: Sequence[Mapping[str, Any]], place: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in rows if (row["mode"], row["ds_id"]) == (place["mode"], place["ds_id"])]


def _wrong(answer: Answer, place: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The wrong cells, the most frequent first."""
    cells = [cell for cell in _of(answer.extra["cells"], place) if cell["label"] != cell["prediction"]]
    return sorted(cells, key=lambda cell: (-cell["n"], cell["name"], cell["prediction_name"]))


def _sentence(answer: Answer, place: Mapping[str, Any], words: str) -> str:
    low, high = place["accuracy_interval"]
    right = "have exactly their classes" if place["mcc"] is None else "are right"
    said = (
        f"{words}, epoch {place['epoch']}: {_percent(place['accuracy'])} of {count(place['n'], 'sample')} {right} "
        f"(95 % interval {_percent(low)} to {_percent(high)})"
    )
    if wrong := _wrong(answer, place):
        said += f"; most often {_mistaken(wrong[0])} ({count(wrong[0]['n'], 'time')})"
    for found in _of(answer.extra["calibration"], place):
        said += f". {_confidence(found)}"
    return said + "."


def _mistaken(cell: Mapping[str, Any]) -> str:
    label, taken = cut(cell["name"]), cut(cell["prediction_name"])
    if cell["label"] is None:
        return f"{taken} is predicted without being there"
    return f"{label} is missed" if cell["prediction"] is None else f"{label} is taken for {taken}"


def _confidence(found: Mapping[str, Any]) -> str:
    gap = found["over_confidence"]
    if abs(gap) < _SURE:
        return f"It is about as sure as it is right (calibration error {_percent(found['ece'])})"
    way = "surer than it is right" if gap > 0 else "less sure than it is right"
    return f"It is {_percent(abs(gap))} {way} (calibration error {_percent(found['ece'])})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _blocks(answer: Answer, place: Mapping[str, Any], words: str, page: Page) -> Iterator[Block]:
    calibration = next(iter(_of(answer.extra["calibration"], place)), None)
    yield Figures(tuple(_key_figures(place, calibration)))
    rows = answer.data.filter((pl.col("mode") == place["mode"]) & (pl.col("ds_id") == place["ds_id"]))
    last = rows.filter((pl.col("epoch") == place["epoch"]) & (pl.col("pass") == place["pass"]))
    yield from _matrix(answer, place, last, words, page)
    yield _pairs(answer, place, words, page)
    yield from _over_time(answer, rows, place, words, page)
    yield _labels(last, words, page)
    if calibration is not None:
        yield _reliability(calibration, words, page)
        yield _bins(calibration, words, page)
    for scores in _of(answer.extra["probabilities"], place):
        yield _one_against_rest(scores, words, page)
    if groups := _of(answer.extra.get("by", ()), place):
        yield _groups(groups, words, page)


def _key_figures(place: Mapping[str, Any], calibration: Mapping[str, Any] | None) -> Iterator[Figure]:
    low, high = place["accuracy_interval"]
    share = "with exactly their classes" if place["mcc"] is None else "right"
    yield Figure(_percent(place["accuracy"]), f"{share}, of {place['n']:,} ({_percent(low)} to {_percent(high)})")
    yield Figure(_percent(place["balanced_accuracy"]), "mean recall of the labels")
    yield Figure(short(place["macro_f1"], 3), "mean F1 of the labels")
    if place["mcc"] is not None:
        yield Figure(short(place["mcc"], 3), "Matthews' coefficient")
    if calibration is not None:
        low, high = calibration["ece_interval"]
        yield Figure(_percent(calibration["ece"]), f"calibration error ({_percent(low)} to {_percent(high)})")


def _matrix(answer: Answer, place: Mapping[str, Any], last: pl.DataFrame, words: str, page: Page) -> Iterator[Block]:
    labels = dict(zip(last["label"], last["name"], strict=True))
    if len(labels) > _MATRIX:
        yield Text(
            f"{len(labels):,} labels are too many for a table of them all; the pairs below are confused most.",
            Tone.FAINT,
        )
        return
    cells = _of(answer.extra["cells"], place)
    counts = {(cell["label"], cell["prediction"]): cell["n"] for cell in cells}
    for cell in cells:
        for end, name in (("label", "name"), ("prediction", "prediction_name")):
            if cell[end] is None:
                labels[None] = cell[name]
    yield Table(
        page.names("matrix", words),
        f"Labels by row, predictions by column: {words}, epoch {place['epoch']}",
        (Column("label"), *(Column(cut(name, 12), Cell.INTEGER) for name in labels.values())),
        tuple((cut(name), *(counts.get((label, taken), 0) for taken in labels)) for label, name in labels.items()),
        terminal_rows=_MATRIX,
    )


def _pairs(answer: Answer, place: Mapping[str, Any], words: str, page: Page) -> Block:
    wrong = _wrong(answer, place)
    if not wrong:
        return Text("No sample is taken for another label.", Tone.GOOD)
    of_label: dict[Any, int] = {}
    for cell in _of(answer.extra["cells"], place):
        of_label[cell["label"]] = of_label.get(cell["label"], 0) + cell["n"]
    rows = tuple(
        (
            cut(cell["name"]),
            cut(cell["prediction_name"]),
            cell["n"],
            "–" if cell["label"] is None else _percent(cell["n"] / of_label[cell["label"]]),
        )
        for cell in wrong[:_PAIRS]
    )
    left = len(wrong) - len(rows)
    return Table(
        page.names("pairs", words),
        f"Confused most: {words}",
        (Column("label"), Column("taken for"), Column("samples", Cell.INTEGER), Column("of the label")),
        rows,
        note="see a pair's samples with --cell LABEL,PREDICTION"
        + (f"; {left:,} more pairs in the JSON" if left else ""),
        terminal_rows=10,
    )


def _over_time(
    answer: Answer, rows: pl.DataFrame, place: Mapping[str, Any], words: str, page: Page
) -> Iterator[LineChart]:
    if rows.select("epoch", "pass").unique().height < 2:
        return
    histories = {label: part.sort("epoch", "pass") for (label,), part in rows.group_by("label", maintain_order=True)}
    worst = sorted(histories, key=lambda label: (float(histories[label]["f1"][-1]), str(label)))[:_LINES]
    more = len(histories) - len(worst)
    series = [
        Series(cut(str(part["name"][0])), tuple(map(float, part["epoch"])), tuple(part["f1"]), colour=order)
        for order, part in enumerate(histories[label] for label in worst)
    ]
    yield LineChart(
        name=page.names("f1", words),
        title=f"F1 of the labels, {words}",
        x_label="epoch",
        y_label="F1",
        series=tuple(series),
        legend=f"The {len(worst)} labels with the lowest F1 at the end; {more:,} more are in the table."
        if more
        else "",
        alt=f"F1 of {count(len(worst), 'label')} over the epochs, {words}.",
    )
    overall = _of(answer.extra["overall"], place)
    x = tuple(float(row["epoch"]) for row in overall)
    lines = [("accuracy", "accuracy"), ("macro F1", "macro_f1"), ("calibration error", "ece")]
    yield LineChart(
        name=page.names("overall", words),
        title=f"Accuracy, F1 and calibration error, {words}",
        x_label="epoch",
        y_label="share",
        series=tuple(
            Series(title, x, tuple(row[key] for row in overall), colour=order)
            for order, (title, key) in enumerate(lines)
            if any(row[key] is not None for row in overall)
        ),
        alt=f"Overall figures over the epochs, {words}.",
        y_limits=(0.0, 1.0),
    )


def _labels(last: pl.DataFrame, words: str, page: Page) -> Table:
    ordered = last.sort("f1", "label")
    rows = tuple(
        (
            cut(row["name"]),
            row["n"],
            row["n_predicted"],
            row["precision"],
            row["recall"],
            row["f1"],
            ", ".join(row["undefined"]),
        )
        for row in ordered.iter_rows(named=True)
    )
    return Table(
        page.names("labels", words),
        f"Each label, the lowest F1 first: {words}",
        (
            Column("label"),
            Column("samples", Cell.INTEGER),
            Column("predicted", Cell.INTEGER),
            *(Column(title, Cell.NUMBER) for title in ("precision", "recall", "F1")),
            Column("undefined"),
        ),
        rows,
    )


def _reliability(found: Mapping[str, Any], words: str, page: Page) -> LineChart:
    bins = found["bins"]
    x = tuple(item["top_prob"] for item in bins)
    return LineChart(
        name=page.names("reliability", words),
        title=f"How sure, and how often right, {words}",
        x_label="mean probability of the prediction",
        y_label="share right",
        series=(
            Series("as sure as right", (0.0, 1.0), (0.0, 1.0), Tone.REFERENCE),
            Series("the model", x, tuple(item["accuracy"] for item in bins), counts=tuple(item["n"] for item in bins)),
        ),
        legend="Below the diagonal the model is surer than it is right.",
        alt=f"Share right against how sure the model is, in {count(len(bins), 'bin')}. {_confidence(found)}.",
        y_limits=(0.0, 1.0),
    )


def _bins(found: Mapping[str, Any], words: str, page: Page) -> Table:
    rows = tuple(
        (item["n"], item["top_prob"], item["accuracy"], item["top_prob"] - item["accuracy"]) for item in found["bins"]
    )
    titles = ("mean probability", "share right", "surer than right by")
    return Table(
        page.names("bins", words),
        f"Calibration in bins of equal count, {words}",
        (Column("samples", Cell.INTEGER), *(Column(title, Cell.NUMBER) for title in titles)),
        rows,
        folded=True,
    )


def _one_against_rest(scores: Mapping[str, Any], words: str, page: Page) -> Table:
    rows = tuple(
        (page.label_name(row["label"]), row["auroc"], row["average_precision"]) for row in scores["one_against_rest"]
    )
    note = f"Brier score {short(scores['brier'])}, log loss {short(scores['log_loss'])}, of {scores['n']:,} samples"
    columns = (Column("label"), Column("AUROC", Cell.NUMBER), Column("average precision", Cell.NUMBER))
    return Table(page.names("probabilities", words), f"Each label against the rest, {words}", columns, rows, note)


def _groups(groups: Sequence[Mapping[str, Any]], words: str, page: Page) -> Table:
    rows = tuple(
        (
            cut(str("–" if row["value"] is None else row["value"])),
            row["n"],
            _percent(row["accuracy"]),
            f"{_percent(row['accuracy_interval'][0])} to {_percent(row['accuracy_interval'][1])}",
            row["macro_f1"],
            row["mcc"],
        )
        for row in sorted(groups, key=lambda row: (row["accuracy"], str(row["value"])))
    )
    titles = (Column("right"), Column("95 % interval"), Column("macro F1", Cell.NUMBER), Column("MCC", Cell.NUMBER))
    name = str(groups[0]["column"])
    columns = (Column(name), Column("samples", Cell.INTEGER), *titles)
    return Table(page.names("by", words), f"By {name}, the lowest accuracy first: {words}", columns, rows)
