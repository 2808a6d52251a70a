"""Reading: from whatever is on disk to weights, a graph or a module, with the facts of the file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, assert_never

import torch
from torch import nn

from xaicli.checkpoint.architecture import searching
from xaicli.checkpoint.archive import Archive
from xaicli.checkpoint.exported import evaluating, first_line
from xaicli.checkpoint.facts import CheckpointFacts, Kind
from xaicli.checkpoint.files import Container, classes_in, read_torch, sha256, sniff
from xaicli.checkpoint.own import is_own, read_own
from xaicli.checkpoint.package import Package, dtype_name, open_package
from xaicli.checkpoint.refusal import RefusedError, refused
from xaicli.checkpoint.tensor_file import describe_tensors, read_tensors
from xaicli.checkpoint.weights import StateDict, check_storage, find_module, find_weights, stripped
from xaicli.errors import XaiError


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds; at least one of weights, graph and model.

    Attributes:
        facts: What it says of itself.
        weights: Its state dict.
        graph: Its admitted graph.
        model: A module: of transformers' own classes, or of the file's code where it was trusted.
        graph_error: Why the shim saved no graph.
    """

    facts: CheckpointFacts
    weights: StateDict | None = None
    graph: Package | None = None
    model: nn.Module | None = None
    graph_error: str = ""


def read_checkpoint(
    path: str | PathLike[str],
    *,
    weights: str | None = None,
    trust: bool = False,
    pythonpath: Sequence[str | PathLike[str]] = (),
) -> Contents:
    """Read a checkpoint; its code runs only when it is trusted, and only where there is no other way to read it.

    Args:
        path: The file or the Hugging Face folder.
        weights: Which set of weights to take where there are several.
        trust: Whether what can run code is read too; a warning says what that is.
        pythonpath: Folders searched for the modules a trusted pickle names.

    Raises:
        RefusedError: It holds something that could run code or take memory without end.
        DamagedFileError: The file is not complete.
        XaiError: There is no such file, or it is no checkpoint.
    """
    if torch.__version__ < "2.10":
        hint = "pip install 'torch>=2.10'"
        raise XaiError(f"torch {torch.__version__} can be made to run code by a file it reads weights-only", hint=hint)
    path = Path(path)
    container = sniff(path)
    reading = _Reading(path, CheckpointFacts(Kind.STATE_DICT, path, sha256(path)), weights, trust)
    with searching(pythonpath):
        return reading.read(container)


@dataclass(frozen=True)
class _Reading:
    """One reading of one checkpoint."""

    path: Path
    facts: CheckpointFacts
    weights: str | None
    trust: bool

    def read(self, container: Container) -> Contents:
        match container:
            case Container.FOLDER:
                from xaicli.checkpoint.hugging_face import load_folder

                model, facts = load_folder(self.path, replace(self.facts, kind=Kind.HUGGING_FACE))
                return Contents(facts, model=model)
            case Container.SAFETENSORS:
                _, facts = describe_tensors(self.path, replace(self.facts, kind=Kind.SAFETENSORS))
                return Contents(facts, weights=stripped(read_tensors(self.path)))
            case Container.PACKAGE:
                return self._graph(self.path.read_bytes(), Contents(replace(self.facts, kind=Kind.EXPORTED)))
            case Container.TORCHSCRIPT:
                return self._torchscript()
            case Container.TORCH | Container.LEGACY:
                return self._torch_file()
        assert_never(container)

    def _torch_file(self) -> Contents:
        try:
            content = read_torch(self.path)
        except RefusedError:
            if not self.trust:
                raise
            self._say_trusted(", ".join(classes_in(self.path)) or "a pickle")
            content = read_torch(self.path, trust=True)
            if (model := find_module(content)) is not None:
                return Contents(replace(self.facts, kind=Kind.PICKLED_MODULE), model=model)
        check_storage(content, self.path)
        if is_own(content):
            own = read_own(content, self.facts)
            contents = Contents(own.facts, weights=stripped(own.weights), graph_error=own.graph_error)
            return contents if own.graph is None else self._graph(own.graph, contents)
        state_dict, key = find_weights(content, self.path, wanted=self.weights)
        return Contents(replace(self.facts, **training_facts(content, key)), weights=state_dict)

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
        if not self.trust:
            raise refused(self.path, "TorchScript, a program of its own")
        self._say_trusted("TorchScript, a program of its own")
        try:
            model = torch.jit.load(str(self.path), map_location="cpu")  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise XaiError(f"{self.path}: torch cannot read the TorchScript: {first_line(error)}") from error
        return Contents(replace(self.facts, kind=Kind.TORCHSCRIPT), model=model)

    def _say_trusted(self, what: str) -> None:
        warnings.warn(f"trusting {self.path} (sha256 {self.facts.sha256}), which may run: {what}", stacklevel=4)


def training_facts(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What a dict saved by a training script says beside its weights: its kind, epoch and step.

    Args:
        content: The content of the file.
        key: Where its weights stand, "" for the content itself.
    """
    if not key:
        return {"kind": Kind.STATE_DICT}
    kind = Kind.LIGHTNING if "pytorch-lightning_version" in content else Kind.TRAINING_DICT
    numbers = {name: content.get(name) for name in ("epoch", "global_step", "step", "iteration")}
    integers = {name: value for name, value in numbers.items() if type(value) is int}
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
        input_shapes=facts.input_shapes or (shapes if whole else None),
        input_dtypes=facts.input_dtypes or tuple(dtype_name(entry.dtype) for entry in inputs),
        static_batch=fixed[0] if fixed and len(fixed) == len(batches) else None,
    )
