"""Answers as queries give them, without a run: what reports are made of in tests."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import polars as pl

from xaicli.answer import Answer, Counts
from xaicli.report.charts import Image
from xaicli.report.labels import labels_report
from xaicli.report.page import Page, RunFacts
from xaicli.report.samples import samples_report
from xaicli.results import Result

NAMES = ("airplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FACTS = RunFacts("runs/exp1", "exp1", "2026-11-20T17:02:11", NAMES)
QUANTILES = {"q05": 0.2, "q25": 0.6, "q50": 1.0, "q75": 1.5, "q95": 2.5}


def samples_result(
    *, epochs: int = 30, top: int = 5, listed: Sequence[int | str] = (17, 4711), images: bool = False
) -> Result:
    """The result of `xai samples`: falling histories, the highest ones rising."""
    draw = random.Random(1)
    rows = []
    for group, n in (("max", top), ("min", top), ("listed", len(listed))):
        for number in range(n):
            level = {"max": 4.0 - number, "min": 0.01 * (number + 1), "listed": 0.2}[group]
            history = [
                {"epoch": e, "step": 100 * e, "value": level + math.exp(-e / 8) * draw.random()}
                for e in range(1, epochs + 1)
            ]
            sample_id = listed[number] if group == "listed" else {"max": 100, "min": 200}[group] + number
            kept = {"sample_id": sample_id, "label": number, "group": group, "rank": number + 1}
            score = {"score": history[-1]["value"], "stale": number == 3, "history": history}
            rows.append({"mode": "eval", "ds_id": "", **kept, **score})
    population = pl.DataFrame(
        [
            {"mode": "eval", "ds_id": "", "metric": "loss", "epoch": e, "step": 100 * e, "n": 1000}
            | {name: share * math.exp(-e / 8) for name, share in QUANTILES.items()}
            for e in range(1, epochs + 1)
        ]
    )
    answer = Answer(
        command="samples",
        run="runs/exp1",
        selection={"metric": ["loss"], "mode": ["eval"], "ds_id": [""], "max": top, "min": top, "stat": "last"},
        data=pl.DataFrame(rows, strict=False),
        counts=Counts(rows=30_000, non_finite=0, duplicates=3, dropped=0, stale=2, damaged=()),
        warnings=("mind the gap",),
    )
    pictures = {("eval", "", r["sample_id"]): _noise(draw, r["sample_id"]) for r in rows} if images else {}
    predictions = {("eval", "", r["sample_id"], epochs, None): (r["label"] + (r["group"] == "max")) % 10 for r in rows}
    return Result(answer, lambda: samples_report(answer, Page(FACTS, pictures, predictions), population=population))


def labels_result(
    *, labels: int = 10, epochs: int = 30, bounds: Sequence[str] = ("std", "range"), names: Sequence[str] = NAMES
) -> Result:
    """The result of `xai labels`: falling means with bands."""
    draw = random.Random(2)
    rows = []
    for label in range(labels):
        start, end, spread = draw.uniform(2, 3), draw.uniform(0.03, 0.6), draw.uniform(0.1, 0.3)
        for epoch in range(1, epochs + 1):
            mean = start * math.exp(-epoch / 9) + end
            std = spread * (0.3 + math.exp(-epoch / 9))
            bands = {"std": [mean - std, mean + std], "range": [mean - 2 * std, mean + 3 * std]}
            key = {"mode": "eval", "ds_id": "", "metric": "loss", "label": label}
            name = {"name": names[label] if label < len(names) else f"class {label}", "epoch": epoch}
            figures = {"n": 300 + label, "mean": mean, "std": std, "min": mean - 2 * std, "max": mean + 3 * std}
            rows.append({**key, **name, "step": 100 * epoch, **figures, "bounds": {b: bands[b] for b in bounds}})
    answer = Answer(
        command="labels",
        run="runs/exp1",
        selection={"metric": ["loss"], "mode": ["eval"], "bounds": list(bounds)},
        data=pl.DataFrame(rows),
        counts=Counts(rows=30_000, non_finite=0, damaged=()),
    )
    return Result(answer, lambda: labels_report(answer, FACTS))


def _noise(draw: random.Random, sample_id: object) -> Image:
    return Image(16, 16, 3, bytes(draw.randrange(256) for _ in range(16 * 16 * 3)), f"sample {sample_id}")
