"""`--arch`: the user's own code that builds a model, named on the command line and nowhere else."""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli.errors import UsageError, XaiError, unknown

if TYPE_CHECKING:
    from torch import nn

_TIMM = "timm"


def resolve(spec: str, *, pythonpath: Sequence[str | PathLike[str]] = (), option: str = "--arch") -> Any:
    """The object that `module:name` names, importing the module.

    Args:
        spec: `package.module:factory`, or a dotted name after the colon.
        pythonpath: Folders searched before the others; the current folder is not, unless it is among them.
        option: The option the text came from, for errors.

    Raises:
        UsageError: The text has another form.
        XaiError: There is no such module or name.
    """
    module_name, colon, name = spec.partition(":")
    if not colon or not name or not module_name:
        raise UsageError(f"{option} {spec!r} is not module:factory", hint="for example torchvision.models:resnet18")
    with searching(pythonpath):
        try:
            found: Any = importlib.import_module(module_name)
        except ImportError as error:
            where = "say where it is with --pythonpath DIR (--pythonpath . for the current folder)"
            raise XaiError(f"{option} {spec}: {error}", hint=where) from error
        for part in name.split("."):
            if not hasattr(found, part):
                names = [n for n in vars(found) if not n.startswith("_")]
                raise unknown("name", part, names, where=module_name)
            found = getattr(found, part)
    return found


@contextlib.contextmanager
def searching(pythonpath: Sequence[str | PathLike[str]]) -> Iterator[None]:
    """Search these folders first for modules while the block runs."""
    kept = list(sys.path)
    sys.path[:0] = [str(Path(folder).resolve()) for folder in pythonpath]
    try:
        yield
    finally:
        sys.path[:] = kept


def builder(
    arch: str | Callable[..., nn.Module],
    arch_args: Mapping[str, Any] | str | None,
    pythonpath: Sequence[str | PathLike[str]],
) -> Callable[[], nn.Module]:
    """What builds the model when called.

    Args:
        arch: `module:factory`, `timm:NAME`, or the factory itself.
        arch_args: Its keyword arguments, as a mapping or as JSON text.
        pythonpath: Folders searched for the module.

    Raises:
        UsageError: The arguments are no JSON object.
        XaiError: The factory cannot be found, or (when called) makes no module.
    """
    arguments = _arguments(arch_args)
    if not isinstance(arch, str):
        factory: Callable[..., Any] = arch
    elif arch.partition(":")[0] == _TIMM:
        factory = _timm_factory(arch.partition(":")[2])
    else:
        factory = resolve(arch, pythonpath=pythonpath)

    def build() -> nn.Module:
        import torch

        with searching(pythonpath):
            try:
                model = factory(**arguments)
            except TypeError as error:
                raise XaiError(
                    f"--arch {arch}: {error}", hint="arguments: --arch-args '{\"num_classes\": 10}'"
                ) from error
        if not isinstance(model, torch.nn.Module):
            raise XaiError(f"--arch {arch} makes a {type(model).__name__}, not a torch.nn.Module")
        return model

    return build


def _arguments(given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    try:
        arguments = json.loads(given) if isinstance(given, str) else dict(given or {})
        if isinstance(arguments, dict):
            return arguments
    except ValueError as error:
        raise UsageError(f"--arch-args is no JSON: {error}", hint="for example '{\"num_classes\": 10}'") from error
    raise UsageError("--arch-args is no JSON object", hint="for example '{\"num_classes\": 10}'")


def _timm_factory(name: str) -> Callable[..., Any]:
    try:
        import timm
    except ImportError as error:
        raise XaiError(f"--arch timm:{name} needs timm", hint="pip install timm") from error
    if name not in timm.list_models():
        raise unknown("timm model", name, timm.list_models())

    def create(**arguments: Any) -> Any:
        return timm.create_model(name, pretrained=False, **arguments)

    return create
