"""Which way inputs take through a model: what embeds them, which axis is read as channels, where feature maps are.

Told from the functions a forward pass calls, so that modules, functions and exported graphs are seen alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from xaicli.attribution.lookups import EMBEDDINGS, Lookup, lookup_of, name_of, tensors_in
from xaicli.heads.attributes import attributes

_CONVOLUTIONS = frozenset(("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"))
_CHANNELS_SECOND = _CONVOLUTIONS | {"batch_norm", "instance_norm", "group_norm"}
_CHANNELS_LAST = frozenset(("linear", "layer_norm", "rms_norm"))
_ACTIVATIONS = frozenset(("relu", "gelu", "silu", "hardswish", "leaky_relu", "elu", "mish", "relu6", "prelu", "add"))
FEATURE_MAPS = _CHANNELS_SECOND | _ACTIVATIONS | {"layer_norm", "rms_norm"}
"""What can give a feature map."""
_RESHAPES = frozenset(("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "getitem", "unsafe_view"))
_KEEP_VALUES = _RESHAPES | {"to", "clone", "contiguous", "long", "int", "type", "expand", "alias", "detach", "clamp"}
_KEEP_VALUES |= {"clamp_min", "clamp_max", "to_copy", "slice", "cuda", "cpu"}
_MOVES = _RESHAPES | {"transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis", "t", "T", "mT", "numpy_T"}
_MOVES |= {"contiguous", "clone", "alias", "detach", "slice", "select", "narrow", "unbind", "chunk", "tensor_split"}
_MOVES |= {"split", "split_with_sizes", "index", "index_select", "flip", "fliplr", "roll", "rot90", "expand", "unfold"}
_MOVES |= {"repeat", "repeat_interleave", "tile", "take_along_dim", "gather", "broadcast_to", "ravel", "data"}
_MOVES |= {"view_as", "reshape_as", "expand_as"}
_JOINS = frozenset(("cat", "concat", "concatenate", "stack", "hstack", "vstack", "column_stack"))
_PADS = frozenset(("pad", "constant_pad_nd"))
_PUTS = {"copy": 1, "fill": 1, "zero": 1, "scatter": 3, "slice_scatter": 1, "select_scatter": 1, "index_copy": 3}
"""What puts values into a tensor, and which argument they are."""
_LOST = -2
"""Stands for a place in memory whose values it is not known of where they were."""
_TABLES = frozenset(("getitem", "index", "index_select", "take"))
_TAKES = _TABLES | {"gather", "take_along_dim"}
_ONE_BY_ONE = frozenset(("add", "sub", "subtract", "rsub", "mul", "multiply", "floor_divide", "floordiv", "remainder"))
_ONE_BY_ONE |= {"mod", "fmod", "neg", "abs", "absolute", "minimum", "maximum", "clip", "where", "masked_fill"}
_ONE_BY_ONE |= {"type_as", "bitwise_and", "bitwise_or", "bitwise_xor", "and", "or", "xor", "bucketize", "searchsorted"}
_ONE_BY_ONE |= {"short", "lshift", "rshift", "bitwise_left_shift", "bitwise_right_shift"}
_ONE_BY_ONE |= {"eq", "ne", "lt", "le", "gt", "ge"}
"""What computes each value from the one at its place."""
_CONVERT = frozenset(("to", "to_copy", "long", "int", "type", "clamp", "clamp_min", "clamp_max", "cuda", "cpu"))
_PLACED = frozenset((*_MOVES, *_JOINS, *_PADS, *_PUTS))
_FOLLOWED = _PLACED | _CONVERT | EMBEDDINGS
_READ = frozenset(("item", "tolist", "numpy", "array", "bool", "int", "float", "index", "equal"))
"""What takes values out of tensors; whatever else gives no tensor asks for shapes, dtypes or devices."""
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
        unfollowed: {call of an embedding: which of its ids it is not known of where in an input they were}.
    """

    embedded: dict[int, list[Lookup]] = field(default_factory=dict)
    maybe_embedded: dict[int, list[Lookup]] = field(default_factory=dict)
    otherwise: dict[int, set[int]] = field(default_factory=dict)
    read: dict[int, int] = field(default_factory=dict)
    maps: list[FeatureMap] = field(default_factory=list)
    unfollowed: dict[int, Tensor] = field(default_factory=dict)


def flow_of(run: Callable[[], Any], inputs: Sequence[Tensor], *, ids_alone: bool = False) -> tuple[Flow, Any]:
    """What a pass shows, and what the model returned.

    Args:
        run: Runs the model on the inputs.
        inputs: Those very tensors, a few rows each.
        ids_alone: Whether what becomes of floats is left out: many rows of these are much to hold.
    """
    watcher = _Watcher(inputs, ids_alone=ids_alone)
    with watcher:
        result = run()
    returned = {id(t) for t in tensors_in(result)} | {id(t) for t in tensors_in(attributes(result))}
    watcher.flow.maps = [
        replace(found, result=True) if id(tensor) in returned else found
        for found, tensor in zip(watcher.flow.maps, watcher.map_tensors, strict=True)
    ]
    return watcher.flow, result


class _Watcher(TorchFunctionMode):
    def __init__(self, inputs: Sequence[Tensor], *, ids_alone: bool) -> None:
        super().__init__()
        self._ids_alone = ids_alone
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
        # Where each value of a tensor was, all inputs counted through and -1 for what is of none; carried along by
        # whatever only moves values or changes them one by one.
        sizes = [x.numel() for x in inputs]
        self._starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self._positions = {
            id(x): torch.arange(start, start + x.numel()).view(x.shape)
            for start, x in zip(self._starts, inputs, strict=True)
        }
        # Of memory that was written to: where each of its values was, and what is known of what lies there. All that
        # share it are read from there.
        self._written: dict[int, tuple[Tensor, _Trace]] = {}
        self._embeddings = self._maps = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = name_of(func)
        if name in EMBEDDINGS:
            self._embedding(args, kwargs)
        given = list(tensors_in((args, kwargs)))
        self._know_written(given)
        before = [t for t in given if id(t) in self._known]
        if before and self._ids_alone and not any(not t.is_floating_point() for t in tensors_in(result)):
            if name == "setitem":
                self._set(func, *args)
        elif before and name not in _NO_VALUES:
            self._move(name, func, args, kwargs, before, list(tensors_in(result)))
            for made in tensors_in(result):
                self._note(name, args, kwargs, before, made, several=not isinstance(result, Tensor))
        if name in FEATURE_MAPS and not self._ids_alone:
            self._feature_map(result)
            self._maps += 1
        return result

    def _embedding(self, args: Any, kwargs: Any) -> None:
        tensors = list(tensors_in((args, kwargs)))
        table = next((t.untyped_storage().data_ptr() for t in tensors if t.is_floating_point()), 0)
        for ids in [t for t in tensors if not t.is_floating_point()][:1]:
            positions = self._where(ids)
            if positions is None:
                self.flow.unfollowed[self._embeddings] = torch.ones(ids.shape, dtype=torch.bool)
                continue
            unfollowed = positions < 0
            own = id(ids) not in self._known or self._known[id(ids)].same is not None
            for source, shape in enumerate(self._shapes):
                there = self._local(positions, source)
                per = math.prod(shape[1:])
                lookup = lookup_of(self._embeddings, there, shape[0], per, table=table) if shape else None
                if lookup is not None:
                    found = self.flow.embedded if own else self.flow.maybe_embedded
                    found.setdefault(source, []).append(lookup)
                else:
                    unfollowed = unfollowed | (there >= 0)
            if unfollowed.any():
                self.flow.unfollowed[self._embeddings] = unfollowed
        self._embeddings += 1

    def _where(self, tensor: Tensor) -> Tensor | None:
        """Where each value was; -1 for what comes from no input; None where that was lost on the way."""
        if id(tensor) in self._known or self._memory(tensor) in self._written:
            return self._place(tensor)
        source = self._storages.get(tensor.untyped_storage().data_ptr())
        if source is None:
            return torch.full(tensor.shape, -1)
        # Another view of an input's memory, by `.data` or numpy.
        whole = torch.arange(self._starts[source], self._starts[source] + math.prod(self._shapes[source]))
        steps, first = tensor.stride(), tensor.storage_offset()
        last = first + sum((n - 1) * step for n, step in zip(tensor.shape, steps, strict=True))
        return whole.as_strided(tensor.shape, steps, first) if tensor.numel() and last < len(whole) else None

    def _memory(self, tensor: Tensor) -> int | None:
        """The memory of whole numbers; None of floats, and of what has no plain one."""
        if tensor.is_floating_point() or tensor.layout != torch.strided:
            return None
        try:
            return tensor.untyped_storage().data_ptr()
        except RuntimeError:  # one of torch.func's, which stands for another
            return None

    def _place(self, tensor: Tensor) -> Tensor | None:
        """Where each value of a known tensor was; None where that was lost on the way."""
        written = self._written.get(self._memory(tensor) or 0)
        if written is None:
            return self._positions.get(id(tensor))
        there = written[0].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        return None if bool((there == _LOST).any()) else there.clone()

    def _know_written(self, tensors: Iterable[Tensor]) -> None:
        """A tensor that was made before its memory was written to, or by a way that is not seen (`.data`)."""
        for tensor in tensors if self._written else ():
            written = self._written.get(self._memory(tensor) or 0)
            if written is not None and id(tensor) not in self._known:
                self._held.append(tensor)
                self._known[id(tensor)] = written[1]

    def _write(self, target: Tensor, place: Tensor | None, trace: _Trace) -> None:
        """Values were put into memory: all that share it change with it.

        Args:
            target: The tensor that they were put into.
            place: Where each of its values was; None where that is not known.
            trace: What is known of them.
        """
        memory = self._memory(target)
        self._held.append(target)
        self._known[id(target)] = trace
        if memory is None:
            return
        sharing = [t for t in self._held if self._memory(t) == memory]
        if memory in self._written:
            flat, before = self._written[memory]
            trace = replace(trace, sources=trace.sources | before.sources)
        else:
            flat = torch.full((target.untyped_storage().nbytes() // target.element_size(),), -1)
            for tensor in sharing:
                if id(tensor) in self._known and tensor is not target:
                    self._put_into(flat, tensor, self._positions.get(id(tensor)))
            own = self._positions.get(id(target))
            if own is not None:
                self._put_into(flat, target, own)
        self._put_into(flat, target, place)
        self._written[memory] = (flat, trace)
        self._storages.pop(memory, None)
        for tensor in sharing:
            self._positions.pop(id(tensor), None)
            self._known[id(tensor)] = trace

    def _put_into(self, flat: Tensor, tensor: Tensor, place: Tensor | None) -> None:
        try:
            there = flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
            there.copy_(torch.tensor(_LOST) if place is None else place)
        except RuntimeError:  # numbers of another size in the same memory, or one that stands for many
            flat.fill_(_LOST)

    def _local(self, positions: Tensor, source: int) -> Tensor:
        """Positions within one input; -1 for what is of another, or of none."""
        there = positions - self._starts[source]
        return torch.where((there >= 0) & (there < math.prod(self._shapes[source])), there, -1)

    def _move(self, name: str, func: Any, args: Any, kwargs: Any, known: list[Tensor], made: list[Tensor]) -> None:
        """Carry positions along."""
        before = [p for t in known if (p := self._place(t)) is not None]
        if name == "setitem":
            self._set(func, *args)
            return
        try:
            found = self._moved(name, func, args, kwargs, made)
        except Exception:  # an index on another device, say: what is not followed is not explained
            found = None
        # One by one, values may become those of a mask or of features, which is not for a look-up alone to read.
        if name not in _FOLLOWED and (made or name in _READ):
            for place in before[:1]:
                self._read_otherwise(place)
        # Changed in place: `add_`, `__iadd__`, not `long`, which may change nothing.
        in_place = str(getattr(func, "__name__", func)).partition(".")[0].endswith("_")
        fits = found is not None and [p.shape for p in found] == [t.shape for t in made]
        for number, tensor in enumerate(made):
            now = found[number] if found is not None and fits else None
            traces = (
                [self._known[id(t)] for t in tensors_in((args, kwargs)) if id(t) in self._known] if in_place else []
            )
            sources = frozenset[int]().union(*(t.sources for t in traces))
            # Features of float inputs hold no ids: what is known of their channels stays as it is.
            if sources & self._whole_numbers and args and tensor is args[0]:
                # Where values are put as they are, they are ids as those were; else each became another.
                put = name in _PUTS and now is not None and all(t.same is not None for t in traces)
                self._write(tensor, now, _Trace(sources, traces[0].same if put else None))
                continue
            self._positions.pop(id(tensor), None)
            if now is not None:
                self._positions[id(tensor)] = now

    def _set(self, func: Any, target: Tensor, index: Any, value: Any) -> None:
        """Carry positions along where values are put into a tensor."""
        if target.is_floating_point():
            return
        place = self._where(target)
        put = self._where(value) if isinstance(value, Tensor) else None
        traces = [self._known[id(t)] for t in (target, value) if isinstance(t, Tensor) and id(t) in self._known]
        same = traces[0].same if traces and all(t.same is not None for t in traces) else None
        if isinstance(index, Tensor) and index.dtype == torch.bool and index.shape == target.shape and put is None:
            same = None  # Some of the values became others, each by itself.
        elif place is not None and (put is not None or not isinstance(value, Tensor)):
            place = place.clone()
            try:
                func(place, index, -1 if put is None else put)
            except Exception:  # an index on another device, say
                place = None
        else:
            place = None
        self._write(target, place, _Trace(frozenset[int]().union(*(t.sources for t in traces)), same))

    def _put(self, name: str, func: Any, args: Any, kwargs: Any) -> list[Tensor] | None:
        """The positions after values were put into a tensor, or into a copy of it."""
        at = _PUTS[name]
        values = args[at] if len(args) > at else kwargs.get("src", kwargs.get("value"))
        if name in ("fill", "zero"):
            return None if isinstance(values, Tensor) else [torch.full(args[0].shape, -1)]
        place = self._where(args[0])
        put = self._where(values) if isinstance(values, Tensor) else torch.tensor(-1)
        if put is None or kwargs.get("reduce") or kwargs.get("accumulate") or len(args) > at + (4 if at == 1 else 1):
            return None
        if name == "copy":
            return [put.expand(args[0].shape).clone()]
        if place is None:
            return None
        given = put if isinstance(values, Tensor) else -1
        rest = {key: v for key, v in kwargs.items() if key not in ("src", "value")}
        if len(args) > at:
            return [func(place.clone(), *args[1:at], given, *args[at + 1 :], **rest)]
        return [func(place.clone(), *args[1:], **rest, **{key: given for key in kwargs if key in ("src", "value")})]

    def _moved(self, name: str, func: Any, args: Any, kwargs: Any, made: list[Tensor]) -> list[Tensor] | None:
        """The positions moved as the values were; None where the function is none of those that are followed."""
        first = next(tensors_in(args[:1]), None)
        own = None if first is None else self._place(first) if id(first) in self._known else None
        if name in _PUTS:
            return self._put(name, func, args, kwargs)
        if name in _JOINS:
            parts = [self._where(t) for t in tensors_in(args[0])]
            return None if any(part is None for part in parts) else [func(parts, *args[1:], **kwargs)]
        if name in _TABLES and own is None:
            # What a table says of each value; the table itself is none of an input.
            indices = [t for t in tensors_in((args[1:], kwargs)) if id(t) in self._known]
            there = self._place(indices[0]) if len(indices) == 1 and first is not None else None
            return None if there is None else [there]
        if name in _PADS and own is not None:
            mode = kwargs.get("mode", args[2] if name == "pad" and len(args) > 2 else "constant")
            widths = kwargs.get("pad", args[1] if len(args) > 1 else None)
            return [functional.pad(own, list(widths), value=-1)] if mode == "constant" else None
        if name in _MOVES:
            return None if own is None else list(tensors_in(func(own, *args[1:], **kwargs)))
        if len(made) != 1 or name not in _ONE_BY_ONE | _CONVERT:
            return None
        # What a condition depends on does not move what it chooses.
        read = (args[1:] if name == "where" else args[:1] if name == "masked_fill" else args, kwargs)
        values = [t for t in tensors_in(read) if id(t) in self._known]
        places = [p for t in values if (p := self._place(t)) is not None and p.shape == made[0].shape]
        alike = len(places) == len(values) and all(torch.equal(places[0], other) for other in places[1:])
        keeps = name in _CONVERT or not made[0].is_floating_point()
        return places[:1] if places and alike and keeps else None

    def _read_otherwise(self, positions: Tensor) -> None:
        for source in self._whole_numbers:
            there = self._local(positions, source)
            if places := set((there[there >= 0] % math.prod(self._shapes[source][1:])).tolist()):
                self.flow.otherwise.setdefault(source, set()).update(places)

    def _note(self, name: str, args: Any, kwargs: Any, before: list[Tensor], made: Tensor, *, several: bool) -> None:
        first = before[0]
        traces = [self._known[id(t)] for t in before]
        known = traces[0]
        sources = frozenset().union(*(t.sources for t in traces))
        convolved = name in _CONVOLUTIONS or any(t.convolved for t in traces)
        kept = name in _KEEP_VALUES and made.numel() == first.numel()
        if self._memory(made) in self._written:
            return
        moved = name in _PLACED and id(made) in self._positions
        # Where an index says what is taken, it is that which is there.
        taken = traces[:1] if name in _TAKES and args and first is args[0] else traces
        same = known.same if kept or (moved and all(t.same is not None for t in taken)) else None
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
