"""A model in evaluation mode for a while: there by its own `eval()`, and back to what it was."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from xaicli.errors import XaiError

_UNINITIALIZED = (UninitializedParameter, UninitializedBuffer)
_PARTS = ("_parameters", "_buffers", "_modules")


@contextmanager
def gradients_kept(*models: nn.Module) -> Iterator[None]:
    """The caller's gradients are as they were afterwards: a forward that calls `backward` adds to none of them."""
    # All of them, also of what is frozen now: forward may thaw it, and optimizers step whatever has a gradient.
    gradients = [(p, p.grad) for model in models for p in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards, also after an error, it trains on as if nothing had been.

    Modules with an `eval()` or `train()` of their own are brought there and back by it: one merges low-rank weights,
    another keeps its batch norm on the batch. What that leaves otherwise - the mode of a single module set by hand,
    the last bits of a weight that was added to and taken from - is put back besides, as are gradients and their flags,
    and buffers that passes write. Other attributes that forward sets stay (`left_as_it_was`).

    Raises:
        XaiError: The model's own `eval()` fails.
    """
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with gradients_kept(model), buffers_kept(model):
        before = _Before(model)
        try:
            into_evaluation(model)
            before.note_what_changed()
            yield
        finally:
            before.put_back()
            for parameter, wanted in flags:
                if parameter.requires_grad != wanted:
                    parameter.requires_grad_(wanted)


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Buffers that forward writes in evaluation mode, too, are what they were: statistics, ranges, counters, banks.

    They are told by their values: `.data` and fused operations change them without a word to autograd.
    """
    own = [(module._buffers, dict(module._buffers)) for module in _settled(model)]
    buffers = _values(model.buffers())
    try:
        yield
    finally:
        for held, before in own:
            held.clear()
            held.update(before)
        with torch.no_grad():
            _put_back(buffers)


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """All that forward keeps in a model is undone: beside its buffers, attributes (the last activation) and hooks."""
    modules = _settled(model)
    attributes = [(m, dict(vars(m)), dict(m._parameters)) for m in modules]
    # Hooks too: transformers installs some at the first call, and marks the model, whose mark is undone here.
    hooks = [(h, dict(h)) for m in modules for n, h in vars(m).items() if "_hooks" in n and isinstance(h, dict)]
    with buffers_kept(model):
        try:
            yield
        finally:
            for module, kept, parameters in attributes:
                now = vars(module)
                if now.keys() != kept.keys() or any(now[name] is not value for name, value in kept.items()):
                    now.clear()
                    now.update(kept)
                module._parameters.clear()
                module._parameters.update(parameters)
            for held, before in hooks:
                if held.keys() != before.keys():
                    held.clear()
                    held.update(before)


def _settled(model: nn.Module) -> list[nn.Module]:
    """The modules that can be put back in Python: what a lazy layer makes of itself in its first pass stays."""
    return [
        module
        for module in model.modules()
        if not isinstance(module, torch.jit.ScriptModule)
        and not any(isinstance(tensor, _UNINITIALIZED) for tensor in _own_tensors(module))
    ]


def _own_tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def into_evaluation(model: nn.Module) -> None:
    """Bring a model into evaluation mode by its own `eval()`, unless all of it is there already.

    Raises:
        XaiError: Its own `eval()` fails.
    """
    training = [module for module in model.modules() if _trains(module)]
    if training and _brings_itself(model) and _brought(model, False):
        return
    for module in training:
        module.training = False


def _brought(module: nn.Module, training: bool) -> bool:
    """Whether a module has methods that bring it into a mode; they are called.

    Raises:
        XaiError: They fail.
    """
    try:
        with torch.no_grad():
            module.train() if training else module.eval()
    except NotImplementedError:  # an exported graph: it is the one or the other
        return False
    except Exception as error:  # whatever another's code raises
        method, said = "train" if training else "eval", str(error).strip().splitlines()[:1]
        raise XaiError(
            f"{method}() of the model's {type(module).__name__} fails: {': '.join([type(error).__name__, *said])}",
            hint=f"model.{method}() by itself shows where",
        ) from error
    return True


def _trains(module: nn.Module) -> bool:
    return bool(getattr(module, "training", False))  # A frozen TorchScript module has no such flag.


def _brings_itself(model: nn.Module) -> bool:
    """Whether a part of a model has a way of its own into evaluation mode, and none a `train(loader)`, say."""
    own = [module for module in model.modules() if _has_modes_of_its_own(module)]
    return bool(own) and all(_is_switch(module) for module in own)


def _is_switch(module: nn.Module) -> bool:
    """Whether `eval()` and `train(mode)` can be called so; people also give these names to what trains a model."""
    try:
        taken = list(inspect.signature(module.train).parameters.values())
        inspect.signature(module.eval).bind()
    except (TypeError, ValueError):
        return False
    return bool(taken) and (
        taken[0].default is True or taken[0].name == "mode" or taken[0].kind is inspect.Parameter.VAR_POSITIONAL
    )


def _has_modes_of_its_own(module: nn.Module) -> bool:
    own = vars(module)
    kind = type(module)
    return "train" in own or "eval" in own or kind.train is not nn.Module.train or kind.eval is not nn.Module.eval


class _Before:
    """What a model was before it was brought into evaluation mode."""

    def __init__(self, model: nn.Module) -> None:
        self._modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
        own = [module for module, _ in self._modes if _has_modes_of_its_own(module)]
        # Modes of its own, which may rewrite weights and attributes: of others nothing but the flags can change.
        self._has_own = _brings_itself(model) and any(training for _, training in self._modes)
        plain = [m for m, _ in self._modes if self._has_own and not isinstance(m, torch.jit.ScriptModule)]
        self._held: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (held, dict(held)) for m in plain for held in (vars(m), *(vars(m)[part] for part in _PARTS))
        ]
        weights = {id(t): t for m in own if self._has_own for t in (*m.parameters(), *m.buffers())}
        self._weights = _values(weights.values())

    def note_what_changed(self) -> None:
        """Once in evaluation mode: keep of what was only that which is something else now."""
        kept = []
        for held, was in self._held:
            other = {name: value for name, value in was.items() if held.get(name, _GONE) is not value}
            new = dict.fromkeys(held.keys() - was.keys(), _GONE)
            kept.append((held, {name: value for name, value in (other | new).items() if name != "training"}))
        self._held = [(held, was) for held, was in kept if was]
        self._weights = [(tensor, was) for tensor, was in self._weights if not _same(tensor, was)]

    def put_back(self) -> None:
        """The model as it was: by its own `train()`, then what that has not brought back."""
        try:
            for module, training in self._modes if self._has_own else ():  # from the outside to the inside
                if _trains(module) != training:
                    _brought(module, training)
        finally:
            for held, was in self._held:
                for name, value in was.items():
                    if value is _GONE:
                        held.pop(name, None)
                    else:
                        held[name] = value
            _put_back(self._weights)
            for module, training in self._modes:
                if _trains(module) != training:
                    module.training = training


_GONE = object()


def _values(tensors: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Tensors, each with a copy of its values; those of lazy layers have none yet."""
    return [(t, t.detach().clone()) for t in tensors if not isinstance(t, _UNINITIALIZED)]


def _put_back(values: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Tensors with the values they had: past autograd, which may need them for a gradient of the caller's."""
    for tensor, before in values:
        if _same(tensor, before):
            continue
        if tensor.shape == before.shape and tensor.dtype == before.dtype:
            tensor.data.copy_(before)
        else:
            tensor.data = before


def _same(tensor: Tensor, before: Tensor) -> bool:
    if tensor.shape != before.shape or tensor.dtype != before.dtype:
        return False
    # There is nothing to compare on "meta", and torch compares no sparse tensors.
    return tensor.is_meta or (tensor.layout is torch.strided and torch.equal(tensor, before))
