"""The words of the field, defined once: modes, bounds, groups, column names.

Everything else in the package spells these by importing them. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

FORMAT = "xai-run"
FORMAT_VERSION = 2
SCHEMA_VERSION = 1


class Mode(StrEnum):
    """What the model was doing when a row was logged."""

    TRAIN = "train"
    EVAL = "eval"
    TEST = "test"
    INFER = "infer"


class Bounds(StrEnum):
    """What the band around a label's mean stands for."""

    STD = "std"
    RANGE = "range"
    NONE = "none"
    QUANTILE = "quantile"
    CI = "ci"


QUANTILES = {"q05": 0.05, "q50": 0.5, "q95": 0.95}
"""The columns behind `quantile` bounds."""


class Group(StrEnum):
    """Why a sample was chosen."""

    MAX = "max"
    MIN = "min"
    LISTED = "listed"


class Duplicates(StrEnum):
    """What becomes of rows with the same (mode, ds_id, epoch, sample_id) in one attempt."""

    LAST = "last"
    ALL = "all"
    ERROR = "error"


class Attempts(StrEnum):
    """Whether rows count that a later attempt took back."""

    LAST = "last"
    ALL = "all"


class Axis(StrEnum):
    """What a picture over time is drawn over."""

    EPOCH = "epoch"
    STEP = "step"
    PASS = "pass"


class Engine(StrEnum):
    """What executes a query."""

    POLARS = "polars"
    DUCKDB = "duckdb"
    SPARK = "spark"


class Format(StrEnum):
    """How an answer is written."""

    HTML = "html"
    PNG = "png"
    CSV = "csv"
    JSON = "json"
    MD = "md"


class Role(StrEnum):
    """What a recorded column is for."""

    ID = "id"
    TIME = "time"
    ORIGIN = "origin"
    LABEL = "label"
    METRIC = "metric"


SAMPLE_ID = "sample_id"
MODE = "mode"
DS_ID = "ds_id"
EPOCH = "epoch"
PASS = "pass"
STEP = "step"
ATTEMPT = "attempt"
RANK = "rank"
LABEL = "label"
PREDICTION = "prediction"
CORRECT = "correct"
PROBS = "probs"

NO_CLASS = "(none)"
"""What an empty set of classes is called, and the lack of a class in one."""

KEY_COLUMNS = (SAMPLE_ID, MODE, DS_ID, EPOCH, PASS, STEP, ATTEMPT, RANK)
"""The columns every stored row has, in their order in the file; files of format version 1 have no `pass`, it is 0."""

RESERVED_COLUMNS = (*KEY_COLUMNS, LABEL, PREDICTION, CORRECT, PROBS)
"""Column names that are no metrics."""

FACT = "fact_"
"""Goes before the name of a fact where a column that is no fact has its name."""


def fact_columns(facts: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """{fact: its column} in a table with other columns: the one rule for facts that are called like one of these.

    Args:
        facts: The facts of the table.
        taken: What its other columns are called.
    """
    used = {*taken}
    names = list(facts)
    columns: dict[str, str] = {}
    for name in names:
        new = name
        while new in used or (new != name and new in names):
            new = FACT + new
        used.add(new)
        columns[name] = new
    return columns


LOSS = "loss"
LABEL_PROB = "label_prob"
TOP_PROB = "top_prob"
MARGIN = "margin"
EL2N = "el2n"
ENTROPY = "entropy"

TOKEN_LOSSES = "token_losses"
"""The losses of a sequence's tokens, a list a sample."""

DERIVED_METRICS = (LOSS, LABEL_PROB, TOP_PROB, MARGIN, EL2N, ENTROPY)
"""The metrics computed from `logits` or `probs` at logging time."""

OF_ONE_LABEL = (None, "classification", "binary")
"""The tasks of which a sample has one label of several, and thus probabilities; None of a run that does not say it."""

HIGH_IS_GOOD = (CORRECT, LABEL_PROB, MARGIN, "jaccard", "token_accuracy")
LOW_IS_GOOD = (LOSS, EL2N, ENTROPY, "abs_error", "n_wrong", "worst_token_loss")
"""Which end of the recorder's own metrics is the good one, of those that have one: a `residual` has none."""
END_IS_KNOWN = frozenset({*HIGH_IS_GOOD, *LOW_IS_GOOD})
