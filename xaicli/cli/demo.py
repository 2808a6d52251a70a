"""`xai demo`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from xaicli.cli.command import command
from xaicli.cli.options import Debug, NoProgress, Quiet
from xaicli.errors import UsageError, XaiError, leaving

_DEFAULT = Path("runs/demo")
_INTERRUPTED = 130


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
    quiet: Quiet = False,
    no_progress: NoProgress = False,
    debug: Debug = False,
) -> None:
    """Train a small CNN on real digits, 5 % of the labels flipped, and write all three reports.

    No network; under a minute on two cores. Example: xai demo --task regression
    """
    del debug
    if task == "classification":
        begun = "Training a small CNN on 1,797 handwritten digits; 5 % of the labels are flipped on purpose."
        train, lines = _train, _reports(run_dir)
    else:
        _check_other(task)
        run_dir = _DEFAULT.with_name(f"demo-{task}") if run_dir == _DEFAULT else run_dir
        begun, train, lines = f"Training for {task}.", partial(_train_other, task), _reports_of_other(task, run_dir)
    if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise XaiError(f"{run_dir} is not empty", hint="name another folder, one that is empty or does not exist yet")
    _say(begun, quiet)
    said = train(run_dir, epochs, seed, show_progress=not (no_progress or quiet))
    _say(f"Recorded {run_dir}: {said}", quiet)
    plain = [*(["--no-progress"] if no_progress else []), *(["--quiet"] if quiet else [])]
    for number, line in enumerate(lines):
        _say(f"\n$ xai {shlex.join(line)}", quiet)
        with leaving(partial(_left, lines[number:])):
            _run([*line, *plain])


def _left(lines: list[list[str]]) -> str:
    """What an interrupted demo leaves once it is trained."""
    return "the run is whole; what is left: " + "; ".join(f"xai {shlex.join(line)}" for line in lines)


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        typer.echo(line, err=True)


def _check_other(task: str) -> None:
    from xaicli.demo_tasks import TASKS

    if task not in TASKS:
        raise UsageError(f"--task {task!r} has no demo", hint="choose from: classification, " + ", ".join(TASKS))


@contextmanager
def _training(run_dir: Path, epochs: int, *, show_progress: bool) -> Iterator[Callable[[int, int], None]]:
    """What takes the epochs that are done, and shows them."""
    from rich.progress import Progress

    from xaicli.render.terminal import console

    done = 0
    screen = console(stderr=True)
    with (
        leaving(
            lambda: (
                f"{done} of {epochs} epochs are recorded in {run_dir}, no report is written; "
                "xai demo begins in an empty folder"
            )
        ),
        Progress(console=screen, disable=not (show_progress and screen.is_terminal), transient=True) as progress,
    ):
        bar = progress.add_task("training", total=epochs)

        def took(epoch: int, _: int) -> None:
            nonlocal done
            done = epoch
            progress.update(bar, completed=epoch)

        yield took


def _train_other(task: str, run_dir: Path, epochs: int, seed: int, *, show_progress: bool) -> str:
    """Train one of the tasks beyond one label a sample; what was planted, in words."""
    from xaicli.demo_tasks import record_task

    with _training(run_dir, epochs, show_progress=show_progress) as took:
        planted = record_task(task, run_dir, epochs=epochs, seed=seed, on_epoch=took)
    return f"{planted} labels are wrong on purpose; the fact mistake says which."


def _reports_of_other(task: str, run_dir: Path) -> list[list[str]]:
    pages = [["errors", str(run_dir), "--format", "html"]]
    return [*pages, *([["track-report", str(run_dir)]] if task != "boxes" else [])]


def _train(run_dir: Path, epochs: int, seed: int, *, show_progress: bool) -> str:
    """Train on the digits; what was flipped, in words."""
    from xaicli.demo import record

    with _training(run_dir, epochs, show_progress=show_progress) as took:
        digits = record(run_dir, epochs=epochs, seed=seed, on_epoch=took)
    flipped = digits.sample_id[digits.flipped]
    return f"{len(flipped)} labels were flipped, among them {flipped[:5].tolist()}."


def _reports(run_dir: Path) -> list[list[str]]:
    run = str(run_dir)
    return [
        ["track-report", run],
        ["labels", run, "--bounds", "std,range"],
        ["saliency", run, "--model", "ckpt.pt", "--samples", "16", "--pick", "worst"],
    ]


def _run(line: list[str]) -> None:
    from xaicli.cli import main

    if (status := main(line)) == _INTERRUPTED:
        raise KeyboardInterrupt
    if status:
        raise typer.Exit(status)
