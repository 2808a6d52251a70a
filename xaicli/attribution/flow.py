"""Which way inputs take through a model: what embeds them, which axis is read as channels, where feature maps are.

Told from the functions a forward pass calls, so that modules, functions and exported graphs are seen alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from xaicli.attribution.lookups import Lookup, lookup_of, name_of, tensors_in

_CONVOLUTIONS = frozenset(("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"))
_CHANNELS_SECOND = _CONVOLUTIONS | {"batch_norm", "instance_norm", "group_norm"}
_CHANNELS_LAST = frozenset(("linear", "layer_norm", "rms_norm"))
_ACTIVATIONS = frozenset(("relu", "gelu", "silu", "hardswish", "leaky_relu", "elu", "mish", "relu6", "prelu", "add"))
_FEATURE_MAPS = _CHANNELS_SECOND | _ACTIVATIONS | {"layer_norm", "rms_norm"}
_RESHAPES = frozenset(("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "getitem", "unsafe_view"))
_KEEP_VALUES = _RESHAPES | {"to", "clone", "contiguous", "long", "int", "type", "expand", "alias", "detach", "clamp"}
_KEEP_VALUES |= {"clamp_min", "clamp_max", "to_copy", "slice", "cuda", "cpu"}
_MOVES = _RESHAPES | {"transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis", "t", "T", "mT", "numpy_T"}
_MOVES |= {"contiguous", "clone", "alias", "detach", "slice", "select", "narrow", "unbind", "chunk", "tensor_split"}
_MOVES |= {"split", "split_with_sizes", "index", "index_select", "flip", "cat", "concat", "stack", "hstack", "expand"}
_CONVERT = frozenset(("to", "to_copy", "long", "int", "type", "clamp", "clamp_min", "clamp_max", "cuda", "cpu"))
_NO_VALUES = frozenset(("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros"))
_NO_VALUES |= {"new_ones", "new_full", "new_empty", "new_tensor"}
_MIXING = frozenset(("matmul", "mm", "bmm", "einsum", "scaled_dot_product_attention", "multi_head_attention_forward"))


@dataclass(frozen=True)
class _Trace:
    """What is known of a tensor.

    Attributes:
        sources: The inputs it depends on.
        same: The input whose values it holds, in order.
        axes: For values of one input that were only moved or changed one by one: which axis of it each axis is.
        channel: The axis of channels, counted from the end.
        convolved: Whether a convolution lies behind it.
    """

    sources: frozenset[int] = frozenset()
    same: int | None = None
    axes: tuple[int | None, ...] | None = None
    channel: int | None = None
    convolved: bool = False


@dataclass(frozen=True)
class FeatureMap:
    """An activation with channels and places.

    Attributes:
        call: Which of the calls that can give one.
        sources: The inputs it depends on.
        channel: The axis of its channels, counted from the end.
        ndim: How many axes it has.
        result: Whether it is among what the model returned.
    """

    call: int
    sources: frozenset[int]
    channel: int
    ndim: int
    result: bool = False


@dataclass
class Flow:
    """What one pass of a model showed.

    Attributes:
        embedded: {input: the look-ups of its values}.
        maybe_embedded: The same for what was computed from an input.
        otherwise: {input: the places of a sample that something else than a look-up reads}.
        read: {input: the axis of it that the first layer reads as channels}.
        maps: The activations, in order.
    """

    embedded: dict[int, list[Lookup]] = field(default_factory=dict)
    maybe_embedded: dict[int, list[Lookup]] = field(default_factory=dict)
    otherwise: dict[int, set[int]] = field(default_factory=dict)
    read: dict[int, int] = field(default_factory=dict)
    maps: list[FeatureMap] = field(default_factory=list)


def flow_of(run: Callable[[], Any], inputs: Sequence[Tensor]) -> tuple[Flow, Any]:
    """What a pass shows, and what the model returned.

    Args:
        run: Runs the model on the inputs.
        inputs: Those very tensors, a few rows each.
    """
    watcher = _Watcher(inputs)
    with watcher:
        result = run()
    returned = {id(t) for t in tensors_in(result)} | {id(t) for t in tensors_in(getattr(result, "__dict__", {}))}
    watcher.flow.maps = [
        replace(found, result=True) if id(tensor) in returned else found
        for found, tensor in zip(watcher.flow.maps, watcher.map_tensors, strict=True)
    ]
    return watcher.flow, result


class _Watcher(TorchFunctionMode):
    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.flow = Flow()
        self.map_tensors: list[Tensor] = []
        self._held = list(inputs)  # An id is a tensor's only as long as the tensor lives.
        self._known = {
            id(x): _Trace(frozenset((i,)), i, tuple(range(x.ndim)) if x.is_floating_point() else None)
            for i, x in enumerate(inputs)
        }
        self._storages = {x.untyped_storage().data_ptr(): i for i, x in enumerate(inputs) if not x.is_floating_point()}
        self._shapes = [x.shape for x in inputs]
        self._whole_numbers = frozenset(i for i, x in enumerate(inputs) if not x.is_floating_point())
        # Where each value of a tensor was in the input it is of, carried along by whatever only moves values.
        self._positions = {id(x): torch.arange(x.numel()).view(x.shape) for x in inputs}
        self._embeddings = self._maps = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = name_of(func)
        if name == "embedding":
            self._embedding(args, kwargs)
        before = [t for t in tensors_in((args, kwargs)) if id(t) in self._known]
        if before and name not in _NO_VALUES:
            self._move(name, func, args, kwargs, result)
            for made in tensors_in(result):
                self._note(name, args, kwargs, before, made, several=not isinstance(result, Tensor))
        if name in _FEATURE_MAPS:
            self._feature_map(result)
            self._maps += 1
        return result

    def _embedding(self, args: Any, kwargs: Any) -> None:
        given = [t for t in tensors_in((args, kwargs)) if not t.is_floating_point()]
        for ids in given[:1]:
            known = self._known.get(id(ids), _Trace())
            source = known.same if known.same is not None else self._storages.get(ids.untyped_storage().data_ptr())
            computed = source is None
            if source is None and len(known.sources) == 1:
                source = min(known.sources)
            if source is not None and (lookup := self._lookup(ids, source)) is not None:
                found = self.flow.maybe_embedded if computed else self.flow.embedded
                found.setdefault(source, []).append(lookup)
        self._embeddings += 1

    def _lookup(self, ids: Tensor, source: int) -> Lookup | None:
        """Which places of each sample are looked up; None where samples are mixed."""
        shape = self._shapes[source]
        positions = self._positions.get(id(ids))
        if positions is None and ids.numel() == math.prod(shape):
            positions = torch.arange(ids.numel()).view(ids.shape)
        return None if positions is None else lookup_of(self._embeddings, positions, shape[0], math.prod(shape[1:]))

    def _move(self, name: str, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Carry positions along."""
        first = next(tensors_in(args[:1]), None)
        positions = None if first is None else self._positions.get(id(first))
        made = list(tensors_in(result))
        if first is None or positions is None:
            return
        if name in _MOVES:
            try:
                moved = self._moved(name, func, positions, args, kwargs)
            except Exception:  # an index on another device, say: what is not followed is not explained
                return
            found = list(tensors_in(moved))
            if len(found) == len(made) and all(a.shape == b.shape for a, b in zip(found, made, strict=True)):
                self._positions.update((id(b), a) for a, b in zip(found, made, strict=True))
        elif len(made) == 1 and made[0].shape == positions.shape:
            # Converted or computed one by one: which it was, `_Trace.same` says.
            if name in _CONVERT or not made[0].is_floating_point():
                self._positions[id(made[0])] = positions
            if name not in _CONVERT:
                self._read_otherwise(first, positions)
        elif name != "embedding":
            self._read_otherwise(first, positions)

    def _moved(self, name: str, func: Any, positions: Tensor, args: Any, kwargs: Any) -> Any:
        """The positions moved as the values were; None where other values come among them."""
        if name not in ("cat", "concat", "stack", "hstack"):
            return func(positions, *args[1:], **kwargs)
        parts = [self._positions.get(id(t)) for t in tensors_in(args[0])]
        return None if any(part is None for part in parts) else func(parts, *args[1:], **kwargs)

    def _read_otherwise(self, tensor: Tensor, positions: Tensor) -> None:
        for source in self._known[id(tensor)].sources & self._whole_numbers:
            per = math.prod(self._shapes[source][1:])
            self.flow.otherwise.setdefault(source, set()).update((positions % per).flatten().tolist())

    def _note(self, name: str, args: Any, kwargs: Any, before: list[Tensor], made: Tensor, *, several: bool) -> None:
        first = before[0]
        traces = [self._known[id(t)] for t in before]
        known = traces[0]
        sources = frozenset().union(*(t.sources for t in traces))
        convolved = name in _CONVOLUTIONS or any(t.convolved for t in traces)
        kept = name in _KEEP_VALUES and made.numel() == first.numel()
        same = known.same if kept or (name in _MOVES and id(made) in self._positions) else None
        if name in _CHANNELS_SECOND | _CHANNELS_LAST:
            self._reads(name, known)
        self._held.append(made)
        self._known[id(made)] = _Trace(
            sources,
            same,
            _axes_after(name, args, kwargs, known, first, made) if len(sources) == 1 and not several else None,
            _channel_after(name, args, kwargs, before, traces, made),
            convolved,
        )

    def _reads(self, name: str, known: _Trace) -> None:
        if known.axes is None or len(known.sources) != 1 or name == "layer_norm" or name == "rms_norm":
            return
        place = 1 if name in _CHANNELS_SECOND else len(known.axes) - 1
        axis = known.axes[place] if 0 < place < len(known.axes) else None
        if axis is not None:
            self.flow.read.setdefault(min(known.sources), axis)

    def _feature_map(self, result: Any) -> None:
        if not isinstance(result, Tensor) or not result.is_floating_point() or not result.requires_grad:
            return
        known = self._known.get(id(result))
        if known is None or known.channel is None or not known.convolved or result.ndim < 3:
            return
        places = result.numel() // (len(result) * result.shape[known.channel])
        if places > 1:
            self.flow.maps.append(FeatureMap(self._maps, known.sources, known.channel, result.ndim))
            self.map_tensors.append(result)


def _order(name: str, args: Any, kwargs: Any, ndim: int) -> list[int] | None:
    """Which axis of the tensor before each axis after is, for functions that only move axes."""
    rest = list(args[1:])
    if name == "permute":
        dims = kwargs.get("dims", rest[0] if len(rest) == 1 else rest)
        return [int(a) % ndim for a in dims]
    if name in ("transpose", "swapaxes", "swapdims"):
        one, two = (kwargs.get(f"dim{i}", kwargs.get(f"axis{i}", rest[i] if len(rest) > i else None)) for i in (0, 1))
        order = list(range(ndim))
        order[one], order[two] = order[two], order[one]
        return order
    if name in ("movedim", "moveaxis"):
        source, destination = (
            kwargs.get(k, rest[i] if len(rest) > i else None) for i, k in enumerate(("source", "destination"))
        )
        ones = [source] if isinstance(source, int) else list(source)
        twos = [destination] if isinstance(destination, int) else list(destination)
        order = [a for a in range(ndim) if a not in {o % ndim for o in ones}]
        for one, two in sorted(zip(ones, twos, strict=True), key=lambda pair: pair[1] % ndim):
            order.insert(two % ndim, one % ndim)
        return order
    if name in ("T", "mT", "t", "numpy_T"):
        order = list(range(ndim))
        return order[::-1] if name != "mT" else [*order[:-2], order[-1], order[-2]]
    return None


def _axes_after(
    name: str, args: Any, kwargs: Any, known: _Trace, before: Tensor, made: Tensor
) -> tuple[int | None, ...] | None:
    if known.axes is None or name in _CHANNELS_SECOND | _CHANNELS_LAST | _MIXING:
        return None
    order = _order(name, args, kwargs, before.ndim)
    if order is not None:
        return tuple(known.axes[a] for a in order)
    if name == "unsqueeze":
        at = int(kwargs.get("dim", args[1] if len(args) > 1 else 0)) % made.ndim
        return (*known.axes[:at], None, *known.axes[at:])
    if made.shape == before.shape:
        return known.axes
    if name in ("getitem", "view", "reshape") and made.ndim == before.ndim + 1 and made.numel() == before.numel():
        # x[:, None], x.view(n, 1, h, w): an axis of length one that is new.
        for at in range(1, made.ndim):
            if made.shape[at] == 1 and (*made.shape[:at], *made.shape[at + 1 :]) == tuple(before.shape):
                return (*known.axes[:at], None, *known.axes[at:])
    return None


def _channel_after(
    name: str, args: Any, kwargs: Any, before: list[Tensor], traces: list[_Trace], made: Tensor
) -> int | None:
    if name in _CHANNELS_SECOND:
        return 1 - made.ndim if made.ndim > 2 else None
    if name in _CHANNELS_LAST:
        return -1
    if name in _MIXING:
        return None
    first, channel = before[0], traces[0].channel
    order = _order(name, args, kwargs, first.ndim)
    if order is not None and channel is not None:
        return order.index(channel % first.ndim) - first.ndim
    if name in _RESHAPES:
        return None if channel is None else _kept(channel, first, made)
    fitting = {t.channel for x, t in zip(before, traces, strict=True) if t.channel is not None and x.ndim == made.ndim}
    return fitting.pop() if len(fitting) == 1 else None


def _kept(channel: int, before: Tensor, made: Tensor) -> int | None:
    """The axis of channels after a change of shape that left it at the end or behind the batch."""
    size = before.shape[channel]
    if channel == -1:
        return -1 if made.shape[-1] == size else None
    if channel == 1 - before.ndim and made.ndim > 2 and made.shape[1] == size:
        return 1 - made.ndim
    return channel if made.shape == before.shape else None


class FeatureMaps(TorchFunctionMode):
    """Keeps some feature maps so that they can be differentiated by.

    Args:
        calls: Which, by `FeatureMap.call`.
    """

    def __init__(self, calls: Sequence[int]) -> None:
        super().__init__()
        self.found: dict[int, Tensor] = {}
        self._wanted, self._calls = frozenset(calls), 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if name_of(func) in _FEATURE_MAPS:
            self._calls += 1
            if self._calls - 1 in self._wanted:
                self.found[self._calls - 1] = result
                return result.clone()  # What is kept must not meet an in-place activation.
        return result
