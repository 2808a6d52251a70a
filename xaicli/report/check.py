"""The report of a check: each rule with its verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from xaicli.answer import Answer
from xaicli.report.facts import FactColumns
from xaicli.report.model import IN_CSV, Cell, Column, Report, Section, Table
from xaicli.report.numbers import count, shorts
from xaicli.report.page import Page, label_names_of, made, run_line

_FIRST = ("failed", "not asked", "unsure", "allowed", "too few", "passed")


def check_report(answer: Answer, page: Page | None = None) -> Report:
    """The page of `xai check`.

    Args:
        answer: A row a verdict, with `failed` and `not_asked` beside.
        page: The run.
    """
    page = page or Page()
    rows = sorted(answer.data.iter_rows(named=True), key=lambda row: _FIRST.index(row["outcome"]))
    return Report(
        name="check",
        title="May this run replace the other?"
        if answer.selection.get("baseline")
        else "Does this run keep its rules?",
        run_line=run_line(answer, page.facts),
        label_names=label_names_of(page.facts),
        sentence=_sentence(answer),
        sections=(Section("Verdicts", "verdicts", (_table(rows), *_failing(answer, page))),),
        made=made(
            answer,
            ("drop", "mean over the samples that both runs have, with Student's 95 % interval of their differences"),
            ("unsure", "the drop is larger than allowed, yet its interval is not: --strict-drop fails it"),
        ),
        warnings=answer.warnings,
        tables={"check": lambda: answer.data},
    )


def _sentence(answer: Answer) -> str:
    outcomes = answer.data["outcome"].to_list()
    said = [f"{count(outcomes.count(word), 'verdict')} {word}" for word in _FIRST if word in outcomes]
    if answer.extra["failed"]:
        start = "No: "
    elif answer.extra["not_asked"]:
        start = "Not known: "
    else:
        start = "Yes: "
    return start + ", ".join(said) + "."


def _table(rows: list[dict[str, Any]]) -> Table:
    # Neither the name that a file gives a rule says what it asks, nor a rule what was allowed instead.
    has_bounds = any(
        row["outcome"] == "allowed"
        or (row["bound"] and row["bound"] not in row["rule"] and "wrong" not in row["bound"])
        for row in rows
    )
    table = tuple(
        (
            row["outcome"],
            row["rule"] + (f": {row['group']}" if row["group"] else ""),
            *((row["bound"],) if has_bounds else ()),
            row["value"],
            row["n"] or None,  # a rule on a count looks at no samples
            _place(row),
            _why(row),
        )
        for row in rows
    )
    columns = (
        Column("outcome"),
        Column("rule", whole=True),
        *((Column("asked", whole=True),) if has_bounds else ()),
        Column("value", Cell.NUMBER),
        Column("samples", Cell.INTEGER),
    )
    columns = (*columns, Column("of"), Column("why", whole=True))
    if not any(row[-1] for row in table):
        columns, table = columns[:-1], tuple(row[:-1] for row in table)
    return Table("verdicts", "Each rule and group", columns, table, terminal_rows=60, rest_in=IN_CSV)


def _failing(answer: Answer, page: Page) -> Iterator[Table]:
    """The samples that break a rule, with what they are; nothing where no facts tell."""
    found = answer.extra.get("samples")
    rows = [] if found is None else found.to_dicts()
    facts = FactColumns(rows, page.facts.path)
    if facts.names:
        heads = (Column("sample"), *facts.columns, Column("rule"))
        cells = tuple((str(row["sample_id"]), *facts.cells(row), row["rule"]) for row in rows)
        yield Table("failing", "Samples that break a rule", heads, cells, facts.note, terminal_rows=10)


def _place(row: Mapping[str, Any]) -> str:
    parts = [part for part in (row["mode"], row["ds_id"]) if part]
    place = " ".join([*parts, *([f"epoch {row['epoch']}"] if row["epoch"] is not None else [])])
    other = row["baseline_epoch"]
    return place if other in (None, row["epoch"]) else f"{place}, baseline epoch {other}"


def _why(row: Mapping[str, Any]) -> str:
    interval = "" if row["low"] is None else "95 %: " + " to ".join(shorts((row["low"], row["high"]), 3))
    return "; ".join(part for part in (interval, row["reason"]) if part)
