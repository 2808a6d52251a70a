"""The run's columns: those that `xai.json` names, and those that segments bring before it does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from xaicli import vocabulary as words
from xaicli.manifest import ColumnFacts
from xaicli.wal.frames import SCORES, Frame

_IN_FILE = {"float32": "float", "float64": "double"}


def dtypes_of(plan: Iterable[tuple[str, str]]) -> dict[str, str]:
    """{column: its Arrow type in a part} of a batch's columns in a segment, and of those that follow from scores."""
    dtypes: dict[str, str] = {}
    for name, dtype in plan:
        if name in SCORES:
            made = words.DERIVED_METRICS if words.LABEL in dtypes else (words.TOP_PROB, words.ENTROPY)
            dtypes |= {metric: dtypes.get(metric, "float") for metric in made}
            dtypes.setdefault(words.PREDICTION, "int32")
            if SCORES[name][1]:
                dtypes[words.PROBS] = "list<halffloat>"
        elif name == words.CORRECT:
            dtypes[name] = "bool"
        elif "int" in dtype and not dtype.startswith("list<"):
            whole = {words.SAMPLE_ID: "int64", words.LABEL: "int32", words.PREDICTION: "int32"}
            dtypes[name] = whole.get(name, "float")
        else:
            dtypes[name] = in_file(dtype)
    return dtypes


def in_file(dtype: str) -> str:
    """The Arrow type in a part of what a segment holds as this type."""
    if dtype.startswith("float16["):
        return "list<halffloat>"
    return "float" if dtype in ("float16", "bool") else _IN_FILE.get(dtype, dtype)


def with_those_of(known: Sequence[ColumnFacts], frames: Iterable[Frame]) -> tuple[ColumnFacts, ...]:
    """The run's columns with those that frames bring: a killed process may not have come to write them down.

    The first batch of a kind says what its columns are stored as; later ones may come as the caller's own types.
    """
    named = {column.name: column.dtype for column in known}
    plans = {id(frame.columns): frame.columns for frame in frames if frame.place}
    found: dict[str, str] = {}
    for plan in plans.values():
        found = dtypes_of(plan) | found
    if found.keys() <= named.keys():
        return tuple(known)
    return in_order(with_correct(found | named))


def with_correct(columns: Mapping[str, str]) -> dict[str, str]:
    """{column: Arrow type} with whether predictions are right, where labels and predictions can be compared."""
    comparable = columns.get(words.LABEL) == columns.get(words.PREDICTION) in ("int32", "string")
    return {**columns, words.CORRECT: "bool"} if comparable else dict(columns)


def in_order(columns: Mapping[str, str]) -> tuple[ColumnFacts, ...]:
    """The run's columns in the order of a part.

    Args:
        columns: {name: Arrow type} of the id, label, prediction, correct, probs and metrics seen so far, metrics in the
            order of their appearance.
    """
    fixed = {
        words.SAMPLE_ID: (columns.get(words.SAMPLE_ID, "int64"), words.Role.ID),
        words.MODE: ("string", words.Role.ORIGIN),
        words.DS_ID: ("string", words.Role.ORIGIN),
        words.EPOCH: ("int32", words.Role.TIME),
        words.PASS: ("int16", words.Role.TIME),
        words.STEP: ("int64", words.Role.TIME),
        words.ATTEMPT: ("int16", words.Role.ORIGIN),
        words.RANK: ("int16", words.Role.ORIGIN),
    }
    facts = [ColumnFacts(name, dtype, role.value) for name, (dtype, role) in fixed.items()]
    for name in (words.LABEL, words.PREDICTION, words.CORRECT):
        if name in columns:
            facts.append(ColumnFacts(name, columns[name], words.Role.LABEL.value))
    metrics = [name for name in columns if name not in words.RESERVED_COLUMNS]
    facts += [ColumnFacts(name, columns[name], words.Role.METRIC.value) for name in metrics]
    if words.PROBS in columns:
        facts.append(ColumnFacts(words.PROBS, columns[words.PROBS], words.Role.LABEL.value))
    return tuple(facts)
