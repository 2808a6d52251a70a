"""A table as a collection reads it: each sample with its row number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xaicli.tables.rows import Unreadable

if TYPE_CHECKING:
    from xaicli.tables.table import Table


class CollectView:
    """A table's samples as collectors see them, each with its row number: what the loader of a collection reads.

    A sample that cannot be read, or that a transform fails on, is `Unreadable` and costs no other sample; worker
    processes name it as well.
    """

    def __init__(self, table: Table, indices: Sequence[int]) -> None:
        self._table = table
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> tuple[int, Any]:
        index = self._indices[position]
        try:
            return index, self._table.collect_sample(index)
        except Exception as error:
            ids = self._table.sample_ids
            named = f"sample {index}" if ids is None else f"sample {ids[index]}"
            return index, Unreadable(f"{named}: {type(error).__name__}: {error}")
