"""*How this was made*: the command that asks the same question again, its rules, and what was counted."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from xaicli.answer import Answer
from xaicli.report.facts import as_list
from xaicli.report.numbers import count
from xaicli.vocabulary import EPOCH

_SHOWN = 12
_OPTIONS = frozenset(
    {
        *("metric", "mode", "ds_id", EPOCH, "epoch_frequency", "label_key", "label_map", "duplicates", "engine"),
        *("max", "min", "ids", "stat", "complete_only", "table", "reduce", "bounds"),
        *("early_epochs", "burn_in", "truth", "top", "key", "smoothing", "group", "column", "colour", "split"),
        *("model", "data", "arch", "arch_args", "weights", "trust_checkpoint", "pythonpath", "resize", "mean", "std"),
        *("target", "methods", "integrating", "baseline", "noise", "signed", "convention", "seed", "tolerance"),
    }
)
"""What of a selection is an option of its command, under the same name."""
_REPEATED = frozenset({"model", "pythonpath"})
"""Options whose values are named one by one: a path may hold a comma."""


def made(answer: Answer, *rules: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """The pairs (what, in words): the command, the selection, rules of the question, and every count.

    Args:
        answer: The answer shown.
        rules: Further pairs, between the selection and the counts.
    """
    counts = answer.counts
    said: list[tuple[str, str]] = [("command", command_line(answer)), *_selection(answer), *rules]
    if counts.rows is not None:
        said.append(("rows read", count(counts.rows, "row")))
    if counts.non_finite is not None:
        said.append(("non-finite values", f"{counts.non_finite:,}, left out of every statistic"))
    if counts.duplicates is not None:
        said.append(("duplicate rows", f"{counts.duplicates:,}; of each sample and epoch the last one counts"))
    if counts.dropped is not None:
        said.append(("rows dropped while recording", f"{counts.dropped:,}"))
    if counts.stale is not None:
        said.append(("samples absent from the last epoch", f"{counts.stale:,}"))
    if counts.damaged is not None:
        said.append(("damaged files left out", ", ".join(counts.damaged) or "none"))
    return tuple(said)


def command_line(answer: Answer) -> str:
    """The command that asks the same question of the same run, as typed in a shell."""
    runs = as_list(answer.selection.get("runs", answer.run or None))
    words = ["xai", *answer.command.replace("_", "-").split(), *runs, *as_list(answer.selection.get("sql"))]
    for name, value in answer.selection.items():
        for one in as_list(value) if name in _REPEATED else [value]:
            words += _option(name, one) if name in _OPTIONS else ()
    return shlex.join(words)


def _option(name: str, value: Any) -> Iterator[str]:
    flag = "--" + name.replace("_", "-")
    if value is True:
        yield flag
    elif value is not False and (text := _argument(name, value)):
        yield from (flag, text)


def _argument(name: str, value: Any) -> str:
    """A value as the command line takes it; "" for one that need not be said."""
    if name == EPOCH:
        return ",".join(_ranges(as_list(value)))
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in value.items())
    items = [str(item) for item in as_list(value)]
    # The empty ds_id cannot be typed; it is what there is beside no other.
    return ",".join(items) if all(items) else ""


def _ranges(epochs: Sequence[int]) -> Iterator[str]:
    """Ascending epochs as numbers and LO-HI."""
    starts = [epochs[0], *(b for a, b in pairwise(epochs) if b != a + 1)] if epochs else []
    ends = [*(a for a, b in pairwise(epochs) if b != a + 1), epochs[-1]] if epochs else []
    for first, last in zip(starts, ends, strict=True):
        yield str(first) if first == last else f"{first}-{last}"


def _selection(answer: Answer) -> list[tuple[str, str]]:
    said = []
    for key, value in answer.selection.items():
        values = [str(item) for item in as_list(value)]
        if not values or values == [""] or value == {}:
            continue
        more = f" and {len(values) - _SHOWN:,} more" if len(values) > _SHOWN else ""
        said.append((key.replace("_", " "), ", ".join(values[:_SHOWN]) + more))
    return said
