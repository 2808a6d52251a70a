"""Where in its texts a model of sequences fails: by place, by length, by token."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from xaicli.queries.tasks import N_TOKENS
from xaicli.vocabulary import LOSS, SAMPLE_ID, TOKEN_LOSSES

ACCURACY = "token_accuracy"
TOKENS = "tokens"
"""The fact that holds the words of a sequence: separated by white space, or as a JSON list."""
PLACES = 64
"""The mean loss is told of so many places of a text at most; longer ones are cut into as many parts."""
_TIMES = 3
"""A token that occurs less often is not told of."""


def sequence_figures(frame: pl.DataFrame) -> dict[str, float | int | None]:
    """The figures of some sequences, each token counting as much.

    Args:
        frame: A row a sequence: `loss` (mean over its tokens), and `n_tokens` and `token_accuracy` where they are kept.

    Returns:
        n (sequences with a finite loss), tokens, loss (mean over the tokens), perplexity (e to the loss), accuracy (of
        the tokens, those right); None where unknown. Without `n_tokens` each sequence counts as one.
    """
    known = frame.filter(pl.col(LOSS).is_finite())
    n = known.height
    weight = known[N_TOKENS].cast(pl.Float64).to_numpy() if N_TOKENS in known.columns else np.ones(n)
    total = float(np.nansum(weight)) if n else 0.0
    if not total:
        return {"n": n, TOKENS: 0, LOSS: None, "perplexity": None, "accuracy": None}
    loss = float(np.nansum(known[LOSS].cast(pl.Float64).to_numpy() * weight)) / total
    right = None
    if ACCURACY in known.columns:
        right = float(np.nansum(known[ACCURACY].cast(pl.Float64).to_numpy() * weight)) / total
    with np.errstate(over="ignore"):
        perplexity = float(np.exp(loss))
    return {"n": n, TOKENS: int(total), LOSS: loss, "perplexity": perplexity, "accuracy": right}


def by_place(losses: pl.Series) -> list[dict[str, Any]]:
    """The mean loss of the tokens over the text, of at most `PLACES` parts: first, last, n, loss.

    Places count the tokens that have a loss, from 0.

    Args:
        losses: (N,) lists of the losses of a sequence's tokens.
    """
    kept = losses.drop_nulls()
    lengths = kept.list.len().cast(pl.Int64).to_numpy()
    longest = int(lengths.max()) if len(lengths) else 0
    if not longest:
        return []
    flat = kept.list.explode(keep_nulls=False, empty_as_null=False).cast(pl.Float64).to_numpy()
    starts = np.cumsum(lengths) - lengths
    places = np.arange(len(flat)) - np.repeat(starts, lengths)
    size = -(-longest // PLACES)
    part = places // size
    finite = np.isfinite(flat)
    n = np.bincount(part[finite])
    total = np.bincount(part[finite], flat[finite])
    return [
        {"first": i * size, "last": min((i + 1) * size, longest) - 1, "n": int(n[i]), LOSS: float(total[i] / n[i])}
        for i in range(len(n))
        if n[i]
    ]


def words_of(text: Any) -> list[str] | None:
    """The tokens that a fact tells: a JSON list of texts, else what white space separates; None for no text."""
    if not isinstance(text, str):
        return None
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if isinstance(found, list):
            return [str(item) for item in found]
    return text.split()


def with_words(frame: pl.DataFrame, texts: Mapping[Any, Any]) -> tuple[dict[Any, list[tuple[str, float]]], int]:
    """The tokens of each sequence with their losses, and of how many sequences words and losses do not fit.

    Args:
        frame: sample_id and `token_losses`.
        texts: {sample_id: the fact with its tokens}.
    """
    found: dict[Any, list[tuple[str, float]]] = {}
    unfit = 0
    for sample_id, losses in frame.select(SAMPLE_ID, TOKEN_LOSSES).iter_rows():
        words = words_of(texts.get(sample_id))
        if losses is None or words is None:
            continue
        if len(words) == len(losses):
            found[sample_id] = [(word, float(loss)) for word, loss in zip(words, losses, strict=True)]
        else:
            unfit += 1
    return found, unfit


def worst_tokens(sequences: Sequence[Sequence[tuple[str, float]]]) -> pl.DataFrame:
    """The tokens with the highest mean loss among those that occur often enough: token, n, loss."""
    flat = [(word, loss) for sequence in sequences for word, loss in sequence if np.isfinite(loss)]
    frame = pl.DataFrame(flat, schema={"token": pl.String(), LOSS: pl.Float64()}, orient="row")
    counted = frame.group_by("token").agg(pl.len().cast(pl.Int64).alias("n"), pl.col(LOSS).mean())
    kept = counted.filter(pl.col("n") >= _TIMES)
    return kept.sort(LOSS, "token", descending=[True, False])
