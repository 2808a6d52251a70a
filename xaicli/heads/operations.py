"""What range a tensor has, told from the operations that made it and never from its values.

A model that ends in a softmax is seen to do so whether it is a module, a function, an exported graph or TorchScript,
with or without gradients, and although views, means over places or a temperature come after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary


class Range(Enum):
    """What numbers a tensor can hold."""

    REAL = "real numbers"
    POSITIVE = "numbers of 0 and above"
    PROBABILITIES = "probabilities"
    """Each in [0, 1], whatever the others are: a sigmoid."""
    DISTRIBUTION = "probabilities that sum to one"
    """Along one axis: a softmax."""
    LOG_PROBABILITIES = "logarithms of probabilities"
    LOG_DISTRIBUTION = "logarithms of probabilities that sum to one"
    UNKNOWN = "numbers of unknown range"
    """A product or a ratio of such numbers: what it means cannot be told."""


@dataclass(frozen=True)
class Origin:
    """Where a tensor comes from.

    Attributes:
        operation: The operation that gave it its range ("_softmax", "addmm").
        range: That range.
        axis: The axis a distribution sums along, or the axis of a linear layer's outputs, counted from the end (-1 the
            last); None where it is not known.
        whole: For a sum, the number of the tensor it is the sum of.
        number: Unlike that of any other tensor but its views.
        linear: Whether nothing but sums and products with constants made it.
    """

    operation: str
    range: Range
    axis: int | None = None
    whole: int | None = None
    number: int = 0
    linear: bool = False


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_AS_IT_IS = _names(
    "clone _to_copy to alias detach detach_ contiguous lift_fresh clamp clamp_min clamp_max clamp_ expand expand_as "
    "constant_pad_nd nan_to_num dropout native_dropout lift copy_ type_as index masked_fill masked_select"
)
_SHAPED = _names("view _unsafe_view reshape _reshape_alias as_strided flatten unflatten view_as")
_LINEAR = _names("addmm mm bmm baddbmm addmv mv dot linear matmul einsum addbmm linear_dynamic")
_NORMS = _names("native_batch_norm _native_batch_norm_legit_no_training native_layer_norm native_group_norm batch_norm")
_CONVOLUTIONS = _names("convolution _convolution conv1d conv2d conv3d mkldnn_convolution cudnn_convolution")
_SUMS = _names("add add_ sub sub_ sum mean rsub")
_POOLS = _names(
    "mean adaptive_avg_pool2d _adaptive_avg_pool2d avg_pool2d adaptive_avg_pool1d upsample_bilinear2d "
    "upsample_nearest2d upsample_bicubic2d _upsample_bilinear2d_aa"
)
_SCALED = _names("mul mul_ div div_ true_divide")
_SIGMOIDS = _names("sigmoid sigmoid_ hardsigmoid hardsigmoid_ special_expit")
_POSITIVE = _names("exp exp_ relu relu_ softplus abs square sqrt relu6 exp2")
_SOFTMAX = _names("softmax _softmax _safe_softmax")
_LOG_SOFTMAX = _names("log_softmax _log_softmax")
_LOG_SIGMOID = _names("log_sigmoid log_sigmoid_forward")
_TURNED = _names("t transpose transpose_ swapaxes permute numpy_T")
_SQUEEZED = _names("squeeze unsqueeze squeeze_ unsqueeze_")
_PARTS = _names("select slice narrow index_select split chunk unbind split_with_sizes")
_CHOSEN = _names(
    "max min amax amin maximum minimum sort topk gather median where take_along_dim max_pool2d_with_indices"
)
_BOTH = frozenset((Range.PROBABILITIES, Range.DISTRIBUTION))
_LOGARITHM = {Range.DISTRIBUTION: Range.LOG_DISTRIBUTION, Range.PROBABILITIES: Range.LOG_PROBABILITIES}
_ALL_PROBABLE = frozenset((*_BOTH, Range.LOG_PROBABILITIES, Range.LOG_DISTRIBUTION))
_EXPONENTIAL = {logarithm: plain for plain, logarithm in _LOGARITHM.items()}


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes of every tensor made while it is active what made it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._origins: Any = WeakTensorKeyDictionary()
        self._made = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # Else torch loads its whole compiler, seconds, to say that it is not to be used here.

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """What is compiled by torch stays so; who watches takes this mode away while it runs."""
        return True

    def origin(self, tensor: torch.Tensor) -> Origin | None:
        """Where a tensor comes from; None where it was not made under this watch."""
        found: Origin | None = self._origins.get(tensor)
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        inputs = args[1:3] if name == "where" else args[:2]
        before = [self._known(value) for value in inputs]
        parts = [self._known(value) for value in args[0]] if args and isinstance(args[0], (list, tuple)) else None
        result = func(*args, **kwargs)
        for place, made in enumerate(result if isinstance(result, (list, tuple)) else (result,)):
            if isinstance(made, torch.Tensor) and made.is_floating_point():
                if name == "broadcast_tensors":  # each is as it was, and may be the very tensor that was given
                    origin = parts[place] if parts else None
                else:
                    origin = self._of(name, made, args, kwargs, before, parts)
                if origin is not None:
                    self._origins[made] = origin
        return result

    def _known(self, value: Any) -> Origin | None:
        return self._origins.get(value) if isinstance(value, torch.Tensor) else None

    def _of(
        self,
        name: str,
        made: torch.Tensor,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        before: Sequence[Origin | None],
        parts: Sequence[Origin | None] | None,
    ) -> Origin | None:
        first = before[0] if before else None
        self._made += 1
        new = Origin(name, Range.REAL, number=self._made)
        if (squashed := _squashed(new, first, args, kwargs, made)) is not None:
            return squashed
        if name.startswith("clamp") and first is not None and _is_unit(args, kwargs):
            return first if first.range in _ALL_PROBABLE else _lost(new)
        if name in _AS_IT_IS:
            whole_numbers = bool(args) and isinstance(args[0], torch.Tensor) and not args[0].is_floating_point()
            return new if whole_numbers else first
        if name in ("cat", "stack", "concat", "_stack"):
            return _joined(new, parts or [], _argument(args, kwargs, 1, "dim", 0), made)
        if first is not None and (moved := _moved(name, first, args, kwargs, made)) is not None:
            return moved
        if name in _SHAPED:
            return None
        if name in _SCALED:
            return _scaled(new, args, before, made)
        if name in _SUMS:
            return _summed(new, args, before)
        probable = next((origin for origin in before if origin is not None and origin.range in _ALL_PROBABLE), None)
        if probable is None:
            return new
        return _part_of(probable) if name in _CHOSEN else _lost(new)


@contextmanager
def watching() -> Iterator[Callable[[torch.Tensor], Origin | None]]:
    """What made the tensors computed in this block: a function from a tensor to its `Origin`."""
    watch = Watch()
    with watch:
        yield watch.origin


def _argument(args: Sequence[Any], kwargs: dict[str, Any], position: int, name: str, default: Any = None) -> Any:
    return args[position] if len(args) > position else kwargs.get(name, default)


def _is_unit(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether a clamp leaves numbers of [0, 1]: what they mean is then no longer a logit for certain."""
    low, high = _argument(args, kwargs, 1, "min"), _argument(args, kwargs, 2, "max")
    return isinstance(low, (int, float)) and isinstance(high, (int, float)) and low >= 0 and high <= 1


def _from_end(axis: Any, ndim: int) -> int | None:
    return None if not isinstance(axis, int) else axis - ndim if axis >= 0 else axis


def _axis_after_view(axis: int | None, before: torch.Tensor, after: torch.Tensor) -> int | None:
    """Where an axis lies after a view: where the axes behind it, and its own length, are as they were."""
    if axis is None or -axis > before.ndim:
        return None
    if -axis <= after.ndim and before.shape[axis:] == after.shape[axis:]:
        return axis
    behind = before.shape[axis:][1:].numel()
    # The places of a picture put into one axis, or taken apart again.
    for found in range(-1, -after.ndim - 1, -1):
        if after.shape[found] == before.shape[axis] and after.shape[found:][1:].numel() == behind:
            return found
    return None


def _squashed(
    new: Origin, first: Origin | None, args: Sequence[Any], kwargs: dict[str, Any], made: torch.Tensor
) -> Origin | None:
    """What gives a tensor its range whatever it was before; None for another operation."""
    name, before = new.operation, first.range if first is not None else None
    if name in _SOFTMAX or name in _LOG_SOFTMAX:
        axis = _from_end(_argument(args, kwargs, 1, "dim"), made.ndim)
        return replace(new, range=Range.DISTRIBUTION if name in _SOFTMAX else Range.LOG_DISTRIBUTION, axis=axis)
    if name in _SIGMOIDS:
        return replace(new, range=Range.PROBABILITIES)
    if name in _LOG_SIGMOID:
        return replace(new, range=Range.LOG_PROBABILITIES)
    if first is not None and name in ("log", "log_") and before in _LOGARITHM:
        return replace(new, range=_LOGARITHM[before], axis=first.axis)
    if first is not None and name in ("exp", "exp_") and before in _EXPONENTIAL:
        return replace(new, range=_EXPONENTIAL[before], axis=first.axis)
    if name in _POSITIVE:
        return replace(new, range=Range.POSITIVE, axis=first.axis if first else None)
    if name in _NORMS:
        return replace(new, axis=first.axis if first else None, linear=True)
    if name in _LINEAR:
        return replace(new, axis=-1, linear=True)
    return replace(new, axis=1 - made.ndim, linear=True) if name in _CONVOLUTIONS else None


def _moved(name: str, first: Origin, args: Sequence[Any], kwargs: dict[str, Any], made: torch.Tensor) -> Origin | None:
    """What views that move, add and take away axes, and means, leave of a range; None for another operation."""
    before: torch.Tensor = args[0]
    axis = first.axis
    if name in _SHAPED or name in _SQUEEZED:
        return replace(first, axis=_axis_after_view(axis, before, made))
    if name in _TURNED:
        order = _order(name, args, kwargs, before.ndim)
        return first if axis is None else replace(first, axis=order.index(axis % before.ndim) - before.ndim)
    if name in _PARTS:
        return _taken(name, first, args, kwargs, made)
    if name in _POOLS and name != "mean":
        return first
    if name == "mean" and (first.range is not Range.REAL or len(args) > 1 or "dim" in kwargs):
        over = _argument(args, kwargs, 1, "dim")
        axes = {a % before.ndim - before.ndim for a in over or ()}
        if not axes or axis is None or axis in axes:
            return _part_of(first)
        kept = bool(_argument(args, kwargs, 2, "keepdim", False))
        return replace(first, axis=axis if kept else axis + sum(a > axis for a in axes))
    if name == "sum" and first.range in (Range.POSITIVE, *_BOTH):
        return Origin(name, Range.POSITIVE, whole=first.number, number=-1)
    return None


def _order(name: str, args: Sequence[Any], kwargs: dict[str, Any], ndim: int) -> list[int]:
    """Which axis each axis was before it was turned."""
    if name == "permute":
        return [int(a) % ndim for a in _argument(args, kwargs, 1, "dims")]
    order = list(range(ndim))
    if name in ("t", "numpy_T"):
        return order[::-1]
    a, b = (int(_argument(args, kwargs, i, f"dim{i - 1}")) % ndim for i in (1, 2))
    order[a], order[b] = order[b], order[a]
    return order


def _taken(name: str, first: Origin, args: Sequence[Any], kwargs: dict[str, Any], made: torch.Tensor) -> Origin:
    """The range of a part of a tensor along an axis."""
    before: torch.Tensor = args[0]
    at = _from_end(_argument(args, kwargs, 2 if name.startswith(("split", "chunk")) else 1, "dim", 0), before.ndim)
    gone = name in ("select", "unbind")
    if first.axis is None or at is None or at == first.axis:
        if made.shape == before.shape:
            return first
        return replace(_part_of(first), axis=None if gone or first.axis is None else first.axis)
    return replace(first, axis=first.axis + 1 if gone and at > first.axis else first.axis)


def _part_of(origin: Origin) -> Origin:
    """Some of the numbers of a distribution: probabilities that need not sum to one."""
    alone = {Range.DISTRIBUTION: Range.PROBABILITIES, Range.LOG_DISTRIBUTION: Range.LOG_PROBABILITIES}
    return replace(origin, range=alone.get(origin.range, origin.range), axis=None)


def _joined(new: Origin, parts: Sequence[Origin | None], dim: Any, made: torch.Tensor) -> Origin:
    ranges = {part.range if part else None for part in parts}
    if len(ranges) != 1 or None in ranges:
        return replace(new, range=Range.REAL if ranges <= {Range.REAL, None} else Range.UNKNOWN)
    first = parts[0]
    assert first is not None
    if first.range is Range.PROBABILITIES and len(parts) == 2 and parts[1] is not None:
        one, other = first, parts[1]
        if one.whole == other.number or other.whole == one.number:  # p beside 1 - p
            return replace(new, range=Range.DISTRIBUTION, axis=_from_end(dim, made.ndim))
    if first.axis is not None and _from_end(dim, made.ndim) == first.axis:
        return replace(_part_of(first), operation=new.operation, number=new.number)
    return replace(first, operation=first.operation, number=new.number)


def _scaled(new: Origin, args: Sequence[Any], before: Sequence[Origin | None], made: torch.Tensor) -> Origin | None:
    a, b = (*before, None, None)[:2]
    # One number for all, a learnt scale as well, is a constant.
    wide = [isinstance(value, torch.Tensor) and value.ndim > 0 for value in args[:2]]
    if not all(wide) or a is None or b is None:
        known = (a if wide[0] else None) or (b if wide[1] else None) or a or b
        if known is None:
            return new
        # A temperature, a learnt scale: logits stay logits, while a probability times 10 is none.
        return replace(known, number=new.number) if known.range in (Range.REAL, Range.POSITIVE) else _lost(new)
    if new.operation in ("div", "div_", "true_divide"):
        if a.range is Range.POSITIVE and b.whole == a.number:
            length = args[1].shape
            axis = next((i for i in range(-1, -made.ndim - 1, -1) if -i <= len(length) and length[i] == 1), None)
            return replace(new, range=Range.DISTRIBUTION, axis=axis)
        return new if a.range is Range.REAL else _lost(new)
    if a.range in _BOTH and b.range in _BOTH:
        return replace(new, range=Range.PROBABILITIES)
    return new if Range.REAL in (a.range, b.range) else _lost(new)


def _summed(new: Origin, args: Sequence[Any], before: Sequence[Origin | None]) -> Origin | None:
    a, b = (*before, None, None)[:2]
    if new.operation == "rsub" and a is not None and a.range in _BOTH and args[1] == 1:
        return replace(new, range=Range.PROBABILITIES, whole=a.number)
    known = [origin for origin in (a, b) if origin is not None]
    if new.operation.startswith("add") and a is not None and a.whole is not None and b is None:
        return a  # a little that keeps a sum from being zero
    ranges = {origin.range for origin in known}
    if ranges - {Range.REAL, Range.POSITIVE}:
        return _lost(new)
    axes = {origin.axis for origin in known}
    linear = all(origin.linear for origin in known)
    return replace(new, axis=axes.pop() if len(axes) == 1 else None, linear=linear)


def _lost(new: Origin) -> Origin:
    return replace(new, range=Range.UNKNOWN)
