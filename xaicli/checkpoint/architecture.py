"""`--arch`: the user's own code that builds a model, and giving it all of the weights and nothing else."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from xaicli.checkpoint.files import part_of
from xaicli.checkpoint.weights import Chosen, StateDict, listed
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.heads.evaluation import into_evaluation
from xaicli.state.randomness import randomness_kept

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
        except Exception as error:  # whatever the caller's own code raises
            raise XaiError(
                f"{option} {spec}: {module_name} fails where it is imported: {type(error).__name__}: {error}",
                hint=f'try python -c "import {module_name}"',
            ) from error
        for part in name.split("."):
            if not hasattr(found, part):
                names = [n for n in vars(found) if not n.startswith("_")]
                raise unknown("name", part, names, where=module_name)
            found = getattr(found, part)
    return found


@contextlib.contextmanager
def searching(pythonpath: Sequence[str | PathLike[str]]) -> Iterator[None]:
    """Search these folders first for modules while the block runs; what the user's code adds meanwhile stays."""
    folders = [str(Path(folder).resolve()) for folder in pythonpath]
    sys.path[:0] = folders
    try:
        yield
    finally:
        for folder in folders:
            with contextlib.suppress(ValueError):
                sys.path.remove(folder)


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
                raise XaiError(f"--arch {arch}: {error}", hint=_arguments_of(factory)) from error
            except Exception as error:  # whatever the caller's own code raises
                if isinstance(error, XaiError):
                    raise
                raise XaiError(
                    f"--arch {arch} fails: {type(error).__name__}: {error}", hint="it is called with --arch-args alone"
                ) from error
        if not isinstance(model, torch.nn.Module):
            raise XaiError(f"--arch {arch} makes a {type(model).__name__}, not a torch.nn.Module")
        return model

    return build


def _arguments_of(factory: Callable[..., Any]) -> str:
    """What a factory can be given by --arch-args: its own arguments by name, where Python knows them."""
    try:
        taken = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        taken = []
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = [one.name for one in taken if one.kind in by_name]
    if not names:
        return "arguments: --arch-args '{\"num_classes\": 10}'"
    return f"it takes {', '.join(names)}, by --arch-args '{{\"{names[0]}\": ...}}'"


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


_EXTRA = "_extra_state"

_UNINITIALIZED = (nn.parameter.UninitializedParameter, nn.parameter.UninitializedBuffer)

_SPELLINGS = (("original0", "_g"), ("original1", "_v"), ("original", "_orig"), ("0._u", "_u"), ("0._v", "_v"))
"""How weight and spectral norm spell their tensors as parametrizations, and how they did before."""


def model_with(chosen: Chosen, build: Callable[[], nn.Module], path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """Build a model and give it the weights, all of them and nothing else.

    Returns:
        The model in evaluation mode, and what was left out or renamed.

    Raises:
        XaiError: Keys or shapes differ, or several parts of the weights fit; the hint lists them.
    """
    with randomness_kept():
        model = build()
    own = {key: value for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    given = chosen.weights
    if chosen.module.startswith("__torch__"):
        # TorchScript keeps what a module recomputes, too.
        temporary = {name for name, _ in model.named_buffers()} - set(own)
        given = {name: value for name, value in given.items() if name not in temporary}
    twins = _twins(model)
    weights, notes = _placed(given, own, twins, path)
    fitting: OrderedDict[str, Any] = OrderedDict(weights)
    if chosen.versions is not None:
        fitting._metadata = _plain_versions(chosen.versions)  # type: ignore[attr-defined]
    _check_shapes(weights, own, path)
    try:
        found = model.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        raise XaiError(f"the weights of {path} do not fit the model: {_first(error)}", hint=_ADVICE) from error
    missing = [key for key in found.missing_keys if not key.endswith(_EXTRA) and key not in weights]
    if missing or found.unexpected_keys:
        raise _unfit(path, missing, found.unexpected_keys, [], weights)
    into_evaluation(model, anew=True)
    return model, (*notes, *_untied(weights, twins, model))


_ADVICE = "is --arch (with --arch-args) the one it was trained with?"


def _placed(
    weights: StateDict, own: Mapping[str, torch.Tensor], twins: Mapping[str, list[str]], path: Path
) -> tuple[StateDict, tuple[str, ...]]:
    """The weights under the model's own names, as far as they can be told."""
    weights, pruned = _unpruned(weights, own)
    for named, said in _readings(weights, own):
        said = (*pruned, *said)
        spelled, notes = _spelled(named, own)
        spelled = _with_twins(spelled, twins)
        if _covers(spelled, own):
            return spelled, (*said, *notes)
        fits = dict(_parts(spelled, own, twins))
        # A part with the same names and other shapes, a smaller teacher's say, is none of this model.
        fits = {prefix: part for prefix, part in fits.items() if not _reshaped(part, own)} or fits
        if len(fits) > 1:
            raise XaiError(
                f"several parts of the weights of {path} fit the model",
                hint=f"choose with --weights: {', '.join(prefix.rstrip('.') for prefix in fits)}",
            )
        for prefix, part in fits.items():
            left = [key for key in spelled if not key.startswith(prefix)]
            kept = f"took the weights below {prefix!r}" + (f", without {listed(left)}" if left else "")
            return part, (*said, kept, *notes)
    return _with_twins(_spelled(weights, own)[0], twins), ()


def _unpruned(weights: StateDict, own: Mapping[str, Any]) -> tuple[StateDict, tuple[str, ...]]:
    """Weights that `torch.nn.utils.prune` keeps as the original and its mask, as the product that the layer uses."""
    if any(key.endswith("_mask") and key in weights for key in own):
        return weights, ()
    names = [key.removesuffix("_mask") for key in weights if key.endswith("_mask")]
    names = [name for name in names if f"{name}_orig" in weights and name not in weights]
    names = [name for name in names if weights[f"{name}_orig"].shape == weights[f"{name}_mask"].shape]
    if not names:
        return weights, ()
    plain: StateDict = {}
    for key, value in weights.items():
        name = key.removesuffix("_orig").removesuffix("_mask")
        if name not in names:
            plain[key] = value
        elif key.endswith("_orig"):
            plain[name] = value * weights[f"{name}_mask"].to(value.dtype)
    return plain, (f"multiplied {len(names)} pruned weight{'s' if len(names) > 1 else ''} by the mask beside",)


def _readings(weights: StateDict, own: Mapping[str, Any]) -> Iterator[tuple[StateDict, tuple[str, ...]]]:
    """The weights as they are, and without what wrappers of parts leave inside their names."""
    yield weights, ()
    inner = {re.sub(r"(^|\.)(?:module|_forward_module)\.", r"\1", key): value for key, value in weights.items()}
    if inner.keys() != weights.keys() and len(inner) == len(weights):
        yield inner, ()
    prefixes = {key.split(".")[0] + "." for key in own if "." in key}
    if len(prefixes) == 1 and all("." in key for key in own):
        prefix = prefixes.pop()
        yield {prefix + key: value for key, value in weights.items()}, (f"put the weights below {prefix!r}",)


def _covers(weights: StateDict, own: Mapping[str, Any]) -> bool:
    """Whether the weights are the whole of a model, but for the counters that BatchNorm did not keep before 0.4.1."""
    return not (set(weights) - set(own)) and all(
        key in weights or key.endswith(".num_batches_tracked") or key == "num_batches_tracked" for key in own
    )


def _parts(
    weights: StateDict, own: Mapping[str, Any], twins: Mapping[str, list[str]]
) -> Iterator[tuple[str, StateDict]]:
    """The parts of the weights that are the whole of the model: what Lightning keeps below `model.`, say."""
    first = next((key for key in own if key in weights or any(name.endswith(f".{key}") for name in weights)), None)
    if first is None:
        return
    for name in weights:
        if not name.endswith(f".{first}"):
            continue
        prefix = name.removesuffix(first)
        part = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        part = _with_twins(part, twins)
        if _covers(part, own):
            yield prefix, part


def _twins(model: nn.Module) -> dict[str, list[str]]:
    """For each name, the other names of the same memory: tied weights."""
    seen: dict[Any, list[str]] = {}
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, value in named:
        if isinstance(value, _UNINITIALIZED):
            continue
        where = (value.untyped_storage()._cdata, value.storage_offset(), value.shape, value.stride())
        seen.setdefault(where, []).append(name)
    return {name: names for names in seen.values() if len(names) > 1 for name in names}


def _with_twins(weights: StateDict, twins: Mapping[str, list[str]]) -> StateDict:
    """Tied weights under all their names: safetensors keeps one."""
    added = dict(weights)
    for name, names in twins.items():
        if name not in weights and (known := next((other for other in names if other in weights), None)):
            added[name] = weights[known]
    return added


def _untied(weights: StateDict, twins: Mapping[str, list[str]], model: nn.Module) -> Iterator[str]:
    """Weights that are one in the model and several in the file: which of them torch has loaded, the last one."""
    for names in {tuple(names) for names in twins.values()}:
        values = [weights[name] for name in names if name in weights]
        if all(torch.equal(values[0], value) for value in values[1:]):
            continue
        own = model.state_dict()[names[0]]
        taken = next((n for n in names if torch.equal(own, weights[n].to(own.dtype).reshape(own.shape))), names[-1])
        yield (
            f"{' and '.join(names)} are one tensor in the model and differ in the file: that of {taken} was taken; "
            "was it trained without tying them?"
        )


def _spelled(weights: StateDict, own: Mapping[str, Any]) -> tuple[StateDict, tuple[str, ...]]:
    """Weight and spectral norm under the names that the model has for them, newer or older than the file's."""
    renamed: StateDict = {}
    count = 0
    for key, value in weights.items():
        name = key if key in own else next((new for new in _other_spellings(key) if new in own), key)
        count += name != key
        renamed[name] = value
    if len(renamed) < len(weights):
        return weights, ()
    notes = (f"{count} tensors of weight or spectral norm under the names the model has for them",) if count else ()
    return renamed, notes


def _other_spellings(key: str) -> Iterator[str]:
    for new, old in _SPELLINGS:
        pattern = rf"((?:.*\.)?)parametrizations\.(\w+)\.{re.escape(new)}"
        if match := re.fullmatch(pattern, key):
            yield f"{match[1]}{match[2]}{old}"
        if match := re.fullmatch(rf"((?:.*\.)?)(\w+){old}", key):
            yield f"{match[1]}parametrizations.{match[2]}.{new}"


def _plain_versions(versions: Mapping[str, Any]) -> dict[str, Any]:
    """What torch looks at beside a state dict: the version of each module, a number."""
    return {
        str(name): {"version": facts["version"]}
        for name, facts in versions.items()
        if isinstance(facts, Mapping) and type(facts.get("version")) is int
    }


def _check_shapes(weights: StateDict, own: Mapping[str, torch.Tensor], path: Path) -> None:
    missing = [key for key in own if key not in weights and "num_batches_tracked" not in key]
    unexpected = [key for key in weights if key not in own]
    if reshaped := _reshaped(weights, own):
        raise _unfit(path, missing, unexpected, reshaped, weights)


def _reshaped(weights: StateDict, own: Mapping[str, torch.Tensor]) -> list[str]:
    """The weights that cannot take their place in the model, with the reason."""
    return [
        f"{key} {said}" for key, value in own.items() if key in weights and (said := _difference(weights[key], value))
    ]


def _difference(given: torch.Tensor, own: torch.Tensor) -> str:
    """Why a tensor cannot take another's place, "" where it can; a single value may have an axis of one."""
    if isinstance(own, _UNINITIALIZED):
        return ""
    if given.shape != own.shape and (tuple(given.shape), tuple(own.shape)) != ((1,), ()):
        return f"{tuple(given.shape)} for {tuple(own.shape)}"
    kinds = [(x.is_floating_point(), x.is_complex()) for x in (given, own)]
    return "" if kinds[0] == kinds[1] or given.numel() == 1 else f"{given.dtype} for {own.dtype}"


_LAYOUTS = (
    (
        r"(^|\.)lora_[AB]\.|(^|\.)lora_(?:embedding_)?[AB]\b",
        "an adapter (PEFT) that changes another model's weights: merge it once with merge_and_unload()",
    ),
    (
        r"(^|\.)_?flat_param",
        "weights that FSDP flattened: save them with StateDictType.FULL_STATE_DICT",
    ),
    (
        r"\.(absmax|quant_map|quant_state.*|SCB|qweight|qzeros|scales)$",
        "weights that were quantised: take the model's own weights instead",
    ),
)
"""What the names of weights say of how they were written, and the way out."""


_GATHERS = "zero_to_fp32.py"


def _written_as(path: Path, weights: StateDict) -> str:
    """A layout in which weights do not fit the model they are of, with the way out; "" for none that is known."""
    if weights and all(value.numel() == 0 for value in weights.values()):
        # DeepSpeed writes its script beside the folder of the step.
        folder = next((each for each in (path.parent, path.parent.parent) if (each / _GATHERS).is_file()), None)
        how = (
            f"python {_GATHERS} . model where it lies"
            if folder is None
            else f"python {folder / _GATHERS} {folder} model"
        )
        return (
            f"they hold no values, as those of DeepSpeed's ZeRO 3 do: gather them, {how}, and name the file written. "
        )
    for pattern, what in _LAYOUTS:
        if any(re.search(pattern, key) for key in weights):
            return f"they look like {what}. "
    return ""


def _unfit(path: Path, missing: list[str], unexpected: list[str], reshaped: list[str], weights: StateDict) -> XaiError:
    parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
    named = "; ".join(f"{title}: {listed(names)}" for title, names in parts if names)
    if part := part_of(path):
        named = f"it is {part}: {part.hint}. {named}"
    folder = path if path.is_dir() else path.parent
    if (folder / "config.json").is_file():
        named = f"transformers reads weights under other names than it writes: try {folder} without --arch. {named}"
    return XaiError(
        f"the weights of {path} do not fit the model: {len(missing)} missing, {len(unexpected)} unexpected, "
        f"{len(reshaped)} of another shape",
        hint=f"{_written_as(path, weights)}{named}. Is --arch (with --arch-args) the one it was trained with?",
    )


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
