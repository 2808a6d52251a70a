"""From what the engine found to the answer that is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from xaicli.attribution.engine import Attribution
from xaicli.attribution.explanation import REFINEMENT, Change, Explanation, Saliency, SaliencyMap, SanityStep, Trust
from xaicli.attribution.maps import rank_correlation
from xaicli.attribution.request import Column, Request
from xaicli.attribution.settings import Settings
from xaicli.sources.inputs import plain

if TYPE_CHECKING:
    from xaicli.sources.inputs import Inputs


def explanation_of(
    a: Attribution, unit: int, row: int, inputs: Inputs, names: Sequence[str], column: int, output: str | int | None
) -> Explanation:
    """The explanation of one unit.

    Args:
        a: What the engine found.
        unit: Which unit of it.
        row: Its sample among `inputs`.
        names: The classes' names.
        column: Which checkpoint.
        output: Which output; None for the only one.
    """
    label = None if inputs.label is None else plain(inputs.label[row])
    target, prediction = int(a.targets[unit]), int(a.predictions[row])
    p = a.probabilities[row]
    index = _label_index(label, names, len(p))
    return Explanation(
        sample_id=plain(inputs.sample_id[row]),
        label=label,
        target=target,
        prediction=prediction,
        label_prob=float(p[index]) if index is not None else None,
        top_prob=float(p[prediction]),
        top=tuple((_name(int(c), names), float(p[c])) for c in np.argsort(-p, kind="stable")[:3]),
        target_name=_name(target, names) if target >= 0 else "function",
        label_name="" if label is None else _name(label, names),
        prediction_name=_name(prediction, names),
        inputs=(),
        maps=tuple(
            SaliencyMap(m, name, values[unit], a.attributions[m][name][unit], not values[unit].any())
            for m, by_input in a.maps.items()
            for name, values in by_input.items()
        ),
        trust={
            m: Trust(
                _number(a.delta[m][unit]),
                _number(a.agreement[m][unit]),
                bool(a.flat[m][unit]),
                {q: _number(values[unit]) for q, values in a.quality.get(m, {}).items()},
            )
            for m in a.maps
        },
        checkpoint=column,
        output="" if output is None else str(output),
    )


def saliency_of(
    columns: Sequence[Column],
    inputs: Inputs,
    request: Request,
    found: list[tuple[int, int, int, Explanation]],
    notes: tuple[str, ...],
    precision: str,
    sanity: tuple[SanityStep, ...],
) -> Saliency:
    """The whole answer.

    Args:
        found: (sample, output, column) positions and the explanation there.
    """
    targets: dict[tuple[int, int, int], list[int]] = {}
    for row, position, number, e in found:
        targets.setdefault((row, position, number), []).append(e.target)
    # sorted is stable: a sample's targets keep their order within (row, output), checkpoints come last.
    rank = {id(e): targets[row, position, number].index(e.target) for row, position, number, e in found}
    ordered = [e for *_, e in sorted(found, key=lambda f: (f[0], f[1], rank[id(f[3])], f[2]))]
    methods = tuple(ordered[0].trust) if ordered else request.settings.methods
    settings = request.settings
    overlay = next((m for m in REFINEMENT if m in methods), methods[0])
    return Saliency(
        explanations=tuple(ordered),
        methods=methods,
        overlay=overlay,
        checkpoints=tuple(column.described() for column in columns),
        changes=changes_of(ordered, methods) if len(columns) > 1 else (),
        sanity=sanity,
        settings=_described(settings, request, precision),
        notes=notes,
        skipped=inputs.skipped,
    )


def changes_of(explanations: Sequence[Explanation], methods: Sequence[str]) -> tuple[Change, ...]:
    """The rank correlation of each sample's maps from one checkpoint to the next.

    Args:
        explanations: Ordered so that the checkpoints of one (sample, output, target) follow each other.
        methods: Which maps to compare.
    """
    groups: dict[tuple[Any, ...], list[Explanation]] = {}
    for e in explanations:
        groups.setdefault((e.sample_id, e.output, e.target), []).append(e)
    found = []
    for columns in groups.values():
        for before, after in pairwise(columns):
            for method in methods:
                a, b = (
                    np.concatenate([m.values.ravel() for m in e.maps if m.method == method]) for e in (before, after)
                )
                value = rank_correlation(a, b)
                found.append(
                    Change(
                        after.sample_id, after.target, method, after.checkpoint, value if np.isfinite(value) else None
                    )
                )
    return tuple(found)


def _described(settings: Settings, request: Request, precision: str) -> Mapping[str, Any]:
    target = request.target
    return {
        "target": getattr(target, "__name__", None) or str(target),
        "methods": list(settings.methods),
        "smoothing": settings.draws,
        "integrating": [settings.smint_steps, settings.smint_draws],
        "baseline": str(settings.baseline),
        "noise": settings.noise,
        "signed": settings.signed,
        "convention": settings.convention.value,
        "precision": precision or settings.precision.value,
        "seed": settings.seed,
        "tolerance": settings.tolerance,
        "evaluations": settings.evaluations_per_sample,
    }


def _label_index(label: Any, names: Sequence[str], classes: int) -> int | None:
    if isinstance(label, str) and label in names:
        return list(names).index(label)
    try:
        index = int(label)
    except (TypeError, ValueError):
        return None
    return index if 0 <= index < classes else None


def _name(label: Any, names: Sequence[str]) -> str:
    return names[label] if isinstance(label, int) and 0 <= label < len(names) else str(label)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
