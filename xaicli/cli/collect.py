"""One pass of a model over data, and the embeddings it leaves: `xai collect` and `embeddings`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from xaicli.cli.command import command, typed
from xaicli.cli.loading import Loading
from xaicli.cli.options import FactsOption, KeptDsIds, KeptModes, NoFacts, Output, RunDir, split_commas, split_epoch
from xaicli.cli.output import REPORT_FORMATS, write
from xaicli.progress import doing

_MODEL = "Model and data"
_COLLECTORS = "Collectors"
_PASS = "The pass"


@command
def collect(
    run_dir: RunDir = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="CKPT",
            rich_help_panel=_MODEL,
            show_default=False,
            help="A path, or a name in the run's checkpoints/ [default: ckpt.pt].",
        ),
    ] = None,
    mode: KeptModes = None,
    ds_id: KeptDsIds = None,
    collectors: Annotated[
        list[str],
        typer.Option(
            callback=split_commas,
            rich_help_panel=_COLLECTORS,
            help="classification, embeddings, segmentation, boxes, masks, or module:name.",
        ),
    ] = ("classification",),  # type: ignore[assignment]
    label_names: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas,
            rich_help_panel=_COLLECTORS,
            show_default=False,
            help="The classes' names [default: the checkpoint's, else the run's].",
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas, rich_help_panel=_COLLECTORS, show_default=False, help="Layers of the embeddings."
        ),
    ] = None,
    reshape: Annotated[
        str,
        typer.Option(
            rich_help_panel=_COLLECTORS,
            help="mean, flatten, avg_pool_1_1, avg_pool_2_2, avg_pool_3_3.",
        ),
    ] = "mean",
    reduction: Annotated[str, typer.Option(rich_help_panel=_COLLECTORS, help="pca, umap, pacmap, none.")] = "pca",
    components: Annotated[int, typer.Option(rich_help_panel=_COLLECTORS, help="Dimensions after it.")] = 2,
    probs: Annotated[bool, typer.Option("--probs", rich_help_panel=_COLLECTORS, help="All probabilities.")] = False,
    iou: Annotated[float, typer.Option(rich_help_panel=_COLLECTORS, help="The least IoU of a match.")] = 0.5,
    task: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_COLLECTORS,
            show_default=False,
            help="What the model was trained for [default: told from model and labels].",
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(rich_help_panel=_PASS, help="What part of the data this is: names the scalars of the means.")
    ] = "",
    epoch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N",
            callback=split_epoch,
            rich_help_panel=_PASS,
            show_default=False,
            help="[default: the checkpoint's].",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(rich_help_panel=_PASS, help="Samples a forward.")] = 64,
    workers: Annotated[int, typer.Option(rich_help_panel=_PASS, help="Processes that read data.")] = 0,
    device: Annotated[str, typer.Option(rich_help_panel=_PASS, help="auto, cpu, cuda, cuda:1.")] = "auto",
    precision: Annotated[str, typer.Option(rich_help_panel=_PASS, help="fp32, bf16, fp16, auto.")] = "fp32",
    no_aggregates: Annotated[
        bool, typer.Option("--no-aggregates", rich_help_panel=_PASS, help="No means as scalars of the run.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", rich_help_panel=_PASS, help="Fail on a sample that cannot be read.")
    ] = False,
    *,
    loading: Loading,
    output: Output,
) -> None:
    """One inference pass of a checkpoint over a dataset, with collectors, into a run.

    Example: xai collect runs/demo --data pictures/ --collectors classification,embeddings --layers features
    """
    from xaicli.api import open_run
    from xaicli.api.opening import Opening
    from xaicli.checkpoint.architecture import searching
    from xaicli.collectors.named import CollectorOptions
    from xaicli.collectors.session import collect_run

    with searching(loading.pythonpath or ()):  # what forward, the data and the collectors import when they run, too
        result = collect_run(
            run_dir,
            Opening(
                **loading.arguments(),
                mode=mode,
                ds_id=ds_id,
                strict=strict,
            ),
            model=model,
            collectors=collectors,
            options=CollectorOptions(
                label_names=tuple(label_names or ()),
                layers=tuple(layers or ()),
                reshape=reshape,
                reduction=None if reduction == "none" else reduction,
                components=components,
                probs=probs,
                iou_threshold=iou,
                task=task,
            ),
            split=split,
            epoch=int(epoch[0]) if epoch else None,
            batch_size=batch_size,
            workers=workers,
            device=device,
            precision=precision,  # type: ignore[arg-type]
            aggregates=not no_aggregates,
            progress=partial(doing, "samples"),
            typed=typed(),
        )
    write(result, output, folder=open_run(result.answer.run).layout.reports)


@command
def embeddings(
    run_dir: RunDir = None,
    table: Annotated[str, typer.Option(help="The table they were collected into.")] = "metrics",
    column: Annotated[
        list[str] | None,
        typer.Option(
            callback=split_commas, show_default=False, help="Columns of vectors [default: the reduced ones, else all]."
        ),
    ] = None,
    colour: Annotated[
        str | None,
        typer.Option(show_default=False, help="The column or fact that colours the points [default: the label]."),
    ] = None,
    epoch: Annotated[
        list[str] | None,
        typer.Option(metavar="N", callback=split_epoch, show_default=False, help="That epoch [default: the last]."),
    ] = None,
    split: Annotated[str | None, typer.Option(show_default=False, help="That split [default: all].")] = None,
    facts: FactsOption = None,
    no_facts: NoFacts = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on a damaged file instead of leaving it out.")] = False,
    *,
    output: Output,
) -> None:
    """Collected embeddings as a picture, coloured by a label, a metric or a fact.

    Example: xai embeddings runs/demo --colour loss
    """
    from xaicli.api import open_run

    run = open_run(run_dir)
    result = run.embeddings(
        table=table,
        column=column,
        colour=colour,
        epoch=int(epoch[0]) if epoch else None,
        split=split,
        facts=facts,
        no_facts=no_facts,
        strict=strict,
    )
    write(result, output, always=REPORT_FORMATS)
