"""What shows the answer to each question: the report of every command about runs, in one table.

Reports draw and word; they are imported when one is shown, since most answers go to a program or a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli.answer import Answer
from xaicli.layout import RunLayout
from xaicli.results import Result
from xaicli.vocabulary import LABEL

if TYPE_CHECKING:
    from xaicli.api.gathering import Gathered
    from xaicli.queries.media import Thumbnail
    from xaicli.queries.selection import Selection
    from xaicli.reader import Reader
    from xaicli.report.charts import Image
    from xaicli.report.model import Report
    from xaicli.report.page import Page, RunFacts


@dataclass(frozen=True)
class Asked:
    """A question and its answer: what a report is made from.

    Attributes:
        answer: The answer.
        layout: The run it is about; None for several, or none.
        reader: The run's files as they were listed for the question.
        selection: Which rows were asked about.
        readers: The runs, of a question about several.
        select: How their rows were chosen.
        gathered: The parts of the track report.
        objects: How collected objects were found, where a run with rows of samples has them, too.
        pictured: The run whose samples the rows of a table are about.
    """

    answer: Answer
    layout: RunLayout | None = None
    reader: Reader | None = None
    selection: Selection | None = None
    readers: Sequence[Reader] = ()
    select: Mapping[str, Any] = field(default_factory=dict)
    gathered: Gathered | None = None
    objects: Answer | None = None
    pictured: Reader | None = None


def shown(asked: Asked, folder: Path | None = None) -> Result:
    """The answer with its report.

    Args:
        asked: The question.
        folder: Where its files go unless the user says otherwise; the run's `reports` without it.
    """
    from xaicli.queries.names import with_facts, with_names

    if asked.reader is not None:
        answer = with_facts(asked.answer, asked.reader, asked.selection)
        if asked.selection is not None:
            answer = with_names(answer, asked.reader, asked.selection)
        asked = replace(asked, answer=answer)
    command = asked.answer.command
    brief = partial(BRIEF[command], asked) if command in BRIEF else None
    where = folder or (asked.layout.reports if asked.layout else None)
    return Result(asked.answer, partial(REPORTS[command], asked), brief=brief, folder=where)


def _samples(asked: Asked, *, whole: bool = True) -> Report:
    from xaicli.report.page import Page, RunFacts
    from xaicli.report.samples import samples_report

    assert asked.layout is not None
    facts = RunFacts.of(asked.layout, asked.answer.selection)
    if asked.reader is None or asked.selection is None:
        from xaicli.tables.schema import class_names

        key = str(asked.answer.selection.get("label_key") or LABEL)
        names = class_names(asked.layout, str(asked.answer.selection["table"]), key)
        images = {} if asked.pictured is None or not whole else _of_table(facts.path, asked.pictured, asked.answer)
        return samples_report(asked.answer, Page(replace(facts, label_names=names) if names else facts, images))
    from xaicli.api.gathering import page_of
    from xaicli.queries.spread import ends_of_population, population

    people = (population if whole else ends_of_population)(asked.reader, asked.selection)
    page, warnings = page_of(facts, asked.reader, asked.selection, [asked.answer], pictured=whole)
    return _warned(samples_report(asked.answer, page, population=people), warnings)


def _labels(asked: Asked) -> Report:
    from xaicli.queries.labels import without_finite
    from xaicli.report.labels import labels_report
    from xaicli.report.page import RunFacts

    assert asked.layout is not None
    gaps = None
    if asked.reader is not None and asked.selection is not None:
        gaps = without_finite(asked.reader, asked.selection, asked.answer)
    return labels_report(asked.answer, RunFacts.of(asked.layout, asked.answer.selection), gaps)


def _dynamics(asked: Asked) -> Report:
    from xaicli.report.datamap import dynamics_report
    from xaicli.report.page import Page, RunFacts

    assert asked.layout is not None
    return dynamics_report(asked.answer, Page(RunFacts.of(asked.layout, asked.answer.selection)))


def _findings(asked: Asked, *, whole: bool = True) -> Report:
    from xaicli.report.findings import findings_report
    from xaicli.report.page import Page, RunFacts

    assert asked.layout is not None
    facts = RunFacts.of(asked.layout, asked.answer.selection)
    if "worst" in asked.answer.extra and asked.objects is None:
        return findings_report(asked.answer, _page_of_objects(facts, asked, asked.answer))
    if not whole or asked.reader is None or asked.selection is None:
        return findings_report(asked.answer, Page(facts))
    objects = None if asked.objects is None else _page_of_objects(facts, asked, asked.objects)
    from xaicli.api.gathering import page_of

    page, warnings = page_of(facts, asked.reader, asked.selection, [asked.answer])
    if objects is not None:
        objects = replace(objects, names=page.names, keys=page.keys)
    return _warned(findings_report(asked.answer, page, objects), warnings)


def _track_report(asked: Asked) -> Report:
    from xaicli.api.gathering import page_of
    from xaicli.queries.labels import without_finite
    from xaicli.queries.spread import population
    from xaicli.report.page import RunFacts
    from xaicli.report.track import track_report

    assert asked.layout is not None
    assert asked.reader is not None
    assert asked.gathered is not None
    facts = RunFacts.complete(asked.layout, asked.answer.selection)
    if asked.gathered.errors is not None and asked.gathered.of_objects:
        page = _page_of_objects(facts, asked, asked.gathered.errors)
        # Of a picture that is among the worst, too, the one with its boxes is shown.
        others = _of_table(facts.path, asked.reader, asked.gathered.samples)
        page = replace(page, images={**others, **page.images})
        return track_report(asked.answer, asked.gathered, page)
    assert asked.selection is not None
    page, warnings = page_of(facts, asked.reader, asked.selection, asked.gathered.of_samples)
    people = population(asked.reader, asked.selection)
    objects = asked.gathered.objects
    drawn = None if objects is None else _page_of_objects(facts, asked, objects)
    if drawn is not None:
        drawn = replace(drawn, names=page.names, keys=page.keys)
    labels = asked.gathered.labels
    gaps = None if labels is None else without_finite(asked.reader, asked.selection, labels)
    how = {"population": people, "without_finite": gaps}
    return track_report(asked.answer, asked.gathered, page, drawn, warnings=warnings, **how)


def _confusion(asked: Asked, *, whole: bool = True) -> Report:
    from xaicli.report.confusion import cell_report, confusion_report, pictured_samples
    from xaicli.report.page import Page, RunFacts

    assert asked.layout is not None
    facts = RunFacts.of(asked.layout, asked.answer.selection)
    one = "cell" in asked.answer.selection
    if not whole or asked.reader is None or asked.selection is None:
        return (cell_report if one else confusion_report)(asked.answer, Page(facts))
    from xaicli.api.gathering import page_of
    from xaicli.queries.names import with_facts
    from xaicli.queries.spread import population

    told = asked.answer if one else with_facts(pictured_samples(asked.answer), asked.reader)
    page, warnings = page_of(facts, asked.reader, asked.selection, [told])
    if not one:
        return _warned(confusion_report(asked.answer, page, told=told), warnings)
    return _warned(cell_report(asked.answer, page, population=population(asked.reader, asked.selection)), warnings)


def _steps(asked: Asked, *, whole: bool = True) -> Report:
    from xaicli.report.page import Page, RunFacts
    from xaicli.report.steps import pictured_samples, step_report, steps_report

    assert asked.layout is not None
    facts = RunFacts.of(asked.layout, asked.answer.selection)
    one = "step" in asked.answer.selection
    if not whole or asked.reader is None or asked.selection is None:
        return (step_report if one else steps_report)(asked.answer, Page(facts))
    from xaicli.api.gathering import page_of
    from xaicli.diagnosis.scalars import ScalarsBeside
    from xaicli.diagnosis.training import logged_moments

    page, warnings = page_of(facts, asked.reader, asked.selection, [pictured_samples(asked.answer)])
    if one:
        return _warned(step_report(asked.answer, page), warnings)
    moments = {pair: logged_moments(asked.reader, pair) for pair in asked.selection.pairs}
    scalars = {pair: ScalarsBeside.of(asked.reader, pair, moments[pair]).one_a_moment() for pair in moments}
    return _warned(steps_report(asked.answer, page, scalars=scalars, moments=moments), warnings)


def _errors(asked: Asked) -> Report:
    from xaicli.report.errors import errors_report
    from xaicli.report.page import Page, RunFacts

    assert asked.layout is not None
    facts = RunFacts.of(asked.layout, asked.answer.selection)
    if asked.answer.extra["task"] == "objects":
        return errors_report(asked.answer, _page_of_objects(facts, asked, asked.answer))
    return errors_report(asked.answer, Page(facts))


def _page_of_objects(facts: RunFacts, asked: Asked, told: Answer) -> Page:
    """A page about objects: their classes by name, pictures with their boxes drawn in."""
    from xaicli.report.page import Page
    from xaicli.tables.schema import class_names

    assert asked.layout is not None
    names = class_names(asked.layout, str(told.selection["table"]), LABEL)
    return Page(replace(facts, label_names=names) if names else facts, _with_boxes(asked, told))


def _with_boxes(asked: Asked, told: Answer) -> dict[tuple[str, str, Any], Image]:
    """The worst pictures and those of the suspects, kept or in files, their boxes drawn in."""
    from xaicli.api.gathering import files_named
    from xaicli.queries.media import DRAWN_SIDE, pictures_by_id, thumbnails, with_boxes

    drawn_in: dict[tuple[str, str, Any], list[Mapping[str, Any]]] = {}
    for row in _listed(told.extra["worst"]):
        # A found object is drawn once, as it was found.
        shown = [one for one in row["boxes"] if (one["source"], one["outcome"]) != ("gt", "tp")]
        drawn_in[row["mode"], row["ds_id"], row["sample_id"]] = shown
    of_worst = set(drawn_in)
    for row in _listed(told.extra["suspects"]):
        if (key := (row["mode"], row["ds_id"], row["sample_id"])) not in of_worst:
            drawn_in.setdefault(key, []).append(row)
    if asked.reader is None or not drawn_in:
        return {}

    def drawn(pictures: Mapping[Any, Thumbnail]) -> dict[tuple[str, str, Any], Image]:
        found = {}
        for key, boxes in drawn_in.items():
            corners = [(one["outcome"], [one[name] for name in ("x0", "y0", "x1", "y1")]) for one in boxes]
            if key[-1] in pictures and (picture := with_boxes(pictures[key[-1]], corners)) is not None:
                said = f"picture {key[-1]} with {len(corners)} {'box' if len(corners) == 1 else 'boxes'}"
                found[key] = _image(picture, said)
        return found

    pictures, _ = thumbnails(asked.reader, list(dict.fromkeys(sample_id for _, _, sample_id in drawn_in)))
    images = drawn(pictures_by_id(pictures))
    missing = [sample_id for *pair, sample_id in drawn_in if (*pair, sample_id) not in images]
    return {**drawn(files_named(str(asked.reader.layout.root), asked.reader, missing, DRAWN_SIDE)), **images}


def _of_table(run: str, reader: Reader, answer: Answer) -> dict[tuple[str, str, Any], Image]:
    """The pictures of samples that the rows of a table are about: those that were kept, else those in files."""
    from xaicli.api.gathering import files_named
    from xaicli.queries.media import pictures_by_id, pictures_of, thumbnails
    from xaicli.queries.table_samples import known_by_row

    unknown = set(known_by_row(reader, str(answer.selection["table"])).iter_rows())
    keys = [
        key
        for key in answer.data.select("mode", "ds_id", "sample_id").unique(maintain_order=True).iter_rows()
        if key not in unknown
    ]
    kept, _ = thumbnails(reader, list(dict.fromkeys(sample_id for _, _, sample_id in keys)))
    own, others = pictures_of(kept, keys, of_none=True), pictures_by_id(kept)
    others |= files_named(run, reader, [key[-1] for key in keys if key not in own and key[-1] not in others])
    found = {key: own.get(key, others.get(key[-1])) for key in keys}
    return {key: _image(picture, f"sample {key[-1]}") for key, picture in found.items() if picture is not None}


def _image(picture: Thumbnail, alt: str) -> Image:
    from xaicli.report.charts import Image

    return Image(picture.width, picture.height, picture.channels, picture.pixels, alt)


def _listed(found: Any) -> list[dict[str, Any]]:
    return found if isinstance(found, list) else list(found.iter_rows(named=True))


def _slices(asked: Asked) -> Report:
    from xaicli.report.page import Page, RunFacts
    from xaicli.report.slices import slices_report

    assert asked.layout is not None
    return slices_report(asked.answer, Page(RunFacts.of(asked.layout, asked.answer.selection)))


def _check(asked: Asked) -> Report:
    from xaicli.report.check import check_report
    from xaicli.report.page import Page, RunFacts

    assert asked.layout is not None
    return check_report(asked.answer, Page(RunFacts.of(asked.layout, asked.answer.selection)))


def _select(asked: Asked, *, whole: bool = True) -> Report:
    from xaicli.report.select import select_report

    return _first_500(asked, select_report, whole=whole)


def _relabel_export(asked: Asked, *, whole: bool = True) -> Report:
    from xaicli.report.relabel import export_report

    return _first_500(asked, export_report, whole=whole)


def _relabel_apply(asked: Asked, *, whole: bool = True) -> Report:
    from xaicli.report.relabel import apply_report

    return _first_500(asked, apply_report, whole=whole)


def _first_500(asked: Asked, report: Callable[[Answer, Page], Report], *, whole: bool) -> Report:
    """A list of samples, with the pictures and histories of its first 500."""
    from xaicli.report.page import Page, RunFacts

    assert asked.layout is not None
    facts = RunFacts.of(asked.layout, asked.answer.selection)
    if not whole or asked.reader is None or asked.selection is None:
        return report(asked.answer, Page(facts))
    from xaicli.api.gathering import page_of

    first = replace(asked.answer, data=asked.answer.data.head(500))
    page, warnings = page_of(facts, asked.reader, asked.selection, [first])
    return _warned(report(asked.answer, page), warnings)


def _embeddings(asked: Asked) -> Report:
    from xaicli.report.embeddings import embeddings_report
    from xaicli.report.page import RunFacts

    assert asked.layout is not None
    return embeddings_report(asked.answer, RunFacts.of(asked.layout, asked.answer.selection))


def _info(asked: Asked) -> Report:
    from xaicli.report.info import info_report
    from xaicli.report.page import RunFacts

    assert asked.layout is not None
    return info_report(asked.answer, RunFacts.complete(asked.layout, asked.answer.selection))


def _query(asked: Asked) -> Report:
    from xaicli.report.page import RunFacts, plain_report

    assert asked.layout is not None
    return plain_report(asked.answer, RunFacts.of(asked.layout, asked.answer.selection), title="Query")


def _compare(asked: Asked, *, whole: bool = True) -> Report:
    from xaicli.report.compare import compare_report

    if not whole:
        return compare_report(asked.answer)
    from xaicli.queries.compare import over_epochs

    return compare_report(asked.answer, over_epochs(asked.readers, **asked.select))


def _scalars(asked: Asked) -> Report:
    from xaicli.report.page import RunFacts
    from xaicli.report.scalars import scalars_report

    return scalars_report(asked.answer, RunFacts.of(asked.layout, asked.answer.selection) if asked.layout else None)


def _ls(asked: Asked) -> Report:
    from xaicli.report.info import runs_report

    return runs_report(asked.answer)


def _warned(report: Report, warnings: Sequence[str]) -> Report:
    """A report that says, too, which pictures of its samples are missing, and why."""
    return replace(report, warnings=(*report.warnings, *warnings))


REPORTS: Mapping[str, Callable[[Asked], Report]] = {
    "samples": _samples,
    "labels": _labels,
    "dynamics": _dynamics,
    "findings": _findings,
    "track-report": _track_report,
    "confusion": _confusion,
    "steps": _steps,
    "slices": _slices,
    "errors": _errors,
    "select": _select,
    "relabel export": _relabel_export,
    "relabel apply": _relabel_apply,
    "check": _check,
    "embeddings": _embeddings,
    "info": _info,
    "query": _query,
    "compare": _compare,
    "scalars": _scalars,
    "ls": _ls,
}
"""What makes the report of each question."""

BRIEF: Mapping[str, Callable[[Asked], Report]] = {
    "samples": partial(_samples, whole=False),
    "findings": partial(_findings, whole=False),
    "confusion": partial(_confusion, whole=False),
    "steps": partial(_steps, whole=False),
    "select": partial(_select, whole=False),
    "relabel export": partial(_relabel_export, whole=False),
    "relabel apply": partial(_relabel_apply, whole=False),
    "compare": partial(_compare, whole=False),
}
"""What makes one that is good enough for a terminal, where the whole one takes long."""
