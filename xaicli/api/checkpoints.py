"""Questions about a checkpoint, answered without running its code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli.answer import Answer, Counts
from xaicli.results import Result

if TYPE_CHECKING:
    from xaicli.checkpoint.facts import CheckpointFacts
    from xaicli.report.model import Report


def inspect(file: str | os.PathLike[str]) -> Result:
    """What a checkpoint is and holds, and what loading it would run.

    Args:
        file: The checkpoint, of any kind.

    Returns:
        One row per tensor: name, dtype, shape, bytes; under `checkpoint` in the JSON the rest.

    Raises:
        XaiError: There is no such file, or it cannot be read at all.
    """
    import polars as pl

    from xaicli.checkpoint.inspection import inspect_checkpoint

    found = inspect_checkpoint(Path(file))
    tensors = [(tensor.name, tensor.dtype, list(tensor.shape), tensor.n_bytes) for tensor in found.tensors]
    schema: Any = {"name": pl.String(), "dtype": pl.String(), "shape": pl.List(pl.Int64()), "bytes": pl.Int64()}
    described = {
        "kind": found.facts.kind,
        "bytes": found.n_bytes,
        "loads": found.verdict,
        "refusal": found.refusal,
        "runs": found.runs,
        "weights": found.weight_sets,
        "operators": found.operators,
        **_known(found.facts),
    }
    answer = Answer(
        command="checkpoint inspect",
        run="",
        selection={"file": str(found.facts.path)},
        data=pl.DataFrame(tensors, schema=schema, orient="row"),
        counts=Counts(rows=len(tensors)),
        extra={"checkpoint": described},
    )

    def build() -> Report:
        from xaicli.report.info import checkpoint_report

        return checkpoint_report(found)

    return Result(answer, build)


def _known(facts: CheckpointFacts) -> dict[str, Any]:
    """What a checkpoint says of itself, as far as it does."""
    values = {name: getattr(facts, name) for name in facts.__dataclass_fields__ if name not in ("path", "kind")}
    return {name: value for name, value in values.items() if value is not None}
