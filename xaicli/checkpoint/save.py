"""Writing checkpoints: the shim's own, and whatever can be loaded in a form that cannot run code.

The shim's is a dict of plain values and tensors that `torch.load(weights_only=True)` reads.
"""

from __future__ import annotations

import copy
import inspect
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from xaicli.checkpoint.facts import FORMAT, FORMAT_VERSION
from xaicli.errors import UsageError, XaiError, level_outside
from xaicli.files import appearing, have_written, write_whole
from xaicli.state.randomness import randomness_kept

if TYPE_CHECKING:
    import torch
    from torch import nn

    from xaicli.checkpoint.facts import CheckpointFacts, LoadedModel
    from xaicli.checkpoint.load import Contents
    from xaicli.heads.calling import Call


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
    task: str | None = None,
) -> Path:
    """Write a checkpoint that `xai` can load without the code of the model, where the model can be exported.

    The model is not changed: the graph is made of a copy on the CPU in evaluation mode. When there are neither example
    inputs nor an `arch`, the example inputs are not those that `forward` takes, or torch cannot export the model, a
    warning says so and the file holds no graph.

    Args:
        model: The model; wrappers of `DistributedDataParallel` and `torch.compile` are taken off.
        path: The file to write; it appears complete or not at all.
        example_inputs: What the model is called with, each (batch, ...): a tensor, one tensor an input in call order,
            or tensors by the names of `forward`'s parameters, of which any may be left out or None, or by the keys of
            the one dict that `forward` takes. They are not kept.
        arch: What built the model, `module:factory` or the callable itself; kept for hints only.
        arch_args: The keyword arguments of `arch`; plain JSON values.
        label_names: The names of the outputs, in order.
        input_range: The least and the greatest value an input can have.
        mean: Per channel, what was subtracted from pictures in [0, 1].
        std: Per channel, what they were divided by after that.
        epoch: The epoch after which this is.
        step: The global training step.
        task: What the outputs mean, a member of `Task`; what the configuration of a transformers model says when None.

    Returns:
        The path.

    Raises:
        XaiError: The model is none, or its weights lie with several processes.
    """
    import torch

    from xaicli.heads.decision import known_of

    bare = unwrapped(model)
    if not isinstance(bare, torch.nn.Module):  # an optimizer has a state, too
        raise XaiError(f"the model is a {type(bare).__name__}, no torch.nn.Module", hint="give the module itself")
    graph, graph_error, fixed_batch, inputs = _graph(bare, example_inputs, wanted=arch is None)
    configured = known_of(bare)
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "torch_version": str(torch.__version__),
        "state_dict": {k: _whole(k, v) for k, v in bare.state_dict().items() if isinstance(v, torch.Tensor)},
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
        "task": _admitted(task) or (None if configured.task is None else str(configured.task)),
        "text": None if configured.text is None else str(configured.text),
        "pad_token": configured.pad,
    }
    with appearing(Path(path), durable=True) as file:
        have_written(file, lambda told: torch.save(content, told))
    return Path(path)


def _whole(name: str, tensor: Any) -> torch.Tensor:
    """A tensor on the CPU.

    Raises:
        XaiError: This process has a part of it only.
    """
    from xaicli.checkpoint.weights import GATHER, is_sharded

    if is_sharded(tensor):
        if tensor.device_mesh.size() > 1:
            raise XaiError(f"the model is sharded over processes (FSDP, DTensor): {name}", hint=GATHER)
        tensor = tensor.to_local()
    plain: torch.Tensor = tensor.detach().cpu()
    return plain


def _admitted(task: str | None) -> str | None:
    """A task by its name; a checkpoint is not lost over another word, but it does not hold it."""
    from xaicli.heads.head import Task

    if task is None or task in tuple(Task):
        return task
    warnings.warn(f"the checkpoint says no task: {task!r} is none of {', '.join(Task)}", stacklevel=level_outside())
    return None


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


@dataclass(frozen=True)
class _Examples:
    """What a model is called with.

    Attributes:
        tensors: By the names of `forward`'s parameters, in their order, on the CPU.
        constants: What else it is given, by name: a flag, a number.
        calls: The ways the model may take the tensors, the likeliest first.
    """

    tensors: dict[str, torch.Tensor]
    constants: dict[str, Any]
    calls: list[Call]


def _examples(model: nn.Module, given: Any) -> _Examples:
    """The example inputs, named.

    Raises:
        UsageError: They are no tensors, or not those that `forward` takes.
    """
    import torch

    from xaicli.heads.calling import Call, Form, calls_of

    parameters = inspect.signature(model.forward).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    calls: list[Call] = []
    if isinstance(given, Mapping):
        known = [name for name in names if name in given]
        values = {name: given[name] for name in known} | {str(name): given[name] for name in given if name not in known}
    else:
        sequence = [given] if isinstance(given, torch.Tensor) else list(given)
        listed = calls_of(model, [f"input{i}" for i in range(len(sequence))])
        calls = [call for call in listed if call.form is Form.LIST]
        names = [f"input_{i}" for i in range(len(sequence))] if calls else names
        names += [f"input_{position}" for position in range(len(names), len(sequence))]
        values = dict(zip(names, sequence, strict=False))
    tensors = {name: value.detach().cpu() for name, value in values.items() if isinstance(value, torch.Tensor)}
    constants = {name: value for name, value in values.items() if value is not None and name not in tensors}
    if not tensors or not all(isinstance(value, bool | int | float | str) for value in constants.values()):
        raise UsageError("example_inputs holds something that is no tensor", hint="pass x[:2], or (x[:2], mask[:2])")
    if calls:
        return _Examples(tensors, constants, calls)
    in_order = list(tensors) == names[: len(tensors)] and not constants
    positional = {p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)}
    if in_order and set(tensors) & set(names) <= positional:
        return _Examples(tensors, constants, [Call(tuple(range(len(tensors))))])
    if isinstance(given, Mapping):
        calls = [call for call in calls_of(model, [*tensors, *constants]) if call.form is Form.DICT or call.keywords]
        if calls and not constants:
            calls += [call for call in calls_of(model, list(tensors)) if call.form is Form.LIST]
        if not calls:
            unknown = next(name for name in tensors if name not in names)
            raise UsageError(f"forward takes no {unknown!r}", hint=f"it takes {', '.join(names)}")
        n = len(tensors)
        return _Examples(tensors, constants, [replace(call, keywords=call.keywords[:n]) for call in calls])
    return _Examples(tensors, constants, [Call((), tuple((name, i) for i, name in enumerate(tensors)))])


def _graph(
    model: nn.Module, given: Any, *, wanted: bool
) -> tuple[torch.Tensor | None, str | None, str, dict[str, torch.Tensor]]:
    """The exported graph as bytes in a tensor, or why there is none, why its batch size is fixed, and its inputs."""
    import torch

    from xaicli.checkpoint.exported import export_graph, why_not_exported

    if given is None:
        if wanted:
            warnings.warn(_advice("no example_inputs were given"), stacklevel=level_outside())
        return None, "no example_inputs were given", "", {}
    inputs: dict[str, torch.Tensor] = {}
    try:
        examples = _examples(model, given)
        inputs = examples.tensors
        with randomness_kept(*{tensor.device for tensor in model.parameters()}):
            copied = _evaluating_copy(model)
            data, fixed_batch = export_graph(copied, inputs, _working(copied, examples), constants=examples.constants)
    except Exception as error:
        reason = f"{error.message} ({error.hint})" if isinstance(error, UsageError) else why_not_exported(error)
        what = reason if isinstance(error, UsageError) else f"torch could not export the model ({reason})"
        warnings.warn(_advice(what), stacklevel=level_outside())
        return None, reason, "", inputs
    if fixed_batch:
        warnings.warn(f"the checkpoint's graph takes one batch size only ({fixed_batch})", stacklevel=level_outside())
    return torch.frombuffer(bytearray(data), dtype=torch.uint8), None, fixed_batch, inputs


def _working(model: nn.Module, examples: _Examples) -> Call:
    """The first way to call the model that it takes, where its signature leaves that open.

    Raises:
        UsageError: It takes the inputs neither by their names nor as one dict or list.
    """
    import torch

    from xaicli.heads.calling import Form, parameters_of

    said, is_open = "", any(call.form is Form.DICT for call in examples.calls)
    for call in examples.calls if is_open else ():
        try:
            with torch.no_grad():
                call(model, [x.clone() for x in examples.tensors.values()], examples.constants)
        except Exception as error:  # whatever another's forward raises
            said = said or f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        return call
    if is_open:
        names = parameters_of(model)[0]
        raise UsageError(
            f"forward takes no {next(iter(examples.tensors))!r}, nor one dict of all inputs ({said})",
            hint=f"it takes {', '.join(names)}",
        )
    return examples.calls[-1]


def _advice(reason: str) -> str:
    return f"the checkpoint holds no graph, because {reason}; saliency will need --arch module:factory"


def _evaluating_copy(model: nn.Module) -> nn.Module:
    """A copy on the CPU in evaluation mode; tensors of another device are never copied there.

    What a module holds beside its weights is copied where it can be: a kept activation without its history, a lock or
    an open file not at all, the copy then refers to the same.
    """
    import torch

    from xaicli.heads.evaluation import into_evaluation

    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        copied = torch.nn.Parameter(parameter.detach().cpu().clone(), requires_grad=parameter.requires_grad)
        memo[id(parameter)] = copied
    for tensor in (*model.buffers(), *_held_tensors(model)):
        memo.setdefault(id(tensor), tensor.detach().cpu().clone())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            twin = copy.deepcopy(model, dict(memo))
        except Exception:  # whatever an object of the user's says when it is asked for a copy
            for module in model.modules():
                for value in _held(module):
                    _share_if_it_must(value, memo)
            twin = copy.deepcopy(model, memo)
    into_evaluation(twin)
    return twin


def _held(module: nn.Module) -> list[Any]:
    """What a module holds beside weights and parts."""
    return [value for name, value in vars(module).items() if name not in ("_parameters", "_buffers", "_modules")]


def _held_tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    """Tensors that modules hold as plain attributes, in containers too."""
    import torch

    seen: set[int] = set()
    waiting: list[Any] = [value for module in model.modules() for value in _held(module)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple | dict) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value


def _share_if_it_must(value: Any, memo: dict[int, Any]) -> None:
    """Note a value that cannot be copied as its own copy."""
    parts = list(value.values()) if isinstance(value, dict) else [value]
    for part in parts:
        try:
            copy.deepcopy(part, dict(memo))
        except Exception:
            memo[id(part)] = part


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
    from xaicli.checkpoint.architecture import searching
    from xaicli.checkpoint.files import only_file, part_of
    from xaicli.checkpoint.load import build_model, read_checkpoint
    from xaicli.checkpoint.tensor_file import write_tensors
    from xaicli.checkpoint.weights import broken

    path = Path(path)
    target = _target(output, to)
    written = Path(output) if output is not None else path.with_suffix(f".{target}")
    if written.resolve() == path.resolve():
        raise UsageError(f"{written} would replace the checkpoint itself", hint="name another file with --output")
    if (part := part_of(only_file(path))) is not None and part.known:
        raise XaiError(f"{only_file(path)} is {part} of a model's weights", hint=f"convert the whole: {part.hint}")
    whole = arch is None and target is not Target.SAFETENSORS
    contents = read_checkpoint(path, weights=weights, trust=trust, whole=whole, pythonpath=pythonpath)
    unused = _unused(
        target,
        {"--arch": arch, "--input-shape": input_shape, "--input-dtype": input_dtype, "--label-names": label_names},
    )
    for note in (*contents.facts.notes, *unused):
        warnings.warn(note, stacklevel=2)
    if label_names:
        if (own := contents.facts.label_names) and len(own) != len(label_names):
            raise UsageError(
                f"{len(label_names)} label names were given, and {path} names {len(own)} classes",
                hint="a name for each class",
            )
        contents = replace(contents, facts=replace(contents.facts, label_names=tuple(label_names)))
    match target:
        case Target.SAFETENSORS:
            tensors = _weights(contents)
            _warn_of(broken(tensors.items()))
            return write_tensors(written, tensors, contents.facts)
        case Target.PT2 | Target.PT:
            if target is Target.PT2 and arch is None and (graph := contents.graph) is not None:
                _warn_of(broken(graph.values()))
                return write_whole(written, graph.rebuilt, durable=True)
            with searching(pythonpath):  # what forward imports when it is traced, too
                loaded = build_model(contents, arch=arch, arch_args=arch_args, pythonpath=pythonpath)
                for note in loaded.facts.notes:
                    if note not in contents.facts.notes:
                        warnings.warn(note, stacklevel=2)
                examples = _zeros(loaded.facts, input_shape, input_dtype)
                if label_names:
                    _check_names(loaded, examples, len(label_names))
                return _export(loaded, examples, target, written)
    assert_never(target)


def _warn_of(said: str) -> None:
    if said:
        warnings.warn(said, stacklevel=level_outside())


def _unused(target: Target, asked: Mapping[str, object]) -> list[str]:
    """What was asked for that a form has no room for."""
    match target:
        case Target.SAFETENSORS:
            without = {"--arch": "weights are written as they are", "--input-shape": "", "--input-dtype": ""}
        case Target.PT2:
            without = {"--label-names": "a graph alone keeps none; --to pt does"}
        case Target.PT:
            without = {}
        case _:
            assert_never(target)
    return [
        f"{option} was not used: " + (why or "it is for graphs, and these are weights alone")
        for option, why in without.items()
        if asked[option]
    ]


def _check_names(loaded: LoadedModel, examples: Mapping[str, torch.Tensor], n: int) -> None:
    """Refuse names that are not as many as an output has classes; two may name the answers of one number."""
    import torch
    from torch.utils import _pytree

    with torch.no_grad():
        outputs = _pytree.tree_leaves(loaded.model(*examples.values()))
    shapes = [tuple(x.shape[1:]) for x in outputs if isinstance(x, torch.Tensor) and x.ndim]
    if not any(n in shape or (n == 2 and shape in ((), (1,))) for shape in shapes):
        said = ", ".join(str(("N", *shape)).replace("'", "") for shape in shapes)
        raise UsageError(
            f"{n} label names were given, and the model's output has shape {said}", hint="a name for each class"
        )


def _target(output: str | PathLike[str] | None, to: str | Target | None) -> Target:
    name = str(to) if to is not None else Path(output).suffix.removeprefix(".") if output is not None else "safetensors"
    if name not in set(Target):
        raise UsageError(f"{name!r} is no form a checkpoint is converted to", hint=f"forms: {', '.join(Target)}")
    return Target(name)


def _weights(contents: Contents) -> dict[str, torch.Tensor]:
    if contents.weights is not None:
        return contents.weights.weights
    import torch

    from xaicli.checkpoint.load import build_model

    model = build_model(contents).model
    return {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}


def _zeros(
    facts: CheckpointFacts, shapes: Sequence[Sequence[int]] | None, dtypes: Sequence[str] | None
) -> dict[str, torch.Tensor]:
    """Inputs of zeros, a batch of two, to trace the model with."""
    import torch

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
    from xaicli.checkpoint.exported import export_graph, why_not_exported

    facts = loaded.facts
    try:
        if target is Target.PT2:
            data, fixed = export_graph(loaded.model, examples)
            if fixed:
                warnings.warn(
                    f"{written} takes batches of {facts.static_batch or 2} only ({fixed})", stacklevel=level_outside()
                )
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
        raise XaiError(
            f"torch cannot export the model of {facts.path}: {why_not_exported(error)}", hint=hint
        ) from error
