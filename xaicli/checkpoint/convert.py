"""Converting: whatever can be loaded becomes a file that cannot run code."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from os import PathLike
from pathlib import Path
from typing import Any, assert_never

import torch

from xaicli.checkpoint.exported import export_graph, first_line
from xaicli.checkpoint.facts import CheckpointFacts, LoadedModel
from xaicli.checkpoint.load import Contents, build_model, read_checkpoint
from xaicli.checkpoint.save import save_checkpoint
from xaicli.checkpoint.tensor_file import write_tensors
from xaicli.errors import UsageError, XaiError
from xaicli.files import write_whole


class Target(StrEnum):
    """What a checkpoint is converted to; the value is the file's suffix without its dot."""

    SAFETENSORS = "safetensors"
    PT2 = "pt2"
    """An exported graph."""
    PT = "pt"
    """The shim's checkpoint: graph, weights and facts."""


def convert_checkpoint(
    path: str | PathLike[str],
    output: str | PathLike[str] | None = None,
    *,
    to: str | Target | None = None,
    arch: str | None = None,
    arch_args: Mapping[str, Any] | str | None = None,
    weights: str | None = None,
    input_shape: Sequence[Sequence[int]] | None = None,
    input_dtype: Sequence[str] | None = None,
    label_names: Sequence[str] | None = None,
    trust: bool = False,
    pythonpath: Sequence[str | PathLike[str]] = (),
) -> Path:
    """Write a checkpoint in a form that cannot run code.

    Args:
        path: The checkpoint.
        output: The file to write; beside the checkpoint, with the suffix of its form, when None.
        to: The form; told from the suffix of `output` when None, safetensors when there is neither.
        arch, arch_args, weights, trust, pythonpath: As `load_checkpoint`.
        input_shape: For a graph, the shape of one sample of each input, where the checkpoint does not say it.
        input_dtype: The dtype of each input; float32 when None.
        label_names: The names of the outputs, where the checkpoint does not say them.

    Returns:
        The file written.

    Raises:
        UsageError: The form is none, or the output would replace the checkpoint.
        XaiError: The checkpoint cannot be loaded, or torch cannot export the model.
    """
    path = Path(path)
    target = _target(output, to)
    written = Path(output) if output is not None else path.with_suffix(f".{target}")
    if written.resolve() == path.resolve():
        raise UsageError(f"{written} would replace the checkpoint itself", hint="name another file with --output")
    whole = arch is None and target is not Target.SAFETENSORS
    contents = read_checkpoint(path, weights=weights, trust=trust, whole=whole, pythonpath=pythonpath)
    if label_names:
        contents = replace(contents, facts=replace(contents.facts, label_names=tuple(label_names)))
    match target:
        case Target.SAFETENSORS:
            return write_tensors(written, _weights(contents), contents.facts)
        case Target.PT2 | Target.PT:
            if target is Target.PT2 and arch is None and (graph := contents.graph) is not None:
                return write_whole(written, graph.rebuilt, durable=True)
            loaded = build_model(contents, arch=arch, arch_args=arch_args, pythonpath=pythonpath)
            return _export(loaded, _examples(loaded.facts, input_shape, input_dtype), target, written)
    assert_never(target)


def _target(output: str | PathLike[str] | None, to: str | Target | None) -> Target:
    name = str(to) if to is not None else Path(output).suffix.removeprefix(".") if output is not None else "safetensors"
    if name not in set(Target):
        raise UsageError(f"{name!r} is no form a checkpoint is converted to", hint=f"forms: {', '.join(Target)}")
    return Target(name)


def _weights(contents: Contents) -> dict[str, torch.Tensor]:
    if contents.weights is not None:
        return contents.weights.weights
    model = build_model(contents).model
    return {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}


def _examples(
    facts: CheckpointFacts, shapes: Sequence[Sequence[int]] | None, dtypes: Sequence[str] | None
) -> dict[str, torch.Tensor]:
    """Inputs of zeros, a batch of two, to trace the model with."""
    shapes = shapes or facts.input_shapes
    if not shapes:
        hint = "say the shape of one sample, without the batch: --input-shape 3,224,224 (repeat for several inputs)"
        raise UsageError(f"{facts.path} does not say what its inputs look like", hint=hint)
    types = [*(dtypes or facts.input_dtypes or ()), *["float32"] * len(shapes)]
    known = facts.input_names or ()
    names = known if len(known) == len(shapes) else [f"input_{position}" for position in range(len(shapes))]
    batch = facts.static_batch or 2
    try:
        return {
            name: torch.zeros((batch, *shape), dtype=getattr(torch, dtype))
            for name, shape, dtype in zip(names, shapes, types, strict=False)
        }
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UsageError(f"no such input: {error}", hint="--input-shape 3,224,224 --input-dtype float32") from error


def _export(loaded: LoadedModel, examples: dict[str, torch.Tensor], target: Target, written: Path) -> Path:
    facts = loaded.facts
    try:
        if target is Target.PT2:
            data, fixed = export_graph(loaded.model, examples)
            if fixed:
                warnings.warn(f"{written} takes batches of {facts.static_batch or 2} only ({fixed})", stacklevel=3)
            return write_whole(written, data, durable=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "the checkpoint holds no graph")
            return save_checkpoint(
                loaded.model,
                written,
                example_inputs=tuple(examples.values()),
                arch=facts.arch,
                label_names=facts.label_names,
                input_range=facts.input_range,
                mean=facts.mean,
                std=facts.std,
                epoch=facts.epoch,
                step=facts.step,
                task=facts.task,
            )
    except XaiError:
        raise
    except Exception as error:
        hint = "convert it to safetensors, and load that with --arch module:factory"
        raise XaiError(f"torch cannot export the model of {facts.path}: {first_line(error)}", hint=hint) from error
