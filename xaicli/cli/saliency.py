"""`xai saliency`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from xaicli.cli.command import command, typed
from xaicli.cli.loading import Loading, integers
from xaicli.cli.options import (
    FactsOption,
    Ids,
    KeptDsIds,
    KeptModes,
    NoFacts,
    OptionGroup,
    Output,
    RunDir,
    split_commas,
    split_one,
)
from xaicli.cli.output import REPORT_FORMATS, chosen_formats, write
from xaicli.cli.status import end_status
from xaicli.errors import InterruptedWorkError, UsageError
from xaicli.progress import doing
from xaicli.vocabulary import Format

_MODEL = "Model and data"
_SAMPLES = "Samples"
_MAPS = "Maps"


@dataclasses.dataclass(frozen=True)
class Samples(OptionGroup):
    """Which samples are explained."""

    samples: Annotated[int, typer.Option(metavar="N", rich_help_panel=_SAMPLES, help="How many samples.")] = 16
    ids: Ids = None
    pick: Annotated[
        str, typer.Option(rich_help_panel=_SAMPLES, help="worst or best by the logged metric, random, first.")
    ] = "first"
    metric: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_one, rich_help_panel=_SAMPLES, show_default=False, help="For --pick [default: loss]."
        ),
    ] = None
    mode: KeptModes = None
    ds_id: KeptDsIds = None


@dataclasses.dataclass(frozen=True)
class Maps(OptionGroup):
    """How the maps are made: the arguments of `settle`."""

    methods: Annotated[
        list[str],
        typer.Option(
            callback=split_commas, rich_help_panel=_MAPS, help="gradient, smoothgrad, integrated, smint, gradcam."
        ),
    ] = ("gradient", "smoothgrad", "integrated", "smint")  # type: ignore[assignment]
    evaluations: Annotated[
        str,
        typer.Option(
            metavar="auto|N",
            rich_help_panel=_MAPS,
            help="Gradient evaluations for each sample, spent whole; auto: 24, as good as 25 x 7.",
        ),
    ] = "auto"
    smoothing: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=_MAPS, show_default=False, help="Exactly so many draws of smoothgrad (25); 0 disables it."
        ),
    ] = None
    integrating: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STEPS[,DRAWS]",
            callback=split_commas,
            rich_help_panel=_MAPS,
            show_default=False,
            help="Exactly so many steps of integrated, draws of smint (25,7).",
        ),
    ] = None
    tolerance: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_MAPS,
            show_default=False,
            help="Double steps or draws until delta and agreement settle (0.05), at most three times.",
        ),
    ] = None
    baseline: Annotated[
        str, typer.Option(rich_help_panel=_MAPS, help="mid, zero, uniform, black, blur, or a file.")
    ] = "mid"
    noise: Annotated[float, typer.Option(rich_help_panel=_MAPS, help="Sigma, as a part of the input's range.")] = 0.15
    signed: Annotated[
        bool, typer.Option("--signed/--magnitude", rich_help_panel=_MAPS, help="Means, not of squares.")
    ] = False
    convention: Annotated[str, typer.Option(rich_help_panel=_MAPS, help="xai, or fe for the seed's numbers.")] = "xai"
    precision: Annotated[str, typer.Option(rich_help_panel=_MAPS, help="auto, fp32, bf16.")] = "auto"
    seed: Annotated[int, typer.Option(rich_help_panel=_MAPS, help="Of every random draw.")] = 0

    def arguments(self) -> dict[str, Any]:
        """The options as keyword arguments, numbers as numbers."""
        given = integers("integrating", list(self.integrating)) or () if self.integrating else None
        return {**super().arguments(), "integrating": given}


@command
def saliency(
    run_dir: RunDir = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CKPT",
            rich_help_panel=_MODEL,
            show_default=False,
            help="A path, a pattern, or a name in the run's checkpoints/; repeat: a column each [default: ckpt.pt].",
        ),
    ] = None,
    output_key: Annotated[
        list[str] | None,
        typer.Option(
            "--output-key",
            callback=split_commas,
            rich_help_panel=_MODEL,
            show_default=False,
            help="Key or index of the model's output, where it returns several.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=_MODEL,
            show_default=False,
            help="What the outputs mean, where the model does not say it: classification, binary, multilabel, "
            "regression, sequence, token_classification, segmentation.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(rich_help_panel=_MODEL, help="auto, cpu, cuda, cuda:1.")] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", rich_help_panel=_SAMPLES, help="Fail on a sample that cannot be read.")
    ] = False,
    target: Annotated[
        str,
        typer.Option(
            rich_help_panel=_MAPS, help="predicted, label, a class, topK, TARGET@TOKEN, loss, or module:function."
        ),
    ] = "predicted",
    captum: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METHOD",
            callback=split_commas,
            rich_help_panel=_MAPS,
            show_default=False,
            help="Further methods by their names in captum.attr.",
        ),
    ] = None,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", rich_help_panel=_MAPS, help="Insertion, deletion, infidelity, sensitivity.")
    ] = False,
    sanity: Annotated[
        bool, typer.Option("--sanity", rich_help_panel=_MAPS, help="Compare with maps of randomised models.")
    ] = False,
    pictures: Annotated[
        bool,
        typer.Option("--pictures", rich_help_panel=_MAPS, help="A picture a sample too, beside the sheet of all."),
    ] = False,
    facts: FactsOption = None,
    no_facts: NoFacts = False,
    *,
    samples: Samples,
    maps: Maps,
    loading: Loading,
    output: Output,
) -> None:
    """What the model looked at: saliency maps from a checkpoint, each with how far to trust it.

    An interrupted call continues where it stopped; `torchrun ... -m xaicli saliency ...` shares the samples out.

    Example: xai saliency runs/demo --model ckpt.pt --samples 16 --pick worst
    """
    from xaicli.api.opening import Opening, find_place
    from xaicli.api.picks import Choice
    from xaicli.api.saliency import explain_run
    from xaicli.checkpoint.architecture import searching

    if pictures and Format.PNG not in chosen_formats(output, REPORT_FORMATS):
        raise UsageError(
            "--pictures draws PNGs, and --format names no png",
            hint="--format png, or leave out --pictures",
            refused=("pictures",),
            by=("format",),
        )
    place = find_place(run_dir, model or [])
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if rank:
        end_status()  # one of many tells
    # What forward and the data import when they run is searched for, too.
    with _told_without_a_report(), searching(loading.pythonpath or ()):
        result = explain_run(
            place,
            Opening(**loading.arguments(), mode=samples.mode, ds_id=samples.ds_id, strict=strict),
            Choice(**{**samples.arguments(), "metric": samples.metric[0] if samples.metric else None}, typed=typed()),
            target=target,
            output=output_key,
            task=task,
            progress=partial(doing, "maps"),
            settings={**maps.arguments(), "typed": typed()},
            captum=tuple(captum or ()),
            evaluate=evaluate,
            sanity=sanity,
            device=_own_device(device),
            store=_store(output.output or place.folder, place.layout),
            rank=rank,
            world_size=world_size,
            facts=facts,
            no_facts=no_facts,
        )
    if rank == 0:
        write(result, output, folder=place.folder, always=REPORT_FORMATS, pictures=pictures)


@contextmanager
def _told_without_a_report() -> Iterator[None]:
    """Ctrl-C before there is a map, or after the last, says that no report is there; in between it says more."""
    try:
        yield
    except InterruptedWorkError:
        raise
    except KeyboardInterrupt:
        raise InterruptedWorkError("no report is written") from None


def _store(folder: Path, layout: Any) -> Path:
    """Finished samples: in the run's cache, else beside the reports."""
    return (layout.cache if layout else folder / "cache") / "saliency"


def _own_device(device: str) -> str:
    """With torchrun, each rank's own GPU."""
    local = os.environ.get("LOCAL_RANK")
    return f"{device}:{local}" if device == "cuda" and local else device
