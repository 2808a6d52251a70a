"""Facts of a run that tells of objects alone: ids are as in its tables."""

import csv

import numpy as np

import xaicli

IDS = ["007", "a,b", "9"]


def recorded(path, ids):
    truth = [{"boxes": [[0, 0, 4, 4]], "labels": [0]}] * len(ids)
    found = [{"boxes": np.array([[0.0, 0, 4, 4]]), "labels": [0], "scores": [0.9]}] * len(ids)
    args = {"batch_size": len(ids), "collate_fn": lambda rows: tuple(zip(*rows, strict=True))}
    with xaicli.Run(path) as run:
        run.log_facts(ids, camera=[f"camera of {one}" for one in ids])
        table = xaicli.Table(list(enumerate(truth)), ids=ids)
        collector = xaicli.BoundingBoxMetricsCollector(["cat"])
        xaicli.collect_metrics(table, collector, lambda _: found, run=run, split="val", dataloader_args=args)
    return xaicli.open_run(path)


def test_text_ids_of_a_run_without_rows_keep_their_facts(tmp_path):
    facts = recorded(tmp_path / "run", IDS).reader().facts
    assert dict(facts.frame.select("sample_id", "camera").iter_rows()) == {one: f"camera of {one}" for one in IDS}


def test_a_file_of_facts_is_read_by_the_same_ids(tmp_path):
    run = recorded(tmp_path / "run", IDS)
    with (tmp_path / "more.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["sample_id", "source"], ["007", "x"], ["a,b", "y"], ["7", "z"]])
    frame = run.reader(facts=tmp_path / "more.csv").facts.frame
    found = {sample_id: source for sample_id, source in frame.select("sample_id", "source").iter_rows() if source}
    assert found == {"007": "x", "a,b": "y", "7": "z"}


def test_numbers_stay_numbers(tmp_path):
    facts = recorded(tmp_path / "run", [3, 1, 2]).reader().facts
    assert sorted(facts.frame["sample_id"].to_list()) == [1, 2, 3]
