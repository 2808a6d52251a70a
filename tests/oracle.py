"""What the queries must answer, in plain Python: loops over rows, nothing clever."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, Any]


PLACE = ("mode", "ds_id", "epoch", "pass")

Said = Mapping[int, tuple[int, int] | None]
"""{attempt: (epoch, step) from which its file says it takes rows back, None for one that began beside another}."""


def complete(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows as given to `WrittenRun.write`, in the order of writing, with what goes without saying."""
    missing = {"mode": "eval", "ds_id": "", "attempt": 0, "rank": 0, "pass": 0}
    return [{**missing, "step": row["epoch"] * 10, **row, "order": order} for order, row in enumerate(rows)]


def taken_back(rows: Iterable[Row], said: Said | None = None) -> dict[int, tuple[int, int]]:
    """{order of a row: (the attempt that took it back, the attempt that logged it)}."""
    full = complete(rows)
    starts: dict[int, tuple[int, int]] = {}
    for row in full:
        if row["mode"] == "train":
            place = (row["epoch"], row["step"])
            starts[row["attempt"]] = min(place, starts.get(row["attempt"], place))
    for attempt, place in (said or {}).items():
        starts.pop(attempt, None)
        if place is not None:
            starts[attempt] = place
    found = {}
    for row in full:
        by = [k for k in sorted(starts) if k > row["attempt"] and (row["epoch"], row["step"]) >= starts[k]]
        if by:
            found[row["order"]] = (by[0], row["attempt"])
    return found


def left(rows: Iterable[Row], said: Said | None = None) -> list[dict[str, Any]]:
    """The rows no later attempt has taken back, in the order they were given."""
    given = list(rows)
    gone = taken_back(given, said)
    return [row for row in complete(given) if row["order"] not in gone]


def counting(rows: Iterable[Row], said: Said | None = None) -> list[dict[str, Any]]:
    """The rows that count: none taken back, of duplicates the last; each knows its place's last `place_step`."""
    return of_duplicates_the_last(left(rows, said))


def of_duplicates_the_last(logged: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row of each sample and place, the last one."""
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in logged:
        key = (*(row[k] for k in PLACE), row["sample_id"])
        rank = ("attempt", "step", "rank", "order")
        if key not in kept or [row[k] for k in rank] >= [kept[key][k] for k in rank]:
            kept[key] = row
    for row in kept.values():
        row["place_step"] = max(other["step"] for other in logged if all(other[k] == row[k] for k in PLACE))
    return sorted(kept.values(), key=lambda row: row["order"])


def value(number: float | None) -> float | None:
    """A metric as it is stored, None where it is missing or not finite."""
    if number is None or not math.isfinite(number):
        return None
    return float(np.float32(number))


def samples(rows: Sequence[Row], *, max: int, min: int, ids: Sequence[Any] = (), metric: str = "loss") -> list[Any]:
    """The rows of `xai samples` for one (mode, ds_id), of rows that count."""
    epochs = sorted({row["epoch"] for row in rows})
    by_id: dict[Any, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["epoch"], row["pass"])):
        by_id.setdefault(row["sample_id"], []).append(row)
    scores = {}
    for sample_id, past in by_id.items():
        known = [(row["epoch"], value(row.get(metric))) for row in past if value(row.get(metric)) is not None]
        if known:
            scores[sample_id] = (known[-1][1], known[-1][0] != epochs[-1])
    highest = sorted(scores, key=lambda sample_id: (-scores[sample_id][0], sample_id))[:max]
    lowest = sorted(scores, key=lambda sample_id: (scores[sample_id][0], sample_id))[:min]
    answer = []
    for group, chosen in (("max", highest), ("min", lowest), ("listed", ids)):
        for rank, sample_id in enumerate(chosen, 1):
            past = by_id[sample_id]
            answer.append(
                {
                    "mode": past[0]["mode"],
                    "ds_id": past[0]["ds_id"],
                    "sample_id": sample_id,
                    "label": past[-1].get("label"),
                    "group": group,
                    "rank": rank,
                    "score": scores.get(sample_id, (None, True))[0],
                    "stale": scores.get(sample_id, (None, True))[1],
                    "history": [
                        {
                            "epoch": row["epoch"],
                            "pass": row["pass"],
                            "step": row["place_step"],
                            "value": value(row.get(metric)),
                        }
                        for row in past
                    ],
                }
            )
    return answer


def labels(rows: Sequence[Row], *, metric: str = "loss") -> dict[tuple[Any, int, int], dict[str, float]]:
    """{(label, epoch, pass): statistics} for one (mode, ds_id), of rows that count."""
    groups: dict[tuple[Any, int, int], list[float]] = {}
    for row in rows:
        number = value(row.get(metric))
        if row.get("label") is not None and number is not None:
            groups.setdefault((row["label"], row["epoch"], row["pass"]), []).append(number)
    found = {}
    for key, numbers in groups.items():
        mean = math.fsum(numbers) / len(numbers)
        std = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
        low, middle, high = np.quantile(np.array(numbers), [0.05, 0.5, 0.95])
        margin = 1.959963984540054 * std / math.sqrt(len(numbers))
        found[key] = {
            "n": len(numbers),
            "mean": mean,
            "std": std,
            "min": _min(numbers),
            "max": _max(numbers),
            "quantile": [low, middle, high],
            "ci": [mean - margin, mean + margin],
        }
    return found


_max, _min = max, min
