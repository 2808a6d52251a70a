"""How sure the model is against how often it is right, as pictures, tables and words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from xaicli.diagnosis.calibration import ENOUGH, FEWEST
from xaicli.report.charts import LineChart, Series, Tone
from xaicli.report.model import Block, Cell, Column, Table
from xaicli.report.numbers import count, short
from xaicli.report.page import Page
from xaicli.words import percent as in_words

SURE = 0.02
"""An over-confidence that is worth a word."""


def calibration_blocks(found: Mapping[str, Any], words: str, page: Page) -> Iterator[Block]:
    """The reliability diagram of a place, each predicted label's trust, and the bins.

    Args:
        found: A row of `calibration` as `confusion` answers it.
        words: What place it is.
        page: The run.
    """
    yield from _reliability(found, words, page)
    yield from _by_prediction(found, words, page)
    yield _bins(found, words, page)


def confidence(found: Mapping[str, Any]) -> str:
    """How sure the model is against how often it is right, in a sentence without its full stop."""
    gap = found["over_confidence"]
    if None in found["over_interval"]:
        so_few = "So few samples do not tell whether it is surer than it is right"
        return f"{so_few} (calibration error {percent(found['ece'])})"
    if abs(gap) < SURE:
        return f"It is about as sure as it is right (calibration error {percent(found['ece'])})"
    way = "surer than it is right" if gap > 0 else "less sure than it is right"
    error = f"calibration error {percent(found['ece'])}"
    # The gap is said as a size, so its interval is that of the size: turned round where the model is less sure.
    low, high = sorted(100 * (end if gap > 0 else -end) for end in found["over_interval"])
    chance = f"which may be chance: 95 % interval {low:.1f} to {high:.1f}; " if low <= 0 <= high else ""
    return f"It is {way} by {100 * abs(gap):.1f} points ({chance}{error})"


def percent(share: float) -> str:
    """A share as pages write it."""
    return in_words(share, 1)


def _reliability(found: Mapping[str, Any], words: str, page: Page) -> Iterator[Block]:
    """The reliability diagram, and how many samples are behind its points."""
    bins = found["bins"]
    x = tuple(item["top_prob"] for item in bins)
    n = tuple(item["n"] for item in bins)
    least, most = min(n), max(n)
    each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    yield LineChart(
        name=page.names("reliability", words),
        title=f"How sure, and how often right, {words}",
        x_label="mean probability of the prediction",
        y_label="share right",
        series=(
            Series("as sure as right", (0.0, 1.0), (0.0, 1.0), Tone.REFERENCE),
            Series("the model", x, tuple(item["accuracy"] for item in bins), counts=n),
        ),
        legend=f"Below the diagonal the model is surer than it is right. {count(len(bins), 'bin')} of {each} samples.",
        alt=f"Share right against how sure the model is, in {count(len(bins), 'bin')}. {confidence(found)}.",
        y_limits=(0.0, 1.0),
    )


def _by_prediction(found: Mapping[str, Any], words: str, page: Page) -> Iterator[Table]:
    """How sure the model is of each label it predicts."""
    is_known = any(row["ece"] is not None for row in found["by_prediction"])
    rows = tuple(
        (
            row["name"],
            row["n"],
            row["top_prob"],
            row["accuracy"],
            f"{_points(row['over_confidence'])} ({_points(row['low'])} to {_points(row['high'])})",
            *([None if row["ece"] is None else _with_interval(row)] if is_known else []),
        )
        for row in found["by_prediction"]
    )
    if rows:
        yield Table(
            page.names("sure by label", words),
            f"How sure of each label it predicts, {words}",
            (
                *(Column("predicted"), Column("samples", Cell.INTEGER), Column("mean probability", Cell.NUMBER)),
                *(Column("share right", Cell.NUMBER), Column("surer than right by, in points (95 % interval)")),
                *([Column("calibration error (95 % interval)")] if is_known else []),
            ),
            rows,
            note=f"of labels predicted at least {FEWEST} times; the calibration error needs {ENOUGH} samples",
            terminal_rows=10,
        )


def _with_interval(row: Mapping[str, Any]) -> str:
    return f"{percent(row['ece'])} ({percent(row['ece_low'])} to {percent(row['ece_high'])})"


def _points(share: float) -> str:
    """A difference of two shares, in points."""
    return f"{round(100 * share, 1) + 0.0:+.1f}".replace("-", "−")


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


def one_against_rest(scores: Mapping[str, Any], words: str, page: Page) -> Table:
    """AUROC and average precision of each label, with the scores of all probabilities."""
    rows = tuple(
        (page.class_name(row["label"]), row["auroc"], row["average_precision"]) for row in scores["one_against_rest"]
    )
    note = f"Brier score {short(scores['brier'])}, log loss {short(scores['log_loss'])}, of {scores['n']:,} samples"
    if scores["left_out"]:
        note += f"; {count(scores['left_out'], 'sample')} with a label and no such probabilities left out"
    if scores["n_clipped"]:
        note += f"; {scores['n_clipped']:,} of them gave their label a probability of about 0, counted as 1.2e-7"
    columns = (Column("label"), Column("AUROC", Cell.NUMBER), Column("average precision", Cell.NUMBER))
    return Table(page.names("probabilities", words), f"Each label against the rest, {words}", columns, rows, note)
