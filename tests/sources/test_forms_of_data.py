"""`--data` as people type it: one picture, a pattern, an array file, a CSV table; each holds what was written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import xaicli
from xaicli.errors import XaiError
from xaicli.sources.opening import open_source


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Grey pictures of one value each, in folders of two classes and beside them."""
    for name, value in (("cat/1.png", 10), ("cat/2.png", 20), ("dog/1.png", 30)):
        path = tmp_path / "pics" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(path)
    (tmp_path / "pics" / "cat" / "notes.txt").write_text("no picture")
    return tmp_path / "pics"


def read(spec: object, **more: object) -> tuple[list[object], list[object], np.ndarray]:
    found = open_source(str(spec), **more).take(10)  # type: ignore[arg-type]
    return found.sample_id, found.label or [], next(iter(found.arrays.values()))


def test_one_picture_and_patterns_of_them(pictures: Path) -> None:
    ids, labels, x = read(pictures / "cat" / "2.png", channels=1)
    assert (ids, labels) == (["2.png"], [])
    assert x.shape == (1, 1, 4, 4)
    np.testing.assert_allclose(x, 20 / 255, rtol=1e-6)
    ids, labels, x = read(pictures / "*" / "*.png", channels=1)
    assert (ids, labels) == (["cat/1.png", "cat/2.png", "dog/1.png"], [0, 0, 1])
    np.testing.assert_allclose(x[:, 0, 0, 0] * 255, [10, 20, 30], rtol=1e-5)
    assert read(pictures / "cat" / "*.png", channels=1)[:2] == (["1.png", "2.png"], [])
    # The model's own order of the classes.
    assert read(pictures / "*" / "1.png", channels=1, label_names=["dog", "cat"])[1] == [1, 0]
    with pytest.raises(XaiError, match=r"matches 1 of 3 files that are no pictures, notes\.txt"):
        read(pictures / "cat" / "*")
    with pytest.raises(XaiError, match="no file matches"):
        read(pictures / "*.gif")


def test_array_files(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.save(tmp_path / "x.npy", values)
    np.savez(tmp_path / "one.npz", values)  # numpy calls it arr_0
    for name in ("x.npy", "one.npz"):
        ids, labels, x = read(tmp_path / name)
        assert (ids, labels) == ([0, 1, 2, 3], [])
        np.testing.assert_array_equal(x, values)
    np.savez(tmp_path / "two.npz", values, np.arange(4))
    with pytest.raises(XaiError, match="arr_0, arr_1: which are inputs and which labels cannot be told") as said:
        read(tmp_path / "two.npz")
    assert "x=" in said.value.hint
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(XaiError, match="pickled objects"):
        read(tmp_path / "objects.npy")
    (tmp_path / "broken.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-8])
    with pytest.raises(XaiError, match=r"broken\.npy is no readable \.npy"):
        read(tmp_path / "broken.npy")
    np.save(tmp_path / "single.npy", np.zeros((3, 4, 4), np.float32))
    with pytest.raises(XaiError, match="one sample of shape"):
        read(tmp_path / "single.npy", input_shape=(3, 4, 4))


def test_csv_tables(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("id,age,city,income,label\na,30,Rome,1.5,0\nb,41,Bern,2.25,1\n")
    found = open_source(path).take(5)
    assert (found.sample_id, found.label) == (["a", "b"], [0, 1])
    np.testing.assert_array_equal(found.arrays[""], [[30, 1.5], [41, 2.25]])
    assert [said for said in found.skipped if "no numbers" in said and "city" in said]
    tabs = tmp_path / "table.tsv"
    tabs.write_text("x1\tx2\n1\t2\n3\t\n")
    found = open_source(tabs).take(5)
    np.testing.assert_array_equal(found.arrays[""], [[1, 2]])
    assert "sample 1: it has no value" in found.skipped
    nameless = tmp_path / "nameless.csv"
    nameless.write_text("5,0.25,0\n4,0.5,1\n")
    with pytest.raises(XaiError, match=r"the first line of .* holds numbers"):
        open_source(nameless)
    torn = tmp_path / "torn.csv"
    torn.write_text("a,b\n1,2\n3\n")
    with pytest.raises(XaiError, match="no readable table"):
        open_source(torn)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "some.csv").write_text("a\n1\n")
    with pytest.raises(XaiError, match="holds no images") as said:
        open_source(tmp_path / "empty")
    assert "some.csv" in said.value.hint


def test_pictures_that_a_csv_names(pictures: Path) -> None:
    (pictures / "list.csv").write_text("path,label\ncat/2.png,cat\ndog/1.png,dog\n")
    found = open_source(pictures / "list.csv", channels=1).take(5)
    assert found.label == ["cat", "dog"]
    np.testing.assert_allclose(found.arrays[""][:, 0, 0, 0] * 255, [20, 30], rtol=1e-5)


def test_an_unknown_id_costs_no_other(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.arange(8.0).reshape(4, 2), id=[10, 11, 12, 13])
    found = open_source(tmp_path / "x.npz").take(["12", "99", "10", "12", "abc"])
    assert found.sample_id == [12, 10]
    np.testing.assert_array_equal(found.arrays[""], [[4, 5], [0, 1]])
    assert [said for said in found.skipped if said.startswith("2 of 5 ids are not among") and said.endswith("99, abc")]
    with pytest.raises(XaiError, match="99"):
        open_source(tmp_path / "x.npz").take(["99", "98"])
    with pytest.raises(XaiError, match="99"):
        open_source(tmp_path / "x.npz", strict=True).take(["10", "99"])


def test_the_command_answers_for_the_ids_it_knows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 3)
    x = torch.randn(4, 2)
    with xaicli.Run(tmp_path / "run") as run:
        run.log_inputs(range(4), x)
        run.save_checkpoint(model, example_inputs=x[:2])
    command = [sys.executable, "-m", "xaicli", "saliency", str(tmp_path / "run"), "--model", "ckpt.pt", "--json"]
    command += ["--methods", "gradient", "--format", "json", "-o", str(tmp_path / "out")]
    done = subprocess.run([*command, "--ids", "2,77"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [row["sample_id"] for row in answer["rows"]] == [2]
    assert [said for said in answer["warnings"] if "1 of 2 ids are not among" in said and "77" in said]
    none = subprocess.run([*command, "--ids", "77"], capture_output=True, text=True, check=False)
    assert none.returncode == 1
    assert "77" in none.stderr


@pytest.mark.parametrize(
    ("ids", "said"), [(["a", "b", "a"], "holds a more than once"), ([1, None, 3], "none for 1 of 3 samples")]
)
def test_sample_ids_that_are_no_ids(ids: list[object], said: str) -> None:
    with pytest.raises(XaiError, match=said):
        xaicli.saliency(torch.nn.Linear(2, 3), torch.rand(3, 2), sample_ids=ids, methods="gradient")


_OF_TORCH = """
import torch

class Rows(torch.utils.data.Dataset):
    def __len__(self): return 6
    def __getitem__(self, i): return torch.full((3,), float(i)), i % 2

class NoIndex(Rows):
    def __len__(self): raise OSError("index file missing")

class NoNames(Rows):
    @property
    def classes(self): raise OSError("index file missing")

class Stream(torch.utils.data.IterableDataset):
    def __len__(self): return 6
    def __iter__(self): return (Rows()[i] for i in range(6))

def loader(): return torch.utils.data.DataLoader(NoIndex(), sampler=[])
"""


@pytest.mark.parametrize(("named", "part"), [("NoIndex", "__len__"), ("loader", "__len__"), ("NoNames", "classes")])
@pytest.mark.parametrize("command", ["saliency", "collect"])
def test_a_dataset_that_cannot_say_what_it_is_is_told_by_what_it_raises(
    command: str, named: str, part: str, tmp_path: Path
) -> None:
    (tmp_path / "own_rows.py").write_text(_OF_TORCH)
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "model.pt")
    (tmp_path / "own_net.py").write_text("import torch\ndef net(): return torch.nn.Linear(3, 2)\n")
    own = ["--arch", "own_net:net", "--pythonpath", ".", "--data", f"own_rows:{named}"]
    asked = {"saliency": ["saliency", "-o", "maps"], "collect": ["collect", "run"]}[command]
    call = [sys.executable, "-m", "xaicli", *asked, "--model", "model.pt", *own]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"error: --data own_rows:{named} fails: OSError: index file missing" in done.stderr
    assert f"hint: its {part} raises" in done.stderr


def test_a_stream_with_a_length_is_read_as_a_stream(tmp_path: Path) -> None:
    (tmp_path / "own_stream.py").write_text(_OF_TORCH)
    found = open_source("own_stream:Stream", pythonpath=[tmp_path], strict=True).take(4)
    assert [row.tolist() for row in next(iter(found.arrays.values()))] == [[float(i)] * 3 for i in range(4)]
