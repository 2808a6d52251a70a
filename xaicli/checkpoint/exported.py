"""Exported graphs: from an admitted archive to a module, and from a module to an archive."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import fx, nn
from torch.export import Dim

from xaicli.checkpoint.archive import Archive
from xaicli.checkpoint.known import remember
from xaicli.checkpoint.package import Package, dtype_name, open_package
from xaicli.errors import XaiError

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_FORBID = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def load_graph(package: Package, path: Path | str, *, device: str = "cpu") -> fx.GraphModule:
    """Load an admitted graph.

    Args:
        package: The archive as rebuilt by the inspection.
        path: What to call it in errors.
        device: Where the model shall be.

    Returns:
        The graph as a module, whose batch size and mode are as they were exported.

    Raises:
        XaiError: torch cannot read the graph.
    """
    try:
        with forced_weights_only():
            program = torch.export.load(io.BytesIO(package.rebuilt))
        if torch.device(device).type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        return evaluating(program.module(check_guards=False))
    except Exception as error:
        raise XaiError(
            f"{path}: torch {torch.__version__} cannot read the graph: {first_line(error)}",
            hint="save it again with the torch that reads it, or load the weights with --arch module:factory",
        ) from error


def export_graph(model: nn.Module, example_inputs: Sequence[torch.Tensor]) -> tuple[bytes, str]:
    """Export a model, with a batch axis of any length where it allows one, and check that the graph computes the same.

    The archive holds neither the example inputs nor the maker's source lines.

    Args:
        model: In evaluation mode, on the CPU.
        example_inputs: One tensor an input, each (batch, ...).

    Returns:
        The `.pt2` archive, and why the batch size is fixed ("" when it is not).

    Raises:
        Exception: Whatever torch says of a model it cannot export, or RefusedError for a graph `xai` would not load.
    """
    # torch takes a length of 1 for a constant: a batch of one is doubled.
    batches = tuple(torch.cat([x, x]) if x.ndim and x.shape[0] == 1 else x for x in example_inputs)
    with torch.no_grad():
        expected = model(*batches)
    traced = model if _is_plain(expected) and not _is_variadic(model) else _Plain(model)
    batch = Dim("batch", min=1)
    axes = tuple({0: batch} if x.ndim else None for x in batches)
    fixed = ""
    with _quiet_torch():
        try:
            program = torch.export.export(traced, batches, dynamic_shapes=(axes,) if traced is not model else axes)
        except Exception as error:
            fixed = first_line(error)
            program = torch.export.export(traced, batches)
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    with Archive(buffer, "the exported graph") as archive:
        package = open_package(archive)
    graph = load_graph(package, "the exported graph")
    with torch.no_grad():
        for one, other in zip(pytree.tree_leaves(expected), pytree.tree_leaves(graph(*batches)), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4)
    remember(package.rebuilt)
    return package.rebuilt, fixed


class _Plain(nn.Module):
    """A model that takes tensors in order and answers with tensors, tuples, lists and dicts only."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> Any:
        output = self.model(*inputs)
        return dict(output) if isinstance(output, Mapping) else pytree.tree_leaves(output)


def _is_plain(output: object) -> bool:
    if type(output) in (tuple, list):
        return all(_is_plain(item) for item in output)  # type: ignore[attr-defined]
    if type(output) is dict:
        return all(isinstance(key, str) and _is_plain(item) for key, item in output.items())
    return isinstance(output, torch.Tensor)


def _is_variadic(model: nn.Module) -> bool:
    kinds = {p.kind for p in inspect.signature(model.forward).parameters.values()}
    return inspect.Parameter.VAR_POSITIONAL in kinds


def evaluating(graph: fx.GraphModule) -> fx.GraphModule:
    """A graph whose `eval()` and `train()` do nothing instead of raising: its mode was fixed by the export."""

    def keep(module: fx.GraphModule, mode: bool = True) -> fx.GraphModule:
        del mode
        return module

    graph.training = False
    graph.train = types.MethodType(keep, graph)  # type: ignore[method-assign]
    graph.eval = types.MethodType(keep, graph)  # type: ignore[method-assign]
    return graph


def zeros_for(package: Package) -> tuple[torch.Tensor, ...]:
    """Inputs of zeros that a graph accepts."""
    return tuple(
        torch.zeros(entry.example, dtype=getattr(torch, dtype_name(entry.dtype))) for entry in package.program.inputs
    )


@contextlib.contextmanager
def _quiet_torch() -> Iterator[None]:
    """Without the pages torch logs about a model it cannot export; the exception says it."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def forced_weights_only() -> Iterator[None]:
    """Make every `torch.load` in the block read weights only, also those inside torch.

    torch refuses to run with both of its variables set, so the one that opens the door is taken away.
    """
    kept = {name: os.environ.pop(name, None) for name in (_FORCE, _FORBID)}
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        del os.environ[_FORCE]
        os.environ.update({name: value for name, value in kept.items() if value is not None})


def first_line(error: BaseException) -> str:
    """What an exception of torch says first, without the pages that follow."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
