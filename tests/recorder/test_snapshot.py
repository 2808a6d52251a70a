"""A snapshot taken while a training logs and a compaction runs: at every possible moment, no gap and no double."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from xaicli import layout as layout_module
from xaicli import parquet
from xaicli.errors import XaiError
from xaicli.layout import DataFile, PartName, RunLayout
from xaicli.maintenance.compact import compact
from xaicli.recorder import segments
from xaicli.recorder.run import Run
from xaicli.wal import snapshot, take_snapshot
from xaicli.wal.frames import FRAME, read_segment, segment_files
from xaicli.wal.snapshot import live_rows


def ids_of(layout: RunLayout) -> list[int]:
    seen = take_snapshot(layout)
    tables = [parquet.read(file.path) for file in seen.files]
    tables += [live.table for live in live_rows(layout, seen.segments)]
    return [key for table in tables for key in table["sample_id"].to_pylist()]


class Interruption:
    """Does something in the middle of the n-th look at a folder or a segment, and once."""

    def __init__(self, nth: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_come = False
        self._left = nth
        self._act = act
        for module, name in ((snapshot, "read_header"), (snapshot, "read_segment"), (snapshot, "segment_files")):
            monkeypatch.setattr(module, name, self._before(getattr(module, name)))
        monkeypatch.setattr(layout_module, "_entries", self._within(layout_module._entries))

    def _is_due(self) -> bool:
        self._left -= 1
        return self._left == -1

    def _come(self) -> None:
        self.has_come = True
        self._act()

    def _before(self, look: Callable[..., Any]) -> Callable[..., Any]:
        def interrupted(*arguments: Any) -> Any:
            if self._is_due():
                self._come()
            return look(*arguments)

        return interrupted

    def _within(self, entries: Callable[..., list[os.DirEntry[str]]]) -> Callable[..., list[os.DirEntry[str]]]:
        """A folder that changes while it is listed shows what was there, and of what is new perhaps the newest only."""

        def interrupted(*folder: Any) -> list[os.DirEntry[str]]:
            if not self._is_due():
                return entries(*folder)
            before = entries(*folder)
            self._come()
            known = {entry.name for entry in before}
            return before + [entry for entry in entries(*folder) if entry.name not in known][-1:]

        return interrupted


class Training:
    """Logs ids 0, 1, 2, ..."""

    def __init__(self, folder: Path) -> None:
        self.layout = RunLayout(folder)
        self.run: Run | None = Run(folder, strict=True)
        self.logged = 0

    def log(self, n: int, epoch: int) -> None:
        assert self.run
        ids = range(self.logged, self.logged + n)
        self.run.log_samples(sample_id=ids, loss=[0.5] * n, epoch=epoch, step=self.logged)
        self.logged += n

    def flush(self) -> None:
        assert self.run
        self.run.flush()

    def close(self) -> None:
        if self.run:
            self.run.close()
        self.run = None

    def go_on(self) -> None:
        """More rows for a segment that may be copied already, then files younger than it in several folders."""
        self.log(3, epoch=2)
        for epoch in (1, 3, 2):
            self.flush()
            self.log(2, epoch)

    def go_on_and_compact(self) -> None:
        self.go_on()
        compact(self.layout, grace=0)

    def go_on_and_end(self) -> None:
        self.go_on()
        self.close()

    def end_and_begin_again(self) -> None:
        self.go_on()
        self.close()
        self.run = Run(self.layout.root, strict=True)
        self.go_on()


@pytest.mark.parametrize("what", ["go_on", "go_on_and_compact", "go_on_and_end", "end_and_begin_again"])
@pytest.mark.parametrize("begun", [True, False])
def test_whenever_the_training_goes_on_its_rows_are_seen_up_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, begun: bool
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # power stays on
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 10_000)
    for nth in count():
        training = Training(tmp_path / str(nth))
        if begun:
            training.log(2, epoch=1)
            training.flush()
            training.log(2, epoch=2)
        acknowledged = training.logged
        with monkeypatch.context() as patch:
            interruption = Interruption(nth, getattr(training, what), patch)
            ids = sorted(ids_of(training.layout))
        assert ids == list(range(len(ids))), (nth, "a gap or a double")
        assert len(ids) >= acknowledged
        training.close()
        if not interruption.has_come:
            break
    assert nth


def test_files_that_keep_appearing_are_not_compacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank whose rows wait in memory has no segments to go by: how far it came is not known while it writes."""
    run = Run(tmp_path / "run", strict=True)
    run.log_samples(sample_id=[0], loss=[0.0])
    run.flush()
    (file,) = run.layout.data_files()
    sequence = count(1)

    def ever_more(*_: object) -> list[DataFile]:
        parts = [PartName(0, 7, number, number) for number in range(next(sequence))]
        return [file, *(replace(file, part=part, path=file.path.with_name(part.filename)) for part in parts)]

    monkeypatch.setattr(RunLayout, "data_files", ever_more)
    seen = take_snapshot(run.layout)
    assert not seen.is_settled
    assert file in seen.files
    with pytest.raises(XaiError, match="keep appearing"):
        compact(run.layout)
    run.close()


def test_rows_of_a_damaged_frame_are_counted_as_far_as_its_bytes_go(tmp_path: Path) -> None:
    """By what its head says, but never more rows than bytes: the head may be what is damaged."""
    run = Run(tmp_path / "run")
    for step in range(3):
        run.log_samples(sample_id=range(10), loss=[0.5] * 10, mode="eval", epoch=1, step=step)
    # Beside the one with rows there are empty ones, made ahead.
    copies = {file: read_segment(file) for file in segment_files(RunLayout(tmp_path / "run"))}
    ((path, sound),) = ((file, copy) for file, copy in copies.items() if copy is not None and copy.frames)
    assert (sound.rows, bool(sound.lost)) == (30, False)
    last = sound.frames[-1]
    content = bytearray(path.read_bytes())
    payload = content.index(bytes(sound.content)) + last.start
    content[payload + 5] ^= 0xFF
    copy = tmp_path / path.name
    copy.write_bytes(content)
    damaged = read_segment(copy)
    assert damaged is not None
    assert (damaged.rows, damaged.lost.rows) == (20, 10)
    head = list(FRAME.unpack_from(content, payload - FRAME.size))
    head[2] = 2**31
    FRAME.pack_into(content, payload - FRAME.size, *head)
    copy.write_bytes(content)
    damaged = read_segment(copy)
    assert damaged is not None
    assert (damaged.rows, damaged.lost.rows) == (20, last.end - last.start)
    head[0] = 2**31  # bytes: it ends nowhere, so that nothing is known but that there was something
    FRAME.pack_into(content, payload - FRAME.size, *head)
    copy.write_bytes(content)
    damaged = read_segment(copy)
    assert damaged is not None
    assert (damaged.rows, damaged.lost.rows, damaged.lost.is_all) == (20, 0, False)
    run.close()
