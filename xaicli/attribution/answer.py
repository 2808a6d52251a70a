"""From what the engine found to the answer that is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xaicli.attribution.engine import Attribution
from xaicli.attribution.explanation import (
    REFINEMENT,
    Change,
    CheckpointColumn,
    Explanation,
    Saliency,
    SaliencyMap,
    SanityStep,
    Trust,
)
from xaicli.attribution.maps import rank_correlation
from xaicli.attribution.settings import Settings
from xaicli.attribution.store import Finished
from xaicli.attribution.targets import class_of, set_of
from xaicli.heads.head import Task
from xaicli.sources.inputs import plain

if TYPE_CHECKING:
    from xaicli.attribution.session import Request
    from xaicli.sources.inputs import Inputs

_TOP = 3


@dataclass(frozen=True)
class Found:
    """What was found of one sample: the positions of sample, output and checkpoint, and its explanations."""

    row: int
    output: int
    checkpoint: int
    finished: Finished


def explanations_of(
    a: Attribution, units: Iterable[int], row: int, inputs: Inputs, names: Sequence[str], output: str
) -> Finished:
    """The explanations of one sample.

    Args:
        a: What the engine found.
        units: Which units of it are the sample's.
        row: The sample among `inputs`.
        names: The classes' names.
        output: Which output; "" for the only one.
    """
    chosen = list(units)
    part = slice(chosen[0], chosen[-1] + 1)
    return Finished(
        tuple(_explanation(a, unit, row, inputs, names, output) for unit in chosen),
        {(m, name): values[part] for m, by_input in a.maps.items() for name, values in by_input.items()},
        {(m, name): values[part] for m, by_input in a.attributions.items() for name, values in by_input.items()},
    )


def _explanation(a: Attribution, unit: int, row: int, inputs: Inputs, names: Sequence[str], output: str) -> Explanation:
    label = None if inputs.label is None else set_of(inputs.label[row], a.head)
    target = int(a.targets[unit])
    p = a.probabilities[row]
    classes = a.head is not None and a.head.has_classes
    prediction = _prediction(a, row)
    if a.head is not None and not classes:
        names = ()  # a value is no class, whatever number it is near
    value_alone = a.head is not None and not classes and len(p) == 1
    index = class_of(label, names, a.head) if a.head is not None else None
    mode, ds_id = (None, None) if inputs.pairs is None else inputs.pairs[row]
    known = [int(c) for c in np.argsort(-p, kind="stable")[:_TOP]] if classes and np.isfinite(p).all() else []
    return Explanation(
        sample_id=plain(inputs.sample_id[row]),
        label=sorted(label) if isinstance(label, frozenset) else label,
        target=target,
        prediction=prediction,
        label_prob=_label_prob(p, label, index),
        top_prob=_number(p.max()) if classes else None,
        top=tuple((_name(c, names), float(p[c])) for c in known),
        target_name="" if value_alone else a.function if target < 0 else _name(target, names),
        label_name="" if label is None else _name(label, names),
        prediction_name="" if prediction is None else _name(prediction, names),
        inputs=(),
        maps=(),
        trust={
            m: Trust(
                _number(a.delta[m][unit]),
                _number(a.agreement[m][unit]),
                bool(a.flat[m][unit]),
                {q: _number(values[unit]) for q, values in a.quality.get(m, {}).items()},
                *a.used[unit].passes_of(m),
                _settled(a, m, unit),
            )
            for m in a.maps
        },
        evaluations=a.used[unit].evaluations_per_sample,
        output=output,
        correct=_correct(a, label, index, prediction),
        n_classes=len(p) if classes else 0,
        mode=mode,
        ds_id=ds_id,
    )


def _settled(a: Attribution, method: str, unit: int) -> bool | None:
    """Whether a map is within the tolerance; None without one, and where no figure tells."""
    told = np.isfinite((a.delta[method][unit], a.agreement[method][unit])).any()
    return bool(a.settled[method][unit]) if told and method in a.settled else None


def _label_prob(p: NDArray[Any], label: Any, index: int | None) -> float | None:
    """The probability of the label; the expected one where it is a row of the classes' probabilities."""
    if index is None:
        return None
    is_row = isinstance(label, list | tuple) and len(label) == len(p) > 1
    return _number(np.dot(np.asarray(label, np.float64), p) if is_row else p[index])


def _prediction(a: Attribution, row: int) -> int | float | None:
    value = a.predictions[row]
    if a.head is None or not np.isfinite(value):
        return None
    if not a.head.has_classes:
        return float(value)
    return int(value) if value >= 0 else None


def _correct(a: Attribution, label: Any, index: int | None, prediction: Any) -> bool | None:
    """Whether the prediction is the label; None where it cannot be right or wrong."""
    if label is None or index is None or prediction is None or a.head is None or a.head.task is Task.MULTILABEL:
        return None
    return bool(index == prediction)


def saliency_of(
    checkpoints: Sequence[CheckpointColumn],
    inputs: Inputs,
    request: Request,
    found: Sequence[Found],
    notes: tuple[str, ...],
    how: Mapping[str, str],
    sanity: tuple[SanityStep, ...],
) -> Saliency:
    """The whole answer, a row an explanation: by sample, output, target, checkpoint."""
    order = sorted(
        (((f.row, f.output, k, f.checkpoint), f.finished) for f in found for k in range(len(f.finished.explanations))),
        key=lambda entry: entry[0],
    )
    maps: dict[str, dict[str, Any]] = {}
    attributions: dict[str, dict[str, Any]] = {}
    for into, part in ((maps, "maps"), (attributions, "attributions")):
        for method, name in getattr(order[0][1], part) if order else ():
            pieces = [(getattr(finished, part)[method, name], place[2]) for place, finished in order]
            whole = np.empty((len(pieces), *pieces[0][0].shape[1:]), dtype=pieces[0][0].dtype)
            for at, (piece, k) in enumerate(pieces):
                whole[at] = piece[k]
            into.setdefault(method, {})[name] = whole
    rows = [
        replace(
            finished.explanations[place[2]],
            maps=tuple(
                SaliencyMap(m, name, values[at], attributions[m][name][at], not values[at].any())
                for m, by_input in maps.items()
                for name, values in by_input.items()
            ),
        )
        for at, (place, finished) in enumerate(order)
    ]
    methods = tuple(rows[0].trust) if rows else request.settings.methods
    return Saliency(
        explanations=tuple(rows),
        methods=methods,
        overlay=next((m for m in REFINEMENT if m in methods), methods[0]),
        maps=maps,
        attributions=attributions,
        checkpoints=tuple(checkpoints),
        changes=changes_of(rows, methods) if len(checkpoints) > 1 else (),
        sanity=sanity,
        settings={**_described(request.settings, request), **_spent(rows), **how},
        notes=notes,
        skipped=inputs.skipped,
    )


def together(parts: Sequence[tuple[Sequence[int], Inputs, Saliency]]) -> Saliency:
    """One answer of the answers of several shapes, in the order of all samples; arrays are filled up with NaN.

    Args:
        parts: The places of some samples among all, these samples, and their answer.
    """
    place_of: dict[Any, int] = {}
    for places, inputs, _ in parts:
        of: Sequence[tuple[str | None, str | None]] = inputs.pairs or [(None, None)] * len(places)
        keys = ((*pair, plain(sample_id)) for pair, sample_id in zip(of, inputs.sample_id, strict=True))
        place_of |= dict(zip(keys, places, strict=True))
    every = [found for *_, found in parts]
    # Place among all samples, part, row in it.
    order = sorted((place_of[e.key], n, row) for n, of in enumerate(every) for row, e in enumerate(of.explanations))
    first = next((found for found in every if found.explanations), every[0])
    changes = [change for found in every for change in found.changes]
    changes.sort(key=lambda c: place_of[c.mode, c.ds_id, c.sample_id])
    explanations = tuple(every[part].explanations[row] for _, part, row in order)
    return replace(
        first,
        explanations=explanations,
        settings={**first.settings, **_spent(explanations)},
        maps=_filled_up(first.maps, [found.maps for found in every], order),
        attributions=_filled_up(first.attributions, [found.attributions for found in every], order),
        changes=tuple(changes),
        sanity=next((found.sanity for found in every if found.sanity), ()),
        notes=tuple(dict.fromkeys(note for found in every for note in found.notes)),
    )


def _filled_up(
    names: Mapping[str, Mapping[str, Any]], parts: Sequence[Mapping[str, Any]], order: Sequence[tuple[int, int, int]]
) -> dict[str, dict[str, Any]]:
    """{method: {input: (row, ...)}} of all parts, each axis as long as the longest."""
    made: dict[str, dict[str, Any]] = {}
    for method, by_input in names.items():
        for name in by_input:
            rows = [parts[part][method][name][row] for _, part, row in order]
            shape = tuple(max(sides) for sides in zip(*(row.shape for row in rows), strict=True))
            whole = np.full((len(rows), *shape), np.nan, dtype=rows[0].dtype)
            for to, row in zip(whole, rows, strict=True):
                to[tuple(slice(side) for side in row.shape)] = row
            made.setdefault(method, {})[name] = whole
    return made


def changes_of(explanations: Sequence[Explanation], methods: Sequence[str]) -> tuple[Change, ...]:
    """The rank correlation of each sample's maps from one checkpoint to the next.

    Args:
        explanations: Ordered so that the checkpoints of one (sample, output, target) follow each other.
        methods: Which maps to compare.
    """
    groups: dict[tuple[Any, ...], list[Explanation]] = {}
    for e in explanations:
        groups.setdefault((e.key, e.output, e.target), []).append(e)
    found = []
    for columns in groups.values():
        for before, after in pairwise(columns):
            for method in methods:
                a, b = (
                    np.concatenate([m.values.ravel() for m in e.maps if m.method == method]) for e in (before, after)
                )
                value = rank_correlation(a, b)
                known = value if np.isfinite(value) else None
                at = (after.checkpoint, known, after.output, after.mode, after.ds_id)
                found.append(Change(after.sample_id, after.target, method, *at))
    return tuple(found)


def _described(settings: Settings, request: Request) -> Mapping[str, Any]:
    target = request.target if request.place is None else f"{request.target}@{request.place}"
    return {
        "target": getattr(target, "__name__", None) or str(target),
        "methods": list(settings.methods),
        "task": request.task,
        "smoothing": None if settings.economical else settings.draws,
        "integrating": None if settings.economical else [settings.steps, settings.smint_draws],
        "baseline": str(settings.baseline),
        "noise": settings.noise,
        "signed": settings.signed,
        "convention": settings.convention.value,
        "seed": settings.seed,
        "tolerance": settings.tolerance,
        "evaluations": settings.evaluations_per_sample if settings.economical else None,
    }


def _spent(explanations: Sequence[Explanation]) -> Mapping[str, Any]:
    """What the maps of a sample are of, in evaluations and by method in words; from the fewest to the most of any."""
    spent = [e.evaluations for e in explanations] or [0]
    fewest, most = min(spent), max(spent)
    passes = {}
    for method in explanations[0].trust if explanations else ():
        of_method = [e.trust[method] for e in explanations]
        draws, steps = ([n for n in (getattr(t, part) for t in of_method) if n] for part in ("draws", "steps"))
        passes[method] = (f" of {_range(draws)}" if draws else "") + (f" in {_range(steps)} step" if steps else "")
        passes[method] += "s" if steps and max(steps) > 1 else ""
    return {
        "evaluations_per_sample": fewest if fewest == most else [fewest, most],
        "passes": [method + said for method, said in passes.items() if said],
    }


def _range(numbers: Sequence[int]) -> str:
    fewest, most = min(numbers), max(numbers)
    return str(most) if fewest == most else f"{fewest} to {most}"


def _name(label: Any, names: Sequence[str]) -> str:
    if isinstance(label, float):
        return f"{label:.4g}"
    if isinstance(label, frozenset):
        return ", ".join(_name(one, names) for one in sorted(label)) or "none"
    return names[label] if isinstance(label, int) and 0 <= label < len(names) else str(label)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
