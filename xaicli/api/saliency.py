"""Saliency of any module, `xaicli.saliency(model, inputs)`, and of a run through its checkpoints."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from xaicli.api.opening import Opening, Place
from xaicli.api.picks import Choice, Ranking
from xaicli.api.saliency_result import SaliencyResult
from xaicli.errors import UsageError
from xaicli.heads.head import Task
from xaicli.recorder.config import ignored_forms
from xaicli.tables.labels import in_order_apart
from xaicli.tables.lists import asked_in_files
from xaicli.words import quoted

if TYPE_CHECKING:
    from torch import nn

    from xaicli.attribution.session import Column
    from xaicli.checkpoint.facts import CheckpointFacts, LoadedModel
    from xaicli.checkpoint.load import Contents
    from xaicli.layout import RunLayout
    from xaicli.reader import Reader
    from xaicli.reader.facts import FactFiles
    from xaicli.sources.inputs import Inputs, Source


def saliency(
    model: nn.Module,
    inputs: Any,
    *,
    target: Any = "predicted",
    methods: Sequence[str] | str = ("gradient", "smoothgrad", "integrated", "smint"),
    smoothing: int | None = None,
    integrating: int | Sequence[int] | None = None,
    evaluations: int | str | None = "auto",
    task: str | None = None,
    baseline: str = "mid",
    noise: float = 0.15,
    signed: bool = False,
    convention: str = "xai",
    precision: str = "auto",
    device: str = "auto",
    seed: int = 0,
    labels: Sequence[Any] | None = None,
    label_names: Sequence[str] = (),
    sample_ids: Sequence[Any] | None = None,
    output: str | int | Sequence[str | int] | None = None,
    captum: Sequence[str] | str = (),
    tolerance: float | None = None,
    evaluate: bool = False,
    sanity: bool = False,
) -> SaliencyResult:
    """What a model looked at: saliency maps of any `nn.Module`, without a run.

    Nothing of the model or the inputs is changed. The same call gives the same maps.

    Args:
        model: Any module, in any mode, or a `torch.export.ExportedProgram`.
        inputs: An array or tensor (sample, ...); several as a list, a tuple, or a dict by name, in call order.
            A forward that takes one dict of its inputs gets them so. A list of single samples is one batch where
            forward takes one tensor alone.
        target: "predicted", "label", a class name or number, "topK", one number per sample, or a function of the
            model's outputs that returns one number per row. Of a model of texts also "loss", or one of these at a
            token: "predicted@0" the first, "predicted@-1" the last, where a language model is explained by default.
        methods: Of gradient, smoothgrad, integrated, smint, gradcam.
        smoothing: Terms of smoothgrad, exactly; 0 disables it and leaves the budget to the others. 25 where only
            `integrating` is given.
        integrating: Steps of integrated and terms of smint, exactly; one number leaves smint `smoothing` terms; 0
            disables as that does. (25, 7) where only `smoothing` is given.
        evaluations: A budget of gradient evaluations for each sample, spent whole on all methods together. "auto" is
            24, which reaches the fidelity of 25 x 7 = 175; not with `smoothing`, `integrating` or the fe convention.
        task: What the outputs mean, where the model does not say it: classification, binary, multilabel, regression,
            sequence, token_classification or segmentation, with ":logits" or ":probabilities" behind it if need be.
        baseline: mid, zero, uniform, black, blur, or a file.
        noise: Standard deviation of the noise, as a part of the range of the sample's values.
        signed: Means instead of means of squares.
        convention: "xai", or "fe" for the seed's exact numbers.
        precision: auto, fp32 or bf16.
        device: auto, or a torch device.
        seed: Of every random draw.
        labels: The samples' labels.
        label_names: The names of the outputs.
        sample_ids: The samples' ids; 0, 1, 2, ... when not given.
        output: Key or index of the output of a model with several; a sequence explains each.
        captum: Further methods by their names in `captum.attr`.
        tolerance: Double steps or draws per sample until delta and agreement settle, at most three times: a warning
            counts the samples that did not, and `.data` says of each map its draws, steps and whether it `settled`.
        evaluate: Score the maps: insertion and deletion AUC, infidelity, sensitivity.
        sanity: Compare the maps with those of ever more randomised models.

    Raises:
        XaiError: The model cannot be explained on these inputs; says why in one line.
    """
    from xaicli.attribution.given import of_samples
    from xaicli.attribution.inputs import as_arrays
    from xaicli.attribution.session import Column, Request, explain
    from xaicli.attribution.settings import settle
    from xaicli.sources.inputs import Inputs

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
    if type(model).__name__ == "ExportedProgram":
        model = cast(Any, model).module()
    if not callable(getattr(model, "named_parameters", None)):
        raise UsageError(
            f"the model is a {type(model).__name__}, not a torch.nn.Module",
            hint="put it into forward of a module: its layers are needed, not only what it returns",
        )
    arrays = as_arrays(of_samples(model, inputs))
    n = len(next(iter(arrays.values())))
    for name, values in (("sample_ids", sample_ids), ("labels", labels)):
        if values is not None and len(values) != n:
            raise UsageError(f"{name} holds {len(values)} for {n} samples", hint="one for each sample, in their order")
    ids = _distinct(sample_ids) if sample_ids is not None else list(range(n))
    outputs = tuple(output) if isinstance(output, (list, tuple)) else (output,)
    request = Request(
        settings=settings,
        target=target,
        outputs=outputs,
        task=task,
        device=str(device),
        label_names=in_order_apart(label_names),
        captum=tuple(name.strip() for name in captum.split(",") if name.strip())
        if isinstance(captum, str)
        else tuple(captum),
        evaluate=evaluate,
        sanity=sanity,
    )
    given = Inputs(ids, arrays, None if labels is None else list(labels))
    return SaliencyResult(explain([Column("", lambda: model)], given, request), run=type(model).__name__)


def _distinct(sample_ids: Sequence[Any]) -> list[Any]:
    """Ids as plain values.

    Raises:
        UsageError: One is missing, or two samples have the same.
    """
    from xaicli.sources.inputs import plain

    ids = [plain(given) for given in sample_ids]
    if missing := [position for position, given in enumerate(ids) if given is None or given != given]:
        raise UsageError(
            f"sample_ids has none for {len(missing)} of {len(ids)} samples, the first at position {missing[0]}",
            hint="each sample needs an id of its own, an integer or a text",
        )
    counts = Counter(ids)
    if twice := [given for given in counts if counts[given] > 1]:
        shown = ", ".join(map(str, twice[:5])) + (", ..." if len(twice) > 5 else "")
        raise UsageError(f"sample_ids holds {shown} more than once", hint="each sample needs an id of its own")
    return ids


def explain_run(
    place: Place,
    opening: Opening,
    choice: Choice,
    *,
    target: str = "predicted",
    output: Sequence[str] | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    settings: Mapping[str, Any],
    facts: FactFiles = None,
    no_facts: bool = False,
    **asked: Any,
) -> SaliencyResult:
    """The maps of some samples of a run, or of any data, through its checkpoints.

    Args:
        place: The checkpoints and their run.
        opening: How models and data are opened.
        choice: Which samples.
        target, output: As `xai saliency` has them.
        progress: As `xaicli.attribution.session.Progress`.
        settings: Arguments of `xaicli.attribution.settings.settle`.
        facts: Files of what the samples are, beside the run's own facts.
        no_facts: Know no facts.
        asked: Further fields of `xaicli.attribution.session.Request`.

    Raises:
        XaiError: Something named does not exist, or cannot be explained.
    """
    from xaicli.attribution.inputs import is_picture
    from xaicli.attribution.session import Request, explain_alike
    from xaicli.attribution.settings import settle

    settled = settle(**settings)
    files = _in_training_order(place.checkpoints, opening)
    last = files[-1]
    said = last().facts
    columns = _columns(files)
    names = said.label_names or (place.layout.read_manifest().label_names if place.layout else None) or ()
    starts = settled.baseline
    # Those two say where paths start, also where no sample is a picture.
    source = opening.source(
        place.layout,
        last(),
        used=("mean", "std") if starts == "black" or is_picture(starts) else (),
    )
    last.keep = len(files) == 1
    request = Request(
        settings=settled,
        target=_target(target, opening.pythonpath),
        outputs=tuple(output) if output else (None,),
        label_names=in_order_apart(names or source.label_names or ()),
        mean=tuple(opening.mean) if opening.mean is not None else None,
        std=tuple(opening.std) if opening.std is not None else None,
        **asked,
    )
    known = _known(place.layout, facts, no_facts)
    which, ranked = choice.of(source, known, settled.seed)
    parts = _without_ignored(source.take_alike(which), place.layout)
    notes = _picked(choice, ranked, source) if ranked else _not_shown(source, parts) if choice.ids is None else []
    notes += choice.misplaced(source, known) + _too_few(choice, ranked, source)
    if notes:
        notes += parts[0][1].skipped
        parts = [(places, replace(inputs, skipped=tuple(notes))) for places, inputs in parts]
    reads = {"mode_is_read": opening.reads_mode and source.reads_mode, "ds_id_is_read": opening.data is None}
    if left := choice.unused(**reads):
        parts = [(places, replace(inputs, skipped=(*inputs.skipped, *left))) for places, inputs in parts]
    saliency = explain_alike(columns, parts, request, progress=progress)
    stands_for = {str(one): tuple(pairs) for one, pairs in source.stands_for.items()}
    placed = (
        e if e.mode else replace(e, stands_for=stands_for.get(str(e.sample_id), ())) for e in saliency.explanations
    )
    saliency = replace(saliency, explanations=tuple(placed))
    run = place.layout.described if place.layout else str(place.checkpoints[0])
    more: dict[str, Any] = {name: asked.get(name) for name in ("task", "captum", "evaluate", "sanity")}
    more["output_key"] = list(output or ())
    asked_of = {**({} if place.layout else {"runs": []}), **opening.asked(), **{k: v for k, v in more.items() if v}}
    asked_of |= {"picked": ranked.as_dict()} if ranked else asked_in_files(choice.ids)
    if choice.ids is None and len(saliency.places) > 1:  # their ids alone would ask for more
        asked_of |= {"pick": choice.pick, "samples": choice.samples, **({"metric": ranked.metric} if ranked else {})}
    asked_of |= {**_files_in_words(facts), **({"no_facts": True} if no_facts else {})}
    told = known if known is not None and known.facts.names else None
    return SaliencyResult(saliency, run=run, facts=_run_facts(place.layout), asked=asked_of, known=told)


def _without_ignored(parts: list[tuple[list[int], Inputs]], layout: RunLayout | None) -> list[tuple[list[int], Inputs]]:
    """Samples whose label is the run's `ignore_label` have none, whatever data they come from."""
    manifest = layout.read_manifest() if layout else None
    if manifest is None or manifest.task == Task.REGRESSION:
        return parts
    none = set(ignored_forms(manifest.ignore_label, manifest.label_names)) - {None}
    return [
        (places, replace(inputs, label=[None if _is_one_of(one, none) else one for one in inputs.label]))
        if inputs.label is not None
        else (places, inputs)
        for places, inputs in parts
    ]


def _is_one_of(label: Any, some: Collection[Any]) -> bool:
    return isinstance(label, int | str | float) and label in some


def _not_shown(source: Source, parts: Sequence[tuple[Sequence[int], Inputs]]) -> list[str]:
    """Of which modes and data sets inputs are kept of which no sample is among those explained."""
    shown = {pair for _, inputs in parts for pair in inputs.pairs or ()}
    left = Counter(pair for pair in source.pairs if pair not in shown) if shown else Counter[tuple[str, str]]()
    if not left:
        return []
    from xaicli.report.numbers import listed

    of = listed([" ".join(filter(None, pair)) or "no mode" for pair in sorted(left)])
    n = sum(left.values())
    kept = f"inputs of {n:,} {'sample' if n == 1 else 'samples'} of {of} are kept, too, of which none is shown"
    return [f"{kept}: --mode, --ds-id, --ids or more --samples choose them"]


def _all(names: Iterable[str]) -> str:
    """All of some names, in a sentence."""
    from xaicli.report.numbers import listed

    every = list(names)
    return listed(every, len(every), whole=True)


def _picked(choice: Choice, ranked: Ranking, source: Source) -> list[str]:
    """Among which samples the worst or best were picked, and where they are fewer than were asked for."""
    said = []
    kept = bool(source.pairs)
    where = f"mode {_all(ranked.modes)}"
    if any(ranked.ds_ids):
        where += f" of data set {_all(map(quoted, ranked.ds_ids))}"
    if kept:
        modes, ds_ids = ({pair[at]: None for pair in source.places} for at in (0, 1))
        of = f" of mode {_all(modes)}" if choice.mode and modes else ""
        of += f" of data set {_all(map(quoted, ds_ids))}" if choice.ds_id and modes else ""
        among = f"the {len(source.sample_ids):,} samples{of} whose inputs the run kept"
        if ranked.n < len(source.sample_ids):
            among = f"{ranked.n:,} of {among}, of the others no {ranked.metric} is logged in {where}"
        said.append(f"the {choice.pick} are picked among {among}: --data picks among others")
    if ranked.found < min(choice.samples, len(source.sample_ids)):
        others = "" if choice.mode or kept else ": --mode ranks by another's"
        of = f"{ranked.found:,} of {choice.samples:,} were picked"
        said.append(f"{of}: no more have a logged {ranked.metric} in {where}{others}")
    if ranked.unsure:
        what = "inputs were kept without a mode and data set" if kept else "the data says no mode and data set"
        said.append(
            f"{what}, and {ranked.unsure:,} of the {ranked.found:,} picked have a {ranked.metric} in several modes or "
            f"data sets: the {ranked.pick} of them counts, --mode and --ds-id choose one"
        )
    return said


def _too_few(choice: Choice, ranked: Ranking | None, source: Source) -> list[str]:
    """That there are fewer samples than were asked for, where nothing else says it."""
    n = sum(sample_id is not None for sample_id in source.sample_ids)
    if not choice.says_how_many or n >= choice.samples or (ranked and ranked.found < n):
        return []
    chosen = " that --mode and --ds-id choose" if source.pairs and (choice.mode or choice.ds_id) else ""
    held = f"the run kept inputs of no more{chosen}" if source.pairs else "the data holds no more"
    return [f"{n:,} of the {choice.samples:,} samples asked for are there: {held}"]


def _files_in_words(facts: FactFiles) -> dict[str, str]:
    if not facts:
        return {}
    from xaicli.reader.facts import each_file

    return {"facts": ", ".join(map(str, each_file(facts)))}


def _known(layout: RunLayout | None, facts: FactFiles, no_facts: bool) -> Reader | None:
    """The run, which knows of the samples; None where there is none.

    Raises:
        UsageError: There is a file of facts, and no run whose samples it tells of, or none are wanted.
        XaiError: The file cannot be read.
    """
    from xaicli.reader import open_reader

    if layout is None and facts:
        raise UsageError(
            "--facts tells of a run's samples, and there is no run", hint="name the run", refused=("facts",)
        )
    return None if layout is None else open_reader(layout, facts=facts, no_facts=no_facts)


class _File:
    """A checkpoint that is loaded when it is asked for.

    Attributes:
        keep: Whether it is loaded once for all, and not anew each time.
        contents: What it holds, where that has been read and is small.
    """

    def __init__(self, path: Path, opening: Opening, *, keep: bool = False) -> None:
        self.path, self.keep = path, keep
        self.contents: Contents | None = None
        self._opening = opening
        self._loaded: LoadedModel | None = None

    def __call__(self) -> LoadedModel:
        loaded: LoadedModel = self._loaded or self._opening.build(self.contents or self._opening.read(self.path))
        self._loaded = loaded if self.keep else None
        return loaded


def _in_training_order(paths: Sequence[Path], opening: Opening) -> list[_File]:
    """Checkpoints by epoch and step where all say them, else by name with numbers as numbers.

    What they hold is kept while it is little, so that their files are read once; no model is.

    Raises:
        XaiError: One of them cannot be loaded.
    """
    if len(paths) == 1:
        return [_File(paths[0], opening, keep=True)]
    facts, read, room = {}, {}, _KEPT_BYTES
    for number, path in enumerate(paths):
        facts[path], contents = _looked_into(path, opening)
        room -= path.stat().st_size
        if room >= 0 and number < _KEPT_OPEN:
            read[path] = contents
    known = all(said.epoch is not None or said.step is not None for said in facts.values())

    def order(path: Path) -> tuple[Any, ...]:
        name = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]
        return (facts[path].epoch or 0, facts[path].step or 0, name) if known else (0, 0, name)

    files = [_File(path, opening) for path in sorted(paths, key=order)]
    for file in files:
        file.contents = read.get(file.path)
    files[-1].keep = True
    return files


_KEPT_BYTES, _KEPT_OPEN = 2**30, 64
"""Of several checkpoints, up to so large and so many together are held from when they are first read."""


def _looked_into(path: Path, opening: Opening) -> tuple[CheckpointFacts, Contents | None]:
    """What a checkpoint says of itself, and what it holds, where it is one file.

    Raises:
        XaiError: It cannot be loaded, which is said before anything is explained.
    """
    if path.is_file() and path.suffix != ".json":
        contents = opening.read(path)
        return contents.facts if contents.graph is not None else opening.build(contents).facts, contents
    from xaicli.checkpoint.inspection import Verdict, inspect_checkpoint

    found = inspect_checkpoint(path)  # of a folder the values are read when it is its turn
    return found.facts if found.verdict is Verdict.AS_IT_IS else opening.load(path).facts, None


def _columns(files: Sequence[_File]) -> list[Column]:
    from xaicli.attribution.session import Column

    stems = [file.path.stem for file in files]
    unique = len(set(stems)) == len(stems)
    return [Column(file.path.stem if unique else str(file.path), file) for file in files]


def _target(text: str, pythonpath: Sequence[str]) -> Any:
    """A number of the command line as a number, `module:function` as the function, other words as they are."""
    if re.fullmatch(r"\d+", text):
        return int(text)
    if ":" in text:
        from xaicli.checkpoint.architecture import resolve

        return resolve(text, pythonpath=pythonpath, option="--target")
    return text


def _run_facts(layout: RunLayout | None) -> Any:
    from xaicli.report.page import RunFacts

    return RunFacts.of(layout) if layout else None
