"""Captum's attribution methods by their names, on the same frozen model, inputs, targets and baselines."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xaicli.attribution.copies import copy_of
from xaicli.attribution.gradcam import over_input
from xaicli.attribution.gradients import Attributions, Problem
from xaicli.attribution.inputs import Layout
from xaicli.attribution.prepared import Prepared
from xaicli.attribution.settings import Settings
from xaicli.errors import UsageError, XaiError, missing_extra, unknown
from xaicli.state.randomness import seeded

_ROWS = 16
_GRID = 8
_EXACT_GRID = 2
_ONE_BY_ONE = {"DeepLiftShap", "GradientShap", "Lime", "KernelShap", "ShapleyValues", "ShapleyValueSampling"}
"""Methods that mix the rows of a batch, take one row, or draw random numbers: each sample has its own draws."""
_OF_THE_BATCH = {"FeaturePermutation"}
"""Methods that explain a sample by the samples beside it."""
_ABSTRACT = {"NoiseTunnel", "Attribution", "GradientAttribution", "PerturbationAttribution", "LimeBase"}
_FITTED_SAMPLES = 200


def named(methods: Sequence[str]) -> tuple[str, ...]:
    """The methods as Captum spells them.

    Raises:
        XaiError: Captum is not installed, or has no such method on inputs.
    """
    if not methods:
        return ()
    known = {name.lower(): name for name in _classes()}
    for method in methods:
        if method.lower() not in known:
            raise unknown("Captum method", method, sorted(known.values()), where="captum.attr")
    found = tuple(known[method.lower()] for method in methods)
    if mixing := [method for method in found if method in _OF_THE_BATCH]:
        raise UsageError(
            f"captum's {mixing[0]} explains a sample by the samples that happen to stand beside it",
            hint="leave it out of --captum; FeatureAblation asks the same of each sample alone",
        )
    return found


def explain(
    method: str, prepared: Prepared, problem: Problem, settings: Settings, layouts: Sequence[Layout]
) -> Attributions:
    """One Captum method for all units.

    Args:
        method: A name that `named` gave.
        layouts: What the axes of each entry mean.

    Raises:
        XaiError: Captum cannot explain this model with it; its own words, in one line.
    """
    rows = 1 if method in _ONE_BY_ONE else prepared.model.at_once(_ROWS)
    parts: list[tuple[Tensor, ...]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for first in range(0, problem.n_units, rows):
            units = torch.arange(first, min(problem.n_units, first + rows), device=prepared.units.device)
            seeded(settings.seed, prepared.units.device)
            try:
                parts.append(_explained(method, prepared, problem, settings, units, layouts))
            except XaiError:
                raise
            except Exception as error:
                text = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise XaiError(f"captum's {method} fails here: {text}", hint="leave it out of --captum") from error
    return Attributions([torch.cat(values).detach() for values in zip(*parts, strict=True)])


def taken_by(methods: Sequence[str]) -> frozenset[str]:
    """Which of our own methods' arguments some of captum's take, too.

    Args:
        methods: Names that `named` gave.
    """
    if not methods:
        return frozenset()
    classes: dict[str, Any] = dict(_classes())
    takes = {name for method in methods for name in inspect.signature(classes[method].attribute).parameters}
    steps = ("integrating", "evaluations") if "n_steps" in takes else ()
    return frozenset((*(("baseline",) if "baselines" in takes else ()), *steps))


def _explained(
    method: str, prepared: Prepared, problem: Problem, settings: Settings, units: Tensor, layouts: Sequence[Layout]
) -> tuple[Tensor, ...]:
    model = _Scalars(prepared)
    points = tuple(x[units].clone().requires_grad_() for x in problem.inputs)
    cls = _classes()[method]
    wants = inspect.signature(cls.__init__).parameters
    layer = [_last_convolution(model, method)] if "layer" in wants else []
    made = cls(model, *layer)
    accepted = inspect.signature(made.attribute).parameters
    offered: dict[str, Any] = {
        "additional_forward_args": (units,),
        "n_steps": settings.steps,
        "internal_batch_size": _ROWS * 4,
        "sliding_window_shapes": tuple(_window(x) for x in points),
        "strides": tuple(tuple(max(1, n // 2) for n in _window(x)) for x in points),
        "show_progress": False,
    }
    if "baselines" in accepted:
        bases = [b.expand_as(x) for b, x in zip(problem.pick(problem.baselines, units), points, strict=True)]
        offered["baselines"] = tuple(torch.cat([b, b]) if method == "DeepLiftShap" else b for b in bases)
    if "feature_mask" in accepted:
        offered["feature_mask"] = _regions(points, _EXACT_GRID if method == "ShapleyValues" else _GRID)
    if method in ("Lime", "KernelShap"):
        offered["n_samples"] = _FITTED_SAMPLES
    if method == "LRP":
        _give_rules(model)
    found = made.attribute(points, **{name: value for name, value in offered.items() if name in accepted})
    values = found if isinstance(found, tuple) else (found,)
    if len(values) != len(points) or any(v.shape != x.shape for v, x in zip(values, points, strict=True)):
        if values[0].ndim < 3:
            raise UsageError(f"captum's {method} does not attribute to inputs", hint="leave it out of --captum")
        return tuple(over_input(values[0].sum(1), x, layout) for x, layout in zip(points, layouts, strict=True))
    return values


class _Scalars(nn.Module):
    """The explained scalar of each row; `units` travels with the rows, so Captum repeats it as it repeats them."""

    def __init__(self, prepared: Prepared) -> None:
        super().__init__()
        frozen = copy.copy(prepared.model)
        frozen.model = self.model = copy_of(prepared.model.model)
        self._frozen, self._prepared = frozen, prepared
        for module in self.model.modules():
            if hasattr(module, "inplace"):
                module.inplace = False  # Captum's hooks need the values before the activation.

    def forward(self, *arguments: Tensor) -> Tensor:
        *points, units = arguments
        rows, embedded = self._prepared.arrange(self._frozen, points, units)
        return self._prepared.reduce(self._frozen(rows, embedded), units)


def _classes() -> dict[str, Callable[..., Any]]:
    try:
        import captum.attr
    except ImportError as error:
        raise missing_extra("--captum", "captum") from error
    found = {name: getattr(captum.attr, name) for name in captum.attr.__all__}
    return {
        name: cls
        for name, cls in found.items()
        if inspect.isclass(cls)
        and hasattr(cls, "attribute")
        and name not in _ABSTRACT
        and not name.startswith(("Neuron", "Internal", "DataLoader", "LLM", "RemoteLLM"))
        and (not name.startswith("Layer") or name == "LayerGradCam")
    }


def _give_rules(model: nn.Module) -> None:
    """LRP knows no rule for modules that only reshape; they pass relevance on."""
    from captum.attr._utils.lrp_rules import EpsilonRule

    for module in model.modules():
        if not list(module.children()) and not list(module.parameters()) and not hasattr(module, "rule"):
            module.rule = EpsilonRule()


def _last_convolution(model: nn.Module, method: str) -> nn.Module:
    found = [m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd)]
    if not found:
        raise UsageError(
            f"captum's {method} needs a convolutional layer, and the model has none as a module",
            hint="load the weights with --arch instead of the exported graph, or leave it out",
        )
    return found[-1]


def _window(x: Tensor) -> tuple[int, ...]:
    """A patch of an eighth of each axis, through all channels."""
    shape = x.shape[1:]
    sides = tuple(max(1, n // _GRID) for n in (shape[1:] if len(shape) > 1 else shape))
    return (shape[0], *sides) if len(shape) > 1 else sides


def _regions(points: Sequence[Tensor], grid: int) -> tuple[Tensor, ...]:
    """Numbered patches, each one feature: `grid` along each axis but the channels."""
    found, offset = [], 0
    for x in points:
        shape = x.shape[2:] if x.ndim > 2 else x.shape[1:]
        number = torch.zeros(shape, dtype=torch.long, device=x.device)
        for axis, n in enumerate(shape):
            parts = min(n, grid)
            place = (torch.arange(n, device=x.device) * parts) // n
            number = number * parts + place.view([-1 if a == axis else 1 for a in range(len(shape))])
        found.append((number + offset).expand(1, *x.shape[1:]).contiguous())
        offset += int(number.max()) + 1
    return tuple(found)
