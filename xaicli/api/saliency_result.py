"""Saliency maps as a result that shows and saves itself."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from typing import TYPE_CHECKING, Any

from xaicli.answer import Answer, Counts
from xaicli.attribution.settings import DOUBLINGS
from xaicli.results import Result
from xaicli.vocabulary import Format

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from xaicli.attribution.explanation import Explanation, Saliency, SanityStep, Trust
    from xaicli.reader import Reader
    from xaicli.report.model import Report
    from xaicli.report.page import RunFacts

    ByInput = npt.NDArray[Any] | dict[str, npt.NDArray[Any]]


class SaliencyResult(Result):
    """Saliency maps with their trust figures; saves pictures, the page, the JSON and, with CSV or JSON, `maps.npz`.

    The rows of every array are the rows of `.data`: one per (sample, output, target, checkpoint).

    Args:
        saliency: The answer.
        run: The run or checkpoint as the user named it.
        facts: The run, where there is one.
        asked: Options of the command line that say how model and data were opened.
        known: What knows what the samples are.
    """

    def __init__(
        self,
        saliency: Saliency,
        *,
        run: str = "",
        facts: RunFacts | None = None,
        asked: Mapping[str, Any] | None = None,
        known: Reader | None = None,
    ) -> None:
        self.saliency = saliency
        answer = _answer(saliency, run, asked or {})
        if known is not None:
            from xaicli.queries.names import with_facts

            answer = with_facts(answer, known)

        def build() -> Report:
            from xaicli.report.saliency import saliency_report

            return saliency_report(answer, saliency, facts)

        super().__init__(answer, build)

    @property
    def maps(self) -> dict[str, ByInput]:
        """{method: float32 (N, H, W) in [0, 1]}; with several inputs {method: {input: (N, H, W)}}."""
        return self._by_input(self.saliency.maps)

    @property
    def attributions(self) -> dict[str, ByInput]:
        """{method: signed, the inputs' shape}; with several inputs {method: {input: array}}."""
        return self._by_input(self.saliency.attributions)

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """(N,), the output index explained; -1 for a function of the outputs."""
        import numpy as np

        return np.array([e.target for e in self.saliency.explanations], dtype=np.int64)

    @property
    def predictions(self) -> npt.NDArray[Any]:
        """(N,), the most probable class, -1 where there is none; the values of a regression as float64."""
        import numpy as np

        found = [e.prediction for e in self.saliency.explanations]
        if any(isinstance(value, float) for value in found):
            return np.array([np.nan if value is None else value for value in found], dtype=np.float64)
        return np.array([-1 if value is None else value for value in found], dtype=np.int64)

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

    def _by_input(self, found: Mapping[str, Mapping[str, Any]]) -> dict[str, ByInput]:
        return {m: next(iter(by.values())) if len(by) == 1 else dict(by) for m, by in found.items()}

    def _trust(self, figure: str) -> dict[str, npt.NDArray[np.float64]]:
        import numpy as np

        return {
            method: np.array([getattr(e.trust[method], figure) for e in self.saliency.explanations], dtype=np.float64)
            for method in self.saliency.methods
        }

    def _files(self, wanted: Set[Format], no_images: bool, each: bool) -> Iterator[tuple[str, bytes]]:
        from xaicli.attribution.store import maps_archive, npz_bytes

        yield from super()._files(wanted, no_images, each)
        if wanted & {Format.CSV, Format.JSON}:  # the numbers of the maps, where numbers are asked for
            yield "maps.npz", npz_bytes(maps_archive(self.saliency))

    def _due(self, wanted: Set[Format], no_images: bool, each: bool) -> list[str]:
        numbers = ["maps.npz"] if wanted & {Format.CSV, Format.JSON} else []
        return [*super()._due(wanted, no_images, each), *numbers]


def _answer(saliency: Saliency, run: str, asked: Mapping[str, Any]) -> Answer:
    import polars as pl

    rows = [_row(e, saliency) for e in saliency.explanations]
    broken = [e for e in saliency.explanations if e.prediction is None and e.target >= 0]
    ids = list(dict.fromkeys(" ".join(filter(None, (str(e.sample_id), e.place))) for e in broken))
    shown = ", ".join(ids[:5]) + (", ..." if len(ids) > 5 else "")
    said = [f"{len(ids)} samples have no prediction, since the model answers them with NaN: {shown}"] if ids else []
    said += _not_settled(saliency)
    extra: dict[str, Any] = {}
    if len(saliency.checkpoints) > 1:
        told = ({k: v for k, v in vars(change).items() if k != "output" or v} for change in saliency.changes)
        extra["changes"] = [_placed(change.pop("mode"), change.pop("ds_id")) | change for change in told]
    if saliency.sanity:
        extra["sanity"] = [_step(step, saliency) for step in saliency.sanity]
    return Answer(
        command="saliency",
        run=run,
        selection={
            "model": [c.path or c.name for c in saliency.checkpoints],
            "ids": list(dict.fromkeys(e.sample_id for e in saliency.explanations)),
            **asked,
            **_of_one_place(saliency),
            **saliency.settings,
        },
        data=pl.DataFrame(rows, infer_schema_length=None),
        counts=Counts(rows=len(rows), non_finite=len(broken)),
        warnings=(*saliency.notes, *said, *saliency.skipped),
        extra=extra,
    )


def _row(e: Explanation, saliency: Saliency) -> dict[str, Any]:
    row: dict[str, Any] = {
        **_placed(e.mode, e.ds_id),
        "sample_id": e.sample_id,
        "label": e.label,
        "target": e.target,
        "prediction": e.prediction,
        "label_prob": e.label_prob,
        "top_prob": e.top_prob,
        "methods": {m: _figures(t, saliency) for m, t in e.trust.items()},
    }
    if saliency.settings.get("tolerance") is not None:
        row["evaluations"] = e.evaluations
    if len(saliency.checkpoints) > 1:
        row["checkpoint"] = saliency.checkpoints[e.checkpoint].name
    if e.output:
        row["output"] = e.output
    return row


def _step(step: SanityStep, saliency: Saliency) -> dict[str, Any]:
    told: dict[str, Any] = {"layer": step.layer, "similarity": dict(step.similarity), "is_used": step.is_used}
    told |= {"checkpoint": saliency.checkpoints[step.checkpoint].name} if len(saliency.checkpoints) > 1 else {}
    return told | ({"output": step.output} if step.output else {})


def _placed(mode: str | None, ds_id: str | None) -> dict[str, str]:
    """Which sample of that id it is, where that is known."""
    return {} if mode is None else {"mode": mode, "ds_id": ds_id or ""}


def _of_one_place(saliency: Saliency) -> dict[str, Any]:
    """The mode and data set, where all samples are of one: by them and the ids the same ones are asked for again."""
    if len(saliency.places) != 1 or not any(saliency.places[0]):
        return {}
    mode, ds_id = saliency.places[0]
    return {"mode": mode, "ds_id": [ds_id]}


def _figures(trust: Trust, saliency: Saliency) -> Mapping[str, Any]:
    figures = {"delta": trust.delta, "agreement": trust.agreement, "flat": trust.flat, **trust.quality}
    if saliency.settings.get("tolerance") is None:
        return figures
    return {**figures, "draws": trust.draws, "steps": trust.steps, "settled": trust.settled}


def _not_settled(saliency: Saliency) -> list[str]:
    """How many samples a tolerance did not bring to rest, and what would."""
    left = [(e.key, m) for e in saliency.explanations for m, trust in e.trust.items() if trust.settled is False]
    if not left:
        return []
    of_method = Counter(m for _, m in left)
    by_method = ", ".join(f"{method} {of_method[method]:,}" for method in saliency.methods if of_method[method])
    is_budget = saliency.settings.get("evaluations") is not None
    more = "--evaluations N" if is_budget else "--smoothing N and --integrating STEPS,DRAWS"
    return [
        f"{len({key for key, _ in left}):,} of {len({e.key for e in saliency.explanations}):,} samples have maps that "
        f"did not settle within the tolerance of {saliency.settings['tolerance']:g} ({by_method} maps) after "
        f"{DOUBLINGS} doublings of steps or draws, the most there are: begin with more by {more}, or give a larger "
        "--tolerance"
    ]
