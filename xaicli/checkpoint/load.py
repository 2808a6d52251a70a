"""Loading: from whatever is on disk to weights, a graph or a module, and to a model that evaluates."""

from __future__ import annotations

import inspect
import io
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, assert_never

import torch
from torch import nn

from xaicli.checkpoint.architecture import builder, model_with, searching
from xaicli.checkpoint.archive import Archive, RefusedError, convert_hint, refused
from xaicli.checkpoint.exported import check_in_child, evaluating, first_line, load_graph
from xaicli.checkpoint.facts import CheckpointFacts, Kind, LoadedModel, is_own, read_own
from xaicli.checkpoint.files import Container, Opened, only_file, pickled_in, sha256, sniff
from xaicli.checkpoint.package import Package, dtype_name, open_package
from xaicli.checkpoint.tensor_file import describe_tensors, read_tensors
from xaicli.checkpoint.torch_file import class_absent_in, code_missing, read_torch, run_torch
from xaicli.checkpoint.weights import (
    Chosen,
    StateDict,
    broken,
    choose_weights,
    find_module,
    found_weights,
    listed,
    stripped,
)
from xaicli.errors import XaiError
from xaicli.heads.evaluation import into_evaluation


def load_checkpoint(
    path: str | PathLike[str],
    *,
    arch: str | Callable[..., nn.Module] | None = None,
    arch_args: Mapping[str, Any] | str | None = None,
    weights: str | None = None,
    trust: bool = False,
    pythonpath: Sequence[str | PathLike[str]] = (),
    device: str = "cpu",
) -> LoadedModel:
    """Load a checkpoint as a model in evaluation mode.

    No code of the checkpoint's maker runs unless `trust` is given. `arch`, which does run code, is the caller's.

    Args:
        path: The file or the Hugging Face folder.
        arch: What builds the model where the checkpoint holds weights only: `module:factory`, `timm:NAME`, a callable.
        arch_args: Keyword arguments for it, a mapping or JSON text.
        weights: Which set of weights to take where there are several ("ema").
        trust: Also load what can run code: pickled modules, TorchScript, any `.pt2`. Says what that is, as a warning.
        pythonpath: Folders searched for modules before the others.
        device: Where the model shall be.

    Returns:
        The model and what is known of it.

    Raises:
        RefusedError: It holds something that could run code or take memory without end.
        DamagedFileError: The file is not complete.
        XaiError: There is no such file, it needs `arch`, or the weights do not fit.
    """
    contents = read_checkpoint(path, weights=weights, trust=trust, whole=arch is None, pythonpath=pythonpath)
    return build_model(contents, arch=arch, arch_args=arch_args, pythonpath=pythonpath, device=device)


def build_model(
    contents: Contents,
    *,
    arch: str | Callable[..., nn.Module] | None = None,
    arch_args: Mapping[str, Any] | str | None = None,
    pythonpath: Sequence[str | PathLike[str]] = (),
    device: str = "cpu",
) -> LoadedModel:
    """Make a model of what was read: by `arch` where that is given and there are weights, else of the graph or module.

    Args:
        contents: What was read.
        arch, arch_args, pythonpath, device: As `load_checkpoint`.

    Raises:
        XaiError: There are only weights and no `arch`, or the weights do not fit.
    """
    made = _made(contents, arch=arch, arch_args=arch_args, pythonpath=pythonpath, device=device)
    held: Any = made.model.program[0] if isinstance(made.model, Scripted) else made.model
    said = broken(held.named_parameters(), held.named_buffers())
    return replace(made, facts=replace(made.facts, notes=(*made.facts.notes, said))) if said else made


def _made(
    contents: Contents,
    *,
    arch: str | Callable[..., nn.Module] | None,
    arch_args: Mapping[str, Any] | str | None,
    pythonpath: Sequence[str | PathLike[str]],
    device: str,
) -> LoadedModel:
    facts = contents.facts
    if arch is None and arch_args:
        facts = replace(facts, notes=(*facts.notes, "--arch-args was not used: they are arguments of --arch"))
    if arch is not None and contents.weights is not None:
        with searching(pythonpath):
            model, notes = model_with(contents.weights, builder(arch, arch_args, pythonpath), facts.path)
        return LoadedModel(model.to(device), replace(facts, static_batch=None, notes=(*facts.notes, *notes)))
    if arch is not None:
        facts = replace(facts, notes=(*facts.notes, "--arch was not used: the checkpoint holds the model itself"))
    if contents.model is not None:
        into_evaluation(contents.model.to(device), anew=True)
        return LoadedModel(contents.model, facts)
    if contents.graph is not None:
        check_in_child(contents.graph.rebuilt, facts.path)
        return LoadedModel(load_graph(contents.graph, facts.path, device=device), facts)
    raise _needs_arch(contents)


def _needs_arch(contents: Contents) -> XaiError:
    facts = contents.facts
    if contents.weights is not None and (module := contents.weights.module):
        hint = f"take its weights without running it: --arch module:factory; or {convert_hint(facts.path)}"
        return refused(facts.path, f"a pickled module, which runs code when it is read ({module})", hint=hint)
    reason = f" (no graph was saved: {contents.graph_error})" if contents.graph_error else ""
    made = f"it was made by {facts.arch}, so: --arch {facts.arch}" if facts.arch else ""
    beside = facts.path.parent if facts.path.is_file() and (facts.path.parent / "config.json").is_file() else None
    made = made or (f"its folder names what builds it: {beside}" if beside is not None else "")
    hint = made or "name what builds the model: --arch module:factory [--arch-args JSON] [--pythonpath DIR]"
    return XaiError(f"{facts.path} holds weights but no model{reason}", hint=hint)


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds; at least one of weights, graph and model.

    Attributes:
        facts: What it says of itself.
        weights: Its state dict, as it was chosen.
        graph: Its admitted graph.
        model: A module: of transformers' own classes, or of the file's code where it was trusted.
        graph_error: Why the shim saved no graph.
    """

    facts: CheckpointFacts
    weights: Chosen | None = None
    graph: Package | None = None
    model: nn.Module | None = None
    graph_error: str = ""


def read_checkpoint(
    path: str | PathLike[str],
    *,
    weights: str | None = None,
    trust: bool = False,
    whole: bool = True,
    pythonpath: Sequence[str | PathLike[str]] = (),
) -> Contents:
    """Read a checkpoint; its code runs only when it is trusted, and only where there is no other way to read it.

    Args:
        path: The file or the Hugging Face folder.
        weights: Which set of weights to take where there are several.
        trust: Whether what can run code is read too; a warning says what that is.
        whole: Whether the model itself is wanted, where the file has one, and not only its weights.
        pythonpath: Folders searched for the modules a trusted pickle names.

    Raises:
        RefusedError: It holds something that could run code or take memory without end.
        DamagedFileError: The file is not complete.
        XaiError: There is no such file, or it is no checkpoint.
    """
    if torch.__version__ < "2.10":
        hint = "pip install 'torch>=2.10'"
        raise XaiError(f"torch {torch.__version__} can be made to run code by a file it reads weights-only", hint=hint)
    path = only_file(Path(path))
    opened = Opened(path)
    container = sniff(path, opened)
    facts = CheckpointFacts(Kind.STATE_DICT, path, sha256(path, opened))
    reading = _Reading(path, opened, facts, weights, trust, whole)
    with searching(pythonpath):
        return reading.read(container)


class Scripted(nn.Module):
    """TorchScript as a module like others: its own parameters are frozen, and no mode of it is changed.

    Args:
        program: The program.
    """

    def __init__(self, program: torch.jit.ScriptModule) -> None:
        super().__init__()
        for parameter in program.parameters():
            parameter.requires_grad_(False)
        self.program = [program.eval()]  # in a list: no part of this module, which asks of its parts what it cannot do
        schema: Any = program.forward

        def forward(*inputs: torch.Tensor, **named: torch.Tensor) -> Any:
            return self.program[0](*inputs, **named)

        names = [argument.name for argument in schema.schema.arguments[1:]]
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        self.forward = forward

    def to(self, *arguments: Any, **named: Any) -> Scripted:
        """As a module's."""
        self.program[0].to(*arguments, **named)
        return self


@dataclass(frozen=True)
class _Reading:
    """One reading of one checkpoint."""

    path: Path
    opened: Opened
    facts: CheckpointFacts
    weights: str | None
    trust: bool
    whole: bool

    def read(self, container: Container) -> Contents:
        match container:
            case Container.FOLDER if not self.whole and (pickled := pickled_in(self.path)) is not None:
                return replace(self, path=pickled, opened=Opened(pickled))._torch_file()
            case Container.FOLDER if self.whole or not any(self.path.glob("*.safetensors")):
                from xaicli.checkpoint.tensor_file import load_folder

                facts, weights = replace(self.facts, kind=Kind.HUGGING_FACE), None
                if (pickled := pickled_in(self.path)) is not None:
                    read = replace(self, path=pickled, opened=Opened(pickled), whole=False)._torch_file()
                    facts = replace(facts, notes=(*facts.notes, *read.facts.notes))
                    weights = read.weights.weights if read.weights is not None else None
                model, facts = load_folder(self.path, facts, weights)
                return Contents(facts, model=model)
            case Container.SAFETENSORS | Container.SHARDS | Container.FOLDER:
                _, facts = describe_tensors(self.path, replace(self.facts, kind=Kind.SAFETENSORS))
                return Contents(facts, weights=self._part(read_tensors(self.path)))
            case Container.PACKAGE:
                facts = replace(self.facts, kind=Kind.EXPORTED, notes=(*self.facts.notes, *self._unused()))
                return self._graph(self.opened.from_start().read(), Contents(facts))
            case Container.TORCHSCRIPT:
                return self._torchscript()
            case Container.TORCH | Container.LEGACY:
                return self._torch_file()
        assert_never(container)

    def _unused(self) -> tuple[str, ...]:
        return () if self.weights is None else ("--weights was not used: the checkpoint holds one set of them",)

    def _part(self, tensors: StateDict) -> Chosen:
        """The weights of a file that holds nothing else, or the part of them that was asked for."""
        if self.weights is None:
            return Chosen("", stripped(tensors))
        return choose_weights(tensors, self.path, wanted=self.weights)

    def _torch_file(self) -> Contents:
        try:
            content = read_torch(self.path, self.opened)
        except RefusedError as error:
            if not self.trust or error.hint != convert_hint(self.path):
                raise
            return self._run(error.thing)
        value, unknown = content.value, content.unknown
        if is_own(value):
            own = read_own(value, self.facts)
            weights = choose_weights(own.weights, self.path) if own.weights else None
            facts = replace(own.facts, notes=(*own.facts.notes, *self._unused()))
            contents = Contents(facts, weights=weights, graph_error=own.graph_error)
            return contents if own.graph is None else self._graph(own.graph, contents)
        chosen = choose_weights(value, self.path, wanted=self.weights)
        if chosen.module and self.trust and self.whole:
            return self._run(f"a pickled module ({chosen.module})", chosen)
        facts = replace(self.facts, **training_facts(value, chosen.key))
        if chosen.module:
            facts = replace(facts, kind=Kind.PICKLED_MODULE)
        notes = (*chosen.notes, *inert_objects_note(unknown, chosen.module))
        return Contents(replace(facts, notes=(*facts.notes, *notes)), weights=chosen)

    def _run(self, what: str, chosen: Chosen | None = None) -> Contents:
        """What a trusted file holds when its code is run.

        Args:
            what: What that code is.
            chosen: The pickled module that was found without running it.
        """
        self._say_trusted(what)
        content = run_torch(self.path, self.opened)
        notes = inert_objects_note(content.unknown, why="are not installed")
        facts = replace(self.facts, notes=(*self.facts.notes, *notes))
        if (model := find_module(content.value, chosen.key if chosen else None)) is not None:
            if absent := class_absent_in(model):
                raise code_missing(self.path, content, absent)
            return Contents(replace(facts, kind=Kind.PICKLED_MODULE), model=model)
        if content.why and (chosen is not None or not found_weights(content.value)):
            raise code_missing(self.path, content, chosen.module if chosen else "")
        chosen = choose_weights(content.value, self.path, wanted=self.weights)
        facts = replace(facts, **training_facts(content.value, chosen.key))
        return Contents(facts, weights=chosen)

    def _graph(self, data: bytes, contents: Contents) -> Contents:
        try:
            with Archive(io.BytesIO(data), self.path) as archive:
                package = open_package(archive)
        except RefusedError as error:
            if not self.trust:
                raise
            self._say_trusted(error.thing)
            return replace(contents, model=evaluating(torch.export.load(io.BytesIO(data)).module()))
        return replace(contents, graph=package, facts=with_graph_facts(contents.facts, package))

    def _torchscript(self) -> Contents:
        facts = replace(self.facts, kind=Kind.TORCHSCRIPT)
        if not self.whole:
            content = read_torch(self.path, self.opened).value
            if not found_weights(content):
                hint = "torch.jit.freeze made constants of them: take the program, --trust-checkpoint without --arch"
                raise XaiError(f"{self.path} is TorchScript without weights of its own", hint=hint)
            return Contents(facts, weights=choose_weights(content, self.path, wanted=self.weights))
        if not self.trust:
            hint = f"take its weights without running it: --arch module:factory; or {convert_hint(self.path)}"
            raise refused(self.path, "TorchScript, a program of its own", hint=hint)
        self._say_trusted("TorchScript, a program of its own")
        try:
            model = torch.jit.load(self.opened.from_start(), map_location="cpu")  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise XaiError(f"{self.path}: torch cannot read the TorchScript: {first_line(error)}") from error
        return Contents(facts, model=Scripted(model))

    def _say_trusted(self, what: str) -> None:
        warnings.warn(f"trusting {self.path} (sha256 {self.facts.sha256}), which may run: {what}", stacklevel=4)


def inert_objects_note(unknown: Counter[str], module: str = "", *, why: str = "were not built") -> tuple[str, ...]:
    """A note that names and counts the objects that stand inert; not those a module is made of."""
    if not unknown or module:
        return ()
    named = [name if n == 1 else f"{name} ({n})" for name, n in unknown.most_common()]
    n = unknown.total()
    return (f"{n} {'object' if n == 1 else 'objects'} of classes that {why}: {listed(named)}",)


def training_facts(content: object, key: str) -> dict[str, Any]:
    """What a dict saved by a training script says beside its weights: its kind, epoch and step.

    Args:
        content: The content of the file.
        key: Where its weights stand, "" for the content itself.
    """
    if not key or not isinstance(content, Mapping):
        return {"kind": Kind.STATE_DICT}
    kind = Kind.LIGHTNING if "pytorch-lightning_version" in content else Kind.TRAINING_DICT
    numbers = {name: content.get(name) for name in ("epoch", "global_step", "step", "iteration")}
    # -1 says of a training that it is over, or has not begun.
    integers = {name: value for name, value in numbers.items() if type(value) is int and value >= 0}
    step = next((integers[name] for name in ("global_step", "step", "iteration") if name in integers), None)
    return {"kind": kind, "epoch": integers.get("epoch"), "step": step}


def with_graph_facts(facts: CheckpointFacts, package: Package) -> CheckpointFacts:
    """Facts completed by what a graph says of its inputs."""
    inputs = package.program.inputs
    batches = [entry.shape[0] for entry in inputs if entry.shape]
    fixed = [n for n in batches if n is not None]
    shapes = tuple(tuple(n for n in entry.shape[1:] if n is not None) for entry in inputs)
    whole = all(len(shape) == len(entry.shape[1:]) for shape, entry in zip(shapes, inputs, strict=True))
    return replace(
        facts,
        input_names=facts.input_names or tuple(entry.name for entry in inputs),
        input_shapes=(facts.input_shapes or shapes) if whole else None,
        input_dtypes=facts.input_dtypes or tuple(dtype_name(entry.dtype) for entry in inputs),
        static_batch=fixed[0] if fixed and len(fixed) == len(batches) else None,
    )
