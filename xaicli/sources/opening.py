"""`--data`: from what a user names to a source of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from xaicli.errors import UsageError, XaiError
from xaicli.sources.inputs import IndexedSource, Source
from xaicli.sources.pictures import SUFFIXES, Preparation, open_folder, open_pictures, size
from xaicli.sources.table import TABLES, Logged

if TYPE_CHECKING:
    from xaicli.layout import RunLayout

_FORMS = (
    "it takes module:factory, a folder of images, a picture or a pattern of them ('pics/*.png'), an .npz or .npy file, "
    "a Parquet or CSV table"
)
_WILD = frozenset("*?[")


def open_source(
    spec: str | PathLike[str] | None,
    *,
    layout: RunLayout | None = None,
    mode: Sequence[str] | str | None = None,
    ds_id: Sequence[str] | str | None = None,
    resize: int | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_shape: Sequence[int] | None = None,
    input_names: Sequence[str] | None = None,
    optional_inputs: Sequence[str] = (),
    input_dtypes: Sequence[str] | None = None,
    label_names: Sequence[str] | None = None,
    channels: int | None = None,
    asked: Sequence[str] = (),
    pythonpath: Sequence[str | PathLike[str]] = (),
    strict: bool = False,
    logged: Logged | None = None,
) -> Source:
    """Open a source of samples.

    Args:
        spec: `module:factory`; an image folder, one picture or a pattern of pictures; an `.npz` or `.npy` file; a
            Parquet table or a folder of them; a CSV table. None for the inputs kept in the run.
        layout: The run, for kept inputs.
        mode: Only samples of these modes, `all`, or `!MODE` for all but one: of kept inputs; one alone is handed to a
            factory that takes `mode`.
        ds_id: Only kept inputs of these data sets, or `!ID` for all but one.
        resize: Height and width of pictures, or one number for both.
        mean: Per channel, subtracted from pictures in [0, 1].
        std: Per channel, divided by after that.
        input_shape: The shape of one input as the checkpoint has it; pictures are brought to it.
        input_names: What the checkpoint calls its inputs, in call order: arrays, columns and items of these names are
            the inputs, in this order.
        optional_inputs: Others that it takes where they are there.
        input_dtypes: Their dtypes: what is to be integers is taken as it is.
        label_names: The outputs of the checkpoint in order: the numbers of class folders with these names.
        channels: How many channels the model reads, where its `input_shape` is not known.
        asked: Which of resize, mean and std the user gave: where there is no picture that takes them, this is said.
        pythonpath: Folders searched for a factory's module.
        strict: Whether a sample that cannot be read is an error instead of being skipped and counted.
        logged: As `open_kept` takes it.

    Raises:
        XaiError: There is no such source, or it holds nothing.
        UsageError: Several modes of data that is asked for one.
    """
    preparation = Preparation(
        resize=size(resize),
        mean=tuple(mean) if mean is not None else None,
        std=tuple(std) if std is not None else None,
        shape=tuple(input_shape) if input_shape is not None else None,
        names=(*(input_names or ()), *optional_inputs),
        dtypes=tuple(input_dtypes or ()),
        depth=channels,
    )
    source = _opened(
        spec,
        preparation,
        layout=layout,
        mode=[mode] if isinstance(mode, str) else mode,
        ds_id=[ds_id] if isinstance(ds_id, str) else ds_id,
        label_names=label_names,
        pythonpath=pythonpath,
        strict=strict,
        logged=logged,
    )

    def unused() -> tuple[str, ...]:
        left = () if preparation.done else asked
        said = [
            f"--{name} was not used: it is for pictures and bytes, other arrays are input as they are" for name in left
        ]
        if "resized" in preparation.done and preparation.shape is not None:
            height, width = preparation.shape[-2:]
            said.append(
                f"pictures were brought to {height}x{width}, the size of the model's input: --resize says another"
            )
        if preparation.lost:
            said.append(f"pictures were scaled and cut to the middle: up to {preparation.lost} was cut off")
        return tuple(said)

    return replace(source, input_names=preparation.names, optional=frozenset(optional_inputs), late_notes=unused)


def _opened(
    spec: str | PathLike[str] | None,
    preparation: Preparation,
    *,
    layout: RunLayout | None,
    mode: Sequence[str] | None,
    ds_id: Sequence[str] | None,
    label_names: Sequence[str] | None,
    pythonpath: Sequence[str | PathLike[str]],
    strict: bool,
    logged: Logged | None,
) -> IndexedSource:
    if spec is None:
        if layout is None:
            raise XaiError("no data given, and no run whose kept inputs could serve", hint=f"--data: {_FORMS}")
        from xaicli.sources.table import open_kept

        return open_kept(layout, mode, preparation, strict=strict, ds_id=ds_id, logged=logged)
    path = Path(spec)
    kind = path.suffix.lower()
    if kind in (".npz", ".npy") and path.is_file():
        from xaicli.sources.arrays import open_arrays

        return open_arrays(path, preparation, strict=strict)
    if (path.is_file() and kind in TABLES) or (path.is_dir() and any(path.glob("*.parquet"))):
        from xaicli.sources.table import open_table

        return open_table(path, preparation, mode=_only(mode), strict=strict)
    if path.is_dir():
        return open_folder(path, preparation, label_names=label_names, strict=strict)
    if path.is_file() and kind in SUFFIXES:
        return open_pictures(path.parent, [Path(path.name)], preparation, str(spec), label_names=None, strict=strict)
    if path.exists():
        raise XaiError(f"--data {spec} is none of the forms it takes", hint=_FORMS)
    if _WILD & set(str(spec)):
        return _matching(str(spec), preparation, label_names=label_names, strict=strict)
    if ":" in str(spec):
        from xaicli.sources.factory import open_factory

        return open_factory(str(spec), preparation, mode=_only(mode), pythonpath=pythonpath, strict=strict)
    raise XaiError(f"--data {spec}: there is no such file or folder", hint=_FORMS)


def _only(mode: Sequence[str] | None) -> str | None:
    """The one mode that data of one's own is asked for; None of all.

    Raises:
        UsageError: Several are named.
    """
    if not mode or "all" in mode:
        return None
    if len(mode) > 1 or mode[0].startswith("!"):
        raise UsageError(
            f"--mode {','.join(mode)}: --data is asked for one mode",
            hint="--mode eval",
            refused=("mode",),
            by=("data",),
        )
    return mode[0]


def _matching(
    pattern: str, preparation: Preparation, *, label_names: Sequence[str] | None, strict: bool
) -> IndexedSource:
    """The pictures that a pattern matches; folders below its part without a wildcard are classes.

    Raises:
        XaiError: It matches nothing, or files that are no pictures.
    """
    parts = Path(pattern).parts
    fixed = next(position for position, part in enumerate(parts) if _WILD & set(part))
    folder = Path(*parts[:fixed]) if fixed else Path()
    files = sorted(path.relative_to(folder) for path in folder.glob(str(Path(*parts[fixed:]))) if path.is_file())
    others = [file for file in files if file.suffix.lower() not in SUFFIXES]
    if not files:
        raise XaiError(f"--data {pattern}: no file matches", hint=_FORMS)
    if others:
        raise XaiError(
            f"--data {pattern} matches {len(others)} of {len(files)} files that are no pictures, {others[0]} for one",
            hint="a pattern is for pictures; name one table or array file, or a folder of Parquet tables",
        )
    return open_pictures(folder, files, preparation, pattern, label_names=label_names, strict=strict)
