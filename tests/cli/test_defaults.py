"""A default of one's own costs no answer: it counts where it applies, and is passed over where it does not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import xaicli

Xai = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def with_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with rows of two data sets in epochs 1, 2 and 4, and a table of epochs 1 and 2 without a loss."""
    path = tmp_path_factory.mktemp("with_table") / "run"
    with xaicli.Run(path) as run:
        for epoch, ds_id in itertools.product((1, 2, 4), ("x", "y")):
            run.log_samples(
                sample_id=range(4),
                label=[0, 1, 0, 1],
                prediction=[0, 1, 1, 1],
                loss=[1.0, 2, 3, 4],
                mode="eval",
                ds_id=ds_id,
                epoch=epoch,
            )
        table = {"sample_id": [*range(4)] * 2, "epoch": [1] * 4 + [2] * 4, "split": ["eval"] * 8, "iou": [0.5] * 8}
        run.add_metrics_data(table, name="boxes")
    return path


@pytest.mark.parametrize(
    ("settings", "typed"),
    [
        ("epoch = ['1-2', '4']", ("--epoch", "1-2,4")),
        ("epoch = 4", ("--epoch", "4")),
        ("epoch_frequency = 4", ("--epoch-frequency", "4")),
        ("where = 'loss >= 0'", ("--where", "loss >= 0")),
    ],
)
def test_a_default_about_the_rows_is_passed_over_where_a_table_answers(
    xai: Xai, with_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, typed: tuple[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    question = ("samples", with_table, "--table", "boxes", "--metric", "iou")
    assert xai(*question, *typed)[0] in (1, 2)
    plain = xai(*question)
    Path("xai.toml").write_text(settings)
    assert (plain[0], xai(*question)) == (0, plain)
    status, _, err = xai("samples", with_table, *typed)
    assert status == 0, err
    for nowhere in ("epoch = 9", "where = 'nosuch > 1'", "epoch_frequency = 9"):
        Path("xai.toml").write_text(nowhere)
        assert xai(*question)[0] in (1, 2)


@pytest.mark.parametrize("settings", ["", "format = 'txt'"])
def test_a_list_of_ids_that_nobody_typed_is_parquet_where_ids_alone_say_too_little(
    xai: Xai, with_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("xai.toml").write_text(settings)
    question = ("select", with_table, "--rule", "hardest", "--n", "2", "-o", tmp_path / "out")
    (tmp_path / "out").mkdir()
    assert xai(*question)[0] == 0
    rows = pl.read_parquet(tmp_path / "out" / "select.parquet")
    assert sorted(rows.select("ds_id", "sample_id").iter_rows()) == [("x", 2), ("x", 3), ("y", 2), ("y", 3)]
    assert not (tmp_path / "out" / "select.txt").exists()
    status, _, err = xai(*question, "--format", "txt")
    assert (status, "of which data set" in err) == (2, True)
    assert xai(*question, "--ds-id", "x")[0] == 0
    assert (tmp_path / "out" / "select.txt").read_text().splitlines() == ["3", "2"]
