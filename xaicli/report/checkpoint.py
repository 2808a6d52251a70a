"""The report of an inspected checkpoint: what it is, what loading it would run, its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from xaicli.report.charts import Tone
from xaicli.report.model import Cell, Column, Report, Section, Table, Text

if TYPE_CHECKING:
    from xaicli.checkpoint.inspection import Inspection

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


def checkpoint_report(found: Inspection) -> Report:
    """The page of `xai checkpoint inspect`.

    Args:
        found: What the inspection found, without running any of it.
    """
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
    for name in ("task", "epoch", "step", "input_range", "mean", "std", "arch"):
        if (value := getattr(facts, name)) is not None:
            yield name.replace("_", " "), str(value)
    if len(found.weight_sets) > 1:
        yield "weights", ", ".join(found.weight_sets)
    if found.operators:
        n_kinds = len(found.operators)
        yield "graph", f"{sum(found.operators.values())} operations of {n_kinds} kinds, all of them torch's own"
    for note in facts.notes:
        yield "note", note
