"""What every query returns: the values, what was selected, what was counted, what to warn about.

An answer knows nothing of how it is shown; `xaicli.results` pairs it with its report.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xaicli.vocabulary import DS_ID, EPOCH
from xaicli.words import quoted, ranges

if TYPE_CHECKING:
    import polars as pl


_OPTIONS = frozenset(
    {
        *("metric", "mode", DS_ID, EPOCH, "epoch_frequency", "label_key", "label_map", "duplicates", "engine"),
        *("spark_remote", "strict", "where", "attempts", "axis"),
        *("max", "min", "ids", "stat", "complete_only", "table", "reduce", "bounds"),
        *("to", "path", "prefix", "pictures", "field"),
        *("n", "share", "per_label", "weight"),
        *(
            "cell",
            "by",
            "spikes",
            "around",
            "step",
            "facts",
            "no_facts",
            "positive",
            "min_n",
            "rules",
            "rule",
            "baseline",
            "strict_drop",
        ),
        *("early_epochs", "burn_in", "truth", "top", "key", "smoothing", "group", "column", "colour", "split"),
        *("model", "data", "arch", "arch_args", "weights", "trust_checkpoint", "pythonpath", "resize", "mean", "std"),
        *(
            "target",
            "methods",
            "integrating",
            "evaluations",
            "task",
            "baseline",
            "noise",
            "signed",
            "convention",
            "seed",
            "tolerance",
            "precision",
        ),
        *("output_key", "captum", "evaluate", "sanity", "pick", "samples"),
        *("collectors", "layers", "reshape", "reduction", "components", "probs", "iou", "label_names"),
        *("batch_size", "no_aggregates", "quarantine", "grace"),
    }
)
"""What of a selection is an option of its command, under the same name."""
_OF_FILES = frozenset({"relabel apply"})
"""Commands whose arguments are files; of others `files` says what was read or written."""
_REPEATED = frozenset({"model", "pythonpath", "rule"})
"""Options whose values are named one by one: a path may hold a comma."""
_UNSAID = {"engine": "polars", "attempts": "last"}
"""Defaults that are not worth a word; not every command has the option."""
_LEFT_OUT = "ds_ids_left_out"
_AS_TYPED = {EPOCH: "epoch_asked", "ids": "ids_asked"}
"""What was asked for in the words of whoever asked: each run and data set resolves `last` by its own epochs, and a list
says of which data set its ids are."""
_TOLD = {"info": frozenset({"task"})}
"""What a question tells of the run under the name that is an option elsewhere."""


@dataclass(frozen=True)
class Counts:
    """What went into an answer and what had to be left out; None where the count does not apply to the question."""

    rows: int | None = None
    non_finite: int | None = None
    duplicates: int | None = None
    dropped: int | None = None
    """Rows the recorder could not store."""
    stale: int | None = None
    """Samples whose value is of an earlier epoch than the last: absent from that, or without a finite value there."""
    taken_back: int | None = None
    """Rows that do not count because a later attempt logged that part of the training again."""
    ignored: int | None = None
    """Labels that were the run's `ignore_label`, and are null."""
    damaged: tuple[str, ...] | None = None
    """Files left out because their bytes are not those that were written, relative to the run directory."""

    def as_dict(self) -> dict[str, Any]:
        """The counts that apply, as plain JSON types."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v is not None}


@dataclass(frozen=True)
class Answer:
    """The answer to one question about one run.

    Attributes:
        command: The command that asks this question ("samples").
        run: The run directory as the user named it.
        selection: What was asked, resolved: modes, ds_ids, epochs, metrics, and the question's own options.
        data: One row per row of the JSON, columns named as there.
        extra: Further keys of the JSON object beside the fixed ones ("truth"), as plain JSON values.
    """

    command: str
    run: str
    selection: Mapping[str, Any]
    data: pl.DataFrame
    counts: Counts = field(default_factory=Counts)
    warnings: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def command_line(self) -> str:
        """The command that asks the same question of the same run, as typed in a shell."""
        runs = self.selection.get("runs", self.run or None)
        words = ["xai", *self.command.replace("_", "-").split(), *_listed(runs)]
        words += _listed(self.selection.get("sql"))
        words += _listed(self.selection.get("files")) if self.command in _OF_FILES else []
        for name, value in self.selection.items():
            if (
                name not in _OPTIONS - _TOLD.get(self.command, frozenset())
                or value == _UNSAID.get(name)
                or (name == "ids" and "pick" in self.selection)
                or (name == DS_ID and "" in _listed(value) and not self.selection.get(_LEFT_OUT))
            ):
                continue  # the data set without a name need not be said where there is no other
            flag = "--" + name.replace("_", "-")
            if isinstance(value, bool):
                words += [flag] if value else []
            else:
                typed = self.selection.get(_AS_TYPED.get(name, ""), value)
                in_files = name == "ids" and "ids_asked" in self.selection
                said = typed if in_files else _arguments(name, typed)
                words += [word for text in said for word in (flag, text)]
        return shlex.join(str(word) for word in words)


def _arguments(name: str, value: Any) -> list[str]:
    """What follows an option, once or several times; nothing where there is nothing to say."""
    if name == EPOCH:
        given = _listed(value)
        numbers = all(isinstance(epoch, int) for epoch in given)
        return [",".join(ranges(given) if numbers else map(str, given))] if given else []
    if name == "group":
        return [f"{group}={_typed(members)}" for group, members in value.items()]
    if isinstance(value, Mapping):
        pairs = ((str(key), _spelt(item)) for key, items in value.items() for item in _listed(items))
        typed = [f"{quoted(key, special=',=')}={quoted(item, special=',=')}" for key, item in pairs]
        return [",".join(typed)] if typed else []
    if isinstance(value, (list, tuple)):
        return [str(item) for item in value] if name in _REPEATED else [_typed(value)] if value else []
    return [] if value is None or value == "" else [str(value)]


def _spelt(label: Any) -> str:
    """A label as `--label-map` takes it."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def _typed(items: Sequence[Any]) -> str:
    """Values as the command line takes several; one that begins like a file of ids is no file."""
    texts = [str(item) for item in items]
    return ",".join(quoted(text, special="@," if text[:1] == "@" or text == "-" else ",") for text in texts)


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
