"""What stands beside the samples and labels of an answer: their names and facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from xaicli.answer import Answer
from xaicli.queries.selection import Catalogue, Selection
from xaicli.reader import Place, Reader
from xaicli.tables.labels import in_order_apart, names_apart
from xaicli.vocabulary import LABEL, NO_CLASS, PREDICTION, SAMPLE_ID


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
    def of_column(cls, source: Catalogue, selection: Selection, column: str) -> LabelNames:
        """The names of what a column holds: of the label key, of the recorded label and of predictions; else none."""
        return cls(names_of_column(source, selection, column))

    @classmethod
    def of_classes(cls, source: Catalogue, selection: Selection) -> LabelNames:
        """The names of both where the label key is held against the predictions, and so holds their classes."""
        known = source.names_of_classes(PREDICTION) or source.names_of_classes(LABEL)
        return cls(names_apart({**dict(enumerate(known)), **selection.label_map}))

    def __getitem__(self, label: Any) -> str:
        if isinstance(label, list):
            return ", ".join(self[one] for one in label) or NO_CLASS
        return self.by_value[label] if label in self.by_value else label_text(label)

    def beside(self, label: Any) -> str | None:
        """The name as it stands beside a label in an answer: none where no label is, or a number, its own name."""
        return None if label is None or isinstance(label, float) else self[label]


def names_of_labels(source: Catalogue, selection: Selection) -> dict[Any, str]:
    """{label: its name}, of the label map, else of the run or table; labels without one are left out.

    Labels of one name are told apart, here as on every page (`words.names_apart`).
    """
    known = source.names_of_classes(PREDICTION if selection.label_is_truth else selection.label_key)
    return names_apart({**dict(enumerate(known)), **selection.label_map})


def class_numbers(labels: pl.Series, reader: Reader) -> pl.Series:
    """Labels as places among the probabilities of the classes, Int64: null where that is not known.

    A text has the place of its name among the run's, as at recording.
    """
    if labels.dtype.is_integer():
        return labels.cast(pl.Int64)
    if labels.dtype.is_nested() or labels.dtype.is_float():
        return pl.Series([None] * len(labels), dtype=pl.Int64)
    names = list(reader.label_names)
    return labels.cast(pl.String).replace_strict(names, range(len(names)), default=None, return_dtype=pl.Int64)


def class_labels(numbers: Sequence[int], dtype: pl.DataType, reader: Reader) -> pl.Series:
    """Places among the probabilities of the classes, spelt as labels of a dtype are: numbers, or the run's names."""
    if dtype.is_integer():
        return pl.Series(numbers, dtype=dtype)
    names = dict(enumerate(reader.label_names))
    return pl.Series([names.get(number, str(number)) for number in numbers], dtype=pl.String)


def names_of_runs(sources: Sequence[Catalogue], selections: Sequence[Selection]) -> list[dict[Any, str]]:
    """What labels are called in each of several runs; one without names has those of the first that has some.

    So labels are joined by name where both have names, else by value.
    """
    both = list(zip(sources, selections, strict=True))
    has_names = [bool(source.names_of_classes(selection.label_key)) for source, selection in both]
    own = [names_of_labels(source, selection) for source, selection in both]
    lent = next((names for names, has in zip(own, has_names, strict=True) if has), {})
    return [names if has else {**lent, **names} for names, has in zip(own, has_names, strict=True)]


def names_of_predictions(source: Catalogue, selection: Selection) -> dict[Any, str]:
    """{prediction: its name}: those of the labels, but where a column that is no truth of them stands for the label."""
    if selection.label_key in (LABEL, PREDICTION) or selection.label_is_truth:
        return names_of_labels(source, selection)
    return dict(enumerate(in_order_apart(source.names_of_classes(PREDICTION))))


def names_of_column(source: Catalogue, selection: Selection, column: str) -> dict[Any, str]:
    """{value: its name} of a column: recorded labels are called as predictions are, whatever groups the samples."""
    if column == selection.label_key:
        return names_of_labels(source, selection)
    return names_of_predictions(source, selection) if column in (LABEL, PREDICTION) else {}


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
    each, column = named_each(labels, names), pl.col(labels.name)
    if not isinstance(labels.dtype, pl.List):
        return each
    together = each.list.join(", ")
    return pl.when(column.list.len() == 0).then(pl.lit(NO_CLASS)).when(column.is_not_null()).then(together)


def named_each(labels: pl.Series, names: Mapping[Any, str]) -> pl.Expr:
    """A column of labels as their names; a set of classes as a list of names in the order of the classes."""
    are_sets = isinstance(labels.dtype, pl.List)
    found = (labels.explode() if are_sets else labels).unique().drop_nulls().to_list()
    column = pl.col(labels.name)
    if not found:
        return column.cast(pl.List(pl.String)) if are_sets else pl.lit(None, pl.String)
    texts = pl.DataFrame({"label": found, "name": [names.get(label, label_text(label)) for label in found]})

    def replaced(one: pl.Expr) -> pl.Expr:
        return one.replace_strict(texts["label"], texts["name"], default=None, return_dtype=pl.String)

    return column.list.eval(replaced(pl.element())) if are_sets else replaced(column)


FACTS = "facts"
"""The column of what samples are: {fact: value}, null for what is not known."""


def with_facts(
    answer: Answer,
    reader: Reader,
    selection: Selection | None = None,
    called: Mapping[str, str] | None = None,
    by_row: pl.DataFrame | None = None,
) -> Answer:
    """The answer with a column `facts` in each table whose rows are samples, and what is to be said of their facts.

    Args:
        answer: What a question gave.
        reader: The run.
        selection: Which rows it was about.
        called: {fact: what it was asked by}, where rows of a table were asked, as which some facts may be called.
        by_row: The samples among these that only the number of their row tells, which no fact is known by: sample_id,
            and where they lie.
    """
    facts = reader.facts
    if not facts.names:
        return replace(answer, warnings=tuple(dict.fromkeys((*answer.warnings, *facts.notices))))
    known = facts.frame.rename({**(called or {})})
    told = {
        name: _beside(frame, known, by_row) if _are_samples(frame) else frame for name, frame in answer.extra.items()
    }
    data = _beside(answer.data, known, by_row) if _are_samples(answer.data) else answer.data
    warnings = [*answer.warnings, *facts.notices, *facts.told]
    warnings += _without(reader, selection) if selection is not None else ()
    if by_row is not None and (n := by_row.height):
        say = "1 sample says" if n == 1 else f"{n:,} samples say"
        warnings.append(f"facts are known by sample_id, and {say} example_id alone: none are shown of these")
    shown = [
        frame[FACTS]
        for frame in (data, *told.values())
        if isinstance(frame, pl.DataFrame) and frame.schema.get(FACTS) == pl.Struct
    ]
    if shown and not any(_any_known(part) for part in shown):
        warnings += facts.of_no_sample()
    return replace(answer, data=data, extra=told, warnings=tuple(dict.fromkeys(warnings)))


def told_as(called: Mapping[str, str], why: str, *, where: str = "") -> tuple[str, ...]:
    """What is said of facts that are not called by their own names.

    Args:
        called: {fact: its column}.
        why: Why they are not.
        where: In what they are called so; everywhere without it.
    """
    return tuple(f"the fact {name} is called {new}{where}: {why}" for name, new in called.items() if name != new)


def with_facts_of_runs(answer: Answer, readers: Sequence[Reader], selections: Sequence[Selection]) -> Answer:
    """An answer about several runs with what its samples are: of each fact what the last run says that knows it.

    Args:
        answer: What a question gave.
        readers: The runs, in order, which share their facts.
        selections: Which rows of each it was about.
    """
    facts = readers[0].facts
    if not facts.names:
        return answer
    data = facts_beside(answer.data, readers[0])
    said: dict[str, list[str]] = {}
    for reader, selection in zip(readers, selections, strict=True):
        for words in (*reader.facts.warnings, *reader.facts.mismatches(), *_without(reader, selection)):
            said.setdefault(words, []).append(reader.layout.described)
    warnings = [words if len(runs) == len(readers) else f"{', '.join(runs)}: {words}" for words, runs in said.items()]
    warnings += [
        f"{name} of {n:,} {'sample' if n == 1 else 'samples'} differs between the runs: that of the last counts for all"
        for name, n in facts.differing.items()
    ]
    if FACTS in data.columns and not _any_known(data[FACTS]):
        warnings += [words for reader in readers for words in reader.facts.of_no_sample()]
    return replace(answer, data=data, warnings=tuple(dict.fromkeys((*answer.warnings, *warnings))))


def _are_samples(frame: Any) -> bool:
    """Whether rows are samples of which nothing is told yet."""
    return isinstance(frame, pl.DataFrame) and SAMPLE_ID in frame.columns and FACTS not in frame.columns


def facts_beside(frame: pl.DataFrame, reader: Reader) -> pl.DataFrame:
    """Rows of samples with a column `facts`; as they are where nothing is known."""
    return _beside(frame, reader.facts.frame) if reader.facts.names else frame


def _beside(frame: pl.DataFrame, facts_of: pl.DataFrame, by_row: pl.DataFrame | None = None) -> pl.DataFrame:
    ids, known = frame[SAMPLE_ID], facts_of.schema[SAMPLE_ID]
    if ids.dtype != known and not (known.is_integer() and (ids.dtype.is_integer() or ids.dtype == pl.String)):
        return frame
    if by_row is not None and not by_row.is_empty():
        keys = [name for name in by_row.columns if name in frame.columns]
        apart = by_row.select(keys).unique().with_columns(pl.lit(True).alias(FACTS))
        told = frame.select(keys).join(apart, on=keys, how="left", maintain_order="left")
        ids = told.select(pl.when(pl.col(FACTS).is_null()).then(SAMPLE_ID))[SAMPLE_ID]
    # Rows of several runs, and those of a check, have their ids as text.
    asked = pl.DataFrame({SAMPLE_ID: ids.cast(known, strict=False)})
    found = asked.join(facts_of, on=SAMPLE_ID, how="left", maintain_order="left")
    facts = pl.struct(facts_of.columns[1:])
    return frame.with_columns(found.select(pl.when(pl.col(SAMPLE_ID).is_not_null()).then(facts).alias(FACTS)))


def _any_known(facts: pl.Series) -> bool:
    """Whether any sample of a column of facts has one."""
    return any(fact.null_count() < fact.len() for fact in facts.struct.unnest().get_columns())


def _without(reader: Reader, selection: Selection) -> list[str]:
    """How many samples lack the fact that groups them: these are in no group."""
    key = selection.label_key
    if key not in reader.facts.dtypes:
        return []
    said = []
    for pair in selection.pairs:
        rows, _ = reader.frame(Place(*pair, selection.epochs[pair][-1]), [SAMPLE_ID, key])
        if missing := rows[key].null_count():
            where = " ".join(part for part in pair if part)
            said.append(f"{missing:,} of {rows.height:,} samples of {where} have no {key}: they are in no group")
    return said


def facts_by_sample(reader: Reader, ids: pl.Series) -> Mapping[Any, Mapping[str, Any]]:
    """{sample_id: {fact: value}} of some samples, without what is not known."""
    if not reader.facts.names:
        return {}
    rows = reader.facts.of(ids.unique()).iter_rows(named=True)
    return {row.pop(SAMPLE_ID): {name: value for name, value in row.items() if value is not None} for row in rows}
