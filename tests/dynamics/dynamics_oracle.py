"""The statistics of SPEC section 5, once more: plain Python, one sample at a time, no cleverness."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]
"""epoch, sample_id and any of label, correct, loss, label_prob, margin, el2n."""

EMA_WEIGHT = 0.1


def dynamics(rows: Iterable[Row], *, early_epochs: int = 10, burn_in: int = 2) -> dict[Hashable, dict[str, Any]]:
    """{sample_id: {statistic: value}} of rows in the order of epochs."""
    histories: dict[Hashable, list[Row]] = defaultdict(list)
    for row in rows:
        histories[row["sample_id"]].append(row)
    last_epoch = max((row["epoch"] for history in histories.values() for row in history), default=0)
    found = {key: of_sample(history, last_epoch, early_epochs) for key, history in histories.items()}
    for key, jump in rank_jumps(histories, burn_in).items():
        found[key] |= jump
    return found


def of_sample(history: list[Row], last_epoch: int, early_epochs: int) -> dict[str, Any]:
    """The statistics of one sample's rows."""
    early = [row["el2n"] for row in history[:early_epochs] if is_finite(row["el2n"])]
    losses = finite(history, "loss")
    probs = [value for _, value in finite(history, "label_prob")]
    margins = [value for _, value in finite(history, "margin")]
    return {
        "label": history[-1]["label"],
        "n_obs": len(history),
        "stale": not any(row["epoch"] == last_epoch and is_finite(row["loss"]) for row in history),
        **{f"loss_{name}": value for name, value in summary(losses).items()},
        "confidence": mean(probs),
        "variability": statistics.pstdev(probs) if probs else None,
        "aum": mean(margins),
        "el2n": mean(early),
        "ema": ema([value for _, value in losses]),
        **learning([(row["epoch"], row["correct"]) for row in history if row["correct"] is not None]),
    }


def is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def finite(history: list[Row], metric: str) -> list[tuple[int, float]]:
    return [(row["epoch"], row[metric]) for row in history if is_finite(row[metric])]


def mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def summary(observations: list[tuple[int, float]]) -> dict[str, float | None]:
    """last, first, mean, min, max, std (n - 1) and least-squares slope of (epoch, value) pairs."""
    if not observations:
        return dict.fromkeys(("last", "first", "mean", "min", "max", "std", "slope"))
    epochs, values = zip(*observations, strict=True)
    centre_t, centre_x = math.fsum(epochs) / len(epochs), math.fsum(values) / len(values)
    spread = math.fsum((t - centre_t) ** 2 for t in epochs)
    together = math.fsum((t - centre_t) * (x - centre_x) for t, x in observations)
    return {
        "last": values[-1],
        "first": values[0],
        "mean": centre_x,
        "min": min(values),
        "max": max(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "slope": together / spread if spread else 0.0,
    }


def ema(values: list[float]) -> float | None:
    average = None
    for value in values:
        average = value if average is None else (1 - EMA_WEIGHT) * average + EMA_WEIGHT * value
    return average


def learning(observations: list[tuple[int, bool]]) -> dict[str, Any]:
    """What (epoch, right) pairs say."""
    names = ("correctness", "forgetting", "never_learned", "first_learned", "learned_for_good")
    if not observations:
        return dict.fromkeys(names)
    right = [epoch for epoch, correct in observations if correct]
    for_good = None
    for epoch, correct in reversed(observations):
        if not correct:
            break
        for_good = epoch
    pairs = itertools.pairwise(observations)
    forgetting = sum(before and not after for (_, before), (_, after) in pairs)
    return dict(zip(names, (len(right), forgetting, not right, right[0] if right else None, for_good), strict=True))


def rank_jumps(histories: Mapping[Hashable, list[Row]], burn_in: int) -> dict[Hashable, dict[str, Any]]:
    """The largest change of each sample's normalised mid-rank, against all changes that end in the same pass."""
    by_place: dict[tuple[int, int], dict[Hashable, float]] = defaultdict(dict)
    for key, history in histories.items():
        for row in history:
            values = by_place[row["epoch"], row.get("pass", 0)]
            values.pop(key, None)
            if is_finite(row["loss"]):
                values[key] = row["loss"]
    counted = sorted({epoch for epoch, _ in by_place})[burn_in:]
    jumps: dict[Hashable, dict[tuple[int, int], tuple[float, str]]] = {key: {} for key in histories}
    before: dict[Hashable, float] = {}
    for (epoch, turn), values in sorted(by_place.items()):
        ranks = {key: mid_rank(value, list(values.values())) / len(values) for key, value in values.items()}
        changes = {key: rank - before[key] for key, rank in ranks.items() if key in before}
        before |= ranks
        if epoch not in counted or not changes:
            continue
        centre = statistics.median(changes.values())
        distances = [abs(change - centre) for change in changes.values()]
        mad, mean_distance = statistics.median(distances), statistics.fmean(distances)
        fallback = math.sqrt(math.pi / 2) * mean_distance if mean_distance > 1e-12 else 0.0
        scale = 1.4826 * mad if mad > 1e-12 else fallback
        for key, change in changes.items():
            moved = change - centre if abs(change - centre) > 1e-12 else 0.0
            jumps[key][epoch, turn] = (abs(moved) / scale if scale else 0.0, "up" if moved > 0 else "down")
    return {key: largest(found) for key, found in jumps.items()}


def largest(jumps: Mapping[tuple[int, int], tuple[float, str]]) -> dict[str, Any]:
    """The largest of {(epoch, pass): (jump, direction)}; of equal ones, but for rounding, the earliest."""
    names = ("rank_jump", "rank_jump_epoch", "rank_jump_direction")
    if not jumps:
        return dict.fromkeys(names)
    top = max(jump for jump, _ in jumps.values())
    (epoch, _), (jump, way) = next(one for one in sorted(jumps.items()) if one[1][0] >= top * (1 - 1e-9))
    return dict(zip(names, (jump, epoch, way), strict=True))


def mid_rank(value: float, values: list[float]) -> float:
    smaller = sum(other < value for other in values)
    equal = sum(other == value for other in values)
    return smaller + (equal + 1) / 2
