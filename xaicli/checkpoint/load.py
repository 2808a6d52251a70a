"""Loading: from whatever is on disk to a model that evaluates."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, assert_never

import torch
from torch import nn

from xaicli.checkpoint.architecture import builder, searching
from xaicli.checkpoint.child import check_in_child
from xaicli.checkpoint.exported import evaluating, first_line, load_graph
from xaicli.checkpoint.facts import CheckpointFacts, Kind, LoadedModel
from xaicli.checkpoint.files import Container, classes_in, read_torch, sha256, sniff
from xaicli.checkpoint.own import is_own, read_own
from xaicli.checkpoint.package import Package, dtype_name
from xaicli.checkpoint.refusal import RefusedError, refused
from xaicli.checkpoint.weights import StateDict, check_storage, find_weights, model_with
from xaicli.errors import XaiError


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
    path = Path(path)
    container = sniff(path)
    build = builder(arch, arch_args, pythonpath) if arch is not None else None
    loading = _Loading(path, CheckpointFacts(Kind.STATE_DICT, path, sha256(path)), build, weights, trust, device)
    with searching(pythonpath):
        loaded = loading.load(container)
    return replace(loaded, model=loaded.model.to(device).eval())


@dataclass(frozen=True)
class _Loading:
    """One loading of one checkpoint."""

    path: Path
    facts: CheckpointFacts
    build: Callable[[], nn.Module] | None
    weights: str | None
    trust: bool
    device: str

    def load(self, container: Container) -> LoadedModel:
        match container:
            case Container.FOLDER:
                from xaicli.checkpoint.hugging_face import load_folder

                return load_folder(self.path, replace(self.facts, kind=Kind.HUGGING_FACE))
            case Container.SAFETENSORS:
                return self._built(read_safetensors(self.path), replace(self.facts, kind=Kind.SAFETENSORS))
            case Container.PACKAGE:
                return self._package(replace(self.facts, kind=Kind.EXPORTED))
            case Container.TORCHSCRIPT:
                return self._torchscript(replace(self.facts, kind=Kind.TORCHSCRIPT))
            case Container.TORCH | Container.LEGACY:
                return self._torch_file()
        assert_never(container)

    def _torch_file(self) -> LoadedModel:
        try:
            content = read_torch(self.path)
        except RefusedError:
            if not self.trust:
                raise
            content = read_torch(self.path, trust=self._trusting(", ".join(classes_in(self.path)) or "a pickle"))
        if isinstance(content, nn.Module):
            return LoadedModel(content, replace(self.facts, kind=Kind.PICKLED_MODULE))
        check_storage(content, self.path)
        if is_own(content):
            own = read_own(content, self.facts)
            if own.graph is not None and self.build is None:
                return self._graph(own.graph, own.facts)
            return self._built(own.weights, own.facts, why=own.graph_error)
        state_dict, key = find_weights(content, self.path, wanted=self.weights)
        return self._built(state_dict, replace(self.facts, **training_facts(content, key)))

    def _package(self, facts: CheckpointFacts) -> LoadedModel:
        try:
            return self._graph(self.path.read_bytes(), facts)
        except RefusedError as error:
            if not self.trust:
                raise
            self._trusting(error.message.partition("it holds ")[2])
            program = torch.export.load(self.path)
            return LoadedModel(evaluating(program.module()), facts)

    def _graph(self, data: bytes, facts: CheckpointFacts) -> LoadedModel:
        check_in_child(data, self.path)
        model, package = load_graph(data, self.path, device=self.device)
        return LoadedModel(model, with_graph_facts(facts, package))

    def _torchscript(self, facts: CheckpointFacts) -> LoadedModel:
        if not self.trust:
            raise refused(self.path, "TorchScript, a program of its own")
        self._trusting("TorchScript, a program of its own")
        try:
            model = torch.jit.load(str(self.path), map_location="cpu")  # type: ignore[no-untyped-call]
            return LoadedModel(model, facts)
        except RuntimeError as error:
            raise XaiError(f"{self.path}: torch cannot read the TorchScript: {first_line(error)}") from error

    def _built(self, weights: StateDict, facts: CheckpointFacts, *, why: str = "") -> LoadedModel:
        if self.build is None:
            raise _needs_arch(facts, why)
        model, notes = model_with(weights, self.build, self.path)
        return LoadedModel(model, replace(facts, notes=(*facts.notes, *notes)))

    def _trusting(self, what: str) -> bool:
        warnings.warn(f"trusting {self.path} (sha256 {self.facts.sha256}), which may run: {what}", stacklevel=2)
        return True


def read_safetensors(path: Path) -> StateDict:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        XaiError: safetensors is not installed, or refuses the file.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise XaiError(f"{path} needs safetensors", hint="pip install 'xaicli[saliency]'") from error
    try:
        tensors: StateDict = load_file(path)
        return tensors
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise XaiError(f"{path} is no whole safetensors file: {error}", hint="copy it again") from error


def training_facts(content: Any, key: str) -> dict[str, Any]:
    """What a dict saved by a training script says beside its weights: its kind, epoch and step."""
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
    if facts.input_shapes is None and all(n is not None for entry in inputs for n in entry.shape[1:]):
        facts = replace(facts, input_shapes=tuple(tuple(n or 0 for n in entry.shape[1:]) for entry in inputs))
    return replace(
        facts,
        input_names=facts.input_names or tuple(entry.name for entry in inputs),
        input_dtypes=facts.input_dtypes or tuple(dtype_name(entry.dtype) for entry in inputs),
        static_batch=fixed[0] if fixed and len(fixed) == len(batches) else None,
    )


def _needs_arch(facts: CheckpointFacts, why: str) -> XaiError:
    reason = f" (no graph was saved: {why})" if why else ""
    made = f"it was made by {facts.arch}, so: --arch {facts.arch}" if facts.arch else ""
    hint = made or "name what builds the model: --arch module:factory [--arch-args JSON] [--pythonpath DIR]"
    return XaiError(f"{facts.path} holds weights but no model{reason}", hint=hint)
