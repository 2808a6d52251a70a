"""Values that were recorded and are not finite: told as that, of samples, labels and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xaicli import Run, open_run
from xaicli.errors import XaiError
from xaicli.render.terminal import as_text


def run_with_values_that_are_not_finite(folder: Path) -> Path:
    """Four labels of 20 samples, four epochs: of `c` the last two are NaN or infinite, of `d` all."""
    with Run(folder, label_names=["a", "b", "c", "d"]) as run:
        for epoch in (1, 2, 3, 4):
            label = np.arange(80) % 4
            loss = np.where(label == 3, np.nan, 1.0 + label)
            loss[(label == 2) & (epoch >= 3)] = np.inf
            run.log_samples(
                sample_id=np.arange(80), label=label, loss=loss, dead=np.full(80, np.nan), mode="eval", epoch=epoch
            )
    return folder


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_labels_without_a_finite_value_are_told_and_counted(tmp_path: Path, engine: str) -> None:
    opened = open_run(run_with_values_that_are_not_finite(tmp_path / "run"))
    answer = opened.labels(metric=["loss", "dead"], engine=engine)
    told = [str(one) for one in answer.answer.warnings]
    assert "loss eval: label d has no finite value: 80 values were recorded, NaN or infinite" in told
    assert "loss eval: label c is in the last epoch with no finite value" in told
    assert "dead eval: no label has a finite value: 320 values were recorded, NaN or infinite" in told
    assert len(told) == 3
    assert sorted({(row["label"], row["epoch"]) for row in answer.data.to_dicts()})[-2:] == [(2, 1), (2, 2)]
    said = answer.report.sentence
    assert "In the last epoch without a finite value: c." in said
    assert "bsent" not in said


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_labels_without_a_value_at_the_end_are_not_told_of_as_if_they_had_one(tmp_path: Path, engine: str) -> None:
    """Logits are NaN from the third of four epochs on: what was predicted, hence `correct`, is missing there."""
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2, 3, 4):
            label = np.arange(40) % 2
            logits = np.eye(2)[label ^ (np.arange(40) % 4 < 2 * (epoch == 1))]
            run.log_samples(
                sample_id=np.arange(40),
                label=label,
                logits=np.full((40, 2), np.nan) if epoch >= 3 else logits,
                mode="eval",
                epoch=epoch,
            )
    opened = open_run(tmp_path / "run")
    answer = opened.labels(metric="correct", engine=engine)
    assert [(row["epoch"], row["n"], row["mean"]) for row in answer.data.to_dicts()] == [(1, 20, 0.5), (2, 20, 1.0)] * 2
    assert answer.report.sentence.startswith(
        "No label has a finite value after epoch 2, and the last is epoch 4. "
        "Highest mean at epoch 2: 0 (1 for each of 20 samples)."
    )
    assert "ends higher" not in answer.report.sentence
    assert list(answer.answer.warnings) == [
        "correct eval: labels 0, 1 are in the last epoch with no finite value",
        "correct eval: 40 rows of the last epoch without a value",
    ]
    assert [row["label"] for row in answer.answer.extra["without_finite"]] == [0, 1]
    told = opened.report(metric="correct", engine=engine).html(no_images=True)
    assert "No label has a finite value after epoch 2, and the last is epoch 4" in told


def test_a_part_of_a_label_without_a_value_at_the_end_is_counted(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2):
            label, logits = np.arange(40) % 2, np.eye(2)[np.arange(40) % 2]
            logits[:7] = np.nan if epoch == 2 else logits[:7]
            run.log_samples(sample_id=np.arange(40), label=label, logits=logits, mode="eval", epoch=epoch)
    answer = open_run(tmp_path / "run").labels(metric="correct")
    assert list(answer.answer.warnings) == ["correct eval: 7 rows of the last epoch without a value"]
    assert [row["n"] for row in answer.data.to_dicts() if row["epoch"] == 2] == [16, 17]


def test_an_epoch_between_in_which_a_metric_was_not_recorded_is_no_gap(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2, 3):
            more = {} if epoch == 2 else {"cost": np.arange(10.0) + epoch}
            run.log_samples(sample_id=np.arange(10), label=np.arange(10) % 2, mode="eval", epoch=epoch, **more)
    answer = open_run(tmp_path / "run").labels(metric="cost")
    assert not answer.answer.warnings
    assert "A gap in a line" not in answer.html()


def test_a_metric_that_is_never_finite_was_recorded_all_the_same(tmp_path: Path) -> None:
    opened = open_run(run_with_values_that_are_not_finite(tmp_path / "run"))
    shown = as_text(opened.labels(metric="dead").report)
    assert "No label has a finite dead: what was recorded is NaN or infinite." in shown
    assert "nothing was recorded" not in shown
    assert opened.labels(label_map="rare=3").data.height == 0
    with pytest.raises(XaiError, match="no label '7'"):
        opened.labels(label_map="gone=7")


def test_stale_samples_are_absent_or_there_without_a_finite_value(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2):
            ids = np.arange(6 - epoch)
            loss = np.where((ids < 2) & (epoch == 2), np.nan, 1.0 + ids)
            run.log_samples(sample_id=ids, loss=loss, mode="eval", epoch=epoch)
    answer = open_run(tmp_path / "run").samples()
    assert {row["sample_id"] for row in answer.data.to_dicts() if row["stale"]} == {0, 1, 4}
    shown = " ".join(as_text(answer.report).split())
    assert (
        "stale: 1 is absent from the last epoch and 2 are in the last epoch without a finite value, shown with the "
        "last value there is" in shown
    )
    assert "('samples without a finite value in the last epoch', '3')" in str(answer.report.made)


def test_labels_that_are_gone_and_labels_without_a_finite_value_are_told_apart(tmp_path: Path) -> None:
    """`b` leaves after the first epoch, `c` stays and has no finite value in the last."""
    with Run(tmp_path / "run", label_names=["a", "b", "c"]) as run:
        for epoch in (1, 2):
            ids = np.array([i for i in range(12) if epoch == 1 or i % 3 != 1])
            loss = np.where((ids % 3 == 2) & (epoch == 2), np.nan, 1.0 + ids)
            run.log_samples(sample_id=ids, label=ids % 3, loss=loss, mode="eval", epoch=epoch)
    opened = open_run(tmp_path / "run")
    said = "Absent from the last epoch: b. In the last epoch without a finite value: c."
    assert said in opened.labels().report.sentence
    assert said in opened.report().html(no_images=True)
    told = opened.labels().answer.extra["without_finite"]
    assert told == [{"metric": "loss", "mode": "eval", "ds_id": "", "label": 2}]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_stale_is_one_rule_for_every_question(tmp_path: Path, engine: str) -> None:
    """Of eight samples 6 and 7 leave, 0 has no finite loss at the end, 1 no finite margin."""
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2):
            ids = np.arange(8 if epoch == 1 else 6)
            loss = np.where((ids == 0) & (epoch == 2), np.nan, 1.0 + ids)
            margin = np.where((ids == 1) & (epoch == 2), np.inf, 2.0 - ids)
            run.log_samples(sample_id=ids, label=ids % 2, loss=loss, margin=margin, mode="eval", epoch=epoch)
    opened = open_run(tmp_path / "run")

    def stale(result: object) -> set[int]:
        return {row["sample_id"] for row in result.data.to_dicts() if row["stale"]}  # type: ignore[attr-defined]

    loss = {0, 6, 7}
    for stat in ("last", "mean"):
        found = opened.samples(metric="loss", stat=stat, max=8, min=0, engine=engine)
        assert (stale(found), found.answer.counts.stale) == (loss, 3)
    found = opened.dynamics(metric="loss", engine=engine)
    assert (stale(found), found.answer.counts.stale) == (loss, 3)
    assert "3 samples without a finite value in the last epoch" in " ".join(
        f"{value} {name}" for name, value in found.report.made
    )
    both = opened.dynamics(metric=["loss", "margin"], engine=engine)
    assert stale(both) == {0, 1, 6, 7}
    assert not [name for name in both.data.columns if name.startswith("_")]
    of_each = opened.samples(metric=["loss", "margin"], stat="mean", max=8, min=0, engine=engine).data.to_dicts()
    assert {row["sample_id"] for row in of_each if row["stale"] and row["metric"] == "margin"} == {1, 6, 7}
    assert {row["sample_id"] for row in of_each if row["stale"] and row["metric"] == "loss"} == loss
    chosen = opened.select(rule="hardest", n=8, complete_only=True)
    assert set(chosen.data["sample_id"]) == {1, 2, 3, 4, 5}
    assert "3 samples of eval without a finite value in the last epoch are left out" in chosen.answer.warnings


def test_what_a_condition_leaves_out_is_not_said_to_be_absent_or_not_finite(tmp_path: Path) -> None:
    """Of each label one value is NaN; the condition leaves nothing else, or drops label 1 at the end."""
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2):
            loss = np.array([np.nan, np.nan, 1.0, 2.0])
            run.log_samples(sample_id=np.arange(4), label=[0, 1, 0, 1], loss=loss, mode="eval", epoch=epoch)
    opened = open_run(tmp_path / "run")
    among = "among the rows of --where"
    none, lack = "sample_id < 2", f"{among}: what is recorded there is NaN or infinite."
    assert opened.samples(where=none).report.sentence == f"No sample has a finite loss {among}."
    assert opened.report(where=none).report.sentence.startswith(f"No sample has a finite loss {among}")
    found = opened.labels(where=none)
    assert f"No label has a finite loss {lack}" in " ".join(as_text(found.report).split())
    told = f"loss eval: no label has a finite value {among}: 4 values were recorded there, NaN or infinite"
    assert told in [str(one) for one in found.answer.warnings]
    gone = opened.labels(where="label = 0 OR epoch = 1").report.sentence
    assert f"Absent from the last epoch {among}: 1." in gone
    kept = opened.labels(where="NOT (label = 1 AND epoch = 2 AND sample_id = 3)")
    assert f"In the last epoch without a finite value {among}: 1." in kept.report.sentence
    assert f"loss eval: label 1 is in the last epoch with no finite value {among}" in kept.answer.warnings


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize(
    ("options", "n"),
    [
        ({"epoch": "last"}, 6),
        ({"epoch": 2, "mode": "all"}, 6),
        ({"epoch_frequency": 2, "metric": "loss,correct"}, 6),
        ({"epoch": 2, "where": "label = 0"}, 3),
    ],
)
def test_a_metric_that_the_selected_epochs_lack_is_said_to_lack(
    tmp_path: Path, options: dict[str, Any], n: int, engine: str
) -> None:
    """Loss is recorded in train and, in epoch 1 alone, in eval."""
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2):
            for mode in ("train", "eval"):
                more = {} if (mode, epoch) == ("eval", 2) else {"loss": np.arange(6.0)}
                known = {"label": np.arange(6) % 2, "prediction": np.zeros(6, int)}
                run.log_samples(sample_id=np.arange(6), **known, mode=mode, epoch=epoch, step=epoch, **more)
    answer = open_run(tmp_path / "run").labels(engine=engine, **options)
    among, there = (" among the rows of --where", " there") if "where" in options else ("", "")
    assert list(answer.answer.warnings) == [
        f"loss eval: no label has a value{among}: {n} rows were recorded{there} without one"
    ]
    lacking = [(row["metric"], row["mode"], row["label"]) for row in answer.answer.extra["without_finite"]]
    assert lacking == [("loss", "eval", label) for label in range(2 * n // 6)]
    if answer.data.is_empty():
        assert "No label has a value of loss" in answer.report.sentence
        assert "nothing was recorded" not in as_text(answer.report)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_a_mode_without_the_metric_of_the_others_is_named(tmp_path: Path, engine: str) -> None:
    with Run(tmp_path / "run") as run:
        for mode, more in (("train", {"norm": [1.0, 2.0]}), ("eval", {})):
            run.log_samples(sample_id=[0, 1], loss=[0.5, 1.0], mode=mode, epoch=1, **more)
    opened = open_run(tmp_path / "run")
    found = opened.samples(metric="norm", mode="all", engine=engine)
    assert set(found.data["mode"]) == {"train"}
    assert list(found.answer.warnings) == ["no sample of eval has a finite norm: left out"]
    assert not opened.samples(metric="loss", mode="all", engine=engine).answer.warnings


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_samples_without_a_value_are_said_to_lack_it(tmp_path: Path, engine: str) -> None:
    """Loss is in epoch 1 alone, `dead` is NaN throughout."""
    with Run(tmp_path / "run") as run:
        for epoch in (1, 2):
            more = {"loss": np.arange(6.0)} if epoch == 1 else {}
            known = {"label": np.arange(6) % 2, "prediction": np.zeros(6, int), "dead": np.full(6, np.nan)}
            run.log_samples(sample_id=np.arange(6), **known, mode="eval", epoch=epoch, step=epoch, **more)
    opened = open_run(tmp_path / "run")

    def told(**options: Any) -> list[str]:
        return [str(one) for one in opened.samples(engine=engine, **options).answer.warnings]

    said = "no sample of eval has a finite"
    assert told() == []
    assert told(epoch="last", metric="loss,correct") == told(epoch="last") == [f"{said} loss: left out"]
    assert told(epoch="last", stat="mean") == [f"{said} mean of loss: left out"]
    assert told(where="epoch = 2") == [f"{said} loss among the rows of --where: left out"]
    assert told(complete_only=True) == [f"{said} loss in its last epoch: left out"]
    assert told(metric="dead") == [f"{said} dead: left out"]
    assert told(epoch="last", ids=[3], max=0, min=0) == []
    for page in (opened.samples, opened.report):
        missing = as_text(page(epoch="last", ids=[3], engine=engine).report)
        assert "No value of loss was recorded here: there is no line to draw." in missing
        assert "NaN" not in missing
    shown = as_text(opened.samples(metric="dead", ids=[3], engine=engine).report)
    assert "No value of dead is finite here: there is no line to draw." in shown


def test_a_table_without_a_value_is_said_to_lack_it(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.add_metrics_data({"sample_id": [0, 1], "iou": [np.nan, np.nan], "epoch": [1, 1]}, name="boxes")
    found = open_run(tmp_path / "run").samples(table="boxes", metric="iou")
    assert [str(one) for one in found.answer.warnings] == ["no sample has a finite iou: left out"]


def test_batches_without_the_metric_are_said_to_have_no_spike_to_tell(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        for step in (1, 2):
            for mode, more in (("train", {"loss": [1.0, 2.0]}), ("eval", {})):
                run.log_samples(sample_id=[0, 1], label=[0, 1], mode=mode, epoch=1, step=step, **more)
    opened = open_run(tmp_path / "run")
    lack = "no batch of eval has a loss, by which a spike is told"
    assert lack in opened.steps(mode="all").answer.warnings
    assert lack not in opened.steps(mode="train").answer.warnings
