"""What `xai saliency` asks: which checkpoints, of which run, on which samples."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli.errors import XaiError, unknown
from xaicli.layout import RunLayout
from xaicli.location import find_run
from xaicli.saliency_result import SaliencyResult
from xaicli.saliency_samples import Choice

if TYPE_CHECKING:
    from xaicli.attribution.request import Column
    from xaicli.checkpoint.facts import CheckpointFacts, LoadedModel
    from xaicli.sources.inputs import Source

_CHECKPOINT = "ckpt.pt"
_WILD = re.compile(r"[*?\[]")


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


@dataclass(frozen=True)
class Opening:
    """What builds the models and where their inputs come from, as the options of the same names say it."""

    data: str | None = None
    arch: str | None = None
    arch_args: str | None = None
    weights: str | None = None
    trust_checkpoint: bool = False
    pythonpath: Sequence[str] = ()
    resize: Sequence[int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    mode: str | None = None
    strict: bool = False

    def load(self, path: Path) -> LoadedModel:
        """The model of a checkpoint."""
        from xaicli.checkpoint.load import load_checkpoint

        return load_checkpoint(
            path,
            arch=self.arch,
            arch_args=self.arch_args,
            weights=self.weights,
            trust=self.trust_checkpoint,
            pythonpath=self.pythonpath,
        )

    def source(self, layout: RunLayout | None, facts: CheckpointFacts) -> Source:
        """The samples, as a checkpoint wants them."""
        from xaicli.sources.opening import open_source

        shapes = facts.input_shapes
        return open_source(
            self.data,
            layout=layout,
            mode=self.mode,
            resize=self.resize,
            mean=self.mean if self.mean is not None else facts.mean,
            std=self.std if self.std is not None else facts.std,
            input_shape=shapes[0] if shapes and len(shapes) == 1 and all(n is not None for n in shapes[0]) else None,
            label_names=facts.label_names,
            pythonpath=self.pythonpath,
            strict=self.strict,
        )


def explain_run(
    place: Place,
    opening: Opening,
    choice: Choice,
    *,
    target: str = "predicted",
    output: Sequence[str] | None = None,
    progress: Callable[[float, int], None] | None = None,
    settings: Mapping[str, Any],
    **asked: Any,
) -> SaliencyResult:
    """The maps of some samples of a run, or of any data, through its checkpoints.

    Args:
        place: The checkpoints and their run.
        opening: How models and data are opened.
        choice: Which samples.
        target, output: As `xai saliency` has them.
        progress: Called with (samples done, samples in all).
        settings: Arguments of `xaicli.attribution.settings.settle`.
        asked: Further fields of `xaicli.attribution.request.Request`.

    Raises:
        XaiError: Something named does not exist, or cannot be explained.
    """
    from xaicli.attribution.request import Request
    from xaicli.attribution.session import explain
    from xaicli.attribution.settings import settle

    settled = settle(**settings)
    columns = _columns([opening.load(path) for path in place.checkpoints])
    facts = columns[-1].facts
    assert facts is not None
    names = facts.label_names or (place.layout.read_manifest().label_names if place.layout else None) or ()
    source = opening.source(place.layout, facts)
    request = Request(
        settings=settled,
        target=_target(target, opening.pythonpath),
        outputs=tuple(output) if output else (None,),
        label_names=tuple(names or source.label_names or ()),
        **asked,
    )
    inputs = source.take(choice.of(source, place.layout, settled.seed))
    saliency = explain(columns, inputs, request, progress=progress)
    run = str(place.layout.root if place.layout else place.checkpoints[0])
    return SaliencyResult(saliency, run=run, facts=_run_facts(place.layout))


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
