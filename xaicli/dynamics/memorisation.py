"""Whether the network has memorised the labels it was given: then nothing it says about them is evidence."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Place, Reader
from xaicli.vocabulary import CORRECT, LABEL, PREDICTION, Mode

MEMORISED = 0.99
"""Training accuracy on the labels given above which they count as memorised."""


def memorised(reader: Reader, selection: Selection, known: Mapping[Pair, Mapping[int, float]]) -> list[str]:
    """A warning for each training set whose labels were memorised at its last selected epoch.

    The training rows are looked at even when another mode is selected: the same network made those.

    Args:
        reader: The run.
        selection: Which rows a question is about.
        known: The accuracies there are already, by (mode, ds_id) and epoch.
    """
    warnings = []
    for ds_id in reader.ds_ids(Mode.TRAIN) if Mode.TRAIN in reader.modes() else ():
        pair = (Mode.TRAIN.value, ds_id)
        if pair in known:
            epoch, share = max(known[pair].items(), default=(0, 0.0))
        else:
            last = max(epoch for epochs in selection.epochs.values() for epoch in epochs)
            epoch = max((e for e in reader.epochs(*pair) if e <= last), default=-1)
            share = accuracy(reader, pair, epoch) if epoch >= 0 else 0.0
        if share > MEMORISED:
            where = f"train {ds_id}".strip()
            warnings.append(
                f"the network has memorised its labels: {share:.1%} of the {where} labels are predicted at epoch "
                f"{epoch}; wrong ones no longer stand out there, and a short list does not mean clean labels"
            )
    return warnings


def accuracy(reader: Reader, pair: Pair, epoch: int) -> float:
    """The share of predictions of one epoch that equal the labels given; 0 where nothing says."""
    columns = set(reader.dtypes)
    if CORRECT in columns:
        frame, _ = reader.frame(Place(*pair, epoch), [CORRECT])
        right = frame[CORRECT]
    elif {LABEL, PREDICTION} <= columns:
        frame, _ = reader.frame(Place(*pair, epoch), [LABEL, PREDICTION])
        right = frame[LABEL] == frame[PREDICTION]
    else:
        return 0.0
    share = right.cast(pl.Float64).mean()
    return float(share) if isinstance(share, float) else 0.0
