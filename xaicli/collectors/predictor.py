"""A model made callable on whole batches: device, precision, hidden layers, and everything put back afterwards."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import fx, nn

from xaicli.collectors.outputs import TARGETS, Company, Layer, PredictorOutput, first_tensor, taken, widened
from xaicli.errors import XaiError, unknown
from xaicli.heads.decision import OriginOf, known_of
from xaicli.heads.evaluation import evaluating, modules_behind
from xaicli.heads.head import Head
from xaicli.heads.operations import watching
from xaicli.heads.outputs import depends_on_mates, misplaced
from xaicli.state.randomness import randomness_kept

Precision = Literal["auto", "fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_MOST_SHOWN = 20
_FEW = 4
_INPUTS = ("x", "input", "inputs", "image", "images", "pixel_values", "input_ids", "features", "data")


class Predictor:
    """Runs a model over batches of any shape.

    Args:
        model: A module, or any callable.
        layers: Hidden layers to keep: names as in `named_modules()`, or positions in it, as numbers or text. An
            exported graph has the layers with weights, and its operations.
        device: Where to run; None is where the model's parameters are, "auto" a CUDA device if there is one. A model
            that is elsewhere is moved there and back. What a model on another accelerator gives is brought to the CPU,
            since metrics are computed in double precision there.
        precision: "fp32", so that what is collected are the model's own numbers; autocast to "bf16" or "fp16"; "auto"
            is bf16 on a GPU that computes in it, else fp32.
        preprocess_fn: Turns a batch into the model's argument, a tuple of arguments, or a dict of keyword arguments.
        unpack_dicts: Pass a dict batch as keyword arguments, whatever the model's signature says.
        facts: What the model's checkpoint says of it.

    Raises:
        XaiError: The model is not callable, a layer does not exist, or the precision is unknown.
    """

    def __init__(
        self,
        model: nn.Module | Callable[..., Any],
        *,
        layers: Sequence[Layer] = (),
        device: str | torch.device | None = None,
        precision: Precision = "fp32",
        preprocess_fn: Callable[[Any], Any] | None = None,
        unpack_dicts: bool = False,
        facts: Any = None,
    ) -> None:
        if not callable(model):
            raise XaiError(f"the model is a {type(model).__name__}, which cannot be called", hint="give an nn.Module")
        if precision not in ("auto", "fp32", *_DTYPES):
            raise unknown("precision", precision, ("auto", "fp32", *_DTYPES))
        self.model = model
        self.module = model if isinstance(model, nn.Module) else None
        self._modules = modules_behind(model)
        self.preprocess_fn = preprocess_fn
        self.unpack_dicts = unpack_dicts
        self.device = chosen_device(device, self.module)
        self.precision = _precision(precision, self.device)
        self.known = known_of(model, facts)
        self._hidden: dict[Layer, Any] = {}
        self._layers = self._found(layers)
        self._is_ready = False
        self._origin: OriginOf | None = None
        self._heads: dict[Any, Head] = {}
        self._company: Company | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The hidden layers kept."""
        return tuple(self._layers)

    @property
    def decided(self) -> tuple[str, ...]:
        """What the outputs were taken for since it was made ready, one sentence a head."""
        return tuple(dict.fromkeys(head.decided for head in self._heads.values()))

    def with_layers(self, layers: Sequence[Layer]) -> Predictor:
        """The same predictor keeping more hidden layers; this one stays as it is.

        Raises:
            XaiError: A layer does not exist, or the model is no module.
        """
        other = copy.copy(self)
        other._hidden, other._heads, other._company = {}, {}, None
        other._layers = self._layers | self._found(layers)
        return other

    @contextmanager
    def ready(self) -> Iterator[Predictor]:
        """Evaluation mode, no gradients, hooks in place; everything as it was afterwards, also after an error."""
        with ExitStack() as stack:
            for behind in self._modules:
                stack.enter_context(evaluating(behind, written=_kept(behind)))
            if self.module is not None:
                stack.enter_context(_moved(self.module, self.device))
            for layer, module in self._layers.items():
                if isinstance(module, nn.Module):
                    stack.callback(module.register_forward_hook(self._hook(layer)).remove)
            stack.enter_context(torch.no_grad())
            if dtype := _DTYPES.get(self.precision):
                stack.enter_context(torch.autocast(self.device.type, dtype=dtype))
            stack.callback(self._end)
            self._is_ready = True
            yield self

    @contextmanager
    def watched(self) -> Iterator[None]:
        """What collectors ask about the output's meaning within this block is told from the model's operations.

        Once is enough: the heads that were decided are kept until the predictor is no longer ready.
        """
        with watching() as self._origin:
            try:
                yield
            finally:
                self._origin = None

    def __call__(self, batch: Any, example_id: Sequence[int] = ()) -> PredictorOutput:
        """The model's output for a batch: a tensor, a tuple or list (the first item is the input), or a dict.

        Outside of `ready()` the model is made ready for this one batch.
        """
        if not self._is_ready:
            with self.ready(), self.watched():
                return self(batch, example_id)
        args, kwargs = self._arguments(self.to_device(batch))
        self._hidden.clear()
        output = self._run(args, kwargs)
        return PredictorOutput(
            widened(output),
            dict(self._hidden),
            example_id,
            self._origin,
            self.known,
            self._heads,
            self._company,
        )

    def doubt(self, batch: Any, n: int) -> str:
        """Whether the model, ready, answers a few samples twice alike: "", or what a reader should know.

        Told by the answers, with other random numbers and beside fewer others: dropout by hand has no flag. What can
        be neither shared out nor compared (a graph of one batch size, boxes) is not told.

        Args:
            batch: A batch as a call takes it.
            n: How many samples it holds.
        """
        few = max(2, min(n, _FEW))
        fewer = (few + 1) // 2

        def answers(rows: int, seed: int) -> Any:
            given, named = taken((args, kwargs), [min(row, n - 1) for row in range(rows)], n)
            self._hidden.clear()
            with randomness_kept(self.device, seed=seed):
                return self._run(given, named)

        try:
            args, kwargs = self._arguments(self.to_device(batch))
            whole, deep = answers(few, 0), dict(self._hidden)
            less = answers(fewer, 1)
            hidden = {layer: (deep[layer], self._hidden.get(layer)) for layer in deep}
            self._company = Company(whole, less, hidden, few, fewer)
            if (against := _held_against(whole, less, few, fewer)) is not None:
                return f"{against}: another batch size would give other values"
            if not self._differ(_of_same(whole, less, few, fewer)):
                return ""
            again = answers(few, 1)
        except Exception:  # whatever another's forward raises: the pass itself says it
            return ""
        if self._differ(_of_same(whole, again, few, few)):
            part = self._still_training("dropout") or "something in forward"
            return f"{part} draws random numbers in evaluation mode too: another pass would give other values"
        part = self._still_training("norm")
        modules = {name: module for behind in self._modules for name, module in behind.named_modules()}
        return f"{depends_on_mates(part, modules.get(part))}: another batch size would give other values"

    def refuse_misplaced(self) -> None:
        """After `doubt`: that the samples are the first axis of what was taken for the answers of the pass.

        Raises:
            XaiError: They are another one.
        """
        for head in self._heads.values() if self._company is not None else ():
            self._company.refuse_misplaced(head.where)  # type: ignore[union-attr]

    def _differ(self, answers: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> bool:
        """Whether answers are apart by more than rounding, as far as they are of the same samples."""
        for one, other in answers:
            if one.is_floating_point() and one.shape[1:] == other.shape[1:]:
                a, b = one[: len(other)].double(), other.double()
                both = a.isfinite() & b.isfinite()
                half = self.precision != "fp32" or one.dtype in (torch.float16, torch.bfloat16)
                size = a[both].abs().max() if both.any() else 0.0
                if bool(((a - b).abs()[both] > (0.05 if half else 5e-3) * size + 1e-12).any()):
                    return True
        return False

    def _still_training(self, kind: str) -> str:
        """The first part of a kind that the model's own `eval()` has left in training mode."""
        return next(
            (
                name or type(part).__name__
                for module in self._modules
                for name, part in module.named_modules()
                if getattr(part, "training", False) and kind in type(part).__name__.lower()
            ),
            "",
        )

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nodes = {node: layer for layer, node in self._layers.items() if isinstance(node, fx.Node)}
        if not nodes or not isinstance(self.module, fx.GraphModule):
            return self.model(*args, **kwargs)
        return _Steps(self.module, nodes, self._keep).run(*args, *kwargs.values())

    def _end(self) -> None:
        self._is_ready = False
        self._hidden.clear()
        self._heads = {}
        self._company = None

    def to_device(self, batch: Any) -> Any:
        """The batch with every tensor in it on the predictor's device."""
        if isinstance(batch, torch.Tensor):
            return batch.to(self.device, non_blocking=True)
        if isinstance(batch, Mapping):
            return {key: self.to_device(value) for key, value in batch.items()}
        if isinstance(batch, tuple) and hasattr(batch, "_fields"):
            return type(batch)(*(self.to_device(value) for value in batch))
        if isinstance(batch, (list, tuple)):
            return type(batch)(self.to_device(value) for value in batch)
        return batch

    def _found(self, layers: Sequence[Layer]) -> dict[Layer, nn.Module | fx.Node]:
        named: dict[str, Any] = dict(self.module.named_modules()) if self.module is not None else {}
        if isinstance(self.module, fx.GraphModule):
            named = _operations(self.module)
        chosen: dict[Layer, nn.Module | fx.Node] = {}
        for layer in layers:
            found = named.get(layer) if isinstance(layer, str) else None
            if found is None and re.fullmatch(r"-?\d+", str(layer)) and -len(named) <= int(layer) < len(named):
                found = list(named.values())[int(layer)]
            if found is None:
                raise unknown("layer", layer, filter(None, named), where="the model")
            chosen[layer] = found
        return chosen

    def _hook(self, layer: Layer) -> Callable[..., None]:
        return lambda _module, _args, output: self._keep(layer, output)

    def _keep(self, layer: Layer, output: Any) -> None:
        found = first_tensor(output)
        wide: torch.Tensor | None = widened(found)
        # What follows may work in place on it, as ReLU(inplace=True) does.
        self._hidden[layer] = found.clone() if found is not None and wide is found else wide

    def _arguments(self, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.preprocess_fn is not None:
            batch = self.to_device(self.preprocess_fn(batch))
            if isinstance(batch, Mapping):
                return (), dict(batch)
            return (batch if isinstance(batch, tuple) else (batch,)), {}
        if isinstance(batch, Mapping):
            return self._from_dict(batch)
        if isinstance(batch, (list, tuple)) and batch:
            return (batch[0],), {}
        return (batch,), {}

    def _from_dict(self, batch: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        inputs = {key: value for key, value in batch.items() if key not in TARGETS}
        if self.unpack_dicts:
            return (), inputs
        accepted = {key: value for key, value in inputs.items() if key in self._parameters()}
        if accepted:
            return (), accepted
        known = [key for key in _INPUTS if key in inputs]
        if len(inputs) == 1 or known:
            return (inputs[known[0] if known else next(iter(inputs))],), {}
        raise XaiError(
            f"which part of the batch the model takes cannot be told from its keys: {', '.join(map(str, batch))}",
            hint="give Predictor(model, preprocess_fn=lambda batch: batch[...]), or unpack_dicts=True",
        )

    def _parameters(self) -> set[str]:
        function = self.module.forward if self.module is not None else self.model
        try:
            return set(inspect.signature(function).parameters)
        except (TypeError, ValueError):
            return set()


def _of_same(one: Any, other: Any, rows: int, fewer: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The tensors of two outputs that hold a row a sample, side by side.

    Args:
        one: The output for some samples.
        other: That for the first of them.
        rows: How many there are.
        fewer: How many of them the other is for.
    """
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.ndim and other.ndim and (len(one), len(other)) == (rows, fewer):
            yield one, other
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in one:
            yield from _of_same(one[key], other.get(key), rows, fewer)
    # Lists as long as their batches are of samples: as many boxes in a picture as there are pictures are no rows.
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        for part, same in zip(one, other, strict=True):
            yield from _of_same(part, same, rows, fewer)


def _held_against(one: Any, other: Any, rows: int, fewer: int) -> XaiError | None:
    """What to say of outputs that hold each sample against the others of its batch: (N, N) for N samples."""
    pairs = _of_same(one, other, rows, fewer)
    return next(filter(None, (misplaced(a, b, rows, fewer, "the model's output") for a, b in pairs)), None)


def layers_of(module: nn.Module) -> str:
    """Layers that embeddings can be taken from, by name, as a hint shows them: the shallowest first."""
    named = _operations(module) if isinstance(module, fx.GraphModule) else dict(module.named_modules())
    weighted = [name for name in named if name and not name.startswith("_guards")]
    if isinstance(module, fx.GraphModule):
        weighted = [name for name in weighted if any(key.startswith(f"{name}.") for key in module.state_dict())]
    found = sorted(weighted or filter(None, named), key=lambda name: name.count("."))
    return ", ".join(found[:_MOST_SHOWN]) + (
        f" (and {len(found) - _MOST_SHOWN} more)" if len(found) > _MOST_SHOWN else ""
    )


def chosen_device(given: str | torch.device | None, module: nn.Module | None = None) -> torch.device:
    """Where a pass runs: with `auto` a GPU where there is one, else where the model is."""
    if given == "auto" and torch.cuda.is_available():
        return torch.device("cuda")
    if given is not None and given != "auto":
        return torch.device(given)
    parameter = next(module.parameters(), None) if module is not None else None
    return parameter.device if parameter is not None else torch.device("cpu")


def _precision(given: Precision, device: torch.device) -> Precision:
    if given != "auto":
        return given
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def _kept(module: nn.Module) -> Iterator[torch.Tensor]:
    """The weights of which a copy is kept, since forward may write them: all but those a GPU has no room for."""
    size = sum(p.numel() * p.element_size() for p in module.parameters() if p.is_cuda)
    for parameter in module.parameters():
        if not parameter.is_cuda:
            yield parameter
        else:
            unused = torch.cuda.memory_reserved(parameter.device) - torch.cuda.memory_allocated(parameter.device)
            if torch.cuda.mem_get_info(parameter.device)[0] + unused > 2 * size:
                yield parameter


@contextmanager
def _moved(module: nn.Module, device: torch.device) -> Iterator[None]:
    home = chosen_device(None, module)
    if home == device:
        yield
        return
    module.to(device)
    try:
        yield
    finally:
        module.to(home)


def _operations(graph: fx.GraphModule) -> dict[str, fx.Node]:
    """What can be kept of a graph: each operation by its name, and each layer that has weights by the layer's.

    A layer's operation is the last that takes one of its own weights; those of the layers inside it are not its own.
    """
    found: dict[str, fx.Node] = {}
    for node in graph.graph.nodes:
        if node.op.startswith("call"):
            found[node.name] = node
    for node in graph.graph.nodes:
        if node.op == "get_attr" and "." in str(node.target):
            users = [user for user in node.users if user.op.startswith("call")]
            if users:
                found[str(node.target).rpartition(".")[0]] = users[-1]
    return found


class _Steps(fx.Interpreter):
    """Runs a graph and hands over what chosen operations gave.

    Args:
        graph: The graph.
        chosen: The operations, with what each was asked for by.
        keep: Called with that and the operation's value.
    """

    def __init__(
        self, graph: fx.GraphModule, chosen: Mapping[fx.Node, Layer], keep: Callable[[Layer, Any], None]
    ) -> None:
        super().__init__(graph)
        self._chosen = chosen
        self._keep = keep

    def run_node(self, n: fx.Node) -> Any:
        """One operation."""
        value = super().run_node(n)
        if n in self._chosen:
            self._keep(self._chosen[n], value)
        return value
