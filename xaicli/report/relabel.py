"""The reports of labels and people: what was given to look at, and what came back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xaicli.answer import Answer
from xaicli.relabel.corrections import NOT_LOOKED_AT, SKIPPED, UNTOUCHED
from xaicli.report.charts import Tone
from xaicli.report.facts import FactColumns, on_card
from xaicli.report.model import (
    IN_CSV,
    IN_PAGE,
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
from xaicli.report.numbers import count, cut, sample_name
from xaicli.report.page import BY_IDS, Page, label_names_of, made, place_of, run_line
from xaicli.report.samples import saliency_link
from xaicli.words import percent

_CARDS = 24
_ROWS = 500


def export_report(answer: Answer, page: Page | None = None) -> Report:
    """The page of `xai relabel export`.

    Args:
        answer: The samples that were given to look at, with what each might be instead.
        page: The run, with thumbnails of the samples.
    """
    page = page or Page()
    if "pictures" in answer.extra:
        return _objects_report(answer, page)
    rows = list(answer.data.head(_ROWS).iter_rows(named=True))
    in_file = answer.extra.get("in_file", answer.data.height)
    some = f"{in_file:,} of " if in_file < answer.data.height else ""
    sentence = f"{some}{count(answer.data.height, 'sample')} to look at, for {answer.selection['to']}."
    blocks: list[Block] = []
    if not rows:
        blocks.append(Text("There is nothing to look at in this selection.", Tone.FAINT))
    pictured = [row for row in rows if _image(row, page)]
    if pictured:
        note = f"the first {_CARDS} of {answer.data.height:,}" if answer.data.height > _CARDS else ""
        blocks.append(Gallery("", tuple(_asked(row, page) for row in pictured[:_CARDS]), note))
    if rows:
        blocks.append(_to_look_at(rows, answer.data.height, page))
    return Report(
        name="relabel-export",
        title="Labels to look at",
        run_line=run_line(answer, page.facts),
        label_names=label_names_of(page.facts),
        run_id=page.facts.run_id,
        sentence=sentence,
        sections=(Section("To look at", "tasks", tuple(blocks)),),
        made=made(
            answer,
            ("suggested", _SUGGESTED.get(str(answer.selection["rule"]), _LAST_ANSWER)),
            ("read back", "xai relabel apply RUN_DIR FILE"),
        ),
        warnings=answer.warnings,
        tables={"relabel-export": lambda: answer.data},
        absent=BY_IDS,
    )


_LAST_ANSWER = "the model's last answer, where it is not the label"
_SUGGESTED = {
    "suspects": f"the answer most often given that is not the label (of numbers, the mean); without one {_LAST_ANSWER}",
    "label_issues": "the most probable class of the kept probabilities",
}
"""What a label is suggested by: each rule that doubts labels has its own."""


def _objects_report(answer: Answer, page: Page) -> Report:
    """The same of objects in pictures."""
    rows = answer.data.head(_ROWS)
    pictures = count(answer.extra["pictures"], "picture")
    sentence = f"{count(answer.data.height, 'object')} in {pictures} to look at, for {answer.selection['to']}."
    blocks: list[Block] = []
    if rows.height:
        columns = ("sample", "doubt", "class", "suggested", "corners", "reason")
        table = tuple(
            (
                str(row["sample_id"]),
                row["doubt"].replace("_", " "),
                cut(row["name"]),
                cut(row["suggested"] or "–"),
                " ".join(f"{row[name]:.0f}" for name in ("x0", "y0", "x1", "y1")),
                row["reason"],
            )
            for row in rows.iter_rows(named=True)
        )
        left = answer.data.height - rows.height
        more = rest_of(f"{left:,} more", IN_CSV) if left else ""
        blocks.append(_filed("tasks", "Objects, the most doubted first", columns, table, more))
    else:
        blocks.append(Text("No object is in doubt in this selection.", Tone.FAINT))
    return Report(
        name="relabel-export",
        title="Objects to look at",
        run_line=run_line(answer, page.facts),
        label_names=label_names_of(page.facts),
        run_id=page.facts.run_id,
        sentence=sentence,
        sections=(Section("To look at", "tasks", tuple(blocks)),),
        made=made(answer, ("pictures of the boxes", f"xai errors RUN_DIR --table {answer.selection['table']}")),
        warnings=answer.warnings,
        tables={"relabel-export": lambda: answer.data},
        absent=BY_IDS,
    )


def _image(row: Mapping[str, Any], page: Page) -> Any:
    return page.images.get((row["mode"], row["ds_id"], row["sample_id"]))


def _filed(name: str, title: str, columns: Sequence[str], rows: tuple[tuple[Any, ...], ...], note: str) -> Table:
    """A table of texts whose rows are those of the CSV."""
    return Table(name, title, tuple(map(Column, columns)), rows, note, rest_in=IN_CSV)


def _asked(row: Mapping[str, Any], page: Page) -> Card:
    label = page.label_name(row["label"])
    return Card(
        key=page.keys(row["mode"], row["ds_id"], row["sample_id"]),
        title=sample_name(row["sample_id"]),
        verdict=f"{label} → {row['suggested']}?" if row["suggested"] else label,
        lines=(row["reason"],) if row["reason"] else (),
        tone=Tone.MAX,
        image=_image(row, page),
        links=saliency_link(row["mode"], row["ds_id"], row["sample_id"]),
        deep_link=str(row["sample_id"]),
        place=place_of(row["mode"], row["ds_id"]),
        facts=on_card(row, page.facts.path),
    )


def _to_look_at(rows: Sequence[Mapping[str, Any]], total: int, page: Page) -> Table:
    has = {key: any(row[key] for row in rows) for key in ("reason", "path")}
    columns = [Column("sample"), Column("label"), Column("suggested")]
    columns += [Column("path")] if has["path"] else []
    facts = FactColumns(rows, page.facts.path)
    columns += [*facts.columns, *([Column("reason")] if has["reason"] else [])]
    table = []
    for row in rows:
        cells: list[Any] = [str(row["sample_id"]), page.label_cell(row["label"]), row["suggested"] or "–"]
        cells += [row["path"] or "–"] if has["path"] else []
        cells += [*facts.cells(row), *([row["reason"] or ""] if has["reason"] else [])]
        table.append(tuple(cells))
    left = rest_of(f"{total - len(rows):,} more", IN_CSV) if total > len(rows) else ""
    more = "; ".join(filter(None, (left, facts.note)))
    keys = tuple(page.keys.known(row["mode"], row["ds_id"], row["sample_id"]) for row in rows)
    return Table(
        "tasks", "Samples, the first to look at first", tuple(columns), tuple(table), more, keys=keys, rest_in=IN_CSV
    )


def apply_report(answer: Answer, page: Page | None = None) -> Report:
    """The page of `xai relabel apply`.

    Args:
        answer: A row a sample that was looked at, with `files`, `left_out`, `suspects` and `others` beside.
        page: The run, with thumbnails of the samples.
    """
    page = page or Page()
    if "pictures" in answer.extra:
        return _objects_applied(answer, page)
    return Report(
        name="relabel-apply",
        title="What people said of the labels",
        run_line=run_line(answer, page.facts),
        label_names=label_names_of(page.facts),
        run_id=page.facts.run_id,
        sentence=_sentence(answer),
        sections=(
            Section("Labels", "labels", tuple(_labels(answer, page))),
            Section("Were the suspects right?", "suspects", tuple(_suspects(answer))),
            Section("Not taken", "left-out", tuple(_left_out(answer))),
        ),
        made=made(
            answer,
            ("one label a sample", "of one person the last; of several that of more than half, else none"),
            ("files", "; ".join(f"{one['file']} ({one['format']}, {one['marks']:,})" for one in answer.extra["files"])),
            ("read back", "Table(..., relabel=FILE), xai dynamics --truth FILE"),
        ),
        warnings=answer.warnings,
        tables={"relabel-apply": lambda: answer.data},
    )


def _objects_applied(answer: Answer, page: Page) -> Report:
    """The same of objects in pictures."""
    changes: Mapping[str, int] = answer.extra["changes"]
    changed = answer.data.filter(answer.data["change"] != "confirmed")
    said = ", ".join(f"{n:,} {word}" for word, n in changes.items()) or "none"
    left = _n_left_out(answer)
    ending = f"; {count(left, 'mark')} {'was' if left == 1 else 'were'} not taken." if left else "."
    blocks: list[Block] = []
    if changed.height:
        columns = ("sample", "change", "recorded", "class", "corners", "by")
        table = tuple(
            (
                str(row["sample_id"]),
                row["change"],
                cut(row["recorded_name"] or "–"),
                cut(row["name"] or "–"),
                " ".join(f"{row[name]:.0f}" for name in ("x0", "y0", "x1", "y1")),
                row["by"] or "–",
            )
            for row in changed.head(_ROWS).iter_rows(named=True)
        )
        more = rest_of(f"{changed.height - _ROWS:,} more", IN_CSV) if changed.height > _ROWS else ""
        blocks.append(_filed("corrections", "What was changed", columns, table, more))
    else:
        blocks.append(Text("No object was changed.", Tone.FAINT))
    judged: list[Block] = [
        Text("No doubt was looked at." if answer.extra["pictures"] else _no_judgement(answer), Tone.FAINT)
    ]
    if rows := answer.extra["suspects"]:
        heads = [
            Column("doubt"),
            Column("looked at", Cell.INTEGER),
            Column("wrong", Cell.INTEGER),
            Column("share", Cell.NUMBER),
        ]
        heads += [Column("95 % interval"), Column("suggestion right", Cell.INTEGER)]
        shown = tuple(
            (
                " ".join(filter(None, (row["doubt"].replace("_", " "), row["mode"]))),
                row["looked_at"],
                row["wrong"],
                percent(row["share"]),
                f"{percent(row['low'])} to {percent(row['high'])}",
                row["suggestion_right"],
            )
            for row in rows
        )
        note = "wrong: a recorded object was given another class or removed; one that the model alone found was added"
        judged = [Table("judged", "How many of the doubted objects were wrong", tuple(heads), shown, note)]
    return Report(
        name="relabel-apply",
        title="What people said of the objects",
        run_line=run_line(answer, page.facts),
        label_names=label_names_of(page.facts),
        run_id=page.facts.run_id,
        sentence=f"{count(answer.extra['pictures'], 'picture')} looked at; of their objects {said}{ending}",
        sections=(
            Section("Objects", "labels", tuple(blocks)),
            Section("Were the doubts right?", "suspects", tuple(judged)),
            Section("Not taken", "left-out", tuple(_left_out(answer))),
        ),
        made=made(
            answer,
            ("unmoved", "a corner less than 0.006 pixels away from where it was has its recorded place"),
            ("files", "; ".join(f"{one['file']} ({one['format']}, {one['marks']:,})" for one in answer.extra["files"])),
        ),
        warnings=answer.warnings,
        tables={"relabel-apply": lambda: answer.data},
    )


def _n_left_out(answer: Answer) -> int:
    """How many marks were not taken, whatever the reason: as many as the warnings and the table count."""
    return sum(row["n"] for row in answer.extra["left_out"])


def _sentence(answer: Answer) -> str:
    data = answer.data
    changed = int(data["changed"].sum())
    said = (
        f"{count(data.height, 'sample')} looked at: {changed:,} labels corrected, {data.height - changed:,} confirmed"
    )
    for row in answer.extra["suspects"]:
        if row["first"] is None:
            where = " ".join(part for part in (row["mode"], row["ds_id"]) if part)
            said += (
                f"; of {row['looked_at']:,} suspects of {where} {row['wrong']:,} were wrong ({percent(row['share'])})"
            )
    left = _n_left_out(answer)
    return said + (f"; {count(left, 'mark')} {'was' if left == 1 else 'were'} not taken." if left else ".")


def _labels(answer: Answer, page: Page) -> Iterator[Block]:
    data = answer.data
    changed = data.filter("changed")
    yield Figures(
        (
            Figure(f"{changed.height:,}", "corrected", Tone.BAD if changed.height else Tone.PLAIN),
            Figure(f"{data.height - changed.height:,}", "confirmed", Tone.GOOD),
            Figure(f"{_n_left_out(answer):,}", "marks not taken"),
        )
    )
    rows = list(changed.head(_ROWS).iter_rows(named=True))
    pictured = [row for row in rows if _image(row, page)]
    if pictured:
        note = f"the first {_CARDS} of {changed.height:,}" if changed.height > _CARDS else ""
        yield Gallery("Corrected", tuple(_corrected(row, page) for row in pictured[:_CARDS]), note)
    if not rows:
        yield Text("No label was corrected.", Tone.FAINT)
        return
    pairs = (
        changed.group_by("recorded_name", "name")
        .len()
        .sort("len", "recorded_name", "name", descending=[True, False, False])
    )
    yield Table(
        "pairs",
        "What became of what",
        (Column("recorded"), Column("corrected"), Column("samples", Cell.INTEGER)),
        tuple((old or "–", new or "–", n) for old, new, n in pairs.iter_rows()),
        terminal_rows=10,
        rest_in=IN_PAGE,
    )
    columns = ("sample", "recorded", "corrected", "by", "when", "votes")
    facts = FactColumns(rows, page.facts.path)
    more = rest_of(f"{changed.height - len(rows):,} more", IN_CSV) if changed.height > len(rows) else ""
    yield Table(
        "corrections",
        "Corrected labels",
        (*map(Column, columns), Column("suspect", Cell.INTEGER), *facts.columns),
        tuple(
            (
                str(row["sample_id"]),
                row["recorded_name"] or "–",
                row["name"] or "–",
                row["by"] or "–",
                cut(row["when"] or "–", 19),
                row["votes"],
                row["suspect_rank"],
                *facts.cells(row),
            )
            for row in rows
        ),
        "; ".join(filter(None, (more, facts.note))),
        keys=tuple(page.keys.known(row["mode"], row["ds_id"], row["sample_id"]) for row in rows),
        terminal_rows=10,
        rest_in=IN_CSV,
    )


def _corrected(row: Mapping[str, Any], page: Page) -> Card:
    rank = row["suspect_rank"]
    return Card(
        key=page.keys(row["mode"], row["ds_id"], row["sample_id"]),
        title=sample_name(row["sample_id"]),
        verdict=f"{row['recorded_name'] or '–'} → {row['name'] or '–'}",
        lines=(
            f"suspect {rank:,}" if rank is not None else "no suspect",
            *((f"by {cut(row['by'])}",) if row["by"] else ()),
        ),
        tone=Tone.MAX,
        image=_image(row, page),
        links=saliency_link(row["mode"], row["ds_id"], row["sample_id"]),
        deep_link=str(row["sample_id"]),
        place=place_of(row["mode"], row["ds_id"]),
        facts=on_card(row, page.facts.path),
    )


def _suspects(answer: Answer) -> Iterator[Block]:
    rows = [*answer.extra["suspects"], *({**row, "first": "others"} for row in answer.extra["others"])]
    if not rows:
        yield Text(_no_judgement(answer), Tone.FAINT)
        return
    several = len({(row["mode"], row["ds_id"]) for row in rows}) > 1
    table = []
    for row in rows:
        what = "all suspects" if row["first"] is None else row["first"]
        what = "no suspects" if what == "others" else what if isinstance(what, str) else f"the first {what:,}"
        where = f" of {' '.join(part for part in (row['mode'], row['ds_id']) if part)}" if several else ""
        interval = f"{percent(row['low'])} to {percent(row['high'])}"
        table.append(
            (what + where, row["looked_at"], row["wrong"], percent(row["share"]), interval, row["suggestion_right"])
        )
    columns = (
        Column("of"),
        Column("looked at", Cell.INTEGER),
        Column("wrong", Cell.INTEGER),
        Column("share", Cell.NUMBER),
    )
    more = (Column("95 % interval"), Column("suggestion right", Cell.INTEGER))
    note = "wrong: the label people gave is another than the recorded one; only those that were looked at count"
    yield Table("judged", "How many of those looked at were wrong", (*columns, *more), tuple(table), note)


def _no_judgement(answer: Answer) -> str:
    """Why nothing can be said of the suspects where no label came of the marks."""
    rows = [row for row in answer.extra["left_out"] if row["reason"] not in (SKIPPED, UNTOUCHED, NOT_LOOKED_AT)]
    if not rows:
        return "Nobody looked at anything yet."
    why = "; ".join(f"{row['n']:,}: {row['reason']}" for row in rows)
    return f"Not known: no label came of what people said ({why})."


def _left_out(answer: Answer) -> Iterator[Block]:
    rows = answer.extra["left_out"]
    if not rows:
        has_marks = any(one["marks"] for one in answer.extra["files"])
        yield Text(*(("Every mark was taken.", Tone.GOOD) if has_marks else ("There was no mark to take.", Tone.FAINT)))
        return
    table = tuple((row["reason"], row["n"], ", ".join(row["examples"])) for row in rows)
    yield Table(
        "left-out",
        "What was not taken, and why",
        (Column("why", whole=True), Column("marks", Cell.INTEGER), Column("such as")),
        table,
    )
