"""The samples of `--data` as a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli.tables.rows import MISSING
from xaicli.tables.table import Table

if TYPE_CHECKING:
    from xaicli.sources.inputs import Inputs, Source

_TOGETHER = 256
IGNORED = -100
"""The label of a sample that has none of the known classes."""


class SourceRows:
    """A source's samples as rows (tuple of inputs, label), read some hundred at a time.

    Args:
        source: Where they come from.
        label_names: The classes' names by number, for labels that are text.
    """

    def __init__(self, source: Source, label_names: Sequence[str] = ()) -> None:
        self._source = source
        self._numbers = {name: number for number, name in enumerate(label_names)}
        self._first = -1
        self._read: dict[Any, tuple[Any, ...]] = {}
        self.skipped: list[str] = []
        """One sentence for each sample that could not be read."""

    def __len__(self) -> int:
        return len(self._source.sample_ids)

    def __getitem__(self, index: int) -> Any:
        first = index - index % _TOGETHER
        if first != self._first:
            ids = [self._source.sample_ids[i] for i in range(first, min(first + _TOGETHER, len(self)))]
            self._read, self._first = self._rows(self._source.take(ids)), first
        return self._read.get(self._source.sample_ids[index], MISSING)

    def _rows(self, inputs: Inputs) -> dict[Any, tuple[Any, ...]]:
        self.skipped += inputs.skipped
        arrays = list(inputs.arrays.values())
        labels = None if inputs.label is None else [self._number(label) for label in inputs.label]
        return {
            sample_id: (tuple(array[i] for array in arrays), *(() if labels is None else (labels[i],)))
            for i, sample_id in enumerate(inputs.sample_id)
        }

    def _number(self, label: Any) -> int:
        if isinstance(label, str):
            return self._numbers.get(label, IGNORED)
        return IGNORED if label is None else int(label)


def table_of(
    data: str | None,
    *,
    pythonpath: Sequence[str | os.PathLike[str]] = (),
    label_names: Sequence[str] | None = None,
    **opening: Any,
) -> Table:
    """The samples that `--data` names, or those whose inputs the run keeps.

    Args:
        data: As `xaicli.sources.opening.open_source`; a `module:name` may also name a `Table`.
        pythonpath: Folders searched for a factory's module.
        label_names: The classes of the checkpoint.
        opening: Further arguments of `open_source`.

    Raises:
        XaiError: There is no such data.
    """
    from xaicli.checkpoint.architecture import resolve
    from xaicli.sources.opening import open_source

    if data is not None and ":" in data and not Path(data).exists():
        named = resolve(data, pythonpath=pythonpath, option="--data")
        if isinstance(named, Table):
            return named
    source = open_source(data, pythonpath=pythonpath, label_names=label_names, **opening)
    names = source.label_names or label_names or ()
    ids = list(source.sample_ids)
    return Table(SourceRows(source, names), name=Path(data).stem if data else "inputs", ids=ids, url=data or "inputs")
