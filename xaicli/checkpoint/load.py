"""Loading: from whatever is on disk to a model that evaluates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from torch import nn

from xaicli.checkpoint.architecture import builder, searching
from xaicli.checkpoint.child import check_in_child
from xaicli.checkpoint.exported import load_graph
from xaicli.checkpoint.facts import LoadedModel
from xaicli.checkpoint.reading import Contents, read_checkpoint
from xaicli.checkpoint.weights import model_with
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
    contents = read_checkpoint(path, weights=weights, trust=trust, pythonpath=pythonpath)
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
    facts = contents.facts
    if arch is not None and contents.weights is not None:
        with searching(pythonpath):
            model, notes = model_with(contents.weights, builder(arch, arch_args, pythonpath), facts.path)
        return LoadedModel(model.to(device), replace(facts, static_batch=None, notes=(*facts.notes, *notes)))
    if arch is not None:
        facts = replace(facts, notes=(*facts.notes, "--arch was not used: the checkpoint holds the model itself"))
    if contents.model is not None:
        return LoadedModel(contents.model.to(device).eval(), facts)
    if contents.graph is not None:
        check_in_child(contents.graph.rebuilt, facts.path)
        return LoadedModel(load_graph(contents.graph, facts.path, device=device), facts)
    raise _needs_arch(contents)


def _needs_arch(contents: Contents) -> XaiError:
    facts = contents.facts
    reason = f" (no graph was saved: {contents.graph_error})" if contents.graph_error else ""
    made = f"it was made by {facts.arch}, so: --arch {facts.arch}" if facts.arch else ""
    hint = made or "name what builds the model: --arch module:factory [--arch-args JSON] [--pythonpath DIR]"
    return XaiError(f"{facts.path} holds weights but no model{reason}", hint=hint)
