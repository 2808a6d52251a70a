"""What to look at first: suspects, label issues, sudden rank changes, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.report.calibration import percent
from xaicli.report.charts import Tone
from xaicli.report.datamap import truth_table
from xaicli.report.facts import FactColumns, on_card
from xaicli.report.model import (
    IN_CSV,
    IN_JSON,
    Block,
    Card,
    Cell,
    Column,
    Gallery,
    Report,
    Section,
    Table,
    Text,
    rest_of,
)
from xaicli.report.numbers import count, sample_name
from xaicli.report.page import Page, label_names_of, made, place_of, run_line, words_of
from xaicli.report.samples import saliency_link

_CARDS = 12
_PAIRS = 20
SUSPECT_SCORE = "score: the sample's rank among all by its evidence, 1 the most suspicious; no probability"
ISSUE_SCORE = "score: 1 minus the probability of the label in that epoch"
OBJECT_SCORE = (
    "score: the share of epochs that contradict it, times how sure they were, and how far off, of what was made up or "
    "placed off it; 1 where none found anything"
)
DOUBT_SCORE = "score: the share of observations that contradict it, times how often the model is right about that label"
_DEVIATIONS = "score: robust deviations"
SCORES = {
    "suspect": SUSPECT_SCORE,
    "far_out_sequence": f"{_DEVIATIONS} of its mean loss above the median of all sequences",
    "doubted_label": DOUBT_SCORE,
    "ambiguous": "score: the standard deviation of the probability that its reason names, over the observations",
    "forgotten": "score: how many times it was forgotten",
    "rank_jump": "score: how many times the spread of all samples' moves then",
    "departing_label": f"{_DEVIATIONS} of its mean, or its trend, from the median label, whichever is more",
    "falling_label": "score: how far its F1 fell since its best epoch",
    "confused_pair": "score: the rise of the share of the label's samples that are taken so",
    "over_confident": "score: the mean probability of the predictions minus the share right",
    "spike": f"{_DEVIATIONS} of the batch above the median of the 101 steps around, by logarithm",
    "doubted_object": OBJECT_SCORE,
    "worst_picture": "score: how many objects are missed and made up",
}
"""What the score of each kind is."""
_ABOUT = "about {} may be wrong"
_SO_FAR = "{} contradicted in the early epochs, when the network was not sure yet: more may be wrong"
_OTHERWISE = "{} contradicted by the model in the early epochs, its own mistakes among them"
"""What is said of the samples whose label was contradicted."""
_OF_OBJECTS = ("doubted_object", "worst_picture")
_TITLES = {
    "suspect": "Suspected labels",
    "far_out_sequence": "Sequences far above the others",
    "doubted_label": "Single labels in doubt",
    "ambiguous": "Ambiguous",
    "forgotten": "Forgotten",
    "rank_jump": "Sudden rank changes",
    "departing_label": "Labels that depart from the others",
    "falling_label": "Labels whose F1 fell",
    "confused_pair": "Pairs that became confused",
    "over_confident": "Surer than right",
    "spike": "Spikes of the training",
    "doubted_object": "Objects whose labels are in doubt",
    "worst_picture": "Pictures with most missed and made up",
}

_PLACES = (("mode", "mode"), ("data set", "ds_id"))
_NOUNS = {
    "doubted_label": "label",
    "confused_pair": "pair",
    "over_confident": "data set",
    "spike": "spike",
    "doubted_object": "object",
}
"""What a row is, where not a sample or a label: a sample may lead several spikes, a label be taken for several."""


def findings_report(answer: Answer, page: Page | None = None, objects: Page | None = None) -> Report:
    """The page of `xai findings`.

    Args:
        answer: Rows finding, mode, ds_id, sample_id, label, score, epoch, reason, suggested_label.
        page: The run, with thumbnails of the samples.
        objects: Where findings of samples and of objects stand together, the page of the objects: their classes have
            other names, their pictures boxes.
    """
    page = page or Page()
    sections = []
    counted = []
    suspected: Sequence[Mapping[str, Any]] = answer.extra.get("suspected_pairs") or ()
    for (kind,), frame in answer.data.group_by("finding", maintain_order=True):
        title = _TITLES.get(str(kind), str(kind).replace("_", " "))
        total = answer.extra.get("found", {}).get(kind, frame.height)
        own = objects if objects is not None and kind in _OF_OBJECTS else page
        blocks = tuple(finding_blocks(frame, title, own, total=total, note=SCORES.get(str(kind), ""), rest_in=IN_CSV))
        sections.append(Section(title, page.names("part", kind), blocks))
        shown = f"{frame.height:,}" + (f" of {total:,}" if total > frame.height else "")
        if kind == "suspect":
            # A suspect's label was contradicted, once or always: only the early epochs say how many labels are wrong.
            shown += _estimated(answer.extra.get("label_noise", ()))
        counted.append(f"{title.lower()} {shown}")
        if kind == "suspect":
            pairs = pair_blocks(suspected, page, rest_in=IN_CSV)
            noise = noise_blocks(answer.extra.get("label_noise", ()), page)
            sections[-1] = replace(sections[-1], blocks=(*blocks, *pairs, *noise))
    if "truth" in answer.extra:
        sections.append(Section("Against the truth", "truth", (truth_table(answer.extra["truth"]),)))
    said = _sentence(counted, answer)
    nothing = Section("Findings", "findings", (Text(said, Tone.FAINT),))
    return Report(
        name="findings",
        title="What to look at first",
        run_line=run_line(answer, page.facts),
        label_names=label_names_of(page.facts),
        run_id=page.facts.run_id,
        sentence=said,
        sections=tuple(sections) or (nothing,),
        made=made(answer),
        warnings=answer.warnings,
        tables={
            "findings": lambda: answer.data,
            **({"findings-pairs": lambda: suspected} if suspected else {}),
        },
    )


def _sentence(counted: Sequence[str], answer: Answer) -> str:
    """What is shown, and that it is the first of each kind; what is not shown since none was asked for."""
    top = answer.selection.get("top")
    if not counted:
        found = {kind: n for kind, n in answer.extra.get("found", {}).items() if n}
        if top != 0 or not found:
            if answer.extra.get("not_looked_for"):
                return "Nothing stands out of what could be looked for; the warnings say what could not."
            return "Nothing stands out in this selection."
        kinds = ", ".join(f"{_TITLES.get(kind, kind.replace('_', ' ')).lower()} {n:,}" for kind, n in found.items())
        return f"None is listed, as --top 0 says. Found: {kinds}."
    return f"The first of each kind{f', at most {top} a kind and data set' if top else ''}: {', '.join(counted)}."


def _estimated(noise: Sequence[Mapping[str, Any]]) -> str:
    """How many labels are probably wrong, where the early epochs tell; else how many the model contradicted."""
    said = []
    for words in (_ABOUT, _SO_FAR, _OTHERWISE):
        part = [row for row in noise if _in_words(row) == words]
        contradicted = sum(row["contradicted"] for row in part)
        if contradicted or (part and words == _SO_FAR):
            said.append(words.format(f"{contradicted:,} of {sum(row['n'] for row in part):,} samples"))
    return f" ({'; '.join(said)})" if said else ""


def _in_words(row: Mapping[str, Any]) -> str:
    """What a count of contradicted labels says of wrong ones."""
    if row["rate"] is None:
        return _OTHERWISE
    return _SO_FAR if row["unsure"] else _ABOUT


def finding_blocks(
    frame: pl.DataFrame,
    title: str,
    page: Page,
    *,
    heading: str = "",
    cards: bool = True,
    terminal_rows: int = 10,
    total: int = 0,
    note: str = "",
    rest_in: tuple[str, ...] = IN_JSON,
) -> Iterator[Block]:
    """Cards of the first samples where there are pictures, and all in a table with their reasons.

    Args:
        frame: The findings to show.
        title: What they are.
        page: What the page knows.
        heading: Over the cards, and before the table.
        cards: Whether there are any.
        terminal_rows: How many rows of the table a terminal shows.
        total: How many findings there are, where these are the first of them.
        note: What the table's figures mean.
        rest_in: What has the rest of the table.
    """
    rows = frame.to_dicts()
    pictured = [row for row in rows if row.get("sample_id") is not None and _image(row, page)]
    if cards and pictured:
        more = f"the first {_CARDS} of {len(pictured):,}; the table has all" if len(pictured) > _CARDS else ""
        yield Gallery(heading, tuple(_card(row, page) for row in pictured[:_CARDS]), more)
    table = _table(rows, title, heading, page, total)
    notes = "; ".join(filter(None, (note, table.note)))
    yield replace(table, terminal_rows=terminal_rows, note=notes, rest_in=rest_in)


def pair_blocks(rows: Sequence[Mapping[str, Any]], page: Page, rest_in: tuple[str, ...] = IN_JSON) -> Iterator[Block]:
    """Which labels are probably mixed up with which, by all suspects, listed or not."""
    parts: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault((row["mode"], row["ds_id"]), []).append(row)
    for place, part in parts.items():
        where = words_of(*place)
        yield Table(
            page.names("suspected pairs", where),
            f"All suspects by label and suggested label, {where}",
            (Column("label"), Column("suggested"), Column("suspects", Cell.INTEGER)),
            tuple((row["name"], row["suggested_name"], row["n"]) for row in part[:_PAIRS]),
            rest_of(f"{_PAIRS} of {len(part):,}", rest_in) if len(part) > _PAIRS else "",
            terminal_rows=5,
            rest_in=rest_in,
        )


_ESTIMATE = (
    "by the early epochs; an estimate of the rate of wrong labels, better of all together than of one: too low for "
    "labels given to what looks like them, too high for those that the model confuses; "
    "the interval is of sampling alone"
)
_NO_ESTIMATE = (
    "by the early epochs; no estimate yet of how many labels are wrong: the network was not sure enough to contradict "
    "all of those; the interval is of sampling alone"
)


def noise_blocks(rows: Sequence[Mapping[str, Any]], page: Page) -> Iterator[Block]:
    """How many labels are probably wrong, or were contradicted at least, label by label."""
    parts: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault((row["mode"], row["ds_id"]), []).append(row)
    for place, part in parts.items():
        contradicted = sum(row["contradicted"] for row in part)
        if not contradicted and not part[0]["unsure"]:
            continue
        n, where = sum(row["n"] for row in part), words_of(*place)
        share = f"{contradicted:,} of {count(n, 'sample')} ({percent(contradicted / n)})"
        columns = (Column("label"), Column("samples", Cell.INTEGER), Column("contradicted", Cell.INTEGER))
        cells = [(row["name"], row["n"], row["contradicted"]) for row in part]
        if part[0]["rate"] is None:
            yield Table(
                page.names("label noise", where),
                f"Labels contradicted by the model, its own mistakes among them: {share}, {where}",
                columns,
                tuple(cells),
                note=f"by the early epochs; no rate of wrong labels: {part[0]['reason']}",
                terminal_rows=10,
            )
            continue
        intervals = (tuple(percent(row[key]) for key in ("rate", "low", "high")) for row in part)
        yield Table(
            page.names("label noise", where),
            f"Labels contradicted while the model learned: {share}, {where}",
            (*columns, Column("share (95 % interval)")),
            tuple((*own, f"{rate} ({low} to {high})") for own, (rate, low, high) in zip(cells, intervals, strict=True)),
            note=_NO_ESTIMATE if part[0]["unsure"] else _ESTIMATE,
            terminal_rows=10,
        )


def _table(rows: Sequence[Mapping[str, Any]], title: str, heading: str, page: Page, total: int) -> Table:
    # Of what all rows share the page's first line speaks.
    places = [(name, key) for name, key in _PLACES if len({row[key] for row in rows}) > 1]
    has = {key: any(row.get(key) is not None for row in rows) for key in ("sample_id", "suggested_label", "epoch")}
    has["label"] = any(row["label"] is not None for row in rows) or not has["sample_id"]
    columns = [Column(name) for name, _ in places]
    columns += [Column("sample")] if has["sample_id"] else []
    columns += [Column("label")] if has["label"] else []
    columns += [Column("suggested")] if has["suggested_label"] else []
    columns += [Column("score", Cell.NUMBER)]
    columns += [Column("epoch", Cell.INTEGER)] if has["epoch"] else []
    known_facts = FactColumns(rows, page.facts.path)
    is_rank = title.startswith(_TITLES["suspect"])
    columns += [*known_facts.columns, Column("reason")]
    shown = []
    for row in rows:
        cells: list[Any] = [row[key] for _, key in places]
        cells += [str(row["sample_id"])] if has["sample_id"] else []
        cells += [page.label_cell(row["label"])] if has["label"] else []
        cells += [page.prediction_cell(row.get("suggested_label"))] if has["suggested_label"] else []
        # A rank's further digits are those of what breaks ties.
        cells += [round(row["score"], 4) if is_rank else row["score"]]
        cells += [row.get("epoch")] if has["epoch"] else []
        shown.append((*cells, *known_facts.cells(row), row["reason"]))
    known = tuple(
        page.keys.known(row["mode"], row["ds_id"], row["sample_id"]) if has["sample_id"] else "" for row in rows
    )
    noun = _NOUNS.get(rows[0].get("finding", "") if rows else "", "sample" if has["sample_id"] else "label")
    first = f"the first {len(rows):,}" if len(rows) > 1 else "the first"
    said = count(len(rows), noun) if total <= len(rows) else f"{first} of {total:,} {noun}s"
    said = f"{said}, each with its reason"
    return Table(
        page.names("table", title),
        f"{heading}: {said}" if heading else said[0].upper() + said[1:],
        tuple(columns),
        tuple(shown),
        known_facts.note,
        keys=known,
    )


def _card(row: Mapping[str, Any], page: Page) -> Card:
    suggested = row.get("suggested_label")
    label = page.label_name(row["label"])
    return Card(
        key=page.keys(row["mode"], row["ds_id"], row["sample_id"]),
        title=sample_name(row["sample_id"]),
        verdict=f"{label} → {page.prediction_name(suggested)}?" if suggested is not None else "",
        lines=(row["reason"],) if suggested is not None or row["label"] is None else (label, row["reason"]),
        tone=Tone.MAX,
        image=_image(row, page),
        links=saliency_link(row["mode"], row["ds_id"], row["sample_id"]),
        deep_link=str(row["sample_id"]),
        place=place_of(row["mode"], row["ds_id"]),
        facts=on_card(row, page.facts.path),
    )


def _image(row: Mapping[str, Any], page: Page) -> Any:
    return page.images.get((row["mode"], row["ds_id"], row["sample_id"]))
