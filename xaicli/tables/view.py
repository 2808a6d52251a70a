"""A table as a collection reads it: each sample with its row number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xaicli.tables.table import Table


class CollectView:
    """A table's samples as collectors see them, each with its row number: what the loader of a collection reads."""

    def __init__(self, table: Table, indices: Sequence[int]) -> None:
        self._table = table
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> tuple[int, Any]:
        index = self._indices[position]
        return index, self._table.collect_sample(index)
