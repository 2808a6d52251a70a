"""The track report: everything about a run on one page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from xaicli.answer import Answer
from xaicli.report.calibration import percent
from xaicli.report.charts import Tone
from xaicli.report.confusion import judgement_blocks
from xaicli.report.datamap import definitions, map_blocks, truth_table
from xaicli.report.findings import ISSUE_SCORE, SCORES, SUSPECT_SCORE, finding_blocks, noise_blocks, pair_blocks
from xaicli.report.info import system_blocks
from xaicli.report.labelcharts import BAND_WORDS, label_sentence
from xaicli.report.labels import by_subject, few_enough, flat_rows, label_blocks, with_gaps
from xaicli.report.model import IN_CSV, IN_JSON, Block, Figure, Figures, Report, Section, Table, Text, either
from xaicli.report.numbers import count, cut_among, first_parts, listed, sample_name, shortened, shorts
from xaicli.report.page import (
    BY_IDS,
    Names,
    Page,
    among,
    as_list,
    conditions,
    headline,
    label_names_of,
    made,
    run_line,
    words_of,
)
from xaicli.report.samples import Subject, blocks, long_rows, no_samples, score_rule, sentence, subjects
from xaicli.report.scalars import scalar_blocks
from xaicli.report.steps import step_blocks
from xaicli.vocabulary import LABEL, Bounds, Mode

if TYPE_CHECKING:
    from xaicli.api.gathering import Gathered
    from xaicli.report.model import Rows

_NOT_DOUBTED = (
    "No suspects: where predictions tell, no label more suspicious than the middle was contradicted often enough; "
    "elsewhere no sample stands far out among its label. That does not say that all labels are right."
)
_LONGEST = 160
_NOT_HELD_OUT = (
    "Where these are training rows, their probabilities are not held out: the net has seen these very labels, so that "
    "it contradicts fewer wrong ones, the longer it trains. Rows of another mode (--mode eval) are judged without that."
)
_SUSPECTS_SHOWN, _TOLD_APART = 25, 1000
_SUSPECTS_IN_TERMINAL = 8


def track_report(
    answer: Answer,
    gathered: Gathered,
    page: Page,
    objects: Page | None = None,
    *,
    population: pl.DataFrame | None = None,
    without_finite: pl.DataFrame | None = None,
    warnings: Sequence[str] = (),
) -> Report:
    """The page of `xai track-report`.

    Args:
        answer: The machine's view of all of it.
        gathered: The answers.
        page: The run, with thumbnails and predictions of the samples.
        objects: The same with the classes and pictures of the objects, where the run has samples and objects.
        population: Quantiles per (mode, ds_id, metric, epoch).
        without_finite: Where labels have values, but none that is finite.
        warnings: Of pictures that could not be read.
    """
    metrics = [str(metric) for metric in as_list(answer.selection.get("metric"))]
    parts = list(subjects(answer, metrics, population))
    if gathered.of_objects:
        sections = [
            *_errors(gathered, page),
            *_histories(parts, gathered, page),
            _scalars(gathered, page.names),
            Section("System and traceability", "system", tuple(system_blocks(page.facts)), page_only=True),
        ]
    else:
        sections = [
            *_histories(parts, gathered, page),
            _labels(gathered, page.names, without_finite),
            *_errors(gathered, page),
            *_objects(gathered, objects or page),
            _suspects(gathered, page),
            *_confusions(gathered, page),
            *_steps(gathered, page),
            _data_map(gathered, page),
            *_issues(gathered, page),
            _jumps(gathered, page),
            _scalars(gathered, page.names),
            Section("System and traceability", "system", tuple(system_blocks(page.facts)), page_only=True),
        ]
    bounds = [Bounds(bound) for bound in as_list(answer.selection.get("bounds"))]
    rules = [("score", score_rule(answer)), ("ties", "the smaller sample_id first")]
    rules += [(f"band {bound}", BAND_WORDS[bound]) for bound in bounds]
    rules += list(definitions(gathered.dynamics)) if gathered.dynamics else []
    return Report(
        name="track-report",
        title="Sample histories: " + (", ".join(metrics) or "nothing recorded"),
        run_line=run_line(answer, page.facts),
        label_names=label_names_of(page.facts),
        run_id=page.facts.run_id,
        sentence=_sentence(parts, gathered, page),
        sections=tuple(sections),
        made=made(answer, *rules),
        warnings=(*answer.warnings, *warnings),
        tables=_tables(answer, gathered, metrics),
        json_name="report",
        absent=BY_IDS,
    )


def _tables(answer: Answer, gathered: Gathered, metrics: Sequence[str]) -> dict[str, Callable[[], Rows]]:
    tables: dict[str, Callable[[], Rows]] = {"samples": lambda: long_rows(answer.data, metrics)}
    labels, suspects = gathered.labels, gathered.suspects
    if labels is not None:
        tables["labels"] = lambda: flat_rows(labels.data)
    if suspects is not None:
        # Tables of others have the name under this header.
        tables["suspects"] = lambda: suspects.data.rename({"name": "label_name"}, strict=False)
    return tables


def _sentence(parts: Sequence[Subject], gathered: Gathered, page: Page) -> str:
    said = [headline([(part.words, sentence(part, page)) for part in parts])] if parts else []
    said = said or [no_samples(gathered.samples)]
    if gathered.of_objects and gathered.errors is not None:
        from xaicli.report.errors import errors_report

        said = [errors_report(gathered.errors).sentence]
    notes = page.facts.config.get("notes")
    if isinstance(notes, str) and notes:
        said.append(shortened(notes[0].upper() + notes[1:].rstrip(".") + ".", _LONGEST))
    doubted = gathered.suspects.data.drop_nulls("suggested_label") if gathered.suspects else pl.DataFrame()
    if doubted.height:
        first = doubted.row(0, named=True)
        others = map(sample_name, gathered.suspects.data["sample_id"].head(_TOLD_APART)) if gathered.suspects else ()
        name = cut_among(sample_name(first["sample_id"]), others)
        several = gathered.suspects is not None and gathered.suspects.data.select("mode", "ds_id").n_unique() > 1
        where = f" in {first['mode']} {first['ds_id']}".rstrip() if several else ""
        said.append(f"Most suspicious label{where}: {name}, {first_parts(first['reason'], _LONGEST)}.")
    return " ".join(said)


def _histories(parts: Sequence[Subject], gathered: Gathered, page: Page) -> Iterator[Section]:
    """The key figures with the first (mode, ds_id, metric); each further one by itself."""
    figures = Figures(tuple(_figures(parts, gathered)))
    if not parts:
        why = Text("No samples: nothing was recorded here, or the selection leaves nothing.", Tone.FAINT)
        yield Section("Histories", "histories", (figures, why))
    for number, part in enumerate(parts):
        found = tuple(blocks(part, page))
        if len(parts) == 1:
            yield Section("Histories", "histories", (figures, *found))
        else:
            said = Text(sentence(part, page))
            anchor = "histories" if number == 0 else page.names("histories", part.words)
            first = (figures,) if number == 0 else ()
            yield Section(f"Histories: {part.words}", anchor, (*first, said, *found))


def _figures(parts: Sequence[Subject], gathered: Gathered) -> Iterator[Figure]:
    """The key figures: how much there is, how the median moved, how much is right, what is suspicious."""
    computed = gathered.computed
    if computed is not None:
        several = len(computed.frames) > 1
        for (mode, ds_id), frame in computed.frames.items():
            where = f" in {mode} {ds_id}".rstrip() if several else ""
            yield Figure(f"{frame.height:,}", ("sample" if frame.height == 1 else "samples") + where)
    epochs = {row["epoch"] for part in parts for row in part.population}
    if epochs:
        yield Figure(f"{len(epochs):,}", "epoch" if len(epochs) == 1 else "epochs")
    for part in parts[:2]:
        medians = [row["q50"] for row in part.population if row["q50"] is not None]
        if medians:
            ends = dict.fromkeys(shorts((medians[0], medians[-1]), 3))
            yield Figure(" → ".join(ends), f"median {part.words}")
    key = str(gathered.samples.selection["label_key"])
    said = "as labelled" if key == LABEL else f"as {key} says"
    for (mode, ds_id), (epoch, n, share) in _right(gathered, key):
        where = " ".join(part for part in (mode, ds_id) if part)
        of = f"of {count(n, f'{where} sample')} with a prediction at epoch {epoch}"
        yield Figure(percent(share), f"{of} {'is' if n == 1 else 'are'} predicted {said}")
    dropped = gathered.samples.counts.dropped
    if dropped:
        yield Figure(f"{dropped:,}", "rows lost while recording", Tone.BAD)


def _right(gathered: Gathered, key: str) -> Iterator[tuple[tuple[str, str], tuple[int, int, float]]]:
    """Of each (mode, ds_id) the last epoch with predictions, of how many samples, and the share that is right.

    By the label key, where it says what is right; where it only groups, nothing.
    """
    if key != LABEL:
        for found in gathered.judgements:
            yield found.pair, (found.epoch, found.overall.n, found.overall.accuracy)
    elif gathered.computed is not None and not gathered.samples.data[LABEL].dtype.is_float():
        for pair, by_epoch in gathered.computed.judged.items():
            if by_epoch:
                last = max(by_epoch)
                right, n = by_epoch[last]
                yield pair, (last, n, right / n)


def _labels(gathered: Gathered, names: Names, without_finite: pl.DataFrame | None) -> Section:
    found: list[Block] = []
    if gathered.labels is not None:
        bounds = [Bounds(bound) for bound in as_list(gathered.labels.selection["bounds"])]
        data, left_out = few_enough(gathered.labels.data)
        found += [Text(said) for said in left_out]
        over, lacking = gathered.labels.selection.get("axis"), gathered.labels.extra.get("without_finite", ())
        limits = among(conditions(gathered.labels.selection))
        for index, (words, histories) in enumerate(by_subject(with_gaps(data, without_finite), over, lacking)):
            found.append(Text(f"{words}: {label_sentence(histories, limits)}"))
            found += label_blocks(words, histories, bounds, names, key=f"l{index}", limits=limits)
    return Section(
        "Labels",
        "labels",
        tuple(found)
        or (_missing(gathered, "labels", "Nothing to show: no label has a finite value in this selection."),),
        page_only=True,
    )


def _errors(gathered: Gathered, page: Page) -> Iterator[Section]:
    """How the model errs, where the task is beyond one label of several."""
    if gathered.errors is not None:
        from xaicli.report.errors import errors_report

        report = errors_report(gathered.errors, page)
        blocks = (Text(report.sentence), *_without_csv(report))
        yield Section(report.title, "errors", blocks, page_only=not gathered.of_objects)


def _without_csv(report: Report) -> Iterator[Block]:
    """The blocks of a report whose CSV files are not among those of this page."""
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Table):
                note = block.note.replace(either(IN_CSV), either(IN_JSON))
                yield replace(block, note=note, rest_in=IN_JSON)
            else:
                yield block


def _objects(gathered: Gathered, page: Page) -> Iterator[Section]:
    """How collected objects were found, of a run that has rows of samples, too."""
    if gathered.objects is not None:
        from xaicli.report.errors import errors_report

        report = errors_report(gathered.objects, page)
        blocks = (Text(report.sentence), *_without_csv(report))
        yield Section(report.title, "objects", blocks, page_only=True)


def _suspects(gathered: Gathered, page: Page) -> Section:
    title = "Suspected labels"
    answer = gathered.suspects
    if answer is None or answer.data.is_empty():
        why = _NOT_DOUBTED
        if gathered.errors is not None and gathered.errors.extra.get("task") == "sequence" and answer is not None:
            why = "A sequence has no one label that could be wrong; the worst sequences and tokens stand above."
        return Section(title, "suspects", (_missing(gathered, "suspects", why),))
    found: list[Block] = [Text(_ranked_by(gathered))]
    n = {(row["mode"], row["ds_id"]): row["n"] for row in answer.extra["n_suspects"]}
    for (mode, ds_id), frame in answer.data.group_by("mode", "ds_id", maintain_order=True):
        where = " ".join(str(part) for part in (mode, ds_id) if part)
        words = f"{title}, {where}"
        shown = frame.head(_SUSPECTS_SHOWN)
        total = n[str(mode), str(ds_id)]
        found += finding_blocks(
            *(shown, words, page),
            heading=where,
            terminal_rows=_SUSPECTS_IN_TERMINAL,
            total=total,
            note=SUSPECT_SCORE,
            rest_in=IN_CSV,
        )
        if frame.height > _SUSPECTS_SHOWN:
            some = f"All {total:,}" if frame.height == total else f"The first {frame.height:,} of {total:,}"
            found.append(
                Text(f"{some} are in suspects.csv and report.json, which --format csv,json writes.", Tone.FAINT)
            )
    found += pair_blocks(answer.extra["suspected_pairs"], page)
    found += noise_blocks(answer.extra["label_noise"], page)
    if gathered.truth is not None:
        found.append(truth_table(gathered.truth))
    if (told := gathered.suggestions) is not None:
        said = f"Of {count(told['n'], 'listed suspect')} whose label is wrong, the suggested label is the true one of "
        share = f"{percent(told['accuracy'])} (95 % interval {percent(told['low'])} to {percent(told['high'])})"
        found.append(Text(f"{said}{told['right']:,}: {share}."))
    return Section(title, "suspects", tuple(found))


def _ranked_by(gathered: Gathered) -> str:
    """What suspects are ranked by and why, and how many of its labels the network predicts at the end, where known."""
    said = (
        "Ranked by the whole history, not by the final loss alone: that says the less about wrong labels the more of "
        "them a network has memorised."
    )
    accuracy = gathered.computed.accuracy.items() if gathered.computed is not None else ()
    last = [percent(of_set[max(of_set)]) for (mode, _), of_set in accuracy if mode == Mode.TRAIN and of_set]
    return f"{said} At the last epoch this one predicts {listed(last)} of the labels it trains on." if last else said


def _has_values(frame: pl.DataFrame, name: str) -> bool:
    return name in frame.columns and bool(frame[name].cast(pl.Float64).is_finite().any())


def _confusions(gathered: Gathered, page: Page) -> Iterator[Section]:
    """Who is taken for whom, in a sentence and the most frequent pairs."""
    found = tuple(block for one in gathered.judgements for block in judgement_blocks(one, page))
    if found:
        yield Section("Who is taken for whom", "confusion", found)
    elif said := gathered.absent.get("confusions"):
        yield Section("Who is taken for whom", "confusion", (Text(said, Tone.FAINT),))


def _steps(gathered: Gathered, page: Page) -> Iterator[Section]:
    """What jumped in training, in a sentence and a table."""
    if gathered.steps is not None:
        yield Section("Steps of the training", "steps", tuple(step_blocks(gathered.steps, page)))
    elif said := gathered.absent.get("steps"):
        yield Section("Steps of the training", "steps", (Text(f"{said[0].upper()}{said[1:]}.", Tone.FAINT),))


def _data_map(gathered: Gathered, page: Page) -> Section:
    found: list[Block] = []
    if gathered.dynamics is not None:
        for (mode, ds_id), frame in gathered.dynamics.data.group_by("mode", "ds_id", maintain_order=True):
            words = words_of(mode, ds_id)
            found += map_blocks(words, frame, page)
    missing = _missing(gathered, "data map", gathered.absent.get("training dynamics", "No samples."))
    return Section("Data map", "data-map", tuple(found) or (missing,), page_only=True)


def _issues(gathered: Gathered, page: Page) -> Iterator[Section]:
    """The labels that one epoch's probabilities contradict, where a sample has one label of several."""
    title = "Label issues"
    answer = gathered.label_issues
    if answer is None and "label issues" not in gathered.absent:
        return
    if answer is None or answer.data.is_empty():
        # What is said of the whole selection stands over the page.
        own = [said for said in answer.warnings if said not in gathered.samples.warnings] if answer else []
        why = " ".join(f"{said[0].upper()}{said[1:].rstrip('.')}." for said in own)
        why = why or "None found. That does not say that all labels are right."
        yield Section(title, "label-issues", (_missing(gathered, "label issues", why),))
        return
    shown = answer.data.head(_SUSPECTS_SHOWN)
    words = "Labels that one epoch's probabilities contradict"
    found: list[Block] = [Text(_NOT_HELD_OUT)] if Mode.TRAIN in answer.data["mode"].unique() else []
    found += finding_blocks(shown, words, page, heading=words, cards=False, total=answer.data.height, note=ISSUE_SCORE)
    more = answer.data.height - shown.height
    rest = (Text(f"{more:,} more are in report.json, which --format json writes.", Tone.FAINT),) if more else ()
    yield Section(title, "label-issues", (*found, *rest), page_only=True)


def _jumps(gathered: Gathered, page: Page) -> Section:
    title = "Sudden rank changes"
    answer = gathered.jumps
    if answer is None or answer.data.is_empty():
        frames = list(gathered.computed.frames.values()) if gathered.computed is not None else []
        why = "None: after the first epochs no sample moved against all others both suddenly and far."
        if not any(_has_values(frame, "rank_jump") for frame in frames):
            why = "None can be told: that takes finite values of a sample at two epochs or more, after the first ones."
        return Section(title, "rank-changes", (_missing(gathered, "rank changes", why),))
    note = Text("Samples that suddenly moved against all others: interesting, though no evidence of a wrong label.")
    found = finding_blocks(answer.data, title, page, cards=False, note=SCORES["rank_jump"])
    return Section(title, "rank-changes", (note, *found))


def _scalars(gathered: Gathered, names: Names) -> Section:
    rows = gathered.scalars
    found = () if rows is None or rows.is_empty() else tuple(scalar_blocks(rows, names))
    missing = _missing(gathered, "scalars", "None: run.log was not called.")
    return Section("Scalars and custom graphs", "scalars", found or (missing,), page_only=True)


def _missing(gathered: Gathered, part: str, otherwise: str) -> Text:
    """Why a part is not there."""
    return Text(gathered.absent.get(part, otherwise), Tone.FAINT)
