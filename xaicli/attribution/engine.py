"""Saliency maps of any `nn.Module` on any inputs, without a run: `attribute`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from xaicli.attribution import gradcam, paths, seed_convention, trust
from xaicli.attribution.baselines import InputRange, baseline_of, per_sample
from xaicli.attribution.batching import Gradients
from xaicli.attribution.maps import layout_of, scaled, strength
from xaicli.attribution.precision import fast_model
from xaicli.attribution.prepared import Arrays, Given, Prepared, prepare, scalars_of
from xaicli.attribution.problem import Attributions, Problem
from xaicli.attribution.settings import GRADCAM, Convention, Settings, Target, settle

@dataclass(frozen=True)
class Attribution:
    """What `attribute` found, one entry per unit: (sample, target), a sample's targets together.

    Attributes:
        maps: {method: {input: float32 (unit, H, W) in [0, 1]}}.
        attributions: {method: {input: signed, (unit, *input shape)}}.
        targets: (unit,) int64; -1 when a function of the outputs is explained.
        sample: (unit,) int64, the position of the unit's sample.
        predictions: (sample,) int64.
        probabilities: (sample, class) float64.
        delta: {method: (unit,)}, relative completeness error; NaN for methods that promise none.
        agreement: {method: (unit,)}, rank correlation of two halves; NaN where there is one draw.
        flat: {method: (unit,) bool}.
        inputs: The names of the inputs that have maps.
        embedded: The names of those that are token ids, explained at their embedding.
        evaluations: Gradient evaluations made.
        precision: "fp32", "bf16" or "fp64", as used.
        notes: What a reader should know, one line each.
    """

    maps: dict[str, dict[str, npt.NDArray[np.float32]]]
    attributions: dict[str, dict[str, Arrays]]
    targets: npt.NDArray[np.int64]
    sample: npt.NDArray[np.int64]
    predictions: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]
    delta: dict[str, npt.NDArray[np.float64]]
    agreement: dict[str, npt.NDArray[np.float64]]
    flat: dict[str, npt.NDArray[np.bool_]]
    inputs: tuple[str, ...]
    embedded: tuple[str, ...] = ()
    evaluations: int = 0
    precision: str = "fp32"
    notes: tuple[str, ...] = ()
    quality: dict[str, dict[str, npt.NDArray[np.float64]]] = field(default_factory=dict)


def attribute(
    model: nn.Module,
    inputs: Given,
    *,
    target: Target | Tensor | Arrays = "predicted",
    methods: Sequence[str] | str = ("gradient", "smoothgrad", "integrated", "smint"),
    smoothing: int = 25,
    integrating: int | Sequence[int] = (25, 7),
    baseline: str = "mid",
    noise: float = 0.15,
    signed: bool = False,
    convention: str = "xai",
    precision: str = "auto",
    device: str | torch.device = "auto",
    seed: int = 0,
    labels: Sequence[Any] | None = None,
    label_names: Sequence[str] | None = None,
    output: str | int | None = None,
    tolerance: float | None = None,
    evaluations: int | None = None,
    input_range: InputRange = InputRange(),
    pictures: tuple[int, int] | None = None,
    static_batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """What a model looked at.

    Args:
        model: Any module, in any mode; it is copied, and nothing of it changes.
        inputs: One array or tensor (sample, ...); several as a list, a tuple, or a dict by name, in call order.
        target: "predicted", "label", a class name or number, "topK", one number per sample, or a function of the
            model's outputs that returns one number per row.
        methods, smoothing, integrating, baseline, noise, signed, convention, precision, seed, tolerance, evaluations:
            As the options of `xai saliency`.
        device: "auto" (a GPU when there is one), or torch's name of a device.
        labels: The samples' labels, for `target="label"`.
        label_names: The names of the outputs.
        output: Key or index of the output, for models that return several.
        input_range: What is known of the input's range, for `baseline="black"`.
        pictures: Height and width of the samples' pictures, when an input of rank 2 is one.
        static_batch: The one batch size the model takes; found out when not given.
        progress: Called with (rows done, rows in all).

    Raises:
        XaiError: The model cannot be explained on these inputs; says why in one line.
    """
    settings = settle(
        methods=methods,
        smoothing=smoothing,
        integrating=integrating,
        baseline=baseline,
        noise=noise,
        signed=signed,
        convention=convention,
        precision=precision,
        seed=seed,
        tolerance=tolerance,
        evaluations=evaluations,
    )
    prepared = prepare(
        model,
        inputs,
        target=target,
        device=device,
        labels=labels,
        label_names=label_names,
        output=output,
        static_batch=static_batch,
        raw=settings.convention is Convention.FE,
    )
    return explain(prepared, settings, input_range=input_range, pictures=pictures, progress=progress)


def explain(
    prepared: Prepared,
    settings: Settings,
    *,
    input_range: InputRange = InputRange(),
    pictures: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Attribution:
    """All of the settings' methods on a prepared model."""
    total = settings.evaluations_per_sample * len(prepared.units)
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(min(done, total), total)

    problem, precision = _problem(prepared, settings, input_range, advance)
    found: dict[str, Attributions] = {}
    if set(settings.methods) - {GRADCAM}:
        convention = seed_convention if settings.convention is Convention.FE else paths
        found |= trust.refined(convention.explain, problem, settings)
    if GRADCAM in settings.methods:
        found[GRADCAM] = gradcam.explain(prepared)
    return _collect(prepared, problem, {m: found[m] for m in settings.methods}, pictures, precision)


def _problem(
    prepared: Prepared, settings: Settings, input_range: InputRange, advance: Callable[[int], None]
) -> tuple[Problem, str]:
    xs = [prepared.of_units(i) for i in prepared.explained]
    if settings.convention is Convention.FE:
        sigma = [(x.max() - x.min()).mul(settings.noise).view([1] * x.ndim) for x in xs]
    else:
        sigma = [settings.noise * (per_sample(x, "amax") - per_sample(x, "amin")) for x in xs]
    n_inputs = len(prepared.inputs)
    constants = {i: prepared.of_units(i) for i in range(n_inputs) if i not in prepared.explained}
    fast, precision = fast_model(prepared, settings)

    def forward(points: Sequence[Tensor], units: Tensor) -> Tensor:
        return scalars_of(prepared, constants, points, units)

    problem = Problem(
        inputs=xs,
        baselines=[
            baseline_of(settings.baseline, x, known=input_range, seed=settings.seed, position=i) for i, x in enumerate(xs)
        ],
        sigma=sigma,
        gradients=Gradients(fast, prepared.reduce, constants=constants, n_inputs=n_inputs),
        forward=forward,
        progress=advance,
    )
    return problem, precision


def _collect(
    prepared: Prepared,
    problem: Problem,
    found: Mapping[str, Attributions],
    pictures: tuple[int, int] | None,
    precision: str,
) -> Attribution:
    names = tuple(prepared.names[i] for i in prepared.explained)
    layouts = {
        prepared.names[i]: layout_of(tuple(prepared.inputs[i].shape[1:]), pictures, embedded=i in prepared.embedded)
        for i in prepared.explained
    }
    arrays = {m: {k: _array(t) for k, t in zip(names, a.total, strict=True)} for m, a in found.items()}
    maps: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    flat: dict[str, npt.NDArray[np.bool_]] = {}
    for method, by_input in arrays.items():
        drawn = {name: [scaled(strength(a, layouts[name])) for a in values] for name, values in by_input.items()}
        maps[method] = {name: np.stack([picture for picture, _ in pairs]) for name, pairs in drawn.items()}
        flat[method] = np.array([[is_flat for _, is_flat in pairs] for pairs in drawn.values()]).all(axis=0)
    broken = sum(int((~np.isfinite(a)).sum()) for by_input in arrays.values() for a in by_input.values())
    notes = (*prepared.notes, *([f"{broken} attribution values are not finite and count as 0 in the maps"] if broken else []))
    scores = prepared.scores
    return Attribution(
        maps=maps,
        attributions=arrays,
        targets=prepared.targets.cpu().numpy(),
        sample=prepared.units.cpu().numpy(),
        predictions=scores.predictions.numpy(),
        probabilities=scores.probabilities.numpy(),
        delta={m: trust.delta(a, problem.n_units) for m, a in found.items()},
        agreement={m: trust.agreement(a, list(layouts.values()), problem.n_units) for m, a in found.items()},
        flat=flat,
        inputs=names,
        embedded=tuple(prepared.names[i] for i in prepared.embedded),
        evaluations=problem.gradients.evaluations,
        precision=precision,
        notes=notes,
    )


def _array(values: Tensor) -> Arrays:
    array: Arrays = values.detach().cpu().numpy()
    return array
