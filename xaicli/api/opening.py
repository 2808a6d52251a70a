"""Where checkpoints and their run are, and how models and data are opened: shared by the commands that load a model."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli.errors import XaiError, unknown
from xaicli.layout import RunLayout, find_runs
from xaicli.location import find_run

if TYPE_CHECKING:
    from xaicli.checkpoint.facts import LoadedModel
    from xaicli.checkpoint.load import Contents
    from xaicli.sources.inputs import Source

_CHECKPOINT = "ckpt.pt"
_WILD = re.compile(r"[*?\[]")
_SHOWN = 3


@dataclass(frozen=True)
class Place:
    """Where a call's checkpoints, run and files are.

    Attributes:
        checkpoints: The files, in the order named.
        layout: The run they belong to, or None.
    """

    checkpoints: tuple[Path, ...]
    layout: RunLayout | None

    @property
    def folder(self) -> Path:
        """Where reports go unless the user says otherwise."""
        return self.layout.reports if self.layout else self.checkpoints[0].parent / "reports"


def find_place(run_dir: str | os.PathLike[str] | None, model: Sequence[str]) -> Place:
    """Find checkpoints and run: a path or pattern, or a name in the run's `checkpoints/`.

    Raises:
        XaiError: There is no such checkpoint, or neither a run nor a checkpoint.
    """
    layout = find_run(run_dir) if run_dir is not None else None
    found: list[Path] = []
    for name in model or (_CHECKPOINT,):
        here = _matches(Path(), name)
        if not here:
            layout = layout or _default_run(name)
            here = _matches(layout.checkpoints, name)
            if not here:
                kept = sorted(path.name for path in layout.checkpoints.glob("*") if not path.name.startswith("."))
                note = "" if run_dir is not None else _other_runs(layout, name)
                if note and not kept:
                    raise XaiError(f"no checkpoint {name!r} in {layout.checkpoints}, which has none", hint=note)
                raise unknown("checkpoint", name, kept, where=str(layout.checkpoints), note=note)
        found += here
    return Place(tuple(dict.fromkeys(found)), layout or _run_of(found[0]))


@dataclass(frozen=True)
class Opening:
    """What builds the models and where their inputs come from, as the options of the same names say it."""

    data: str | None = None
    arch: str | None = None
    arch_args: str | None = None
    weights: str | None = None
    trust_checkpoint: bool = False
    pythonpath: Sequence[str] = ()
    resize: Sequence[int] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    mode: Sequence[str] | None = None
    ds_id: Sequence[str] | None = None
    strict: bool = False

    def asked(self) -> dict[str, Any]:
        """What was said, under the names of the options."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in said.items() if value not in (None, False, ())}

    @property
    def reads_mode(self) -> bool:
        """Whether the samples may go by a mode: those kept in a run, a factory's, a folder of tables'."""
        if self.data is None:
            return True
        path = Path(self.data)
        return (
            not path.is_file()
            and not _WILD.search(self.data)
            and not (path.is_dir() and not any(path.glob("*.parquet")))
        )

    def load(self, path: Path, *, device: str = "cpu") -> LoadedModel:
        """The model of a checkpoint."""
        return self.build(self.read(path), device=device)

    def read(self, path: Path) -> Contents:
        """What a checkpoint holds."""
        from xaicli.checkpoint.load import read_checkpoint

        return read_checkpoint(
            path,
            weights=self.weights,
            trust=self.trust_checkpoint,
            whole=self.arch is None,
            pythonpath=self.pythonpath,
        )

    def build(self, contents: Contents, *, device: str = "cpu") -> LoadedModel:
        """The model of what was read."""
        from xaicli.checkpoint.load import build_model

        return build_model(
            contents, arch=self.arch, arch_args=self.arch_args, pythonpath=self.pythonpath, device=device
        )

    def source(self, layout: RunLayout | None, loaded: LoadedModel, *, used: Collection[str] = ()) -> Source:
        """The samples, as a checkpoint wants them.

        Args:
            layout: The run.
            loaded: The checkpoint.
            used: Which of resize, mean and std say something of more than the samples.
        """
        from xaicli.sources.opening import open_source

        said = self.preparation(layout, loaded)
        asked = [name for name in said["asked"] if name not in used]
        return open_source(self.data, **said | {"asked": asked})

    def preparation(self, layout: RunLayout | None, loaded: LoadedModel) -> dict[str, Any]:
        """The arguments of `open_source` beside the data: what the options say, else what the checkpoint does."""
        facts = loaded.facts
        shapes = facts.input_shapes
        return {
            "layout": layout,
            "logged": partial(_logged, layout, self.strict) if layout else None,
            "mode": self.mode,
            "ds_id": self.ds_id,
            "resize": self.resize,
            "mean": self.mean if self.mean is not None else facts.mean,
            "std": self.std if self.std is not None else facts.std,
            "input_shape": shapes[0] if shapes and len(shapes) == 1 and None not in shapes[0] else None,
            "input_names": facts.input_names,
            "optional_inputs": facts.optional_inputs,
            "input_dtypes": facts.input_dtypes,
            "label_names": facts.label_names,
            "channels": loaded.channels,
            "asked": [name for name in ("resize", "mean", "std") if getattr(self, name) is not None],
            "pythonpath": self.pythonpath,
            "strict": self.strict,
        }


def _logged(layout: RunLayout, strict: bool, ids: Collection[Any]) -> dict[tuple[str, str], set[Any]]:
    """Those of some ids that have rows in each mode and data set of a run."""
    from xaicli.reader import open_reader

    reader = open_reader(layout, strict=strict, no_facts=True)
    pairs = [(mode, ds_id) for mode in reader.modes() for ds_id in reader.ds_ids(mode)]
    return {pair: reader.ids_among(pair, ids) for pair in pairs}


def _matches(folder: Path, name: str) -> list[Path]:
    if not _WILD.search(name):
        path = folder / name
        return [path] if path.exists() else []
    pattern = Path(name)
    base, parts = (Path(pattern.anchor), pattern.parts[1:]) if pattern.is_absolute() else (folder, pattern.parts)
    return sorted(base.glob(str(Path(*parts))))


def _other_runs(taken: RunLayout, name: str) -> str:
    """Which run was looked into, as none was named, and which others have such a checkpoint."""
    others = [run for run in find_runs(Path("runs")) if run.root.resolve() != taken.root.resolve()]
    having = [str(run.root) for run in others if _matches(run.checkpoints, name)]
    told = f"looked in the default run, {taken.root}"
    shown = ", ".join(having[:_SHOWN]) + (f" and {len(having) - _SHOWN} more" if len(having) > _SHOWN else "")
    return f"{told}; {name} is in {shown}: name the run" if having else f"{told}: name another run, or a path"


def _default_run(name: str) -> RunLayout:
    try:
        return find_run(None)
    except XaiError as error:
        raise XaiError(f"no checkpoint {name}: there is no such file, and {error.message}", hint=error.hint) from error


def _run_of(path: Path) -> RunLayout | None:
    """The run a checkpoint lies in, else the default run, else none."""
    for parent in path.resolve().parents:
        if RunLayout(parent).is_run():
            return RunLayout(parent)
    try:
        return find_run(None)
    except XaiError:
        return None
