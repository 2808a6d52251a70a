"""Questions asked of runs made by the recorder: while it logs, after it closed, after compaction, after a resume."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import xaicli
from tests import oracle
from xaicli.answer import Answer
from xaicli.layout import RunLayout
from xaicli.maintenance.compact import compact
from xaicli.queries.scalars import scalars
from xaicli.recorder.run import Run
from xaicli.report.charts import LineChart

Rows = list[dict[str, Any]]


def record(run: xaicli.Run, epochs: range, rng: np.random.Generator) -> Rows:
    """Log 90 samples an epoch in shuffled batches; the rows as the oracle wants them."""
    logged: Rows = []
    step = epochs.start * 100
    for epoch in epochs:
        for ids in np.split(rng.permutation(90), 6):
            loss = rng.integers(0, 30, len(ids)).astype(np.float32)
            run.log_samples(sample_id=ids, label=ids % 4, loss=loss, mode="eval", epoch=epoch, step=step)
            for i, value in zip(ids.tolist(), loss.tolist(), strict=True):
                logged.append({"sample_id": i, "epoch": epoch, "label": i % 4, "loss": value, "step": step})
            step += 1
    return logged


def asked(root: Path) -> tuple[Any, Any]:
    samples = xaicli.open_run(root).samples(max=4, min=4, ids=[7])
    return samples.data.to_dicts(), samples.answer.counts


def labels(root: Path) -> pl.DataFrame:
    return xaicli.open_run(root).labels(bounds=["range"]).data


def expected(logged: Rows) -> Rows:
    """What `samples(max=4, min=4, ids=[7])` answers of a run without names of classes, whose labels are their names."""
    found = oracle.samples(oracle.counting(logged), max=4, min=4, ids=[7])
    return [{**row, "name": str(row["label"])} for row in found]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_live_rows_are_asked_too(tmp_path: Path, engine: str) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        logged = record(run, range(1, 3), np.random.default_rng(0))
        found = xaicli.open_run(tmp_path / "run").samples(max=4, min=4, ids=[7], engine=engine)
        assert list((tmp_path / "run/wal").iterdir())
        assert found.data.to_dicts() == expected(logged)


def test_compaction_changes_no_answer(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        logged = record(run, range(1, 4), np.random.default_rng(0))
    before, spread = asked(tmp_path / "run"), labels(tmp_path / "run")
    assert before[0] == expected(logged)
    compact(RunLayout(tmp_path / "run"))
    assert asked(tmp_path / "run") == before
    compact(RunLayout(tmp_path / "run"), grace=0.0)
    assert asked(tmp_path / "run") == before
    # Sums in another order may differ in the last bit.
    assert_frame_equal(labels(tmp_path / "run"), spread, rel_tol=1e-12)


def test_rows_logged_again_after_a_resume_replace_the_old(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with xaicli.Run(tmp_path / "run") as run:
        first = record(run, range(1, 4), rng)
    with xaicli.Run(tmp_path / "run") as run:
        second = record(run, range(2, 4), rng)
    rows = [*first, *({**row, "attempt": 1} for row in second)]
    assert asked(tmp_path / "run")[0] == expected(rows)
    compact(RunLayout(tmp_path / "run"), grace=0.0)
    assert asked(tmp_path / "run")[0] == expected(rows)


def test_text_ids_and_every_question(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        for epoch in (1, 2):
            ids = [f"img/{i}.png" for i in range(8)]
            logits = np.arange(16, dtype=np.float32).reshape(8, 2) * (-1) ** epoch
            run.log_samples(sample_id=ids, label=np.arange(8) % 2, logits=logits, mode="train", epoch=epoch)
        run.log({"lr": 0.5})
        run.add_metrics_data({"example_id": [0, 0, 1], "iou": [0.5, 0.75, 0.25]}, name="my boxes")
    reader = xaicli.open_run(tmp_path / "run")
    samples = reader.samples(ids=["img/3.png"], max=1, min=0)
    assert samples.answer.warnings == ("the run has no eval rows: showing train",)
    assert samples.data["sample_id"].to_list()[-1] == "img/3.png"
    assert reader.labels().data["name"].unique().sort().to_list() == ["cat", "dog"]
    assert reader.scan(mode="train").collect().height == 16
    assert reader.query('SELECT max(iou) AS best FROM "my boxes"').data["best"].to_list() == [0.75]
    assert reader.query("SELECT value FROM scalars WHERE key = 'lr'", engine="duckdb").data["value"].to_list() == [0.5]
    table = reader.samples(table="my boxes", metric="iou", reduce="max", max=2, min=0)
    assert table.data.select("sample_id", "score").rows() == [(0, 0.75), (1, 0.25)]
    with pytest.raises(xaicli.XaiError, match=r"no sample_id 'img/3\.pgn'") as raised:
        reader.samples(ids=["img/3.pgn"])
    assert "did you mean img/3.png" in raised.value.hint


def test_scalars_that_a_later_attempt_took_back_are_counted(tmp_path: Path) -> None:
    for attempt, first in enumerate((1, 3)):
        with Run(tmp_path / "run") as run:
            for epoch in range(first, 6 - 2 * attempt):
                run.log_samples(sample_id=[1], loss=[0.5], epoch=epoch, step=epoch, mode="train")
                run.log({"epoch": epoch, "lr": float(epoch + 10 * attempt)})
    answer = scalars([tmp_path / "run"])
    assert answer.data["value"].to_list() == [1.0, 2.0, 13.0]
    assert answer.counts.taken_back == 3, "those of the epochs 3, 4 and 5"
    assert any("3 scalars of earlier attempts do not count" in warning for warning in answer.warnings)


def logged_again(root: Path) -> None:
    """Three steps and, of a second start that trains nothing, the last of them and one more; no rows of samples."""
    with Run(root) as run:
        for step in (1, 2, 3, 3):
            run.log({"step": step, "lr": step / 8})
    with Run(root) as run:
        for step in (3, 4):
            run.log({"step": step, "lr": step * 2.0})


def said_of_others(warnings: Iterable[str]) -> list[str]:
    """What warnings say of values beside those of another attempt, without what to do."""
    ends = "; xai scalars and most others count them with --attempts all"
    return [said.removesuffix(ends) for said in warnings if "at the same moment" in said and said.endswith(ends)]


def test_scalars_that_a_later_attempt_overwrote_are_counted_and_can_be_counted_again(tmp_path: Path) -> None:
    logged_again(tmp_path / "run")
    answer = scalars([tmp_path / "run"])
    assert answer.data["value"].to_list() == [0.125, 0.25, 6.0, 8.0]
    assert (answer.counts.taken_back, answer.counts.duplicates) == (0, 2), "step 3 is there three times"
    assert said_of_others(answer.warnings) == ["1 value of lr does not count: attempt 1's at the same moment does"]
    everything = scalars([tmp_path / "run"], attempts="all")
    lines = everything.data.select("line", "step", "value").rows()
    first = [("attempt 0", 1, 0.125), ("attempt 0", 2, 0.25), ("attempt 0", 3, 0.375)]
    assert lines == [*first, ("attempt 1", 3, 6.0), ("attempt 1", 4, 8.0)]
    assert (everything.counts.taken_back, everything.counts.duplicates) == (0, 1)
    assert not said_of_others(everything.warnings)
    assert "--attempts all" in everything.command_line()


def test_the_scalars_of_other_ranks_that_differ_are_told(tmp_path: Path) -> None:
    """The lowest rank's counts; what other ranks have of the same value is nothing to know of."""
    runs = [Run(tmp_path / "run", rank=rank) for rank in range(3)]
    for rank, run in enumerate(runs):
        for step in (1, 2):
            run.log({"step": step, "epoch": step, "mean": step / 8, "own": float(rank), "no": float("nan")})
        run.log({"epoch": 2, "late": float(rank)} if rank else {"epoch": 1, "late": 0.0})
    for run in runs:
        run.close()
    for root in (tmp_path / "run", compacted(tmp_path / "run")):
        answer = scalars([root])
        assert curve(answer, "own") == {1: 0.0, 2: 0.0}
        assert curve(answer, "late") == {1: 0.0, 2: 1.0}
        assert answer.counts.duplicates == 3 * 2 * 2 + 1
        ends = "log the mean of the ranks, or each rank's under a name of its own, as loss/rank1"
        said = f"5 values of late, own do not count: rank 0's, rank 1's at the same moments do; {ends}"
        assert [*answer.warnings] == [said]
        asked = xaicli.open_run(root).query("SELECT count(*) AS n FROM scalars WHERE key = 'own'")
        assert (asked.data["n"].item(), [*asked.answer.warnings]) == (2, [said])
        assert said in xaicli.open_run(root).info().answer.warnings
        assert said in scalars([root], attempts="all").warnings


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_sql_counts_the_scalars_that_it_does_not_see(tmp_path: Path, engine: str) -> None:
    logged_again(tmp_path / "run")
    run = xaicli.open_run(tmp_path / "run")
    asked = run.query("SELECT sum(value) AS total FROM scalars", engine=engine)
    counts = asked.answer.counts
    assert (asked.data["total"].item(), counts.taken_back, counts.duplicates) == (14.375, 0, 2)
    assert len(said_of_others(asked.answer.warnings)) == 1
    asked = run.query("SELECT sum(value) AS total FROM scalars", engine=engine, attempts="all")
    counts = asked.answer.counts
    assert (asked.data["total"].item(), counts.taken_back, counts.duplicates) == (14.75, 0, 1)


def curve(answer: Answer, key: str) -> dict[int, float]:
    """{time: value} of one key; each once."""
    rows = answer.data.filter(pl.col("key") == key).select("step", "value").rows()
    assert len(rows) == len(dict(rows))
    return dict(rows)


def compacted(root: Path) -> Path:
    compact(RunLayout(root), grace=0.0)
    return root


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_scalars_of_an_evaluation_of_a_finished_run_replace_none_of_the_training(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for step in range(6):
            run.log_samples(sample_id=[0], loss=[0.0], mode="train", epoch=step // 2 + 1, step=step)
            run.log({"step": step, "loss": float(step)})
        run.log({"epoch": 3, "acc": 0.25})
    with Run(tmp_path / "run") as run:
        for step in range(3, 8):
            run.log_samples(sample_id=[step], loss=[9.0], mode="test", step=step)
            run.log({"step": step, "loss": -1.0})
        run.log({"epoch": 3, "acc": 0.75})
    for root in (tmp_path / "run", compacted(tmp_path / "run")):
        answer = scalars([root])
        assert curve(answer, "loss") == {**{step: float(step) for step in range(6)}, 6: -1.0, 7: -1.0}
        assert curve(answer, "acc") == {3: 0.25}
        assert (answer.counts.taken_back, answer.counts.duplicates) == (0, 4)
        said = ["4 values of acc, loss do not count: attempt 0's at the same moments do"]
        assert said_of_others(answer.warnings) == said_of_others(xaicli.open_run(root).info().answer.warnings) == said
        everything = scalars([root], attempts="all")
        assert (everything.data.height, everything.counts.duplicates, everything.counts.taken_back) == (13, 0, 0)
        for engine in ("polars", "duckdb"):
            asked = xaicli.open_run(root).query("SELECT sum(value) AS total FROM scalars WHERE step < 6", engine=engine)
            assert asked.data["total"].item() == 15.25


def test_the_scalars_of_a_rival_are_those_of_one_more_rank(tmp_path: Path) -> None:
    """Two trainings into one folder at once, and a third when both are over, which takes both back from epoch 3 on."""
    first = Run(tmp_path / "run")
    first.log_samples(sample_id=[1], loss=[0.0], mode="train", epoch=1, step=1)
    second = Run(tmp_path / "run")
    with pytest.warns(UserWarning, match="one more rank beside it"):
        second.log_samples(sample_id=[2], loss=[0.0], mode="train", epoch=1, step=1)
    for epoch in range(1, 5):
        first.log({"epoch": epoch, "acc": float(epoch)})
        second.log({"epoch": epoch, "acc": -float(epoch)})
    second.log({"epoch": 5, "acc": -5.0})
    first.close()
    second.close()
    answer = scalars([tmp_path / "run"])
    assert curve(answer, "acc") == {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: -5.0}
    assert (answer.counts.taken_back, answer.counts.duplicates) == (0, 4)
    with Run(tmp_path / "run", resume_from=(3, 0)) as third:
        third.log_samples(sample_id=[1], loss=[0.0], mode="train", epoch=3, step=0)
        third.log({"epoch": 3, "acc": 30.0})
    answer = scalars([tmp_path / "run"])
    assert curve(answer, "acc") == {1: 1.0, 2: 2.0, 3: 30.0}
    assert (answer.counts.taken_back, answer.counts.duplicates) == (5, 2)


@pytest.mark.parametrize("goes_on", [True, False])
def test_scalars_without_an_epoch_are_taken_back_by_their_step(tmp_path: Path, goes_on: bool) -> None:
    """Epochs of four steps, which go on over the epochs or begin anew with each; gone on with from the second."""
    for attempt, epochs in enumerate(((1, 2, 3), (2,))):
        with Run(tmp_path / "run") as run:
            for epoch in epochs:
                for batch in range(4):
                    at = 4 * (epoch - 1) * goes_on + batch
                    run.log_samples(sample_id=[batch], loss=[0.0], mode="train", epoch=epoch, step=at)
                    run.log({"step": at, "lr": float(attempt)})
    answer = scalars([tmp_path / "run"])
    if goes_on:
        assert curve(answer, "lr") == {step: float(step >= 4) for step in range(8)}
        assert (answer.counts.taken_back, answer.counts.duplicates) == (8, 0)
    else:  # which epoch they are of nobody knows: those that were logged again count once
        assert curve(answer, "lr") == dict.fromkeys(range(4), 1.0)
        assert (answer.counts.taken_back, answer.counts.duplicates) == (4, 8)


def test_the_page_of_a_run_says_which_scalars_do_not_count(tmp_path: Path) -> None:
    logged_again(tmp_path / "run")
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1], loss=[0.5], epoch=1, mode="eval")
    report = xaicli.open_run(tmp_path / "run").report()
    assert len(said_of_others(report.answer.warnings)) == 1
    info = xaicli.open_run(tmp_path / "run").info()
    assert len(said_of_others(info.answer.warnings)) == 1
    assert not said_of_others(xaicli.open_run(tmp_path / "run").report(attempts="all").answer.warnings)


def test_a_step_that_a_training_log_tells_twice_is_counted(tmp_path: Path) -> None:
    lines = ["FastEstimator-Train: step: 1; loss: 0.5;", "FastEstimator-Train: step: 1; loss: 0.25;"]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    answer = scalars([tmp_path / "a.txt"])
    assert (answer.data["value"].to_list(), answer.counts.duplicates) == ([0.25], 1)


def steps_that_start_again(root: Path) -> dict[tuple[int, int], float]:
    """Three epochs of five steps, each from 0, and a value of each: {(epoch, step): value}."""
    logged = {}
    with Run(root) as run:
        for epoch in (1, 2, 3):
            for step in range(5):
                logged[epoch, step] = epoch + step / 16
                run.log({"epoch": epoch, "step": step, "lr": logged[epoch, step]})
    return logged


def test_scalars_of_steps_that_start_again_with_each_epoch_are_all_there(tmp_path: Path) -> None:
    logged = steps_that_start_again(tmp_path / "run")
    answer = scalars([tmp_path / "run"])
    rows = answer.data.select("epoch", "step", "value").rows()
    assert rows == [(epoch, step, value) for (epoch, step), value in sorted(logged.items())]
    assert (answer.counts.duplicates, answer.counts.taken_back, answer.warnings) == (0, 0, ())
    told = xaicli.open_run(tmp_path / "run").query("SELECT epoch, step, value FROM scalars")
    assert told.data.rows() == rows
    with Run(tmp_path / "run", resume_from=(3, 2)) as run:
        for step in (2, 3):
            run.log({"epoch": 3, "step": step, "lr": 0.5})
    again = scalars([tmp_path / "run"])
    assert again.data["value"].to_list() == [*list(logged.values())[:12], 0.5, 0.5]
    assert again.counts.taken_back == 3


def test_the_mean_of_runs_is_of_the_same_step_of_the_same_epoch(tmp_path: Path) -> None:
    logged = steps_that_start_again(tmp_path / "a")
    steps_that_start_again(tmp_path / "b")
    answer = scalars([tmp_path / "a", tmp_path / "b"], group=["both=*"])
    rows = answer.data.select("epoch", "step", "value", "n").rows()
    assert rows == [(epoch, step, value, 2) for (epoch, step), value in sorted(logged.items())]


def test_values_that_no_epoch_tells_apart_are_counted_and_told(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2, 3):
            for step in range(5):
                run.log({"step": step, "lr": epoch + step / 16})
    answer = scalars([tmp_path / "run"])
    assert answer.data["value"].to_list() == [3 + step / 16 for step in range(5)]
    assert answer.counts.duplicates == 10
    assert any("10 values were logged again at the same step, of lr; the last counts" in w for w in answer.warnings)
    told = xaicli.open_run(tmp_path / "run").query("SELECT value FROM scalars").answer
    assert told.warnings == answer.warnings
    assert answer.warnings[0] in xaicli.open_run(tmp_path / "run").info().answer.warnings


def test_values_logged_in_every_batch_at_an_epoch_alone_are_counted_and_told(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2, 3):
            for step in range(5):
                run.log({"epoch": epoch, "lr": epoch + step / 16})
    answer = scalars([tmp_path / "run"])
    assert answer.data["value"].to_list() == [epoch + 4 / 16 for epoch in (1, 2, 3)]
    assert answer.counts.duplicates == 12
    (said,) = (w for w in answer.warnings if "logged again" in w)
    assert said.startswith("12 values were logged again at the same epoch, of lr; the last counts")
    assert 'run.log({"epoch": ..., "step": ..., ...}) keeps them apart' in said


def test_steps_that_start_again_are_drawn_one_epoch_after_the_other(tmp_path: Path) -> None:
    logged = steps_that_start_again(tmp_path / "run")
    report = xaicli.open_run(tmp_path / "run").scalars().report
    (chart,) = [block for block in report.sections[0].blocks if isinstance(block, LineChart)]
    assert chart.series[0].x == tuple(range(15))
    assert chart.series[0].y == tuple(logged.values())
    assert chart.x_label == "step, counted on over the epochs"
    assert "1 at step 0 of epoch 1, 3.25 at step 4 of epoch 3" in chart.alt


def trained(root: Path, attempt: int, epochs: range, *, until: tuple[int, int] | None = None, **options: Any) -> None:
    """Epochs of three steps that go on, and an accuracy of each; stopped behind a step of an epoch."""
    with Run(root, **options) as run:
        for epoch in epochs:
            for step in range(epoch * 3 - 2, epoch * 3 + 1):
                run.log_samples(sample_id=[1, 2], loss=[0.0, 0.0], mode="train", epoch=epoch, step=step)
                if (epoch, step) == until:
                    return
            run.log({"acc": attempt * 10.0 + epoch, "epoch": epoch})


def test_a_value_of_an_epoch_alone_goes_with_the_epoch_that_begins_anew(tmp_path: Path) -> None:
    """Whether the attempt that begins it anew logs it or not; one that goes on within the epoch leaves it."""
    for name, until, options, left in (
        ("scratch", (1, 2), {}, {}),
        ("an epoch's first step", (2, 4), {}, {1: 1.0}),
        ("resume_from", (2, 4), {"resume_from": (2, 4)}, {1: 1.0}),
        ("within the epoch", (2, 5), {"resume_from": (2, 5)}, {1: 1.0, 2: 2.0}),
    ):
        root = tmp_path / name
        trained(root, 0, range(1, 4))
        if name == "within the epoch":
            with Run(root, resume_from=(2, 5)) as run:
                run.log_samples(sample_id=[1, 2], loss=[0.0, 0.0], mode="train", epoch=2, step=5)
        else:
            trained(root, 1, range(until[0], 4), until=until, **options)
        for each in (root, compacted(root)):
            rows = xaicli.open_run(each).query("SELECT epoch, value FROM scalars").data.rows()
            assert dict(rows) == left, name


def test_a_value_renamed_since_leaves_nothing_of_an_epoch_trained_again(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for epoch in run.epochs(3):
            for ids in run.steps([[1, 2], [3, 4]]):
                run.log_samples(sample_id=ids, loss=[0.0, 0.0])
            run.log({"acc": 0.5, "epoch": epoch})
    with Run(tmp_path / "run") as run:
        for epoch in run.epochs(2):
            for ids in run.steps([[1, 2], [3, 4]]):
                run.log_samples(sample_id=ids, loss=[0.0, 0.0])
            run.log({"accuracy": 0.75, "epoch": epoch})
    answer = scalars([tmp_path / "run"])
    assert answer.data.select("key", "step", "value").rows() == [("accuracy", 1, 0.75), ("accuracy", 2, 0.75)]
    assert answer.counts.taken_back == 3


@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
@pytest.mark.parametrize("trains", [True, False])
def test_attempts_that_a_third_alone_lived_beside_are_no_rivals(tmp_path: Path, trains: bool) -> None:
    """0 ends, 1 lives on beside it and beside 2: of 0 and 2 the later counts, of two that lived at once the first."""
    root = tmp_path / "run"

    def logged(run: Run, attempt: int, *epochs: int) -> None:
        if trains and attempt != 1:
            run.log_samples(sample_id=[attempt], loss=[0.0], mode="train", epoch=1, step=1)
        for epoch in epochs:
            run.log({"epoch": epoch, "acc": attempt * 10.0 + epoch})

    first = Run(root)
    logged(first, 0, 1, 2, 4)
    beside = Run(root)
    logged(beside, 1, 2, 3, 4)
    first.close()
    last = Run(root)
    logged(last, 2, 1, 3, 4)
    beside.close()
    last.close()
    expected = {1: 21.0, 2: 2.0, 3: 23.0, 4: 24.0} if trains else {1: 21.0, 2: 2.0, 3: 13.0, 4: 14.0}
    assert curve(scalars([root]), "acc") == expected
    everything = scalars([root], attempts="all").data.filter(pl.col("key") == "acc")
    assert sorted(everything["value"].to_list()) == [1.0, 2.0, 4.0, 12.0, 13.0, 14.0, 21.0, 23.0, 24.0]


def batches_of_an_own_loop(_: Run, epoch: int) -> Iterable[int]:
    yield from range(epoch * 3 - 2, epoch * 3 + 1)


def batches_that_are_counted(run: Run, epoch: int) -> Iterable[int]:
    for step in batches_of_an_own_loop(run, epoch):
        run.state.update_global_step()
        yield step


@pytest.mark.parametrize("batches", [batches_of_an_own_loop, batches_that_are_counted])
@pytest.mark.parametrize("named", [True, False])
def test_scalars_without_a_time_are_all_there_after_resume_from(tmp_path: Path, batches: Any, named: bool) -> None:
    """The step to go on from is a time only where the loop counts on from it; else the counter goes on."""
    for first, last, options in ((1, 3, {}), (3, 5, {"resume_from": (3, 7)})):
        with Run(tmp_path / "run", **options) as run:
            for epoch in run.epochs(last) if named else range(first, last + 1):
                for step in batches(run, epoch):
                    run.log_samples(sample_id=[1], loss=[0.0], mode="train", epoch=epoch, step=step)
                    run.log({"lr": float(step)})
    answer = scalars([tmp_path / "run"])
    again = [7.0, 8.0, 9.0] if not named and batches is batches_of_an_own_loop else []  # of which epoch nobody knows
    assert answer.data["value"].to_list() == [*range(1, 10), *again, *range(10, 16)][: None if not again else 18]
    assert answer.counts.duplicates == 0
    assert set(answer.data["axis"]) == {"counter" if batches is batches_of_an_own_loop else "step"}


def test_values_logged_in_every_batch_of_an_evaluation_are_counted_and_told(tmp_path: Path) -> None:
    """An evaluation counts no steps; with steps of its own nothing is left out."""
    for own_steps in (False, True):
        with Run(tmp_path / f"{own_steps}") as run:
            for _ in run.epochs(2):
                for _ in run.steps(range(3)):
                    run.log({"loss": 1.0})
                for batch in run.steps(range(4), mode="eval"):
                    run.log({"vloss": 10.0 + batch, **({"step": batch} if own_steps else {})})
    answer = scalars([tmp_path / "False"])
    assert answer.data.filter(key="vloss").select("epoch", "step", "value").rows() == [(1, 3, 13.0), (2, 6, 13.0)]
    assert answer.counts.duplicates == 6
    (said,) = answer.warnings
    assert said.startswith("6 values were logged again at the same step of an epoch, of vloss; the last counts")
    assert 'run.log({"step": ..., ...}) with the number of the batch keeps them apart' in said
    assert said in xaicli.open_run(tmp_path / "False").info().answer.warnings
    apart = scalars([tmp_path / "True"])
    assert apart.data.filter(key="vloss")["value"].to_list() == [10.0, 11.0, 12.0, 13.0] * 2
    assert (apart.counts.duplicates, apart.warnings) == (0, ())
