"""Calls from within a call of the same thread: of signals' handlers, hooks, columns that compute themselves."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from xaicli import open_run
from xaicli.recorder import calls, segments
from xaicli.recorder.run import Run

RECORDER = f"{os.sep}xaicli{os.sep}recorder{os.sep}"

Row = tuple[str, int, int, int, int, float]
"""Mode, epoch, pass, step, id and loss."""


def log(run: Run, row: Row) -> None:
    mode, epoch, _, step, one, loss = row
    run.log_samples(sample_id=[one], loss=[loss], mode=mode, epoch=epoch, step=step)


def recorded(folder: Path) -> list[Row]:
    found = open_run(folder).scan().collect()
    return sorted(found.select("mode", "epoch", "pass", "step", "sample_id", "loss").rows())


def scalars(folder: Path) -> list[tuple[str, float]]:
    return sorted(open_run(folder).query("SELECT key, value FROM scalars").data.select("key", "value").rows())


class Interrupt:
    """Calls something once, at the n-th instruction of the recorder's own code, as a signal's handler would be."""

    def __init__(self, at: int, call: Callable[[], None], files: tuple[str, ...] = ()) -> None:
        self.left = at
        self.call = call
        self.files = files
        self.came = False

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if RECORDER not in name or (self.files and not name.endswith(self.files)):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.left -= 1
            if not self.left:
                sys.settrace(None)
                self.came = True
                self.call()
        return self._trace

    def __enter__(self) -> Interrupt:
        self.before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)


OUTER = [("train", 1, 0, step, step, float(step)) for step in range(3)]
INNER: Row = ("test", 1, 0, 9, 1000, 7.0)
LATER = [("train", 1, 0, step, step, float(step)) for step in range(10, 13)]


def log_all(run: Run, rows: list[Row]) -> None:
    for row in rows:
        log(run, row)


def interrupted(run: Run, outer: Callable[[int], object], *files: str, every: int = 1) -> int:
    """Make a call again and again, interrupted at every (`every`-th) instruction by a row of test; how many came."""
    for n in range(10_000):
        row: Row = ("test", 1, 0, n, 1000 + n, float(n))
        with Interrupt(1 + n * every, lambda row=row: log(run, row), files) as inner:  # type: ignore[misc]
            outer(n)
        if not inner.came:
            return n
    raise AssertionError("the call has no end")


def inner_rows(n: int) -> list[Row]:
    return [("test", 1, 0, one, 1000 + one, float(one)) for one in range(n)]


def is_whole(run: Run) -> bool:
    stats = run.stats()
    return (stats["rows_waiting"], stats["rows_dropped"], stats["reasons"], stats["stalls"]) == (0, 0, {}, 0)


def test_a_row_logged_at_any_instruction_of_the_way_into_a_segment_is_kept_beside_all_others(tmp_path: Path) -> None:
    run = Run(tmp_path)
    log_all(run, OUTER)
    given: list[Row] = []

    def outer(n: int) -> None:
        given.append(("train", 1, 0, 5 + n, 5 + n, float(n)))
        log(run, given[-1])

    n = interrupted(run, outer, "segments.py", "writer.py")
    log_all(run, LATER)
    run.close()
    assert n > 80
    assert recorded(tmp_path) == sorted([*OUTER, *given, *LATER, *inner_rows(n)])
    assert is_whole(run)


def test_a_row_logged_at_any_instruction_of_a_batch_unlike_the_one_before_is_kept(tmp_path: Path) -> None:
    run = Run(tmp_path)
    given: list[Row] = []

    def outer(n: int) -> None:
        given.append(("eval", 1, 0, n, n, float(n)))
        label = {"label": [1]} if n % 2 else {}
        run.log_samples(sample_id=[n], loss=[n], mode="eval", epoch=1, step=n, **label)

    n = interrupted(run, outer, every=29)
    run.close()
    assert n > 20
    assert recorded(tmp_path) == sorted([*given, *inner_rows(n)])
    assert is_whole(run)


@pytest.mark.parametrize("every", [1511])
def test_a_row_logged_while_the_first_segment_is_made_waits_for_nothing(tmp_path: Path, every: int) -> None:
    at, came = 60, True
    while came:
        run = Run(tmp_path / str(at))
        with Interrupt(at, lambda run=run: log(run, INNER)) as inner:  # type: ignore[misc]
            log(run, OUTER[0])
        came = inner.came
        run.close()
        assert recorded(run.layout.root) == sorted([OUTER[0], *[INNER] * came])
        assert is_whole(run)  # a wait for oneself would be a stall
        at += every
    assert at > 2 * every


def test_a_row_logged_at_the_change_of_segments_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 4096)
    monkeypatch.setattr(segments, "LONGEST_WAIT", 30.0)
    run = Run(tmp_path)
    run.log_samples(sample_id=[-1], loss=[-1.0], mode="train", epoch=1, step=0)
    given: list[Row] = []

    def wide(n: int) -> None:
        ids = np.arange(400) + 400 * n
        given.extend(("train", 1, 0, n, int(one), float(one)) for one in ids)
        run.log_samples(sample_id=ids, loss=ids.astype(np.float32), mode="train", epoch=1, step=n)

    n = interrupted(run, wide, "segments.py", "writer.py", every=7)
    run.close()
    assert n > 20
    assert recorded(tmp_path) == sorted([("train", 1, 0, 0, -1, -1.0), *given, *inner_rows(n)])
    assert (run.stats()["rows_waiting"], run.stats()["rows_dropped"]) == (0, 0)


def test_a_row_logged_within_flush_is_kept(tmp_path: Path) -> None:
    run = Run(tmp_path)
    log_all(run, OUTER)
    n = interrupted(run, lambda _: run.flush(), every=97)
    run.close()
    assert n > 3
    assert recorded(tmp_path) == sorted([*OUTER, *inner_rows(n)])
    assert is_whole(run)


def test_a_row_logged_within_close_is_kept_or_counted(tmp_path: Path) -> None:
    at, came = 1, True
    while came:
        run = Run(tmp_path / str(at))
        log_all(run, OUTER)
        with Interrupt(at, lambda run=run: log(run, INNER)) as inner:  # type: ignore[misc]
            run.close()
        came, dropped = inner.came, run.stats()["rows_dropped"]
        assert dropped <= came
        assert recorded(run.layout.root) == sorted([*OUTER, *[INNER] * (came - dropped)])
        # The last instructions come at another number in each close: the writer is waited for.
        reasons = [f"the run {run.layout.root} is {state}" for state in ("being closed", "closed")]
        assert run.stats()["reasons"] in ([{reason: 1} for reason in reasons] if dropped else [{}])
        assert run.stats()["rows_waiting"] == 0
        at += 601


@pytest.mark.parametrize("what", ["flush", "close"])
def test_flush_and_close_from_within_are_done_when_the_call_ends(tmp_path: Path, what: str) -> None:
    at, came = 60, True
    while came:
        run = Run(tmp_path / str(at))

        def call(run: Run = run) -> None:
            log(run, INNER)
            getattr(run, what)()

        with Interrupt(at, call) as inner:
            log(run, OUTER[0])
        came = inner.came
        if came:
            assert run.stats()["rows_stored"] == 2
            assert run.is_closed is (what == "close")
        run.close()
        assert recorded(run.layout.root) == sorted([OUTER[0], *[INNER] * came])
        at += 1811


class Lazy:
    """A column that logs while it is computed."""

    def __init__(self, value: float, call: Callable[[], object]) -> None:
        self.value = value
        self.call = call

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        del copy
        self.call()
        return np.array([self.value], dtype)


def test_what_comes_from_within_is_in_the_place_where_it_was_logged_and_holds_what_it_held(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    log(run, OUTER[0])
    loss = np.array([3.0], np.float32)

    def inside() -> None:
        run.state.mode, run.state.epoch_idx, run.state.global_step = "test", 4, 44
        run.log_samples(sample_id=[7], loss=loss)
        run.log({"a": 1.0})
        loss[0] = 99.0
        run.begin_pass("test")
        run.log_samples(sample_id=[7], loss=[5.0])
        run.state.mode, run.state.epoch_idx, run.state.global_step = "train", 1, 1
        run.log_samples(sample_id=[8], loss=[8.0])

    run.log_samples(sample_id=[1], loss=Lazy(1.0, inside), mode="train", epoch=1, step=1)
    kept = run.stats()["rows_logged"]  # when the outer call has ended
    run.close()
    assert kept == 5
    assert recorded(tmp_path / "run") == sorted(
        [OUTER[0], OUTER[1], ("test", 4, 0, 44, 7, 3.0), ("test", 4, 1, 44, 7, 5.0), ("train", 1, 0, 1, 8, 8.0)]
    )
    found = open_run(tmp_path / "run").query("SELECT mode, epoch, step, value FROM scalars").data
    assert found.select("mode", "epoch", "step", "value").rows() == [("test", 4, 44, 1.0)]


def test_rows_from_within_are_kept_when_the_call_itself_fails(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", strict=True)

    def inside() -> None:
        log(run, INNER)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.log_samples(sample_id=[1], loss=Lazy(1.0, inside), mode="train", epoch=1, step=1)
    assert run.stats()["rows_logged"] == 1
    with pytest.raises(ValueError, match="loss"):
        run.log_samples(sample_id=[1], loss=Lazy(1.0, lambda: run.log_samples(sample_id=[2], loss=["x"], epoch=1)))
    run.close()
    assert INNER in recorded(tmp_path / "run")


def test_too_many_calls_from_within_one_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MOST_ASIDE", 5)
    run = Run(tmp_path / "run")

    def inside() -> None:
        for n in range(8):
            log(run, ("test", 1, 0, n, n, float(n)))
        run.log({"a": 1.0, "b": 2.0, "step": 1})

    run.log_samples(sample_id=[1], loss=Lazy(1.0, inside), mode="train", epoch=1, step=1)
    run.close()
    assert len(recorded(tmp_path / "run")) == 6
    stats = run.stats()
    assert (stats["rows_dropped"], stats["records_dropped"], stats["rows_waiting"]) == (3, 2, 0)


def test_a_hook_for_warnings_that_logs_and_flushes_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "run")
    log(run, OUTER[0])

    def hook(*_: object, **__: object) -> None:
        run.log({"warnings": 1.0, "step": 1})
        run.flush()

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", hook)
        run.log_samples(sample_id=[1], loss=["no number"], mode="train", epoch=1, step=1)
    run.close()
    assert scalars(tmp_path / "run") == [("warnings", 1.0)]


@pytest.fixture
def usr1() -> Iterator[Callable[[Callable[[], None]], None]]:
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, lambda *_: handler())
    signal.signal(signal.SIGUSR1, before)


def test_hundreds_of_signals_whose_handler_logs_lose_nothing(
    tmp_path: Path, usr1: Callable[[Callable[[], None]], None]
) -> None:
    run = Run(tmp_path / "run")
    came: list[Row] = []
    given: list[Row] = []

    def handler() -> None:
        n = len(came)
        came.append(("test", 1, 0, n, 1_000_000 + n, float(n)))
        log(run, came[-1])
        run.log({"preempted": float(n), "step": n})

    usr1(handler)
    stop, main = threading.Event(), threading.main_thread().ident
    assert main is not None

    def send() -> None:
        while not stop.is_set():
            signal.pthread_kill(main, signal.SIGUSR1)
            time.sleep(0.001)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        while len(came) < 200:
            n = len(given)
            given.append(("train", 1, 0, n, n, float(n)))
            log(run, given[-1])
    finally:
        stop.set()
        sender.join()
    run.close()
    assert recorded(tmp_path / "run") == sorted([*given, *came])
    assert scalars(tmp_path / "run") == [("preempted", float(n)) for n in range(len(came))]
    assert run.stats()["rows_waiting"] == 0
