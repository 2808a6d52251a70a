"""Everything there is to know about a run, asked once: the parts of the track report, and the samples it shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import polars as pl

from xaicli.answer import Answer
from xaicli.dynamics.computed import Statistics, compute
from xaicli.dynamics.jumps import rank_jumps
from xaicli.dynamics.label_issues import label_issues
from xaicli.dynamics.statistics import dynamics
from xaicli.dynamics.suspects import suspects
from xaicli.dynamics.truth import score_rankings
from xaicli.errors import XaiError
from xaicli.queries.labels import labels, parse_bounds
from xaicli.queries.media import Thumbnail, thumbnails
from xaicli.queries.scalars import run_frame
from xaicli.queries.selection import Pair, Selection
from xaicli.reader import Place, Reader
from xaicli.report.charts import Image
from xaicli.report.gathered import Gathered
from xaicli.report.histories import SampleFacts
from xaicli.vocabulary import PREDICTION, SAMPLE_ID

T = TypeVar("T")
_SUSPECTS = 100
_JUMPS = 10


def gather(
    reader: Reader,
    selection: Selection,
    chosen: Answer,
    *,
    bounds: Sequence[str] | str | None = ("std",),
    truth: str | os.PathLike[str] | None = None,
) -> Gathered:
    """Ask everything; a question that the run cannot answer is left out with a line saying why.

    Args:
        reader: The run.
        selection: Which rows.
        chosen: What `samples` answers.
        bounds: As for `labels`.
        truth: As for `dynamics`.

    Raises:
        UsageError: An option makes no sense.
        XaiError: A truth that cannot be read or does not fit.
    """
    asked_too = {"bounds": list(parse_bounds(bounds)), "truth": None if truth is None else str(truth)}
    absent: dict[str, str] = {}
    faults: list[str] = []

    def asked(part: str, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except XaiError as error:
            absent[part] = error.message
        except Exception as error:
            # The other parts of the page are worth having even when one fails.
            absent[part] = f"{part} could not be computed: {type(error).__name__}: {error}"
            faults.append(absent[part])
        return None

    computed = asked("training dynamics", lambda: compute(reader, selection))
    scored, said = score_rankings(reader, selection, computed, truth) if computed and truth is not None else (None, ())
    faults += said
    by_pass = _of_pass(reader, selection, computed) if computed else {}
    if computed is None:
        absent |= dict.fromkeys(("data map", "suspects", "rank changes"), absent["training dynamics"])
    return Gathered(
        samples=replace(chosen, selection={**chosen.selection, **asked_too}),
        labels=asked("labels", lambda: labels(reader, selection, bounds=bounds)),
        computed=computed,
        **{name: asked(part, question) for name, (part, question) in by_pass.items()},
        label_issues=asked("label issues", lambda: label_issues(reader, selection)),
        scalars=asked("scalars", lambda: run_frame(reader)),
        truth=scored,
        absent=absent,
        faults=tuple(faults),
        drops=tuple(f"{n:,} rows were not recorded: {reason}" for reason, n in reader.drops.items()),
    )


def _of_pass(reader: Reader, selection: Selection, computed: Statistics) -> dict[str, tuple[str, Callable[[], Answer]]]:
    """The questions that one pass over the epochs answers: {field of `Gathered`: (what it is called, question)}."""
    return {
        "dynamics": ("data map", lambda: dynamics(reader, selection, computed=computed)),
        "suspects": ("suspects", lambda: suspects(reader, selection, computed, top=_SUSPECTS)),
        "jumps": ("rank changes", lambda: rank_jumps(reader, selection, computed, top=_JUMPS)),
    }


def sample_facts(reader: Reader, answers: Iterable[Answer]) -> tuple[SampleFacts, list[str]]:
    """Thumbnails and last predictions of the samples that a report shows, and warnings.

    Args:
        reader: The run.
        answers: What is shown: answers whose rows are samples.
    """
    shown: dict[Pair, set[Any]] = {}
    for answer in answers:
        known = answer.data.select("mode", "ds_id", SAMPLE_ID).drop_nulls()
        for mode, ds_id, sample_id in known.iter_rows():
            shown.setdefault((mode, ds_id), set()).add(sample_id)
    pictures, warnings = thumbnails(reader, {sample_id for ids in shown.values() for sample_id in ids})
    return SampleFacts(_images(pictures), _predictions(reader, shown)), warnings


def _images(pictures: Mapping[tuple[str, str, Any], Thumbnail]) -> dict[Any, Image]:
    """Thumbnails as pictures of a report, by (mode, ds_id, sample_id) and by sample id alone."""
    found: dict[Any, Image] = {}
    for (mode, ds_id, sample_id), picture in pictures.items():
        image = Image(picture.width, picture.height, picture.channels, picture.pixels, f"sample {sample_id}")
        found[mode, ds_id, sample_id] = found[sample_id] = image
    return found


def _predictions(reader: Reader, shown: Mapping[Pair, set[Any]]) -> dict[tuple[str, str, Any], Any]:
    """The predictions of the last epoch."""
    found: dict[tuple[str, str, Any], Any] = {}
    if PREDICTION not in reader.dtypes:
        return found
    for pair, ids in shown.items():
        epochs = reader.epochs(*pair)
        if not epochs:
            continue
        frame, _ = reader.frame(Place(*pair, epochs[-1]), [SAMPLE_ID, PREDICTION])
        chosen = frame.filter(pl.col(SAMPLE_ID).is_in(list(ids)) & pl.col(PREDICTION).is_not_null())
        found |= {(*pair, sample_id): prediction for sample_id, prediction in chosen.iter_rows()}
    return found
