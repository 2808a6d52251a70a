"""Looking into a checkpoint without loading it: what it is, what it holds, what it would run."""

from __future__ import annotations

import io
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from os import PathLike
from pathlib import Path
from typing import Any, assert_never

import torch

from xaicli.checkpoint.archive import Archive, RefusedError
from xaicli.checkpoint.facts import CheckpointFacts, Kind, is_own, read_own
from xaicli.checkpoint.files import Container, adapter_in, only_file, part_of, pickled_in, sha256, sniff
from xaicli.checkpoint.load import inert_objects_note, training_facts, with_graph_facts
from xaicli.checkpoint.package import TensorFacts, open_package
from xaicli.checkpoint.tensor_file import describe_tensors, read_tensors
from xaicli.checkpoint.tensors import OddTensor, StoredTensor
from xaicli.checkpoint.torch_file import read_torch, where_code_is
from xaicli.checkpoint.weights import Found, broken, found_weights, tensors_in


class Verdict(StrEnum):
    """How a checkpoint can be loaded."""

    AS_IT_IS = "as it is"
    WITH_ARCH = "with --arch"
    WITH_OTHERS = "with the other parts"
    WITH_TRUST = "only with --trust-checkpoint"
    NOT = "in no way"


@dataclass(frozen=True)
class Inspection:
    """What is in a checkpoint.

    Attributes:
        facts: What it is and says of itself.
        n_bytes: The size of the file, or of the folder's files.
        verdict: How it can be loaded.
        tensors: Its tensors, optimizer state included.
        weight_sets: The keys under which it holds weights, for `--weights`.
        operators: The operators of its graph and how often each is used.
        runs: What loading it in full would import, call or start; empty when nothing.
        refusal: Why it is not loaded; "" when it is.
    """

    facts: CheckpointFacts
    n_bytes: int
    verdict: Verdict
    tensors: tuple[TensorFacts, ...] = ()
    weight_sets: tuple[str, ...] = ()
    operators: Mapping[str, int] | None = None
    runs: tuple[str, ...] = ()
    refusal: str = ""


def inspect_checkpoint(path: str | PathLike[str]) -> Inspection:
    """Look into a checkpoint, running and importing nothing it names.

    Raises:
        DamagedFileError: It is not complete.
        XaiError: There is no such file, or it is no checkpoint.
    """
    path = only_file(Path(path))
    found = _inspected(path)
    if (part := part_of(path)) is not None and part.known:
        said = f"{part} of a model's weights: {part.hint}"
        return replace(found, verdict=Verdict.WITH_OTHERS, refusal=found.refusal or said)
    if (adapter := adapter_in(path)) and found.verdict is Verdict.WITH_ARCH:
        return replace(found, verdict=Verdict.NOT, refusal=adapter)
    return found


def _inspected(path: Path) -> Inspection:
    try:
        container = sniff(path)
    except RefusedError as error:
        return _refused(_blank(path, Kind.STATE_DICT), error, ())
    match container:
        case Container.FOLDER if (pickled := pickled_in(path)) is not None:
            return _pickled_folder(path, _torch_file(_blank(pickled, Kind.STATE_DICT)))
        case Container.FOLDER:
            return _folder(_blank(path, Kind.HUGGING_FACE))
        case Container.SAFETENSORS | Container.SHARDS:
            blank = _blank(path, Kind.SAFETENSORS)
            tensors, facts = describe_tensors(path, blank.facts)
            blank = replace(blank, facts=facts, tensors=tensors, weight_sets=("",), verdict=Verdict.WITH_ARCH)
            return _with_broken(blank, read_tensors(path).items())
        case Container.PACKAGE:
            return _package(_blank(path, Kind.EXPORTED))
        case Container.TORCHSCRIPT:
            return _torchscript(_blank(path, Kind.TORCHSCRIPT))
        case Container.TORCH | Container.LEGACY:
            return _torch_file(_blank(path, Kind.PICKLED_MODULE))
    assert_never(container)


def _with_broken(found: Inspection, named: Iterable[tuple[str, Any]]) -> Inspection:
    """The same, with a note of what of its weights is NaN or infinite."""
    said = broken(named)
    facts = replace(found.facts, notes=(*found.facts.notes, said))
    return replace(found, facts=facts) if said else found


def _blank(path: Path, kind: Kind) -> Inspection:
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    n_bytes = sum(file.stat().st_size for file in files)
    return Inspection(CheckpointFacts(kind, path, sha256(path)), n_bytes, Verdict.AS_IT_IS)


def _refused(found: Inspection, error: RefusedError, runs: tuple[str, ...]) -> Inspection:
    return replace(found, verdict=Verdict.WITH_TRUST, refusal=error.thing, runs=runs)


def _folder(found: Inspection) -> Inspection:
    from xaicli.checkpoint.tensor_file import describe_folder

    try:
        tensors, facts = describe_folder(found.facts.path, found.facts)
    except RefusedError as error:
        return _refused(found, error, ())
    found = replace(found, facts=facts, tensors=tensors)
    return _with_broken(found, read_tensors(found.facts.path).items())


def _pickled_folder(folder: Path, found: Inspection) -> Inspection:
    """A folder of weights that `torch.save` wrote, by what was found in them, and how they become safetensors."""
    from xaicli.checkpoint.tensor_file import describe_pickled_folder

    if found.verdict is not Verdict.WITH_ARCH:
        return found
    said = f"{found.facts.path.name} is a pickle, read without running any of it; as safetensors: "
    said += f"xai checkpoint convert {shlex.quote(str(folder))} -o model.safetensors"
    notes = (*found.facts.notes, said)
    whole = _blank(folder, Kind.HUGGING_FACE)
    facts = describe_pickled_folder(folder, whole.facts)
    if facts is None:
        return replace(found, facts=replace(found.facts, notes=notes))
    return replace(found, facts=replace(facts, notes=notes), verdict=Verdict.AS_IT_IS, n_bytes=whole.n_bytes)


def _package(found: Inspection) -> Inspection:
    with Archive.open(found.facts.path) as archive:
        try:
            package = open_package(archive)
        except RefusedError as error:
            return _refused(found, error, (error.thing,))
    facts = with_graph_facts(found.facts, package)
    found = replace(found, facts=facts, tensors=package.tensors, operators=package.program.operators)
    return _with_broken(found, package.values())


def _torchscript(found: Inspection) -> Inspection:
    path = found.facts.path
    with Archive.open(path) as archive:
        code = tuple(sorted(name for name in archive.members if name.startswith("code/") and name.endswith(".py")))
    content = read_torch(path)
    found = replace(
        found,
        verdict=Verdict.WITH_TRUST,
        tensors=_tensors(content.value),
        weight_sets=tuple(each.key for each in found_weights(content.value)),
        runs=code,
        refusal="TorchScript, a program of its own",
    )
    return _with_broken(found, _weights_in(content.value))


def _torch_file(found: Inspection) -> Inspection:
    path = found.facts.path
    try:
        content = read_torch(path)
    except RefusedError as error:
        return _refused(found, error, (error.thing,))
    if is_own(content.value):
        return _own(found, content.value)
    sets = found_weights(content.value)
    facts = replace(found.facts, **training_facts(content.value, sets[0].key if sets else ""))
    if any(each.module for each in sets):
        facts = replace(facts, kind=Kind.PICKLED_MODULE)
    reasons = [_unread(each) for each in sets] or ["no weights: no state dict, and no part that is one"]
    found = replace(
        found,
        facts=replace(facts, notes=(*inert_objects_note(content.unknown), *_as_it_is(sets))),
        verdict=Verdict.NOT if all(reasons) else Verdict.WITH_ARCH,
        refusal=reasons[0] if all(reasons) else "",
        tensors=_tensors(content.value),
        weight_sets=tuple(each.key for each in sets),
        runs=tuple(f"{name}, if it were unpickled" for name, _ in content.unknown.most_common()),
    )
    return _with_broken(found, _weights_in(content.value))


def _as_it_is(sets: Iterable[Found]) -> Iterator[str]:
    """What --trust-checkpoint needs to load the pickled modules themselves, beside torch's own."""
    for name in dict.fromkeys(each.module for each in sets if each.module and not each.module.startswith("torch.")):
        yield f"--trust-checkpoint loads it where {name} can be imported: {where_code_is(name)}"


def _weights_in(content: object) -> Iterator[tuple[str, Any]]:
    """The tensors of each set of weights, named as `_tensors` names them: an optimizer's own may be infinite."""
    for each in found_weights(content):
        for name, tensor in each.tensors.items():
            yield (f"{each.key}.{name}" if each.key else name), tensor


def _unread(weights: Found) -> str:
    """The first tensor that keeps a set of weights from being read; "" where all can be."""
    odd = ((name, value) for name, value in weights.tensors.items() if isinstance(value, OddTensor))
    return next((f"a tensor {value.what} ({name!r})" for name, value in odd), "")


def _own(found: Inspection, content: Mapping[str, Any]) -> Inspection:
    own = read_own(content, found.facts)
    found = replace(found, facts=own.facts, tensors=_tensors(own.weights), verdict=Verdict.WITH_ARCH)
    if own.graph is None:
        found = replace(found, facts=replace(own.facts, notes=(f"no graph: {own.graph_error}",)))
        return _with_broken(found, own.weights.items())
    with Archive(io.BytesIO(own.graph), own.facts.path) as archive:
        try:
            package = open_package(archive)
        except RefusedError as error:
            return _refused(found, error, (error.thing,))
    facts = with_graph_facts(own.facts, package)
    found = replace(found, facts=facts, verdict=Verdict.AS_IT_IS, operators=package.program.operators)
    return _with_broken(found, own.weights.items() if own.weights else package.values())


def _tensors(content: object) -> tuple[TensorFacts, ...]:
    return tuple(
        TensorFacts(name, x.what.removeprefix("that is "), x.shape, 0)
        if isinstance(x, OddTensor)
        else TensorFacts(name, str(x.dtype).removeprefix("torch."), tuple(x.shape), _n_bytes(x))
        for name, x in tensors_in(content)
    )


def _n_bytes(tensor: StoredTensor | torch.Tensor) -> int:
    return tensor.n_bytes if isinstance(tensor, StoredTensor) else tensor.numel() * tensor.element_size()
