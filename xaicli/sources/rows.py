"""Rows of Parquet files by number, a row group in memory at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from xaicli.errors import XaiError
from xaicli.sources.inputs import BadSampleError

_GROUPS_KEPT = 4
_LARGEST_GROUP = 8 * 2**30


class ParquetRows:
    """Several Parquet files of the same columns, read as one table.

    Args:
        paths: The files, in order.

    Raises:
        XaiError: A file is no readable Parquet table, or a row group unpacks to more than memory should hold.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        import pyarrow as pa

        self._paths = tuple(paths)
        self._groups: list[tuple[Path, int]] = []
        sizes: list[int] = []
        for path in paths:
            try:
                with _opened(path) as file:  # not kept open: a run may have thousands
                    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
                    self.schema = file.schema_arrow
            except (OSError, pa.ArrowException) as error:
                raise XaiError(f"{path} is no readable Parquet table: {error}", hint="is the file whole?") from error
            if too_large := [group.total_byte_size for group in groups if group.total_byte_size > _LARGEST_GROUP]:
                raise XaiError(f"{path} unpacks to {too_large[0]:,} bytes", hint="use smaller row groups")
            self._groups += [(path, number) for number in range(len(groups))]
            sizes += [group.num_rows for group in groups]
        self._ends = list(accumulate(sizes))
        self._read = lru_cache(maxsize=_GROUPS_KEPT)(self._read_group)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def column(self, name: str) -> list[Any]:
        """All values of one small column (ids, labels).

        Raises:
            XaiError: It cannot be read.
        """
        import pyarrow as pa

        values: list[Any] = []
        try:
            for path in self._paths:
                with _opened(path) as file:
                    values += file.read([name])[name].to_pylist()
            return values
        except (OSError, pa.ArrowException, KeyError) as error:
            raise XaiError(f"column {name} cannot be read: {error}", hint="is the file whole?") from error

    def row(self, position: int, columns: tuple[str, ...]) -> dict[str, Any]:
        """Some columns of one row.

        Raises:
            BadSampleError: They cannot be read.
        """
        import pyarrow as pa

        group = bisect_right(self._ends, position)
        start = self._ends[group - 1] if group else 0
        try:
            found: dict[str, Any] = self._read(group, columns).slice(position - start, 1).to_pylist()[0]
        except (OSError, pa.ArrowException, KeyError, IndexError) as error:
            raise BadSampleError(f"its row cannot be read ({error})") from error
        return found

    def _read_group(self, group: int, columns: tuple[str, ...]) -> Any:
        path, number = self._groups[group]
        with _opened(path) as file:
            return file.read_row_group(number, list(columns))


def _opened(path: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, page_checksum_verification=True)
