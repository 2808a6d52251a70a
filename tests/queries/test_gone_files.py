"""Files of facts, scalars and tables that are gone, damaged or another's: who asks for them names and counts them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import xaicli
from xaicli import open_run
from xaicli.answer import Answer
from xaicli.api.run import RunReader
from xaicli.errors import DamagedFileError, XaiError
from xaicli.layout import RunLayout
from xaicli.maintenance.doctor import Complaint, examine


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three attempts with ten samples each, of which every other camera looks back."""
    folder = tmp_path_factory.mktemp("gone") / "run"
    for attempt in range(3):
        ids = list(range(10 * attempt, 10 * attempt + 10))
        with xaicli.Run(folder) as run:
            run.log_facts(ids, camera=["rear" if i % 2 else "front" for i in ids])
            run.log_samples(
                sample_id=ids,
                label=[0] * 10,
                prediction=[1] * 10,
                loss=ids,
                mode="eval",
                epoch=attempt + 1,
                step=attempt,
            )
            run.log({"lr": float(attempt), "step": attempt})
            run.add_metrics_data({"sample_id": ids, "score": [float(i) for i in ids]}, name="tab")
    return folder


def of_facts(run: RunReader, *, strict: bool = False) -> Answer:
    return run.query("SELECT count(*) AS n FROM facts", strict=strict).answer


def of_scalars(run: RunReader, *, strict: bool = False) -> Answer:
    return run.query("SELECT count(*) AS n FROM scalars", strict=strict).answer


def of_table(run: RunReader, *, strict: bool = False) -> Answer:
    return run.query("SELECT count(*) AS n FROM tab", strict=strict).answer


FOLDERS = [("facts", of_facts, 10), ("scalars", of_scalars, 1), ("tables/tab", of_table, 10)]
Question = Callable[..., Answer]


def gone(run: Path, path: Path) -> Complaint:
    assert run in path.parents
    path.unlink()
    return Complaint.MISSING


def quarantined(run: Path, path: Path) -> Complaint:
    path.write_bytes(path.read_bytes()[:-20])
    examine(RunLayout(run), quarantine=True)
    assert not path.exists()
    return Complaint.MISSING


def cut(run: Path, path: Path) -> Complaint:
    assert run in path.parents
    path.write_bytes(path.read_bytes()[:-20])
    return Complaint.DAMAGED


@pytest.mark.parametrize("harm", [gone, quarantined, cut])
@pytest.mark.parametrize(("folder", "ask", "rows"), FOLDERS)
def test_a_file_that_cannot_be_read(
    whole: Path, tmp_path: Path, folder: str, ask: Question, rows: int, harm: Callable[[Path, Path], Complaint]
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    assert ask(open_run(run)).data.item() == 3 * rows
    assert ask(open_run(run), strict=True).counts.damaged == ()
    path = sorted((run / folder).glob("*.parquet"))[1]
    complaint = harm(run, path)
    name = f"{folder}/{path.name}"
    answer = ask(open_run(run))
    assert answer.data.item() == 2 * rows
    assert answer.counts.damaged == (name,)
    assert open_run(run).info().answer.counts.damaged == (name,)
    assert name in {finding.path for finding in examine(RunLayout(run)).findings if finding.complaint is complaint}
    with pytest.raises(DamagedFileError, match=name):
        ask(open_run(run), strict=True)


@pytest.mark.parametrize(("folder", "ask"), [(folder, ask) for folder, ask, _ in FOLDERS])
def test_every_file_is_gone(whole: Path, tmp_path: Path, folder: str, ask: Question) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    names = tuple(sorted(f"{folder}/{path.name}" for path in (run / folder).glob("*.parquet")))
    for name in names:
        (run / name).unlink()
    assert open_run(run).info().answer.counts.damaged == names
    with pytest.raises(DamagedFileError, match=folder):
        ask(open_run(run), strict=True)
    shutil.rmtree(run / folder)
    assert open_run(run).info().answer.counts.damaged == names
    assert open_run(run).query("SELECT count(*) AS n FROM samples").answer.counts.damaged == (
        () if folder == "scalars" else names
    )
    with pytest.raises(DamagedFileError, match=folder):
        ask(open_run(run), strict=True)


def test_a_table_that_is_gone_with_its_folder_is_named(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.rmtree(run / "tables")
    for ask in (lambda: open_run(run).samples(table="tab"), lambda: of_table(open_run(run))):
        with pytest.raises(XaiError) as raised:
            ask()
        assert "xai doctor" in str(raised.value.hint)
    assert sum(finding.complaint is Complaint.MISSING for finding in examine(RunLayout(run)).findings) == 3


@pytest.mark.parametrize("name", ["part-a000000-r0000-00000055.parquet", "mine.parquet"])
@pytest.mark.parametrize(("folder", "ask", "rows"), FOLDERS)
def test_a_file_of_another(whole: Path, tmp_path: Path, folder: str, ask: Question, rows: int, name: str) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    path = run / folder / name
    pl.DataFrame({"sample_id": [5, 6], "score": [99.0, 98.0], "camera": ["up", "up"]}).write_parquet(path)
    named = (f"{folder}/{name}",)
    answer = ask(open_run(run))
    assert (answer.data.item(), answer.counts.damaged) == (3 * rows, named)
    assert open_run(run).info().answer.counts.damaged == named
    (finding,) = examine(RunLayout(run), quarantine=True).findings
    assert (finding.path, finding.complaint) == (named[0], Complaint.FOREIGN)
    assert not path.exists()
    assert ask(open_run(run)).counts.damaged == ()


def test_the_samples_of_a_table_are_counted_without_those_that_are_gone(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    path = sorted((run / "tables" / "tab").glob("*.parquet"))[1]
    path.unlink()
    answer = open_run(run).samples(table="tab", max=99, min=0).answer
    assert set(answer.data["sample_id"]) == {*range(10), *range(20, 30)}
    assert answer.counts.damaged == (f"tables/tab/{path.name}",)


def test_labels_of_a_fact_of_which_a_file_is_gone(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    path = sorted((run / "facts").glob("*.parquet"))[1]
    path.unlink()
    assert open_run(run).labels(where="camera='rear'").answer.counts.damaged == (f"facts/{path.name}",)
    with pytest.raises(DamagedFileError, match=path.name):
        open_run(run).labels(where="camera='rear'", strict=True)


@pytest.mark.parametrize("harm", [gone, cut])
def test_info_of_one_attempt_names_scalars_too(tmp_path: Path, harm: Callable[[Path, Path], Complaint]) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log({"lr": 1.0, "step": 1})
    (path,) = (tmp_path / "run" / "scalars").glob("*.parquet")
    harm(tmp_path / "run", path)
    assert open_run(tmp_path / "run").info().answer.counts.damaged == (f"scalars/{path.name}",)
