"""What `xai saliency` asks: which checkpoints, of which run, on which samples."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli.errors import UsageError, XaiError, unknown
from xaicli.layout import RunLayout
from xaicli.location import find_run
from xaicli.saliency_result import SaliencyResult

if TYPE_CHECKING:
    from xaicli.attribution.request import Column
    from xaicli.checkpoint.facts import LoadedModel
    from xaicli.sources.inputs import Source

PICKS = ("first", "worst", "best", "random")
HIGHER_IS_BETTER = frozenset(
    {"label_prob", "top_prob", "margin", "correct", "confidence", "correctness", "aum", "accuracy", "acc", "f1", "iou"}
)
"""Metrics whose worst samples are the lowest; of every other metric, as of a loss, the highest."""

_CHECKPOINT = "ckpt.pt"
_WILD = re.compile(r"[*?\[]")
_SAMPLES = 16


@dataclass(frozen=True)
class Place:
    """Where a call's checkpoints, run and files are.

    Attributes:
        checkpoints: The files, in the order named.
        layout: The run they belong to, or None.
    """

    checkpoints: tuple[Path, ...]
    layout: RunLayout | None

    @property
    def folder(self) -> Path:
        """Where reports go unless the user says otherwise."""
        return self.layout.reports if self.layout else self.checkpoints[0].parent / "reports"


def find_place(run_dir: str | os.PathLike[str] | None, model: Sequence[str]) -> Place:
    """Find checkpoints and run: a path or pattern, or a name in the run's `checkpoints/`.

    Raises:
        XaiError: There is no such checkpoint, or neither a run nor a checkpoint.
    """
    layout = find_run(run_dir) if run_dir is not None else None
    found: list[Path] = []
    for name in model or (_CHECKPOINT,):
        here = _matches(Path(), name)
        if not here:
            layout = layout or _default_run(name)
            here = _matches(layout.checkpoints, name)
            if not here:
                kept = sorted(path.name for path in layout.checkpoints.glob("*") if not path.name.startswith("."))
                raise unknown("checkpoint", name, kept, where=str(layout.checkpoints))
        found += here
    return Place(tuple(dict.fromkeys(found)), layout or _run_of(found[0]))


def explain_run(
    place: Place,
    *,
    data: str | None = None,
    arch: str | None = None,
    arch_args: str | None = None,
    weights: str | None = None,
    trust_checkpoint: bool = False,
    pythonpath: Sequence[str] = (),
    mode: str | None = None,
    resize: Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    samples: int = _SAMPLES,
    ids: Sequence[str] | None = None,
    pick: str = "first",
    metric: str | None = None,
    target: str = "predicted",
    output: Sequence[str] | None = None,
    captum: Sequence[str] = (),
    evaluate: bool = False,
    sanity: bool = False,
    device: str = "auto",
    strict: bool = False,
    store: Path | None = None,
    rank: int = 0,
    world_size: int = 1,
    progress: Callable[[float, int], None] | None = None,
    **settings: Any,
) -> SaliencyResult:
    """The maps of some samples of a run, or of any data, through its checkpoints.

    Args:
        settings: As `xaicli.attribution.settings.settle`; for the rest see `xai saliency --help`.

    Raises:
        XaiError: Something named does not exist, or cannot be explained.
    """
    from xaicli.attribution.request import Request
    from xaicli.attribution.session import explain
    from xaicli.attribution.settings import settle

    settled = settle(**settings)
    loaded = [_load(path, arch, arch_args, weights, trust_checkpoint, pythonpath) for path in place.checkpoints]
    columns = _columns(loaded)
    facts = columns[-1].facts
    assert facts is not None
    names = facts.label_names or (place.layout.read_manifest().label_names if place.layout else None) or ()
    source = _source(place, facts, data, mode, resize, mean, std, pythonpath, strict)
    names = names or source.label_names or ()
    which = _chosen(source, place.layout, samples, ids, pick, metric, mode, settled.seed)
    request = Request(
        settings=settled,
        target=_target(target, pythonpath),
        outputs=tuple(output) if output else (None,),
        device=device,
        label_names=tuple(names),
        store=store,
        captum=tuple(captum),
        evaluate=evaluate,
        sanity=sanity,
        rank=rank,
        world_size=world_size,
    )
    saliency = explain(columns, source.take(which), request, progress=progress)
    run = str(place.layout.root if place.layout else place.checkpoints[0])
    return SaliencyResult(saliency, run=run, facts=_run_facts(place.layout))


def _source(
    place: Place,
    facts: Any,
    data: str | None,
    mode: str | None,
    resize: Sequence[int] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    pythonpath: Sequence[str],
    strict: bool,
) -> Source:
    from xaicli.sources.opening import open_source

    shapes = facts.input_shapes
    return open_source(
        data,
        layout=place.layout,
        mode=mode,
        resize=resize,
        mean=mean if mean is not None else facts.mean,
        std=std if std is not None else facts.std,
        input_shape=shapes[0] if shapes and len(shapes) == 1 and all(n is not None for n in shapes[0]) else None,
        label_names=facts.label_names,
        pythonpath=pythonpath,
        strict=strict,
    )


def _load(
    path: Path, arch: str | None, arch_args: str | None, weights: str | None, trust: bool, pythonpath: Sequence[str]
) -> LoadedModel:
    from xaicli.checkpoint.load import load_checkpoint

    return load_checkpoint(path, arch=arch, arch_args=arch_args, weights=weights, trust=trust, pythonpath=pythonpath)


def _columns(loaded: Sequence[LoadedModel]) -> list[Column]:
    """In training order: by epoch and step where all say them, else by name with numbers as numbers."""
    from xaicli.attribution.request import Column

    known = all(model.facts.epoch is not None or model.facts.step is not None for model in loaded)

    def order(model: LoadedModel) -> tuple[Any, ...]:
        facts = model.facts
        name = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", facts.path.name)]
        return (facts.epoch or 0, facts.step or 0, name) if known else (0, 0, name)

    stems = [model.facts.path.stem for model in loaded]
    unique = len(set(stems)) == len(stems)
    return [
        Column(m.facts.path.stem if unique else str(m.facts.path), partial(getattr, m, "model"), m.facts)
        for m in sorted(loaded, key=order)
    ]


def _chosen(
    source: Source,
    layout: RunLayout | None,
    samples: int,
    ids: Sequence[str] | None,
    pick: str,
    metric: str | None,
    mode: str | None,
    seed: int,
) -> int | list[Any]:
    if ids:
        return list(ids)
    if samples < 1:
        raise UsageError(f"samples is {samples}", hint="a whole number from 1")
    if pick == "first":
        return samples
    if pick == "random":
        import random

        every = list(source.sample_ids)
        return random.Random(seed).sample(every, min(samples, len(every)))
    if pick not in PICKS:
        raise UsageError(f"no pick {pick!r}", hint="picks: " + ", ".join(PICKS))
    if layout is None:
        raise XaiError(
            f"--pick {pick} needs a run that logged a metric", hint="name the run, or use --pick first or random"
        )
    return _ranked(source.sample_ids, layout, samples, pick, metric, mode)


def _ranked(
    available: Iterable[Any], layout: RunLayout, samples: int, pick: str, metric: str | None, mode: str | None
) -> list[Any]:
    """The worst or best samples of the source by their last logged value."""
    from xaicli.api import RunReader

    chosen: Any = {key: value for key, value in (("metric", metric), ("mode", mode)) if value}
    run = RunReader(layout)
    _, selection = run.select(**chosen)
    name = selection.metrics[0]
    highest = (pick == "worst") != (name in HIGHER_IS_BETTER)
    held = {str(sample_id) for sample_id in available}
    asked = samples
    while True:
        # The extremes of the whole run first; further only while the source holds too few of them.
        sides: Any = {"max": asked, "min": 0} if highest else {"max": 0, "min": asked}
        rows = run.samples(**sides, **{**chosen, "metric": name}).data
        best = rows.sort("score", "sample_id", descending=[highest, False])["sample_id"].to_list()
        found = list(dict.fromkeys(sample_id for sample_id in best if str(sample_id) in held))
        if len(found) >= samples or len(best) < asked:
            break
        asked *= 8
    if not found:
        raise XaiError(
            f"none of the data's samples has a logged {name} in mode {', '.join(selection.modes)}",
            hint="do the ids of --data equal the logged ones? --mode chooses the rows",
        )
    return found[:samples]


def _target(text: str, pythonpath: Sequence[str]) -> Any:
    """A number of the command line as a number, `module:function` as the function, other words as they are."""
    if re.fullmatch(r"\d+", text):
        return int(text)
    if ":" in text:
        from xaicli.checkpoint.architecture import resolve

        return resolve(text, pythonpath=pythonpath, option="--target")
    return text


def _matches(folder: Path, name: str) -> list[Path]:
    if not _WILD.search(name):
        path = folder / name
        return [path] if path.exists() else []
    pattern = Path(name)
    base, parts = (Path(pattern.anchor), pattern.parts[1:]) if pattern.is_absolute() else (folder, pattern.parts)
    return sorted(base.glob(str(Path(*parts))))


def _default_run(name: str) -> RunLayout:
    try:
        return find_run(None)
    except XaiError as error:
        raise XaiError(f"no checkpoint {name}: there is no such file, and {error.message}", hint=error.hint) from error


def _run_of(path: Path) -> RunLayout | None:
    """The run a checkpoint lies in, else the default run, else none."""
    for parent in path.resolve().parents:
        if RunLayout(parent).is_run():
            return RunLayout(parent)
    try:
        return find_run(None)
    except XaiError:
        return None


def _run_facts(layout: RunLayout | None) -> Any:
    from xaicli.report.facts import RunFacts

    return RunFacts.of(layout) if layout else None
