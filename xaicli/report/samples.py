"""The report of the highest, lowest and listed samples with their histories."""

from __future__ import annotations

import polars as pl

from xaicli.answer import Answer
from xaicli.report.charts import Tone
from xaicli.report.facts import as_list, run_line
from xaicli.report.histories import blocks, long_rows, sentence, subjects
from xaicli.report.made import made
from xaicli.report.model import Block, Report, Section, Text
from xaicli.report.page import Page


def samples_report(answer: Answer, page: Page | None = None, *, population: pl.DataFrame | None = None) -> Report:
    """The page of `xai samples`.

    Args:
        answer: Rows `{mode, ds_id, sample_id, label, group, rank, score, stale, history}`, and `metric` with several.
        page: The run, with thumbnails and predictions of the samples.
        population: Quantiles per (mode, ds_id, metric, epoch): step, n, q05, q25, q50, q75, q95.
    """
    page = page or Page()
    metrics = [str(metric) for metric in as_list(answer.selection.get("metric"))]
    parts = list(subjects(answer.data, metrics, population, answer.selection.get("axis")))
    nothing: tuple[Block, ...] = (Text("No samples: the selection leaves nothing.", Tone.FAINT),)
    sections = [Section(p.words, page.names("part", p.words), tuple(blocks(p, page))) for p in parts]
    return Report(
        name="samples",
        title="Sample histories: " + (", ".join(metrics) or "nothing recorded"),
        run_line=run_line(answer, page.facts),
        sentence=sentence(parts[0], page) if parts else "No samples.",
        sections=tuple(sections) or (Section("Samples", "samples", nothing),),
        made=made(answer, ("score", score_rule(answer)), ("ties", "the smaller sample_id first")),
        warnings=answer.warnings,
        tables={"samples": lambda: long_rows(answer.data, metrics)},
    )


def score_rule(answer: Answer) -> str:
    """What ranks the samples, in words."""
    stat = str(answer.selection.get("stat") or "last")
    return "the value in the sample's last recorded epoch" if stat == "last" else f"{stat} over the recorded epochs"
