"""`xai checkpoint`: look into a checkpoint, or convert it, without running its code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xaicli.cli.options import split_commas
from xaicli.errors import UsageError
from xaicli.vocabulary import SCHEMA_VERSION

if TYPE_CHECKING:
    from xaicli.checkpoint.inspection import Inspection
    from xaicli.report.model import Report

app = typer.Typer(
    help="Inspect or convert a checkpoint safely.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)

CheckpointFile = Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="The checkpoint.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print written paths only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


@app.command()
def inspect(file: CheckpointFile, json: Json = False, debug: Debug = False) -> None:
    """What a checkpoint is and holds, and what loading it would run. Runs nothing of it.

    Example: xai checkpoint inspect runs/demo/checkpoints/ckpt.pt
    """
    del debug
    from xaicli.checkpoint.inspection import inspect_checkpoint

    found = inspect_checkpoint(file)
    if json:
        print(_as_json(found))
        return
    from xaicli.render.terminal import show

    show(_report(found))


@app.command()
def convert(
    file: CheckpointFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The file to write.", show_default=False)
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
    from xaicli.checkpoint.convert import convert_checkpoint

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
        print(_object("checkpoint convert", {"file": str(file)}, outputs=[str(written)]))
    else:
        from xaicli.render.text import printable

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


def _object(
    command: str, selection: dict[str, Any], *, outputs: Sequence[str] = (), rows: Sequence[Any] = (), **more: Any
) -> str:
    head = {"schema_version": SCHEMA_VERSION, "command": command, "run": None, "selection": selection, "warnings": []}
    return json.dumps({**head, "outputs": list(outputs), "counts": {"rows": len(rows)}, **more, "rows": list(rows)})


def _as_json(found: Inspection) -> str:
    facts = found.facts
    described = {
        name: getattr(facts, name)
        for name in facts.__dataclass_fields__
        if name not in ("path", "kind") and getattr(facts, name) is not None
    }
    more = {
        "kind": facts.kind,
        "bytes": found.n_bytes,
        "loads": found.verdict,
        "refusal": found.refusal,
        "runs": found.runs,
        "weights": found.weight_sets,
        "operators": found.operators,
        **described,
    }
    rows = [{"name": t.name, "dtype": t.dtype, "shape": t.shape, "bytes": t.n_bytes} for t in found.tensors]
    return _object("checkpoint inspect", {"file": str(facts.path)}, rows=rows, checkpoint=more)


def _report(found: Inspection) -> Report:
    from xaicli.report.charts import Tone
    from xaicli.report.model import Cell, Column, Report, Section, Table, Text

    facts = found.facts
    columns = (Column("tensor"), Column("dtype"), Column("shape"), Column("bytes", Cell.INTEGER))
    rows = tuple((t.name, t.dtype, " x ".join(map(str, t.shape)) or "one value", t.n_bytes) for t in found.tensors)
    total = sum(tensor.n_bytes for tensor in found.tensors)
    lines = [Text(f"{name}: {value}") for name, value in _described(found)]
    if found.refusal:
        lines.append(Text(f"refused: it holds {found.refusal}", Tone.BAD))
    lines += [Text(f"would run: {thing}", Tone.BAD) for thing in found.runs[:20]]
    if not found.runs and not found.refusal:
        lines.append(Text("would run: nothing of its own", Tone.GOOD))
    table = Table("tensors", f"{len(rows)} tensors, {total:,} bytes", columns, rows)
    sections = [Section("What it is", "facts", tuple(lines))]
    if rows:
        sections.append(Section("Tensors", "tensors", (table,)))
    return Report(
        name="checkpoint",
        title=f"{facts.path.name}: {_KINDS[facts.kind]}",
        run_line=f"{found.n_bytes:,} bytes, sha256 {facts.sha256}",
        sentence=f"It loads {found.verdict}.",
        sections=tuple(sections),
        made=(),
    )


_KINDS = {
    "xai": "a checkpoint of xai",
    "state_dict": "a state dict",
    "training_dict": "a training script's checkpoint",
    "lightning": "a Lightning checkpoint",
    "safetensors": "safetensors",
    "hugging_face": "a Hugging Face folder",
    "exported": "an exported graph",
    "torchscript": "TorchScript",
    "pickled_module": "a pickle",
}


def _described(found: Inspection) -> Iterator[tuple[str, str]]:
    facts = found.facts
    names, shapes, dtypes = facts.input_names or (), facts.input_shapes or (), facts.input_dtypes or ()
    for position, shape in enumerate(shapes):
        name = names[position] if position < len(names) else str(position + 1)
        dtype = dtypes[position] if position < len(dtypes) else ""
        yield f"input {name}", f"{' x '.join(map(str, shape))} {dtype}".strip()
    if facts.static_batch is not None:
        yield "batches", f"of {facts.static_batch} only"
    if facts.label_names:
        more = f" and {len(facts.label_names) - 8} more" if len(facts.label_names) > 8 else ""
        yield "labels", ", ".join(facts.label_names[:8]) + more
    for name in ("epoch", "step", "input_range", "mean", "std", "arch"):
        if (value := getattr(facts, name)) is not None:
            yield name.replace("_", " "), str(value)
    if len(found.weight_sets) > 1:
        yield "weights", ", ".join(found.weight_sets)
    if found.operators:
        n_kinds = len(found.operators)
        yield "graph", f"{sum(found.operators.values())} operations of {n_kinds} kinds, all of them torch's own"
    for note in facts.notes:
        yield "note", note
