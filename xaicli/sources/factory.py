"""Data from the user's own code: a Dataset, an iterable, arrays, whatever `module:factory` makes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xaicli.checkpoint.architecture import resolve, searching
from xaicli.errors import XaiError
from xaicli.sources.arrays import ID_NAMES, INPUT_NAMES, LABEL_NAMES, from_arrays
from xaicli.sources.inputs import BadSampleError, IndexedSource, Sample, plain
from xaicli.sources.pictures import Preparation

if TYPE_CHECKING:
    from xaicli.tables.table import Table

_MOST_ITEMS = 1_000_000


def open_factory(
    spec: str,
    preparation: Preparation,
    *,
    mode: str | None,
    pythonpath: Sequence[str | PathLike[str]],
    strict: bool,
) -> IndexedSource:
    """Import what the user named, call it where it can be called, and take what it gives as samples.

    Args:
        spec: `module:factory`. A factory that has a parameter `mode` is given the mode.
        preparation: How pixels become input.
        mode: The mode asked for.
        pythonpath: Folders searched for the module.
        strict: Whether a sample that cannot be read is an error.

    Raises:
        XaiError: There is no such factory, it fails, or what it gives holds no samples.
    """
    made = resolve(spec, pythonpath=pythonpath, option="--data")
    reads_mode = False
    if isinstance(made, type) or (callable(made) and not hasattr(made, "__getitem__")):
        reads_mode = "mode" in _parameters(made)
        arguments = {"mode": mode} if reads_mode and mode is not None else {}
        with searching(pythonpath):
            try:
                made = made(**arguments)
            except TypeError as error:
                raise XaiError(f"--data {spec}: {error}", hint="name a factory that needs no arguments") from error
            except Exception as error:  # whatever the caller's own code raises
                if isinstance(error, XaiError):
                    raise
                given = "its mode alone" if arguments else "nothing"
                raise XaiError(
                    f"--data {spec} fails: {type(error).__name__}: {error}", hint=f"it is called with {given}"
                ) from error
    return replace(from_object(made, f"--data {spec}", preparation, strict=strict), reads_mode=reads_mode)


def from_object(made: Any, name: str, preparation: Preparation, *, strict: bool) -> IndexedSource:
    """A source from a Dataset, a DataLoader, an iterable of samples, `(x, y)` arrays, or a dict of arrays.

    Args:
        made: The object. A sample is `x`, `(x, y)`, `(x1, x2, ..., y)`, `(sample_id, x, y)`, or a dict.
        name: What to call it in errors.
        preparation: How pixels become input.
        strict: Whether a sample that cannot be read is an error.

    Raises:
        XaiError: It is none of these.
    """
    if isinstance(made, Mapping):
        return from_arrays({str(key): _array(value) for key, value in made.items()}, name, preparation, strict=strict)
    if _is_array(made):
        return from_arrays({"x": _array(made)}, name, preparation, strict=strict)
    if isinstance(made, tuple) and all(_is_array(part) for part in made) and made:
        *inputs, labels = made if len(made) > 1 else (*made, None)
        arrays = {f"x{i}" if len(inputs) > 1 else "x": _array(part) for i, part in enumerate(inputs)}
        extra = {} if labels is None else {"y": _array(labels)}
        return from_arrays(arrays | extra, name, preparation, strict=strict)
    table = _table(made)
    dataset, notes = (_Rows(table), ()) if table is not None else _unwrapped(made, name)
    items = _items(dataset, name)
    return IndexedSource(
        _Ids(items, preparation.names) if table is None or table.sample_ids is None else list(table.sample_ids),
        lambda position: _sample(items, position, preparation),
        name,
        strict,
        _asked(name, "classes", lambda: _names(dataset)),
        notes=notes,
    )


@dataclass(frozen=True)
class _Rows(Sequence[Any]):
    """The samples of a `Table` as collectors see them, without what training alone does to them."""

    table: Table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, position: Any) -> Any:
        return self.table.collect_sample(position)


def _table(made: Any) -> Table | None:
    from xaicli.tables.table import Table

    return made if isinstance(made, Table) else None


def _unwrapped(made: Any, name: str) -> tuple[Any, tuple[str, ...]]:
    """The dataset of torch's DataLoader, which would shuffle and batch, and what is said of that; all else as it is."""
    data = sys.modules.get("torch.utils.data")
    if data is None or not isinstance(made, data.DataLoader):
        return made, ()
    notes = []
    usual = data.SequentialSampler, data.RandomSampler, data.DistributedSampler
    if not isinstance(made.dataset, data.IterableDataset):
        asks = made.sampler if type(made.batch_sampler) in (data.BatchSampler, type(None)) else made.batch_sampler
        if not isinstance(asks, usual):
            notes.append(
                f"the {type(asks).__name__} of the DataLoader of {name} chooses nothing here: all samples of its "
                "dataset are taken; for some of them give torch.utils.data.Subset"
            )
    if made.collate_fn not in (data.default_collate, data.default_convert):
        notes.append(
            f"the collate_fn of the DataLoader of {name} is not called: samples come as its dataset has them; what it "
            "does to each belongs in the dataset"
        )
    return made.dataset, tuple(notes)


@dataclass(frozen=True)
class _Consumed(Sequence[Any]):
    """The items of an iterable, kept as they are asked for: a generator can be read once only."""

    rest: Iterator[Any]
    name: str
    seen: list[Any] = field(default_factory=list)

    def __len__(self) -> int:
        self._fill(_MOST_ITEMS)
        return len(self.seen)

    def __getitem__(self, position: Any) -> Any:
        self._fill(position + 1)
        return self.seen[position]

    def _fill(self, n: int) -> None:
        while len(self.seen) < n:
            try:
                self.seen.append(next(self.rest))
            except StopIteration:
                return
            except Exception as error:  # the user's own reading code: an iterator that has failed goes no further
                if isinstance(error, XaiError):
                    raise
                n = len(self.seen)
                read = f"it is an iterable, which raises after {n:,} {'sample' if n == 1 else 'samples'}"
                raise XaiError(f"{self.name} fails: {type(error).__name__}: {str(error)[:200]}", hint=read) from error


@dataclass(frozen=True)
class _Ids(Sequence[Any]):
    """The ids of items: what they say, else their positions.

    To read all items of a Dataset for their ids may take long: where those of the first, the middle and the last are
    their positions, so are the others'.
    """

    items: Any
    inputs: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: Any) -> Any:
        if not isinstance(self.items, _Consumed) and position >= len(self.items):
            raise IndexError(position)
        return self._own_id(position) if self._say_others else position

    @cached_property
    def _say_others(self) -> bool:
        """Whether some item says another id than its position."""
        if isinstance(self.items, (_Consumed, list, tuple)):
            return True
        n = len(self.items)
        return any(self._own_id(position) != position for position in {0, n // 2, n - 1} if 0 <= position < n)

    def _own_id(self, position: int) -> Any:
        try:
            return _id_of(self.items[position], position, self.inputs)
        except Exception as error:  # the user's own reading code: `take` names the sample
            if isinstance(error, XaiError) or (isinstance(error, IndexError) and isinstance(self.items, _Consumed)):
                raise
            return position


def _items(dataset: Any, name: str) -> Any:
    # torch's own for streams have rows by number as all of its datasets, and raise when they are asked for one.
    streams = any(kind.__name__ == "IterableDataset" for kind in type(dataset).__mro__)
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and not streams:
        _asked(name, "__len__", lambda: len(dataset))
        return dataset
    if isinstance(dataset, Iterable):
        return _Consumed(_asked(name, "__iter__", lambda: iter(dataset)), name)
    raise XaiError(
        f"{name} gives a {type(dataset).__name__}", hint="give a Dataset, an iterable, (x, y) or a dict of arrays"
    )


def _asked(name: str, part: str, ask: Callable[[], Any]) -> Any:
    """What the caller's own object says when it is asked for a part of it."""
    try:
        return ask()
    except Exception as error:  # whatever the caller's own code raises
        if isinstance(error, XaiError):
            raise
        raise XaiError(f"{name} fails: {type(error).__name__}: {error}", hint=f"its {part} raises") from error


def _sample(items: Any, position: int, preparation: Preparation) -> Sample:
    try:
        item = items[position]
    except XaiError:
        raise
    except Exception as error:  # the user's own reading code: any failure is that sample's
        raise BadSampleError(f"{type(error).__name__}: {str(error)[:200]}") from error
    inputs, label = _parts(item, preparation.names)
    prepared = {key: preparation.from_array(_array(value), key) for key, value in inputs.items()}
    if not prepared:
        raise BadSampleError("it has no input")
    return Sample({k: array for k, (array, _) in prepared.items()}, label, next(iter(prepared.values()))[1])


def _parts(item: Any, names: Sequence[str]) -> tuple[dict[str, Any], Any]:
    """The inputs by name and the label of one item; the model's own names for its inputs come first."""
    if isinstance(item, Mapping):
        label = next((item[key] for key in LABEL_NAMES if key in item and key not in names), None)
        if known := [name for name in names if name in item]:
            return {name: item[name] for name in known}, label
        usual = next((key for key in INPUT_NAMES if key in item), None)
        if usual is not None:
            return {"": item[usual]}, label
        return {str(k): v for k, v in item.items() if k not in (*LABEL_NAMES, *ID_NAMES)}, label
    if isinstance(item, tuple | list):
        parts = item[1:] if len(item) > 2 and _is_scalar(item[0]) else item
        if len(parts) == 1:
            return {"": parts[0]}, None
        *inputs, label = parts
        return {("" if len(inputs) == 1 else f"x{i}"): part for i, part in enumerate(inputs)}, label
    return {"": item}, None


def _id_of(item: Any, position: int, inputs: Sequence[str]) -> Any:
    if isinstance(item, Mapping):
        # What the model calls its inputs is no id, and neither is a row of token ids.
        said = (item[key] for key in ID_NAMES if key in item and key not in inputs and _is_scalar(item[key]))
        return plain(next(said, position))
    if isinstance(item, tuple | list) and len(item) > 2 and _is_scalar(item[0]):
        return plain(item[0])
    return position


def _names(dataset: Any) -> tuple[str, ...] | None:
    inner = getattr(dataset, "dataset", None)  # of a Subset, or of a wrapper of one's own
    names = getattr(dataset, "classes", getattr(inner, "classes", None))
    return tuple(map(str, names)) if isinstance(names, list | tuple) else None


def _array(value: Any) -> NDArray[Any]:
    """An array from a tensor, a PIL image, a list or an array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    return np.asarray(value)


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and hasattr(value, "shape") and len(value.shape) > 0


def _is_scalar(value: Any) -> bool:
    return isinstance(value, int | str | np.integer) or getattr(value, "shape", None) == ()


def _parameters(function: Any) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return set()
