"""`xai demo`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Debug, NoProgress
from xaicli.errors import UsageError, XaiError

_DEFAULT = Path("runs/demo")


@command
def demo(
    run_dir: Annotated[Path, typer.Argument(metavar="DIR", help="The run directory to make.")] = _DEFAULT,
    task: Annotated[
        str,
        typer.Option(
            help="What is trained: classification of digits, or regression, multilabel, sequence, boxes: a small "
            "training of each kind with facts and planted mistakes."
        ),
    ] = "classification",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training digits.")] = 12,
    seed: Annotated[int, typer.Option(help="For the flips, the weights and the order of the samples.")] = 0,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Train a small CNN on real digits, 5 % of the labels flipped, and write all three reports.

    No network; under a minute on two cores. Example: xai demo --task regression
    """
    del debug
    if task != "classification":
        _other_task(task, run_dir, epochs, seed, show_progress=not no_progress)
        return
    _refuse_full(run_dir)
    typer.echo("Training a small CNN on 1,797 handwritten digits; 5 % of the labels are flipped on purpose.", err=True)
    _train(run_dir, epochs, seed, show_progress=not no_progress)
    for line in _reports(run_dir):
        typer.echo(f"\n$ xai {shlex.join(line)}", err=True)
        _run([*line, *(["--no-progress"] if no_progress else [])])


def _refuse_full(run_dir: Path) -> None:
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise XaiError(f"{run_dir} is not empty", hint="name another folder, one that is empty or does not exist yet")


def _other_task(task: str, run_dir: Path, epochs: int, seed: int, *, show_progress: bool) -> None:
    """Train one of the tasks beyond one label a sample, and show what its errors are."""
    from rich.console import Console
    from rich.progress import Progress

    from xaicli.demo_tasks import TASKS, record_task

    if task not in TASKS:
        raise UsageError(f"--task {task!r} has no demo", hint="choose from: classification, " + ", ".join(TASKS))
    if run_dir == _DEFAULT:
        run_dir = _DEFAULT.with_name(f"demo-{task}")
    _refuse_full(run_dir)
    console = Console(stderr=True)
    with Progress(console=console, disable=not (show_progress and console.is_terminal), transient=True) as progress:
        bar = progress.add_task("training", total=epochs)
        planted = record_task(
            task, run_dir, epochs=epochs, seed=seed, on_epoch=lambda done, _: progress.update(bar, completed=done)
        )
    typer.echo(f"Recorded {run_dir}: {planted} labels are wrong on purpose; the fact mistake says which.", err=True)
    pages = [["errors", str(run_dir), "--format", "html"]]
    pages += [["track-report", str(run_dir)]] if task != "boxes" else []
    for line in pages:
        typer.echo(f"\n$ xai {shlex.join(line)}", err=True)
        _run([*line, *([] if show_progress else ["--no-progress"])])


def _train(run_dir: Path, epochs: int, seed: int, *, show_progress: bool) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from xaicli.demo import record

    console = Console(stderr=True)
    with Progress(console=console, disable=not (show_progress and console.is_terminal), transient=True) as progress:
        task = progress.add_task("training", total=epochs)
        digits = record(
            run_dir, epochs=epochs, seed=seed, on_epoch=lambda done, _: progress.update(task, completed=done)
        )
    flipped = digits.sample_id[digits.flipped]
    typer.echo(f"Recorded {run_dir}: {len(flipped)} labels were flipped, among them {flipped[:5].tolist()}.", err=True)


def _reports(run_dir: Path) -> list[list[str]]:
    run = str(run_dir)
    return [
        ["track-report", run],
        ["labels", run, "--bounds", "std,range"],
        ["saliency", run, "--model", "ckpt.pt", "--samples", "16", "--pick", "worst"],
    ]


def _run(line: list[str]) -> None:
    from xaicli.cli import main

    if status := main(line):
        raise typer.Exit(status)
