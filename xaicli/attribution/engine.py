"""Attributions and maps of a prepared model: every method, all units together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from xaicli.attribution import captum_methods, gradcam, paths, seed_convention, trust
from xaicli.attribution.entries import points_of
from xaicli.attribution.fast_model import fast_model
from xaicli.attribution.frozen import FrozenModel
from xaicli.attribution.gradients import Attributions, Gradients, Problem
from xaicli.attribution.inputs import UNKNOWN_RANGE, Arrays, InputRange, Layout, baseline_of, layout_of, per_sample
from xaicli.attribution.lookups import Embedded
from xaicli.attribution.maps import scaled, strengths
from xaicli.attribution.prepared import Prepared
from xaicli.attribution.settings import GRADCAM, GRADIENT, Convention, Settings
from xaicli.heads.head import Head


@dataclass(frozen=True)
class Attribution:
    """What an `Explainer` found, one entry per unit: (sample, target), a sample's targets together.

    Attributes:
        maps: {method: {input: float32 (unit, H, W) in [0, 1]}}.
        attributions: {method: {input: signed, (unit, *input shape)}}.
        targets: (unit,) int64; -1 when a function of the outputs is explained.
        sample: (unit,) int64, the position of the unit's sample.
        predictions: (sample,) int64 classes, -1 where an output is NaN; float values of a regression.
        probabilities: (sample, class) float64; one column of NaN where there are none.
        head: What the outputs mean; None when a function of them is explained.
        delta: {method: (unit,)}, relative completeness error; NaN for methods that promise none.
        agreement: {method: (unit,)}, rank correlation of two halves of the random draws; NaN without them.
        flat: {method: (unit,) bool}.
        inputs: The names of the inputs that have maps.
        embedded: The names of those that are token ids, explained at their embedding.
        evaluations: Gradient evaluations made, those of maps that a tolerance had made anew included.
        used: Of each unit, the settings that its maps are of.
        settled: {method: (unit,)} with a tolerance: whether delta and agreement are within it.
        precision: "fp32", "bf16" or "fp64", as used.
        notes: What a reader should know, one line each.
        function: What is explained where it is no target.
    """

    maps: dict[str, dict[str, npt.NDArray[np.float32]]]
    attributions: dict[str, dict[str, Arrays]]
    targets: npt.NDArray[np.int64]
    sample: npt.NDArray[np.int64]
    predictions: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float64]
    head: Head | None
    delta: dict[str, npt.NDArray[np.float64]]
    agreement: dict[str, npt.NDArray[np.float64]]
    flat: dict[str, npt.NDArray[np.bool_]]
    inputs: tuple[str, ...]
    embedded: tuple[str, ...] = ()
    evaluations: int = 0
    used: tuple[Settings, ...] = ()
    settled: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    precision: str = "fp32"
    notes: tuple[str, ...] = ()
    function: str = "function"
    quality: dict[str, dict[str, npt.NDArray[np.float64]]] = field(default_factory=dict)


class Explainer:
    """A prepared model with its fast copy, ready to explain any of its units.

    Args:
        prepared: The model, inputs and targets.
        settings: Which methods and how.
        input_range: What is known of the input's range.
        pictures: Height and width of the samples' pictures, when an input of rank 2 is one.
        captum: Further methods, as `captum_methods.named` spells them.
    """

    def __init__(
        self,
        prepared: Prepared,
        settings: Settings,
        *,
        input_range: InputRange = UNKNOWN_RANGE,
        pictures: tuple[int, int] | None = None,
        captum: tuple[str, ...] = (),
    ) -> None:
        self.prepared, self.settings, self.input_range, self.pictures = prepared, settings, input_range, pictures
        self.captum = captum
        if prepared.no_numbers is not None and (captum or set(settings.methods) - {GRADIENT}):
            raise prepared.no_numbers
        fast = fast_model(prepared, settings)
        self.fast, self.precision, self.stem = fast.whole, fast.precision, fast.stem
        # Of all units: what is asked of some of them shares one captured graph.
        self._gradients = Gradients(self.fast, prepared.reduce, prepared.arrange)
        self._behind_stem = Gradients(fast.rest, prepared.reduce, _alone) if fast.rest else None
        self.names = tuple(entry.name for entry in prepared.entries)
        self.layouts = {
            entry.name: layout_of(tuple(x.shape[1:]), read=entry.read, picture=pictures, tokens=entry.tokens)
            for entry, x in zip(prepared.entries, prepared.points, strict=True)
        }

    @property
    def rows(self) -> int:
        """How many rows a pass takes: a few until it is known what a row needs."""
        return max(part.rows for part in (self._gradients, self._behind_stem) if part is not None)

    def explain(
        self, units: Tensor | None = None, *, progress: Callable[[int, int], None] | None = None
    ) -> Attribution:
        """All methods for all units, or for some.

        Args:
            units: Indices into the prepared units.
            progress: Called with (rows done, rows in all).
        """
        prepared = self.prepared if units is None else self.prepared.only(units)
        every = self.settings.evaluations_per_sample * len(prepared.units)
        problem = self._problem(prepared, units, _counting(progress, every))
        found: dict[str, Attributions] = {}
        used: tuple[Settings, ...] = (self.settings,) * problem.n_units
        settled: dict[str, npt.NDArray[np.bool_]] = {}
        if set(self.settings.methods) - {GRADCAM}:
            convention = seed_convention if self.settings.convention is Convention.FE else paths
            counted, layouts = self._counted(prepared), list(self.layouts.values())
            refined = trust.refined(convention.explain, problem, self.settings, layouts, counted)
            found, used, settled = refined.found, refined.used, refined.settled
        if GRADCAM in self.settings.methods:
            found[GRADCAM] = gradcam.explain(prepared, list(self.layouts.values()))
        found = {m: found[m] for m in self.settings.methods}
        for method in self.captum:
            found[method] = captum_methods.explain(
                method, prepared, problem, self.settings, list(self.layouts.values())
            )
        return replace(self._collected(prepared, problem, found), used=used, settled=settled)

    def problem(self, units: Tensor) -> Problem:
        """What is differentiated, for some units."""
        return self._problem(self.prepared.only(units), units, _counting(None, 0))

    def with_points(self, points: list[Tensor], settings: Settings) -> Explainer:
        """The same at other points, the targets kept; without Captum's methods."""
        return Explainer(
            replace(self.prepared, points=points), settings, input_range=self.input_range, pictures=self.pictures
        )

    def with_model(self, model: nn.Module) -> Explainer:
        """The same for other weights, the targets kept; without Captum's methods.

        Ids are explained at what the embeddings of that model make of them.
        """
        prepared, frozen = self.prepared, copy.copy(self.prepared.model)
        frozen.model = model
        points = [points_of(frozen, prepared.inputs, entry) for entry in prepared.entries]
        prepared = replace(prepared, model=frozen, points=points)
        return Explainer(prepared, self.settings, input_range=self.input_range, pictures=self.pictures)

    def _problem(self, prepared: Prepared, units: Tensor | None, advance: Callable[[int], None]) -> Problem:
        settings = self.settings
        units = torch.arange(len(prepared.units), device=prepared.units.device) if units is None else units
        xs = [prepared.of_units(i) for i in range(len(prepared.entries))]
        if settings.convention is Convention.FE:
            sigma = [(x.max() - x.min()).mul(settings.noise).view([1] * x.ndim) for x in xs]
        else:
            sigma = [settings.noise * (per_sample(x, "amax") - per_sample(x, "amin")) for x in xs]
        exact = replace(prepared, model=self.fast) if self.precision == "fp32" else prepared
        return Problem(
            inputs=xs,
            baselines=[
                baseline_of(settings.baseline, x, known=self.input_range, seed=settings.seed, position=i, layout=layout)
                for i, (x, layout) in enumerate(zip(xs, self.layouts.values(), strict=True))
            ],
            sigma=sigma,
            gradients=self._gradients.only(units),
            forward=exact.scalars,
            probability=partial(exact.scalars, of_probability=True),
            clean=prepared.clean,
            stem=self.stem,
            gradients_behind_stem=self._behind_stem.only(units) if self._behind_stem is not None else None,
            progress=advance,
        )

    def _counted(self, prepared: Prepared) -> list[npt.NDArray[np.bool_] | None]:
        """(unit, place) for each input: which of its places count; None where all do."""
        masked = prepared.counted()
        return [masked.get(name) for name in self.names]

    def _collected(self, prepared: Prepared, problem: Problem, found: Mapping[str, Attributions]) -> Attribution:
        arrays = {m: {k: _array(t) for k, t in zip(self.names, a.total, strict=True)} for m, a in found.items()}
        counted = self._counted(prepared)
        totals = {m: dict(zip(self.names, a.total, strict=True)) for m, a in found.items()}
        maps, flat = draw(totals, self.layouts, dict(zip(self.names, counted, strict=True)))
        layouts, n = list(self.layouts.values()), problem.n_units
        broken = sum(int((~np.isfinite(a)).sum()) for by_input in arrays.values() for a in by_input.values())
        notes = [f"{broken} attribution values are not finite and count as 0 in the maps"] if broken else []
        for (name, layout), x in zip(self.layouts.items(), prepared.points, strict=True):
            if len(places := layout.spatial(x.shape)) > _PLANE:
                of, planes = name or "the input", " x ".join(map(str, places[:-_PLANE]))
                notes.append(f"a map of {of} is the sum over its {planes} planes; attributions keep them")
        return Attribution(
            maps=maps,
            attributions=arrays,
            targets=prepared.targets.cpu().numpy(),
            sample=prepared.units.cpu().numpy(),
            predictions=prepared.predictions.numpy(),
            probabilities=prepared.probabilities.numpy(),
            head=prepared.head,
            delta={m: trust.delta(a, n) for m, a in found.items()},
            agreement={m: trust.agreement(a, layouts, n, counted) for m, a in found.items()},
            flat=flat,
            inputs=self.names,
            embedded=tuple(entry.name for entry in prepared.entries if entry.tokens),
            evaluations=problem.evaluations,
            precision=self.precision,
            notes=(*prepared.notes, *notes),
            function=prepared.function,
        )


_PLANE = 2
"""The axes of a map."""


def draw(
    totals: Mapping[str, Mapping[str, Tensor]],
    layouts: Mapping[str, Layout],
    counted: Mapping[str, npt.NDArray[np.bool_] | None],
) -> tuple[dict[str, dict[str, npt.NDArray[np.float32]]], dict[str, npt.NDArray[np.bool_]]]:
    """The maps of {method: {input: (unit, ...)}}, and per method which units are flat in every input."""
    maps: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    flat: dict[str, npt.NDArray[np.bool_]] = {}
    for method, by_input in totals.items():
        drawn = {
            name: [
                scaled(plane, None if (own := counted[name]) is None else own[unit])
                for unit, plane in enumerate(strengths(values, layouts[name]).cpu().numpy())
            ]
            for name, values in by_input.items()
        }
        maps[method] = {name: np.stack([picture for picture, _ in pairs]) for name, pairs in drawn.items()}
        flat[method] = np.logical_and.reduce([[is_flat for _, is_flat in pairs] for pairs in drawn.values()])
    return maps, flat


def _alone(model: FrozenModel, points: Sequence[Tensor], units: Tensor) -> tuple[list[Tensor], Embedded]:
    """Points behind the stem are all the rest of a model takes."""
    del units
    return [model.arranged(points[0])], {}


def _counting(progress: Callable[[int, int], None] | None, total: int) -> Callable[[int], None]:
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(min(done, total), total)

    return advance


def _array(values: Tensor) -> Arrays:
    array: Arrays = values.detach().cpu().numpy()
    return array
