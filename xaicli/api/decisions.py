"""What people decide about a run: what the next training takes, whose labels are looked at, whether it is accepted.

Also the lists of samples that are handed on for it, as `tables/lists.py` reads them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import polars as pl

from xaicli.api.pages import Asked, shown
from xaicli.api.rows import RunRows, Select, refuse_unhonoured
from xaicli.errors import DamagedFileError, UnwrittenError, UsageError, XaiError
from xaicli.files import appearing, have_written, write_whole
from xaicli.location import find_run
from xaicli.render.machine import csv_parts, rows_json
from xaicli.results import Result
from xaicli.tables.cells import is_like_remark
from xaicli.tables.lists import WEIGHT, columns_of_text, id_lines
from xaicli.vocabulary import DS_ID, MODE, SAMPLE_ID
from xaicli.words import quoted, unquoted

if TYPE_CHECKING:
    from xaicli.queries.listed import Ids
    from xaicli.queries.selection import Words
    from xaicli.reader import Reader
    from xaicli.reader.facts import FactFiles


class RunDecisions(RunRows):
    """The part of `RunReader` that decides something: choices, labels to correct and corrected, rules."""

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
        split: str | None = None,
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
            stat: The score of `hardest`, `easy` and a condition: `last`, `mean`, or another statistic of `dynamics`.
            complete_only: Leave out samples without a finite value in the last epoch.
            table: The metrics table with the embeddings of `diverse`.
            column: Its columns of vectors; those not reduced at collection when None.
            split: Its split; when None the one called as the data set or the mode, else the only one with its samples.
        """
        from xaicli.choices.questions import Wanted, with_note_for_training
        from xaicli.choices.questions import select as chosen
        from xaicli.choices.rules import Rule, choice
        from xaicli.queries.truth import by_truth

        refuse_unhonoured("select", select)
        how: dict[str, Any] = {"n": n, "share": share, "per_label": per_label, "by": by, "weight": weight, "seed": seed}
        asked = choice(rule, where=select.get("where"), **how)
        if rule is None:
            select.pop("where")
        given = {"--table": table != "metrics", "--column": bool(column), "--split": split is not None}
        if asked.rule is not Rule.DIVERSE and any(given.values()):
            option = next(name for name, is_given in given.items() if is_given)
            said = f"{option} says which embeddings, and the rule is {asked.named}"
            hint = "--rule diverse goes by collected embeddings"
            raise UsageError(said, hint=hint, refused=("table", "column", "split"), by=("rule",))
        reader, selection = self.selected_for(asked, **select)
        selection = by_truth(reader, selection)
        wanted = Wanted(asked, stat, complete_only, table, column, split)
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
        facts: FactFiles = None,
        no_facts: bool = False,
        path: str | None = None,
        field: str | None = None,
        by: str | None = None,
        table: str | None = None,
        strict: bool = False,
    ) -> Result:
        """What people said of samples, as one label each, and how many suspects were right.

        Args:
            files: What Label Studio, CVAT, FiftyOne or another tool wrote, or a table with sample_id and label.
            mode: Where the samples are looked for; everywhere when None.
            ds_id: The data sets; all when None.
            label_key: The column that was looked at; `label` when None.
            label_map: Further labels: `NAME=VALUE` items, or {name: value}.
            facts: Files of facts, for files that name pictures only.
            no_facts: Know no facts.
            path: The fact that holds the place of a sample's picture; a usual name when None.
            field: The control, field or column with the label, where a file has several.
            by: Only what this person said.
            table: Boxes of this table, where they were exported; of a run without rows of samples its objects anyway.
            strict: Fail on a damaged file instead of leaving it out.

        Returns:
            A row a sample: `xaicli.api.relabel.corrections_of` gives the table that `Table(relabel=...)` takes, which
            takes the result itself, too. Of boxes a row an object of the pictures that were looked at.
        """
        from xaicli.api.relabel import apply

        listed = [files] if isinstance(files, str | os.PathLike) else list(files)
        select = {"mode": mode, "ds_id": ds_id, "label_key": label_key, "facts": facts, "strict": strict}
        select["no_facts"] = no_facts
        return apply(self, listed, path=path, field=field, by=by, label_map=label_map, table=table, select=select)

    def check(
        self,
        *,
        rules: str | os.PathLike[str] | None = None,
        rule: Sequence[str] | str | None = (),
        baseline: str | os.PathLike[str] | None = None,
        mode: str | None = None,
        ds_id: Words = None,
        facts: FactFiles = None,
        no_facts: bool = False,
        strict_drop: bool = False,
        strict: bool = False,
    ) -> Result:
        """Whether this run may replace another: rules on metrics overall, by label and by fact, each with a verdict.

        Args:
            rules: A TOML file of `[[rule]]` tables.
            rule: Rules of one line: `correct mean by label >= 0.8`; none when None.
            baseline: The run that a drop is measured against.
            mode: The mode of rules that name none.
            ds_id: The data sets of rules that name none.
            facts: Files of facts that rules can group by.
            no_facts: Know no facts.
            strict_drop: Fail a drop that is larger than allowed even where chance may have brought it.
            strict: Fail on a damaged file instead of leaving it out.
        """
        from xaicli.checks.questions import check
        from xaicli.queries.selection import ds_id_words
        from xaicli.reader import open_reader

        if rules is not None and not isinstance(rules, str | os.PathLike):
            raise UsageError("rules is a file of rules", hint="rule=['loss mean < 0.5', ...] takes rules of one line")
        given: Any = () if rule is None else (rule,) if isinstance(rule, str) else rule
        lines = list(given) if isinstance(given, Iterable) and not isinstance(given, Mapping | bytes) else [given]
        if not all(isinstance(line, str) for line in lines):
            raise UsageError(f"rule is a text, or several: {rule!r}", hint="rule=['loss mean < 0.5', ...]")
        ds_id_words(ds_id)  # a list of none is refused before a rule is asked
        opening: Any = {"strict": strict, "facts": facts, "no_facts": no_facts}
        other: Reader | XaiError | None
        try:
            other = None if baseline is None else open_reader(find_run(baseline), **opening)
        except DamagedFileError:
            raise
        except XaiError as error:
            other = error  # rules that are not about a drop are asked all the same
        reader = self.reader(**opening)
        answer = check(
            reader,
            rules=rules,
            rule=lines,
            baseline=other,
            mode=mode,
            ds_id=ds_id,
            strict_drop=strict_drop,
        )
        return shown(Asked(answer, self.layout, reader))


KINDS = ("txt", "csv", "parquet", "json", "jsonl")
"""The formats of a list, which are their suffixes."""


def write_list(rows: pl.DataFrame, path: Path) -> Path:
    """Write samples as the suffix of a file says: `.txt` the ids, one a line; the others all columns.

    In CSV, text that a spreadsheet would run as a formula gets an apostrophe in front, which reading takes off again.

    Args:
        rows: A row a sample.
        path: The file, replaced whole.

    Returns:
        `path`.

    Raises:
        UsageError: The suffix is none of these; or ids cannot stand one a line, are of several data sets, weighted.
        UnwrittenError: It cannot be written.
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in KINDS:
        raise UsageError(f"{path} is no list of samples", hint="its suffix says which: " + ", ".join(KINDS))
    try:
        if kind == "txt":
            return write_whole(path, ids_text(rows).encode("utf-8", "surrogateescape"))
        with appearing(path) as file:
            if kind == "csv":
                file.writelines(part.encode() for part in csv_parts(rows))
            elif kind == "parquet":
                have_written(file, rows.write_parquet)
            elif kind == "json":
                file.write(rows_json(rows).encode("utf-8", "surrogatepass"))
            else:
                have_written(file, rows.write_ndjson)
    except OSError as error:
        raise UnwrittenError(
            f"{error.filename or path} cannot be written: {error.strerror or error}", hint="name another file with -o"
        ) from error
    return path


def ids_text(rows: pl.DataFrame) -> str:
    """The ids, one a line; in double quotes where a line would be read as something else.

    Raises:
        UsageError: An id holds a line break, the ids are of several data sets, or samples weigh more or less than 1.
    """
    if WEIGHT in rows.columns and (rows[WEIGHT] != 1).any():
        raise UsageError(
            "a list of ids alone cannot hold weights: it would name the chosen and all others alike",
            hint="write csv, parquet, json or jsonl, or leave out --weight",
        )
    if {MODE, DS_ID} <= set(rows.columns) and rows.select(MODE, DS_ID).n_unique() > 1:
        raise UsageError(
            "a list of ids alone cannot say of which data set each is, and these are of several",
            hint="choose one with --mode and --ds-id, or write csv or parquet",
        )
    lines: list[str] = []
    for sample_id in rows[SAMPLE_ID].cast(pl.String):
        line = quoted(sample_id, special="#" if is_like_remark(sample_id) else "")
        taken_for_heading = not lines and columns_of_text(line) != {SAMPLE_ID: [sample_id]}
        if id_lines(line) != [line] or unquoted(line) != sample_id or taken_for_heading:
            raise UsageError(f"sample_id {sample_id!r} cannot stand on a line of its own", hint="write csv or parquet")
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)
