"""Which way inputs take through a model: what embeds them, which axis is read as channels, where feature maps are.

Told from the functions a forward pass calls, so that modules, functions and exported graphs are seen alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = frozenset(("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"))
_CHANNELS_SECOND = _CONVOLUTIONS | {"batch_norm", "instance_norm", "group_norm"}
_CHANNELS_LAST = frozenset(("linear", "layer_norm", "rms_norm"))
_ACTIVATIONS = frozenset(("relu", "gelu", "silu", "hardswish", "leaky_relu", "elu", "mish", "relu6", "prelu", "add"))
_FEATURE_MAPS = _CHANNELS_SECOND | _ACTIVATIONS | {"layer_norm", "rms_norm"}
_RESHAPES = frozenset(("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "getitem", "unsafe_view"))
_KEEP_VALUES = _RESHAPES | {"to", "clone", "contiguous", "long", "int", "type", "expand", "alias", "detach", "clamp"}
_KEEP_VALUES |= {"clamp_min", "clamp_max", "to_copy", "slice", "cuda", "cpu"}
_NO_VALUES = frozenset(("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "new_zeros"))
_NO_VALUES |= {"new_ones", "new_full", "new_empty", "new_tensor"}
_MIXING = frozenset(("matmul", "mm", "bmm", "einsum", "scaled_dot_product_attention", "multi_head_attention_forward"))


_OF_FUNCTION: tuple[str, ...] = ("input", "weight", "offsets", "max_norm", "norm_type", "scale_grad_by_freq")
_OF_FUNCTION += ("mode", "sparse", "per_sample_weights", "include_last_offset", "padding_idx")
"""The arguments of `torch.nn.functional.embedding_bag`."""
_OF_OPERATOR: tuple[str, ...] = ("weight", "input", "offsets", "scale_grad_by_freq", "mode", "sparse")
_OF_OPERATOR += ("per_sample_weights", "include_last_offset", "padding_idx")
"""Those of the operator behind it."""


def name_of(func: Callable[..., Any]) -> str:
    """The plain name of a torch function, method or operator: "add" of `add`, `__iadd__`, `add_` and `add.Tensor`."""
    name = str(getattr(func, "__name__", func)).partition(".")[0]
    if name == "__get__":
        name = str(getattr(getattr(func, "__self__", None), "__name__", name))
    if name.startswith("__") and name.endswith("__"):
        name = name.strip("_")
        name = name[1:] if name in ("iadd", "radd", "isub", "rsub", "imul", "rmul") else name
    return name.strip("_")


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
        embedded: {input: the calls of an embedding that look up its values}.
        maybe_embedded: The same for what was computed from an input.
        read: {input: the axis of it that the first layer reads as channels}.
        maps: The activations, in order.
    """

    embedded: dict[int, list[int]] = field(default_factory=dict)
    maybe_embedded: dict[int, list[int]] = field(default_factory=dict)
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
    returned = {id(t) for t in _tensors(result)} | {id(t) for t in _tensors(getattr(result, "__dict__", {}))}
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
        self._embeddings = self._maps = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = name_of(func)
        if name == "embedding":
            self._embedding(args, kwargs)
        before = [t for t in _tensors((args, kwargs)) if id(t) in self._known]
        if before and name not in _NO_VALUES:
            for made in _tensors(result):
                self._note(name, args, kwargs, before, made, several=not isinstance(result, Tensor))
        if name in _FEATURE_MAPS:
            self._feature_map(result)
            self._maps += 1
        return result

    def _embedding(self, args: Any, kwargs: Any) -> None:
        given = [t for t in _tensors((args, kwargs)) if not t.is_floating_point()]
        for ids in given[:1]:
            known = self._known.get(id(ids), _Trace())
            source = known.same if known.same is not None else self._storages.get(ids.untyped_storage().data_ptr())
            if source is not None and ids.numel() == self._shapes[source].numel():
                self.flow.embedded.setdefault(source, []).append(self._embeddings)
            elif len(known.sources) == 1 and ids.numel() == self._shapes[min(known.sources)].numel():
                self.flow.maybe_embedded.setdefault(min(known.sources), []).append(self._embeddings)
        self._embeddings += 1

    def _note(self, name: str, args: Any, kwargs: Any, before: list[Tensor], made: Tensor, *, several: bool) -> None:
        first = before[0]
        traces = [self._known[id(t)] for t in before]
        known = traces[0]
        sources = frozenset().union(*(t.sources for t in traces))
        convolved = name in _CONVOLUTIONS or any(t.convolved for t in traces)
        same = known.same if name in _KEEP_VALUES and made.numel() == first.numel() else None
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


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)


class Embeddings(TorchFunctionMode):
    """Some calls of an embedding answer with what is given in their place.

    Args:
        given: {call: what it answers, (row, ..., width)}.
    """

    def __init__(self, given: Mapping[int, Tensor]) -> None:
        super().__init__()
        self._given, self._calls = given, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if name_of(func) == "embedding":
            self._calls += 1
            given = self._given.get(self._calls - 1)
            if given is not None:
                tensors = list(_tensors((args, kwargs or {})))
                weight = next(t for t in tensors if t.is_floating_point())
                ids = next(t for t in tensors if not t.is_floating_point())
                return given.to(weight.dtype).reshape(*ids.shape, given.shape[-1])
        return func(*args, **(kwargs or {}))


class LookingUp(nn.Module):
    """A model whose other ways to look up ids are embeddings, too: bags of them (`nn.EmbeddingBag`), and `table[ids]`.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the model returns."""
        with _AsEmbeddings(self.model):
            return self.model(*inputs, **named)


class _AsEmbeddings(TorchFunctionMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        weights = [t for t in (*model.parameters(), *model.buffers()) if t.ndim == 2 and t.is_floating_point()]
        self._tables = {t.untyped_storage().data_ptr() for t in weights}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = name_of(func)
        if name == "embedding_bag":
            found = _bags(args, kwargs)
            if found is not None:
                # The operator below the function returns what its own gradient needs besides.
                return (found, None, None, None) if args[0].is_floating_point() else found
        elif name in ("getitem", "index", "index_select") and self._is_table(args):
            ids = args[1] if name != "index_select" else args[2] if len(args) > 2 and args[1] == 0 else None
            ids = ids[0] if isinstance(ids, list | tuple) and len(ids) == 1 else ids
            if isinstance(ids, Tensor) and ids.dtype in (torch.int64, torch.int32):
                ids = ids if not bool((ids < 0).any()) else ids % len(args[0])
                return functional.embedding(ids, args[0])
        return func(*args, **kwargs)

    def _is_table(self, args: Any) -> bool:
        given = args[0] if args else None
        return (
            isinstance(given, Tensor)
            and given.ndim == 2
            and given.is_floating_point()
            and given.untyped_storage().data_ptr() in self._tables
        )


def _bags(args: Any, kwargs: Any) -> Tensor | None:
    """What `embedding_bag` gives for rows of ids of one length, by an embedding; None for bags of other lengths."""
    names = _OF_OPERATOR if args[0].is_floating_point() else _OF_FUNCTION
    given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
    ids, weight, offsets, padding = given["input"], given["weight"], given.get("offsets"), given.get("padding_idx")
    if given.get("max_norm") is not None or given.get("include_last_offset"):
        return None
    if ids.ndim == 1:
        starts: list[int] = offsets.tolist() if offsets is not None else []
        length = len(ids) // len(starts) if starts else 0
        if not length or starts != list(range(0, len(ids), length)):
            return None
        ids = ids.view(-1, length)
    rows = functional.embedding(ids, weight)
    if (scales := given.get("per_sample_weights")) is not None:
        rows = rows * scales.view(ids.shape).unsqueeze(-1)
    counts = torch.ones_like(ids, dtype=torch.bool) if padding in (None, -1) else ids != padding % len(weight)
    kept = counts.unsqueeze(-1)
    match {0: "sum", 1: "mean", 2: "max"}.get(given.get("mode", "mean"), given.get("mode", "mean")):
        case "max":
            found = rows.masked_fill(~kept, -torch.inf).amax(1)
            return found.masked_fill(~kept.any(1), 0.0)
        case "sum":
            return (rows * kept).sum(1)
        case _:
            return (rows * kept).sum(1) / kept.sum(1).clamp(min=1)


class LookedUp(TorchFunctionMode):
    """Keeps what the calls of embeddings answer.

    Args:
        calls: Which ones.
    """

    def __init__(self, calls: Sequence[int]) -> None:
        super().__init__()
        self.found: dict[int, Tensor] = {}
        self._wanted, self._calls = frozenset(calls), 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if name_of(func) == "embedding":
            if self._calls in self._wanted:
                self.found[self._calls] = result.detach().clone()
            self._calls += 1
        return result


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
