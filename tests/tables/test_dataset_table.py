"""A table gives samples to training and to collectors, each through its own transforms."""

from __future__ import annotations

import datetime
import gc
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image as Pictures
from torch.utils.data import DataLoader, TensorDataset

import xaicli
from xaicli.errors import XaiError
from xaicli.tables.column import ColumnError, arrow_column
from xaicli.tables.schema import CategoricalLabel, Float, Image, Int, String
from xaicli.tables.table import Table


def numbers(n: int = 6, **options: Any) -> Table:
    return Table.from_arrays(np.arange(n), np.arange(n) * 10, **options)


def test_a_torch_dataset_is_a_table_and_a_table_a_dataset() -> None:
    table = xaicli.Table.from_torch_dataset(TensorDataset(torch.arange(5), torch.arange(5) * 2), name="train")
    batches = list(DataLoader(table, batch_size=2))
    assert len(table) == 5
    assert torch.cat([y for _, y in batches]).tolist() == [0, 2, 4, 6, 8]
    assert table[-1] == (torch.tensor(4), torch.tensor(8))
    with pytest.raises(IndexError, match="has no row 5"):
        table[5]


def test_workers_that_are_started_anew_get_a_table(tmp_path: Path) -> None:
    chosen, corrected = tmp_path / "chosen.csv", tmp_path / "corrected.csv"
    chosen.write_text("sample_id\n4\n2\n5\n1\n")
    corrected.write_text("sample_id,label\n4,7\n")
    data = TensorDataset(torch.arange(6), torch.arange(6) * 2)
    table = Table(data, ids=range(6), facts={"n": list(range(6))}, select=chosen, relabel=corrected)
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts(table)
    for method in ("fork", "spawn", "forkserver"):
        batches = list(DataLoader(table, batch_size=2, num_workers=1, multiprocessing_context=method))
        assert [[x.tolist() for x in batch] for batch in batches] == [[[1, 2], [2, 4]], [[4, 5], [7, 10]]], method
    again = pickle.loads(pickle.dumps(table))  # noqa: S301
    assert (again.facts, again.sample_ids, len(again)) == (table.facts, table.sample_ids, 4)


def test_training_and_collecting_have_transforms_of_their_own() -> None:
    table = numbers().map(lambda s: (s[0] + 100, s[1])).map(lambda s: (s[0] * 2, s[1]))
    assert table[1] == (202, 10)
    assert table.collect_sample(1) == (202, 10)
    table.map_collect_metrics(lambda s: (s[0] - 1, s[1]))
    assert table[1] == (202, 10)
    assert table.collect_sample(1) == (0, 10)


def test_a_view_leaves_its_table_alone() -> None:
    table = numbers(weights=[1, 0, 1, 1, 1, 1], ids=list("abcdef"))
    view = table.with_transform(lambda s: s[0] + 0.5)
    assert (view[2], table[2]) == (2.5, (2, 20))
    assert view.url == table.url
    assert view.sample_ids == list("abcdef")
    assert view.indices(exclude_zero_weights=True) == [0, 2, 3, 4, 5]
    url = table.url
    del table
    gc.collect()
    assert len(Table.from_url(url)) == len(view)


def test_tables_of_one_name_have_addresses_of_their_own() -> None:
    first, second = numbers(name="same"), numbers(name="same")
    assert first.url != second.url
    assert Table.from_url(second.url) is second
    with pytest.raises(XaiError, match="no table 'memory:other'") as caught:
        Table.from_url("memory:other")
    assert first.url in caught.value.hint


def test_columns_are_samples_by_name_with_weights() -> None:
    table = Table.from_dict({"x": [1, 2, 3], "weight": [1.0, 0.0, 2.0]})
    assert table[2] == {"x": 3, "weight": 2.0}
    assert table.indices(exclude_zero_weights=True) == [0, 2]
    assert table.indices() == [0, 1, 2]


def test_the_sampler_draws_by_weight_from_a_generator_of_its_own() -> None:
    table = numbers(4, weights=[0, 1, 1, 8])
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    drawn = Counter(index for seed in range(500) for index in table.create_sampler(seed=seed))
    assert torch.equal(before, torch.random.get_rng_state())
    assert drawn[0] == 0
    # 1500 draws of p = 0.8: four standard deviations are 62.
    assert abs(drawn[3] - 1200) < 62
    assert sorted(table.create_sampler(weighted=False)) == [1, 2, 3]
    assert list(table.create_sampler(weighted=False, shuffle=False, exclude_zero_weights=False)) == [0, 1, 2, 3]
    assert list(table.create_sampler(seed=3)) == list(table.create_sampler(seed=3))


def test_a_folder_of_images_has_classes_and_ids(tmp_path: Path) -> None:
    for name, colour in (("dog/b.png", 30), ("cat/a.png", 10), ("dog/a.jpg", 20)):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Pictures.new("L", (4, 3), colour).save(path)
    (tmp_path / "pets" / "dog" / "notes.txt").write_text("no image")
    table = Table.from_image_folder(tmp_path / "pets")
    assert table.sample_ids == ["cat/a.png", "dog/a.jpg", "dog/b.png"]
    assert table.schema == {"image": Image(), "label": CategoricalLabel("label", ("cat", "dog"))}
    picture, label = table[2]
    assert (picture.getpixel((0, 0)), label, table.name) == (30, 1, "pets")
    assert len(Table.from_url(table.url)) == 3
    alone = Table.from_image_folder(tmp_path / "pets" / "cat")
    assert alone[0].getpixel((0, 0)) == 10
    (tmp_path / "pets" / "cat" / "a.png").write_bytes(b"no image")
    with pytest.raises(XaiError, match="cannot be read as an image"):
        table[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(XaiError, match="holds no images"):
        Table.from_image_folder(tmp_path / "empty")


def test_files_are_tables_with_their_schemas(tmp_path: Path) -> None:
    label = CategoricalLabel("label", ["cat", "dog"])
    fields, columns = zip(
        arrow_column("x", np.arange(6, dtype=np.float32).reshape(3, 2)),
        arrow_column("label", [0, 1, 0], label),
        arrow_column("picture", np.full((3, 2, 2, 3), 9, np.uint8)),
        arrow_column("weight", [1, 0, 1]),
        strict=True,
    )
    path = tmp_path / "data.parquet"
    parquet.write_table(pa.Table.from_arrays(list(columns), schema=pa.schema(fields)), path)
    table = Table.from_parquet(path)
    assert table.schema["label"] == label
    sample = table[1]
    assert sample["x"].tolist() == [2.0, 3.0]
    assert sample["x"].dtype == np.float32
    assert np.asarray(sample["picture"]).tolist() == np.full((2, 2, 3), 9).tolist()
    assert table.indices(exclude_zero_weights=True) == [0, 2]
    (tmp_path / "data.csv").write_text("name,loss,n\na,0.5,1\nb,0.25,2\n")
    rows = Table.from_csv(tmp_path / "data.csv")
    assert [rows[i] for i in range(2)] == [{"name": "a", "loss": 0.5, "n": 1}, {"name": "b", "loss": 0.25, "n": 2}]
    assert rows.schema == {"name": String(), "loss": Float(), "n": Int()}
    assert len(Table.from_url(tmp_path / "data.csv")) == 2
    path.write_bytes(b"PAR1 not")
    with pytest.raises(XaiError, match="cannot be read"):
        Table.from_parquet(path)
    with pytest.raises(XaiError, match="does not exist"):
        Table.from_csv(tmp_path / "none.csv")


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(XaiError, match="ids has length 2, the dataset 6"):
        numbers(ids=[1, 2])
    with pytest.raises(XaiError, match="weights holds 1 values that are negative or not finite"):
        numbers(weights=[1, 1, 1, 1, 1, -1])
    with pytest.raises(ColumnError, match="'a' has 2, 'b' has 3"):
        Table.from_dict({"a": [1, 2], "b": [1, 2, 3]})
    with pytest.raises(XaiError, match="no map-style dataset"):
        Table(iter([1, 2]))  # type: ignore[arg-type]


def test_facts_of_a_table_are_recorded_once_a_run(tmp_path):
    """Each row's, by its id; a choice of rows takes its own along."""
    camera, pages = ["left", "right", "left"], np.array([3, 4, 5])
    table = xaicli.Table(
        [(torch.ones(2), 0), (torch.ones(2), 1), (torch.zeros(2), 1)],
        ids=["a", "b", "c"],
        facts={"camera": camera, "page": pages, "source": "web"},
        select=["c", "a"],
    )
    view = table.with_transform(lambda sample: sample)
    (tmp_path / "facts.csv").write_text("sample_id;day\nb;2026-01-02\n")
    filed = xaicli.Table(table.rows, ids=["a", "b"], facts=tmp_path / "facts.csv")
    with xaicli.Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=["a", "b", "c"], loss=[1.0, 2.0, 3.0], mode="eval", epoch=1)
        for each in (table, table, view, filed):
            collect = lambda batch, _: {"total": batch[0].sum(1)}  # noqa: E731
            xaicli.collect_metrics(each, collect, torch.nn.Flatten(), run=run)
    stored = parquet.read_table(tmp_path / "run" / "facts").to_pydict()
    assert [name for name in stored["camera"] if name] == ["left"] * 2  # of a, and of c
    rows = xaicli.open_run(tmp_path / "run").samples(max=3, min=0).data.to_dicts()
    facts = {row["sample_id"]: row["facts"] for row in rows}
    day = datetime.date(2026, 1, 2)
    assert facts["a"] == {"camera": "left", "page": 3, "source": "web", "day": None}
    assert facts["b"] == {"camera": None, "page": None, "source": None, "day": day}
    assert facts["c"] == {"camera": "left", "page": 5, "source": "web", "day": None}
    with pytest.raises(XaiError, match="the fact camera has length 1"):
        xaicli.Table([1, 2], facts={"camera": ["left"]})


@pytest.mark.parametrize("name", ["sample_id", "facts"])
def test_a_name_that_no_fact_has_is_refused_where_the_table_is_made(name):
    with pytest.raises(XaiError, match=f"^{name} is no name of a fact"):
        xaicli.Table([1, 2], facts={name: ["a", "b"], "camera": ["left", "right"]})


def test_a_fact_may_be_called_self(tmp_path):
    table = xaicli.Table([(torch.ones(2), 0), (torch.zeros(2), 1)], facts={"self": ["me", "you"], "camera": "left"})
    with xaicli.Run(tmp_path / "run", strict=True) as run:
        run.log_samples(sample_id=[0, 1], loss=[1.0, 2.0], mode="eval", epoch=1)
        xaicli.collect_metrics(table, lambda batch, _: {"total": batch[0].sum(1)}, torch.nn.Flatten(), run=run)
    rows = xaicli.open_run(tmp_path / "run").samples(max=2, min=0).data.sort("sample_id")
    assert rows["facts"].to_list() == [{"self": "me", "camera": "left"}, {"self": "you", "camera": "left"}]
