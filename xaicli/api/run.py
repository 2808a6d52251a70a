"""`open_run(path)`: what may be asked of a run, each question a method named as its command."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from xaicli.api import runs
from xaicli.api.decisions import RunDecisions
from xaicli.api.pages import Asked, shown
from xaicli.api.rows import OPENING, Select, refuse_others, refuse_unhonoured
from xaicli.errors import UsageError, XaiError
from xaicli.location import find_run
from xaicli.results import Result
from xaicli.vocabulary import LOSS, Axis

_OF_ROWS_ALONE = ("mode", "ds_id", "epoch", "epoch_frequency", "label_map", "where")

if TYPE_CHECKING:
    from xaicli.answer import Answer
    from xaicli.queries.listed import Ids
    from xaicli.queries.selection import Selection, Words
    from xaicli.reader import Reader
    from xaicli.reader.facts import FactFiles


def open_run(path: str | os.PathLike[str] | None = None) -> RunReader:
    """Open a run to ask about it, during or after training.

    Args:
        path: The run directory or its address in an object store; without it `$XAI_RUN`, the current directory if it
            is a run, or the newest run below `./runs`.

    Raises:
        XaiError: There is no run, or one of a newer format version.
    """
    return RunReader(find_run(path))


class RunReader(RunDecisions):
    """A run to ask about. Every method takes the options of the command of its name and returns a result.

    A result has `.data` (polars), `.figure()`, `.html()`, `.save(dir)`, and shows itself in a notebook. The folder is
    listed anew for every question, so a run still being recorded may be asked again.

    Args:
        layout: The run.
    """

    def samples(
        self,
        *,
        max: int = 5,
        min: int = 5,
        ids: Ids = None,
        stat: str = "last",
        complete_only: bool = False,
        table: str | None = None,
        reduce: str | None = None,
        **select: Unpack[Select],
    ) -> Result:
        """The samples with the highest and lowest scores, and listed ones, with their histories.

        Args:
            max: How many of the highest.
            min: How many of the lowest.
            ids: Samples to list beside these: one, a list, array, series or tensor of them, or a text with commas;
                a frame with a column sample_id, whose columns mode and ds_id say which rows are meant; none where it is
                empty.
            stat: The score: `last`, `first`, `mean`, `min`, `max`, `std`, `slope`, or a statistic of `dynamics`.
            complete_only: Leave out samples without a finite value in the last epoch.
            table: A metrics table to ask instead of the samples.
            reduce: Of several rows of a sample in a table: `max`, `min`, `mean` (when None), `count` or `first`.
        """
        from xaicli.dynamics.statistics import scores_by
        from xaicli.queries.samples import samples
        from xaicli.queries.truth import by_truth

        if table is not None:
            asked: dict[str, Any] = {"max": max, "min": min, "ids": ids, "stat": stat, "complete_only": complete_only}
            return self._table_samples(table, select, reduce=reduce or "mean", **asked)
        if reduce is not None:
            raise UsageError(
                "--reduce is about the rows of a table", hint="add --table NAME, or leave it out", refused=("reduce",)
            )
        reader, selection = self.selected(**select)
        selection = by_truth(reader, selection, selection.metrics, shows_right=True)
        scores = scores_by(reader, selection, stat)
        answer = samples(
            reader, selection, max=max, min=min, ids=ids, stat=stat, complete_only=complete_only, scores=scores
        )
        return shown(Asked(answer, self.layout, reader, selection))

    def _table_samples(self, table: str, select: Select, **asked: Any) -> Result:
        """`samples` of a metrics table."""
        from xaicli.queries.table_samples import are_of_samples, table_samples

        words: dict[str, Any] = dict(select)
        refuse_others(words)
        if words.get("axis") == Axis.PASS:
            raise UsageError(
                "samples --table has no use for --axis pass: a table has none",
                hint="leave --axis out",
                refused=("axis",),
                by=("table",),
            )
        opening = {name: words.pop(name) for name in ("strict", "attempts", "facts", "no_facts") if name in words}
        reader = self.reader(**opening)
        answer = table_samples(reader, table, **words, **asked)
        return shown(Asked(answer, self.layout, pictured=reader if are_of_samples(reader, table) else None))

    def labels(self, *, bounds: Sequence[str] | str | None = ("std",), **select: Unpack[Select]) -> Result:
        """Each label's mean and spread over the epochs."""
        from xaicli.queries.labels import labels

        reader, selection = self.selected(**select)
        answer = labels(reader, selection, bounds=bounds)
        return shown(Asked(answer, self.layout, reader, selection))

    def scalars(
        self,
        *,
        key: Words = None,
        mode: Words = None,
        ds_id: Words = None,
        smoothing: float = 0.0,
        attempts: str = "last",
        strict: bool = False,
    ) -> Result:
        """The run's scalars, summary and custom graphs over time."""
        return runs.scalars(
            self,
            key=key,
            mode=mode,
            ds_id=ds_id,
            smoothing=smoothing,
            attempts=attempts,
            strict=strict,
        )

    def embeddings(
        self,
        *,
        table: str = "metrics",
        column: Sequence[str] | str | None = None,
        colour: str | None = None,
        epoch: int | None = None,
        split: str | None = None,
        facts: FactFiles = None,
        no_facts: bool = False,
        strict: bool = False,
    ) -> Result:
        """Collected embeddings in a plane, coloured by a label, a metric or a fact.

        Args:
            table: The table they were collected into.
            column: The columns of vectors; those reduced at collection, else all, when None.
            colour: The column or fact that colours the points; label, predicted or loss, the first there is, when None.
            epoch: That epoch; the last collected when None.
            split: That split; all when None.
            facts: Files of facts, as elsewhere.
            no_facts: Know no facts.
            strict: Fail on a damaged file instead of leaving it out.
        """
        from xaicli.queries.embeddings import embeddings

        reader = self.reader(strict=strict, facts=facts, no_facts=no_facts)
        answer = embeddings(reader, table=table, column=column, colour=colour, epoch=epoch, split=split)
        return shown(Asked(answer, self.layout))

    def dynamics(
        self,
        *,
        early_epochs: int = 10,
        burn_in: int = 2,
        truth: str | os.PathLike[str] | None = None,
        **select: Unpack[Select],
    ) -> Result:
        """Every training-dynamics statistic of every sample."""
        from xaicli.dynamics.statistics import dynamics

        refuse_unhonoured("dynamics", select, engines=True)
        reader, selection = self.selected(**select)
        answer = dynamics(reader, selection, early_epochs=early_epochs, burn_in=burn_in, truth=truth)
        return shown(Asked(answer, self.layout, reader, selection))

    def findings(self, *, top: int = 10, early_epochs: int = 10, burn_in: int = 2, **select: Unpack[Select]) -> Result:
        """What to look at first, each with its reason."""
        from xaicli.dynamics.computed import compute
        from xaicli.dynamics.findings import findings, findings_of_objects, with_objects
        from xaicli.queries.selection import with_note_of_modes
        from xaicli.queries.truth import by_truth

        refuse_unhonoured("findings", select, engines=True)
        objects = self._objects(early_epochs=early_epochs != 10, burn_in=burn_in != 2, top=top, **select)
        if objects is not None:
            reader, told = objects
            return shown(Asked(findings_of_objects(told), self.layout, reader))
        reader, selection = self.selected(**select)
        _refuse_several("findings", selection)
        selection = with_note_of_modes(by_truth(reader, selection))
        found = compute(reader, selection, early_epochs=early_epochs, burn_in=burn_in)
        answer = findings(reader, selection, found, top=top)
        beside, said = self._objects_beside(reader, select, top=top)
        answer = replace(answer, warnings=(*answer.warnings, *said))
        if beside is not None:
            answer = with_objects(answer, beside)
        return shown(Asked(answer, self.layout, reader, selection, objects=beside))

    def confusion(
        self,
        *,
        cell: str | Sequence[Any] | None = None,
        by: str | None = None,
        top: int | None = None,
        **select: Unpack[Select],
    ) -> Result:
        """Who is taken for whom at every epoch: counts, precision, recall and F1 of each label, calibration.

        Args:
            cell: LABEL,PREDICTION, or the two one by one: the samples of that cell at the last selected epoch instead,
                the worse end of the metric first.
            by: A column whose every value gets figures of its own.
            top: At most how many samples of a cell; 20 when None.
        """
        from xaicli.diagnosis.questions import cell_samples, confusion
        from xaicli.queries.truth import by_truth

        refuse_unhonoured("confusion", select)
        if cell is None:
            for name, given in (("metric", select.get("metric")), ("top", top)):
                if given is not None:
                    said = f"--{name} is about the samples of a cell"
                    raise UsageError(said, hint="add --cell LABEL,PREDICTION", refused=(name,))
            reader, selection = self.selected(every_metric=True, **select)
            # The samples of a cell are told by falling loss.
            selection = by_truth(reader, selection, [LOSS] if LOSS in reader.dtypes else [])
            return shown(Asked(confusion(reader, selection, by=by), self.layout, reader, selection))
        if by is not None:
            hint = "leave out --cell, or limit the samples with --where"
            raise UsageError("--by is about all cells", hint=hint, refused=("by",), by=("cell",))
        reader, selection = self.selected(**select)
        selection = by_truth(reader, selection, selection.metrics)
        answer = cell_samples(reader, selection, cell, top=20 if top is None else top)
        return shown(Asked(answer, self.layout, reader, selection))

    def steps(
        self, *, step: int | None = None, around: int | None = None, spikes: int | None = None, **select: Unpack[Select]
    ) -> Result:
        """The loss of every batch, the spikes and the first non-finite one, and the samples that stood in them.

        Without `mode` the training's batches, without `duplicates` every row counts, whatever repeats in an epoch.

        Args:
            step: The samples of this step instead, by their share of its loss.
            around: Only the steps within 50 of this one; which samples return is of all steps.
            spikes: How many spikes are told with their samples; 5 when None.
        """
        from xaicli.diagnosis.training import samples_of_step, steps
        from xaicli.queries.truth import by_truth

        refuse_unhonoured("steps", select)
        if step is not None and (around is not None or spikes is not None):
            hint, others = "leave out --around and --spikes", ("around", "spikes")
            raise UsageError("--step tells one step alone", hint=hint, refused=others, by=("step",))
        select.setdefault("duplicates", "all")
        reader, selection = self.selected(usual_mode="train", **select)
        _refuse_several("steps", selection)
        selection = by_truth(reader, selection, selection.metrics)
        if step is not None:
            answer = samples_of_step(reader, selection, step)
        else:
            answer = steps(reader, selection, spikes=5 if spikes is None else spikes, around=around)
        return shown(Asked(answer, self.layout, reader, selection))

    def errors(
        self,
        *,
        by: Words = None,
        positive: str | None = None,
        top: int = 20,
        table: str | None = None,
        **select: Unpack[Select],
    ) -> Result:
        """How the model errs, as its task asks: residuals, thresholds, sets of classes, tokens.

        Args:
            by: Facts and columns whose values get figures of their own.
            positive: Of two classes the one that is looked for; the later one in order when None.
            top: At most how many samples are listed as the worst.
            table: The collected objects to tell of; `boxes`, else `instances`, where the run has no rows of samples.
        """
        from xaicli.diagnosis.errors import errors
        from xaicli.diagnosis.objects import object_tables
        from xaicli.queries.selection import words

        refuse_unhonoured("errors", select)
        if select.get("metric") is not None:
            said = "--metric has no meaning here: the task says what is measured"
            raise UsageError(said, hint="leave it out", refused=("metric",))
        if (objects := self._objects(table, by=by, positive=positive, top=top, **select)) is not None:
            reader, told = objects
            return shown(Asked(told, self.layout, reader))
        reader, selection = self.selected(every_metric=True, **select)
        beside = f"xai errors --table {tables[0]} tells of its objects" if (tables := object_tables(reader)) else ""
        try:
            answer = errors(reader, selection, by=words(by, "by"), positive=positive, top=top)
        except UsageError:
            raise
        except XaiError as error:
            if not beside:
                raise
            raise XaiError(error.message, hint="; ".join(part for part in (error.hint, beside) if part)) from error
        if beside:
            answer = replace(answer, warnings=(*answer.warnings, f"this is of the run's samples: {beside}"))
        return shown(Asked(answer, self.layout, reader, selection))

    def _objects(self, table: str | None = None, **select: Any) -> tuple[Reader, Answer] | None:
        """How collected objects were found, where a table of them is named or there are no rows of samples."""
        from xaicli.diagnosis.errors import of_objects

        if table is None and not self.layout.tables.is_dir():
            return None
        own = ("by", "positive", "top", "early_epochs", "burn_in")
        refuse_others({name: value for name, value in select.items() if name not in own})
        reader = self.reader(**{name: select.pop(name) for name in OPENING if name in select})
        told = of_objects(reader, table, **select)
        return None if told is None else (reader, told)

    def _objects_beside(
        self, reader: Reader, select: Mapping[str, Any], **own: Any
    ) -> tuple[Answer | None, tuple[str, ...]]:
        """How collected objects were found, of a run that has rows of samples, too, and what is to be said of it.

        None where rows are chosen, since what chooses rows does not choose objects.
        """
        from xaicli.diagnosis.objects import object_errors, object_tables
        from xaicli.queries.names import with_facts

        if not self.layout.tables.is_dir() or not (tables := object_tables(reader)):
            return None, ()
        if chosen := [name for name in _OF_ROWS_ALONE if select.get(name) not in (None, [], 1)]:
            said = f"--{chosen[0].replace('_', '-')} chooses rows of samples, not the objects of table {tables[0]}"
            return None, (f"{said}: xai errors --table {tables[0]} tells of these",)
        try:
            return with_facts(object_errors(reader, tables[0], **own), reader), ()
        except XaiError as error:
            return None, (error.message,)

    def slices(
        self,
        *,
        by: Words = None,
        min_n: int = 30,
        **select: Unpack[Select],
    ) -> Result:
        """Groups of samples that share facts or a label and fare differently from all others, the worst first.

        Args:
            by: Facts and columns to slice by; the label and every fact when None.
            min_n: Samples a slice must have.
        """
        from xaicli.diagnosis.slicing import slices
        from xaicli.queries.selection import words

        refuse_unhonoured("slices", select)
        reader, selection = self.selected(**select)
        answer = slices(reader, selection, by=words(by, "by"), min_n=min_n)
        return shown(Asked(answer, self.layout, reader, selection))

    def report(
        self,
        *,
        max: int = 5,
        min: int = 5,
        ids: Ids = None,
        stat: str = "last",
        complete_only: bool = False,
        bounds: Sequence[str] | str | None = ("std",),
        truth: str | os.PathLike[str] | None = None,
        **select: Unpack[Select],
    ) -> Result:
        """Everything about the run on one page: histories, labels, data map, suspects, scalars, how it was made."""
        from xaicli.api.gathering import gather, gather_objects
        from xaicli.dynamics.computed import compute
        from xaicli.dynamics.statistics import scores_by
        from xaicli.queries.labels import parse_bounds
        from xaicli.queries.samples import LAST, samples
        from xaicli.queries.table_samples import table_samples
        from xaicli.queries.truth import by_truth

        asked: dict[str, Any] = {"max": max, "min": min, "ids": ids, "stat": stat, "complete_only": complete_only}
        metrics = select.get("metric")
        others: dict[str, Any] = {name: given for name, given in select.items() if name != "metric"}
        if (objects := self._objects(**others)) is not None:
            if truth is not None or list(parse_bounds(bounds)) != ["std"]:
                refused = "truth", "bounds"
                raise UsageError("--truth and --bounds say nothing of objects", hint="leave them out", refused=refused)
            reader, told = objects
            reader.note_all_faults()
            of_pictures: dict[str, Any] = {"metric": metrics or ["fn", "fp"], "by_picture": True}
            chosen = table_samples(reader, "metrics", **of_pictures, **asked, **_of_rows(select))
            gathered = gather_objects(reader, chosen, told)
            return shown(Asked(gathered.answer, self.layout, reader, gathered=gathered))
        reader, selection = self.selected(**select)
        reader.note_all_faults()  # the page shows the state and the checkpoints, too
        selection = by_truth(reader, selection, shows_right=True)
        computed = None if stat == LAST else compute(reader, selection)
        scores = scores_by(reader, selection, stat, computed)
        chosen = samples(
            reader, selection, max=max, min=min, ids=ids, stat=stat, complete_only=complete_only, scores=scores
        )
        beside, said = self._objects_beside(reader, select)
        chosen = replace(chosen, warnings=(*chosen.warnings, *said))
        gathered = gather(reader, selection, chosen, bounds=bounds, truth=truth, computed=computed, objects=beside)
        answer = gathered.answer
        return shown(Asked(answer, self.layout, reader, selection, gathered=gathered))


def _of_rows(select: Select) -> dict[str, Any]:
    """How rows are chosen, without the metric and what the run was opened with."""
    return {name: given for name, given in select.items() if name not in (*OPENING, "metric")}


def _refuse_several(what: str, selection: Selection) -> None:
    """Raise where a question that goes by one metric is asked of several.

    Raises:
        UsageError: It is.
    """
    if len(selection.metrics) > 1:
        raise UsageError(f"{what} are about one metric", hint=f"--metric {selection.metrics[0]}", refused=("metric",))
