"""What labels are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.queries.selection import Catalogue, Selection
from xaicli.tables.labels import in_order_apart, names_apart
from xaicli.vocabulary import LABEL, NO_CLASS, PREDICTION


@dataclass(frozen=True)
class LabelNames:
    """The names of labels: the user's map first, else the run's class names, else the labels themselves."""

    by_value: Mapping[Any, str]

    @classmethod
    def of(cls, source: Catalogue, selection: Selection) -> LabelNames:
        """The names of what the label key of a selection holds."""
        return cls(names_of_labels(source, selection))

    @classmethod
    def of_predictions(cls, source: Catalogue, selection: Selection) -> LabelNames:
        """The names of the model's answers."""
        return cls(names_of_predictions(source, selection))

    @classmethod
    def of_classes(cls, source: Catalogue, selection: Selection) -> LabelNames:
        """The names of both where the label key is held against the predictions, and so holds their classes."""
        known = source.names_of_classes(PREDICTION) or source.names_of_classes(LABEL)
        return cls(names_apart({**dict(enumerate(known)), **selection.label_map}))

    def __getitem__(self, label: Any) -> str:
        if isinstance(label, list):
            return ", ".join(self[one] for one in label) or NO_CLASS
        return self.by_value[label] if label in self.by_value else label_text(label)


def names_of_labels(source: Catalogue, selection: Selection) -> dict[Any, str]:
    """{label: its name}, of the label map, else of the run or table; labels without one are left out.

    Labels of one name are told apart, here as on every page (`words.names_apart`).
    """
    known = source.names_of_classes(selection.label_key)
    return names_apart({**dict(enumerate(known)), **selection.label_map})


def names_of_predictions(source: Catalogue, selection: Selection) -> dict[Any, str]:
    """{prediction: its name}: those of the labels, but where a fact or another column stands for the label."""
    if selection.label_key in (LABEL, PREDICTION):
        return names_of_labels(source, selection)
    return dict(enumerate(in_order_apart(source.names_of_classes(PREDICTION))))


_NAMED = {LABEL: "name", "suggested_label": "suggested_name", PREDICTION: "prediction_name"}
"""Columns of labels, and those of their names beside them; the last two are answers of the model."""


def with_names(answer: Answer, source: Catalogue, selection: Selection) -> Answer:
    """The answer with the name of each label beside it, in each table of samples or labels that has not said it yet.

    Args:
        answer: What a question gave.
        source: The run or table.
        selection: Which rows it was about.
    """
    names = names_of_labels(source, selection), names_of_predictions(source, selection)
    told = {
        name: _named_beside(frame, *names) if isinstance(frame, pl.DataFrame) else frame
        for name, frame in answer.extra.items()
    }
    return replace(answer, data=_named_beside(answer.data, *names), extra=told)


def _named_beside(frame: pl.DataFrame, labels: Mapping[Any, str], predictions: Mapping[Any, str]) -> pl.DataFrame:
    if LABEL not in frame.columns:
        return frame
    for column, name in _NAMED.items():
        # A number is its own name.
        if column in frame.columns and name not in frame.columns and not frame.schema[column].is_float():
            at = frame.columns.index(column) + 1
            spelt = named(frame[column], labels if column == LABEL else predictions).alias(name)
            frame = frame.with_columns(spelt).select(*frame.columns[:at], name, *frame.columns[at:])
    return frame


def label_text(label: Any) -> str:
    """A label without a name as text: true and false as in JSON and SQL."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def named(labels: pl.Series, names: Mapping[Any, str]) -> pl.Expr:
    """A column of labels as their names; a set of classes as the names of all."""
    are_sets = isinstance(labels.dtype, pl.List)
    found = (labels.explode() if are_sets else labels).unique().drop_nulls().to_list()
    if not found and not are_sets:
        return pl.lit(None, pl.String)
    texts = pl.DataFrame({"label": found, "name": [names.get(label, label_text(label)) for label in found]})

    def replaced(one: pl.Expr) -> pl.Expr:
        return one.replace_strict(texts["label"], texts["name"], default=None, return_dtype=pl.String)

    column = pl.col(labels.name)
    if not are_sets:
        return replaced(column)
    together = column.list.eval(replaced(pl.element())).list.join(", ") if found else pl.lit("")
    return pl.when(column.list.len() == 0).then(pl.lit(NO_CLASS)).when(column.is_not_null()).then(together)
