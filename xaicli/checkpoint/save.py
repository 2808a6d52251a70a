"""The shim's checkpoint: one file with the weights, the exported graph, and what is known of inputs and outputs.

The file is a dict of plain values and tensors that `torch.load(weights_only=True)` reads.
"""

from __future__ import annotations

import copy
import inspect
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli.checkpoint.facts import FORMAT, FORMAT_VERSION
from xaicli.errors import UsageError
from xaicli.files import appearing

if TYPE_CHECKING:
    import torch
    from torch import nn


def save_checkpoint(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    example_inputs: torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor] | None = None,
    arch: str | Callable[..., nn.Module] | None = None,
    arch_args: Mapping[str, Any] | None = None,
    label_names: Sequence[str] | None = None,
    input_range: tuple[float, float] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    epoch: int | None = None,
    step: int | None = None,
) -> Path:
    """Write a checkpoint that `xai` can load without the code of the model, where the model can be exported.

    The model is not changed: the graph is made of a copy on the CPU in evaluation mode. When there are neither example
    inputs nor an `arch`, or torch cannot export the model, a warning says so and the file holds no graph.

    Args:
        model: The model; wrappers of `DistributedDataParallel` and `torch.compile` are taken off.
        path: The file to write; it appears complete or not at all.
        example_inputs: What the model is called with, each (batch, ...): a tensor, one tensor an input in call order,
            or tensors by the names of `forward`'s parameters. They are not kept.
        arch: What built the model, `module:factory` or the callable itself; kept for hints only.
        arch_args: The keyword arguments of `arch`; plain JSON values.
        label_names: The names of the outputs, in order.
        input_range: The least and the greatest value an input can have.
        mean: Per channel, what was subtracted from pictures in [0, 1].
        std: Per channel, what they were divided by after that.
        epoch: The epoch after which this is.
        step: The global training step.

    Returns:
        The path.

    Raises:
        UsageError: The example inputs are no tensors, or not those that `forward` names.
    """
    import torch

    bare = unwrapped(model)
    inputs = _named_inputs(bare, example_inputs)
    graph, graph_error, fixed_batch = _graph(bare, inputs, wanted=arch is None)
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "torch_version": str(torch.__version__),
        "state_dict": {k: v.detach().cpu() for k, v in bare.state_dict().items() if isinstance(v, torch.Tensor)},
        "graph": graph,
        "graph_error": graph_error,
        "fixed_batch": fixed_batch,
        "inputs": [
            {"name": name, "shape": list(x.shape[1:]), "dtype": str(x.dtype).removeprefix("torch.")}
            for name, x in inputs.items()
        ],
        "input_range": [float(value) for value in input_range] if input_range else None,
        "mean": [float(value) for value in mean] if mean is not None else None,
        "std": [float(value) for value in std] if std is not None else None,
        "label_names": [str(name) for name in label_names] if label_names else None,
        "arch": arch if isinstance(arch, str) or arch is None else f"{arch.__module__}:{arch.__qualname__}",
        "arch_args": dict(arch_args) if arch_args else None,
        "epoch": None if epoch is None else int(epoch),
        "step": None if step is None else int(step),
    }
    with appearing(Path(path), durable=True) as file:
        torch.save(content, file)
    return Path(path)


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside `DistributedDataParallel`, `DataParallel` and `torch.compile`."""
    import torch

    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(model, wrappers):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), torch.nn.Module):
            model = inner
        else:
            return model


def _named_inputs(model: nn.Module, given: Any) -> dict[str, torch.Tensor]:
    """The example inputs by name in the order of `forward`'s parameters, on the CPU."""
    import torch

    if given is None:
        return {}
    names = [
        name
        for name, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if isinstance(given, Mapping):
        if unknown := sorted(set(given) - set(names)) or [n for n in names[: len(given)] if n not in given]:
            raise UsageError(f"example_inputs and forward differ in {unknown[0]!r}", hint=f"forward takes {names}")
        values = [given[name] for name in names if name in given]
    else:
        values = [given] if isinstance(given, torch.Tensor) else list(given)
    if not all(isinstance(value, torch.Tensor) for value in values):
        raise UsageError("example_inputs holds something that is no tensor", hint="pass x[:2], or (x[:2], mask[:2])")
    names += [f"input_{position}" for position in range(len(names), len(values))]
    return {name: value.detach().cpu() for name, value in zip(names, values, strict=False)}


def _graph(
    model: nn.Module, inputs: Mapping[str, torch.Tensor], *, wanted: bool
) -> tuple[torch.Tensor | None, str | None, str]:
    """The exported graph as bytes in a tensor, or why there is none, and why its batch size is fixed."""
    import torch

    from xaicli.checkpoint.exported import export_graph, first_line

    if not inputs:
        if wanted:
            warnings.warn(_advice("no example_inputs were given"), stacklevel=3)
        return None, "no example_inputs were given", ""
    try:
        with torch.random.fork_rng(devices=[]):
            data, fixed_batch = export_graph(_evaluating_copy(model), tuple(inputs.values()))
    except Exception as error:
        reason = first_line(error)
        warnings.warn(_advice(f"torch could not export the model ({reason})"), stacklevel=3)
        return None, reason, ""
    if fixed_batch:
        warnings.warn(f"the checkpoint's graph takes one batch size only ({fixed_batch})", stacklevel=3)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8), None, fixed_batch


def _advice(reason: str) -> str:
    return f"the checkpoint holds no graph, because {reason}; saliency will need --arch module:factory"


def _evaluating_copy(model: nn.Module) -> nn.Module:
    """A copy on the CPU in evaluation mode; tensors of another device are never copied there."""
    import torch

    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        copied = torch.nn.Parameter(parameter.detach().cpu().clone(), requires_grad=parameter.requires_grad)
        memo[id(parameter)] = copied
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach().cpu().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return copy.deepcopy(model, memo).eval()
