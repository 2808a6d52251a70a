"""Every kind of file of a run is damaged in three ways: what changes is told, and the doctor names the file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from xaicli.errors import XaiError
from xaicli.recorder.ledger import RecorderWarning
from xaicli.recorder.run import Run
from xaicli.wal.frames import read_segment

Xai = Callable[..., tuple[int, str, str]]

_TRAINING = """
import os, sys, warnings
import numpy as np
import torch
import xaicli
from xaicli.layout import RunLayout
from xaicli.maintenance.compact import compact
warnings.simplefilter("ignore")
torch.set_num_threads(1)
for attempt in range(3):
    resumed = (2, 5) if attempt == 1 else None
    run = xaicli.Run(sys.argv[1], name="rich", label_names=["a", "b"], resume_from=resumed)
    model = torch.nn.Linear(2, 2)
    for epoch in range(1 + attempt, 4 + attempt):
        mode = "eval" if attempt == 1 else "train"
        for batch in range(4):
            step = (epoch - 1) * 4 + batch + 1
            ids = [batch, batch + 4]
            run.log_samples(sample_id=ids, label=[0, 1], loss=[epoch, 2.0], mode=mode, epoch=epoch, step=step)
        run.log({"epoch": epoch, "step": epoch * 4, "lr": 1 / epoch})
        run.state.write_summary("accuracy", epoch / 10)
        run.flush()
    run.log_samples(sample_id=[1, 2, 3], loss=[1.0, 2.0, 3.0], mode="train", epoch=2**40, step=3)
    run.log_facts([attempt], camera=[f"c{attempt}"])
    run.log_images([attempt], np.zeros((1, 4, 4, 3), np.uint8))
    run.log_inputs([attempt], np.zeros((1, 4), np.float32))
    classes = {"kind": xaicli.CategoricalLabel("kind", ["cat", "dog"])}
    table = {"example_id": [0, 1], "kind": [0, 1]}
    run.add_metrics_data(table, name="boxes", constants={"epoch": attempt}, override_column_schemas=classes)
    run.state.save_state(models={"model": model})
    run.keep_best(model, 1.0 - attempt / 10, example_inputs=torch.zeros(1, 2))
    if attempt == 2:
        break
    run.close()
    if attempt == 0:
        compact(RunLayout(run.layout.root), grace=0)
os._exit(0)  # the last is killed
"""

ANSWERS = (
    ("info",),
    ("samples", "--mode", "train", "--max", "9", "--min", "0"),
    ("scalars",),
    ("query", "SELECT kind, count(*) AS n FROM boxes GROUP BY kind ORDER BY kind"),
    ("track-report",),
)
HOLD_NOTHING = re.compile(r"cache/.*|.*\.lock|.*/\.recovery")
"""What can be made again, and files that are only there to be locked."""
DAMAGES = ("emptied", "halved", "flipped")


def damaged(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if path.suffix == ".seg":
        middle = (4096 + int.from_bytes(content[16:24], "little")) // 2  # the rest of it is room
    if path.suffix == ".stats":
        middle = len(content.rstrip()) // 2
    if how == "flipped":
        content[middle] ^= 1
    path.write_bytes(content if how == "flipped" else content[:middle] if how == "halved" else b"")


def is_spare(path: Path) -> bool:
    """Whether it is a segment that nothing has been put into."""
    return path.suffix == ".seg" and not int.from_bytes(path.read_bytes()[16:24], "little")


def kind_of(name: str) -> str:
    return re.sub(r"\d+", "0", name)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("recorded") / "run"
    subprocess.run([sys.executable, "-c", _TRAINING, run_dir], check=True, timeout=600)
    return run_dir


def ask(xai: Xai, run_dir: Path, command: str, *more: str) -> tuple[int, Any, str, str]:
    """(status, every number of the answer, what it says is damaged, all that was said)."""
    if command == "track-report":
        more = ("-o", str(run_dir.parent / "page"))
    status, out, err = xai(command, run_dir, *more, "--json")
    told = json.loads(out) if out.startswith("{") else {}
    said = json.dumps([told.pop("warnings", None), (told.get("counts") or {}).pop("damaged", None)])
    return status, told, said, out + err


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_of_any_file_is_told_where_it_matters(recorded: Path, tmp_path: Path, xai: Xai, how: str) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(recorded, run_dir)
    truth = {asked: ask(xai, run_dir, *asked) for asked in ANSWERS}
    assert {status for status, *_ in truth.values()} == {0}
    assert truth["info",][1]["counts"] | {"taken_back": 32, "dropped": 9} == truth["info",][1]["counts"]
    names = sorted(path.relative_to(recorded).as_posix() for path in recorded.rglob("*") if path.is_file())
    wrong = []
    for name in {kind_of(name): name for name in names if not is_spare(recorded / name)}.values():
        if not (recorded / name).stat().st_size:
            assert HOLD_NOTHING.fullmatch(name), name
            continue
        shutil.rmtree(run_dir)
        shutil.copytree(recorded, run_dir)
        damaged(run_dir / name, how)
        status, out, err = xai("doctor", run_dir, "--json")
        # Of a saved state the folder is named.
        paths = (name, name.rpartition("/")[0]) if "/state-" in name else (name,)
        named = any(f'"{path}"' in out or f"/{path}" in err for path in paths)
        if "Traceback" in err or (not named and not HOLD_NOTHING.fullmatch(name)):
            wrong.append((name, "doctor", status, out + err))
        for asked, (_, numbers, *_) in truth.items():
            status, answer, said, everything = ask(xai, run_dir, *asked)
            if "Traceback" in everything or "a fault of xai" in everything:
                wrong.append((name, asked, everything))
            elif status:
                if f"error: {run_dir / name}" not in everything and name not in everything:
                    wrong.append((name, asked, everything))
            elif answer != numbers and not any(path in said for path in paths) and ".lock" not in name:
                wrong.append((name, asked, said, [k for k in answer if answer[k] != numbers.get(k)]))
    assert not wrong


BOOKS = (
    "xai.json",
    "attempts/000001.json",
    "attempts/000000-r0000.stats",
    "state/summary.json",
    "state/described.json",
    "checkpoints/best-loss.json",
    "tables/boxes/schema.json",
)


@pytest.mark.parametrize("name", BOOKS)
def test_a_later_start_writes_over_nothing_damaged_without_a_word(
    recorded: Path, tmp_path: Path, xai: Xai, name: str
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(recorded, run_dir)
    if name == "xai.json":  # as no more than JSON it could not be gone on with
        (run_dir / name).write_bytes((run_dir / name).read_bytes().replace(b'"rich"', b'"sich"'))
    else:
        damaged(run_dir / name, "halved")
    found = (run_dir / name).read_bytes()
    said = _gone_on_with(run_dir)
    assert any(name in line for line in said), said
    status, out, _ = xai("query", run_dir, ANSWERS[3][1], "--json")
    assert (status, json.loads(out)["rows"]) == (0, [{"kind": 0, "n": 4}, {"kind": 1, "n": 4}])
    schema = json.loads((run_dir / "tables/boxes/schema.json").read_text())
    assert schema["kind"]["classes"] == {"0": "cat", "1": "dog"}
    if name.startswith("tables"):
        assert [line for line in said if name in line and "made again" in line]
        assert not [line for line in said if name in line and "kept as it is" in line]
        return
    kept = run_dir / (name + ".damaged")
    still = run_dir / name
    assert found in [path.read_bytes() for path in (kept, still) if path.exists()]
    status, out, _ = xai("info", run_dir, "--json")
    told = [path for path in json.loads(out)["counts"]["damaged"] if path.startswith(name)]
    assert (status, told) == (0, [f"{name}.damaged" if kept.exists() else name])
    status, out, _ = xai("doctor", run_dir, "--json")
    assert (status, [row["path"] for row in json.loads(out)["rows"]]) == (1, told)


@pytest.mark.parametrize(
    "asked",
    [
        ("query", "SELECT * FROM boxes"),
        ("query", "SELECT count(*) AS n FROM scalars"),
        ("query", "SELECT count(*) AS n FROM boxes", "--engine", "duckdb"),
        ("samples", "--table", "boxes", "--metric", "kind"),
        ("scalars",),
        ("ls",),
    ],
)
def test_an_answer_that_goes_by_a_damaged_start_says_what_it_lacks(
    recorded: Path, tmp_path: Path, xai: Xai, asked: tuple[str, ...]
) -> None:
    """Its rows alone say then what it takes back, which changes what counts of tables and scalars, too."""
    run_dir = tmp_path / "run"
    shutil.copytree(recorded, run_dir)
    told = json.loads(xai(asked[0], run_dir, *asked[1:], "--json")[1])
    assert not any("is damaged" in line for line in told["warnings"])
    damaged(run_dir / "attempts/000001.json", "halved")
    status, out, _ = xai(asked[0], run_dir, *asked[1:], "--json")
    told = json.loads(out)
    assert (status, [path.endswith("attempts/000001.json") for path in told["counts"]["damaged"]]) == (0, [True])
    lines = [line for line in told["warnings"] if "attempts/000001.json is damaged" in line]
    assert len(lines) == 1
    assert "its rows alone say what it takes back" in lines[0]


def _gone_on_with(run_dir: Path) -> list[str]:
    """Record some more; what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with Run(run_dir, name="rich") as run:
            run.log_samples(sample_id=[0], loss=[1.0], mode="eval", epoch=9, step=99)
            run.state.write_summary("accuracy", 0.9)
            run.state.note_model("another", torch.nn.Linear(1, 1))
            run.add_metrics_data({"example_id": [0, 1], "kind": [0, 1]}, name="boxes", constants={"epoch": 4})
            run.keep_best(torch.nn.Linear(2, 2), 0.1, example_inputs=torch.zeros(1, 2))
    return [str(line.message) for line in said]


@pytest.mark.parametrize("how", ["emptied", "halved"])
def test_without_a_readable_manifest_everything_says_what_to_do_and_leaves_all_as_it_is(
    recorded: Path, tmp_path: Path, xai: Xai, how: str
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(recorded, run_dir)
    truth = ask(xai, run_dir, "info")[1]
    damaged(run_dir / "xai.json", how)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(XaiError, match=r"xai\.json cannot be read") as raised:
        Run(run_dir)
    assert "put a copy of xai.json back" in str(raised.value.hint)
    for asked in (("info",), ("doctor",), ("doctor", "--quarantine"), ("samples",)):
        status, out, err = xai(asked[0], run_dir, *asked[1:])
        assert (status, out, "put a copy of xai.json back" in " ".join(err.split())) == (1, "", True)
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before
    shutil.copy(recorded / "xai.json", run_dir)
    assert ask(xai, run_dir, "info")[1] == truth


def test_what_a_damaged_segment_held_is_counted_by_what_it_was(tmp_path: Path, xai: Xai) -> None:
    code = """
import os, sys, numpy as np, xaicli
run = xaicli.Run(sys.argv[1])
for s in range(1, 31):
    run.log_samples(sample_id=[2 * s, 2 * s + 1], loss=[s, s + 0.5], mode="train", epoch=1, step=s)
    run.log({"step": s, "epoch": 1, "v": float(s)})
    run.log_facts([2 * s], camera=[f"c{s}"])
    run.log_images([2 * s], np.full((1, 4, 4, 3), s, np.uint8))
os.kill(os.getpid(), 9)
"""
    run_dir = tmp_path / "run"
    subprocess.run([sys.executable, "-c", code, run_dir], check=False, timeout=60)
    (path,) = (path for path in (run_dir / "wal").glob("*.seg") if not is_spare(path))
    (copy,) = [segment for segment in [read_segment(path)] if segment]
    third = [frame for frame in copy.frames if frame.place][2]
    content = bytearray(path.read_bytes())
    content[4096 + third.start] ^= 1
    path.write_bytes(content)
    status, out, _ = xai("doctor", run_dir, "--json")
    (row,) = json.loads(out)["rows"]
    assert (status, row["rows"]) == (1, 56)
    assert "28 of scalars/, 28 of facts/, 28 of media/" in row["reason"]
    with pytest.warns(RecorderWarning, match="damaged in its segment"):
        run = Run(run_dir)
    run.close()
    counted = run.stats()
    assert (counted["rows_dropped"], counted["records_dropped"]) == (56, 84)
    assert {column: sum(found.values()) for column, found in counted["refused"].items()} == {
        "scalars": 28,
        "facts": 28,
        "media": 28,
    }


def test_a_segment_cut_short_counts_no_row_that_is_read(tmp_path: Path, xai: Xai) -> None:
    code = """
import os, sys, xaicli
run = xaicli.Run(sys.argv[1])
for s in range(1, 31):
    run.log_samples(sample_id=[s], loss=[s], mode="train", epoch=1, step=s)
os.kill(os.getpid(), 9)
"""
    run_dir = tmp_path / "run"
    subprocess.run([sys.executable, "-c", code, run_dir], check=False, timeout=60)
    (path,) = (path for path in (run_dir / "wal").glob("*.seg") if not is_spare(path))
    copy = read_segment(path)
    assert copy is not None
    path.write_bytes(path.read_bytes()[: 4096 + copy.frames[19].end])
    (row,) = json.loads(xai("doctor", run_dir, "--json")[1])["rows"]
    assert (row["rows"], "how many more is not known" in row["reason"]) == (0, True)
    told = json.loads(xai("info", run_dir, "--json")[1])
    assert told["counts"]["rows"] == 20
    assert told["counts"]["damaged"] == [f"wal/{path.name}"]


_KILLED = """
import os, sys, numpy as np, xaicli
run = xaicli.Run(sys.argv[1])
for s in range(1, 31):
    if "rows" in sys.argv[2]:
        run.log_samples(sample_id=[2 * s, 2 * s + 1], loss=[s, s + 0.5], mode="train", epoch=1, step=s)
    if "facts" in sys.argv[2]:
        run.log_facts([s], camera=[f"c{s}"])
    if "pictures" in sys.argv[2]:
        run.log_images([s], np.full((1, 4, 4, 3), s, np.uint8))
    if s == 15 and "files" in sys.argv[2]:
        run.flush()
os.kill(os.getpid(), 9)
"""


def _zeroed(content: bytes, start: int, end: int) -> bytes:
    return content[:start] + bytes(end - start) + content[end:]


@pytest.mark.parametrize(
    ("held", "stored", "damage"),
    [
        ("rows", 0, lambda content, _: _zeroed(content, 0, 4096)),
        ("rows and files", 30, lambda content, _: _zeroed(content, 0, 512)),
        ("rows", 0, lambda content, _: content[:2048]),
        ("facts", 0, lambda content, used: content[: 4096 + used // 2]),
        ("pictures", 0, lambda content, used: _zeroed(content, 4096 + used // 2, 4096 + used)),
    ],
)
def test_a_segment_of_which_nobody_can_say_how_much_is_lost_is_told_of_and_kept(
    tmp_path: Path, xai: Xai, held: str, stored: int, damage: Callable[[bytes, int], bytes]
) -> None:
    """No row is counted as lost where none was logged, and what was logged does not go without a word."""
    run_dir = tmp_path / "run"
    subprocess.run([sys.executable, "-c", _KILLED, run_dir, held], check=False, timeout=60)
    segments = {path: path.read_bytes() for path in (run_dir / "wal").glob("*.seg") if not is_spare(path)}
    ((path, whole),) = segments.items()
    found = damage(whole, int.from_bytes(whole[16:24], "little"))
    path.write_bytes(found)
    name = f"wal/{path.name}"
    for reopened in (False, True):
        if reopened:
            with pytest.warns(RecorderWarning, match="not known") as said:
                run = Run(run_dir)
            run.close()
            assert any(f"kept as {path}.damaged" in str(line.message) for line in said)
            assert (path.exists(), Path(f"{path}.damaged").read_bytes()) == (False, found)
            assert run.stats()["rows_dropped"] == 0
            name += ".damaged"
            with warnings.catch_warnings():  # it is no segment of a killed training any more
                warnings.simplefilter("error")
                Run(run_dir).close()
        status, out, _ = xai("doctor", run_dir, "--json")
        assert (status, [row["path"] for row in json.loads(out)["rows"]]) == (1, [name])
        status, out, _ = xai("info", run_dir, "--json")
        told = json.loads(out)["counts"]
        assert (status, told["damaged"], told["dropped"], told["rows"]) == (0, [name], 0, stored)
        assert any(line.startswith(f"{name} is damaged") for line in json.loads(out)["warnings"])
        assert xai("info", run_dir, "--strict")[0] == 1
    Path(f"{path}.damaged").unlink()
    assert xai("doctor", run_dir)[0] == 0


def test_a_segment_that_nothing_was_put_into_is_sound(tmp_path: Path, xai: Xai) -> None:
    run_dir = tmp_path / "run"
    subprocess.run([sys.executable, "-c", _KILLED, run_dir, "rows"], check=False, timeout=60)
    segment = next((run_dir / "wal").glob("*.seg"))
    (segment.parent / "a000000-r0000-9.seg").write_bytes(bytes(segment.stat().st_size))
    assert xai("doctor", run_dir)[0] == 0
    assert json.loads(xai("info", run_dir, "--json")[1])["counts"]["damaged"] == []
