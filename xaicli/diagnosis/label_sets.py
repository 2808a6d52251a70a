"""Labels that are sets of classes: which is taken for which, and which single class of a sample is probably wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from xaicli.dynamics.metrics import LEARNING, MEMORISED
from xaicli.vocabulary import LABEL, PREDICTION, SAMPLE_ID
from xaicli.words import percent

MISSING, EXTRA = "missing", "extra"
"""What may be wrong with a class of a sample: it should be in its label, or should not."""
_STEADY = 3
_LIKELY = 0.5
"""The score above which a class is doubted, as that of suspects."""
_KEYS = [SAMPLE_ID, "class"]


def swapped(frame: pl.DataFrame) -> pl.DataFrame:
    """How often one class was missed where another was added: pairs of labels taken for one another.

    Args:
        frame: A row a sample, with lists of classes `label` and `prediction`; rows without either are left out.

    Returns:
        Rows label (missed), prediction (added), n (samples), n_missed (samples that lack the label at all) and share (n
        of n_missed), the most frequent first.
    """
    truth, taken = pl.col(LABEL), pl.col(PREDICTION)
    known = frame.select(LABEL, PREDICTION).drop_nulls()
    wrong = known.select(truth.list.set_difference(taken), taken.list.set_difference(truth))
    missed = wrong.explode(LABEL).drop_nulls(LABEL)
    times = missed.group_by(LABEL).agg(pl.len().cast(pl.Int64).alias("n_missed"))
    counts = missed.explode(PREDICTION).drop_nulls(PREDICTION).group_by(LABEL, PREDICTION)
    return (
        counts.agg(pl.len().cast(pl.Int64).alias("n"))
        .join(times, on=LABEL, how="left")
        .with_columns((pl.col("n") / pl.col("n_missed")).alias("share"))
        .sort("n", LABEL, PREDICTION, descending=[True, False, False])
    )


def doubt_in_words(row: Mapping[str, Any]) -> str:
    """Why a class is doubted, after its name and "is": of a row of `doubted`."""
    first = "the first " if row["n_counted"] < row["n_obs"] else ""
    times = f"{row['times']} of {first}{row['n_counted']} times"
    if row["doubt"] == MISSING:
        return f"not in the label, but predicted {times}; such a prediction is right in {percent(row['trusted'])}"
    return f"in the label, but not predicted {times}; such a label is found in {percent(row['trusted'])}"


def doubted(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """The single classes of samples that the model contradicted through training, the most doubtful first.

    Args:
        frames: One a place, in order: sample_id, label, prediction (lists of classes); rows without either are left
            out.

    Returns:
        Rows sample_id, class, doubt (`missing`: predicted, though not in the label; `extra`: in the label, though not
        predicted), times (how often), n_obs (how often the sample was seen), n_counted (how many of these count),
        trusted (how often the model is right when it says so of other samples: the class's precision, or its recall)
        and score, times / n_counted x trusted; contradicted in a third of the observations or more with a score above
        0.5, score descending, then by id and class. After the first place where nearly all labels are predicted
        (`MEMORISED`), only the first `LEARNING` observations of a sample still count, as those of suspects do. A class
        counts by the label a sample has last; one that has none then has no doubtful label.
    """
    said = []
    last: dict[str, pl.DataFrame] = {}
    n_obs = pl.DataFrame(schema={SAMPLE_ID: pl.Int64(), "n_obs": pl.Int64(), "n_counted": pl.Int64()})
    memorised = False
    for frame in frames:
        n_obs = n_obs.cast({SAMPLE_ID: frame.schema[SAMPLE_ID]})  # whole numbers until a frame says what ids are
        own = frame.select(SAMPLE_ID, LABEL).unique(SAMPLE_ID, keep="last", maintain_order=True)
        before = last.get(LABEL)
        last[LABEL] = own if before is None else pl.concat([before, own]).unique(SAMPLE_ID, keep="last")
        known = frame.select(SAMPLE_ID, LABEL, PREDICTION).drop_nulls([LABEL, PREDICTION])
        if known.is_empty():
            continue
        so_far = known.select(SAMPLE_ID).join(n_obs, on=SAMPLE_ID, how="left", maintain_order="left")
        counts = so_far["n_counted"].fill_null(0) < LEARNING if memorised else pl.repeat(True, known.height, eager=True)
        now = known.select(SAMPLE_ID, n_obs=1, n_counted=counts.cast(pl.Int64)).cast({"n_obs": pl.Int64()})
        n_obs = pl.concat([n_obs, now]).group_by(SAMPLE_ID).sum()
        wrong = pl.col(LABEL).list.set_symmetric_difference(PREDICTION).list.len() > 0
        memorised = memorised or known.select(1 - wrong.mean()).item() >= MEMORISED
        one = (
            known.filter(counts)
            .select(SAMPLE_ID, pl.col(PREDICTION).alias("class"))
            .explode("class")
            .drop_nulls("class")
        )
        said.append(one.group_by(_KEYS).agg(pl.len().cast(pl.Int64).alias("n_said")))
    schema: dict[str, Any] = {
        SAMPLE_ID: n_obs.schema[SAMPLE_ID],
        "class": pl.Int32(),
        "doubt": pl.String(),
        "times": pl.Int64(),
        "n_obs": pl.Int64(),
        "n_counted": pl.Int64(),
        "trusted": pl.Float64(),
        "score": pl.Float64(),
    }
    if not said:
        return pl.DataFrame(schema=schema)
    n_said = pl.concat(said).group_by(_KEYS).sum()
    with_label = last[LABEL].drop_nulls(LABEL)
    labelled = with_label.explode(LABEL).rename({LABEL: "class"}).drop_nulls("class")
    every = (
        n_said.join(labelled.with_columns(pl.lit(True).alias("is_label")), on=_KEYS, how="full", coalesce=True)
        .with_columns(pl.col("n_said").fill_null(0), pl.col("is_label").fill_null(False))
        .join(n_obs, on=SAMPLE_ID, how="inner")
        .join(with_label, on=SAMPLE_ID, how="semi")
    )
    is_label = pl.col("is_label")
    times = pl.when(is_label).then(pl.col("n_counted") - pl.col("n_said")).otherwise(pl.col("n_said"))
    found = pl.col("n_said").filter(is_label).sum()
    by_class = every.group_by("class").agg(
        (found / pl.col("n_said").sum()).alias("precision"),
        (found / pl.col("n_counted").filter(is_label).sum()).alias("recall"),
    )
    trusted = pl.when(is_label).then(pl.col("recall")).otherwise(pl.col("precision")).fill_nan(0.0).fill_null(0.0)
    rows = (
        every.join(by_class, on="class", how="left")
        .with_columns(times.alias("times"), trusted.alias("trusted"))
        .filter(pl.col("times") * _STEADY >= pl.col("n_counted"), pl.col("times") > 0)
        .select(
            SAMPLE_ID,
            "class",
            pl.when(is_label).then(pl.lit(EXTRA)).otherwise(pl.lit(MISSING)).alias("doubt"),
            "times",
            "n_obs",
            "n_counted",
            "trusted",
            (pl.col("times") / pl.col("n_counted") * pl.col("trusted")).alias("score"),
        )
    )
    likely = rows.filter(pl.col("score") > _LIKELY)
    return likely.sort("score", SAMPLE_ID, "class", descending=[True, False, False])
