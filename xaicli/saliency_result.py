"""Saliency from Python: `xaicli.saliency(model, inputs)` and the result that shows and saves itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xaicli.answer import Answer, Counts
from xaicli.errors import UsageError
from xaicli.results import Result
from xaicli.vocabulary import Format

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from xaicli.attribution.explanation import Explanation, Saliency
    from xaicli.report.facts import RunFacts
    from xaicli.report.model import Report

    ByInput = npt.NDArray[Any] | dict[str, npt.NDArray[Any]]


class SaliencyResult(Result):
    """Saliency maps with their trust figures; saves pictures, the page, the JSON and `maps.npz`.

    The rows of every array are the rows of `.data`: one per (sample, output, target, checkpoint).

    Args:
        saliency: The answer.
        run: The run or checkpoint as the user named it.
        facts: The run, where there is one.
    """

    def __init__(self, saliency: Saliency, *, run: str = "", facts: RunFacts | None = None) -> None:
        self.saliency = saliency
        answer = _answer(saliency, run)

        def build() -> Report:
            from xaicli.report.saliency import saliency_report

            return saliency_report(answer, saliency, facts)

        super().__init__(answer, build)

    @property
    def maps(self) -> dict[str, ByInput]:
        """{method: float32 (N, H, W) in [0, 1]}; with several inputs {method: {input: (N, H, W)}}."""
        return self._stacked("values")

    @property
    def attributions(self) -> dict[str, ByInput]:
        """{method: signed, the inputs' shape}; with several inputs {method: {input: array}}."""
        return self._stacked("attribution")

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """(N,), the output index explained; -1 for a function of the outputs."""
        import numpy as np

        return np.array([e.target for e in self.saliency.explanations], dtype=np.int64)

    @property
    def predictions(self) -> npt.NDArray[np.int64]:
        """(N,), the most probable class."""
        import numpy as np

        return np.array(
            [-1 if e.prediction is None else e.prediction for e in self.saliency.explanations], dtype=np.int64
        )

    @property
    def delta(self) -> dict[str, npt.NDArray[np.float64]]:
        """{method: (N,)}, relative completeness error; NaN for methods that promise none."""
        return self._trust("delta")

    @property
    def agreement(self) -> dict[str, npt.NDArray[np.float64]]:
        """{method: (N,)}, rank correlation of two halves of the draws; NaN where there is one draw."""
        return self._trust("agreement")

    @property
    def flat(self) -> dict[str, npt.NDArray[np.bool_]]:
        """{method: (N,)}, maps without contrast: all zero."""
        import numpy as np

        return {m: np.array([e.trust[m].flat for e in self.saliency.explanations]) for m in self.saliency.methods}

    def save_maps(self, path: str | os.PathLike[str]) -> None:
        """Write `maps.npz` alone."""
        from pathlib import Path

        from xaicli.attribution.store import maps_archive, write_npz

        write_npz(Path(path), maps_archive(self.saliency))

    def _stacked(self, part: str) -> dict[str, ByInput]:
        import numpy as np

        rows = self.saliency.explanations
        found: dict[str, ByInput] = {}
        for method in self.saliency.methods:
            by_input = {
                m.input: np.stack([getattr(e.map_of(method, m.input), part) for e in rows])
                for m in rows[0].maps
                if m.method == method
            }
            found[method] = next(iter(by_input.values())) if len(by_input) == 1 else by_input
        return found

    def _trust(self, figure: str) -> dict[str, npt.NDArray[np.float64]]:
        import numpy as np

        return {
            method: np.array([getattr(e.trust[method], figure) for e in self.saliency.explanations], dtype=np.float64)
            for method in self.saliency.methods
        }

    def _files(self, wanted: set[Format], no_images: bool) -> Iterator[tuple[str, bytes]]:
        from xaicli.attribution.store import maps_archive, npz_bytes

        yield from super()._files(wanted, no_images)
        yield "maps.npz", npz_bytes(maps_archive(self.saliency))


def saliency(
    model: nn.Module,
    inputs: Any,
    *,
    target: Any = "predicted",
    methods: Sequence[str] | str = ("gradient", "smoothgrad", "integrated", "smint"),
    smoothing: int = 25,
    integrating: int | Sequence[int] = (25, 7),
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
    evaluations: int | None = None,
    evaluate: bool = False,
    sanity: bool = False,
) -> SaliencyResult:
    """What a model looked at: saliency maps of any `nn.Module`, without a run.

    Nothing of the model or the inputs is changed. The same call gives the same maps.

    Args:
        model: Any module, in any mode.
        inputs: An array or tensor (sample, ...); several as a list, a tuple, or a dict by name, in call order.
        target: "predicted", "label", a class name or number, "topK", one number per sample, or a function of the
            model's outputs that returns one number per row.
        methods: Of gradient, smoothgrad, integrated, smint, gradcam.
        smoothing: Terms of smoothgrad; 0 disables it.
        integrating: Steps of integrated and terms of smint; one number leaves smint `smoothing` terms; 0 disables.
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
        tolerance: Add steps and draws per sample until delta and agreement settle.
        evaluations: A budget of gradient evaluations for each sample.
        evaluate: Score the maps: insertion and deletion AUC, infidelity, sensitivity.
        sanity: Compare the maps with those of ever more randomised models.

    Raises:
        XaiError: The model cannot be explained on these inputs; says why in one line.
    """
    from xaicli.attribution.given import as_arrays
    from xaicli.attribution.request import Column, Request
    from xaicli.attribution.session import explain
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
    arrays = as_arrays(inputs)
    n = len(next(iter(arrays.values())))
    for name, values in (("sample_ids", sample_ids), ("labels", labels)):
        if values is not None and len(values) != n:
            raise UsageError(f"{name} holds {len(values)} for {n} samples", hint="one for each sample, in their order")
    outputs = tuple(output) if isinstance(output, (list, tuple)) else (output,)
    request = Request(
        settings=settings,
        target=target,
        outputs=outputs,
        device=str(device),
        label_names=tuple(label_names),
        captum=(captum,) if isinstance(captum, str) else tuple(captum),
        evaluate=evaluate,
        sanity=sanity,
    )
    given = Inputs(
        list(sample_ids if sample_ids is not None else range(n)), arrays, None if labels is None else list(labels)
    )
    return SaliencyResult(explain([Column("", lambda: model)], given, request), run=type(model).__name__)


def _answer(saliency: Saliency, run: str) -> Answer:
    import polars as pl

    rows = [_row(e, saliency) for e in saliency.explanations]
    extra: dict[str, Any] = {}
    if len(saliency.checkpoints) > 1:
        extra["changes"] = [vars(change) for change in saliency.changes]
    if saliency.sanity:
        extra["sanity"] = [{"layer": step.layer, "similarity": dict(step.similarity)} for step in saliency.sanity]
    return Answer(
        command="saliency",
        run=run,
        selection={"model": [c.path or c.name for c in saliency.checkpoints], **saliency.settings},
        data=pl.DataFrame(rows, infer_schema_length=None),
        counts=Counts(rows=len(rows)),
        warnings=(*saliency.notes, *saliency.skipped),
        extra=extra,
    )


def _row(e: Explanation, saliency: Saliency) -> dict[str, Any]:
    row: dict[str, Any] = {
        "sample_id": e.sample_id,
        "label": e.label,
        "target": e.target,
        "prediction": e.prediction,
        "label_prob": e.label_prob,
        "top_prob": e.top_prob,
        "methods": {m: _figures(t) for m, t in e.trust.items()},
    }
    if len(saliency.checkpoints) > 1:
        row["checkpoint"] = saliency.checkpoints[e.checkpoint].name
    if e.output:
        row["output"] = e.output
    return row


def _figures(trust: Any) -> Mapping[str, Any]:
    return {"delta": trust.delta, "agreement": trust.agreement, "flat": trust.flat, **trust.quality}
