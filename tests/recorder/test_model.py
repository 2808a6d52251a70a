"""Any sequence of logging, flushing, killing, resuming, compacting and reading, against a list of rows."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from xaicli.layout import RunLayout
from xaicli.maintenance.compact import compact
from xaicli.maintenance.doctor import examine
from xaicli.reader import open_reader
from xaicli.recorder.run import Run

EXAMPLES = int(os.environ.get("XAI_TEST_KILLS", "15"))
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.recorder.test_model"])


class Row(NamedTuple):
    """A row as the oracle keeps it, in the order of logging."""

    attempt: int
    place: tuple[str, str, int]
    step: int
    key: int
    loss: float


def train(run_dir: Path, orders: Connection) -> None:
    """A training that does as it is told, until it is killed."""
    with Run(run_dir, strict=True) as run:
        orders.send("begun")
        while order := orders.recv():
            name, arguments = order
            getattr(run, name)(**arguments)
            orders.send("done")


places = st.tuples(st.sampled_from(["train", "eval"]), st.sampled_from(["", "a/b"]), st.integers(1, 3))


class RecordedRuns(RuleBasedStateMachine):
    """One run, its training process, and what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.layout = RunLayout(self.folder / "run")
        self.process: Any = None
        self.rows: list[Row] = []
        self.attempt = -1
        self.step = 0
        self.logged = 0

    @initialize(as_text=st.booleans())
    def begin(self, as_text: bool) -> None:
        self.as_text = as_text
        self.start(0)

    def is_training(self) -> bool:
        return self.process is not None

    @precondition(lambda self: not self.is_training())
    @rule(back=st.integers(0, 4))
    def start(self, back: int) -> None:
        self.orders, theirs = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=train, args=(self.layout.root, theirs), daemon=True)
        self.process.start()
        theirs.close()
        assert self.orders.recv() == "begun"
        self.attempt += 1
        self.step = max(0, self.step - back)

    def order(self, name: str, **arguments: Any) -> None:
        self.orders.send((name, arguments))
        assert self.orders.recv() == "done"

    def log(self, place: tuple[str, str, int], keys: list[int], at_step: int, **stated: int) -> None:
        self.logged += 1
        mode, ds_id, epoch = place
        ids = [f"{key}ü" for key in keys] if self.as_text else keys
        loss = [self.logged + key / 8 for key in keys]
        self.order("log_samples", sample_id=ids, loss=loss, mode=mode, ds_id=ds_id, epoch=epoch, **stated)
        self.rows += [Row(self.attempt, place, at_step, *pair) for pair in zip(keys, loss, strict=True)]

    @precondition(is_training)
    @rule(place=places, keys=st.lists(st.integers(-3, 3), min_size=1, max_size=5), ahead=st.integers(0, 2))
    def log_a_step(self, place: tuple[str, str, int], keys: list[int], ahead: int) -> None:
        self.step += ahead
        self.log(place, keys, self.step, step=self.step)

    @precondition(is_training)
    @rule(place=places, keys=st.lists(st.integers(-3, 3), min_size=1, max_size=5))
    def log_without_a_step(self, place: tuple[str, str, int], keys: list[int]) -> None:
        earlier = [row.step for row in self.rows if row.attempt < self.attempt]
        self.log(place, keys, max(earlier, default=-1) + 1)

    @precondition(is_training)
    @rule()
    def flush(self) -> None:
        self.order("flush")

    @precondition(is_training)
    @rule()
    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.process = None

    @precondition(is_training)
    @rule()
    def close(self) -> None:
        self.orders.send(None)
        self.process.join()
        self.process = None

    @rule()
    def compact(self) -> None:
        compact(self.layout, grace=0)

    @invariant()
    def holds_what_was_logged(self) -> None:
        reader = open_reader(self.layout)
        found = {}
        for mode in reader.modes():
            for ds_id in reader.ds_ids(mode):
                for rows in reader.place_frames(mode, ds_id, ["sample_id", "loss"]):
                    place = (mode, ds_id, rows.place.epoch)
                    found |= {(place, key): loss for key, loss in rows.frame.iter_rows()}
        assert reader.damaged == ()
        assert found == self.expected()

    def expected(self) -> dict[tuple[tuple[str, str, int], int | str], float]:
        """The last row of each sample by (attempt, step, order), of those no later attempt has trained again."""
        first: dict[int, tuple[int, int]] = {}
        for row in self.rows:
            mode, _, epoch = row.place
            if mode == "train":
                first[row.attempt] = min((epoch, row.step), first.get(row.attempt, (epoch, row.step)))
        kept = [
            row
            for row in self.rows
            if all((row.place[2], row.step) < begin for attempt, begin in first.items() if attempt > row.attempt)
        ]
        kept.sort(key=lambda row: (row.attempt, row.step))
        return {(row.place, f"{row.key}ü" if self.as_text else row.key): row.loss for row in kept}

    def teardown(self) -> None:
        if self.is_training():
            self.kill()
        if self.layout.is_run():
            self.holds_what_was_logged()
            Run(self.layout.root).close()
            self.holds_what_was_logged()
            assert examine(self.layout).findings == ()
        shutil.rmtree(self.folder)


def test_whatever_happens_a_run_holds_what_was_logged() -> None:
    run_state_machine_as_test(
        RecordedRuns,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
