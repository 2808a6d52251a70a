"""The model that was given: what it answers itself, and whether it answers twice alike."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import UninitializedParameter

from xaicli.attribution.inputs import as_input, of_bags
from xaicli.attribution.twin import private_copy, unwrapped
from xaicli.errors import UsageError, XaiError
from xaicli.heads.calling import Call, Form, calls_of, is_own_name, parameter_names, takes_one
from xaicli.heads.evaluation import Writing, evaluating
from xaicli.heads.outputs import depends_on_mates, misplaced, tensor_at
from xaicli.state.randomness import randomness_kept, seeded
from xaicli.tables.containers import for_torch

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 5e-4}
_HALF = 0.05
_TF32 = 5e-3
_ROWS = 32
_FEW = 2
_STATIC = re.compile(r"size\(\)\[0\] == (\d+)")

_DIFFERENTIATES = (
    "forward differentiates by itself, and a clean pass has no gradients: inside forward, with torch.enable_grad(): "
    "and x.requires_grad_() where not x.requires_grad"
)


class ChangingError(XaiError):
    """A model that something goes on changing from pass to pass; only the part is known, not what."""


class ShapesError(XaiError):
    """A model whose output has another shape beside other samples."""


def _cut_to_the_longest(one: tuple[int, ...], other: tuple[int, ...]) -> ShapesError:
    return ShapesError(
        f"the output for a sample is of shape {one} or {other}, by the samples beside it",
        hint="does forward cut texts to the longest of its batch? give texts of one length at a time, or a forward "
        "that cuts none",
    )


_OBSERVERS = (
    "of quantisation-aware training the observers go on measuring: "
    "model.apply(torch.ao.quantization.disable_observer) ends that"
)

Outputs = Callable[[Any], Tensor]


def dtype_of(model: nn.Module) -> torch.dtype:
    """The floating-point type a model computes in."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def first_line(error: BaseException) -> str:
    """The first line of what another's code says, with the kind of error where that alone says little."""
    lines = str(error).strip().splitlines()
    plain = isinstance(error, RuntimeError | TypeError | ValueError | AssertionError) and lines
    return lines[0] if plain else f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def of_samples(model: nn.Module, inputs: Any) -> Any:
    """The inputs of a caller; a list of single samples as one batch, where the model's signature has one input.

    Args:
        model: Any module.
        inputs: As the caller gave them. A list is several inputs of the model wherever it can be.
    """
    shapes = {tuple(x.shape) for x in inputs if hasattr(x, "shape")} if isinstance(inputs, list | tuple) else set()
    if len(shapes) != 1 or len(inputs) < 2 or shapes == {()} or not all(hasattr(x, "shape") for x in inputs):
        return inputs
    model = unwrapped(model)
    one = takes_one(model)
    if one is False:
        return inputs
    tensors = [x if isinstance(x, Tensor) else torch.from_numpy(for_torch(np.asarray(x))) for x in inputs]
    if one is None and _answers(model, tensors, Form.LIST):
        return inputs
    batch = torch.stack(tensors)
    return batch if _answers(model, [batch], Form.EACH) else inputs


def _answers(model: nn.Module, inputs: Sequence[Tensor], form: Form) -> bool:
    """Whether a model takes inputs in a form."""
    try:
        place = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        batch = [as_input(x.detach(), dtype_of(model)).to(place) for x in inputs]
        with torch.no_grad(), evaluating(model, written=model.parameters()), randomness_kept(place):
            Call(tuple(range(len(batch))), form=form)(model, batch)
    except Exception:  # whatever another's forward raises
        return False
    return True


class GivenModel:
    """The caller's own model, run as it is: in evaluation mode, without gradients, on copies of the inputs.

    Args:
        model: Any module; unwrapped.
        names: The names of the inputs.
        inputs: (sample, ...) each.
        batch: The one batch size it takes; None where any will do.

    Attributes:
        place: The device it is on.
        most: Half of the smallest batch that it failed on; None where it failed on none.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], inputs: Sequence[Tensor], batch: int | None) -> None:
        self.model = unwrapped(model)
        self.names = tuple(names)
        self.batch = batch
        self.most: int | None = None
        self._written: tuple[Tensor, ...] = tuple(self.model.parameters())  # as long as that is not known
        tensors = chain(self.model.parameters(), self.model.buffers())
        place = next((t.device for t in tensors), torch.device("cpu"))
        if unknown := [name for name, p in self.model.named_parameters() if isinstance(p, UninitializedParameter)]:
            raise UsageError(
                f"the model has weights of no shape yet ({unknown[0]}): its lazy layers have seen no input",
                hint="call it once on an input, or load its weights",
            )
        if place.type == "meta":
            raise UsageError("the model has no values (device meta)", hint="load its weights first")
        self.place = place
        self.dtype = dtype_of(self.model)
        for name, x in zip(parameter_names(self.model, names), inputs, strict=True):
            if "offset" in name and x.ndim == 1 and not x.is_floating_point() and _has_bags(self.model):
                raise of_bags(name)
        self.inputs = [as_input(x, self.dtype).to(place) for x in inputs]
        self.call = self._working(calls_of(self.model, names))
        _refuse_other_shapes(self.model, self.call, self.names, self.inputs)
        if isinstance(self.model, fx.GraphModule):
            _refuse_training_graph(self.model)

    def _working(self, calls: Sequence[Call]) -> Call:
        """The first way to call the model that it takes, where its signature leaves that open."""
        rows = self.chunks()[0]
        for self.call, some in ((call, some) for call in calls for some in (rows, rows[:2]) if len(calls) > 1):
            try:
                self.run(some)
            except Exception:  # whatever another's forward raises: the next way, or the first one's error later on
                continue
            return self.call
        return calls[0]

    @property
    def note(self) -> str:
        """How the inputs are passed, where that is not one argument each."""
        if self.call.form is Form.EACH:
            return self._by_order
        inside = ", ".join(name for name, _ in self.call.keywords) or ", ".join(filter(None, self.names))
        inside = (
            inside if self.call.form is Form.DICT or not all(map(is_own_name, self.names)) else f"of {len(self.inputs)}"
        )
        return f"forward takes its inputs together, as one {self.call.form.value}: {inside}"

    @property
    def _by_order(self) -> str:
        """What forward calls inputs whose names it does not know, and which it gets in their order."""
        known = parameter_names(self.model, [""] * len(self.names))
        pairs = [(self.names[i], known[row]) for row, i in enumerate(self.call.positions)]
        unknown = [(name, own) for name, own in pairs if not is_own_name(name) and own and name != own]
        if not unknown:
            return ""
        said = ", ".join(f"{name} as {own}" for name, own in unknown)
        return f"forward knows no input by the names given: they were passed in their order, {said}"

    @property
    def n(self) -> int:
        """How many samples there are."""
        return len(self.inputs[0])

    @property
    def tolerance(self) -> float:
        """How far two passes may be apart, relative to the largest output of a sample."""
        tf32 = self.inputs[0].device.type == "cuda" and self.dtype == torch.float32
        return _TF32 if tf32 else _TOLERANCE.get(self.dtype, _HALF)

    def run(self, rows: Sequence[int], *, model: nn.Module | None = None, mates: Sequence[Tensor] = ()) -> Any:
        """What the model returns for some samples together, in fp32 or wider where it is a copy.

        Args:
            rows: Which samples.
            model: A copy to run in its place.
            mates: A further row of each input, behind them.
        """
        batch = [
            torch.cat([x[list(rows)], mates[i]]) if mates else x[list(rows)].clone() for i, x in enumerate(self.inputs)
        ]
        # Of a copy, too: forward may reach the model itself by a way that no copy follows.
        own = _refused(self.model) if model is not None and _trains(self.model) else nullcontext()
        with torch.no_grad(), evaluating(self.model, written=self._written if model is None else ()), own:
            return self.call(model or self.model, batch)

    def learn_written(self, twin: nn.Module, seen: Writing) -> None:
        """After a pass of a fresh copy: which weights forward writes, so that no others are kept beside the model."""
        own, others = list(self.model.parameters()), list(twin.parameters())
        if [p.shape for p in own] == [p.shape for p in others]:
            self._written = seen.written(zip(own, others, strict=True))

    def chunks(self) -> list[list[int]]:
        """The samples as they are run: a few at a time, never one alone, since some models squeeze it away."""
        size = self.batch or max(2, min(self.most or _ROWS, self.n))
        parts = [list(range(first, min(self.n, first + size))) for first in range(0, self.n, size)]
        return [part + [part[-1]] * ((self.batch or 2) - len(part)) for part in parts]

    def answers(self, outputs: Outputs) -> Tensor:
        """(sample, ...) of the clean inputs: the model's own outputs.

        Raises:
            XaiError: The model fails on these inputs.
        """
        failed = None
        while True:
            found, done = [], 0
            try:
                for rows in self.chunks():
                    seeded(0, self.place)
                    values = self._rows(outputs, rows)
                    found.append(values[: min(len(rows), self.n - done)])
                    done += len(rows)
                if shapes := sorted({tuple(values.shape[1:]) for values in found})[1:]:
                    raise _cut_to_the_longest(tuple(found[0].shape[1:]), shapes[-1])
                return torch.cat(found)
            except ShapesError:
                raise
            except XaiError as error:  # Of too many at once, or of some that it never takes.
                failed, size = failed or error, len(self.chunks()[0])
                if self.batch is not None or size <= _FEW:
                    raise failed from failed.__cause__
                self.most = size // 2

    def _rows(self, outputs: Outputs, rows: list[int], **how: Any) -> Tensor:
        result = self.explained_run(rows, **how)
        values = outputs(result).detach()
        if len(values) < len(rows):
            raise XaiError(
                f"the model returns {len(values)} rows for {len(rows)} samples",
                hint="outputs need the batch as their first axis",
            )
        return values

    def explained_run(self, rows: Sequence[int], **how: Any) -> Any:
        """As `run`; a batch size or dtype the model cannot take becomes an error in one line."""
        try:
            return self.run(rows, **how)
        except Exception as error:  # whatever another's forward raises
            if isinstance(error, XaiError | torch.OutOfMemoryError):
                raise
            shapes = ", ".join(
                f"{(len(rows), *x.shape[1:])} {str(x.dtype).removeprefix('torch.')}" for x in self.inputs
            )
            if how.get("model") is not None and self._answers_itself(rows, how.get("mates", ())):
                raise XaiError(
                    f"a copy of the model fails where the model itself answers: {first_line(error)}",
                    hint="gradients are taken of a copy; which of its attributes is lost or another one in "
                    "copy.deepcopy(model)?",
                ) from error
            raise XaiError(
                f"the model fails on inputs of shape {shapes}: {first_line(error)}",
                hint=(_DIFFERENTIATES if "does not require grad" in str(error) else "")
                or self._without_batch()
                or "do the inputs fit the model? check the order, shapes and dtypes of --data, and --resize; "
                "a forward of a fixed batch size needs that many samples",
            ) from error

    def _answers_itself(self, rows: Sequence[int], mates: Sequence[Tensor]) -> bool:
        try:
            self.run(rows, mates=mates)
        except Exception:  # whatever another's forward raises
            return False
        return True

    def _without_batch(self) -> str:
        """What to type where the inputs are samples without a batch's axis; "" where the model takes them no better."""
        unnamed = all(is_own_name(name) for name in self.names)
        alike = len({(x.shape, x.dtype) for x in self.inputs}) == 1
        if len(self.inputs) > 1 and unnamed and alike and _answers(self.model, [torch.stack(self.inputs)], Form.EACH):
            return (
                f"a list is read as {len(self.inputs)} inputs of the model; it answers them as samples of its first: "
                "torch.stack(inputs) in place of inputs"
            )
        if _answers(self.model, [x[None] for x in self.inputs], self.call.form):
            each = "each x" if len(self.inputs) > 1 else "x"
            return f"the model answers them as one sample: the first axis is that of the samples, so x[None] for {each}"
        return ""

    def learn_batch(self) -> bool:
        """After a failure: find out, with one sample, whether the model takes one batch size only."""
        if self.batch is not None:
            return False
        try:
            self.run([0])
            self.batch = 1
        except Exception as error:
            match = _STATIC.search(str(error))
            self.batch = int(match.group(1)) if match else self._whole_batch()
        return self.batch is not None

    def _whole_batch(self) -> int | None:
        """The number of the samples, where the model takes them all together: a forward of a fixed batch size."""
        if not 2 < self.n <= _ROWS or (all(x.ndim == 1 for x in self.inputs) and self._without_batch()):
            return None
        try:
            self.run(range(self.n))
        except Exception:  # whatever another's forward raises: the first error says why
            return None
        return self.n

    def others(self) -> list[tuple[list[int], list[Tensor]]]:
        """The samples in other company: halves of what was together; a single one beside a mate."""
        size = self.batch or 2
        if size == 1:
            return [([row], []) for row in range(self.n)]
        if self.n > 1:
            together = [sorted(set(rows)) for rows in self.chunks()]
            halves = [half for rows in together for half in (rows[1::2], rows[::2]) if half]
            return [(half + [half[-1]] * (size - len(half)), []) for half in halves]
        return [([0], self.mates(size - 1))]

    def mates(self, n: int) -> list[Tensor]:
        """The first sample turned round, n times: one that may be beside any other."""
        return [(x[:1].flip(-1) if x.ndim > 1 else x[:1]).repeat_interleave(n, 0) for x in self.inputs]

    def answers_in_other_company(self, outputs: Outputs, model: nn.Module | None = None) -> Tensor:
        """As `answers`, each sample beside others and with other random numbers."""
        found: dict[int, Tensor] = {}
        for rows, mates in self.others():
            seeded(1, self.place)
            values = self._rows(outputs, rows, model=model, mates=mates)
            found |= {row: values[at] for at, row in enumerate(rows)}
        if len(shapes := sorted({tuple(values.shape) for values in found.values()})) > 1:
            return torch.zeros(0, *shapes[0])  # none is alike
        return torch.stack([found[row] for row in range(self.n)])

    def differ(self, a: Tensor, b: Tensor) -> bool:
        """Whether two passes gave different answers: by more than rounding, for any sample."""
        if a.shape != b.shape:
            return True
        one, other = (t.detach().double().cpu().reshape(len(t), -1) for t in (a, b))
        finite = one.isfinite()
        if not torch.equal(finite, other.isfinite()):
            return True
        one, other = one.where(finite, torch.zeros_like(one)), other.where(finite, torch.zeros_like(other))
        sizes = one.abs().amax(1, keepdim=True)
        # Outputs near zero are what is left of larger numbers: they are held against the other samples' as well.
        return bool(((one - other).abs() > self.tolerance * torch.maximum(sizes, 0.01 * sizes.max()) + 1e-12).any())

    def why_passes_differ(self, outputs: Outputs, answers: Tensor, where: str | None) -> XaiError | None:
        """Whether the model itself does not answer twice alike, and which part of it is the probable cause.

        Args:
            outputs: What is explained of its output.
            answers: What that was.
            where: Which part of the output counts; None where a function of all of it does.
        """
        rows, twin = self.chunks()[0], private_copy(self.model)

        def again(seed: int) -> Tensor:
            # Of a copy: what a pass leaves in the model itself is put back before the next.
            seeded(seed, self.place)
            return self._rows(outputs, rows, model=twin)[: min(len(rows), self.n)]

        first = again(0)
        if self.differ(first, again(1)):
            part = self._culprit(twin, (rows, [], 0), (rows, [], 1)) or "something in forward"
            if self.differ(first, again(0)):  # with the same random numbers, too
                said = f"{part} answers otherwise each time, in evaluation mode too"
                said = f"two passes over the same samples differ: {said}"
                if _observes(twin, part):
                    return XaiError(said, hint=_OBSERVERS)
                return ChangingError(
                    said, hint="does forward keep something from pass to pass? maps of it would say nothing"
                )
            return XaiError(
                f"two passes over the same samples differ: {part} draws random numbers in evaluation mode too",
                hint="is there dropout by hand (F.dropout without training=self.training), or noise? "
                "maps of it would say nothing",
            )
        beside_others = self.answers_in_other_company(outputs)
        if self.differ(answers, beside_others):
            if (wrong := self._misplaced(outputs, rows, twin, where)) is not None:
                return wrong
            if (one := tuple(beside_others.shape[1:])) != (other := tuple(answers.shape[1:])):
                return _cut_to_the_longest(one, other)
            others, mates = self.others()[0]
            part = self._culprit(twin, (rows, [], 0), (others, mates, 0))
            return depends_on_mates(part, dict(twin.named_modules()).get(part))
        return None

    def _misplaced(self, outputs: Outputs, rows: list[int], twin: nn.Module, where: str | None) -> XaiError | None:
        """Whether the samples are on another axis than the first, told by one sample more."""
        if self.batch is not None:
            return None

        def shaped(rows: list[int]) -> Tensor:
            seeded(0, self.place)
            result = self.explained_run(rows, model=twin)
            return outputs(result) if where is None else tensor_at(result, where)

        what = "what the target function returns" if where is None else f"the model's output{where and f' {where}'}"
        try:
            more, own = shaped([*rows, rows[-1]]), shaped(rows)
        except XaiError:
            return None
        return misplaced(more, own, len(rows) + 1, len(rows), what)

    def _culprit(self, twin: nn.Module, *passes: tuple[list[int], list[Tensor], int]) -> str:
        """The first part whose inputs are alike in two passes and whose outputs are not, told by rows."""
        records: list[dict[str, tuple[list[Tensor], list[Tensor]]]] = []
        names = {module: name or type(module).__name__ for name, module in twin.named_modules()}
        common = sorted(set(passes[0][0]) & set(passes[1][0]))
        for rows, mates, seed in passes:
            order = [rows.index(row) for row in common]
            seen: dict[str, tuple[list[Tensor], list[Tensor]]] = {}

            def note(module: nn.Module, given: Any, result: Any, seen: Any = seen, order: Any = order) -> None:
                said = names[module]
                if said not in seen:
                    seen[said] = (_aligned(given, order), _aligned(result, order))

            watched = [module for module in names if not isinstance(module, torch.jit.ScriptModule)]
            hooks = [module.register_forward_hook(note) for module in watched]
            try:
                seeded(seed, self.place)
                self.run(rows, model=twin, mates=mates)
            except Exception:
                return ""
            finally:
                for hook in hooks:
                    hook.remove()
            records.append(seen)
        first, second = records
        for name, (given, result) in first.items():
            before, after = second.get(name, ([], []))
            if _alike(given, before) and not _alike(result, after):
                return name
        return ""


def _observes(model: nn.Module, part: str) -> bool:
    """Whether a part measures for quantisation-aware training."""
    return "ao.quantization" in type(dict(model.named_modules()).get(part)).__module__


def _aligned(value: Any, order: list[int]) -> list[Tensor]:
    parts = value if isinstance(value, tuple | list) else list(value.values()) if isinstance(value, dict) else [value]
    return [p[order].clone() for p in parts if isinstance(p, Tensor) and p.ndim and len(p) > max(order)]


def _alike(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.allclose(x.double(), y.double(), rtol=1e-3, atol=1e-4, equal_nan=True)
        for x, y in zip(a, b, strict=True)
    )


def _has_bags(model: nn.Module) -> bool:
    graphs = [m for m in model.modules() if isinstance(m, fx.GraphModule)]
    return any(isinstance(m, nn.EmbeddingBag) for m in model.modules()) or any(
        "embedding_bag" in str(node.target) for graph in graphs for node in graph.graph.nodes
    )


_TRAINING_OPS = {"batch_norm": 5, "dropout": 2, "_native_batch_norm_legit": 5, "native_dropout": 2}
"""Operators whose argument at that position says that they run in training mode."""


def _refuse_training_graph(model: fx.GraphModule) -> None:
    for node in model.graph.nodes:
        if node.op != "call_function":
            continue
        name = str(getattr(node.target, "__name__", node.target)).split(".")[0]
        position = _TRAINING_OPS.get(name)
        if position is not None and len(node.args) > position and node.args[position] is True:
            raise XaiError(
                f"the graph was exported in training mode ({name}): every pass would depend on its batch mates",
                hint="call model.eval() before torch.export.export, or save with run.save_checkpoint",
            )


def _trains(model: nn.Module) -> bool:
    return any(getattr(module, "training", False) for module in model.modules())


@contextmanager
def _refused(model: nn.Module) -> Iterator[None]:
    """A model in training mode that is called within a pass of its copy: gradient passes would train it."""
    here = threading.get_ident()

    def refuse(module: nn.Module, _: Any) -> None:
        if threading.get_ident() != here:  # a training, say, which is none of this one's business
            return
        raise XaiError(
            f"forward reaches a {type(module).__name__} of the model itself, of which a copy is explained, and the "
            "model is in training mode",
            hint="call model.eval() first, or let forward reach its parts by self",
        )

    hooks = [m.register_forward_pre_hook(refuse) for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _refuse_other_shapes(model: nn.Module, call: Call, names: Sequence[str], inputs: Sequence[Tensor]) -> None:
    """An exported graph has its shapes built in: at another size it may run and answer something else."""
    if not isinstance(model, fx.GraphModule):
        return
    entries = [node for node in model.graph.nodes if node.op == "placeholder"]
    for node, position in zip(entries, call.order, strict=False):
        wanted = getattr(node.meta.get("val"), "shape", None)
        shape = inputs[position].shape
        if wanted is None:
            continue
        fits = len(wanted) == len(shape) and all(
            not isinstance(n, int) or n == have for n, have in zip(wanted[1:], shape[1:], strict=True)
        )
        if not fits:
            exported = tuple(n if isinstance(n, int) else "any" for n in wanted[1:])
            raise XaiError(
                f"the graph was exported for samples of shape {exported}, and {names[position] or 'the input'} has "
                f"{tuple(shape[1:])}: at another size it would answer something else",
                hint="bring the data to that size (--resize), or load the weights with --arch",
            )
