"""What a question names: settings of another kind, ids that are nowhere, statistics, addresses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import xaicli
from xaicli.cli import main


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ids 0 to 3 at epoch 1, and 0 to 2 at epoch 2; labels 0, 1, 0, 1."""
    folder = tmp_path_factory.mktemp("named") / "run"
    with xaicli.Run(folder) as run:
        for epoch, n in ((1, 4), (2, 3)):
            labels = np.array([0, 1, 0, 1])[:n]
            losses = np.array([1.0, 2.0, 3.0, 6.0], np.float32)[:n] / epoch
            run.log_samples(sample_id=np.arange(n), label=labels, loss=losses, mode="eval", epoch=epoch, step=epoch)
    return folder


def _asked(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(arguments)
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.parametrize(
    "settings",
    [
        '[label_map]\n"a, b" = 0\n"x=y" = 1',
        '[labels.label-map]\n"a, b" = 0\n"x=y" = 1',
        'label-map = {"a, b" = 0, "x=y" = 1}',
    ],
)
def test_a_table_is_a_map_of_labels(
    run_dir: Path, settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("xai.toml").write_text(settings)
    status, out, err = _asked(["labels", str(run_dir), "--epoch", "1", "--json"], capsys)
    assert status == 0, err
    rows = json.loads(out)["rows"]
    assert {row["name"]: row["mean"] for row in rows} == {"a, b": 2.0, "x=y": 4.0}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ("metric = {a = 1}", "setting metric = {'a': 1} is a table"),
        ("[max]\na = 1", "setting max = {'a': 1} is a table"),
        ("label_map = {cat = true}", "setting label_map.cat = True is no label"),
        ("max = true", "setting max = true is a truth value"),
        ("[samples]\nmetric = [false]", "setting metric = false is a truth value"),
    ],
)
def test_a_setting_of_another_kind_is_refused_by_name(
    run_dir: Path,
    settings: str,
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("xai.toml").write_text(settings)
    status, out, err = _asked(["samples", str(run_dir)], capsys)
    assert (status, out) == (2, "")
    assert named in err
    Path("xai.toml").write_text("no-images = true\nquiet = false")
    assert _asked(["samples", str(run_dir), "--json"], capsys)[0] == 0


def test_ids_that_are_nowhere_are_named_first(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = _asked(["samples", str(run_dir), "--ids", "0,3,99,100", "--epoch", "2"], capsys)
    assert status == 1
    assert "no sample_id '99' in" in err
    assert "nor is there 100; 3 left out by --epoch" in " ".join(err.split())


def test_all_statistics_are_named(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = _asked(["samples", str(run_dir), "--stat", "nosuch"], capsys)
    assert (status, " more" in err) == (1, False)
    for name in ("n_obs", "mean", "min", "max", "std", "slope", "first", "ema", "rank_jump"):
        assert name in err


def test_runs_of_the_current_folder(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run_dir.parent)
    assert "1 run at or below this folder." in _asked(["ls", "."], capsys)[1]
    monkeypatch.chdir(tmp_path)
    assert f"there are no runs at or below {tmp_path}" in " ".join(_asked(["ls"], capsys)[2].split())


def test_commands_that_change_files_are_refused_at_an_address(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    address = f"file://{tmp_path}/store/run"
    assert _asked(["sync", str(run_dir), address], capsys)[0] == 0
    status, out, err = _asked(["compact", address], capsys)
    assert (status, out) == (2, "")
    assert f"{address} is an address" in err
    assert _asked(["doctor", address, "--quarantine"], capsys)[0] == 2
    assert _asked(["doctor", address], capsys)[0] == 0
    status, out, err = _asked(["ls", f"file://{tmp_path}/store"], capsys)
    assert (status, out) == (2, "")
    assert f"file://{tmp_path}/store is an address" in err
