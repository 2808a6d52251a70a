"""The report of who is taken for whom, and of how sure the model is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.diagnosis.confusion import block_order, matrix, most_frequent_first
from xaicli.diagnosis.news import Judgements
from xaicli.report.calibration import SURE, calibration_blocks, confidence, one_against_rest, percent
from xaicli.report.charts import LineChart, MatrixChart, Series, Times, Tone
from xaicli.report.facts import known_facts, on_card
from xaicli.report.model import (
    IN_CSV,
    Block,
    Card,
    Cell,
    Column,
    Figure,
    Figures,
    Gallery,
    Report,
    Section,
    Table,
    Text,
    Views,
    rest_of,
)
from xaicli.report.numbers import ARROW, count, cut, cut_apart, in_words, listed, sample_name, short
from xaicli.report.page import Page, Part, as_list, report_of, words_of
from xaicli.report.samples import saliency_link, samples_report
from xaicli.vocabulary import HIGH_IS_GOOD, NO_CLASS
from xaicli.words import fraction, split

_MATRIX = 30
_LONGEST_ID = 28
_TOLD_APART = 100
"""A sentence names a label so that it is none of those in so many cells."""
_PICTURED = 6
_KEY = ("mode", "ds_id", "sample_id")
_GLANCED = 5
_VIEWS = 12
_GLANCED_VIEWS = 4
"""Matrices of values that a terminal shows; the others are counted."""
_ENDS = (("label", "name"), ("prediction", "prediction_name"))
_PAIRS = 30
_LINES = 12
_GREW = 0.05
"""A calibration error grown by so much is worth a word."""


def confusion_report(answer: Answer, page: Page | None = None, *, told: Answer | None = None) -> Report:
    """The page of `xai confusion`.

    Args:
        answer: A row a label and place, with `overall`, `cells`, `calibration`, `probabilities` and `by` beside.
        page: The run.
        told: `pictured_samples` with what they are.
    """
    page = page or Page()
    known = {} if told is None else {tuple(row[key] for key in _KEY): row for row in told.data.iter_rows(named=True)}
    parts, samples = [], []
    for place in _last_places(answer):
        words = words_of(place["mode"], place["ds_id"])
        parts.append(Part(words, _blocks(answer, place, words, page), _sentence(answer, place, words)))
        inside = tuple(_samples_of_cells(answer, place, words, page, known))
        samples.append(Section(f"Samples of the cells: {words}", page.names("samples", words), inside, page_only=True))
    report = report_of(
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
            "confusion-cells": lambda: answer.extra["cells"],
            **({"confusion-by": lambda: _flat_groups(answer)} if answer.extra.get("by") else {}),
        },
    )
    return replace(report, sections=(*report.sections, *samples))


def judgement_blocks(found: Judgements, page: Page) -> Iterator[Block]:
    """What a page about more says of one (mode, ds_id): a sentence, and the pairs that are confused most."""
    words, overall = words_of(*found.pair), found.overall
    right = "have exactly their classes" if overall.mcc is None else "are right"
    said = f"{words}, epoch {found.epoch}: {percent(overall.accuracy)} of {count(overall.n, 'sample')} {right}"
    wrong = [
        {**row, "name": _spelled(row["label"], page), "prediction_name": _spelled(row["prediction"], page)}
        for row in found.pairs.head(_GLANCED).iter_rows(named=True)
    ]
    if wrong:
        said += f"; {_most_often(found.pairs, wrong, overall.undefined)}"
    if found.over_confidence is not None:
        said += f". {confidence(vars(found))}"
        if found.n_unsure:
            verb = "is" if found.n_unsure == 1 else "are"
            said += f"; {count(found.n_unsure, 'sample')} without a finite top_prob {verb} left out of this"
    if found.fell:
        fell = [f"{page.class_name(c.label)} ({fraction(c.before)} to {fraction(c.after)})" for c in found.fell]
        said += f". F1 fell since an earlier epoch: {listed(fell)}"
    if found.rose:
        rose = [
            f"{page.class_name(c.label)} for {page.class_name(c.taken)} (to {percent(c.after)})" for c in found.rose
        ]
        said += f". More often taken than before: {listed(rose)}"
    yield Text(f"{said}.")
    if wrong:
        yield Table(
            page.names("pairs", words),
            f"Confused most: {words}",
            (
                Column("label"),
                Column("taken for"),
                Column("samples", Cell.INTEGER),
                Column("of the label", Cell.NUMBER),
            ),
            tuple(
                (
                    row["name"],
                    row["prediction_name"],
                    row["n"],
                    "–" if row["label"] is None else percent(row["share"]),
                )
                for row in wrong
            ),
            note="matrix, samples and calibration: xai confusion",
        )


def _spelled(label: Any, page: Page) -> str:
    return NO_CLASS if label is None else page.class_name(label)


def cell_report(answer: Answer, page: Page | None = None, *, population: pl.DataFrame | None = None) -> Report:
    """The page of `xai confusion --cell`.

    Args:
        answer: The samples of the cell, as `samples` answers, with their number in `n`.
        page: The run, with thumbnails and predictions of the samples.
        population: As for `samples_report`.
    """
    label, taken = (_called(end, page) for end in split(str(answer.selection["cell"])))
    total = sum(row["n"] for row in answer.extra["n"])
    shown = answer.data.select("mode", "ds_id", "sample_id").unique().height
    metric = as_list(answer.selection["metric"])[0]
    end = f"with the {'lowest' if metric in HIGH_IS_GOOD else 'highest'} {metric}"
    some = f"the one {end} is shown" if shown == 1 else f"the {shown:,} {end} are shown"
    said = f"{count(total, 'sample')} of {label} {'is' if total == 1 else 'are'} taken for {taken}"
    whole = samples_report(answer, page, population=population)
    return replace(
        whole,
        name="confusion-cell",
        title=f"{label} taken for {taken}",
        sentence=said + (f"; {some}." if shown < total else "."),
    )


def _called(end: str, page: Page | None) -> str:
    """The name of a label that was given as one, or by its number where that is no other's name."""
    if page is None or not end.isdecimal() or end in map(page.class_name, range(len(page.facts.label_names))):
        return end
    return page.class_name(int(end))


def pictured_samples(answer: Answer) -> Answer:
    """The samples whose pictures the page shows, as an answer of samples."""
    parts = [place["wrong"].head(_PICTURED) for place in _last_places(answer)]
    columns = ["mode", "ds_id", pl.col("sample_ids").alias("sample_id")]
    frame = pl.concat([part.select(columns) for part in parts]).explode("sample_id").drop_nulls("sample_id")
    return replace(answer, data=frame.unique(maintain_order=True))


def _flat_groups(answer: Answer) -> pl.DataFrame:
    """The figures of each value of `--by`, a row each; the cells of the values are in the JSON."""
    rows = []
    for row in answer.extra["by"]:
        low, high = row["accuracy_interval"] or (None, None)
        told = {name: value for name, value in row.items() if name not in ("cells", "accuracy_interval")}
        undefined = " ".join(map(str, row["undefined"]))
        rows.append(
            {
                **told,
                "value": in_words(row["value"]),
                "accuracy_low": low,
                "accuracy_high": high,
                "undefined": undefined,
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def _last_places(answer: Answer) -> list[Mapping[str, Any]]:
    """The overall figures of the last place of each (mode, ds_id), with its wrong cells in `wrong`."""
    found = {(row["mode"], row["ds_id"]): row for row in answer.extra["overall"] if row["n"]}
    return [{**place, "wrong": _wrong(answer, place)} for place in found.values()]


def _of(rows: Sequence[Mapping[str, Any]], place: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in rows if (row["mode"], row["ds_id"]) == (place["mode"], place["ds_id"])]


def _cells(answer: Answer, place: Mapping[str, Any]) -> pl.DataFrame:
    """The cells of a (mode, ds_id)."""
    cells: pl.DataFrame = answer.extra["cells"]
    return cells.filter((pl.col("mode") == place["mode"]) & (pl.col("ds_id") == place["ds_id"]))


def _wrong(answer: Answer, place: Mapping[str, Any]) -> pl.DataFrame:
    """The wrong cells with their share of the label, the most frequent first."""
    cells = _cells(answer, place)
    of_label = cells.group_by("label").agg(pl.col("n").sum().alias("of_label"))
    shares = cells.join(of_label, on="label", how="left", nulls_equal=True).with_columns(
        pl.when(pl.col("label").is_not_null()).then(pl.col("n") / pl.col("of_label")).alias("share")
    )
    wrong = shares.filter(pl.col("label").ne_missing(pl.col("prediction")))
    return most_frequent_first(wrong)


def _sentence(answer: Answer, place: Mapping[str, Any], words: str) -> str:
    low, high = place["accuracy_interval"]
    right = "have exactly their classes" if place["mcc"] is None else "are right"
    said = (
        f"{words}, epoch {place['epoch']}: {percent(place['accuracy'])} of {count(place['n'], 'sample')} {right} "
        f"(95 % interval {percent(low)} to {percent(high)})"
    )
    told = place["wrong"].head(_TOLD_APART).to_dicts()
    if place["n"] == 1 and place["mcc"] is not None:
        judged = f"wrong, predicted {told[0]['prediction_name']}" if told else "right"
        said = f"{words}, epoch {place['epoch']}: the only sample is {judged}"
    elif told:
        said += f"; {_most_often(place['wrong'], told, place['undefined'])}"
    for found in _of(answer.extra["calibration"], place):
        said += f". {confidence(found)}{_once(answer, place, found)}"
    return said + "."


def _once(answer: Answer, place: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """That the calibration error was far smaller at an earlier epoch, as before memorisation."""
    earlier = [row for row in _of(answer.extra["overall"], place) if row["ece"] is not None]
    least = min(earlier, key=lambda row: float(row["ece"]), default=None)
    if least is None or found["over_confidence"] < SURE or found["ece"] - least["ece"] < _GREW:
        return ""
    return f"; at epoch {least['epoch']} the error was {percent(least['ece'])}"


def _most_often(wrong: pl.DataFrame, told: Sequence[Mapping[str, Any]], undefined: Sequence[str]) -> str:
    """What went wrong most often, or that the model predicts one and the same.

    Args:
        wrong: All wrong cells, the most frequent first, with their share of the label.
        told: The first of them, with their names.
        undefined: Figures that are undefined: Matthews' coefficient is where all samples have one prediction.
    """
    if "mcc" in undefined and wrong["prediction"].n_unique() == 1 and (wrong["share"] == 1).all():
        return f"every one is predicted {told[0]['prediction_name']}"
    return f"most often {_mistaken(told[0], told)} ({_as_often(wrong)})"


def _as_often(cells: pl.DataFrame) -> str:
    """How often the first of the cells occurs, and how many others do as often."""
    often = cells["n"][0]
    others = cells.filter(pl.col("n") == often).height - 1
    return count(often, "time") + (f", as {count(others, 'other')}" if others else "")


def _mistaken(cell: Mapping[str, Any], cells: Iterable[Mapping[str, Any]]) -> str:
    """What became of a label, among the other cells that are told."""
    ends = "name", "prediction_name"
    names = cut_apart([one[end] for one in (cell, *cells) for end in ends])
    label, taken = (names[cell[end]] for end in ends)
    if cell["label"] is None:
        return f"{taken} is predicted without being there"
    return f"{label} is missed" if cell["prediction"] is None else f"{label} is taken for {taken}"


def _blocks(answer: Answer, place: Mapping[str, Any], words: str, page: Page) -> Iterator[Block]:
    calibration = next(iter(_of(answer.extra["calibration"], place)), None)
    yield Figures(tuple(_key_figures(place, calibration)))
    rows = answer.data.filter((pl.col("mode") == place["mode"]) & (pl.col("ds_id") == place["ds_id"]))
    last = rows.filter((pl.col("epoch") == place["epoch"]) & (pl.col("pass") == place["pass"]))
    yield from _oddities(last, calibration)
    yield from _matrix(answer, place, last, words, page)
    yield _pairs(place, words, page)
    yield from _pairs_over_time(answer, place, words, page)
    yield from _over_time(answer, rows, place, words, page)
    yield _labels(last, words, page)
    if calibration is not None:
        yield from calibration_blocks(calibration, words, page)
    for scores in _of(answer.extra["probabilities"], place):
        yield one_against_rest(scores, words, page)
    if groups := _of(answer.extra.get("by", ()), place):
        yield from _groups(groups, words, page)


def _oddities(last: pl.DataFrame, calibration: Mapping[str, Any] | None) -> Iterator[Text]:
    """What must be known before the figures are trusted."""
    occur = last.filter(pl.col("n") > 0)
    if occur.height == 1:
        yield Text(f"Only one label occurs, {cut(occur['name'][0])}: nothing can be told apart from it.", Tone.BAD)
    if never := last.filter((pl.col("n_predicted") == 0) & (pl.col("n") > 0))["name"].to_list():
        yield Text(f"Never predicted: {listed(never)}.", Tone.BAD)
    if strange := last.filter(pl.col("n") == 0)["name"].to_list():
        yield Text(f"Predicted without a sample of it here: {listed(strange)}.", Tone.FAINT)
    if calibration is not None and calibration["left_out"]:
        left_out = count(calibration["left_out"], "sample")
        yield Text(f"Calibration leaves out {left_out} without a finite top_prob.", Tone.BAD)


def _key_figures(place: Mapping[str, Any], calibration: Mapping[str, Any] | None) -> Iterator[Figure]:
    low, high = place["accuracy_interval"]
    share = "with exactly their classes" if place["mcc"] is None else "right"
    yield Figure(percent(place["accuracy"]), f"{share}, of {place['n']:,} ({percent(low)} to {percent(high)})")
    yield Figure(percent(place["balanced_accuracy"]), "mean recall of the labels")
    yield Figure(short(place["macro_f1"], 3), "mean F1 of the labels")
    if "mcc" in place["undefined"]:
        yield Figure("–", "Matthews' coefficient: undefined with one label or one prediction")
    elif place["mcc"] is not None:
        yield Figure(short(place["mcc"], 3), "Matthews' coefficient")
    if calibration is not None:
        low, high = calibration["ece_interval"]
        yield Figure(percent(calibration["ece"]), f"calibration error ({percent(low)} to {percent(high)})")


def _matrix(answer: Answer, place: Mapping[str, Any], last: pl.DataFrame, words: str, page: Page) -> Iterator[Block]:
    """The counts as a picture and as a table; of many labels those that are confused most, side by side."""
    cells = _cells(answer, place)
    labels, note = _shown_labels(_every_label(last, cells), place["wrong"], cells)
    if len(labels) < 2:
        return
    title = f"Labels by row, predictions by column: {words}, epoch {place['epoch']}"
    within = _within(cells, labels).select("label", "prediction")
    links = {(a, b): _anchor(page, words, a, b) for a, b in within.iter_rows()}
    where = "On the diagonal what is right; on the page a cell leads to its samples."
    legend = " ".join(part for part in (where, note) if part)
    alt = f"{title}. {_pairs_words(place)}"
    name = page.names("matrix", words)
    chart = replace(_chart(labels, cells, name, title), legend=legend, alt=alt)
    yield replace(chart, links=tuple(tuple(links.get((a, b), "") for b in labels) for a in labels))
    yield _in_numbers(chart, labels, page.names("matrix table", words), words)


def _chart(labels: Mapping[Any, str], cells: pl.DataFrame, name: str, title: str) -> MatrixChart:
    """The counts of some labels, which are given with their names."""
    short_names = cut_apart(labels.values(), 24)
    table = matrix(_within(cells, labels).select("label", "prediction", "n"), list(labels))
    return MatrixChart(
        name=name,
        title=title,
        names=tuple(short_names[name] for name in labels.values()),
        counts=tuple(tuple(int(n) for n in row) for row in table),
        x_label="taken for",
        y_label="label",
    )


def _in_numbers(chart: MatrixChart, labels: Mapping[Any, str], name: str, words: str) -> Table:
    """The table of what a matrix shows, for who cannot see it or wants to copy it."""
    heads = cut_apart(labels.values(), 12)
    return Table(
        name,
        f"The same in numbers: {words}",
        (Column("label"), *(Column(heads[name], Cell.INTEGER) for name in labels.values())),
        tuple((name, *row) for name, row in zip(chart.names, chart.counts, strict=True)),
        folded=True,
    )


def _every_label(last: pl.DataFrame, cells: pl.DataFrame) -> dict[Any, str]:
    """The labels of a place with their names."""
    lacking = cells["label"].null_count() or cells["prediction"].null_count()
    return {**dict(zip(last["label"], last["name"], strict=True)), **({None: NO_CLASS} if lacking else {})}


def _shown_labels(every: dict[Any, str], wrong: pl.DataFrame, cells: pl.DataFrame) -> tuple[dict[Any, str], str]:
    """The labels of a matrix with their names, and what is said of those left out.

    Args:
        every: All labels with their names.
        wrong: The wrong cells, the most frequent first.
        cells: All cells.
    """
    if len(every) <= _MATRIX:
        return every, ""
    chosen: dict[Any, None] = {}
    for label, taken in wrong.select("label", "prediction").iter_rows():
        if len(chosen | {label: None, taken: None}) > _MATRIX:
            break
        chosen |= {label: None, taken: None}
    labels = list(chosen)
    table = matrix(_within(cells, labels).select("label", "prediction", "n"), labels)
    ordered = {labels[at]: every[labels[at]] for at in block_order(table)}
    return (
        ordered,
        f"The {len(labels)} of {len(every):,} labels that are confused most, those side by side that are confused.",
    )


def _within(cells: pl.DataFrame, labels: Iterable[Any]) -> pl.DataFrame:
    """The cells of some labels."""
    known = pl.Series([label for label in labels if label is not None], dtype=cells.schema["label"])
    ends = [pl.col(name).is_in(known.implode()) | pl.col(name).is_null() for name in ("label", "prediction")]
    return cells.filter(pl.all_horizontal(ends))


def _anchor(page: Page, words: str, label: Any, taken: Any) -> str:
    return page.names("cell", words, ("label", label), ("prediction", taken))


def _pairs_words(place: Mapping[str, Any]) -> str:
    wrong = place["wrong"].head(3).to_dicts()
    said = [f"{_mistaken(cell, wrong)} ({cell['n']:,})" for cell in wrong]
    return f"Most often {listed(said)}." if wrong else "All are right."


def _pairs(place: Mapping[str, Any], words: str, page: Page) -> Block:
    wrong = place["wrong"]
    if wrong.is_empty():
        return Text("No sample is taken for another label.", Tone.GOOD)
    names = _short_names(wrong.head(_PAIRS))
    rows = tuple(
        (
            names[cell["name"]],
            names[cell["prediction_name"]],
            cell["n"],
            "–" if cell["share"] is None else percent(cell["share"]),
            _ids(cell),
        )
        for cell in wrong.head(_PAIRS).iter_rows(named=True)
    )
    left = wrong.height - len(rows)
    return Table(
        page.names("pairs", words),
        f"Confused most: {words}",
        (
            *(Column("label"), Column("taken for"), Column("samples", Cell.INTEGER)),
            *(Column("of the label", Cell.NUMBER), Column("the worst")),
        ),
        rows,
        note="see a pair's samples with --cell LABEL,PREDICTION"
        + (f"; {rest_of(f'{left:,} more pairs', IN_CSV)}" if left else ""),
        terminal_rows=10,
        rest_in=IN_CSV,
    )


def _short_names(cells: pl.DataFrame, limit: int = 40) -> dict[str, str]:
    """What the labels and predictions of some cells are called in a table."""
    return cut_apart(pl.concat([cells["name"], cells["prediction_name"]]).unique(maintain_order=True), limit)


def _ids(cell: Mapping[str, Any]) -> str:
    """The samples of a cell that are told, the worst first."""
    names = [sample_name(sample) for sample in cell["sample_ids"] or ()]
    ids = list(map(cut_apart(names, _LONGEST_ID).__getitem__, names))
    return ", ".join(ids) + (f" and {cell['n'] - len(ids):,} more" if ids and cell["n"] > len(ids) else "")


def _samples_of_cells(
    answer: Answer, place: Mapping[str, Any], words: str, page: Page, known: Mapping[tuple[Any, ...], Mapping[str, Any]]
) -> Iterator[Block]:
    """What the cells of the matrix lead to, with pictures and facts of the most confused."""
    rows = answer.data.filter((pl.col("mode") == place["mode"]) & (pl.col("ds_id") == place["ds_id"]))
    last = rows.filter((pl.col("epoch") == place["epoch"]) & (pl.col("pass") == place["pass"]))
    cells = _cells(answer, place)
    labels, _ = _shown_labels(_every_label(last, cells), place["wrong"], cells)
    told = place["wrong"].head(_TOLD_APART).to_dicts()
    for cell in told[:_PICTURED]:
        keys = [(place["mode"], place["ds_id"], sample) for sample in cell["sample_ids"] or ()]
        cards = tuple(
            Card(
                page.keys(*key),
                sample_name(key[2]),
                (),
                image=page.images.get(key),
                links=saliency_link(*key),
                facts=on_card(known.get(key, {}), page.facts.path),
            )
            for key in keys
            if key in page.images or known_facts(known.get(key, {}))
        )
        if cards:
            mistaken = _mistaken(cell, told)
            yield Gallery(f"{mistaken[0].upper()}{mistaken[1:]}: {words}", cards)
    within = _within(cells, labels)
    shown, names = within.to_dicts(), _short_names(within)
    columns = (Column("label"), Column("taken for"), Column("samples", Cell.INTEGER), Column("the worst"))
    yield Table(
        page.names("cells", words),
        f"Samples of each cell: {words}, epoch {place['epoch']}",
        columns,
        tuple((names[cell["name"]], names[cell["prediction_name"]], cell["n"], _ids(cell)) for cell in shown),
        note="by falling loss; all of a cell with --cell LABEL,PREDICTION",
        anchors=tuple(_anchor(page, words, cell["label"], cell["prediction"]) for cell in shown),
        rest_in=IN_CSV,
    )


def _times(places: Iterable[Mapping[str, Any]]) -> Times:
    """Where places lie over the epochs: the passes of one epoch side by side, never at one spot."""
    return Times.of(None, ({"epoch": place["epoch"], "pass": place.get("pass"), "step": None} for place in places))


def _pairs_over_time(answer: Answer, place: Mapping[str, Any], words: str, page: Page) -> Iterator[LineChart]:
    """How the most confused pairs came and went."""
    found = _of(answer.extra["pairs"], place)
    if not found or len(found[0]["points"]) < 2:
        return
    times = _times(point for pair in found for point in pair["points"])
    series = tuple(
        Series(
            f"{pair['name']}{ARROW}{pair['prediction_name']}",
            tuple(times.x(point) for point in pair["points"]),
            tuple(point["n"] for point in pair["points"]),
            colour=order,
        )
        for order, pair in enumerate(found)
    )
    yield LineChart(
        name=page.names("pairs over time", words),
        title=f"The most confused pairs over the epochs, {words}",
        x_label="epoch",
        y_label="samples",
        series=series,
        legend=f"The {len(series)} pairs with the most samples over the last half of the epochs.",
        alt=f"Samples of {count(len(series), 'pair')} over the epochs, {words}.",
    )


def _over_time(
    answer: Answer, rows: pl.DataFrame, place: Mapping[str, Any], words: str, page: Page
) -> Iterator[LineChart]:
    if rows.select("epoch", "pass").unique().height < 2:
        return
    histories = {label: part.sort("epoch", "pass") for (label,), part in rows.group_by("label", maintain_order=True)}
    worst = sorted(histories, key=lambda label: (float(histories[label]["f1"][-1]), str(label)))[:_LINES]
    more = len(histories) - len(worst)
    times = _times(rows.select("epoch", "pass").unique().to_dicts())
    series = [
        Series(str(part["name"][0]), tuple(map(times.x, part.to_dicts())), tuple(part["f1"]), colour=order)
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
    x = tuple(times.x(row) for row in overall)
    lines = [("accuracy", "accuracy"), ("macro F1", "macro_f1"), ("calibration", "ece")]
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
            row["name"],
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
        rest_in=IN_CSV,
    )


def _value(row: Mapping[str, Any]) -> str:
    return cut("–" if row["value"] is None else in_words(row["value"]))


def _in_no_cell(row: Mapping[str, Any]) -> str:
    """What is said of a value none of whose samples is in a cell."""
    unlabelled, unpredicted = row["without_label"], row["without_prediction"]
    lacking = [f"{unlabelled:,} without a label"] if unlabelled else []
    lacking += [f"{unpredicted:,} with a label and without a prediction"] if unpredicted else []
    return f"{_value(row)}: no sample is in a cell, {' and '.join(lacking)}"


def _groups(groups: Sequence[Mapping[str, Any]], words: str, page: Page) -> Iterator[Block]:
    """The figures of each value of a column, and a matrix each."""
    empty, groups = [row for row in groups if not row["n"]], [row for row in groups if row["n"]]
    undefined = any(row["undefined"] for row in groups)
    calibrated = any(row["ece"] is not None for row in groups)
    rows = tuple(
        (
            _value(row),
            row["n"],
            percent(row["accuracy"]),
            f"{percent(row['accuracy_interval'][0])} to {percent(row['accuracy_interval'][1])}",
            row["macro_f1"],
            None if "mcc" in row["undefined"] else row["mcc"],
            *([row["ece"] if row["ece"] is None else percent(row["ece"])] if calibrated else []),
            *(["mcc" if "mcc" in row["undefined"] else ""] if undefined else []),
        )
        for row in sorted(groups, key=lambda row: (row["accuracy"], str(row["value"])))
    )
    titles = (
        Column("right", Cell.NUMBER),
        Column("95 % interval"),
        Column("macro F1", Cell.NUMBER),
        Column("MCC", Cell.NUMBER),
        *([Column("calibration error", Cell.NUMBER)] if calibrated else []),
        *([Column("undefined: one label or one prediction")] if undefined else []),
    )
    name = str(groups[0]["column"])
    columns = (Column(name), Column("samples", Cell.INTEGER), *titles)
    title = f"By {name}, the lowest accuracy first: {words}"
    yield Table(page.names("by", words), title, columns, rows, "; ".join(map(_in_no_cell, empty)), rest_in=IN_CSV)
    views: dict[str, tuple[Block, ...]] = {}
    alone: list[str] = []
    for row in groups:
        value = _value(row)
        cells = pl.DataFrame(row["cells"], infer_schema_length=None)
        wrong = most_frequent_first(cells.filter(pl.col("label").ne_missing(pl.col("prediction"))))
        every = {cell[end]: cell[spelled] for cell in row["cells"] for end, spelled in _ENDS}
        ordered = {label: every[label] for label in sorted(every, key=lambda label: (label is None, label))}
        labels, note = _shown_labels(ordered, wrong, cells)
        if len(labels) < 2:
            alone.append(value)
        elif len(views) < _VIEWS:
            title = f"{name} {value}, {words}"
            chart = _chart(labels, cells, page.names("matrix", words, name, value), title)
            alt = f"Labels by row, predictions by column, of {title}."
            table = _in_numbers(chart, labels, page.names("matrix table", words, name, value), title)
            views[value] = (replace(chart, legend=note, alt=alt), table)
    if views:
        yield Views(page.names("matrix by", words), name, views, apart=_GLANCED_VIEWS)
    if left := len(groups) - len(alone) - len(views):
        yield Text(f"--json has the matrices of {count(left, 'more value')}.", Tone.FAINT)
    if alone:
        yield Text(f"No matrix of {name} {listed(alone)}: one label alone, taken for no other.", Tone.FAINT)
