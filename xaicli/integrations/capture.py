"""What a step of somebody else's loop computed, taken while it runs; nothing is left on the model.

A step often returns no more than its loss. So while it runs, the criterion it calls (`F.cross_entropy` and its kin) is
noted with what it is given: these are the model's answers, however the model was called. Else the outputs of the
module's own `forward` are, told by the module's identity: a copy of it, a teacher, is another module.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn, overrides
from torch.nn import functional
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils import _python_dispatch as dispatch

from xaicli.heads.decision import OriginOf
from xaicli.heads.head import Values
from xaicli.heads.operations import Watch
from xaicli.heads.outputs import NAMED, items_of, keys_of
from xaicli.integrations.losses import Losses
from xaicli.integrations.selections import Picked, Selections

CRITERIA = {
    functional.cross_entropy: Values.LOGITS,
    functional.nll_loss: Values.LOG_PROBABILITIES,
    functional.binary_cross_entropy: Values.PROBABILITIES,
    functional.binary_cross_entropy_with_logits: Values.LOGITS,
    functional.mse_loss: Values.VALUE,
    functional.l1_loss: Values.VALUE,
    functional.smooth_l1_loss: Values.VALUE,
    functional.huber_loss: Values.VALUE,
}
"""What each criterion takes."""

_OF_EACH = (functional.binary_cross_entropy, functional.binary_cross_entropy_with_logits)
_OF_CLASSES = (functional.cross_entropy, functional.nll_loss)
_PLACES = frozenset({torch.arange, torch.eye})
"""What makes each sample's own place in its batch, whatever the batch holds."""
_AS_IT_IS = frozenset(
    {Tensor.to, Tensor.cuda, Tensor.long, Tensor.float, Tensor.type_as, Tensor.clone, Tensor.contiguous}
)
"""What gives a tensor's values on."""
_MOST_PLACES = 64
"""So many tensors of places that a step made are remembered, the last."""
_MOST_GIVEN = 8
"""So many tensors that modules are given are looked at in a step."""
_IGNORE_INDEX = 4
"""The place of `ignore_index` among their arguments."""


@dataclass(frozen=True)
class Judged:
    """What a criterion was given.

    Attributes:
        answers: The model's, without their graph.
        truth: What they were compared with.
        values: What the answers are.
        is_each: Whether each number is for itself, as in a binary cross entropy.
        ignored: The class that the criterion was told to leave out; None of one that knows no such.
        is_weighed: Whether the criterion gave a loss a place, for the step to make one of: which count, the step knows.
        is_inner: Whether it was called inside of a module with weights, as for the loss that a model has of its own.
        counts: Whether the loss that the step returned is made of it; None where that is not known.
        by: The criterion.
        weight: How much of it is in the loss that the step returned; None where that is not known, or nobody asks.
        each: The losses that it gave a place, where it did.
        counting: The places that it weighed with more than 0, of numbers and of classes each for itself; None of all.
        picked: What is known of the answers and of the target where a mask picked their places; None of what it did
            not pick.
        is_of_pairs: Whether the answers are one of every two samples; None where that was not watched.
        loss: The one number that it gave, where it did.
    """

    answers: Tensor
    truth: Tensor
    values: Values
    is_each: bool
    ignored: int | None = None
    is_weighed: bool = False
    is_inner: bool = False
    counts: bool | None = None
    by: Any = None
    weight: Tensor | None = None
    each: Tensor | None = None
    counting: Tensor | None = None
    picked: tuple[Picked | None, Picked | None] = (None, None)
    is_of_pairs: bool | None = None
    loss: Tensor | None = None

    @property
    def has_square(self) -> bool:
        """Whether the answers are as many numbers a sample as there are samples, as where these are compared."""
        return self.answers.ndim == 2 and self.answers.shape[0] == self.answers.shape[1]


@dataclass(frozen=True)
class Forward:
    """One forward of the module: its arguments and what it returned, which may still hold its graph."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any


@dataclass
class Step:
    """What happened in a step.

    Attributes:
        judged: What the criteria were given, in their order.
        forwards: The forwards of the module itself, in their order.
        given: The tensors that modules were given, those left out that other modules gave them: what of its batch the
            step handed to its model.
        returned: What the step returned.
        origin: What made a tensor, where the step was watched closely.
        is_compiled: Whether the module, or a part of it, is compiled, and was left alone for that.
        ran_compiled: Whether a function ran that is compiled, and was left alone for that.
        running: The outermost module that runs, if one does.
        answered: Of each module with weights that the step itself called, the tensors that it returned.
        watched: Criteria that are no part of the loss: figures beside the training.
        losses: What its criteria computed, in their order, and what was made of that.
        own_weight: As `Judged.weight`, of a loss that a model computed by no criterion that is known.
        own_given: Where in memory what such a one was given lies, where the loss that the step returned is made of it.
        places: The last tensors of places in a batch, as of `torch.arange`, that were made while it ran.
        selections: What it made of masks and of pairs of samples.
    """

    judged: list[Judged] = field(default_factory=list)
    forwards: list[Forward] = field(default_factory=list)
    given: list[Tensor] = field(default_factory=list)
    returned: Any = None
    origin: OriginOf | None = None
    is_compiled: bool = False
    ran_compiled: bool = False
    running: list[nn.Module] = field(default_factory=list)
    answered: list[list[Tensor]] = field(default_factory=list)
    watched: list[Judged] = field(default_factory=list)
    losses: Losses = field(default_factory=Losses)
    own_weight: Tensor | None = None
    own_given: frozenset[int] = frozenset()
    places: deque[Tensor] = field(default_factory=lambda: deque(maxlen=_MOST_PLACES))
    selections: Selections = field(default_factory=Selections)

    @property
    def loss(self) -> Any:
        """The loss among what the step returned: a tensor of one number, or a number; None without."""
        found = self.returned.get("loss") if isinstance(self.returned, Mapping) else self.returned
        if isinstance(found, Tensor):
            return found if found.numel() == 1 and found.is_floating_point() else None
        return found if isinstance(found, float) else None

    def end(self, returned: Any) -> None:
        """The step is over: tell of every criterion whether the loss that it returned is made of it."""
        self.returned = returned
        counted = self.losses.counted(self.loss)
        weights: list[Tensor | None] = [None] * len(counted)
        if any(counted) and (len(counted) + len(self.losses.own) > 1 or self.judged[0].has_square):
            weights, self.own_weight = self.losses.weights(self.loss)
        self.judged = [
            replace(one, counts=counts, weight=weight)
            for one, counts, weight in zip(self.judged, counted, weights, strict=True)
        ]
        self.own_given = frozenset(self.losses.own_given if self.losses.is_of_own(self.loss) else ())
        self.losses.clear()
        self.selections.clear()

    @property
    def named(self) -> Any:
        """What the step returned, where that names the model's answers; None for a bare loss."""
        if isinstance(self.returned, Mapping) and any(name in NAMED for name in keys_of(self.returned)):
            return self.returned
        return None

    def is_answer(self, answers: Tensor) -> bool:
        """Whether these are what the one module returned, as it is, that the step ran."""
        return len(self.answered) == 1 and any(one.data_ptr() == answers.data_ptr() for one in self.answered[0])

    def makes_places(self, truth: Tensor) -> bool:
        """Whether these are places in the batch that the step itself made, none of what it was given."""
        return any(one.data_ptr() == truth.data_ptr() and one.shape == truth.shape for one in self.places)

    @property
    def classes(self) -> Tensor | None:
        """The classes the step returned for the model's predictions, where it returned no more than these."""
        found = self.returned
        if isinstance(found, Mapping):
            found = next((found[name] for name in NAMED if name in found), None)
        is_whole = isinstance(found, Tensor) and not found.is_floating_point() and not found.is_complex()
        return found if is_whole and found.ndim == 1 else None


class _Criteria(TorchFunctionMode):
    """Notes the calls of criteria."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self._step = step

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self._step.losses.called(args, kwargs, result)
        self._step.selections.called(func, args, kwargs, result)
        places = self._step.places
        if func in _PLACES or (places and func in _AS_IT_IS and any(one is args[0] for one in places)):
            places.append(result)
        if func in CRITERIA:
            _note(self._step, func, args, kwargs, result)
        return result


def _note(step: Step, func: Any, args: Any, kwargs: Any, result: Any) -> None:
    answers = args[0] if args else kwargs.get("input")
    truth = args[1] if len(args) > 1 else kwargs.get("target")
    if isinstance(answers, Tensor) and isinstance(truth, Tensor):
        ignored = None
        if func in _OF_CLASSES:
            ignored = int(kwargs.get("ignore_index", args[_IGNORE_INDEX] if len(args) > _IGNORE_INDEX else -100))
        is_each = func in _OF_EACH
        is_weighed = kwargs.get("reduction") == "none"
        is_inner = any(next(module.parameters(), None) is not None for module in step.running)
        values = CRITERIA[func]
        weight = kwargs.get("weight", args[2] if len(args) > 2 else None) if is_each else None
        counting = None
        if isinstance(weight, Tensor) and weight.shape == answers.shape:
            counting = weight.detach() != 0
        step.judged.append(
            Judged(
                answers.detach(),
                truth.detach(),
                values,
                is_each,
                ignored,
                is_weighed,
                is_inner,
                by=func,
                each=result.detach() if is_weighed and isinstance(result, Tensor) else None,
                counting=counting,
                picked=(step.selections.of(answers), step.selections.of(truth)),
                is_of_pairs=step.selections.is_of_pairs(answers),
                loss=result.detach() if isinstance(result, Tensor) and not result.ndim else None,
            )
        )
        step.losses.add(result)


@contextmanager
def _criteria_replaced(step: Step) -> Iterator[None]:
    """Note the calls of criteria under their names in `torch.nn.functional`.

    A mode or a hook would have the compiled parts compiled anew; in these the criteria are torch's own.
    """

    def noting(func: Any) -> Any:
        @wraps(func)
        def criterion(*args: Any, **kwargs: Any) -> Any:
            result = func(*args, **kwargs)
            if not torch.compiler.is_compiling():
                _note(step, func, args, kwargs, result)
            return result

        return criterion

    own = {func.__name__: func for func in CRITERIA if getattr(functional, func.__name__, None) is func}
    for name, func in own.items():
        setattr(functional, name, noting(func))
    try:
        yield
    finally:
        for name, func in own.items():
            setattr(functional, name, func)


@dataclass
class _Modules:
    """Notes what modules are given and return.

    Attributes:
        step: Where.
        module: The module whose own forwards count.
        outside: What is still entered before the step itself runs.
        inside: The outermost module that runs of those that are given tensors by place.
    """

    step: Step
    module: nn.Module | None
    outside: list[Any]
    inside: list[nn.Module] = field(default_factory=list)

    def before(self, called: nn.Module, args: tuple[Any, ...]) -> None:
        """A module is called."""
        step = self.step
        if self.outside and called is self.outside[0]:
            del self.outside[0]
        elif not self.outside and not step.running:
            step.running.append(called)
        if not self.inside and (tensors := _few_tensors(args, len(step.given))):
            step.given += tensors
            self.inside.append(called)

    def after(self, called: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """A module returned."""
        step, inside = self.step, self.inside
        if step.running:
            step.losses.add_own(output, args, kwargs)
        if called is self.module:
            step.forwards.append(Forward(args, kwargs, output))
            if not inside or inside == [called]:
                step.given += _few_tensors(kwargs.values(), len(step.given))
        if called in inside:
            del inside[inside.index(called) :]
        if step.running == [called]:
            step.running.clear()
            if next(called.parameters(), None) is not None and len(step.answered) < _MOST_GIVEN:
                returned = [part for _, part in items_of(output)]
                step.answered.append(_few_tensors(returned, 0))


@contextmanager
def captured(
    module: nn.Module | None, *, closely: bool = False, within: Any = None, batch: Any = None
) -> Iterator[Step]:
    """Take what a step computes.

    What is compiled by torch is left alone: it cannot be watched without having it compiled anew. Where only a part of
    the module is compiled, or a function, the criteria that are called outside of it are still noted.

    Args:
        module: The module whose own forwards count.
        closely: Also note what made every tensor, which costs some microseconds an operation: once is enough.
        within: The wrapper that runs the step as the module's forward, as of several processes; None without.
        batch: What the step is given: where it is watched closely, what compares the samples in it is noted.
    """
    step = Step()
    step.is_compiled = module is not None and is_compiled(module)
    if module is not None and getattr(module, "_compiler_ctx", None) is not None:
        yield step
        return
    if step.is_compiled:
        with ExitStack() as names:

            def replace_names() -> None:
                names.enter_context(_criteria_replaced(step))

            with _aside_of_compiled(names.close, replace_names):
                replace_names()
                yield step
        return

    modules = _Modules(step, module, [] if within is None or within is module else [within, module])
    with ExitStack() as modes, ExitStack() as hooks:

        def hook() -> None:
            if module is not None:
                hooks.callback(register_module_forward_pre_hook(modules.before).remove)
                # In torch's own table and only while the step runs: never on the module.
                hooks.callback(_forgotten, register_module_forward_hook(modules.after, with_kwargs=True))

        hook()
        lifted = []
        if closely:
            watch = modes.enter_context(Watch())
            step.origin = watch.origin
            step.selections.begin(batch)
            lifted.append(
                _Lifted(watch, dispatch._get_current_dispatch_mode_stack, dispatch._pop_mode, dispatch._push_mode)
            )
        criteria = modes.enter_context(_Criteria(step))
        lifted.append(
            _Lifted(criteria, overrides._get_current_function_mode_stack, overrides._pop_mode, overrides._push_mode)
        )

        def leave() -> None:
            step.ran_compiled = True
            hooks.close()
            for one in lifted:
                one.take_out()

        def come_back() -> None:
            for one in lifted:
                one.put_back()
            hook()

        with _aside_of_compiled(leave, come_back):
            yield step


@dataclass
class _Lifted:
    """A mode of ours that is taken out of torch's stack for a while, and those left as they are that lie over it.

    Attributes:
        mode: The mode.
        modes: Gives those of the stack, the lowest first.
        pop: Takes the highest away.
        push: Lays one on top.
        over: How many lie over it, while it is taken out.
    """

    mode: Any
    modes: Callable[[], list[Any]]
    pop: Callable[[], Any]
    push: Callable[[Any], None]
    over: int | None = None

    def take_out(self) -> None:
        """Take it out; where torch has done so itself, as in a call that it is told of, that is left as it is."""
        if all(one is not self.mode for one in self.modes()):
            return
        over = []
        while (top := self.pop()) is not self.mode:
            over.append(top)
        self.over = len(over)
        for one in reversed(over):
            self.push(one)

    def put_back(self) -> None:
        """Put it where it was."""
        if self.over is None:
            return
        over = [self.pop() for _ in range(self.over)]
        for one in (self.mode, *reversed(over)):
            self.push(one)
        self.over = None


@contextmanager
def _aside_of_compiled(leave: Callable[[], None], come_back: Callable[[], None]) -> Iterator[None]:
    """Step aside while code runs that was compiled by torch: a function as well, which no module tells of.

    Under a mode or a hook torch compiles it anew, or not at all, or fails. What is called outside of it is seen.

    Args:
        leave: Takes modes and hooks away.
        come_back: Has them again.
    """
    compiler = sys.modules.get("torch._dynamo.eval_frame")  # there as soon as anything was compiled
    own = getattr(compiler, "_maybe_set_eval_frame", None)
    if own is None:
        yield
        return
    running: list[Any] = []
    """The call of the outermost compiled function that runs."""
    thread = threading.get_ident()

    def set_frames(callback: Any) -> Any:
        if threading.get_ident() == thread:
            caller = sys._getframe(1)
            if running:
                if caller is running[0]:
                    running.clear()
                    come_back()
            elif callable(callback):
                running.append(caller)
                leave()
        return own(callback)

    compiler.__dict__["_maybe_set_eval_frame"] = set_frames
    try:
        yield
    finally:
        compiler.__dict__["_maybe_set_eval_frame"] = own
        if running:
            running.clear()
            come_back()


def _few_tensors(values: Iterable[Any], had: int) -> list[Tensor]:
    """The tensors among what a module is given, without their graph, up to some in all."""
    found = [value.detach() for value in values if isinstance(value, Tensor) and value.ndim > 0]
    return found[: max(0, _MOST_GIVEN - had)]


def _forgotten(hook: Any) -> None:
    """Remove a hook of ours; torch itself leaves behind that it took keywords, and then takes hooks to be there."""
    hook.remove()
    getattr(nn.modules.module, "_global_forward_hooks_with_kwargs", {}).pop(hook.id, None)


def is_compiled(module: nn.Module) -> bool:
    """Whether the module, or a part of it, was compiled by torch."""
    if getattr(module, "_compiler_ctx", None) is not None:
        return True
    # Asked at every step: what is no attribute of a module is looked for by torch in three places.
    return any(
        "_orig_mod" in part._modules or part.__dict__.get("_compiled_call_impl") is not None
        for part in module.modules()
    )
