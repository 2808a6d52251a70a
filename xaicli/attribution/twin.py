"""A private copy of a model: it answers as the caller's own, and nothing done to it reaches the caller's.

Hooks: those that change what passes through them, and torch's own (weight norm, pruning), belong to the model and stay;
those that only look are the caller's instruments and are left out of every gradient pass, unless the model answers
otherwise without them. What hooks hold of the model, a list that they collect in, is the copy's own in the copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from xaicli.attribution.copies import HOOKS_OF_FORWARD, copy_of
from xaicli.attribution.rebinding import is_torchs
from xaicli.checkpoint.weights import GATHER, is_sharded
from xaicli.errors import XaiError
from xaicli.heads.evaluation import into_evaluation

_BACKWARD = ("_backward_pre_hooks", "_backward_hooks")


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside `DataParallel`, `DistributedDataParallel`, FSDP and `torch.compile`.

    A wrapper passes inputs on by position or waits for other processes; what is inside answers the same without.
    """
    while True:
        inner = next((m for name in _INSIDE if isinstance(m := getattr(model, name, None), nn.Module)), None)
        parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
        if inner is None or not (parallel or type(model).__name__ in _WRAPPERS):
            return model
        model = inner


_INSIDE = ("_orig_mod", "module", "_fsdp_wrapped_module")
_WRAPPERS = frozenset(("OptimizedModule", "FullyShardedDataParallel"))


def private_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode with all hooks of forward passes, without gradients, wrappers and hooks of backward."""
    if name := next((n for n, p in model.named_parameters() if is_sharded(p)), ""):
        raise XaiError(f"the model is sharded over processes (FSDP, DTensor): {name}", hint=GATHER)
    twin = copy_of(unwrapped(model))
    _take_out_of_inference(twin)
    into_evaluation(twin)
    for module in twin.modules():
        for name, child in module.named_children():
            if (inner := unwrapped(child)) is not child:
                setattr(module, name, inner)
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for kind in _BACKWARD:
            getattr(module, kind).clear()
        for parameter in module.parameters(recurse=False):
            parameter.grad = None
    for tensor in twin.parameters():
        tensor.requires_grad_(False)
    return twin


def set_by_hand(model: nn.Module, twin: nn.Module) -> str:
    """Which parts of a model in evaluation mode were in training mode, as a note, "" for none.

    Args:
        model: As it was given.
        twin: Its private copy: what the model's own `eval()` leaves in training mode is still so there.
    """
    if any(isinstance(module, fx.GraphModule) for module in model.modules()):
        return ""  # the flags inside of a graph say nothing
    trains = {name for name, module in twin.named_modules() if getattr(module, "training", False)}
    parts = [name for name, module in model.named_modules() if getattr(module, "training", False)]
    parts = [name for name in parts if name not in trains] if not getattr(model, "training", False) else []
    if not parts:
        return ""
    said = ", ".join(parts[:3]) + (f" and {len(parts) - 3} more" if len(parts) > 3 else "")
    return f"{said} had been put into training mode in a model in evaluation mode; explained is its evaluation mode"


def _take_out_of_inference(twin: nn.Module) -> None:
    """Tensors that were made under `torch.inference_mode()` as ones that autograd takes."""
    made: dict[int, Tensor] = {}
    for module in twin.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        pairs: tuple[tuple[Any, bool], ...] = ((module._parameters, True), (module._buffers, False))
        for held, are_parameters in pairs:
            for name, tensor in held.items():
                if tensor is not None and tensor.is_inference():
                    plain = made.setdefault(id(tensor), tensor.clone())
                    held[name] = nn.Parameter(plain, requires_grad=False) if are_parameters else plain


class Hooks:
    """The caller's hooks on forward passes of a copy, torch's own left aside."""

    def __init__(self, twin: nn.Module) -> None:
        self._found: list[tuple[str, Any, int, Callable[..., Any]]] = []
        self._active: set[int] = set()
        for name, module in twin.named_modules():
            for kind in () if isinstance(module, torch.jit.ScriptModule) else HOOKS_OF_FORWARD:
                hooks = getattr(module, kind)
                for key, hook in hooks.items():
                    if not is_torchs(hook):
                        self._found.append((name or type(module).__name__, hooks, key, hook))

    def __len__(self) -> int:
        return len(self._found)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note, in the passes of this block, which hooks give something back."""
        for number, (_, hooks, key, hook) in enumerate(self._found):
            hooks[key] = self._noting(number, hook)
        try:
            yield
        finally:
            for _, hooks, key, hook in self._found:
                hooks[key] = hook

    def _noting(self, number: int, hook: Callable[..., Any]) -> Callable[..., Any]:
        def note(*arguments: Any, **named: Any) -> Any:
            result = hook(*arguments, **named)
            if result is not None:
                self._active.add(number)
            return result

        return note

    def leave_out_the_idle(self) -> None:
        """Take away those that gave nothing back."""
        for number, (_, hooks, key, _hook) in enumerate(self._found):
            if number not in self._active:
                hooks.pop(key, None)

    def put_back(self) -> None:
        """All of them again."""
        for _, hooks, key, hook in self._found:
            hooks[key] = hook
        self._active = set(range(len(self._found)))

    def kept(self) -> tuple[str, ...]:
        """The modules whose hooks are part of the model."""
        return tuple(dict.fromkeys(self._found[number][0] for number in sorted(self._active)))

    def names(self) -> tuple[str, ...]:
        """The modules that have hooks."""
        return tuple(dict.fromkeys(name for name, *_ in self._found))
