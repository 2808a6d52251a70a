"""Which rows a question is about, and what it is resolved in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import polars as pl

from xaicli.errors import UsageError
from xaicli.vocabulary import (
    DS_ID,
    LABEL,
    Attempts,
    Axis,
    Duplicates,
    Engine,
)
from xaicli.words import quoted, ranges, split

if TYPE_CHECKING:
    from xaicli.reader.facts import Facts
    from xaicli.reader.rows import Where

Pair = tuple[str, str]
"""(mode, ds_id): the groups that are never pooled."""


class Catalogue(Protocol):
    """What a selection is resolved in: a run's samples, or a table."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What everyone who asks should know."""
        ...

    @property
    def which_attempts(self) -> Attempts:
        """Whether rows count that a later attempt took back."""
        ...

    @property
    def where(self) -> Where | None:
        """The condition that rows meet."""
        ...

    @property
    def facts(self) -> Facts:
        """What is known of the samples."""
        ...

    @property
    def described(self) -> str:
        """What it is called in a message."""
        ...

    def names_elsewhere(self, option: str) -> Collection[str]:
        """What an option may name in other questions about the run, by the option's name in Python."""
        ...

    @property
    def dtypes(self) -> Mapping[str, pl.DataType]:
        """Every column with its type."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns that can be asked for."""
        ...

    @property
    def askable(self) -> tuple[str, ...]:
        """What a question can be about: the metrics, and `correct` where it is known."""
        ...

    @property
    def label_names(self) -> Sequence[str]:
        """The names of labels 0, 1, 2, ..."""
        ...

    def names_of_classes(self, column: str) -> Sequence[str]:
        """What the numbers 0, 1, 2, ... in a column are called; nothing where these are no classes."""
        ...

    @property
    def damaged(self) -> Sequence[str]:
        """The files left out so far."""
        ...

    @property
    def drops(self) -> Mapping[str, int]:
        """Rows the recorder could not store, by reason."""
        ...

    def modes(self) -> list[str]:
        """The modes with rows."""
        ...

    def ds_ids(self, mode: str) -> list[str]:
        """The dataset ids with rows in a mode."""
        ...

    def epochs(self, mode: str, ds_id: str) -> list[int]:
        """The epochs with rows, ascending."""
        ...

    def epochs_met(
        self, pair: Pair, epochs: Sequence[int], duplicates: Duplicates = Duplicates.LAST
    ) -> tuple[int, ...]:
        """The epochs of a mode and data set, ascending, that `where` leaves of the rows that count."""
        ...

    def values(
        self,
        column: str,
        epochs: Mapping[Pair, Sequence[int]] | None = None,
        *,
        wanted: Collection[Any] = (),
        duplicates: Duplicates = Duplicates.LAST,
    ) -> set[Any]:
        """What a column holds, of sets their items: in the rows selected, or in all rows, whatever `where` leaves out.

        Args:
            column: The column.
            epochs: The epochs of each pair that are selected; None for all rows.
            wanted: What is looked for; reading ends where all of it is found. Empty for all values.
            duplicates: Which rows of one sample count among those selected.
        """
        ...


Words = str | int | Iterable[str | int] | None
"""What an option takes in Python: one value, several, a text with commas as typed, or None for the default."""


@dataclass(frozen=True)
class Selection:
    """Which rows a question is about.

    Attributes:
        pairs: The (mode, ds_id) groups, never pooled.
        epochs: The epochs of each pair, ascending, never empty; the last has rows, unless no row is selected.
        metrics: The metrics; at least one, but of questions about the rows themselves.
        label_key: The column that groups samples.
        label_is_truth: Whether a question holds that column, which is another than the label, against the predictions:
            it is of their classes then, and has their names.
        label_map: {value: name} of the labels it is limited to; empty for all.
        ds_ids_left_out: Data sets of these modes that are not among the pairs.
        duplicates: Which rows of one sample in one epoch count.
        epoch_asked: The epochs as they were asked for; empty for all.
        epoch_frequency: Only epochs divisible by this.
        engine: What executes the query.
        spark_remote: A Spark Connect server.
        where: The condition that rows meet, as SQL; "" for none.
        axis: What pictures over time are drawn over.
        attempts: Whether rows count that a later attempt took back.
        warnings: What the user should know of how the words were taken.
    """

    pairs: tuple[Pair, ...]
    epochs: Mapping[Pair, tuple[int, ...]]
    metrics: tuple[str, ...]
    label_key: str = LABEL
    label_is_truth: bool = False
    label_map: Mapping[Any, str] = field(default_factory=dict)
    ds_ids_left_out: tuple[str, ...] = ()
    duplicates: Duplicates = Duplicates.LAST
    epoch_asked: tuple[str, ...] = ()
    epoch_frequency: int = 1
    engine: Engine = Engine.POLARS
    spark_remote: str | None = None
    attempts: Attempts = Attempts.LAST
    where: str = ""
    facts: str = ""
    """A file of facts beside those recorded."""
    no_facts: bool = False
    axis: Axis = Axis.EPOCH
    warnings: tuple[str, ...] = ()
    modes_left_out: tuple[str, ...] = ()
    """Modes that the run has and nobody asked to leave out."""
    emptied: Mapping[Pair, str] = field(default_factory=dict)
    """Why each (mode, ds_id) that was asked for has no row selected: `--epoch 5 takes none of its epochs, 1-4`."""
    modes_lacking: Mapping[str, str] = field(default_factory=dict)
    """What each mode that was named lacks of the data sets asked for, all of them: `no ds_id 'day'`."""

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes, each once."""
        return tuple(dict.fromkeys(mode for mode, _ in self.pairs))

    @property
    def ds_ids(self) -> tuple[str, ...]:
        """The dataset ids, each once."""
        return tuple(dict.fromkeys(ds_id for _, ds_id in self.pairs))

    def _labels_by_name(self) -> dict[str, Any]:
        """{name: label} as the option was given, with a list of the labels that share a name."""
        by_name: dict[str, list[Any]] = {}
        for label, name in self.label_map.items():
            by_name.setdefault(name, []).append(label)
        return {name: labels[0] if len(labels) == 1 else labels for name, labels in by_name.items()}

    def as_dict(self) -> dict[str, Any]:
        """The selection as plain JSON types, under the names of the options."""
        return {
            "metric": list(self.metrics),
            "mode": list(self.modes),
            "ds_id": list(self.ds_ids),
            **({"ds_ids_left_out": list(self.ds_ids_left_out)} if self.ds_ids_left_out else {}),
            "epoch": sorted({epoch for epochs in self.epochs.values() for epoch in epochs}),
            "epoch_asked": list(self.epoch_asked),
            "epoch_frequency": self.epoch_frequency,
            "label_key": self.label_key,
            **({"label_is_truth": True} if self.label_is_truth else {}),
            "label_map": self._labels_by_name(),
            "duplicates": self.duplicates.value,
            "engine": self.engine.value,
            **({"spark_remote": self.spark_remote} if self.spark_remote else {}),
            "attempts": self.attempts.value,
            **({"where": self.where} if self.where else {}),
            **({"facts": self.facts} if self.facts else {}),
            **({"no_facts": True} if self.no_facts else {}),
            **({"axis": self.axis.value} if self.axis is not Axis.EPOCH else {}),
        }


def left_out_by(source: Catalogue, selection: Selection) -> str:
    """The options that leave rows of a run out, as they are typed: `--where 'epoch < 4', --epoch 1-3`; "" for none."""
    # What an option empties was asked for all the same, by mode and data set.
    asked = replace(selection, pairs=tuple(dict.fromkeys((*selection.pairs, *selection.emptied))))
    epochs = {pair: source.epochs(*pair) for pair in asked.pairs}
    said = [f"--where {selection.where!r}"] if selection.where else []
    modes = dict.fromkeys((*asked.modes, *selection.modes_lacking))
    if len(modes) < len(source.modes()):
        said.append(f"--mode {','.join(modes)}")
    if selection.ds_ids_left_out:
        said.append(f"--ds-id {','.join(map(quoted, asked.ds_ids))}")
    taken = {pair: selection.epochs.get(pair, ()) for pair in epochs}
    others = {pair: [epoch for epoch in every if epoch not in taken[pair]] for pair, every in epochs.items()}
    # Epochs without a row that meets a condition are left out by the condition itself.
    counting = selection.duplicates
    if any(rest and (not selection.where or source.epochs_met(pair, rest, counting)) for pair, rest in others.items()):
        chosen = ranges(sorted({epoch for of_pair in selection.epochs.values() for epoch in of_pair}))
        every = [f"--epoch-frequency {selection.epoch_frequency}"] if selection.epoch_frequency > 1 else []
        typed = selection.epoch_asked or (() if every else chosen)
        said += [*([f"--epoch {','.join(typed)}"] if typed else []), *every]
    return ", ".join(said)


def with_note_of_modes(selection: Selection) -> Selection:
    """The selection with a warning that names the modes that were not looked at, where nobody said which.

    For questions whose answer one takes for that of the whole run.
    """
    if not selection.modes_left_out:
        return selection
    others = selection.modes_left_out
    said = (
        f"this is about {', '.join(selection.modes)} alone: --mode {','.join(others)} shows more, --mode all everything"
    )
    return replace(selection, warnings=(*selection.warnings, said))


def polars_only(selection: Selection, question: str) -> None:
    """Refuse an engine that a question cannot honour.

    Raises:
        UsageError: The engine is another than polars.
    """
    if selection.engine is not Engine.POLARS:
        said = f"{question} does not run on --engine {selection.engine}"
        raise UsageError(said, hint="leave --engine out: polars", refused=("engine", "spark_remote"))


def words(given: Words, name: str) -> list[str] | None:
    """What an option was given, as a list of texts; None where it was left out.

    Args:
        given: What it was given.
        name: Its name in Python ("metric").

    Raises:
        UsageError: It was given, and names nothing: neither all nor the default is what an empty list asks for.
    """
    if given is None:
        return None
    if isinstance(given, str):
        found = split(given)
    else:
        try:
            found = [str(item) for item in cast(Iterable[Any], given)]
        except TypeError:
            found = [str(given)]  # one number, of Python or numpy
    if not found:
        raise UsageError(f"{name} was given, and names nothing: {given!r}", hint="leave it out for the default")
    return found


def ds_id_words(given: Words) -> list[str] | None:
    """What `ds_id` was given, as a list of texts; an empty text is the data set without a name, as rows spell it."""
    alone = [given] if isinstance(given, str) else list(given) if isinstance(given, list | tuple) else []
    return [""] if len(alone) == 1 and isinstance(alone[0], str) and not alone[0].strip() else words(given, DS_ID)
