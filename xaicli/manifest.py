"""What a run says of itself in JSON: `xai.json`, and one file a start of the training.

Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xaicli.errors import XaiError
from xaicli.files import facts_in, with_check
from xaicli.vocabulary import FORMAT, FORMAT_VERSION


@dataclass(frozen=True)
class ColumnFacts:
    """A recorded column as `xai.json` describes it; `dtype` is Arrow's name for it ("float", "int64", "string")."""

    name: str
    dtype: str
    role: str
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Manifest:
    """`xai.json`: what the run is and which columns its samples have."""

    run_id: str
    created_at: str
    name: str | None = None
    id_type: str | None = None
    """"int64" or "string"; None until the first row."""
    label_names: tuple[str, ...] | None = None
    task: str | None = None
    """What an output means; None until that is known."""
    ignore_label: int | str | None = None
    """The label that stands for none."""
    epoch_frequency: int = 1
    """The samples of every n-th epoch only are recorded."""
    keep_probs: bool | tuple[int, ...] = False
    """Whether class probabilities are kept, or the epochs in which they are."""
    columns: tuple[ColumnFacts, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    version: int = FORMAT_VERSION
    """The format version the file says."""
    is_whole: bool = field(default=True, compare=False)
    """Whether the file is what was written; else it was damaged, or edited."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Keys of a later minor format that this version does not know: kept when the file is written again."""

    def to_json(self) -> str:
        """The text of `xai.json` in the format version written here, unknown keys of a later version included."""
        known = {key: value for key, value in asdict(self).items() if key not in _NOT_WRITTEN}
        known["columns"] = [{k: v for k, v in column.items() if v is not None} for column in known["columns"]]
        facts = {"format": FORMAT, "version": FORMAT_VERSION, **known, **self.extra}
        return with_check(json.dumps(facts, indent=2, default=str))

    @classmethod
    def from_json(cls, text: str, *, path: Path) -> Manifest:
        """Read `xai.json`.

        Raises:
            XaiError: The text is no such file, or of a newer format version.
        """
        try:
            facts = json.loads(text)
            is_whole = _is_whole(text)
            facts.pop("check", None)
            version = int(facts.pop("version"))
            facts.pop("format", None)
            if version > FORMAT_VERSION:
                raise XaiError(
                    f"{path} has format version {version}; this xai reads up to {FORMAT_VERSION}",
                    hint="upgrade with: pip install --upgrade xaicli",
                )
            columns = tuple(
                ColumnFacts(c["name"], c["dtype"], c["role"], c.get("schema")) for c in facts.pop("columns", ())
            )
            names = facts.pop("label_names", None)
            return cls(
                run_id=str(facts.pop("run_id")),
                created_at=str(facts.pop("created_at")),
                name=facts.pop("name", None),
                id_type=facts.pop("id_type", None),
                label_names=tuple(names) if names else None,
                task=facts.pop("task", None),
                ignore_label=facts.pop("ignore_label", None),
                epoch_frequency=int(facts.pop("epoch_frequency", None) or 1),
                keep_probs=_epochs_or_all(facts.pop("keep_probs", None)),
                columns=columns,
                config=facts.pop("config", None) or {},
                environment=facts.pop("environment", None) or {},
                version=version,
                is_whole=is_whole,
                extra=facts,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise XaiError(f"{path} cannot be read: {error}", hint=_UNREADABLE) from error


_UNREADABLE = (
    "where this folder is a run, all that was recorded lies beside it: put a copy of xai.json back, from a backup or a "
    "store, and do not start without one, which begins another run"
)


_NOT_WRITTEN = ("extra", "version", "is_whole")


def _is_whole(text: str) -> bool:
    try:
        facts_in(text)
    except ValueError:
        return False
    return True


def _epochs_or_all(value: Any) -> bool | tuple[int, ...]:
    return tuple(value) if isinstance(value, list) else bool(value)


@dataclass(frozen=True)
class TakesBack:
    """From which (epoch, step) on an attempt takes back what earlier ones recorded, and what says so."""

    epoch: int
    step: int
    by: str
    """"load_state" or "resume_from"."""


@dataclass(frozen=True)
class Attempt:
    """One start of the training process: `attempts/000000.json`."""

    attempt: int
    resumed_from_step: int | None = None
    """The first training step this attempt logs or, after `load_state`, will log; None until that is known."""
    world_size: int = 1
    host: str = ""
    started_at: str = ""
    takes_back_from: Mapping[str, Any] | None = None
    """{epoch, step, by}: from where on it takes rows back; None where its `train` rows say it."""
    beside: tuple[int, ...] = ()
    """Attempts that were still being recorded when it began: it takes nothing back."""
    total_epochs: int = 0
    """For how many epochs the training was meant when its first row came; 0 where nobody had said."""

    @classmethod
    def of(cls, facts: Mapping[str, Any], *, attempt: int) -> Attempt:
        """What an attempt's file says; unknown keys are ignored.

        Raises:
            ValueError: It is no such file.
        """
        try:
            return cls(
                attempt=attempt,
                resumed_from_step=facts.get("resumed_from_step"),
                world_size=facts.get("world_size", 1),
                host=facts.get("host", ""),
                started_at=facts.get("started_at", ""),
                takes_back_from=facts.get("takes_back_from"),
                beside=tuple(int(other) for other in facts.get("beside") or ()),
                total_epochs=int(facts.get("total_epochs") or 0),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no attempt: {error!r}") from error
