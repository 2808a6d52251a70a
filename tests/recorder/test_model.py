"""Any sequence of logging, flushing, killing, resuming, rivalling, compacting and reading, against a list of rows."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import pytest
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

from xaicli import parquet
from xaicli.layout import RunLayout
from xaicli.maintenance.compact import compact
from xaicli.maintenance.doctor import examine
from xaicli.reader import open_reader
from xaicli.recorder.run import Run
from xaicli.wal.records import live_records

EXAMPLES = int(os.environ.get("XAI_TEST_KILLS", "8"))
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.recorder.test_model"])
MOST_AT_ONCE = 2
REFUSED_LABEL = ["no class of this run"]

Place = tuple[str, str, int, int]
"""(mode, ds_id, epoch, pass)."""
Point = tuple[int, int]
"""(epoch, step)."""


class Row(NamedTuple):
    """A row as the oracle keeps it, in the order of logging."""

    attempt: int
    place: Place
    step: int
    key: int
    loss: float | None
    label: int | None

    @property
    def point(self) -> Point:
        return self.place[2], self.step


@dataclass
class Training:
    """A process that records, and what the oracle knows of its state."""

    process: Any
    orders: Connection
    attempt: int
    is_beside: bool
    global_step: int | None = None
    goes_through_again: bool = False
    """Whether it has logged `train` rows that name an epoch and no step: what comes without one is at step 0 then."""

    def order(self, name: str, **arguments: Any) -> Any:
        self.orders.send((name, arguments))
        done, answer = self.orders.recv()
        assert done, answer
        return answer


def train(run_dir: Path, orders: Connection, resume_from: Point | None) -> None:
    """A training that does as it is told, until it is killed."""
    warnings.simplefilter("ignore")  # of what is refused, which is counted
    with Run(run_dir, task="classification", resume_from=resume_from) as run:

        def save(epoch: int, step: int) -> None:
            run.state.epoch_idx, run.state.global_step = epoch, step
            run.state.save_state()

        def load() -> tuple[int, int | None]:
            run.state.load_state()
            return run.state.epoch_idx, run.state.global_step

        special = {"save": save, "load": load}
        orders.send((True, run.attempt))
        while order := orders.recv():
            name, arguments = order
            try:
                answer = special.get(name) or getattr(run, name)
                orders.send((True, answer(**arguments)))
            except Exception as error:
                orders.send((False, repr(error)))


modes = st.sampled_from(["train", "train", "eval", "test", "infer"])
places = st.tuples(modes, st.sampled_from(["", "a/b"]), st.integers(1, 3), st.integers(0, 1))
keys_of_a_batch = st.lists(st.integers(-3, 3), min_size=1, max_size=5)
steps = st.integers(0, 6)
which_one = st.integers(0, MOST_AT_ONCE - 1)


class RecordedRuns(RuleBasedStateMachine):
    """One run, the processes that record it, and what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.layout = RunLayout(self.folder / "run")
        self.trainings: list[Training] = []
        self.rows: list[Row] = []
        self.facts: Counter[tuple[int | str, int]] = Counter()
        self.scalars: Counter[tuple[int, float]] = Counter()
        self.dropped = 0
        self.attempts = 0
        self.beside: set[int] = set()
        self.said: dict[int, Point] = {}
        self.saved: Point | None = None
        self.logged = 0

    # -- processes

    @initialize(as_text=st.booleans())
    def begin(self, as_text: bool) -> None:
        """The kinds of the run's ids and labels are settled by its first batch."""
        self.as_text = as_text
        self.start_one(None)
        self.log(self.trainings[0], ("train", "", 1, 0), 0, [0, 1], step=0)
        self.trainings[0].order("flush")

    @precondition(lambda self: not self.trainings)
    @rule(resume_from=st.none() | st.tuples(st.integers(1, 3), steps))
    def start(self, resume_from: Point | None) -> None:
        self.start_one(resume_from)

    @precondition(lambda self: 0 < len(self.trainings) < MOST_AT_ONCE)
    @rule(resume_from=st.none() | st.tuples(st.integers(1, 3), steps))
    def start_beside(self, resume_from: Point | None) -> None:
        self.start_one(resume_from)

    def start_one(self, resume_from: Point | None) -> None:
        ours, theirs = PROCESSES.Pipe()
        process = PROCESSES.Process(target=train, args=(self.layout.root, theirs, resume_from), daemon=True)
        process.start()
        theirs.close()
        _, attempt = ours.recv()
        assert attempt == self.attempts
        self.attempts += 1
        training = Training(process, ours, attempt, is_beside=bool(self.trainings))
        if training.is_beside:
            self.beside.add(attempt)
        if resume_from:
            self.said[attempt] = resume_from
            training.global_step = resume_from[1] or None
        self.trainings.append(training)

    def some(self, which: int) -> Training:
        return self.trainings[which % len(self.trainings)]

    def is_training(self) -> bool:
        return bool(self.trainings)

    @precondition(is_training)
    @rule(which=which_one)
    def kill(self, which: int) -> None:
        training = self.some(which)
        training.process.kill()
        training.process.join()
        self.trainings.remove(training)

    @precondition(is_training)
    @rule(which=which_one)
    def close(self, which: int) -> None:
        training = self.some(which)
        training.orders.send(None)
        training.process.join()
        self.trainings.remove(training)

    # -- logging

    def ids(self, keys: list[int], *, as_text: bool) -> list[Any]:
        return [f"{key}ü" for key in keys] if as_text else list(keys)

    def log(
        self, training: Training, place: Place, at_step: int, keys: list[int], fault: str = "", **given: Any
    ) -> None:
        """Log a batch, one part of it refused where `fault` says which, and keep its rows in the oracle."""
        self.logged += 1
        mode, ds_id, epoch, turn = place
        ids = self.ids(keys, as_text=self.as_text is not (fault == "ids of another kind"))
        loss = [self.logged + key / 8 for key in keys]
        label = [key % 3 for key in keys]
        rows = [Row(training.attempt, place, at_step, *three) for three in zip(keys, loss, label, strict=True)]
        given |= {"sample_id": ids, "loss": loss, "label": label}
        match fault:
            case "ids of another kind":
                self.dropped, rows = self.dropped + len(rows), []
            case "an id is missing":
                given = {**given, "sample_id": [None, *ids], "loss": [0.0, *loss], "label": [0, *label]}
                self.dropped += 1
            case "a column of another length":
                given["loss"] = [*loss, 0.0]
                rows = [row._replace(loss=None) for row in rows]
            case "a label of another kind":
                given["label"] = REFUSED_LABEL * len(rows)
                rows = [row._replace(label=None) for row in rows]
        training.order("log_samples", mode=mode, ds_id=ds_id, epoch=epoch, eval_pass=turn, **given)
        self.rows += rows

    @precondition(is_training)
    @rule(which=which_one, place=places, step=steps, keys=keys_of_a_batch)
    def log_a_step(self, which: int, place: Place, step: int, keys: list[int]) -> None:
        self.log(self.some(which), place, step, keys, step=step)

    @precondition(is_training)
    @rule(which=which_one, place=places, step=steps, batches=st.lists(st.tuples(modes, keys_of_a_batch), max_size=4))
    def alternate(self, which: int, place: Place, step: int, batches: list[tuple[str, list[int]]]) -> None:
        for number, (mode, keys) in enumerate(batches):
            other: Place = (mode, ("", "a/b")[number % 2], place[2], place[3])
            self.log(self.some(which), other, step + number, keys, step=step + number)

    faults = ("ids of another kind", "an id is missing", "a column of another length", "a label of another kind")

    @precondition(is_training)
    @rule(which=which_one, place=places, step=steps, keys=keys_of_a_batch, fault=st.sampled_from(faults))
    def log_what_is_refused_in_part(self, which: int, place: Place, step: int, keys: list[int], fault: str) -> None:
        self.log(self.some(which), place, step, keys, fault, step=step)

    @precondition(is_training)
    @rule(which=which_one, place=places, keys=keys_of_a_batch)
    def log_without_a_step(self, which: int, place: Place, keys: list[int]) -> None:
        training = self.some(which)
        step = training.global_step
        if step is None:
            if training.is_beside:
                return  # what those beside it have in files already is a matter of time
            training.goes_through_again |= place[0] == "train" and place[3] == 0
            # Else behind the last row of the epoch that earlier attempts came to.
            last = max((row.point for row in self.rows if row.attempt < training.attempt), default=(0, -1))
            step = 0 if training.goes_through_again else last[1] + 1
        self.log(training, place, step, keys)

    @precondition(is_training)
    @rule(which=which_one, key=st.integers(-3, 3))
    def log_a_fact(self, which: int, key: int) -> None:
        self.logged += 1
        ids = self.ids([key], as_text=self.as_text)
        self.some(which).order("log_facts", sample_id=ids, logged=[self.logged], refused=[[1]])
        self.facts[ids[0], self.logged] += 1

    @precondition(is_training)
    @rule(which=which_one, step=steps)
    def log_a_scalar(self, which: int, step: int) -> None:
        self.logged += 1
        self.some(which).order("log", values={"step": step, "n": self.logged, "refused": "no number"})
        self.scalars[step, float(self.logged)] += 1

    @precondition(is_training)
    @rule(which=which_one)
    def flush(self, which: int) -> None:
        self.some(which).order("flush")

    # -- going on from a saved state

    @precondition(is_training)
    @rule(which=which_one, epoch=st.integers(1, 3), step=steps)
    def save_state(self, which: int, epoch: int, step: int) -> None:
        training = self.some(which)
        training.order("save", epoch=epoch, step=step)
        self.saved, training.global_step = (epoch, step), step

    @precondition(lambda self: self.trainings and self.saved)
    @rule(which=which_one)
    def load_state(self, which: int) -> None:
        training = self.some(which)
        assert self.saved is not None
        assert tuple(training.order("load")) == self.saved
        epoch, training.global_step = self.saved
        self.said[training.attempt] = (epoch, self.saved[1] + 1)

    @rule()
    def compact(self) -> None:
        compact(self.layout, grace=0)

    # -- what must be true

    def points(self) -> dict[int, Point]:
        """From where on each attempt takes back, by what it says or else by its first `train` row."""
        first: dict[int, Point] = {}
        for row in self.rows:
            if row.place[0] == "train":
                first[row.attempt] = min(row.point, first.get(row.attempt, row.point))
        return {attempt: point for attempt, point in (first | self.said).items() if attempt not in self.beside}

    @invariant()
    def holds_what_was_logged(self) -> None:
        points = self.points()
        kept = [row for row in self.rows if all(row.point < p for by, p in points.items() if by > row.attempt)]
        self.check("last", kept, taken_back=len(self.rows) - len(kept))

    def check(self, attempts: str, rows: list[Row], taken_back: int) -> None:
        """A reader finds the last row of each sample in its place, by (attempt, step, order), and counts the rest."""
        reader = open_reader(self.layout, attempts=attempts)
        expected = {}
        for row in sorted(rows, key=lambda row: (row.attempt, row.step)):
            (key,) = self.ids([row.key], as_text=self.as_text)
            expected[row.place, key] = (row.loss, row.label)
        found = {}
        for mode in reader.modes():
            for ds_id in reader.ds_ids(mode):
                for part in reader.place_frames(mode, ds_id, ["sample_id", "loss", "label"]):
                    place = (mode, ds_id, part.place.epoch, part.place.turn)
                    found |= {(place, key): values for key, *values in map(tuple, part.frame.iter_rows())}
        assert reader.damaged == ()
        assert {at: tuple(values) for at, values in found.items()} == expected
        assert sum(map(reader.row_count, reader.folders())) == len(rows)
        assert sum(map(reader.duplicate_count, reader.folders())) == len(rows) - len(expected)
        counts = reader.counts()
        assert (counts.taken_back, counts.dropped) == (taken_back, self.dropped)
        assert bool(reader.warnings) == bool(taken_back)

    @invariant()
    def holds_every_record(self) -> None:
        facts = self.records("facts")
        assert Counter((row["sample_id"], row["logged"]) for row in facts) == self.facts
        scalars = [row for row in self.records("scalars") if row["key"] == "n"]
        assert Counter((row["step"], row["value"]) for row in scalars) == self.scalars

    def records(self, folder: str) -> list[dict[str, Any]]:
        tables = [parquet.read(path) for path in (self.layout.root / folder).glob("*.parquet")]
        live, damaged = live_records(self.layout, folder)
        assert not damaged
        return [row for table in [*tables, *live] for row in table.to_pylist()]

    def teardown(self) -> None:
        if hasattr(self, "as_text"):
            while self.trainings:
                self.kill(0)
            self.holds_what_was_logged()
            Run(self.layout.root).close()
            self.holds_what_was_logged()
            self.holds_every_record()
            self.check("all", self.rows, taken_back=0)
            assert not list(self.layout.wal.glob("*"))
            assert examine(self.layout).findings == ()
        shutil.rmtree(self.folder)


@pytest.mark.timeout(120 + 20 * EXAMPLES)
def test_whatever_happens_a_run_holds_what_was_logged() -> None:
    run_state_machine_as_test(
        RecordedRuns,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
