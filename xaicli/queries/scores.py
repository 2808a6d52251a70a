"""Scores and the extremes among them."""

from __future__ import annotations

import polars as pl

from xaicli.vocabulary import SAMPLE_ID

SCORE = "score"
STALE = "stale"


def extremes(scores: pl.DataFrame, n: int, *, highest: bool) -> pl.DataFrame:
    """The n highest or lowest scores, best first; of equal scores the smaller sample_id first.

    Args:
        scores: sample_id, score and more; scores finite.
        n: How many; fewer when there are fewer.
    """
    n = min(n, scores.height)
    if n == 0:
        return scores.clear()
    score = scores[SCORE]
    # The n-th best bounds the candidates, so that only these are sorted.
    if highest:
        candidates = scores.filter(pl.col(SCORE) >= score.top_k(n).min())
    else:
        candidates = scores.filter(pl.col(SCORE) <= score.bottom_k(n).max())
    return candidates.sort(SCORE, SAMPLE_ID, descending=[highest, False]).head(n)
