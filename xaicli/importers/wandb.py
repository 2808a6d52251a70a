"""W&B's offline folders: `run-<id>.wandb`, the log that `wandb sync` would send.

Frames as in LevelDB's log, in each a message of `wandb_internal.proto`. Of these only the few fields that hold what was
logged are read: the package wandb (0.31) has no reader of its own in Python.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from xaicli.errors import XaiError
from xaicli.importers.recorded import Recorded, Values, attempted

_MAGIC = b":W&B"
_HEADER = 7
_BLOCK = 32_768
_FRAME = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_RECORD = {2: "history", 5: "config", 17: "run"}
"""The numbers of the fields in `Record`."""
_KEY, _NESTED_KEY, _JSON = 1, 2, 16
"""In `HistoryItem` and `ConfigItem`."""
_ITEMS, _CONFIG, _DISPLAY_NAME = 1, 4, 8


class OfflineRuns:
    """A `.wandb` file, the folder of a run (`offline-run-...`), or a folder with such folders (`wandb/`)."""

    def reads(self, path: Path) -> bool:
        """Whether it is such a file, or there is one in it or below."""
        return bool(_files(path))

    def runs(self, path: Path) -> Iterator[Recorded]:
        """The run of each file; one that is none of W&B's is a run with a problem."""
        for file in _files(path):
            name = file.stem.removeprefix("run-")
            yield attempted(name, file, partial(_run, file, name))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix == ".wandb" else []
    # `latest-run` is a link to one of the others.
    return sorted(
        {file.resolve() for pattern in ("*.wandb", "*/*.wandb", "wandb/*/*.wandb") for file in path.glob(pattern)}
    )


def _run(file: Path, name: str) -> Recorded:
    data = file.read_bytes()
    if not data.startswith(_MAGIC):
        raise XaiError(f"{file} is no log of W&B", hint="such a file lies in wandb/offline-run-.../run-<id>.wandb")
    config: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    values = Values()
    end = _HEADER
    for payload, behind in _payloads(data):
        end = behind
        for number, record in _fields(payload):
            match _RECORD.get(number):
                case "run":
                    fields = dict(_fields(record))
                    name = fields.get(_DISPLAY_NAME, name.encode()).decode()
                    config |= _items(fields.get(_CONFIG, b""))
                case "config":
                    config |= _items(record)
                case "history":
                    logged = _items(record)
                    step = logged.pop("_step", len(rows))
                    own = {key: value for key, value in logged.items() if not key.startswith("_")}
                    # A key of its own called step must not become the time.
                    rows.append({**{_own(key): value for key, value in values.numbers(own).items()}, "step": int(step)})
    config = {key: value for key, value in config.items() if not key.startswith("_")}
    lost = len(data) - end
    notes = (*((f"{file.name} is damaged: its last {lost:,} bytes are left out",) if lost > 0 else ()), *values.notes())
    return Recorded(name, tuple(rows), config=config, left_out=values.left_out, notes=notes)


def _own(key: str) -> str:
    return f"{key}_logged" if key in ("step", "iteration") else key


def _payloads(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The messages, each with the place behind it; ends before the first that is damaged."""
    at, parts = _HEADER, b""
    while at + _FRAME.size <= len(data):
        room = _BLOCK - at % _BLOCK
        if room < _FRAME.size:  # a block's rest that holds no frame is filled with zeros
            at += room
            continue
        crc, length, kind = _FRAME.unpack_from(data, at)
        part = data[at + _FRAME.size : at + _FRAME.size + length]
        if len(part) < length or zlib.crc32(part, zlib.crc32(bytes([kind]))) != crc:
            return
        at += _FRAME.size + length
        parts = part if kind in (_FULL, _FIRST) else parts + part
        if kind in (_FULL, _LAST):
            yield parts, at


def _items(message: bytes) -> dict[str, Any]:
    """{key: value} of the items (field 1) of a message; of nested keys `outer.inner`."""
    found = {}
    for number, item in _fields(message):
        if number == _ITEMS:
            keys, text = [], "null"
            for field, value in _fields(item):
                if field in (_KEY, _NESTED_KEY):
                    keys.append(value.decode())
                elif field == _JSON:
                    text = value.decode()
            found[".".join(keys)] = json.loads(text)
    return found


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a protobuf message that hold bytes, with their numbers; the others are passed over."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        match tag & 7:
            case 0:
                _, at = _varint(message, at)
            case 1:
                at += 8
            case 2:
                length, at = _varint(message, at)
                yield tag >> 3, message[at : at + length]
                at += length
            case 5:
                at += 4
            case kind:
                raise XaiError(f"a message of wire type {kind} is none of W&B's")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value, at
