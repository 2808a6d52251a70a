"""Everything there is to know about a run, asked once: the parts of the track report, and the samples it shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import polars as pl

from xaicli.answer import Answer
from xaicli.diagnosis.errors import errors
from xaicli.diagnosis.news import Judgements, judgements, training_steps
from xaicli.dynamics.computed import Statistics, compute
from xaicli.dynamics.findings import rank_jumps
from xaicli.dynamics.label_issues import label_issues
from xaicli.dynamics.statistics import dynamics
from xaicli.dynamics.suspects import suspects, without_suspects
from xaicli.dynamics.truth import score_rankings, suggestions
from xaicli.errors import XaiError
from xaicli.queries.labels import labels, parse_bounds
from xaicli.queries.media import SHOWN_SIDE, Thumbnail, picture_file, pictures_of, thumbnails
from xaicli.queries.names import FACTS, facts_by_sample, with_facts, with_names
from xaicli.queries.recorded import LeftOut
from xaicli.queries.rows import walk
from xaicli.queries.scalars import run_frame
from xaicli.queries.selection import Pair, Selection
from xaicli.queries.truth import only_groups
from xaicli.reader import Reader
from xaicli.report.charts import Image
from xaicli.report.facts import local_path
from xaicli.report.page import Page, PredictionKey, RunFacts
from xaicli.report.samples import place_shown
from xaicli.sources.inputs import NOWHERE
from xaicli.sources.pictures import SUFFIXES
from xaicli.vocabulary import OF_ONE_LABEL, PREDICTION, SAMPLE_ID

T = TypeVar("T")
_EVIDENCE = ("sample_id", "score", "reason", "label", "name", "suggested_label", "suggested_name")
_SUSPECTS = 100
_JUMPS = 10
_PAIRS = 20
_MOST_FILES = 100
"""So many pictures of samples are looked for where their facts say."""


@dataclass(frozen=True)
class Gathered:
    """The answers behind a track report; None where the run does not allow one.

    Attributes:
        samples: Histories of the highest, lowest and listed samples.
        computed: The pass over the epochs behind all statistics of dynamics.
        other_scalars: How many scalars do not count.
        truth: How well each ranking finds the truly mislabelled; None where no truth was given.
        judgements: How labels and predictions stand, of each (mode, ds_id).
        steps: What `steps` says of the training.
        suggestions: How often the label suggested for a suspect is the true one.
        absent: {part: why it is missing}.
        faults: Of these, what should not have happened.
        drops: Why how many rows were not recorded.
    """

    samples: Answer
    labels: Answer | None = None
    computed: Statistics | None = None
    dynamics: Answer | None = None
    suspects: Answer | None = None
    label_issues: Answer | None = None
    jumps: Answer | None = None
    errors: Answer | None = None
    objects: Answer | None = None
    scalars: pl.DataFrame | None = None
    other_scalars: LeftOut = field(default_factory=LeftOut)
    truth: Mapping[str, Any] | None = None
    suggestions: Mapping[str, Any] | None = None
    judgements: Sequence[Judgements] = ()
    steps: Answer | None = None
    absent: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()

    @property
    def of_objects(self) -> bool:
        """Whether the run tells of objects in pictures, and has no rows of samples."""
        return self.errors is not None and self.errors.extra.get("task") == "objects"

    @property
    def of_samples(self) -> list[Answer]:
        """The answers whose rows are samples that the page shows."""
        found = (self.samples, self.suspects, self.label_issues, self.jumps)
        return [answer for answer in found if answer is not None]

    @property
    def answer(self) -> Answer:
        """The machine's view: the samples, with suspects, label issues, rank jumps and labels beside them."""
        warnings = list(self.samples.warnings)
        for part in (self.labels, self.dynamics, self.suspects, self.label_issues, self.jumps):
            warnings += part.warnings if part else ()
        warnings += (*self.other_scalars.warnings(), *self.faults, *self.drops)
        extra: dict[str, Any] = {
            "suspects": _evidence(self.suspects),
            "label_issues": _evidence(self.label_issues),
            "rank_jumps": self.jumps.data if self.jumps else [],
            "labels": self.labels.data if self.labels else [],
            "custom_graphs": _graphs(self.scalars),
            "confusions": [_judged(found) for found in self.judgements],
            "spikes": self.steps.extra["spikes"] if self.steps else [],
            "label_noise": self.suspects.extra["label_noise"] if self.suspects else [],
            "n_suspects": self.suspects.extra["n_suspects"] if self.suspects else [],
            "suspected_pairs": self.suspects.extra["suspected_pairs"] if self.suspects else [],
            **({"truth": self.truth} if self.truth is not None else {}),
            **({"suggestions": self.suggestions} if self.suggestions is not None else {}),
        }
        if self.objects is not None:
            found = {name: part if isinstance(part, list) else part.to_dicts() for name, part in _parts(self.objects)}
            extra["objects"] = {"rows": self.objects.data.to_dicts(), **found}
            warnings += self.objects.warnings
        if self.of_objects and self.errors is not None:
            extra = {"errors": self.errors.data, **self.errors.extra, "custom_graphs": extra["custom_graphs"]}
        return replace(
            self.samples,
            command="track-report",
            warnings=tuple(dict.fromkeys(warnings)),
            extra={**self.samples.extra, **extra},
        )


def gather(
    reader: Reader,
    selection: Selection,
    chosen: Answer,
    *,
    bounds: Sequence[str] | str | None = ("std",),
    truth: str | os.PathLike[str] | None = None,
    computed: Statistics | None = None,
    objects: Answer | None = None,
) -> Gathered:
    """Ask everything; a question that the run cannot answer is left out with a line saying why.

    Args:
        reader: The run.
        selection: Which rows.
        chosen: What `samples` answers.
        bounds: As for `labels`.
        truth: As for `dynamics`.
        computed: The pass over the epochs, when it has been made already.
        objects: What `object_errors` answers, of a run with samples and collected objects.

    Raises:
        UsageError: An option makes no sense.
        XaiError: A truth that cannot be read or does not fit.
    """
    asked_too = {"bounds": list(parse_bounds(bounds)), "truth": None if truth is None else str(truth)}
    absent: dict[str, str] = {}
    other_scalars = LeftOut()
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

    def named(answer: Answer) -> Answer:
        return with_names(with_facts(answer, reader), reader, selection)

    computed = computed or asked("training dynamics", lambda: compute(reader, selection))
    scored, said = score_rankings(reader, selection, computed, truth) if computed and truth is not None else (None, ())
    faults += said
    by_pass = _of_pass(reader, selection, computed, named) if computed else {}
    if computed is None:
        absent |= dict.fromkeys(("data map", "suspects", "rank changes"), absent["training dynamics"])
    of_pass = {name: asked(part, question) for name, (part, question) in by_pass.items()}
    doubted = of_pass.get("suspects")
    of_one_label, issues = reader.manifest.task in OF_ONE_LABEL, None
    whys = without_suspects(reader, selection, computed) if computed else {}
    if len(whys) == len(selection.pairs):
        absent["suspects"] = f"None can be told: {'; '.join(dict.fromkeys(whys.values()))}."
    if unlike := only_groups(reader, selection.label_key):
        absent |= {"label issues": f"None can be told: {unlike}."} if of_one_label else {}
    elif of_one_label:
        issues = asked("label issues", lambda: named(label_issues(reader, selection)))
    return Gathered(
        samples=named(replace(chosen, selection={**chosen.selection, **asked_too})),
        labels=asked("labels", lambda: labels(reader, selection, bounds=bounds)),
        computed=computed,
        **of_pass,
        label_issues=issues,
        scalars=asked("scalars", lambda: run_frame(reader, other_scalars)),
        other_scalars=other_scalars,
        errors=asked("errors", lambda: named(errors(reader, selection))),
        objects=None if objects is None else with_facts(objects, reader),
        truth=scored,
        judgements=asked("confusions", lambda: judgements(reader, selection, faults)) or (),
        steps=asked("steps", lambda: training_steps(reader, selection)),
        suggestions=suggestions(reader, doubted, truth) if doubted and truth is not None else None,
        absent=absent,
        faults=tuple(faults),
        drops=reader.losses,
    )


def _parts(objects: Answer) -> Iterator[tuple[str, Any]]:
    """The details of how objects were found, by name."""
    return ((name, part) for name, part in objects.extra.items() if not isinstance(part, str))


def gather_objects(reader: Reader, chosen: Answer, answered: Answer) -> Gathered:
    """What there is to know where a run tells of objects and has no rows of samples.

    Args:
        reader: The run.
        chosen: What `table_samples` answers of the pictures.
        answered: What `object_errors` answers.
    """
    other_scalars = LeftOut()
    return Gathered(
        samples=with_facts(chosen, reader),
        errors=with_facts(answered, reader),
        scalars=run_frame(reader, other_scalars),
        other_scalars=other_scalars,
        drops=reader.losses,
    )


def _of_pass(
    reader: Reader, selection: Selection, computed: Statistics, named: Callable[[Answer], Answer]
) -> dict[str, tuple[str, Callable[[], Answer]]]:
    """The questions that one pass over the epochs answers: {field of `Gathered`: (what it is called, question)}."""
    return {
        "dynamics": ("data map", lambda: with_facts(dynamics(reader, selection, computed=computed), reader)),
        "suspects": ("suspects", lambda: named(suspects(reader, selection, computed, top=_SUSPECTS))),
        "jumps": ("rank changes", lambda: named(rank_jumps(reader, selection, computed, top=_JUMPS))),
    }


def page_of(
    facts: RunFacts, reader: Reader, selection: Selection, answers: Iterable[Answer], *, pictured: bool = True
) -> tuple[Page, list[str]]:
    """The page that shows some samples, with their thumbnails, predictions at the places shown, and warnings.

    Args:
        facts: The run.
        reader: Its rows.
        selection: What was asked.
        answers: What is shown: answers whose rows are samples.
        pictured: Whether thumbnails are looked for; a terminal shows none.
    """
    shown: dict[Pair, dict[Any, None]] = {}
    places: dict[Pair, dict[tuple[int, int | None], set[Any]]] = {}
    for answer in answers:
        histories = answer.data["history"] if "history" in answer.data.columns else [None] * answer.data.height
        rows = zip(*(answer.data[name] for name in ("mode", "ds_id", SAMPLE_ID)), histories, strict=True)
        for mode, ds_id, sample_id, history in rows:
            if sample_id is not None:
                shown.setdefault((mode, ds_id), {})[sample_id] = None
                if (place := place_shown(history)) is not None:
                    places.setdefault((mode, ds_id), {}).setdefault(place, set()).add(sample_id)
    wanted = {sample_id for ids in shown.values() for sample_id in ids}
    pictures, warnings = thumbnails(reader, wanted) if pictured else ({}, [])
    # One that was logged for no data set counts only where there is one.
    alone = len({d for m in reader.modes() for d in reader.ds_ids(m)}) <= 1
    keys = ((*pair, sample_id) for pair, ids in shown.items() for sample_id in ids)
    images = {
        key: Image(found.width, found.height, found.channels, found.pixels, f"sample {key[-1]}")
        for key, found in pictures_of(pictures, keys, of_none=alone).items()
    }
    unpictured = [
        (pair, item) for pair, ids in shown.items() for item in ids if pictured and (*pair, item) not in images
    ]
    images |= _pictures_named(facts.path, reader, unpictured)
    lacking = {item for pair, item in unpictured if (*pair, item) not in images}
    predictions = _predictions(reader, selection, places)
    return Page(facts, images, predictions), [*warnings, *_misplaced(reader, pictures, lacking, not alone)]


def _misplaced(
    reader: Reader, pictures: Collection[tuple[str, str, Any]], lacking: Collection[Any], several: bool
) -> list[str]:
    """What to say of pictures kept where no sample of their id is, and of those of samples of several data sets.

    Args:
        reader: The run.
        pictures: (mode, ds_id, sample_id) of each.
        lacking: The ids of samples that are shown without a picture.
        several: Whether the run has several data sets.
    """
    of_none = {sample_id for *place, sample_id in pictures if tuple(place) == NOWHERE}
    apart = {key for key in pictures if key[:2] != NOWHERE and key[-1] in lacking}
    if not several or not (of_none or apart):
        return []
    of_data_set: dict[str, set[Any]] = {}
    for mode in reader.modes():
        for ds_id in reader.ds_ids(mode):
            there = reader.ids_among((mode, ds_id), of_none | {sample_id for *_, sample_id in apart})
            of_data_set.setdefault(ds_id, set()).update(there)
    said = []
    lost = {key for key in apart if key[-1] not in of_data_set.get(key[1], ())}
    if n := len({sample_id for *_, sample_id in lost}):
        of = ", ".join(sorted({" ".join(filter(None, key[:2])) for key in lost}))
        what = "the picture of 1 sample was" if n == 1 else f"pictures of {n:,} samples were"
        said.append(f"{what} logged in {of}, where there is no row of {'it' if n == 1 else 'them'}, and not shown")
    if n := sum(sum(one in ids for ids in of_data_set.values()) > 1 for one in of_none):
        what = "the picture of 1 id was" if n == 1 else f"pictures of {n:,} ids were"
        each = "that id" if n == 1 else "each"
        said.append(f"{what} logged in no mode, and shown with the sample of {each} in several data sets")
    into = "call log_images and log_inputs inside of run.steps(..., ds_id=...), or with run.state.ds_id set"
    return [f"{one}: {into}" for one in said]


def _pictures_named(run: str, reader: Reader, wanted: Sequence[tuple[Pair, Any]]) -> dict[tuple[str, str, Any], Image]:
    """The pictures that the facts of some samples name by their paths, where the files are there."""
    found = files_named(run, reader, [item for _, item in wanted])
    return {
        (*pair, item): Image(picture.width, picture.height, picture.channels, picture.pixels, f"sample {item}")
        for pair, item in wanted
        if (picture := found.get(item)) is not None
    }


def files_named(run: str, reader: Reader, wanted: Iterable[Any], side: int = SHOWN_SIDE) -> dict[Any, Thumbnail]:
    """The pictures in the files that the facts of some samples name by their paths: {sample_id: picture}.

    Args:
        run: The run's folder, below which a path is looked for, too.
        reader: The run.
        wanted: Sample ids, the first 100 of which count.
        side: At most so many pixels a side.
    """
    ids = list(dict.fromkeys(wanted))[:_MOST_FILES]
    if not ids or not reader.facts.names:
        return {}
    # Rows of a table may have their ids as text.
    keys = pl.Series(ids).cast(reader.facts.frame.schema[SAMPLE_ID], strict=False)
    known = facts_by_sample(reader, keys)
    found: dict[Any, Thumbnail] = {}
    for item, key in zip(ids, keys, strict=True):
        paths = (local_path(value, run) for value in known.get(key, {}).values())
        pictures = (picture_file(path, side) for path in paths if path and path.suffix.lower() in SUFFIXES)
        if (picture := next((picture for picture in pictures if picture is not None), None)) is not None:
            found[item] = picture
    return found


def _predictions(
    reader: Reader, selection: Selection, places: Mapping[Pair, Mapping[tuple[int, int | None], Collection[Any]]]
) -> dict[PredictionKey, Any]:
    """The predictions of samples, of the rows selected, at the places shown of them: {(epoch, pass): ids} a pair."""
    found: dict[PredictionKey, Any] = {}
    if PREDICTION not in reader.dtypes:
        return found
    for pair, by_place in places.items():
        epochs = sorted({epoch for epoch, _ in by_place})
        for rows in walk(reader, selection, pair, [SAMPLE_ID, PREDICTION], epochs=epochs):
            if ids := by_place.get(time := (rows.place.epoch, rows.place.turn)):
                known = rows.frame.filter(pl.col(SAMPLE_ID).is_in(list(ids))).select(SAMPLE_ID, PREDICTION)
                found |= {(*pair, item, *time): value for item, value in known.iter_rows() if value is not None}
    return found


def _judged(found: Judgements) -> dict[str, Any]:
    """How labels and predictions stand as the JSON says it."""
    whole = asdict(replace(found, pairs=found.pairs.clear()))
    mode, ds_id = whole.pop("pair")
    del whole["empty"]  # a warning says it
    return {"mode": mode, "ds_id": ds_id, **whole, "pairs": found.pairs.head(_PAIRS).to_dicts()}


def _graphs(scalars: pl.DataFrame | None) -> pl.DataFrame | list[Any]:
    """The points of the custom graphs as the JSON lists them."""
    if scalars is None:
        return []
    columns = ("graph", "line", "key", "mode", "ds_id", "step", "value", "low", "high")
    return scalars.filter(pl.col("source") == "graph").select(columns)


def _evidence(answer: Answer | None) -> pl.DataFrame | list[Any]:
    """Suspects or label issues as the JSON lists them."""
    if answer is None:
        return []
    wanted = (*_EVIDENCE, "mode", "ds_id", *([FACTS] if FACTS in answer.data.columns else []))
    return answer.data.select(pl.col(key) if key in answer.data.columns else pl.lit(None).alias(key) for key in wanted)
