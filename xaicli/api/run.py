"""`open_run(path)`: what may be asked of a run, each question a method named as its command."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from xaicli.api import runs
from xaicli.api.pages import Asked, shown
from xaicli.api.rows import OPENING, RunRows, Select, refuse_others, refuse_unhonoured
from xaicli.errors import DamagedFileError, UsageError, XaiError
from xaicli.location import find_run
from xaicli.results import Result
from xaicli.vocabulary import CORRECT

_OF_ROWS_ALONE = ("mode", "ds_id", "epoch", "epoch_frequency", "label_map", "where")

if TYPE_CHECKING:
    from xaicli.answer import Answer
    from xaicli.queries.samples import Ids
    from xaicli.queries.selection import Words
    from xaicli.reader import Reader


def open_run(path: str | os.PathLike[str] | None = None) -> RunReader:
    """Open a run to ask about it, during or after training.

    Args:
        path: The run directory or its address in an object store; without it `$XAI_RUN`, the current directory if it
            is a run, or the newest run below `./runs`.

    Raises:
        XaiError: There is no run, or one of a newer format version.
    """
    return RunReader(find_run(path))


class RunReader(RunRows):
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
            ids: Samples to list: one, a list, array, series or tensor of them, or a text with commas.
            stat: The score: `last`, `first`, `mean`, `min`, `max`, `std`, `slope`, or a statistic of `dynamics`.
            complete_only: Leave out samples absent from the last epoch.
            table: A metrics table to ask instead of the samples.
            reduce: Of several rows of a sample in a table: `max`, `min`, `mean` (when None), `count` or `first`.
        """
        from xaicli.dynamics.statistics import scores_by
        from xaicli.queries.samples import samples

        if table is not None:
            asked: dict[str, Any] = {"max": max, "min": min, "ids": ids, "stat": stat, "complete_only": complete_only}
            return self._table_samples(table, select, reduce=reduce or "mean", **asked)
        if reduce is not None:
            raise UsageError("--reduce is about the rows of a table", hint="add --table NAME, or leave it out")
        reader, selection = self.selected(**select)
        scores = scores_by(reader, selection, stat)
        answer = samples(
            reader, selection, max=max, min=min, ids=ids, stat=stat, complete_only=complete_only, scores=scores
        )
        return shown(Asked(answer, self.layout, reader, selection))

    def _table_samples(self, table: str, select: Select, **asked: Any) -> Result:
        """`samples` of a metrics table."""
        from xaicli.queries.table_samples import table_samples

        words: dict[str, Any] = dict(select)
        refuse_others(words)
        opening = {name: words.pop(name) for name in ("strict", "attempts", "facts", "no_facts") if name in words}
        answer = table_samples(self.reader(**opening), table, **words, **asked)
        return shown(Asked(answer, self.layout))

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
        strict: bool = False,
    ) -> Result:
        """The run's scalars, summary and custom graphs over time."""
        return runs.scalars(self.layout.root, key=key, mode=mode, ds_id=ds_id, smoothing=smoothing, strict=strict)

    def embeddings(
        self,
        *,
        table: str = "metrics",
        column: Sequence[str] | str | None = None,
        colour: str | None = None,
        epoch: int | None = None,
        split: str | None = None,
        strict: bool = False,
    ) -> Result:
        """Collected embeddings in a plane, coloured by a label or a metric.

        Args:
            table: The table they were collected into.
            column: The columns of vectors; those reduced at collection, else all, when None.
            colour: The column that colours the points; label, predicted or loss, the first there is, when None.
            epoch: That epoch; the last collected when None.
            split: That split; all when None.
            strict: Fail on a damaged file instead of leaving it out.
        """
        from xaicli.queries.embeddings import embeddings

        reader = self.reader(strict=strict)
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

        refuse_unhonoured("findings", select, engines=True)
        objects = self._objects(early_epochs=early_epochs != 10, burn_in=burn_in != 2, top=top, **select)
        if objects is not None:
            reader, told = objects
            return shown(Asked(findings_of_objects(told), self.layout, reader))
        reader, selection = self.selected(**select)
        selection = with_note_of_modes(selection)
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
                by the highest metric.
            by: A column whose every value gets figures of its own.
            top: At most how many samples of a cell; 20 when None.
        """
        from xaicli.diagnosis.questions import cell_samples, confusion, refuse_other_tasks

        refuse_unhonoured("confusion", select)
        if cell is None:
            for name, given in (("--metric", select.get("metric")), ("--top", top)):
                if given is not None:
                    raise UsageError(f"{name} is about the samples of a cell", hint="add --cell LABEL,PREDICTION")
            select["metric"] = CORRECT
            try:
                reader, selection = self.selected(**select)
            except XaiError:
                if (reader := self.reader(strict=select.get("strict", False))).modes():
                    refuse_other_tasks(reader)
                raise
            return shown(Asked(confusion(reader, selection, by=by), self.layout, reader, selection))
        if by is not None:
            raise UsageError("--by is about all cells", hint="leave out --cell, or limit the samples with --where")
        reader, selection = self.selected(**select)
        answer = cell_samples(reader, selection, cell, top=20 if top is None else top)
        return shown(Asked(answer, self.layout, reader, selection))

    def steps(
        self, *, step: int | None = None, around: int | None = None, spikes: int | None = None, **select: Unpack[Select]
    ) -> Result:
        """The loss of every batch, the spikes and the first non-finite one, and the samples that stood in them.

        Without `mode` the training's batches, without `duplicates` every row counts, whatever repeats in an epoch.

        Args:
            step: The samples of this step instead, by their share of its loss.
            around: Only the steps within 50 of this one.
            spikes: How many spikes are told with their samples; 5 when None.
        """
        from xaicli.diagnosis.training import samples_of_step, steps

        refuse_unhonoured("steps", select)
        if step is not None and (around is not None or spikes is not None):
            raise UsageError("--step tells one step alone", hint="leave out --around and --spikes")
        if select.get("mode") is None and "train" in self.reader(strict=select.get("strict", False)).modes():
            select["mode"] = "train"
        select.setdefault("duplicates", "all")
        reader, selection = self.selected(**select)
        if len(selection.metrics) > 1:
            raise UsageError("steps are about one metric", hint=f"--metric {selection.metrics[0]}")
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
            raise UsageError("--metric has no meaning here: the task says what is measured", hint="leave it out")
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
        from xaicli.queries.facts import with_facts

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

    def select(
        self,
        *,
        rule: str | None = None,
        n: int | None = None,
        share: float | None = None,
        per_label: bool = False,
        by: str | None = None,
        weight: float | None = None,
        seed: int = 0,
        stat: str = "last",
        complete_only: bool = False,
        table: str = "metrics",
        column: Sequence[str] | str | None = None,
        **select: Unpack[Select],
    ) -> Result:
        """The samples that the next training takes, by a rule, and as many drawn at random.

        Args:
            rule: `hardest`, `easy`, `ambiguous`, `forgotten`, `suspects`, `label_issues`, `balanced`, `diverse`,
                `random`, or a condition on samples as SQL, over recorded columns as of each sample's last row, facts
                and the statistics of `dynamics`. Without it `where` is that condition.
            n: How many of each (mode, ds_id).
            share: Which share of them instead, in (0, 1].
            per_label: Take so many of each label.
            by: The column or fact that `balanced` shares out by; the label when None.
            weight: List every sample with a weight: this for the chosen, 1 for all others; with `balanced` the mean
                weight, each label having the same sum.
            seed: Of every draw.
            stat: The score of `hardest` and `easy`: `last`, `mean`, or another statistic of `dynamics`.
            complete_only: Leave out samples absent from the last epoch.
            table: The metrics table with the embeddings of `diverse`.
            column: Its columns of vectors; those not reduced at collection when None.
        """
        from xaicli.choices.questions import Wanted, with_note_for_training
        from xaicli.choices.questions import select as chosen
        from xaicli.choices.rules import choice

        refuse_unhonoured("select", select)
        how: dict[str, Any] = {"n": n, "share": share, "per_label": per_label, "by": by, "weight": weight, "seed": seed}
        asked = choice(rule, where=select.get("where"), **how)
        if rule is None:
            select.pop("where")
        reader, selection = self.selected_for(asked, **select)
        wanted = Wanted(asked, stat, complete_only, table, column)
        answer = chosen(reader, with_note_for_training(selection), wanted)
        return shown(Asked(answer, self.layout, reader, selection))

    def relabel_export(
        self,
        target: str | os.PathLike[str] | None = None,
        *,
        to: str | None = None,
        rule: str | None = None,
        n: int | None = None,
        share: float | None = None,
        per_label: bool = False,
        seed: int = 0,
        ids: Ids = None,
        path: str | None = None,
        prefix: str = "",
        pictures: bool = False,
        table: str | None = None,
        **select: Unpack[Select],
    ) -> Result:
        """Write samples for people who correct labels, with what each might be instead.

        Args:
            target: The file; of FiftyOne the folder. `reports/relabel-TOOL` of the run when None.
            to: `label-studio`, `cvat`, `fiftyone`, `coco` or `csv`; by the suffix of the file when None, else Label
                Studio.
            rule: Which samples, as for `select`; suspects when None.
            n: How many of each (mode, ds_id); all that the rule finds when None.
            share: Which share of them instead.
            per_label: Take so many of each label.
            seed: Of every draw.
            ids: These samples instead.
            path: The fact that holds the place of a sample's picture; a usual name such as `path` when None.
            prefix: What is put before every path.
            pictures: Write kept thumbnails beside the file for samples without a path.
            table: The collected objects whose suspects are written, with the pictures they are in; `boxes`, else
                `instances`, where the run has no rows of samples.

        Returns:
            The samples, with what each might be instead.
        """
        from pathlib import Path

        from xaicli.api.relabel import default_target, export, tool_of

        refuse_unhonoured("relabel_export", select)
        tool = tool_of(to, None if target is None else Path(target))
        choice = {"n": n, "share": share, "per_label": per_label, "seed": seed}
        made = export(
            self,
            tool=tool,
            rule=rule,
            ids=ids,
            path=path,
            prefix=prefix,
            pictures=pictures,
            table=table,
            choice=choice,
            select=select,
        )
        made.write(default_target(self.layout.reports, tool) if target is None else Path(target))
        return made.result

    def relabel_apply(
        self,
        files: Sequence[str | os.PathLike[str]] | str | os.PathLike[str],
        *,
        mode: Words = None,
        ds_id: Words = None,
        label_key: str | None = None,
        label_map: Words | Mapping[str, Any] = None,
        facts: str | os.PathLike[str] | None = None,
        path: str | None = None,
        field: str | None = None,
        by: str | None = None,
        strict: bool = False,
    ) -> Result:
        """What people said of samples, as one label each, and how many suspects were right.

        Args:
            files: What Label Studio, CVAT, FiftyOne or another tool wrote, or a table with sample_id and label.
            mode: Where the samples are looked for; everywhere, train first, when None.
            ds_id: The data sets; all when None.
            label_key: The column that was looked at; `label` when None.
            label_map: Further labels: `NAME=VALUE` items, or {name: value}.
            facts: A file of facts, for files that name pictures only.
            path: The fact that holds the place of a sample's picture; a usual name when None.
            field: The control, field or column with the label, where a file has several.
            by: Only what this person said.
            strict: Fail on a damaged file instead of leaving it out.

        Returns:
            A row a sample: `xaicli.api.relabel.corrections_of` gives the table that `Table(relabel=...)` takes, which
            takes the result itself, too.
        """
        from xaicli.api.relabel import apply

        listed = [files] if isinstance(files, str | os.PathLike) else list(files)
        select = {"mode": mode, "ds_id": ds_id, "label_key": label_key, "facts": facts, "strict": strict}
        return apply(self, listed, path=path, field=field, by=by, label_map=label_map, select=select)

    def check(
        self,
        *,
        rules: str | os.PathLike[str] | None = None,
        rule: Sequence[str] | str = (),
        baseline: str | os.PathLike[str] | None = None,
        mode: str | None = None,
        ds_id: Words = None,
        facts: str | os.PathLike[str] | None = None,
        strict_drop: bool = False,
        strict: bool = False,
    ) -> Result:
        """Whether this run may replace another: rules on metrics overall, by label and by fact, each with a verdict.

        Args:
            rules: A TOML file of `[[rule]]` tables.
            rule: Rules of one line: `correct mean by label >= 0.8`.
            baseline: The run that a drop is measured against.
            mode: The mode of rules that name none.
            ds_id: The data sets of rules that name none.
            facts: A file of facts that rules can group by.
            strict_drop: Fail a drop that is larger than allowed even where chance may have brought it.
            strict: Fail on a damaged file instead of leaving it out.
        """
        from xaicli.checks.questions import check
        from xaicli.queries.selection import ds_id_words
        from xaicli.reader import open_reader

        if rules is not None and not isinstance(rules, str | os.PathLike):
            raise UsageError("rules is a file of rules", hint="rule=['loss mean < 0.5', ...] takes rules of one line")
        ds_id_words(ds_id)  # a list of none is refused before a rule is asked
        other: Reader | XaiError | None
        try:
            other = None if baseline is None else open_reader(find_run(baseline), strict=strict, facts=facts)
        except DamagedFileError:
            raise
        except XaiError as error:
            other = error  # rules that are not about a drop are asked all the same
        reader = self.reader(strict=strict, facts=facts)
        answer = check(
            reader,
            rules=rules,
            rule=[rule] if isinstance(rule, str) else list(rule),
            baseline=other,
            mode=mode,
            ds_id=ds_id,
            strict_drop=strict_drop,
        )
        return shown(Asked(answer, self.layout, reader if "samples" in answer.extra else None))

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

        asked: dict[str, Any] = {"max": max, "min": min, "ids": ids, "stat": stat, "complete_only": complete_only}
        metrics = select.get("metric")
        others: dict[str, Any] = {name: given for name, given in select.items() if name != "metric"}
        if (objects := self._objects(**others)) is not None:
            if truth is not None or list(parse_bounds(bounds)) != ["std"]:
                raise UsageError("--truth and --bounds say nothing of objects", hint="leave them out")
            reader, told = objects
            chosen = table_samples(reader, "metrics", metric=metrics or ["fn", "fp"], **asked, **_of_rows(select))
            gathered = gather_objects(reader, chosen, told)
            return shown(Asked(gathered.answer, self.layout, reader, gathered=gathered))
        reader, selection = self.selected(**select)
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
