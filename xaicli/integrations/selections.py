"""Which tensors of a step are no row a sample, by what made them: places that a mask picked, pairs of samples."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

_BY_INDEX = frozenset({Tensor.__getitem__, torch.masked_select, Tensor.masked_select})
_OF_MASK = frozenset({torch.nonzero, Tensor.nonzero, torch.argwhere, Tensor.argwhere, torch.where})
"""What tells the places of a mask: of `where` the call with the mask alone."""
_PACKED = torch._VF._pack_padded_sequence
"""What picks places by how long texts are."""
_PICKING = _BY_INDEX | _OF_MASK | {_PACKED}
_PUTTING = frozenset({"_pad_packed_sequence", "masked_scatter", "index_put", "index_copy", "scatter"})
"""What puts values that were picked back at their places among all, by its name."""
_PRODUCTS = frozenset({"matmul", "__matmul__", "__rmatmul__", "mm", "einsum", "linear", "cdist", "_euclidean_dist"})
"""What makes a number of every row of one tensor with every row of another, by its name."""
_AS_IT_IS = frozenset({"to", "cuda", "cpu", "long", "float", "double", "half", "int", "type_as"}) | frozenset(
    {"clone", "contiguous", "detach", "squeeze", "flatten", "reshape", "view", "ravel"}
)
"""What gives a tensor's values on in their order, by its name."""
_PARTS = frozenset({"__getitem__", "__iter__", "unbind", "split", "chunk", "select", "narrow"})
"""What gives a part of a tensor, or its parts, by its name."""


@dataclass(frozen=True)
class Picked:
    """Places of a tensor that a mask picked.

    Attributes:
        source: The tensor; None where that, or the mask, is not known.
        mask: True where a place was picked: of the source's first dimensions.
    """

    source: Tensor | None = None
    mask: Tensor | None = None


@dataclass
class Selections:
    """What a step made of masks and of pairs, told while it runs by the operations that it calls.

    Attributes:
        picked: The tensors that a mask picked, and what was made of them, by their identity.
        given: What is made of the batch, where the step is watched closely; None where it is not.
        pairs: Tensors with a number for every two samples, where the step is watched closely.
    """

    picked: dict[int, tuple[weakref.ref[Tensor], Picked]] = field(default_factory=dict)
    given: dict[int, weakref.ref[Tensor]] | None = None
    pairs: dict[int, weakref.ref[Tensor]] = field(default_factory=dict)

    def begin(self, batch: Any) -> None:
        """Watch what is made of a batch."""
        self.given = {id(one): weakref.ref(one) for one in _tensors((batch,), depth=4)}

    def of(self, tensor: Tensor) -> Picked | None:
        """What is known of a tensor that a mask picked; None of any other."""
        found = self.picked.get(id(tensor))
        return found[1] if found is not None and found[0]() is tensor else None

    def is_of_pairs(self, tensor: Tensor) -> bool | None:
        """Whether a tensor has a number for every two samples; None where the step is not watched closely."""
        return None if self.given is None else _holds(self.pairs, tensor)

    def called(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """An operation of torch made this of these.

        Of all that a step calls: nearly every one is let by at once.
        """
        is_picking = func in _PICKING
        if not (is_picking or self.picked) and self.given is None:
            return
        name = getattr(func, "__name__", "")
        picked = _picked_by(func, args) if is_picking else None
        if picked is None and self.picked:
            picked = self._handed_on(name, args, kwargs, result)
        if picked is not None:
            # Of packed texts the second says how many hold each place.
            for one in _tensors((result[0] if func is _PACKED else result,)):
                # What it was picked of is let go with it: only what a criterion is given is asked about later.
                self.picked[id(one)] = weakref.ref(one, partial(_forget, self.picked, id(one))), picked
        if self.given is None:
            return
        of_batch = [one for one in _tensors((args, kwargs), depth=3) if _holds(self.given, one)]
        for one in _tensors((result,)) if of_batch else ():
            self.given[id(one)] = weakref.ref(one)
            if _is_of_pairs(name, of_batch, one) or (
                name not in _PRODUCTS
                and any(other.shape == one.shape and _holds(self.pairs, other) for other in of_batch)
            ):
                self.pairs[id(one)] = weakref.ref(one)

    def clear(self) -> None:
        """Let go of all that is known of tensors."""
        self.picked.clear()
        self.pairs.clear()
        self.given = None

    def _handed_on(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Picked | None:
        """What is known of what was made of picked tensors: as many rows, or the same numbers in another shape."""
        for one in _tensors((args, kwargs), depth=3):
            if (known := self.of(one)) is None:
                continue
            if name == "__getitem__" and one is not args[0]:
                return Picked()  # at the places that a mask told
            if name in _PUTTING and (name == "_pad_packed_sequence" or one is not args[0]):
                continue
            made = [of for of in _tensors((result,)) if of.ndim]
            if (made and name in _PARTS) or any(
                of.shape[:1] == one.shape[:1] or of.numel() == one.numel() for of in made
            ):
                return known if name in _AS_IT_IS and one is args[0] else Picked()
        return None


def _picked_by(func: Any, args: Sequence[Any]) -> Picked | None:
    """What a call picked by a mask, or by how long texts are."""
    if func is _PACKED:
        return Picked()
    if func in _OF_MASK:
        return Picked() if func is not torch.where or len(args) == 1 else None
    if len(args) < 2 or not isinstance(args[0], Tensor):
        return None
    index = args[1]
    if _is_mask(index):
        source, mask = args[0].detach(), torch.as_tensor(index, device=args[0].device).bool()
        is_known = source.shape[: mask.ndim] == mask.shape
        return Picked(source, mask) if is_known else Picked()
    several = index if isinstance(index, (tuple, list)) else ()
    return Picked() if any(map(_is_mask, several)) else None


def _forget(picked: dict[int, tuple[weakref.ref[Tensor], Picked]], key: int, gone: weakref.ref[Tensor]) -> None:
    if key in picked and picked[key][0] is gone:
        del picked[key]


def _is_of_pairs(name: str, of: Sequence[Tensor], made: Tensor) -> bool:
    """Whether an operation made a number, or more, of every two rows of what is made of the batch."""
    if made.ndim < 2 or made.shape[0] != made.shape[1] or made.shape[0] < 2 or len(of) < 2:
        return False
    if name in _PRODUCTS:
        return made.ndim == 2
    # As by broadcasting: rows one below the other, beside rows one after the other.
    n = made.shape[0]
    wide, high = ([one for one in of if one.ndim >= 2 and one.shape[:2] == shape] for shape in ((1, n), (n, 1)))
    return bool(wide and high)


def _is_mask(index: Any) -> bool:
    if isinstance(index, Tensor):
        return index.ndim > 0 and index.dtype in (torch.bool, torch.uint8)
    return getattr(getattr(index, "dtype", None), "kind", "") == "b" and getattr(index, "ndim", 0) > 0


def _holds(those: Mapping[int, weakref.ref[Tensor]], tensor: Tensor) -> bool:
    found = those.get(id(tensor))
    return found is not None and found() is tensor


def _tensors(values: Any, depth: int = 2) -> Iterator[Tensor]:
    """The tensors among values, in lists and dicts, too."""
    if isinstance(values, Tensor):
        yield values
    elif depth and isinstance(values, Mapping):
        for one in values.values():
            yield from _tensors(one, depth - 1)
    elif depth and isinstance(values, (list, tuple)):
        for one in values:
            yield from _tensors(one, depth - 1)
    elif depth and hasattr(values, "__dataclass_fields__"):
        for name in values.__dataclass_fields__:
            yield from _tensors(getattr(values, name, None), depth - 1)
