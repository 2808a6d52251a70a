"""The report of what a rule chose for the next training, and of what it leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.report.charts import Tone
from xaicli.report.facts import FactColumns, on_card
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
    rest_of,
)
from xaicli.report.numbers import count, cut, cut_apart, sample_name, shorts
from xaicli.report.page import Page, label_names_of, made, place_of, run_line
from xaicli.report.samples import saliency_link
from xaicli.words import percent, quoted

_CARDS = 12
_ROWS = 500
_VALUES = 50
_MIXES = 7
"""Columns whose mix is a table of its own: the label, what is balanced by, and facts."""
_MEANT = {
    "hardest": "the worst end of {score}",
    "easy": "the best end of {score}",
    "ambiguous": "the highest variability of the label's probability",
    "forgotten": "the most often learned and forgotten",
    "suspects": "suspected of a wrong label, the most suspicious first",
    "label_issues": "labels that the kept probabilities contradict, the least probable first",
    "balanced": "drawn so that each {by} has as many, as far as they go",
    "diverse": "k-centre greedy: each is the farthest from all chosen before it, the first the nearest to the mean",
    "random": "drawn, every sample with the same chance",
}


def select_report(answer: Answer, page: Page | None = None) -> Report:
    """The page of `xai select`.

    Args:
        answer: The chosen samples, with `chosen`, `random`, `mix`, `not_mixed` and `left_out` beside.
        page: The run, with thumbnails of the samples.
    """
    page = page or Page()
    sections, said = [], []
    for numbers in answer.extra["chosen"]:
        pair = (numbers["mode"], numbers["ds_id"])
        words = " · ".join(part for part in pair if part)
        own = answer.data.filter((pl.col("mode") == pair[0]) & (pl.col("ds_id") == pair[1]))
        sections.append(Section(words, page.names("part", words), tuple(_blocks(answer, own, numbers, words, page))))
        said.append(_sentence(answer, numbers, words))
    return Report(
        name="select",
        title="What the next training takes",
        run_line=run_line(answer, page.facts),
        label_names=label_names_of(page.facts),
        run_id=page.facts.run_id,
        sentence=" ".join(said),
        sections=tuple(sections),
        made=made(
            answer,
            ("rule", _rule(answer)),
            *_embeddings(answer),
            ("at random", "as many, drawn from the same samples by the same seed: what a rule must be better than"),
            ("read back", "Table(..., select=FILE), or xaicli.sampler_of(FILE, table)"),
        ),
        warnings=answer.warnings,
        tables={
            "select": lambda: answer.data,
            "select-random": lambda: answer.extra["random"],
        },
    )


def _rule(answer: Answer) -> str:
    rule = str(answer.selection["rule"])
    metric = next(iter(answer.selection.get("metric") or ["the id"]))
    score = f"{metric} ({answer.selection.get('stat', 'last')})"
    by = answer.selection.get("by") or answer.selection.get("label_key") or "label"
    meant = _MEANT.get(rule)
    return meant.format(score=score, by=by) if meant else f"samples that meet {rule}; the worst {score} first"


def _embeddings(answer: Answer) -> list[tuple[str, str]]:
    """Whose embeddings `diverse` went by."""
    said = []
    for row in answer.extra.get("embeddings", ()):
        place = " ".join(filter(None, (row["mode"], row["ds_id"])))
        split = f", split {row['split']}" if row["split"] else ""
        epoch = "" if row["epoch"] is None else f", epoch {row['epoch']}"
        said.append(f"{place}: table {answer.selection['table']}{split}{epoch}")
    return [("embeddings", "; ".join(said))] if said else []


def _sentence(answer: Answer, numbers: Mapping[str, Any], words: str) -> str:
    chosen = count(numbers["chosen"], "sample")
    said = f"{words}: {chosen} of {numbers['samples']:,} chosen by {cut(str(answer.selection['rule']), 60)}"
    if numbers["in_both"]:
        said += f", {numbers['in_both']:,} of them also among the {numbers['random']:,} drawn at random"
    return said + "."


def _blocks(answer: Answer, own: pl.DataFrame, numbers: Mapping[str, Any], words: str, page: Page) -> Iterator[Block]:
    yield Figures(
        (
            Figure(f"{numbers['chosen']:,}", f"chosen, of {numbers['samples']:,}"),
            Figure(f"{numbers['samples'] - numbers['chosen']:,}", "left out"),
            Figure(f"{numbers['there']:,}", "found by the rule"),
        )
    )
    chosen = own.filter(pl.col("rank").is_not_null())
    rows = list(chosen.head(_ROWS).iter_rows(named=True))
    pictured = [row for row in rows if _image(row, page)]
    if pictured:
        scores = dict(zip((row["score"] for row in rows), shorts([row["score"] for row in rows]), strict=True))
        note = f"the first {_CARDS} of {chosen.height:,}" if chosen.height > _CARDS else ""
        yield Gallery(f"Chosen: {words}", tuple(_card(row, scores, page) for row in pictured[:_CARDS]), note)
    yield _table(rows, chosen.height, words, page)
    mixes: dict[str, list[Mapping[str, Any]]] = {}
    for row in _of(answer.extra["mix"], numbers):
        mixes.setdefault(row["column"], []).append(row)
    for column in list(mixes)[:_MIXES]:
        yield _mix(column, mixes[column], numbers, words, page)
    if said := _mixes_beside(list(mixes)[_MIXES:], _of(answer.extra["not_mixed"], numbers)):
        yield Text(said, Tone.FAINT)
    left = _of(answer.extra["left_out"], numbers)
    if left:
        yield _left_out(left, answer, words, page)
    else:
        yield Text("Nothing with a finite value is left out.", Tone.FAINT)


def _of(rows: Sequence[Mapping[str, Any]], place: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in rows if (row["mode"], row["ds_id"]) == (place["mode"], place["ds_id"])]


def _image(row: Mapping[str, Any], page: Page) -> Any:
    return page.images.get((row["mode"], row["ds_id"], row["sample_id"]))


def _card(row: Mapping[str, Any], scores: Mapping[float | None, str], page: Page) -> Card:
    """One chosen sample; its score as the table writes it."""
    suggested = row.get("suggested_label")
    label = page.label_name(row["label"])
    lines = [] if suggested is not None else [label]
    lines += (
        [row["reason"]] if row.get("reason") else [f"score {scores[row['score']]}"] if row["score"] is not None else []
    )
    return Card(
        key=page.keys(row["mode"], row["ds_id"], row["sample_id"]),
        title=sample_name(row["sample_id"]),
        verdict=f"{label} → {page.prediction_name(suggested)}?" if suggested is not None else "",
        lines=tuple(lines),
        tone=Tone.LISTED,
        image=_image(row, page),
        links=saliency_link(row["mode"], row["ds_id"], row["sample_id"]),
        deep_link=str(row["sample_id"]),
        place=place_of(row["mode"], row["ds_id"]),
        facts=on_card(row, page.facts.path),
    )


def _table(rows: Sequence[Mapping[str, Any]], total: int, words: str, page: Page) -> Table:
    has = {key: any(row[key] is not None for row in rows) for key in ("label", "score", "reason", "suggested_label")}
    weighed = any(row["weight"] != 1 for row in rows)
    columns = [Column("rank", Cell.INTEGER), Column("sample")]
    columns += [Column("label")] if has["label"] else []
    columns += [Column("suggested")] if has["suggested_label"] else []
    columns += [Column("score", Cell.NUMBER)] if has["score"] else []
    columns += [Column("weight", Cell.NUMBER)] if weighed else []
    facts = FactColumns(rows, page.facts.path)
    columns += [*facts.columns, *([Column("reason")] if has["reason"] else [])]
    table = []
    for row in rows:
        cells: list[Any] = [row["rank"], str(row["sample_id"])]
        cells += [page.label_cell(row["label"])] if has["label"] else []
        cells += [page.prediction_cell(row["suggested_label"])] if has["suggested_label"] else []
        cells += [row["score"]] if has["score"] else []
        cells += [row["weight"]] if weighed else []
        cells += [*facts.cells(row), *([row["reason"] or ""] if has["reason"] else [])]
        table.append(tuple(cells))
    keys = tuple(page.keys.known(row["mode"], row["ds_id"], row["sample_id"]) for row in rows)
    left = rest_of(f"{total - len(rows):,} more", IN_CSV) if total > len(rows) else ""
    more = "; ".join(filter(None, (left, facts.note)))
    name = page.names("chosen", words)
    return Table(
        name,
        f"Chosen, in the order of the rule: {words}",
        tuple(columns),
        tuple(table),
        more,
        keys=keys,
        rest_in=IN_CSV,
    )


def _mix(column: str, values: Sequence[Mapping[str, Any]], numbers: Mapping[str, Any], words: str, page: Page) -> Table:
    def share(n: int, of: int) -> str:
        return percent(n / of if of else None, 1)

    def called(row: Mapping[str, Any]) -> str:
        return "(missing)" if row["value"] is None else str(row["value"])

    shown = values[:_VALUES]
    rows = tuple(
        (
            called(row),
            row["n"],
            row["chosen"],
            share(row["chosen"], row["n"]),
            share(row["chosen"], numbers["chosen"]),
            share(row["n"], numbers["samples"]),
            row["random"],
        )
        for row in shown
    )
    titles = (
        *(Column(name, Cell.NUMBER) for name in ("of each chosen", "of the chosen", "of all")),
        Column("at random", Cell.INTEGER),
    )
    columns = (Column(column), Column("samples", Cell.INTEGER), Column("chosen", Cell.INTEGER), *titles)
    absent = [called(row) for row in values if not row["chosen"]]
    none = [quoted(name) for name in map(cut_apart(absent, 20).__getitem__, absent)]
    note = (
        f"none chosen of: {', '.join(none[:10])}" + (f" and {len(none) - 10:,} more" if len(none) > 10 else "")
        if none
        else ""
    )
    if len(values) > len(shown):
        note = "; ".join(filter(None, (note, rest_of(f"{len(values) - len(shown):,} more values"))))
    title = f"Mix by {cut(column)}: {words}"
    return Table(page.names("mix", column, words), title, columns, rows, note, terminal_rows=12)


def _mixes_beside(columns: Sequence[str], others: Sequence[Mapping[str, Any]]) -> str:
    """What is said of facts whose mix is no table here."""
    said = []
    if columns:
        said.append(f"--json has the mix by {_listed([cut(name) for name in columns])}.")
    if others:
        told = _listed([f"{cut(row['column'])} ({row['values']:,})" for row in others])
        said.append(f"No mix by what has more than {_VALUES} values: {told}.")
    return " ".join(said)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")


def _left_out(rows: Sequence[Mapping[str, Any]], answer: Answer, words: str, page: Page) -> Table:
    metric = next(iter(answer.selection.get("metric") or ["score"]))
    columns = (
        Column("sample"),
        Column("label"),
        Column(f"{metric} ({answer.selection.get('stat', 'last')})", Cell.NUMBER),
    )
    table = tuple((str(row["sample_id"]), page.label_cell(row["label"]), row["score"]) for row in rows)
    name = page.names("left-out", words)
    return Table(name, f"The worst left out: {words}", columns, table, terminal_rows=5)
