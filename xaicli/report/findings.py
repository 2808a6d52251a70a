"""What to look at first: suspects, label issues, sudden rank changes, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.report.charts import Tone
from xaicli.report.datamap import truth_table
from xaicli.report.facts import RunFacts, run_line
from xaicli.report.histories import SampleFacts, saliency_link
from xaicli.report.made import made
from xaicli.report.model import Block, Card, Cell, Column, Gallery, Report, Section, Table, Text
from xaicli.report.names import Keys, Names
from xaicli.report.numbers import count

_CARDS = 12
_TITLES = {
    "suspect": "Probably mislabelled",
    "ambiguous": "Ambiguous",
    "forgotten": "Forgotten",
    "rank_jump": "Sudden rank changes",
    "departing_label": "Labels that depart from the others",
}


def findings_report(answer: Answer, facts: RunFacts | None = None, *, samples: SampleFacts | None = None) -> Report:
    """The page of `xai findings`.

    Args:
        answer: Rows finding, mode, ds_id, sample_id, label, score, epoch, reason, suggested_label.
        facts: The run.
        samples: Thumbnails.
    """
    names, keys, samples = Names(), Keys(), samples or SampleFacts()
    sections = []
    counted = []
    for (kind,), frame in answer.data.group_by("finding", maintain_order=True):
        title = _TITLES.get(str(kind), str(kind).replace("_", " "))
        blocks = tuple(finding_blocks(frame, title, names, keys, facts, samples))
        sections.append(Section(title, names("part", kind), blocks))
        counted.append(f"{title.lower()} {frame.height:,}")
    if "truth" in answer.extra:
        sections.append(Section("Against the truth", "truth", (truth_table(answer.extra["truth"]),)))
    nothing = Section("Findings", "findings", (Text("Nothing stands out in this selection.", Tone.FAINT),))
    return Report(
        name="findings",
        title="What to look at first",
        run_line=run_line(answer, facts),
        sentence=f"{', '.join(counted).capitalize()}." if counted else "Nothing stands out in this selection.",
        sections=tuple(sections) or (nothing,),
        made=made(answer),
        warnings=answer.warnings,
        tables={"findings": lambda: answer.data},
    )


def finding_blocks(
    frame: pl.DataFrame,
    title: str,
    names: Names,
    keys: Keys,
    facts: RunFacts | None,
    samples: SampleFacts,
    *,
    heading: str = "",
    cards: bool = True,
    terminal_rows: int = 10,
) -> Iterator[Block]:
    """Cards of the first samples where there are pictures, and all in a table with their reasons."""
    facts = facts or RunFacts("")
    rows = frame.to_dicts()
    pictured = [row for row in rows if row.get("sample_id") is not None and _image(row, samples)]
    if cards and pictured:
        note = f"the first {_CARDS} of {len(pictured):,}; the table has all" if len(pictured) > _CARDS else ""
        yield Gallery(heading, tuple(_card(row, keys, facts, samples) for row in pictured[:_CARDS]), note)
    yield replace(_table(rows, title, names, keys, facts), terminal_rows=terminal_rows)


def _table(rows: Sequence[Mapping[str, Any]], title: str, names: Names, keys: Keys, facts: RunFacts) -> Table:
    several = len({(row["mode"], row["ds_id"]) for row in rows}) > 1
    has = {key: any(row.get(key) is not None for row in rows) for key in ("sample_id", "suggested_label", "epoch")}
    columns = [Column("mode")] if several else []
    columns += [Column("sample")] if has["sample_id"] else []
    columns += [Column("label")]
    columns += [Column("suggested")] if has["suggested_label"] else []
    columns += [Column("score", Cell.NUMBER)]
    columns += [Column("epoch", Cell.INTEGER)] if has["epoch"] else []
    columns += [Column("reason")]
    shown = []
    for row in rows:
        cells: list[Any] = [" ".join(part for part in (row["mode"], row["ds_id"]) if part)] if several else []
        cells += [str(row["sample_id"])] if has["sample_id"] else []
        cells += [facts.label_name(row["label"])]
        cells += [facts.label_name(row.get("suggested_label"))] if has["suggested_label"] else []
        cells += [row["score"]]
        cells += [row.get("epoch")] if has["epoch"] else []
        shown.append((*cells, row["reason"]))
    known = tuple(keys.known(row["mode"], row["ds_id"], row["sample_id"]) if has["sample_id"] else "" for row in rows)
    return Table(
        names("table", title),
        f"{title}: {count(len(rows), 'sample')} with reasons" if has["sample_id"] else title,
        tuple(columns),
        tuple(shown),
        keys=known,
    )


def _card(row: Mapping[str, Any], keys: Keys, facts: RunFacts, samples: SampleFacts) -> Card:
    suggested = row.get("suggested_label")
    label = facts.label_name(row["label"])
    return Card(
        key=keys(row["mode"], row["ds_id"], row["sample_id"]),
        title=f"#{row['sample_id']}",
        verdict=f"{label} → {facts.label_name(suggested)}?" if suggested is not None else "",
        lines=(row["reason"],) if suggested is not None else (label, row["reason"]),
        tone=Tone.MAX,
        image=_image(row, samples),
        links=saliency_link(row["sample_id"]),
        deep_link=str(row["sample_id"]),
    )


def _image(row: Mapping[str, Any], samples: SampleFacts) -> Any:
    return samples.image(row["mode"], row["ds_id"], row["sample_id"])
