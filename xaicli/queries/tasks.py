"""What the labels of a run are, by its task, and what is never recorded of such labels."""

from __future__ import annotations

import shlex
from enum import Enum
from typing import assert_never

import polars as pl

from xaicli.reader import Reader
from xaicli.vocabulary import CORRECT, LABEL, LABEL_PROB, LOSS, PREDICTION

N_TOKENS = "n_tokens"


class LabelKind(Enum):
    """What the label of one sample is."""

    CLASS = "classes"
    SET = "sets"
    NUMBER = "numbers"
    TOKENS = "tokens"


def labels_of(reader: Reader) -> LabelKind:
    """What the labels of a run are: by its task where that says it, else by how labels and predictions are held."""
    kinds = [reader.dtypes.get(name, pl.Null()) for name in (LABEL, PREDICTION)]
    if are_texts(reader):
        return LabelKind.TOKENS
    if reader.manifest.task == "multilabel" or any(kind.is_nested() for kind in kinds):
        return LabelKind.SET
    if reader.manifest.task == "regression" or any(kind.is_float() for kind in kinds):
        return LabelKind.NUMBER
    return LabelKind.CLASS


def are_texts(reader: Reader) -> bool:
    """Whether the samples of a run are sequences, whose labels are their tokens: none has a label of its own."""
    if reader.manifest.task is not None:
        return reader.manifest.task == "sequence"
    return N_TOKENS in reader.stored and reader.stored.keys().isdisjoint((LABEL, PREDICTION))


def never_recorded(reader: Reader, column: str) -> str:
    """Why there is no such column of a run's labels, whatever is logged; "" where logits and labels bring it.

    Args:
        reader: The run.
        column: One that follows from logits and labels of one class a sample.
    """
    if column == LOSS:
        return ""
    match labels_of(reader):
        case LabelKind.CLASS:
            return ""
        case LabelKind.SET:
            return "" if column == CORRECT else "its labels are sets of classes, each sure or not by itself"
        case LabelKind.NUMBER:
            return "its labels are numbers, which are near or far, not right or wrong"
        case LabelKind.TOKENS:
            return "" if column == LABEL_PROB else "of a sequence each token has a label, and is right or wrong"
        case other:
            assert_never(other)


def about_texts(reader: Reader) -> str:
    """Which question is about the tokens of sequences, or what there is to log where nothing is known of them."""
    if LOSS in reader.dtypes:
        return "xai errors tells where in them the loss is"
    return "log their loss with run.log_samples(..., label=..., logits=...) or loss="


def by_fact(reader: Reader, option: str) -> str:
    """Which option groups samples by a fact, with one that there is."""
    if names := reader.facts.names:
        return f"{option} FACT groups them, {option} {shlex.quote(names[0])} say"
    return f"{option} FACT groups them; no facts are recorded: run.log_facts(sample_id, source=...)"
