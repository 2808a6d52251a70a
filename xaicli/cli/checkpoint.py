"""`xai checkpoint`: look into a checkpoint, or convert it, without running its code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from xaicli.cli.options import Debug, Json, Quiet, local_path, split_commas
from xaicli.cli.output import noted
from xaicli.cli.status import status_line
from xaicli.errors import UsageError


class _Commands(TyperGroup):
    """A file in place of a command is told which command it wants."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise UsageError(
                f"xai checkpoint has no command {args[0]!r}",
                hint=f"xai checkpoint inspect {args[0]}; commands: {', '.join(self.commands)}",
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Commands,
    help="Inspect or convert a checkpoint safely.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

CheckpointFile = Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="The checkpoint.")]


@app.command()
def inspect(file: CheckpointFile, json: Json = False, debug: Debug = False) -> None:
    """What a checkpoint is and holds, and what loading it would run. Runs nothing of it.

    Example: xai checkpoint inspect runs/demo/checkpoints/ckpt.pt
    """
    del debug
    from xaicli.api.checkpoints import inspect

    result = inspect(file)
    if json:
        print(result.to_json())
    else:
        result.show_terminal()


@app.command()
def convert(
    file: CheckpointFile,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", callback=local_path, metavar="FILE", help="The file to write.", show_default=False
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="safetensors (weights), pt2 (exported graph), or pt (graph, weights and facts) "
            "[default: by the output's suffix, else safetensors].",
            show_default=False,
        ),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FACTORY", help="What builds the model, where the file holds weights only."),
    ] = None,
    arch_args: Annotated[str | None, typer.Option(metavar="JSON", help="Its keyword arguments.")] = None,
    weights: Annotated[str | None, typer.Option(metavar="KEY", help="Which weights to take, ema say.")] = None,
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N,N,...",
            help="For a graph: the shape of one sample (repeat for several inputs).",
            show_default=False,
        ),
    ] = None,
    input_dtype: Annotated[
        list[str] | None, typer.Option(callback=split_commas, help="The dtype of each input [default: float32].")
    ] = None,
    label_names: Annotated[
        list[str] | None, typer.Option(callback=split_commas, metavar="LIST", help="The names of the outputs.")
    ] = None,
    trust_checkpoint: Annotated[
        bool, typer.Option("--trust-checkpoint", help="Run the file's own code where that is the only way to read it.")
    ] = False,
    pythonpath: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder to import from (repeat).", show_default=False)
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a checkpoint as safetensors, as an exported graph, or as a checkpoint of xai: files that cannot run code.

    Example: xai checkpoint convert model.ckpt -o model.pt2 --arch mypackage.models:resnet --input-shape 3,224,224
    """
    del debug
    shapes = [_shape(text) for text in input_shape or ()]
    import polars as pl

    from xaicli.answer import Answer, Counts
    from xaicli.checkpoint.save import convert_checkpoint
    from xaicli.render.machine import to_json
    from xaicli.render.text import printable

    with status_line("reading the checkpoint", shown=not quiet, at_once=True), noted() as notes:
        written = convert_checkpoint(
            file,
            output,
            to=to,
            arch=arch,
            arch_args=arch_args,
            weights=weights,
            input_shape=shapes,
            input_dtype=input_dtype,
            label_names=label_names,
            trust=trust_checkpoint,
            pythonpath=pythonpath or (),
        )
    if json:
        answer = Answer(
            "checkpoint convert", "", {"file": str(file)}, pl.DataFrame(), Counts(rows=0), warnings=tuple(notes)
        )
        print(to_json(answer, [str(written)]))
    else:
        print(printable(str(written) if quiet else f"wrote {written}"))


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(",") if part.strip())
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UsageError(
            f"--input-shape {text!r} is no shape", hint="one sample without the batch, for example 3,224,224"
        )
    return shape
