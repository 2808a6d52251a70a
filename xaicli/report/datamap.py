"""The report of training dynamics: the data map, what its regions hold, every statistic as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.report.charts import ScatterChart, Tone
from xaicli.report.facts import FACTS, FactColumns, points_named
from xaicli.report.model import IN_CSV, Block, Cell, Column, Figure, Figures, Report, Section, Table, Text, rest_of
from xaicli.report.numbers import count, in_words, sample_name, short
from xaicli.report.page import Page, Part, as_list, report_of, words_of

REGIONS = ("easy", "ambiguous", "hard", "in between")
_MEANT = {
    "easy": "easy: the third surest of its label, less the ambiguous",
    "ambiguous": "ambiguous: the third that varied most",
    "hard": "hard: the third least sure of its label, less the ambiguous",
    "in between": "in between",
}
"""The regions are thirds by definition: how many lie in one is no news."""
LEGEND = (
    "Each dot is a sample: how sure the model was of its label over the epochs, and how much that varied. "
    "Hard samples low, ambiguous right, easy at the top left."
)
_NAMED = 600
_TABLE_ROWS = 1000
_FIRST = ("sample_id", "label", "region", "confidence", "variability", "correctness", "forgetting", "aum", "el2n")
_HIDDEN = ("mode", "ds_id", "name")
"""What the heading says, and the name, which the label's own column shows."""
_NEW_NAMES = {"rank_jump_epoch": "jump epoch", "rank_jump_direction": "direction"}


def dynamics_report(answer: Answer, page: Page | None = None) -> Report:
    """The page of `xai dynamics`.

    Args:
        answer: One row a sample: mode, ds_id, sample_id, label, and the statistics that the run allows.
        page: The run.
    """
    page = page or Page()
    parts = [
        Part(
            words,
            (*map_blocks(words, frame, page), _table(words, frame, page)),
            map_sentence(words, frame),
            f"Data map of {words}",
        )
        for words, frame in by_pair(answer.data)
    ]
    report = report_of(
        answer,
        page,
        parts,
        name="dynamics",
        title="Training dynamics",
        nothing="No samples: the selection leaves nothing.",
        rules=definitions(answer),
        tables={"dynamics": lambda: answer.data},
    )
    if "truth" not in answer.extra:
        return report
    truth = Section("Against the truth", "truth", (truth_table(answer.extra["truth"]),))
    return replace(report, sections=(truth, *report.sections))


def by_pair(data: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each (mode, ds_id) in words, with its rows."""
    for (mode, ds_id), frame in data.group_by("mode", "ds_id", maintain_order=True):
        yield words_of(mode, ds_id), frame


def map_sentence(words: str, frame: pl.DataFrame) -> str:
    """How many samples lie where."""
    said = f"{words}: {count(frame.height, 'sample')}"
    if "never_learned" in frame.columns:
        said += f", {int(frame['never_learned'].fill_null(False).sum()):,} never learned"
    if "forgetting" in frame.columns:
        said += f", {int((frame['forgetting'].fill_null(0) > 0).sum()):,} forgotten at least once"
    return said + "."


def map_blocks(words: str, frame: pl.DataFrame, page: Page) -> Iterator[Block]:
    """The data map, and how many samples each region holds; a sentence where the run allows no map."""
    if not {"confidence", "variability"} <= set(frame.columns):
        label = frame.schema.get("label", pl.Null())
        needs = "it needs label_prob, which log_samples derives from the label and logits or probs"
        if label.is_float() or page.facts.task == "regression":
            needs = "it shows how sure a model is of a label, and labels that are numbers have no probability"
        elif label.is_nested() or page.facts.task == "multilabel":
            needs = "it shows how sure a model is of a label, and sets have no probability, only each class of them"
        yield Text(f"No data map: {needs}.", Tone.FAINT)
        return
    drawn = frame.filter(pl.col("confidence").is_finite() & pl.col("variability").is_finite())
    if drawn.is_empty():
        yield Text("No data map: no sample has a finite label_prob.", Tone.FAINT)
        return
    region = drawn["region"] if "region" in drawn.columns else pl.Series([None] * drawn.height, dtype=pl.String)
    groups = region.cast(pl.String).fill_null(REGIONS[-1])
    yield Figures(
        tuple(
            Figure(f"{int((groups == name).sum()):,}", _MEANT[name])
            for name in REGIONS
            if (groups == name).any() or name != REGIONS[-1]
        )
    )
    ids = drawn["sample_id"].to_list()
    keys = tuple(page.keys.known(m, d, i) for m, d, i in zip(drawn["mode"], drawn["ds_id"], ids, strict=True))
    yield ScatterChart(
        name=page.names("data-map", words),
        title=f"Data map of {words}",
        x_label="variability",
        y_label="confidence",
        x=tuple(drawn["variability"]),
        y=tuple(drawn["confidence"]),
        colour=tuple(groups),
        colours=REGIONS,
        neither=REGIONS[-1],
        keys=keys,
        names=_point_names(drawn, ids, keys, page),
        legend=LEGEND + (" Ringed: samples named elsewhere on this page." if any(keys) else ""),
        alt=f"Data map of {count(drawn.height, 'sample')}: confidence against variability. "
        + ", ".join(f"{int((groups == name).sum()):,} {name}" for name in REGIONS),
    )


def _point_names(frame: pl.DataFrame, ids: Sequence[Any], keys: Sequence[str], page: Page) -> tuple[str, ...]:
    few = frame.height <= _NAMED
    labels = frame["label"].to_list() if "label" in frame.columns else [None] * frame.height
    return points_named(
        frame,
        (
            f"{sample_name(sample_id)} {page.label_name(label)}" if few or key else ""
            for sample_id, label, key in zip(ids, labels, keys, strict=True)
        ),
    )


def _table(words: str, frame: pl.DataFrame, page: Page) -> Table:
    order = [name for name in _FIRST if name in frame.columns]
    order += [name for name in frame.columns if name not in (*_FIRST, *_HIDDEN, FACTS)]
    by = next((name for name in ("loss_mean", "aum", "confidence") if name in frame.columns), None)
    shown = frame.sort(by, descending=by == "loss_mean", nulls_last=True) if by else frame
    shown = shown.head(_TABLE_ROWS)
    dicts = shown.to_dicts()
    facts = FactColumns(dicts, page.facts.path)
    told = shown.select(order).schema
    columns = tuple(Column(_NEW_NAMES.get(n, n.replace("_", " ")), _cell(n, t)) for n, t in told.items())
    rows = tuple((*(_shown(n, row[n], page) for n in order), *facts.cells(row)) for row in dicts)
    left_out = frame.height - shown.height
    more = rest_of(f"and {left_out:,} more samples", IN_CSV) if left_out else ""
    return Table(
        page.names("dynamics", words),
        f"Every statistic, {words}",
        (*columns, *facts.columns),
        rows,
        "; ".join(filter(None, (more, facts.note))),
        terminal_rows=10,
        rest_in=IN_CSV,
    )


def _shown(name: str, value: Any, page: Page) -> Any:
    if name == "label":
        return page.label_cell(value)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else in_words(value)


def _cell(name: str, dtype: pl.DataType) -> Cell:
    if name in ("sample_id", "label"):
        return Cell.TEXT
    return Cell.INTEGER if dtype.is_integer() else Cell.NUMBER if dtype.is_numeric() else Cell.TEXT


def truth_table(truth: Any) -> Table:
    """How well each ranking finds the labels that are truly wrong."""
    rows = tuple(
        (ranking, scores.get("auroc"), scores.get("ap"), scores.get("p_at_100")) for ranking, scores in truth.items()
    )
    return Table(
        "truth",
        "How well each ranking finds the truly mislabelled",
        (Column("ranking"), *(Column(title, Cell.NUMBER) for title in ("AUROC", "average precision", "P@100"))),
        rows,
    )


def definitions(answer: Answer) -> tuple[tuple[str, str], ...]:
    """What the statistics mean, as far as the answer has them."""
    early = as_list(answer.selection.get("early_epochs"))
    said = {
        "confidence": "mean probability of the label over its history",
        "variability": "standard deviation of it, divisor n",
        "correctness": "number of epochs predicted right",
        "forgetting": "number of changes from right to wrong between consecutive observations",
        "aum": "mean margin: label logit minus the largest other",
        "el2n": f"mean length of the error vector over the first {short(early[0]) if early else 10} observations",
        "rank_jump": "largest change of normalised rank against the median change, in robust standard deviations",
        "region": "ambiguous: top third of variability; else hard: bottom third of confidence, easy: top third",
    }
    return tuple((name.replace("_", " "), text) for name, text in said.items() if name in answer.data.columns)
