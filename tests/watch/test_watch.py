"""`xai watch` beside real trainings: what it shows is what was recorded, in terminals and in scripts."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len

import xaicli
from tests.watch import training_things as things
from xaicli.errors import XaiError
from xaicli.layout import RunLayout
from xaicli.watch.screen import Until
from xaicli.watch.training import Now, Training, Watched
from xaicli.watch.view import Shown, Sort, duration, line, screen

ROOT = Path(__file__).parents[2]
_PATIENCE = 40.0


@contextlib.contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A training in a process of its own."""
    words = [sys.executable, "-m", "tests.watch.training_things", *map(str, arguments)]
    with subprocess.Popen(words, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def until(what: Any) -> Any:
    """What a question answers as soon as it answers anything."""
    ends = time.monotonic() + _PATIENCE
    while not (found := what()):
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.05)
    return found


def has_column(run: Path, name: str) -> bool:
    """Whether a run says that it has a column: its writer says so a moment after the first row with it."""
    return any(column.name == name for column in RunLayout(run).read_manifest().columns)


def mean(epoch: int, label: int | None = None) -> float:
    return float(np.mean([things.loss_of(i, epoch) for i in range(things.N) if label is None or i % 4 == label]))


def test_a_finished_run_is_told_by_value(tmp_path: Path, xai: Any) -> None:
    things.train(str(tmp_path / "run"), 3, 0)
    status, out, _ = xai("watch", tmp_path / "run", "--once", "--json", "--top", 2)
    found = json.loads(out)
    assert status == 0
    assert set(found) >= {"schema_version", "command", "run", "selection", "warnings", "outputs", "counts", "rows"}
    assert found["state"] == "finished"
    assert found["counts"]["rows"] == 6 * things.N
    assert found["total_epochs"] == 3
    train, evaluation = found["rows"]
    assert (train["mode"], evaluation["mode"], train["epoch"], train["n"]) == ("train", "eval", 3, things.N)
    assert train["mean"] == pytest.approx(mean(3))
    assert [point["mean"] for point in train["history"]] == pytest.approx([mean(epoch) for epoch in (1, 2, 3)])
    assert train["accuracy"] == pytest.approx(0.25)
    worst = sorted(range(things.N), key=lambda i: -things.loss_of(i, 3))[:2]
    assert [row["sample_id"] for row in found["worst"] if row["mode"] == "train"] == worst
    first = next(row for row in found["labels"] if row["mode"] == "train")
    assert (first["name"], first["n"]) == ("d", things.N // 4)
    assert first["mean"] == pytest.approx(mean(3, 3))
    assert first["change"] == pytest.approx(mean(3, 3) - mean(2, 3))
    status, out, _ = xai("watch", tmp_path / "run", "--once")
    assert status == 0
    assert "finished" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("columns", [40, 80])
def test_it_fits_the_terminal(tmp_path: Path, xai: Any, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with xaicli.Run(tmp_path / "run", label_names=["a very long name of a class " * 3, "b"]) as run:
        for epoch in (1, 2):
            ids = [f"a very long path/of some/sample {i} \x1b[31m.png" for i in range(4)]
            run.log_samples(
                sample_id=ids, label=[0, 1] * 2, loss=[1e9, 2.0, 3e-9, float("nan")], mode="eval", epoch=epoch
            )
    _, out, _ = xai("watch", tmp_path / "run", "--once")
    assert max(map(len, out.splitlines())) <= columns
    assert "\x1b" not in out
    assert "not finite" in out or columns < 60


def crowded(n_labels: int, n_places: int = 2) -> Watched:
    """More than a small terminal holds: samples, labels and spikes of two data sets."""
    history = ((1, 0, 2.0), (2, 0, 1.0))
    numbers = (2, 0, 90, 100, 100, 100, 100, 1.0, 2.0, 0.5, 0, 0)
    places = tuple(Now("train", f"set {n}", *numbers, history) for n in range(n_places))
    of = {"mode": "train", "ds_id": "set 0"}
    worst = tuple({**of, "sample_id": i, "label": 1, "name": "b", "value": 9.0 - i} for i in range(5))
    labels = tuple(
        {**of, "label": i, "name": f"label {i}", "n": 10, "mean": 9.0 - i, "change": 0.1, "usual": 1.0}
        for i in range(n_labels)
    )
    spikes = tuple({**of, "epoch": 2, "step": 90 - i, "rank": 0, "loss": 5.0, "height": 9.0} for i in range(5))
    return Watched("running", "loss", places, worst, labels, spikes, 400, 10.0, 1.0, 0, 5, 60.0, ("a warning",))


@pytest.mark.parametrize("height", [10, 16, 20, 24, 30, 60])
@pytest.mark.parametrize(("n_labels", "n_places"), [(10, 2), (2, 1), (7, 9)])
@pytest.mark.parametrize("width", [40, 80])
def test_all_tables_and_the_keys_are_seen_at_any_height(height: int, n_labels: int, n_places: int, width: int) -> None:
    from rich.console import Console

    watched = crowded(n_labels, n_places)
    console = Console(width=width, height=height, force_terminal=False)
    with console.capture() as capture:
        console.print(screen(watched, Shown(), title="run", width=width, height=height, keys=True))
    lines = capture.get().rstrip("\n").splitlines()
    assert len(lines) <= height
    assert lines[-1].strip() == (
        "q quit  s sort labels  n next data set  o open the report" if width == 80 else "q s n o"
    )
    text = "\n".join(lines)
    assert "data set" in text
    if height >= 24:
        for table in ("worst of", "labels", "spikes"):
            assert table in text
        assert len(lines) >= min(height, 4 * 3 + 12 + n_labels + n_places) - 1  # no room is wasted
    if height == 60 and width == 80:
        assert " of 5" not in text
        assert all(f"label {i} " in text for i in range(n_labels))
    elif height == 24 and width == 80 and n_labels == 10:
        shown = sum(f"label {i} " in text for i in range(10))
        assert f"labels of train set 0, worst, {shown} of 10" in text
        assert "label 0 " in text
        assert re.search(r"spikes, [1-4] of 5: step", text)


@pytest.mark.parametrize("width", [32, 40, 60, 80, 100])
def test_numbers_are_never_cut(width: int) -> None:
    """Names and titles, however long, give way."""
    where = {"mode": "eval", "ds_id": "validation-day-2026-第一"}
    names = [f"domestic {kind} short-haired cat, {place}" for kind in ("tabby", "black") for place in ("in", "out")]
    now = Now(*where.values(), 12, 0, 90, 120, 120, 120, 120, 1245.0, 1240.0, 0.4167, 0, 0, ((12, 0, 1245.0),), 9)
    worst = [
        {**where, "sample_id": f"images/night/frame_{i:06d}.png", "label": i, "name": names[i], "value": 1255.0 + i}
        for i in range(4)
    ]
    labels = [
        {**where, "label": i, "name": names[i], "n": 12345, "mean": 1239.0 + i, "change": -0.96, "usual": 1241.0}
        for i in range(4)
    ]
    spikes = [{**where, "epoch": 12, "step": 123_456, "rank": 0, "loss": 1300.0, "height": 123.4}]
    others = replace(now, ds_id="validation-night-2026-第一")
    given = (worst, labels, spikes, 400, 10.0, 1.0, 0, 5, 60.0, ())
    watched = Watched("running", "a_loss_with_a_long_name", (now, others), *given)
    for sort in Sort:
        text = shown_as_text(watched, width, Shown(sort))
        lines = text.splitlines()
        assert max(map(cell_len, lines)) <= width
        assert all(f" {value}" in text for value in ("1,255", "1,256", "1,257", "1,258"))
        for mean in (" 1,239 ", " 1,240 ", " 1,242 "):
            (row,) = (line for line in lines if mean in line and " -0.96" in line)
            assert width < 60 or (row.split()[-1], "12,345" in row) == ("1,241", True)
        assert len([line for line in lines if " 12 " in line and " 1,245" in line]) == 2
        assert [line.split()[-4:] for line in lines if "123,456" in line] == [["123,456", "12", "1,300", "123.4"]]
        assert len({line.split("  ")[0] for line in lines if "-0.96" in line}) == 4, "and names are told apart"


def test_the_chosen_data_set_is_seen_where_not_all_are() -> None:
    from rich.console import Console

    console = Console(width=80, height=24, force_terminal=False)
    with console.capture() as capture:
        console.print(screen(crowded(5, 12), Shown(place=11), title="run", width=80, height=24, keys=True))
    assert "> train set 11" in capture.get()


@pytest.mark.parametrize(("means", "usual"), [([1.0, 3.0], 2.0), ([1.0, 3.0, 10.0], 3.0), ([1.0, 2.0, 4.0, 10.0], 3.0)])
def test_what_is_usual_is_the_median_of_the_labels(tmp_path: Path, xai: Any, means: list[float], usual: float) -> None:
    n = len(means)
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=range(n), label=range(n), loss=means, mode="eval", epoch=1)
    _, out, _ = xai("watch", tmp_path / "run", "--once", "--json")
    assert [row["usual"] for row in json.loads(out)["labels"]] == [usual] * n


def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xaicli.reader import Reader

    read: list[str] = []
    original = Reader.read

    def counted(self: Reader, piece: Any, columns: Any, **how: Any) -> Any:
        read.append(str(piece.file.path.name) if piece.file else "live")
        return original(self, piece, columns, **how)

    monkeypatch.setattr(Reader, "read", counted)
    run = xaicli.Run(tmp_path / "run")
    training = Training(RunLayout(tmp_path / "run"))
    assert training.look().places == ()
    for epoch in (1, 2, 3):
        run.log_samples(sample_id=range(10), loss=[float(epoch + i) for i in range(10)], mode="train", epoch=epoch)
        run.flush()
        found = training.look()
        assert found.state == "running"
        assert found.places[0].mean == pytest.approx(epoch + 4.5)
        assert found.rows == 10 * epoch
    before = len(read)
    training.look()
    assert len(read) == before
    run.log_samples(sample_id=range(10), loss=[0.0] * 10, extra=[1.0] * 10, mode="train", epoch=4)
    assert training.look().places[0].mean == 0.0
    assert len(read) == before + 1
    run.close()
    assert training.look().state == "finished"


def test_spikes_drops_duplicates_and_passes_are_told(tmp_path: Path, xai: Any) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(150):
            value = 50.0 if step == 120 else 1.0 + 0.01 * (step % 7)
            run.log_samples(sample_id=[2 * step, 2 * step + 1], loss=[value, value], mode="train", epoch=1, step=step)
        run.log_samples(sample_id=[0], loss=[9.0], mode="train", epoch=1, step=150)
        run.log_samples(sample_id=["no integer"], loss=[9.0], mode="train", epoch=1, step=151)
        for turn in (0, 1):
            run.log_samples(
                sample_id=[1, 2], loss=[turn + 1.0, turn + 2.0], mode="eval", epoch=1, eval_pass=turn, step=151
            )
    found = Training(RunLayout(tmp_path / "run")).look()
    assert [(spike["step"], spike["loss"]) for spike in found.spikes if spike["height"] > 100] == [(120, 50.0)]
    assert found.dropped == 1
    train, evaluation = found.places
    assert (train.n, train.duplicates) == (300, 1)
    assert (evaluation.turn, evaluation.mean, evaluation.before) == (1, 2.5, 1.5)
    status, out, _ = xai("watch", tmp_path / "run", "--once", "--json")
    told = json.loads(out)
    assert (status, [(row["n"], row["duplicates"], row["non_finite"]) for row in told["rows"]]) == (
        0,
        [(300, 1, 0), (2, 0, 0)],
    )
    assert told["counts"]["rows"] == 305
    assert not {"duplicates", "non_finite"} & told["counts"].keys(), "which would be of one place, and rows of all"
    assert "last spike at step 150" in line(found)  # the sample again, whose value is another
    assert "1 row dropped" in line(found)


def test_without_a_terminal_warnings_and_values_that_are_no_number_are_told(tmp_path: Path, xai: Any) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2, "no integer"], loss=[1.0, float("nan"), 1.0], mode="train", epoch=1, step=0)
    status, out, err = xai("watch", tmp_path / "run")
    assert status == 0
    assert "train epoch 1: loss 1 (1 not finite) (2)" in out
    assert "1 row dropped" in out
    warnings = [text for text in err.splitlines() if text.startswith("warning: ")]
    assert warnings
    assert len(warnings) == len(set(warnings))


def test_rows_a_second_are_those_between_two_listings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long reading what was listed took."""
    from types import SimpleNamespace

    from xaicli.watch import training as module

    clock = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    slow, counted = [3.0], Training._rows_of

    def rows_of(self: Training, *arguments: Any) -> list[int]:
        clock[0] += slow[0]
        return counted(self, *arguments)

    monkeypatch.setattr(Training, "_rows_of", rows_of)
    training = Training(RunLayout(tmp_path / "run"))
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=range(50), loss=[1.0] * 50, mode="train", epoch=1)
        training.look()
        clock[0], slow[0] = 10.0, 0.0
        run.log_samples(sample_id=range(50, 150), loss=[1.0] * 100, mode="train", epoch=1)
        assert training.look().rows_per_second == pytest.approx(100 / 10)


def test_rows_and_their_pace_are_of_the_whole_run_whatever_is_watched(
    tmp_path: Path, xai: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from xaicli.watch import training as module

    clock = [0.0]
    real = module.time
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    chosen: list[dict[str, str]] = [{}, {"mode": "train"}, {"mode": "eval", "ds_id": "day"}]
    trainings = [Training(RunLayout(tmp_path / "run"), **one) for one in chosen]
    sets = (("train", None, 100), ("eval", "day", 30), ("eval", "night", 20))
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in (1, 2, 3):
            for mode, ds_id, n in sets:
                run.log_samples(sample_id=range(n), loss=[1.0] * n, mode=mode, ds_id=ds_id, epoch=epoch)
            found = [training.look() for training in trainings]
            assert [one.rows for one in found] == [150 * epoch] * 3
            assert [len(one.places) for one in found] == [3, 1, 1]
            if epoch > 1:
                assert [one.rows_per_second for one in found] == pytest.approx([15.0] * 3)
            clock[0] += 10
    monkeypatch.setattr(module, "time", real)
    told = [
        json.loads(xai("watch", tmp_path / "run", "--once", "--json", *more)[1]) for more in ((), ("--mode", "eval"))
    ]
    assert [one["counts"]["rows"] for one in told] == [450, 450]
    assert told[0]["rows_per_second"] == told[1]["rows_per_second"] > 0


def test_rows_a_second_are_not_told_where_they_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first look knows of none, nor does a second that comes before the next row; half a minute without one is 0."""
    from types import SimpleNamespace

    from rich.console import Console

    from xaicli.watch import training as module

    clock, console = [0.0], Console(width=80)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    training, rates, shown = Training(RunLayout(tmp_path / "run")), [], []
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=range(50), label=[-100] * 50, loss=[1.0] * 50, mode="train", epoch=1)
        for clock[0] in (0.0, 1.0, 31.0):
            watched = training.look()
            rates.append(watched.rows_per_second)
            with console.capture() as text:
                console.print(screen(watched, Shown(), title="run", width=80, keys=False))
            shown.append(text.get())
    assert rates == [None, None, 0.0]
    assert ["/s" in one for one in shown] == [False, False, True]
    assert (Training(RunLayout(tmp_path / "run")).look().rows_per_second or 0) > 0  # since the start


def test_a_rule_may_be_by_several_columns(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", label_names=["a", "b"]) as run:
        for epoch, predicted in ((1, [0, 0, 0, 0]), (2, [0, 1, 0, 1])):
            run.log_samples(sample_id=range(4), label=[0, 1, 0, 1], prediction=predicted, mode="eval", epoch=epoch)
    training = Training(RunLayout(tmp_path / "run"), metric="correct")
    found = training.look()
    assert Until("correct mean by label,prediction >= 1").is_met(found, training.reader)
    assert not Until("correct mean by label,prediction > 1").is_met(found, training.reader)


def test_a_rule_is_asked_of_whole_places_alone(tmp_path: Path) -> None:
    run = xaicli.Run(tmp_path / "run")
    training = Training(RunLayout(tmp_path / "run"))
    rule = Until("loss mean < 1")

    def log(epoch: int, ids: range, loss: float) -> bool:
        run.log_samples(sample_id=ids, loss=[loss] * len(ids), mode="eval", epoch=epoch)
        return rule.is_met(training.look(), training.reader)

    assert not log(1, range(5), 0.5)  # of an unknown number
    assert not log(1, range(5, 10), 3.0)
    assert not log(2, range(5), 0.1)
    assert log(2, range(5, 10), 0.2)
    run.close()
    assert Until("loss mean < 2").is_met(training.look(), training.reader)
    assert not Until("loss mean < 0.1").is_met(training.look(), training.reader)


@pytest.mark.parametrize(("n", "status"), [(30, 1), (100, 0)])
def test_the_part_that_a_dead_training_left_keeps_no_rule(tmp_path: Path, xai: Any, n: int, status: int) -> None:
    code = f"""
import os, signal, time, xaicli
run = xaicli.Run({str(tmp_path / "run")!r})
for epoch, n, loss in ((1, 100, 3.0), (2, {n}, 0.1)):
    run.log_samples(sample_id=range(n), loss=[loss] * n, mode="eval", epoch=epoch, step=epoch)
run.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    rule = Training(RunLayout(tmp_path / "run")).look()
    assert (rule.state, rule.places[0].n, rule.rows_per_second) == ("crashed", n, 0.0)
    found, _, error = xai("watch", tmp_path / "run", "--until", "loss mean < 1", "--mode", "eval", "--interval", "0.1")
    assert found == status, error
    assert ("eval epoch 1: 3" in error) is (status == 1)


@pytest.mark.parametrize(
    ("last", "status"),
    [(range(30), 1), (range(100), 0), ([*range(90), *range(10)], 0)],
    ids=["a part", "whole", "drawn with repeats"],
)
def test_the_part_that_a_training_was_ended_within_keeps_no_rule(
    tmp_path: Path, xai: Any, last: Any, status: int
) -> None:
    """A run is closed where its training was interrupted, too."""
    with xaicli.Run(tmp_path / "run") as run:
        for epoch, ids, loss in ((1, range(100), 3.0), (2, last, 0.1)):
            run.log_samples(sample_id=ids, loss=[loss] * len(ids), mode="train", epoch=epoch, step=epoch)
    found, _, error = xai("watch", tmp_path / "run", "--until", "loss mean < 1", "--interval", "0.1")
    assert found == status, error
    if status:
        assert "train epoch 1: 3; train epoch 2 is a part, and was not asked: 30 of the 100 rows" in error


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_place_that_a_later_start_redid_is_asked_again(tmp_path: Path, mode: str) -> None:
    training, rule = Training(RunLayout(tmp_path / "run")), Until("loss mean < 1", mode=mode)
    for loss, is_met in ((3.0, False), (0.5, True)):
        with xaicli.Run(tmp_path / "run") as run:
            for epoch in (1, 2) if loss == 3.0 else (2,):
                run.log_samples(sample_id=range(5), loss=[loss] * 5, mode=mode, epoch=epoch, step=epoch)
            assert rule.is_met(training.look(), training.reader) is is_met
            assert not rule.is_met(training.look(), training.reader)  # each once
    (now,) = training.look().places
    assert (now.epoch, now.n, now.mean, now.before) == (2, 5, 0.5, 3.0)


def test_a_killed_and_restarted_training_is_told_row_by_row(tmp_path: Path) -> None:
    """What was looked at all the while is what a first look tells, and both are what was logged."""
    training = Training(RunLayout(tmp_path / "run"))
    with started(tmp_path / "run", 50, 0.02) as process:
        until((tmp_path / "run" / "xai.json").is_file)
        seen: list[int] = []

        def is_far() -> bool:
            seen.append(training.look().rows)
            return seen[-1] > 2 * things.N

        until(is_far)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert seen == sorted(seen)  # nothing that was there is missing a moment later
    until(lambda: training.look().state == "crashed")
    told = training.look()
    stored = xaicli.open_run(tmp_path / "run").scan(mode="all").select("mode", "epoch", "sample_id", "loss").collect()
    assert told.rows == stored.height == stored.select("mode", "epoch", "sample_id").n_unique()
    assert told.rows % things.BATCH == 0  # whole batches, none twice
    assert told.rows >= seen[-1]
    for mode, epoch, i, loss in stored.iter_rows():
        assert loss == pytest.approx(things.loss_of(i, epoch)), (mode, epoch, i)
    with started(tmp_path / "run", 2, 0.0) as process:  # begins anew, and takes back what there was of train
        assert process.wait(_PATIENCE) == 0
    for one in (training, Training(RunLayout(tmp_path / "run"))):
        again = one.look()
        assert again.state == "finished"
        for now in again.places:
            if now.mode == "train":
                losses = [things.loss_of(i, now.epoch) for i in range(things.N)]
                assert (now.epoch, now.n, now.duplicates) == (2, things.N, 0)
                assert now.mean == pytest.approx(sum(losses) / things.N, rel=1e-6)
        assert {now.mode for now in again.places} == {"train", "eval"}


def test_a_script_waits_for_the_first_row_of_a_run(tmp_path: Path) -> None:
    run = xaicli.Run(tmp_path / "run")
    words = [sys.executable, "-m", "xaicli", "watch", str(tmp_path / "run"), "--until", "loss mean < 1"]
    with subprocess.Popen([*words, "--interval", "0.1"], stdout=subprocess.PIPE, text=True, cwd=ROOT) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "waiting: there is no row yet\n"
        run.log_samples(sample_id=[1, 2], loss=[0.25, 0.5], mode="train", epoch=1, step=1)
        run.close()
        out, _ = watching.communicate(timeout=_PATIENCE)
        assert watching.returncode == 0
    assert "train epoch 1: loss 0.375" in out


def test_a_script_waits_for_a_run_that_is_not_there_yet(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "xaicli",
        "watch",
        str(tmp_path / "run"),
        "--until",
        "loss mean < 1.2",
        "--mode",
        "train",
    ]
    with subprocess.Popen([*words, "--interval", "0.1"], stdout=subprocess.PIPE, text=True, cwd=ROOT) as watching:
        assert watching.stdout is not None
        assert "no run yet" in watching.stdout.readline()
        go_on = tmp_path / "go"
        with started(tmp_path / "run", 3, 0.01, go_on) as training:
            # Never below 1.2: 1.7475, 1.24875, 1.24917.
            assert mean(2) == pytest.approx(1.24875)
            until(
                lambda: (
                    Training(RunLayout(tmp_path / "run")).look().rows == 6 * things.N
                    if (tmp_path / "run" / "xai.json").is_file()
                    else False
                )
            )
            go_on.touch()
            assert training.wait(_PATIENCE) == 0
        out, _ = watching.communicate(timeout=_PATIENCE)
        assert watching.returncode == 1
    assert "finished" in out
    status = subprocess.run(
        [*words[:4], "--until", "loss mean < 1.3", "--mode", "train"],
        cwd=tmp_path,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XAI_RUN": str(tmp_path / "run")},
        capture_output=True,
    )
    assert status.returncode == 0, status.stderr


class Screen:
    """A command in a terminal of its own, 80 columns wide."""

    def __init__(self, *words: object, term: str = "xterm-256color", lines: int = 40) -> None:
        self.shown = ""
        environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
        self.process_id, self.terminal = pty.fork()
        if not self.process_id:  # pragma: no cover - the child
            os.environ.clear()
            os.environ.update(environment | {"TERM": term, "COLUMNS": "80", "LINES": str(lines)})
            os.execv(sys.executable, [sys.executable, "-m", "xaicli", *map(str, words)])

    def waits_for(self, text: str) -> str:
        """Read until a text was shown."""
        ends = time.monotonic() + _PATIENCE
        while text not in self.plain:
            assert time.monotonic() < ends, f"{text!r} was never shown: {self.plain[-2000:]}"
            if select.select([self.terminal], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self.terminal, 65536).decode("utf-8", "replace")
                except OSError:  # the other side is closed
                    assert text in self.plain, self.plain[-2000:]
        return self.plain

    @property
    def plain(self) -> str:
        """What was shown, without colours and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown)

    def press(self, key: str) -> None:
        """Type a key, and forget what was shown before."""
        self.shown = ""
        os.write(self.terminal, key.encode())

    def status(self) -> int:
        """The exit status, once it has ended."""

        def ended() -> bool:
            if select.select([self.terminal], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    self.shown += os.read(self.terminal, 65536).decode("utf-8", "replace")
            process, self._status = os.waitpid(self.process_id, os.WNOHANG)
            return process != 0

        until(ended)
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(self._status)


def test_a_terminal_shows_a_training_and_its_death(tmp_path: Path) -> None:
    with started(tmp_path / "run", 50, 0.02) as training:
        until((tmp_path / "run" / "xai.json").is_file)
        screen = Screen("watch", tmp_path / "run", "--interval", "0.2")
        screen.waits_for("labels of train, worst")
        assert "running" in screen.plain
        screen.press("s")
        screen.waits_for("labels of train, falling behind")
        screen.press("n")
        screen.waits_for("worst of eval")
        training.send_signal(signal.SIGKILL)
        training.wait()
        screen.shown = ""
        screen.waits_for("the training has died")
        screen.press("q")
        assert screen.status() == 1
    assert "Traceback" not in screen.plain


def test_a_terminal_of_24_lines_shows_the_keys(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", label_names=[f"label {i}" for i in range(10)]) as run:
        for epoch in (1, 2):
            for step in range(60):
                ids = [10 * step + i for i in range(10)]
                loss = [1.0 + i / 10 + 50 * (step in (50, 55)) for i in range(10)]
                where = {"mode": "train", "epoch": epoch, "step": 60 * epoch + step}
                run.log_samples(sample_id=ids, label=range(10), loss=loss, **where)
            run.log_samples(sample_id=range(10), label=range(10), loss=np.arange(10.0), mode="eval", epoch=epoch)
    screen = Screen("watch", tmp_path / "run", "--interval", "0.2", lines=24)
    screen.waits_for("o open the report")
    assert "spikes" in screen.plain
    assert "worst of train" in screen.plain
    screen.press("q")
    assert screen.status() == 0


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_ctrl_c_is_quiet(tmp_path: Path, term: str) -> None:
    run = xaicli.Run(tmp_path / "run")
    run.log_samples(sample_id=[1], loss=[2.0], mode="train", epoch=1)
    screen = Screen("watch", tmp_path / "run", "--interval", "0.2", term=term)
    screen.waits_for("epoch")
    screen.press("\x03")
    assert screen.status() == 130
    assert "Traceback" not in screen.plain
    assert "error" not in screen.plain
    run.close()


def test_the_report_opens_at_a_key(tmp_path: Path) -> None:
    things.train(str(tmp_path / "run"), 2, 0)
    screen = Screen("watch", tmp_path / "run", "--interval", "0.2")
    screen.waits_for("o open the report")
    screen.press("o")
    screen.waits_for("wrote")
    assert (tmp_path / "run" / "reports" / "track-report.html").is_file()
    screen.press("q")
    assert screen.status() == 0


def test_what_makes_no_sense_is_refused_by_name(tmp_path: Path, xai: Any) -> None:
    things.train(str(tmp_path / "run"), 1, 0)
    for words, said in (
        (("--json",), "--once"),
        (("--once", "--until", "loss mean < 1"), "--until"),
        (("--interval", "0"), "--interval"),
        (("--top", "0", "--once"), "--top"),
        (("--metric", "lossy", "--once"), "lossy"),
        (("--mode", "test", "--once"), "test"),
        (("--until", "loss is low"), "no rule"),
        (("--until", "loss mean drop <= 1"), "--until"),
        (("--until", "dropped <= 0"), "is about no metric"),
        (("--until", "no sample of golden.txt is wrong"), "is about no metric"),
    ):
        status, _, err = xai("watch", tmp_path / "run", *words)
        assert status in (1, 2), words
        assert said in err, err
    status, _, err = xai("watch", tmp_path / "nowhere", "--once")
    assert (status, "error: " in err) == (1, True)


@pytest.mark.parametrize("words", [("--metric", "loss,correct"), ("--metric", "loss", "--metric", "correct")])
def test_several_metrics_are_refused_by_name(tmp_path: Path, xai: Any, words: tuple[str, ...]) -> None:
    """A training is followed by one metric: neither the last of several counts, nor a metric called "loss,correct"."""
    things.train(str(tmp_path / "run"), 1, 0)
    for ends in (("--once",), ("--once", "--json"), ("--until", "loss mean < 9")):
        status, out, err = xai("watch", tmp_path / "run", *words, *ends)
        assert (status, out) == (2, ""), err
        assert err.startswith("error: --metric takes one here, not 2: loss, correct\nhint: --metric loss")
    status, out, _ = xai("watch", tmp_path / "run", "--metric", "loss", "--metric", "loss", "--once", "--json")
    assert (status, json.loads(out)["selection"]["metric"]) == (0, "loss")


def test_times_in_words() -> None:
    assert [duration(s) for s in (5, 99, 180, 7800)] == ["5 s", "99 s", "3 min", "2 h 10 min"]


def test_the_time_left_is_that_of_the_epochs_left(tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta

    run = xaicli.Run(tmp_path / "run")
    epochs = iter(run.epochs(10))
    for epoch in (1, 2):
        assert next(epochs) == epoch
        for ids in run.steps([range(20)], mode="train"):
            run.log_samples(sample_id=ids, loss=[1.0] * 20)
    next(epochs)
    run.flush()
    file = tmp_path / "run" / "attempts" / "000000.json"
    facts = json.loads(file.read_text())
    del facts["check"]
    began = datetime.now(UTC) - timedelta(seconds=100)
    file.write_text(json.dumps({**facts, "started_at": began.isoformat()}))
    found = Training(RunLayout(tmp_path / "run")).look()
    assert found.total_epochs == 10
    assert found.seconds_left == pytest.approx(100 / 2 * 8, rel=0.1)
    # It is that of the training, whatever else is looked at, or waited for.
    asked: tuple[dict[str, Any], ...] = ({"mode": "eval"}, {"ds_id": "night"}, {"metric": "iou"})
    for how in asked:
        one = Training(RunLayout(tmp_path / "run"), waits=True, **how).look()
        assert (one.places, one.total_epochs, one.rows) == ((), 10, 40)
        assert one.seconds_left == pytest.approx(found.seconds_left, rel=0.1)
    run.log_samples(sample_id=range(20), loss=[1.0] * 20, mode="eval", ds_id="night", epoch=2, step=9)
    run.log_samples(sample_id=range(10), loss=[1.0] * 10, mode="train", epoch=3, step=10)
    run.flush()
    for how in ({}, *asked[:2], {"mode": "train"}):
        training = Training(RunLayout(tmp_path / "run"), **how)
        for _ in range(2):
            found = training.look()
            assert [now.mode for now in found.places] == {"mode": [how.get("mode")], "ds_id": ["eval"]}.get(
                next(iter(how), ""), ["train", "eval"]
            )
            assert found.seconds_left == pytest.approx(100 / 2.5 * 7.5, rel=0.1)
    run.close()
    over = Training(RunLayout(tmp_path / "run")).look()
    assert (over.state, over.seconds_left) == ("finished", None)


def seconds_left(folder: Path, *, elapsed: float = 100.0) -> float | None:
    """What is left of a training whose last start was so long ago."""
    from datetime import UTC, datetime, timedelta

    file = max((folder / "attempts").glob("[0-9]*.json"))
    facts = json.loads(file.read_text())
    facts.pop("check", None)
    began = datetime.now(UTC) - timedelta(seconds=elapsed)
    file.write_text(json.dumps({**facts, "started_at": began.isoformat()}))
    return Training(RunLayout(folder)).look().seconds_left


def rows_of(mode: str, *epochs: int, ds_id: str = "", n: int = 20, eval_pass: int = 0) -> list[tuple[Any, ...]]:
    return [(mode, ds_id, epoch, n, eval_pass) for epoch in epochs]


def scalars_of(mode: str, *epochs: int, steps: int = 1) -> list[tuple[Any, ...]]:
    return [(mode, epoch, step) for epoch in epochs for step in range(steps)]


def logged(run: xaicli.Run, things: list[tuple[Any, ...]]) -> None:
    for thing in things:
        if len(thing) == 3:
            mode, epoch, step = thing
            run.log({"epoch": epoch, "step": epoch * 10 + step, "cost": 1.0}, mode=mode)
        else:
            mode, ds_id, epoch, n, turn = thing
            how: dict[str, Any] = {"eval_pass": turn} if turn else {}
            run.log_samples(
                sample_id=range(n), loss=[1.0] * n, mode=mode, ds_id=ds_id, epoch=epoch, step=epoch * 10, **how
            )
    run.flush()


@pytest.mark.parametrize(
    ("things", "done"),
    [
        (rows_of("eval", 1, 2, 3, 4), 4),
        (rows_of("test", 1, 2, ds_id="a") + rows_of("test", 1, 2, 3, 4, ds_id="b"), 4),
        (rows_of("eval", 1, 2, 3) + rows_of("eval", 4, n=10), 3.5),
        (rows_of("eval", 1, 2) + rows_of("eval", 1, 2, eval_pass=1) + rows_of("eval", 3), 2.5),
        (rows_of("eval", 0, 1, 2, 3), 3),
        (rows_of("eval", 2, 4), 4),
        (rows_of("train", 1) + rows_of("eval", 1, 2, 3, 4), 4),
        (rows_of("train", 2, 4) + rows_of("eval", 1, 2, 3, 4, 5), 5),
        (rows_of("train", 1, 2, 3) + rows_of("eval", 1, 2, 3, 4), 3),  # a validation before the training
        (rows_of("train", 1, 2, ds_id="a") + rows_of("train", 3, 4, ds_id="b"), 4),
        (rows_of("eval", 1, 2, 3) + scalars_of("train", 1, 2, 3, 4), 4),
        (scalars_of("train", 1, 2, 3, 4), 4),
        (scalars_of("eval", 1, 2, 3, 4), 4),
        (scalars_of("train", 1, 2, steps=4) + scalars_of("train", 3, steps=2), 2.5),
        (rows_of("eval", 1), None),
    ],
)
def test_the_time_left_is_known_by_whatever_is_recorded(
    tmp_path: Path, things: list[tuple[Any, ...]], done: float | None
) -> None:
    run = xaicli.Run(tmp_path / "run", total_epochs=10)
    logged(run, things)
    left = seconds_left(tmp_path / "run")
    assert left == (None if done is None else pytest.approx(100 / done * (10 - done), rel=0.05))
    run.close()


@pytest.mark.parametrize("kind", [rows_of, scalars_of])
def test_the_time_left_is_that_of_the_last_start(tmp_path: Path, kind: Any) -> None:
    """Of a run that goes on, and for longer: three epochs of twenty in this start, of seven in all."""
    with xaicli.Run(tmp_path / "run", total_epochs=10) as run:
        logged(run, kind("eval", 1, 2, 3, 4))
    run = xaicli.Run(tmp_path / "run", total_epochs=20, resume="must")
    logged(run, kind("eval", 5, 6, 7))
    assert seconds_left(tmp_path / "run") == pytest.approx(100 / 3 * 13, rel=0.05)
    run.close()


def test_a_damaged_file_is_named(tmp_path: Path, xai: Any) -> None:
    """The others are told of as ever."""
    things.train(str(tmp_path / "run"), 2, 0)
    victim = next((tmp_path / "run" / "data").rglob("mode=train/*/epoch=2/*.parquet"))
    victim.write_bytes(victim.read_bytes()[:-20] + b"x" * 20)
    status, out, _ = xai("watch", tmp_path / "run", "--once", "--json")
    found = json.loads(out)
    assert status == 0
    assert found["counts"]["damaged"] == [victim.relative_to(tmp_path / "run").as_posix()]
    assert any(victim.name in warning for warning in found["warnings"])
    assert next(row for row in found["rows"] if row["mode"] == "eval")["mean"] == pytest.approx(mean(2))


def test_a_run_in_a_store_is_watched_as_far_as_it_was_sent(
    tmp_path: Path, xai: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore", reason="the s3 extra is not installed")
    from xaicli.store.objects import Store
    from xaicli.store.sync import push

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    address = f"file://{tmp_path}/bucket/exp1"
    things.train(str(tmp_path / "run"), 2, 0)
    push(tmp_path / "run", Store(address))
    status, out, _ = xai("watch", address, "--once", "--json")
    found = json.loads(out)
    assert (status, found["state"], found["counts"]["rows"]) == (0, "remote", 4 * things.N)
    status, _, _ = xai("watch", address, "--until", "loss mean < 1.3", "--interval", "0.1")
    assert status == 0


def test_a_run_that_is_not_yet_in_its_store_is_waited_for(
    tmp_path: Path, xai: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a store that cannot be reached for a while end anything."""
    pytest.importorskip("obstore", reason="the s3 extra is not installed")
    from xaicli import location
    from xaicli.store.objects import Store
    from xaicli.store.sync import mirror, push

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    address = f"file://{tmp_path}/bucket/later"
    things.train(str(tmp_path / "run"), 1, 0)
    calls = []

    def sometimes(store: Store, root: Path) -> object:
        calls.append(store.url)
        if len(calls) == 2:
            push(tmp_path / "run", Store(address))
        if len(calls) == 4:
            raise XaiError(f"{store.url} cannot be listed: connection refused")
        if len(calls) == 5:
            things.train(str(tmp_path / "run"), 2, 0)
            push(tmp_path / "run", Store(address))
        mirror(store, root)
        return None

    monkeypatch.setattr(location, "mirror", sometimes)
    status, out, _ = xai("watch", address, "--until", f"loss mean < {mean(2) + 0.1}", "--interval", "0.1")
    assert status == 0
    assert len(calls) >= 5
    assert "there is no run yet" in out
    watched = Training(RunLayout(tmp_path / "run"), is_remote=True)
    watched.behind = "the store cannot be listed"
    assert "the store cannot be listed" in watched.look().warnings


def test_what_was_taken_back_and_labels_that_stand_for_none_are_counted(tmp_path: Path, xai: Any) -> None:
    for label in ([0, -100, 1], [-100, 0, 1]):
        with xaicli.Run(tmp_path / "run") as run:
            run.log_samples(sample_id=[0, 1, 2], label=label, loss=[0.5, 0.25, 1.0], mode="train", epoch=1, step=1)
    counts = json.loads(xai("watch", tmp_path / "run", "--once", "--json")[1])["counts"]
    assert (counts["rows"], counts["taken_back"], counts["ignored"]) == (3, 3, 2)


def shown_as_text(watched: Watched, width: int = 80, shown: Shown | None = None) -> str:
    from rich.console import Console

    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(screen(watched, shown or Shown(), title="run", width=width, keys=False))
    return capture.get()


def test_where_the_look_for_spikes_begins_is_said(tmp_path: Path, xai: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 epochs of 40 batches with a spike each: the last 24 epochs are looked at, from 7 on."""
    for last, name in ((24, "whole"), (30, "cut")):
        with xaicli.Run(tmp_path / name) as run:
            for step in range(40 * last):
                value = 50.0 if step % 40 == 20 else 1.0 + 0.01 * (step % 7)
                where = {"mode": "train", "epoch": 1 + step // 40, "step": step}
                run.log_samples(sample_id=[2 * (step % 40), 2 * (step % 40) + 1], loss=[value, value], **where)
    found = {name: json.loads(xai("watch", tmp_path / name, "--once", "--json")[1]) for name in ("whole", "cut")}
    assert (found["whole"]["n_spikes"], found["whole"]["spikes_since"]) == (24, [])
    assert found["cut"]["n_spikes"] == 24
    assert len(found["cut"]["spikes"]) == 5
    since = {"mode": "train", "ds_id": "", "epoch": 7, "step": 240, "within_epoch": False}
    assert found["cut"]["spikes_since"] == [since]
    text = shown_as_text(Training(RunLayout(tmp_path / "cut")).look())
    assert "spikes, 5 of 24 since epoch 7: step" in text
    assert "since" not in shown_as_text(Training(RunLayout(tmp_path / "whole")).look())
    monkeypatch.setattr("xaicli.watch.training._STEPS", 100)
    watched = Training(RunLayout(tmp_path / "cut")).look()
    # 100 of 40 in an epoch: the last two epochs, and 20 batches of the one before.
    assert watched.spikes_since == ({**since, "epoch": 28, "step": 1100, "within_epoch": True},)
    assert watched.n_spikes == 3


def test_no_spike_is_said_of_what_was_looked_at(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in range(1, 31):
            run.log_samples(sample_id=[1, 2], loss=[50.0 if epoch == 2 else 1.0] * 2, mode="train", epoch=epoch)
    watched = Training(RunLayout(tmp_path / "run")).look()
    assert "no spike since epoch 7" in line(watched)
    assert "no spike since epoch 7" in shown_as_text(watched)


def test_of_a_run_that_is_over_nothing_is_awaited() -> None:
    for state, said in (("running", "no row yet"), ("finished", "no row of a sample was recorded")):
        empty = Watched(state, "loss", (), (), (), (), 0, None, None, 0, None, None, ())
        assert said in shown_as_text(empty)


def test_a_table_of_labels_says_of_how_many(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in (1, 2):
            run.log_samples(
                sample_id=range(20), label=[i % 10 for i in range(20)], loss=np.arange(20.0), mode="train", epoch=epoch
            )
    watched = Training(RunLayout(tmp_path / "run"), top=3).look()
    assert f"{len(watched.labels)} of 10" in shown_as_text(watched)


def test_a_sigterm_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    run = xaicli.Run(tmp_path / "run")
    run.log_samples(sample_id=[1], loss=[2.0], mode="train", epoch=1)
    screen = Screen("watch", tmp_path / "run", "--interval", "0.2")
    screen.waits_for("epoch")
    os.kill(screen.process_id, signal.SIGTERM)
    assert screen.status() == 143
    hidden, shown = (screen.shown.rfind(f"\x1b[?25{end}") for end in "lh")
    assert shown > hidden >= 0
    assert "Traceback" not in screen.plain
    run.close()


def test_how_many_epochs_are_meant_is_known_from_the_first_row(tmp_path: Path) -> None:
    def meant() -> int | None:
        return Training(RunLayout(tmp_path / "run")).look().total_epochs

    run = xaicli.Run(tmp_path / "run", total_epochs=8)
    run.log_samples(sample_id=range(4), loss=[1.0] * 4, mode="train", epoch=1, step=1)  # a loop of the user's own
    assert meant() == 8
    run.close()
    run = xaicli.Run(tmp_path / "run", total_epochs=4)
    for _ in run.epochs():
        for ids in run.steps([range(4)], mode="train"):
            run.log_samples(sample_id=ids, loss=[1.0] * 4)
        run.state.save_state(tmp_path / "state")
        assert meant() == 4
    run.close()
    run = xaicli.Run(tmp_path / "run", total_epochs=10)
    run.state.load_state(tmp_path / "state")
    for epoch in run.epochs():
        for ids in run.steps([range(4)], mode="train"):
            run.log_samples(sample_id=ids, loss=[1.0] * 4)
        assert (epoch >= 5, meant()) == (True, 10)
    run.close()
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=range(4), loss=[1.0] * 4, mode="train", epoch=20, step=99)
        assert meant() is None


def test_rows_that_a_restart_takes_back_are_no_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from xaicli.watch import training as module

    clock = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    training, rates = Training(RunLayout(tmp_path / "run")), []

    def log(start: int | None, n: int) -> None:
        with xaicli.Run(tmp_path / "run", **({} if start is None else {"resume_from": (start, start)})) as run:
            for epoch in range(start or 1, 5):
                run.log_samples(sample_id=range(n), loss=[1.0] * n, mode="train", epoch=epoch, step=epoch)
        clock[0] += 5
        rates.append((training.look().rows, training.look().rows_per_second))

    log(None, 50)
    log(3, 10)
    assert (rates[0][0], rates[1][0]) == (200, 120)
    assert rates[1][1] is None or rates[1][1] >= 0
    log(4, 60)
    assert (rates[2][0], rates[2][1]) == (170, pytest.approx((170 - 120) / 5))


def test_a_rule_is_asked_of_the_newest_whole_place_and_of_those_after_it(tmp_path: Path, xai: Any) -> None:
    """What held once and holds no longer is past; of what ends between two looks nothing is passed over."""

    def log(run: xaicli.Run, epoch: int, loss: float) -> None:
        for mode in ("train", "eval"):
            run.log_samples(sample_id=range(5), loss=[loss] * 5, mode=mode, epoch=epoch, step=epoch)

    run = xaicli.Run(tmp_path / "run")
    for epoch, loss in ((1, 0.5), (2, 3.0), (3, 4.0)):
        log(run, epoch, loss)
    training, rule, other = Training(RunLayout(tmp_path / "run")), Until("loss mean < 1"), Until("loss mean >= 4")
    assert not rule.is_met(training.look(), training.reader)
    assert other.is_met(training.look(), training.reader)
    log(run, 4, 0.75)
    log(run, 5, 5.0)
    assert rule.is_met(training.look(), training.reader)
    assert rule.last is not None
    assert rule.last[0].epoch == 4
    run.close()
    for text, mode, expected in (
        ("loss mean < 1", None, 1),
        ("loss mean < 1", "train", 1),
        ("loss mean >= 5", None, 0),
        ("loss mean > 3", "train", 0),
    ):
        status, _, error = xai("watch", tmp_path / "run", "--until", text, *(["--mode", mode] if mode else []))
        assert status == expected, (text, mode)
        if status:
            assert f"error: the training is over, and '{text}' does not hold" in error
            assert f"hint: {mode or 'eval'} epoch 5: 5" in error


@pytest.mark.parametrize("asked", [{}, {"mode": "eval"}, {"ds_id": "day"}, {"mode": "eval", "ds_id": "day"}])
def test_the_first_pass_is_whole_once_the_next_epoch_has_begun_whatever_is_watched(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    training = Training(RunLayout(tmp_path / "run"), waits=True, **asked)
    with xaicli.Run(tmp_path / "run") as run:

        def log(mode: str, epoch: int, ds_id: str = "") -> None:
            run.log_samples(sample_id=[1, 2], loss=[1.0, 3.0], mode=mode, ds_id=ds_id, epoch=epoch, step=epoch)
            run.flush()

        log("train", 1)
        log("eval", 1, "day")
        assert not Until("loss mean <= 2").is_met(training.look(), training.reader)
        log("train", 2)
        assert Until("loss mean <= 2").is_met(training.look(), training.reader)
        assert not Until("loss mean < 2").is_met(training.look(), training.reader)


def test_what_is_not_there_yet_is_waited_for(tmp_path: Path, xai: Any) -> None:
    run = xaicli.Run(tmp_path / "run")
    folder = tmp_path / "run"
    run.log_samples(sample_id=range(4), loss=[1.0] * 4, mode="train", epoch=1, step=1)
    until(lambda: has_column(folder, "loss"))
    asked: dict[str, dict[str, Any]] = {
        "no mode 'eval'": {"mode": ["eval"]},
        "no mode is left of !train": {"mode": ["!train"]},
        "no metric 'iou'": {"metric": "iou"},
        "no ds_id 'night'": {"ds_id": ["night"]},
    }
    waiting = {said: Training(RunLayout(folder), waits=True, **how) for said, how in asked.items()}
    for said, training in waiting.items():
        found = training.look()
        assert (found.state, found.places, found.rows) == ("running", (), 4)
        assert found.lacks.startswith(said)
        assert f"running | {said}" in line(found)
        assert said in shown_as_text(found)
    rule, plain = Until("iou mean > 0.25"), Training(RunLayout(folder), waits=True)
    assert not rule.is_met(plain.look(), plain.reader)
    assert "no metric 'iou'" in rule.lacks
    for how in asked.values():
        with pytest.raises(XaiError):
            Training(RunLayout(folder), **how).look()
    with pytest.raises(XaiError, match="no mode 'evl'"):
        Training(RunLayout(folder), waits=True, mode=["evl"]).look()
    status, _, error = xai("watch", folder, "--once", "--mode", "eval")
    assert (status, "no mode 'eval'" in error) == (1, True)
    iou = [0.25, 0.5, 0.75, 1.0]
    for epoch in (1, 2):
        run.log_samples(sample_id=range(4), loss=[2.0] * 4, iou=iou, mode="eval", ds_id="night", epoch=epoch, step=1)
    until(lambda: has_column(folder, "iou"))
    for training in waiting.values():
        found = training.look()
        (now,) = [now for now in found.places if now.mode == "eval"]
        assert (found.lacks, now.ds_id, now.n) == ("", "night", 4)
        assert now.mean == (0.625 if found.metric == "iou" else 2.0)
    assert rule.is_met(plain.look(), plain.reader)
    assert rule.lacks == ""
    run.close()
    with pytest.raises(XaiError, match="no metric 'dice'"):
        Training(RunLayout(folder), waits=True, metric="dice").look()
    status, _, error = xai("watch", folder, "--until", "dice mean > 0")
    assert (status, "no metric 'dice'" in error) == (1, True)
    assert xai("watch", folder, "--mode", "test")[0] == 1


def test_a_script_waits_for_the_first_pass_of_a_mode(tmp_path: Path) -> None:
    run = xaicli.Run(tmp_path / "run")
    run.log_samples(sample_id=[1, 2], loss=[3.0, 3.0], mode="train", epoch=1, step=1)
    words = [sys.executable, "-m", "xaicli", "watch", str(tmp_path / "run"), "--until", "iou mean > 0.5"]
    words += ["--mode", "eval", "--interval", "0.1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT) as watching:
        assert watching.stdout is not None
        assert (
            watching.stdout.readline() == f"running | no mode 'eval' in {tmp_path / 'run'} yet (known modes: train)\n"
        )
        run.log_samples(sample_id=[1, 2], loss=[3.0, 3.0], iou=[0.5, 1.0], mode="eval", epoch=1, step=1)
        run.close()
        watching.communicate(timeout=_PATIENCE)
        assert watching.returncode == 0


def test_a_loss_that_comes_later_is_told_from_then_on(tmp_path: Path) -> None:
    training = Training(RunLayout(tmp_path / "run"))
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=range(4), cost=[9.0] * 4, mode="eval", epoch=1)
        until(lambda: has_column(tmp_path / "run", "cost"))
        assert [(now.epoch, now.mean) for now in training.look().places] == [(1, 9.0)]
        run.log_samples(sample_id=range(4), cost=[9.0] * 4, loss=[1.0] * 4, mode="eval", epoch=2)
        until(lambda: has_column(tmp_path / "run", "loss"))
        found = training.look()
        assert found.metric == "loss"
        assert found.places[0].history == ((1, 0, None), (2, 0, 1.0))


def test_rows_of_a_live_segment_are_decoded_where_some_have_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xaicli.wal import rows as module

    decoded: list[tuple[Any, int]] = []
    original = module.to_table

    def counted(content: Any, frames: Any, folder: Any, *how: Any) -> Any:
        decoded.append((folder, len(frames)))
        return original(content, frames, folder, *how)

    monkeypatch.setattr(module, "to_table", counted)
    training = Training(RunLayout(tmp_path / "run"))
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in (1, 2, 3):
            for step in (1, 2):
                ids = range(10 * step, 10 * step + 10)
                run.log_samples(
                    sample_id=ids,
                    loss=[epoch + i / 100 for i in ids],
                    mode="train",
                    epoch=epoch,
                    step=10 * epoch + step,
                )
                until(lambda: has_column(tmp_path / "run", "loss"))
                decoded.clear()
                found = training.look()
                assert decoded == [(("train", "", epoch), step)]
                assert found.rows == 20 * (epoch - 1) + 10 * step
        decoded.clear()
        assert training.look().places == found.places
        assert decoded == []
        # A column that comes later is one of all rows.
        run.log_samples(sample_id=[1], loss=[1.0], late=[2.0], mode="train", epoch=4, step=40)
        until(lambda: has_column(tmp_path / "run", "late"))
        assert training.look().rows == 61
        assert len(decoded) == 4
        found, anew = training.look(), Training(RunLayout(tmp_path / "run")).look()
    assert (found.places, found.worst, found.rows) == (anew.places, anew.worst, anew.rows)


@pytest.mark.parametrize("cost", [0.001, 0.03, 0.3, 2.0])
def test_watching_takes_a_hundredth_of_a_core(monkeypatch: pytest.MonkeyPatch, cost: float) -> None:
    """Starting and the first looks are paid back within minutes, and no pause is longer than a minute."""
    from types import SimpleNamespace

    from xaicli.watch import screen as module

    wall, used = [100.0], [1.0]  # starting takes a second of a core
    clocks = SimpleNamespace(monotonic=lambda: wall[0], process_time=lambda: used[0])
    monkeypatch.setattr(module, "time", clocks)
    pace, pauses = module._Pace(2.0), []
    while wall[0] < 100 + 900:
        used[0] += cost
        wall[0] += cost
        pauses.append(pace.pause())
        wall[0] += pauses[-1]
    assert min(pauses) >= 2.0
    assert max(pauses) <= 60.0
    assert pauses[0] == (2.0 if cost < 0.5 else 60.0)
    share = used[0] / (wall[0] - 100)
    assert share <= (
        0.0101 if cost < 0.5 else 0.04
    )  # two seconds a minute are more than it may, and come once a minute
