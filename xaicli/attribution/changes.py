"""How the attention of a model moved between checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from xaicli.attribution.explanation import Change, Explanation
from xaicli.attribution.maps import rank_correlation


def changes_of(explanations: Sequence[Explanation], methods: Sequence[str]) -> tuple[Change, ...]:
    """The rank correlation of each sample's maps from one checkpoint to the next.

    Args:
        explanations: Ordered so that the checkpoints of one (sample, output, target) follow each other.
        methods: Which maps to compare.
    """
    groups: dict[tuple[Any, ...], list[Explanation]] = {}
    for e in explanations:
        groups.setdefault((e.sample_id, e.output, e.target), []).append(e)
    found = []
    for columns in groups.values():
        for before, after in pairwise(columns):
            for method in methods:
                a, b = (
                    np.concatenate([m.values.ravel() for m in e.maps if m.method == method]) for e in (before, after)
                )
                value = rank_correlation(a, b)
                found.append(
                    Change(
                        after.sample_id, after.target, method, after.checkpoint, value if np.isfinite(value) else None
                    )
                )
    return tuple(found)
