"""What a report says about the run itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from xaicli.answer import Answer
from xaicli.layout import RunLayout
from xaicli.report.numbers import cut
from xaicli.vocabulary import NO_CLASS

if TYPE_CHECKING:
    from xaicli.manifest import Attempt
    from xaicli.state.best import Checkpoint
    from xaicli.state.folder import SavedState


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
        states: The saved states of the training.
        checkpoints: The files in `checkpoints/`.
    """

    path: str
    name: str = ""
    created_at: str = ""
    label_names: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()
    states: tuple[SavedState, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()

    @classmethod
    def of(cls, layout: RunLayout) -> RunFacts:
        """What the manifest says of a run.

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
            environment=manifest.environment,
        )

    @classmethod
    def whole(cls, layout: RunLayout) -> RunFacts:
        """Everything in a run directory that says how the run came to be.

        Raises:
            XaiError: The folder holds no run.
        """
        from xaicli.state.best import checkpoints
        from xaicli.state.folder import saved_states
        from xaicli.state.published import read_descriptions

        known = cls.of(layout)
        return replace(
            known,
            environment={**known.environment, **read_descriptions(layout.state)},
            attempts=tuple(layout.read_attempts()),
            states=tuple(saved_states(layout.state)),
            checkpoints=tuple(checkpoints(layout.checkpoints)),
        )

    def label_name(self, label: Any) -> str:
        """What a label is called, in few enough characters to show; a set of classes by their names."""
        if isinstance(label, list):
            return cut(", ".join(self.label_name(one) for one in label) or NO_CLASS)
        if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(self.label_names):
            return cut(self.label_names[label])
        return "–" if label is None else cut(str(label))


def run_line(answer: Answer, facts: RunFacts | None) -> str:
    """The run in one line: where, what was selected, when it was recorded."""
    parts = [f"run {answer.run}"]
    for key, word in (("mode", "mode"), ("ds_id", "data set"), ("metric", "metric")):
        given = as_list(answer.selection.get(key))
        # A data set without a name is named where it stands beside others.
        values = [str(value) if value else '""' for value in given if value is not None]
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
