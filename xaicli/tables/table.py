"""Samples to train on and to collect metrics over: a dataset with names, ids, weights and two sets of transforms.

Takes no torch with it: a `Table` is a map-style dataset that any `DataLoader` accepts.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xaicli.errors import UsageError, XaiError, unknown
from xaicli.tables.lists import ChosenRows, Recorded, chosen_rows, relabelled
from xaicli.tables.rows import ArrayRows, Rows, Unreadable, read_file, read_image_folder
from xaicli.tables.schema import checked
from xaicli.vocabulary import SAMPLE_ID

if TYPE_CHECKING:
    from torch.utils.data import Sampler

WEIGHT = "weight"


_NO_FACTS = {
    SAMPLE_ID: "give the ids of the rows as Table(..., ids=...), and leave them out of the facts",
    "facts": "a file of facts is Table(..., facts=FILE); call a fact otherwise",
}
"""Names that no fact has, and what to do instead."""

_Transform = Callable[[Any], Any]
_known: weakref.WeakValueDictionary[str, Table] = weakref.WeakValueDictionary()


class Table:
    """A dataset whose samples keep their identity through every transform.

    Row `i` is `example_id` i, whatever sampler or transform is used, so two collections over it can be compared row by
    row.

    Args:
        dataset: Any map-style dataset (`__len__` and `__getitem__`), a torch `Dataset` for one.
        name: What people call it; also the last part of its `url`.
        schema: Schemas by column (`{"label": CategoricalLabel("label", ["cat", "dog"])}`).
        ids: The caller's own `sample_id` of every row, integers or strings; the row number when None.
        weights: One weight a row, 0 leaves it out where asked; default 1.
        collate_fn: Makes a batch of samples that torch's own collation cannot put together; what a collection uses.
        url: Where the rows lie, if not in memory.
        select: The samples to keep, by id: a file that `xai select` wrote, its answer, or ids. Rows keep their order;
            weights of the file become those of the table.
        relabel: Corrected labels by id: a file that `xai relabel apply` wrote, or {id: label}.
        facts: What the samples are, recorded with the first collection into a run: {name: one value a row, or one for
            all}, or a CSV, Parquet or JSON-lines file with a column `sample_id`.
        label: Where a sample has its label, for `relabel`: the key of a dict (`label` when None), or the place in a
            tuple (the second of two when None).
        mode: How the samples were recorded, for `select` and `relabel`: rows of their files that name another `mode`
            are about other samples. All rows count when None.
        ds_id: Likewise, by the column `ds_id`.

    Attributes:
        rows: The dataset.

    Raises:
        XaiError: The dataset has no length, ids, weights or facts do not fit it, a fact is called `sample_id` or
            `facts`, or a list names none of its samples.
    """

    def __init__(
        self,
        dataset: Rows,
        *,
        name: str = "table",
        schema: Mapping[str, Any] | None = None,
        ids: Sequence[int | str] | None = None,
        weights: Any = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        url: str | None = None,
        select: Any = None,
        relabel: Any = None,
        label: str | int | None = None,
        facts: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        mode: str | None = None,
        ds_id: str | None = None,
    ) -> None:
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise XaiError(
                f"{type(dataset).__name__} is no map-style dataset: it has no length or no rows by number",
                hint="give an object with __len__ and __getitem__; read a stream into a list first",
            )
        if label is not None and relabel is None:
            raise UsageError("label says where labels are corrected, and there is no relabel", hint="leave it out")
        if relabel is None and select is None and (mode is not None or ds_id is not None):
            raise UsageError("mode and ds_id say which rows of select and relabel count", hint="leave them out")
        recorded = None if mode is None and ds_id is None else Recorded(mode, ds_id)
        self.rows = dataset
        self._length = len(dataset)
        self._train: tuple[_Transform, ...] = ()
        self._collect: tuple[_Transform, ...] | None = None
        self._viewed: Table | None = None
        self.name = name
        self.collate_fn = collate_fn
        self.schema = {column: checked(given, column=column) for column, given in (schema or {}).items()}
        self.sample_ids = None if ids is None else self._fitting(list(ids), "ids")
        self.weights = None if weights is None else self._valid_weights(weights)
        self.facts = self._valid_facts(facts)
        self._runs_with_facts: weakref.WeakSet[Any] = weakref.WeakSet()
        if relabel is not None:
            self.rows = relabelled(self.rows, self._ids(), relabel, label=label, schema=self.schema, recorded=recorded)
        if select is not None:
            self._choose(select, recorded)
            url = None  # the rows at that address are others
        self.url = url or self._memory_url(name)
        _known[self.url] = self

    def __getstate__(self) -> dict[str, Any]:
        """All but the runs that have its facts: they are of this process."""
        return {name: value for name, value in self.__dict__.items() if name != "_runs_with_facts"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._runs_with_facts = weakref.WeakSet()

    @classmethod
    def from_torch_dataset(cls, dataset: Rows, **options: Any) -> Table:
        """A table over a torch dataset: the constructor by the name the seed's package gives it."""
        return cls(dataset, **options)

    @classmethod
    def from_dict(cls, columns: Mapping[str, Any], **options: Any) -> Table:
        """A table of named arrays of one length; a sample is a dict. A column `weight` gives the weights."""
        options.setdefault("weights", columns.get(WEIGHT))
        return cls(ArrayRows(dict(columns)), **options)

    @classmethod
    def from_arrays(cls, *arrays: Any, **options: Any) -> Table:
        """A table of arrays of one length; a sample is a tuple, as from torch's `TensorDataset`."""
        named = {str(position): array for position, array in enumerate(arrays)}
        return cls(ArrayRows(named, as_tuple=True), **options)

    @classmethod
    def from_image_folder(cls, folder: str | os.PathLike[str], **options: Any) -> Table:
        """A table of the images in a folder; a sample is (PIL image, class number), sub-folders are the classes.

        The paths relative to the folder are the ids.
        """
        found = read_image_folder(Path(folder))
        options.setdefault("ids", found.ids)
        options.setdefault("name", Path(folder).name)
        options["schema"] = found.schema | dict(options.get("schema") or {})
        return cls(found.rows, url=str(folder), **options)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **options: Any) -> Table:
        """A table over a Parquet or CSV file; a sample is a dict. A column `weight` gives the weights."""
        rows = read_file(Path(path))
        if WEIGHT in rows.table.column_names:
            options.setdefault("weights", rows.table[WEIGHT].to_numpy())
        options.setdefault("name", Path(path).stem)
        options["schema"] = rows.schema | dict(options.get("schema") or {})
        return cls(rows, url=str(path), **options)

    from_parquet = from_file
    from_csv = from_file

    @classmethod
    def from_url(cls, url: str | os.PathLike[str]) -> Table:
        """The table at a `url`: one of this process, a file, or a folder of images.

        Raises:
            XaiError: There is none.
        """
        if table := _known.get(str(url)):
            return table
        path = Path(url)
        if path.is_dir():
            return cls.from_image_folder(path)
        if path.is_file():
            return cls.from_file(path)
        raise unknown("table", str(url), sorted(_known), where="this process or on disk")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return _transformed(self._row(index), self._train)

    def __repr__(self) -> str:
        return f"Table({self.name!r}, {len(self)} samples)"

    def map(self, function: _Transform) -> Table:
        """Apply a function to every sample as it is read, after those already there; returns the table itself."""
        self._train += (function,)
        return self

    def map_collect_metrics(self, function: _Transform) -> Table:
        """Apply a function to every *raw* sample when metrics are collected, instead of what `map` was given.

        So augmentations that training needs stay out of the metrics. Returns the table itself.
        """
        self._collect = (*(self._collect or ()), function)
        return self

    def with_transform(self, function: _Transform) -> Table:
        """A view of the same samples with one more function applied; this table stays as it is."""
        view = Table(
            self.rows,
            name=self.name,
            schema=self.schema,
            ids=self.sample_ids,
            weights=self.weights,
            collate_fn=self.collate_fn,
            url=self.url,
            facts=self.facts,
        )
        view._runs_with_facts = self._runs_with_facts
        view._train = (*self._train, function)
        view._collect = None if self._collect is None else (*self._collect, function)
        # The address goes on meaning the table as long as either is alive.
        view._viewed = _known[self.url] = self
        return view

    def collect_sample(self, index: int) -> Any:
        """A sample as metrics collectors see it."""
        return _transformed(self._row(index), self._train if self._collect is None else self._collect)

    def indices(self, *, exclude_zero_weights: bool = False) -> list[int]:
        """The row numbers, without those of weight 0 if so wished."""
        if exclude_zero_weights and self.weights is not None:
            return [int(index) for index in np.flatnonzero(self.weights)]
        return list(range(len(self)))

    def create_sampler(
        self, *, weighted: bool = True, shuffle: bool = True, exclude_zero_weights: bool = True, seed: int = 0
    ) -> Sampler[int] | Iterable[int]:
        """A sampler for training by the weights, with random numbers of its own.

        Args:
            weighted: Draw rows in proportion to their weight, with replacement.
            shuffle: Without `weighted`: in random order.
            exclude_zero_weights: Without `weighted`: leave rows of weight 0 out.
            seed: Of the private generator.
        """
        import torch
        from torch.utils.data import SubsetRandomSampler, WeightedRandomSampler

        generator = torch.Generator().manual_seed(seed)
        indices = self.indices(exclude_zero_weights=exclude_zero_weights)
        if weighted and self.weights is not None:
            drawn = len(indices)
            return WeightedRandomSampler(self.weights.tolist(), drawn, replacement=True, generator=generator)
        return SubsetRandomSampler(indices, generator=generator) if shuffle else indices

    def _ids(self) -> Sequence[int | str]:
        """The id of every row."""
        return range(len(self)) if self.sample_ids is None else self.sample_ids

    def _choose(self, select: Any, recorded: Recorded | None) -> None:
        """Keep the rows of a list.

        Raises:
            XaiError: It names none, or has weights beside those given.
        """
        rows, weights = chosen_rows(select, self._ids(), recorded)
        if weights is not None and self.weights is not None:
            raise XaiError("both the table and the list of select have weights", hint="leave weights out")
        if self.weights is not None:
            weights = self.weights[rows]
        if isinstance(self.facts, dict):
            self.facts = {name: [values[row] for row in rows.tolist()] for name, values in self.facts.items()}
        self.sample_ids = [self._ids()[row] for row in rows.tolist()]
        self.rows, self._length, self.weights = ChosenRows(self.rows, rows), len(rows), weights

    def _row(self, index: int) -> Any:
        if not -self._length <= index < self._length:
            raise IndexError(f"{self!r} has no row {index}")
        return self.rows[index % self._length]

    def _fitting(self, values: Any, what: str) -> Any:
        if len(values) != len(self):
            raise XaiError(f"{what} has length {len(values)}, the dataset {len(self)}")
        return values

    def _valid_facts(self, facts: Any) -> dict[str, list[Any]] | Path | None:
        """The facts as a value a row each, or their file.

        Raises:
            XaiError: They are neither, or do not fit the dataset.
        """
        if facts is None:
            return None
        if not isinstance(facts, Mapping):
            from xaicli.tables.fact_file import path_of_facts

            return path_of_facts(facts, 'values go by name, a row each: Table(..., facts={"camera": cameras})')
        if taken := [name for name in facts if str(name) in _NO_FACTS]:
            raise XaiError(f"{taken[0]} is no name of a fact", hint=_NO_FACTS[str(taken[0])])
        return {
            str(name): [values] * len(self)
            if isinstance(values, (str, bytes)) or not hasattr(values, "__len__")
            else list(self._fitting(values, f"the fact {name}"))
            for name, values in facts.items()
        }

    def log_facts(self, run: Any) -> None:
        """Record what the samples are, once a run: their ids are the caller's, or the row numbers.

        Args:
            run: The run; nothing is told to one that is only added to.
        """
        if self.facts is None or not hasattr(run, "log_facts") or run in self._runs_with_facts:
            return
        self._runs_with_facts.add(run)
        if isinstance(self.facts, Path):
            run.log_facts(facts=self.facts)
        else:
            run.log_facts(list(self._ids()), **self.facts)

    def _valid_weights(self, weights: Any) -> np.ndarray[Any, Any]:
        values = np.asarray(self._fitting(weights, "weights"), np.float64)
        if bad := int((~np.isfinite(values) | (values < 0)).sum()):
            raise XaiError(f"weights holds {bad} values that are negative or not finite", hint="0 leaves a row out")
        return values

    @staticmethod
    def _memory_url(name: str) -> str:
        url, number = f"memory:{name}", 1
        while url in _known:
            number += 1
            url = f"memory:{name}-{number}"
        return url


def length_of(table_or_url: Table | str | os.PathLike[str]) -> int:
    """The number of rows of a table given as such or by its `url`.

    Raises:
        XaiError: There is no such table.
    """
    if isinstance(table_or_url, Table):
        return len(table_or_url)
    if not str(table_or_url):
        raise UsageError("the address of the input table is empty", hint="give table.url")
    return len(Table.from_url(table_or_url))


def _transformed(sample: Any, functions: tuple[_Transform, ...]) -> Any:
    for function in () if isinstance(sample, Unreadable) else functions:
        sample = function(sample)
    return sample


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
