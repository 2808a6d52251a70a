"""What everything on one page has in common: the run, the samples it shows, the names it hands out, how it was made."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from xaicli.answer import Answer, Counts
from xaicli.layout import RunLayout
from xaicli.report.charts import Image, Tone
from xaicli.report.model import IN_CSV, Block, Cell, Column, Link, Report, Section, Table, Text, rest_of
from xaicli.report.numbers import count, in_words, listed, short
from xaicli.tables.labels import in_order_apart, names_apart
from xaicli.takeback import COUNTED_WITH
from xaicli.vocabulary import LABEL, NO_CLASS, PREDICTION, Duplicates

if TYPE_CHECKING:
    from xaicli.manifest import Attempt
    from xaicli.report.model import Rows
    from xaicli.state.best import Checkpoint
    from xaicli.state.folder import SavedState


@dataclass(frozen=True)
class RunFacts:
    """The run as its directory describes it.

    Attributes:
        path: The run directory as the user named it.
        name: What the user called the run; else the folder's name.
        label_names: The names of labels 0, 1, 2, ...
        label_key: The column that a question took for the label; the names are those of classes, not of a fact.
        label_is_truth: Whether that column is held against the predictions, as of their classes.
        label_map: {label: name} that a question gave them.
        config: What the user passed to `Run(config=...)`.
        environment: What the recorder found: packages, git, machine, model.
        attempts: The starts of the training process.
        states: The saved states of the training.
        checkpoints: The files in `checkpoints/`.
        run_id: Which run it is, wherever its directory lies.
        task: What an output of the model means; None where the run does not say it.
    """

    path: str
    name: str = ""
    created_at: str = ""
    label_names: tuple[str, ...] = ()
    label_key: str = LABEL
    label_is_truth: bool = False
    label_map: Mapping[Any, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()
    states: tuple[SavedState, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    run_id: str = ""
    task: str | None = None

    @classmethod
    def of(cls, layout: RunLayout, selection: Mapping[str, Any] | None = None) -> RunFacts:
        """What the manifest says of a run.

        Args:
            layout: The run.
            selection: Of the answer that is shown: what it took for the label, and calls them.

        Raises:
            XaiError: The folder holds no run.
        """
        manifest = layout.read_manifest()
        return cls(
            path=str(layout.root),
            name=manifest.name or layout.root.resolve().name,
            created_at=manifest.created_at,
            label_names=manifest.label_names or (),
            label_key=str((selection or {}).get("label_key") or LABEL),
            label_is_truth=bool((selection or {}).get("label_is_truth")),
            label_map=_by_label((selection or {}).get("label_map") or {}),
            config=manifest.config,
            environment=manifest.environment,
            run_id=manifest.run_id,
            task=manifest.task,
        )

    @classmethod
    def complete(cls, layout: RunLayout, selection: Mapping[str, Any] | None = None) -> RunFacts:
        """Everything in a run directory that says how the run came to be.

        Raises:
            XaiError: The folder holds no run.
        """
        from xaicli.state.best import checkpoints
        from xaicli.state.folder import saved_states
        from xaicli.state.published import read_descriptions

        known = cls.of(layout, selection)
        return replace(
            known,
            environment={**known.environment, **read_descriptions(layout.state)},
            attempts=tuple(layout.read_attempts()),
            states=tuple(saved_states(layout.state)),
            checkpoints=tuple(checkpoints(layout.checkpoints)),
        )

    def label_name(self, label: Any, *, apart: float = 0.0) -> str:
        """What a label is called: sets of classes by their names, numbers rounded.

        Args:
            label: The label as it was recorded, or a prediction.
            apart: How far the numbers beside it lie apart.
        """
        if isinstance(label, list):
            return ", ".join(self.label_name(one) for one in label) or NO_CLASS
        is_code = isinstance(label, int) and not isinstance(label, bool)
        if label in self._names and (is_code or label in self.label_map):
            return self._names[label]
        return _unnamed(label, apart)

    @cached_property
    def _names(self) -> dict[Any, str]:
        """{label: its name}, of the label map, else of the run; as the rows of answers have it."""
        known = enumerate(self.label_names if self._are_classes else ())
        return names_apart({**dict(known), **self.label_map})

    @property
    def names_of_labels(self) -> tuple[str, ...]:
        """What all labels and predictions are called that have a name."""
        classes = () if self._are_classes else in_order_apart(self.label_names)
        return tuple(dict.fromkeys((*self._names.values(), *classes)))

    @property
    def _are_classes(self) -> bool:
        return self.label_key in (LABEL, PREDICTION) or self.label_is_truth

    def prediction_name(self, prediction: Any, *, apart: float = 0.0) -> str:
        """What a prediction is called: as a label is, but where what is no truth of it stands for the label."""
        if self._are_classes:
            return self.label_name(prediction, apart=apart)
        return replace(self, label_key=LABEL, label_map={}).label_name(prediction, apart=apart)

    def class_name(self, label: Any) -> str:
        """What a label or prediction is called where one is held against the other, whatever stands for the label."""
        return replace(self, label_key=LABEL).label_name(label)

    def may_be_true(self, label: Any, prediction: Any) -> bool:
        """Whether a label may be what should have been predicted: not what only groups samples, and of its kind."""
        return (self.label_key == LABEL or self.label_is_truth) and (
            type(label) is type(prediction) or (isinstance(prediction, float) and isinstance(label, int))
        )


def _unnamed(label: Any, apart: float) -> str:
    if isinstance(label, float):
        return short(label, apart=apart)
    if isinstance(label, bool):
        return str(label).lower()
    return "–" if label is None else str(label)


def _by_label(given: Mapping[str, Any]) -> dict[Any, str]:
    """{label: name} of the names of a selection, each with its label, or with several."""
    return {label: name for name, labels in given.items() for label in as_list(labels)}


def label_names_of(facts: RunFacts | None) -> tuple[str, ...]:
    """What the labels of a run are called, those that are nowhere on its page too."""
    return facts.names_of_labels if facts else ()


def run_line(answer: Answer, facts: RunFacts | None) -> str:
    """The run in one line: where, what was selected, when it was recorded."""
    parts = [f"run {answer.run}"]
    for key, word in (("mode", "mode"), ("ds_id", "data set"), ("metric", "metric")):
        given = as_list(answer.selection.get(key))
        # A data set without a name is named where it stands beside others.
        values = [str(value) if value else '""' for value in given if value is not None]
        if key == "mode" and len(values) > 1 and '""' in values:
            values = [*(value for value in values if value != '""'), "and none"]  # scalars logged outside of modes
        if values and values != ['""']:
            parts.append(f"{word} {', '.join(values)}")
    if facts and facts.created_at:
        parts.append(f"recorded {facts.created_at[:16].replace('T', ' ')}")
    return " · ".join(parts)


def as_list(value: Any) -> list[Any]:
    """A value of a selection as a list, whether it was given as one or not."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]


SampleKey = tuple[str, str, int | str]
"""(mode, ds_id, sample_id)."""
PredictionKey = tuple[str, str, Any, int, int | None]
"""(mode, ds_id, sample_id, epoch, pass)."""

_LONGEST = 40


class Names:
    """Hands out file names made from text of elsewhere, safe and short.

    The same thing gets the same name, two things never share one.
    """

    def __init__(self) -> None:
        self._given: dict[tuple[Hashable, ...], str] = {}
        self._taken: set[str] = set()

    def __call__(self, *parts: Hashable) -> str:
        """A name of lower-case letters, digits and dashes for what `parts` identify together."""
        if parts not in self._given:
            words = (re.sub(r"[^a-z0-9]+", "-", str(part).lower()).strip("-")[:_LONGEST] for part in parts)
            stem = "-".join(word for word in words if word) or "x"
            name, again = stem, 1
            while name in self._taken:
                again += 1
                name = f"{stem}-{again}"
            self._given[parts] = name
            self._taken.add(name)
        return self._given[parts]


class Keys:
    """Numbers the samples of a page: `s-0`, `s-1`, ..."""

    def __init__(self) -> None:
        self._given: dict[Hashable, str] = {}

    def __call__(self, mode: str, ds_id: str, sample_id: int | str) -> str:
        """The key of a sample, the same one each time."""
        return self._given.setdefault((mode, ds_id, sample_id), f"s-{len(self._given)}")

    def known(self, mode: str, ds_id: str, sample_id: int | str) -> str:
        """The key of a sample that has one, else ""."""
        return self._given.get((mode, ds_id, sample_id), "")


@dataclass(frozen=True)
class Page:
    """One page: handed down whole, so that nothing on it comes from another place or data set.

    Attributes:
        facts: The run.
        images: Thumbnails of its samples.
        predictions: The model's answers, each at a place that is shown of its sample.
        names: Of files and parts.
        keys: What links the parts of a sample.
    """

    facts: RunFacts = field(default_factory=lambda: RunFacts(""))
    images: Mapping[SampleKey, Image] = field(default_factory=dict)
    predictions: Mapping[PredictionKey, Any] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    keys: Keys = field(default_factory=Keys)

    def label_name(self, label: Any, *, apart: float = 0.0) -> str:
        """What a label is called; a number so that it is told from those that lie `apart`."""
        return self.facts.label_name(label, apart=apart)

    def prediction_name(self, prediction: Any, *, apart: float = 0.0) -> str:
        """What a prediction is called."""
        return self.facts.prediction_name(prediction, apart=apart)

    def class_name(self, label: Any) -> str:
        """What a label or prediction is called where one is held against the other."""
        return self.facts.class_name(label)

    def label_cell(self, label: Any) -> Any:
        """A label in a table: its name, or the number, whose digits are a matter of the whole column."""
        return label if isinstance(label, float) else self.label_name(label)

    def prediction_cell(self, prediction: Any) -> Any:
        """A prediction in a table, as labels are there."""
        return prediction if isinstance(prediction, float) else self.prediction_name(prediction)


_SHOWN = 12
_GIVEN = frozenset({"query", "ls", "scalars", "checkpoint inspect", "compact"})
"""Questions that count what they give, since there is no one number of rows behind it."""
_DUPLICATES: dict[str, str] = {
    Duplicates.ALL: "each of them counts, too",
    Duplicates.ERROR: "any would have been refused",
}


BY_IDS = "ask for it with --ids"
"""What to do about a sample that is not on a page."""


def place_of(mode: str, ds_id: str) -> str:
    """A mode and data set as pages and links name those of a sample."""
    return f"{mode}/{ds_id}"


def address_of(page: str, sample_id: int | str, place: str = "") -> str:
    """Where a sample is on a page; of those with its id the one of a place, or of any of several, a line each."""
    at = f"&at={quote(place, safe='')}" if place else ""
    return f"{page}#s={quote(str(sample_id), safe='')}{at}"


def made(answer: Answer, *rules: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """The pairs (what, in words): the command, the selection, rules of the question, and every count.

    Args:
        answer: The answer shown.
        rules: Further pairs, between the selection and the counts.
    """
    counts = answer.counts
    said: list[tuple[str, str]] = [("command", answer.command_line()), *_selection(answer), *rules]
    if counts.rows is not None:
        said.append(("rows of the answer" if answer.command in _GIVEN else "rows read", count(counts.rows, "row")))
    if counts.non_finite is not None:
        kept = answer.command == "query"
        fate = "shown as they are, null in JSON" if kept else "left out of every statistic"
        said.append(("non-finite values", f"{counts.non_finite:,}, {fate}"))
    if counts.duplicates is not None and answer.selection.get("table"):
        reduce = answer.selection.get("reduce", "mean")
        said.append(("further rows of a sample", f"{counts.duplicates:,}; of several rows of one sample the {reduce}"))
    elif counts.duplicates is not None and answer.command == "scalars":
        said.append(("duplicate values", f"{counts.duplicates:,}; of each moment one counts, of an attempt's the last"))
    elif counts.duplicates is not None and answer.command == "query":
        said.append(("duplicates", f"{counts.duplicates:,}; of samples all rows are there, of scalars one a moment"))
    elif counts.duplicates is not None:
        rule = _DUPLICATES.get(str(answer.selection.get("duplicates")), "of each sample and epoch the last one counts")
        said.append(("duplicate rows", f"{counts.duplicates:,}; {rule}"))
    if counts.dropped is not None:
        said.append(("rows dropped while recording", f"{counts.dropped:,}"))
    if counts.stale is not None:
        said.append((stale_in_words(conditions(answer.selection))[1], f"{counts.stale:,}"))
    if counts.taken_back is not None:
        said.append(("rows taken back by a later attempt", f"{counts.taken_back:,}; {COUNTED_WITH}"))
    if counts.ignored:
        said.append(("ignored labels", f"{counts.ignored:,}, kept as missing"))
    if counts.damaged is not None:
        said.append(("damaged files left out", ", ".join(counts.damaged) or "none"))
    return tuple(said)


def conditions(selection: Mapping[str, Any]) -> str:
    """The options that leave rows out one by one, as named in a sentence: `--where and --label-map`; "" for none."""
    given = {"--where": selection.get("where"), "--label-map": selection.get("label_map")}
    return " and ".join(option for option, value in given.items() if value)


def among(conditions: str) -> str:
    """What limits a statement of what there is, where conditions leave rows out; "" where none do."""
    return f" among the rows of {conditions}" if conditions else ""


def stale_in_words(conditions: str = "") -> tuple[str, str]:
    """What stale samples are called, one and several.

    Args:
        conditions: The options that leave rows out: then a sample may be in the last epoch, in a row that is left out.
    """
    lack = "without a finite value in the last epoch" + among(conditions)
    return f"sample {lack}", f"samples {lack}"


def counts_in_words(counts: Counts | None, *, of: str, conditions: str) -> str:
    """The counts of an answer that are not zero, in a sentence; "" where all are.

    Args:
        counts: What was counted.
        of: The command.
        conditions: The options that left rows out one by one, as named in a sentence.
    """
    if counts is None:
        return ""
    # SQL and files of rows keep what is not finite, and what a run holds is told with it.
    fate = "" if of in ("query", "info", "export") else " left out"
    said = [
        count(number, noun, plural)
        for number, noun, plural in (
            (counts.non_finite, f"non-finite value{fate}", f"non-finite values{fate}"),
            (counts.duplicates, "duplicate row", ""),
            (counts.stale, *stale_in_words(conditions)),
            (counts.dropped, "row not recorded", "rows not recorded"),
        )
        if number
    ]
    if counts.damaged:
        said.append(f"{count(len(counts.damaged), 'damaged file')} left out: {listed(list(counts.damaged), 3)}")
    return " · ".join(said)


def _selection(answer: Answer) -> list[tuple[str, str]]:
    said = []
    for key, value in answer.selection.items():
        values = _in_words(value)
        if not values or values == [""] or value == {}:
            continue
        more = f" and {len(values) - _SHOWN:,} more" if len(values) > _SHOWN else ""
        said.append((key.replace("_", " "), ", ".join(values[:_SHOWN]) + more))
    return said


def _in_words(value: Any) -> list[str]:
    """The parts of a value of a selection, of one with named parts each behind its name."""
    if isinstance(value, Mapping):
        parts = {
            str(name).replace("_", " "): [said or '""' for said in _in_words(part)] for name, part in value.items()
        }
        return [f"{name}: {listed(said, _SHOWN, whole=True)}" for name, said in parts.items() if said != ['""']]
    return [("yes" if item else "no") if isinstance(item, bool) else str(item) for item in as_list(value)]


_MOST_ROWS = 2000
_IDS = frozenset({"sample_id", "example_id"})


def words_of(*parts: object) -> str:
    """What a part of a page is about, in a heading: of metric, mode and data set those that have a name."""
    return " · ".join(str(part) for part in parts if part)


@dataclass(frozen=True)
class Part:
    """What a page says of one (mode, ds_id), or of one metric there.

    Attributes:
        words: What it is about.
        blocks: What it shows.
        sentence: What the page's first sentence says of it.
        title: Its heading; the words without it.
    """

    words: str
    blocks: Iterable[Block]
    sentence: str = ""
    title: str = ""


_TOLD = 3
"""Of so many metrics and data sets the first sentence of a page tells."""


def headline(said: Sequence[tuple[str, str]]) -> str:
    """What the first parts of a page say, each under its name where there are several, and how many more there are.

    Args:
        said: (what a part is about, what it says).
    """
    if len(said) < 2:
        return "".join(sentence for _, sentence in said)
    told = [f"{words}: {sentence}" for words, sentence in said[:_TOLD]]
    more = [f"And {len(said) - _TOLD:,} more, below."] if len(said) > _TOLD else []
    return " ".join((*told, *more))


def report_of(
    answer: Answer,
    page: Page,
    parts: Iterable[Part],
    *,
    name: str,
    title: str,
    rules: Sequence[tuple[str, str]] = (),
    sentence: str = "",
    nothing: str = "The selection leaves nothing.",
    tables: Mapping[str, Callable[[], Rows]],
) -> Report:
    """A page with a section for each part of an answer.

    Args:
        answer: The answer.
        page: The run.
        parts: Of the answer, in their order.
        name: The stem of its files.
        title: The heading.
        rules: What *how this was made* says beside selection and counts.
        sentence: What to say first; what the parts say without it.
        nothing: What to say where there is no part.
        tables: What is written as CSV.
    """
    shown = list(parts)
    sections = [Section(part.title or part.words, page.names("part", part.words), tuple(part.blocks)) for part in shown]
    said = sentence or " ".join(part.sentence for part in shown if part.sentence)
    if not sections and said:
        sections = [Section(title, name, (Text(nothing, Tone.FAINT),))]
    return Report(
        name=name,
        title=title,
        run_line=run_line(answer, page.facts),
        label_names=label_names_of(page.facts),
        run_id=page.facts.run_id,
        sentence=said or nothing,
        sections=tuple(sections),
        made=made(answer, *rules),
        warnings=answer.warnings,
        tables=tables,
    )


def plain_report(
    answer: Answer, facts: RunFacts | None = None, *, title: str = "", sentence: str = "", terminal_rows: int = 20
) -> Report:
    """A page with one table of all rows.

    Args:
        answer: What the query returned.
        facts: The run; None for a question about several.
        title: The heading; the command's name without it.
        sentence: What to say first; the number of rows without it.
        terminal_rows: How many rows a terminal shows.
    """
    title = title or answer.command.replace("_", " ").replace("-", " ").capitalize()
    return Report(
        name=answer.command.replace("_", "-"),
        title=title,
        run_line=run_line(answer, facts),
        label_names=label_names_of(facts),
        sentence=sentence or f"{count(answer.data.height, 'row')}.",
        sections=(Section(title, "rows", (frame_table(answer, title, terminal_rows=terminal_rows),)),),
        made=made(answer),
        warnings=answer.warnings,
        tables={answer.command.replace("_", "-"): lambda: answer.data},
    )


def frame_table(answer: Answer, title: str, *, terminal_rows: int = 20) -> Table:
    """All columns of an answer's data as a table for people, the first rows of it where there are very many."""
    frame = answer.data.head(_MOST_ROWS)
    # An id is a name, also where it is made of digits: no commas in it.
    numeric = [dtype.is_numeric() and name not in _IDS for name, dtype in frame.schema.items()]
    kinds = [
        Cell.TEXT if not number else Cell.INTEGER if dtype.is_integer() else Cell.NUMBER
        for dtype, number in zip(frame.dtypes, numeric, strict=True)
    ]
    left_out = answer.data.height - frame.height
    return Table(
        name="rows",
        title=title,
        columns=tuple(Column(name, kind) for name, kind in zip(frame.columns, kinds, strict=True)),
        rows=tuple(
            tuple(value if number else _cell(value) for value, number in zip(row, numeric, strict=True))
            for row in frame.iter_rows()
        ),
        note=rest_of(f"and {left_out:,} more rows", IN_CSV) if left_out else "",
        terminal_rows=terminal_rows,
        rest_in=IN_CSV,
    )


def _cell(value: Any) -> str | Link:
    text, whole = in_words(value), in_words(value, whole=True)
    return text if text == whole else Link(text, whole=whole)
