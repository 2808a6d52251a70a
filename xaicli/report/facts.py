"""What a report says about the run itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xaicli.answer import Answer
from xaicli.layout import RunLayout
from xaicli.manifest import Attempt
from xaicli.report.numbers import count, cut
from xaicli.state.published import read_descriptions


@dataclass(frozen=True)
class RunFacts:
    """The run as its directory describes it.

    Attributes:
        path: The run directory as the user named it.
        name: What the user called the run; else the folder's name.
        label_names: The names of labels 0, 1, 2, ...
        config: What the user passed to `Run(config=...)`.
        environment: What the recorder found: packages, git, machine, model.
        attempts: The starts of the training process.
    """

    path: str
    name: str = ""
    created_at: str = ""
    label_names: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()

    @classmethod
    def of(cls, layout: RunLayout) -> RunFacts:
        """The facts in a run directory.

        Raises:
            XaiError: The folder holds no run.
        """
        manifest = layout.read_manifest()
        return cls(
            path=str(layout.root),
            name=manifest.name or layout.root.resolve().name,
            created_at=manifest.created_at,
            label_names=manifest.label_names or (),
            config=manifest.config,
            environment={**manifest.environment, **read_descriptions(layout.state)},
            attempts=tuple(layout.read_attempts()),
        )

    def label_name(self, label: Any) -> str:
        """What a label is called, in few enough characters to show."""
        if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(self.label_names):
            return cut(self.label_names[label])
        return "–" if label is None else cut(str(label))


def run_line(answer: Answer, facts: RunFacts | None) -> str:
    """The run in one line: where, what was selected, when it was recorded."""
    parts = [f"run {answer.run}"]
    for key, word in (("mode", "mode"), ("ds_id", "data set"), ("metric", "metric")):
        values = [str(value) for value in as_list(answer.selection.get(key)) if value not in (None, "")]
        if values:
            parts.append(f"{word} {', '.join(values)}")
    if facts and facts.created_at:
        parts.append(f"recorded {facts.created_at[:16].replace('T', ' ')}")
    return " · ".join(parts)


def as_list(value: Any) -> list[Any]:
    """A value of a selection as a list, whether it was given as one or not."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]


def made(answer: Answer, *rules: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """*How this was made*: the command, the selection, rules of the question, and every count.

    Args:
        answer: The answer shown.
        rules: Further (what, in words) pairs, between the selection and the counts.
    """
    counts = answer.counts
    said: list[tuple[str, str]] = [("command", command_line(answer)), *_selection(answer), *rules]
    if counts.rows is not None:
        said.append(("rows read", count(counts.rows, "row")))
    if counts.non_finite is not None:
        said.append(("non-finite values", f"{counts.non_finite:,}, left out of every statistic"))
    if counts.duplicates is not None:
        said.append(("duplicate rows", f"{counts.duplicates:,}; of each sample and epoch the last one counts"))
    if counts.dropped is not None:
        said.append(("rows dropped while recording", f"{counts.dropped:,}"))
    if counts.stale is not None:
        said.append(("samples absent from the last epoch", f"{counts.stale:,}"))
    if counts.damaged is not None:
        said.append(("damaged files left out", ", ".join(counts.damaged) or "none"))
    return tuple(said)


def command_line(answer: Answer) -> str:
    """The command that asks the same question."""
    return f"xai {answer.command.replace('_', '-')} {answer.run}"


def _selection(answer: Answer) -> list[tuple[str, str]]:
    said = []
    for key, value in answer.selection.items():
        values = [str(item) for item in as_list(value)]
        if not values or values == [""] or value == {}:
            continue
        shown = ", ".join(values) if len(values) <= 12 else f"{', '.join(values[:12])} and {len(values) - 12:,} more"
        said.append((key.replace("_", " "), shown))
    return said
