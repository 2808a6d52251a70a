"""TensorBoard's event files, read by TensorBoard's own reader."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from xaicli.errors import XaiError, missing_extra
from xaicli.importers.recorded import Recorded, attempted

_EVENTS = "*.tfevents.*"


class TensorBoardRuns:
    """A folder of event files, or one with such folders below it: each folder is a run, as TensorBoard shows it."""

    def reads(self, path: Path) -> bool:
        """Whether it is an event file, or there is one in it or below."""
        return ".tfevents." in path.name if path.is_file() else any(path.rglob(_EVENTS))

    def runs(self, path: Path) -> Iterator[Recorded]:
        """The run of each folder with event files; where TensorBoard's reader fails, one with a problem."""
        folders = [path] if path.is_file() else sorted({file.parent for file in path.rglob(_EVENTS)})
        for folder in folders:
            name = str(folder.relative_to(path)) if folder != path else path.stem if path.is_file() else path.name
            yield attempted(name, folder, partial(_run, folder, name))


def _run(path: Path, name: str) -> Recorded:
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.util.tensor_util import make_ndarray
    except ModuleNotFoundError as error:
        raise missing_extra("reading TensorBoard's event files", "tensorboard") from error
    rows: list[tuple[int, str, float]] = []
    plugins: dict[str, str] = {}
    left_out: dict[str, int] = {}
    config: dict[str, Any] = {}
    notes: list[str] = []
    taken_back = 0
    for file in [path] if path.is_file() else sorted(path.glob(_EVENTS)):
        for event in _events(file, EventFileLoader(str(file)), notes):
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                before = len(rows)
                rows = [row for row in rows if row[0] < event.step]
                taken_back += before - len(rows)
            for value in event.summary.value:
                # What a tag is, is said with its first value.
                plugin = plugins.setdefault(value.tag, value.metadata.plugin_data.plugin_name or "other values")
                if plugin == "scalars":
                    rows.append((event.step, value.tag, float(make_ndarray(value.tensor))))
                elif plugin == "hparams":
                    config |= _settings(value.metadata.plugin_data.content)
                else:
                    left_out[plugin] = left_out.get(plugin, 0) + 1
    if taken_back:
        notes.append(f"{taken_back:,} values do not count, as in TensorBoard: a later start logged those steps again")
    scalars = tuple({"step": step, tag: value} for step, tag, value in rows)
    return Recorded(name, scalars, config=config, left_out=left_out, notes=tuple(notes))


def _events(file: Path, loader: Any, notes: list[str]) -> Iterator[Any]:
    """The events of a file, up to where it is damaged, which its reader does not say.

    Raises:
        XaiError: The reader fails.
    """
    n = 0
    try:
        for event in loader.Load():
            n += 1
            yield event
    except Exception as error:
        raise XaiError(f"{file} cannot be read as TensorBoard's events: {error}") from error
    if damaged := _bytes_behind(file, n):
        notes.append(f"{file.name} is damaged: its last {damaged:,} bytes are left out")


def _bytes_behind(file: Path, events: int) -> int:
    """How many bytes a file has behind its first events."""
    size, at = file.stat().st_size, 0
    with file.open("rb") as stream:
        for _ in range(events):
            stream.seek(at)
            at += int.from_bytes(stream.read(8), "little") + 16
    return max(size - at, 0)


def _settings(content: bytes) -> dict[str, Any]:
    """The hyperparameters that a value of the hparams plugin holds; most of its values hold none."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in settings.items()}
