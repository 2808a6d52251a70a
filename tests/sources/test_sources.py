"""Sources of samples: ids, labels, pixels to inputs, bad samples counted."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from xaicli.errors import UsageError, XaiError
from xaicli.layout import RunLayout
from xaicli.sources import open_source
from xaicli.sources.factory import from_object
from xaicli.sources.pictures import Preparation
from xaicli.tables.lists import PlacedId

RNG = np.random.default_rng(0)


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def colour(height: int = 4, width: int = 6) -> np.ndarray[Any, Any]:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def huge_png(side: int) -> bytes:
    """A PNG of a few bytes that says it is `side` x `side` pixels."""
    header = struct.pack(">2I5B", side, side, 8, 0, 0, 0, 0)
    body = b""
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")):
        body += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + body


# --- arrays -----------------------------------------------------------------------------------------------------------


def test_uint8_pictures_become_scaled_channel_first(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.array([2, 0, 1], dtype=np.uint8))
    taken = open_source(tmp_path / "data.npz", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)).take(3)
    expected = (images.transpose(0, 3, 1, 2) / 255 - np.reshape([0.5, 0.4, 0.3], (3, 1, 1))) / np.reshape(
        [0.2, 0.3, 0.4], (3, 1, 1)
    )
    np.testing.assert_allclose(taken.arrays[""], expected, atol=1e-6)
    assert taken.arrays[""].dtype == np.float32
    assert (taken.sample_id, taken.label) == ([0, 1, 2], [2, 0, 1])
    assert taken.pictures is not None
    np.testing.assert_array_equal(taken.pictures, images)


def test_grey_pictures_get_their_channel(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.full((2, 5, 4), 255, dtype=np.uint8))
    taken = open_source(tmp_path / "data.npz").take(1)
    assert taken.arrays[""].shape == (1, 1, 5, 4)
    assert taken.arrays[""].max() == 1
    assert taken.label is None


def test_floats_are_what_the_model_sees(tmp_path: Path) -> None:
    x = RNG.normal(size=(3, 1, 4, 4))
    np.savez(tmp_path / "data.npz", x=x, sample_id=np.array(["a", "b", "c"]))
    taken = open_source(tmp_path / "data.npz", mean=(0.5,), std=(0.5,)).take(["c", "a"])
    np.testing.assert_array_equal(taken.arrays[""], x[[2, 0]].astype(np.float32))
    assert taken.sample_id == ["c", "a"]
    assert taken.pictures is not None
    assert taken.pictures.shape == (2, 4, 4, 1)


def test_a_picture_of_floats_is_undone_by_mean_and_std(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (1, 3, 4, 4), dtype=np.uint8)
    x = (pixels / 255 - 0.5) / 0.25
    np.savez(tmp_path / "data.npz", x=x.astype(np.float32))
    taken = open_source(tmp_path / "data.npz", mean=(0.5,) * 3, std=(0.25,) * 3).take(1)
    assert taken.pictures is not None
    np.testing.assert_array_equal(taken.pictures, pixels.transpose(0, 2, 3, 1))


def test_several_inputs_keep_their_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", left=np.ones((2, 3)), right=np.zeros((2, 4)), y=np.array([1, 0]))
    taken = open_source(tmp_path / "data.npz").take(2)
    assert {key: value.shape for key, value in taken.arrays.items()} == {"left": (2, 3), "right": (2, 4)}


def test_integers_stay_integers(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.arange(6).reshape(2, 3))
    assert open_source(tmp_path / "data.npz").take(1).arrays[""].dtype == np.int64


def test_flat_rows_take_the_shape_of_the_model(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.arange(12, dtype=np.uint8).reshape(3, 4))
    taken = open_source(tmp_path / "data.npz", input_shape=(1, 2, 2)).take(2)
    np.testing.assert_array_equal(taken.arrays[""], np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2))


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"x": np.zeros((3, 2)), "y": np.zeros(2)}, "differ in length: x 3, y 2"),
        ({"y": np.zeros(2)}, "holds no inputs"),
        ({"x": np.array([{"a": 1}], dtype=object)}, "an array of pickled objects"),
    ],
)
def test_arrays_that_make_no_samples_are_named(arrays: dict[str, Any], reason: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(XaiError, match=reason) as raised:
        open_source(tmp_path / "data.npz").take(1)
    assert raised.value.hint


def test_an_array_that_claims_more_than_it_has_is_refused(tmp_path: Path) -> None:
    header = np.lib.format.magic(1, 0)
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    text += b" " * (118 - len(text) - 1) + b"\n"
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as file:
        file.writestr("x.npy", header + struct.pack("<H", len(text)) + text + b"\0" * 64)
    with pytest.raises(XaiError, match="whose size is not that of its data"):
        open_source(tmp_path / "data.npz")


def test_a_compressed_bomb_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "data.npz", x=np.zeros((10, 1000)))
    monkeypatch.setattr("xaicli.sources.arrays._LARGEST", 10_000)
    with pytest.raises(XaiError, match=r"unpacks to 80,\d+ bytes"):
        open_source(tmp_path / "data.npz")


def test_an_unknown_id_names_those_that_exist(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 2)), ids=np.array([10, 20, 30]))
    source = open_source(tmp_path / "data.npz")
    assert source.take(["20"]).sample_id == [20]
    with pytest.raises(XaiError, match="no sample '21'") as raised:
        source.take(["21"])
    assert "20" in raised.value.hint


# --- image folders ----------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for name, kind in (("dog/a.png", "good"), ("cat/b.png", "good"), ("cat/c.jpg", "bad"), ("dog/d.png", "huge")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"good": png(colour()), "bad": b"no image", "huge": huge_png(9_000)}[kind]
        path.write_bytes(content)
    (folder / "cat" / ".hidden.png").write_bytes(b"")
    (folder / "readme.txt").write_text("no picture")
    return folder


def test_class_folders_are_labels_and_bad_pictures_are_counted(pictures: Path) -> None:
    source = open_source(pictures)
    assert list(source.sample_ids) == ["cat/b.png", "cat/c.jpg", "dog/a.png", "dog/d.png"]
    assert source.label_names == ("cat", "dog")
    taken = source.take(4)
    assert (taken.sample_id, taken.label) == (["cat/b.png", "dog/a.png"], [0, 1])
    assert len(taken.skipped) == 2
    assert "cat/c.jpg" in taken.skipped[0]
    assert "9000 x 9000 pixels" in taken.skipped[1]


def test_strict_names_the_bad_picture(pictures: Path) -> None:
    with pytest.raises(XaiError, match=r"sample cat/c\.jpg of .*pictures") as raised:
        open_source(pictures, strict=True).take(4)
    assert "--strict" in raised.value.hint


def test_a_skipped_picture_makes_room_for_the_next(pictures: Path) -> None:
    assert open_source(pictures).take(2).sample_id == ["cat/b.png", "dog/a.png"]


def test_labels_follow_the_checkpoints_names(pictures: Path) -> None:
    source = open_source(pictures, label_names=["owl", "dog", "cat"])
    assert source.take(["dog/a.png", "cat/b.png"]).label == [1, 2]
    assert open_source(pictures, label_names=["owl", "dog"]).take(["cat/b.png"]).label == [0]


def test_pictures_are_brought_to_size(pictures: Path) -> None:
    assert open_source(pictures, resize=(3, 2)).take(1).arrays[""].shape == (1, 3, 3, 2)
    assert open_source(pictures, resize=[3]).take(1).arrays[""].shape == (1, 3, 3, 3)
    grey = open_source(pictures, input_shape=(1, 8, 8)).take(1)
    assert grey.arrays[""].shape == (1, 1, 8, 8)
    assert grey.pictures is not None
    assert grey.pictures.shape == (1, 8, 8, 1)


def test_a_picture_of_the_right_size_is_not_touched(tmp_path: Path) -> None:
    pixels = colour(4, 4)
    (tmp_path / "a.png").write_bytes(png(pixels))
    taken = open_source(tmp_path, resize=4).take(1)
    np.testing.assert_array_equal(taken.arrays[""][0], pixels.transpose(2, 0, 1).astype(np.float32) / 255)
    assert taken.label is None


def test_pictures_of_several_sizes_need_resize(tmp_path: Path) -> None:
    for name, side in (("a", 4), ("b", 5)):
        (tmp_path / f"{name}.png").write_bytes(png(colour(side, side)))
    with pytest.raises(XaiError, match="differ in shape") as raised:
        open_source(tmp_path).take(2)
    assert "--resize" in raised.value.hint


def test_tokens_of_several_lengths_are_not_called_pictures(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    keep(layout, [row(1, np.ones(8, np.int64)), row(2, np.ones(4, np.int64)), row(3, np.ones(8, np.int64))])
    with pytest.raises(XaiError, match="differ in shape") as raised:
        open_source(None, layout=layout).take([1, 2, 3])
    assert "--ids 1,3," in raised.value.hint
    assert "picture" not in raised.value.hint


def test_a_checkpoint_cannot_ask_for_giant_pictures(pictures: Path) -> None:
    with pytest.raises(XaiError, match="too large"):
        open_source(pictures, input_shape=(3, 100_000, 100_000)).take(1)


def test_formats_that_start_programs_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(XaiError, match="no sample of"):
        open_source(tmp_path).take(1)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("mean", (0.1, 0.2)),
        ("std", (0.1, 0.2)),
        ("resize", (0, 4)),
        ("resize", (1, 2, 3)),
        ("std", (0.0,)),
        ("mean", (float("nan"),)),
    ],
)
def test_options_that_do_not_fit_are_named(option: str, value: Any, pictures: Path) -> None:
    with pytest.raises(XaiError, match=f"--{option}"):
        open_source(pictures, **{option: value}).take(1)


# --- Parquet ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["bytes", "struct", "path"])
def test_images_in_a_table(form: str, tmp_path: Path) -> None:
    images = [colour(4, 4), colour(4, 4)]
    values: list[Any] = [png(image) for image in images]
    if form == "struct":
        values = [{"bytes": value, "path": None} for value in values]
    if form == "path":
        for number, value in enumerate(values):
            (tmp_path / f"{number}.png").write_bytes(value)
        values = ["0.png", "1.png"]
    table = pa.table({"image": values, "label": ["dog", "cat"], "sample_id": [7, 9]})
    pq.write_table(table, tmp_path / "data.parquet")
    taken = open_source(tmp_path / "data.parquet").take([9, 7])
    assert (taken.sample_id, taken.label) == ([9, 7], ["cat", "dog"])
    assert taken.pictures is not None
    np.testing.assert_array_equal(taken.pictures, [images[1], images[0]])


def test_a_bad_image_in_a_table_is_skipped(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"nothing", None, png(colour())]}), tmp_path / "data.parquet")
    taken = open_source(tmp_path / "data.parquet").take(3)
    assert taken.sample_id == [2]
    assert len(taken.skipped) == 2


def test_lists_and_features(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [[1.0, 2.0], [3.0, 4.0]], "y": [0, 1]}), tmp_path / "lists.parquet")
    np.testing.assert_array_equal(open_source(tmp_path / "lists.parquet").take(2).arrays[""], [[1, 2], [3, 4]])
    table = pa.table({"age": [1, 2], "height": [1.5, None], "name": ["a", "b"], "label": [0, 1]})
    pq.write_table(table, tmp_path / "features.parquet")
    taken = open_source(tmp_path / "features.parquet").take(2)
    np.testing.assert_array_equal(taken.arrays[""], [[1, 1.5]])
    left_out, missing = taken.skipped
    assert left_out.endswith("hold no numbers are no features: name")
    assert missing == "sample 1: it has no value"


def test_a_folder_of_tables_is_one_table(tmp_path: Path) -> None:
    for number in range(3):
        table = pa.table({"x": [[float(i)] for i in range(number * 5, number * 5 + 5)]})
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=2)
    source = open_source(tmp_path)
    assert len(source.sample_ids) == 15
    assert source.take([14, 0, 7, 4, 5]).arrays[""].ravel().tolist() == [14, 0, 7, 4, 5]


def test_a_row_group_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"x": [[0.0] * 1000] * 1000}), tmp_path / "data.parquet", use_dictionary=False)
    monkeypatch.setattr("xaicli.sources.table._LARGEST_GROUP", 10_000)
    with pytest.raises(XaiError, match="unpacks to"):
        open_source(tmp_path / "data.parquet")


def test_a_table_without_inputs_names_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["a"], "label": [1]}), tmp_path / "data.parquet")
    with pytest.raises(XaiError, match="holds no inputs") as raised:
        open_source(tmp_path / "data.parquet")
    assert "name, label" in raised.value.hint


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(XaiError, match=r"data\.parquet is no readable Parquet table"):
        open_source(tmp_path / "data.parquet")


# --- factories --------------------------------------------------------------------------------------------------------

FACTORIES = """
import numpy as np

class Items:
    classes = ["cat", "dog"]
    def __len__(self):
        return 4
    def __getitem__(self, i):
        if i == 1:
            raise OSError("a broken file")
        if i >= 4:
            raise IndexError(i)
        return np.full((1, 2, 2), i, dtype=np.float32), i % 2

def items():
    return Items()

def pair():
    return np.arange(6, dtype=np.float32).reshape(3, 2), np.array([1, 0, 1])

def table():
    return {"x": np.ones((2, 3), dtype=np.float32), "y": np.array([4, 5]), "sample_id": np.array(["a", "b"])}

def stream():
    number = 0
    while True:
        yield number + 100, np.full(2, number, dtype=np.float32), number % 3
        number += 1

def dicts():
    return [{"image": np.zeros((2, 2, 3), dtype=np.uint8), "label": 1, "id": "first"}]

def moded(mode):
    return np.full((1, 2), {"train": 0.0, "eval": 1.0}[mode], dtype=np.float32), np.array([0])

def tensors():
    import torch
    from torch.utils.data import DataLoader, TensorDataset
    return DataLoader(TensorDataset(torch.arange(8.0).reshape(4, 2), torch.arange(4)), batch_size=2, shuffle=True)

def needs(argument):
    return None

def nothing():
    return 7

ready = Items()
"""


@pytest.fixture
def code(tmp_path: Path) -> Iterator[Path]:
    import sys

    (tmp_path / "my_data.py").write_text(FACTORIES)
    yield tmp_path
    sys.modules.pop("my_data", None)


@pytest.mark.parametrize("name", ["items", "ready", "Items"])
def test_a_dataset_and_its_bad_item(name: str, code: Path) -> None:
    source = open_source(f"my_data:{name}", pythonpath=[code])
    taken = source.take(4)
    assert source.label_names == ("cat", "dog")
    assert (taken.sample_id, taken.label) == ([0, 2, 3], [0, 0, 1])
    assert taken.skipped == ("sample 1: OSError: a broken file",)
    with pytest.raises(XaiError, match="a broken file"):
        open_source(f"my_data:{name}", pythonpath=[code], strict=True).take([1])


def test_arrays_from_a_factory(code: Path) -> None:
    taken = open_source("my_data:pair", pythonpath=[code]).take([2])
    assert (taken.label, taken.arrays[""].tolist()) == ([1], [[4.0, 5.0]])
    assert open_source("my_data:table", pythonpath=[code]).take(["b"]).label == [5]


def test_an_endless_stream_is_read_as_far_as_asked(code: Path) -> None:
    taken = open_source("my_data:stream", pythonpath=[code]).take(3)
    assert (taken.sample_id, taken.label) == ([100, 101, 102], [0, 1, 2])


def test_items_as_dicts(code: Path) -> None:
    taken = open_source("my_data:dicts", pythonpath=[code]).take(1)
    assert (taken.label, taken.arrays[""].shape) == ([1], (1, 3, 2, 2))


def test_a_loader_is_read_in_the_order_of_its_dataset(code: Path) -> None:
    taken = open_source("my_data:tensors", pythonpath=[code]).take(4)
    assert taken.label == [0, 1, 2, 3]
    np.testing.assert_array_equal(taken.arrays[""], np.arange(8).reshape(4, 2))


@pytest.mark.parametrize(
    ("module", "text", "said"),
    [
        ("fails_called", "def make():\n    raise KeyError('my column')\n", "fails: KeyError: 'my column'"),
        ("fails_imported", "raise ValueError('my module')\n", "fails where it is imported: ValueError: my module"),
    ],
)
def test_a_factory_that_fails_is_told_with_its_own_error(module: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text(text)
    with pytest.raises(XaiError, match=rf"^--data {module}:make.* {re.escape(said)}\n"):
        open_source(f"{module}:make", pythonpath=[tmp_path])


def failing_after(n: int) -> Iterator[Any]:
    for i in range(n):
        yield np.ones(3, np.float32) * i, i
    raise ValueError("file 3 is broken")


class FailingIterable:
    def __iter__(self) -> Iterator[Any]:
        raise ValueError("file 3 is broken")


class WithBadIndex:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> Any:
        return np.ones(3, np.float32) * i, [5, 6][i]


@pytest.mark.parametrize("made", [lambda: failing_after(0), lambda: failing_after(2), FailingIterable])
def test_an_iterable_that_fails_is_told_with_its_own_error(made: Any) -> None:
    for ask in (lambda source: source.take(8), lambda source: source.take([0]), lambda source: len(source.sample_ids)):
        with pytest.raises(XaiError, match=r"^the data fails: ValueError: file 3 is broken\n"):
            ask(from_object(made(), "the data", Preparation(), strict=False))


def test_an_index_out_of_range_in_a_dataset_is_that_samples() -> None:
    found = from_object(WithBadIndex(), "the data", Preparation(), strict=False).take(3)
    assert (found.label, found.skipped) == ([5, 6], ("sample 2: IndexError: list index out of range",))


def test_a_factory_is_told_the_mode(code: Path) -> None:
    assert open_source("my_data:moded", pythonpath=[code], mode="eval").take(1).arrays[""].max() == 1


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("my_data:itemz", "no name 'itemz' in my_data"),
        ("my_data:needs", "missing 1 required positional argument"),
        ("my_data:nothing", "gives a int"),
        ("nowhere:make", "No module named 'nowhere'"),
        ("data.csv", "there is no such file or folder"),
    ],
)
def test_a_source_that_cannot_be_is_named(spec: str, reason: str, code: Path) -> None:
    with pytest.raises(XaiError, match=reason) as raised:
        open_source(spec, pythonpath=[code])
    assert raised.value.hint


def test_the_current_folder_is_not_searched(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(code)
    monkeypatch.setattr("sys.path", [entry for entry in __import__("sys").path if entry not in ("", str(code))])
    with pytest.raises(XaiError, match="No module named") as raised:
        open_source("my_data:pair")
    assert "--pythonpath ." in raised.value.hint
    assert open_source("my_data:pair", pythonpath=["."]).take(1).sample_id == [0]


# --- inputs kept in a run ---------------------------------------------------------------------------------------------


Row = dict[str, Any]


def keep(layout: RunLayout, rows: list[Row], sequence: int = 0) -> Path:
    """Write rows of kept inputs as the recorder does."""
    layout.inputs.mkdir(parents=True, exist_ok=True)
    schema = pa.schema(
        {
            "sample_id": pa.int64(),
            "mode": pa.string(),
            "ds_id": pa.string(),
            "label": pa.int32(),
            "name": pa.string(),
            "dtype": pa.string(),
            "shape": pa.list_(pa.int32()),
            "data": pa.binary(),
        }
    )
    path = layout.inputs / f"part-a000000-r0000-{sequence:08d}.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, write_page_checksum=True)
    return path


def row(
    sample_id: int, x: np.ndarray[Any, Any], *, name: str = "", mode: str = "eval", label: int = 0
) -> dict[str, Any]:
    return {
        "sample_id": sample_id,
        "mode": mode,
        "ds_id": "",
        "label": label,
        "name": name,
        "dtype": str(x.dtype),
        "shape": list(x.shape),
        "data": x.tobytes(),
    }


def test_kept_inputs_come_back_exactly(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    x = RNG.normal(size=(3, 1, 4, 4)).astype(np.float32)
    keep(layout, [row(i, x[i], label=i + 1) for i in range(3)])
    source = open_source(None, layout=layout, mean=(0.5,), std=(0.5,))
    taken = source.take(["2", "0"])
    np.testing.assert_array_equal(taken.arrays[""], x[[2, 0]])
    assert (list(source.sample_ids), taken.sample_id, taken.label) == ([0, 1, 2], [2, 0], [3, 1])
    assert taken.pictures is not None
    assert taken.pictures.shape == (2, 4, 4, 1)


def test_a_later_row_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    old, new = np.zeros(2, np.float32), np.ones(2, np.float32)
    keep(layout, [row(1, old), row(2, old)], sequence=0)
    keep(layout, [row(1, new, label=9)], sequence=1)
    taken = open_source(None, layout=layout).take([1, 2])
    np.testing.assert_array_equal(taken.arrays[""], [new, old])
    assert taken.label == [9, 0]


def test_kept_inputs_of_several_names_and_modes(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    a, b = np.ones(2, np.float32), np.arange(3)
    keep(layout, [row(1, a, name="a"), row(1, b, name="b"), row(2, a, mode="train")])
    taken = open_source(None, layout=layout, mode="eval").take(5)
    assert {key: value.shape for key, value in taken.arrays.items()} == {"a": (1, 2), "b": (1, 3)}
    assert taken.arrays["b"].dtype == np.int64
    assert list(open_source(None, layout=layout, mode="train").sample_ids) == [2]
    with pytest.raises(XaiError, match="no kept inputs of mode test") as raised:
        open_source(None, layout=layout, mode="test")
    assert "some of mode eval, train: leave --mode out" in raised.value.hint
    assert "--data" in raised.value.hint
    with pytest.raises(XaiError, match=r"no kept inputs of mode test\n"):
        open_source(None, layout=layout, mode=["eval", "test"])


def test_kept_inputs_are_of_the_modes_and_data_sets_that_words_mean(tmp_path: Path) -> None:
    layout, x = RunLayout(tmp_path), np.ones(2, np.float32)
    kept = [("train", ""), ("eval", "day"), ("eval", "night"), ("test", "night")]
    keep(layout, [row(7, x, mode=mode) | {"ds_id": ds_id} for mode, ds_id in kept])
    for asked, expected in (
        ({"mode": "all"}, kept),
        ({"mode": ["train", "test"]}, [kept[0], kept[3]]),
        ({"mode": ["!train"]}, kept[1:]),
        ({"mode": ["!infer"]}, kept),
        ({"ds_id": ["!night"]}, kept[:2]),
        ({"ds_id": [""]}, kept[:1]),
        ({"mode": ["!test"], "ds_id": ["night", "day"]}, kept[1:3]),
    ):
        source = open_source(None, layout=layout, **asked)  # type: ignore[arg-type]
        assert list(source.pairs) == expected
    for placed, expected in (
        ([("eval", "night")], kept[2:3]),
        ([("eval", None)], kept[1:3]),
        ([("", "night")], kept[2:]),
        ([("train", ""), ("eval", "day")], kept[:2]),
    ):
        ids = [PlacedId.of("7", place) for place in placed]
        assert open_source(None, layout=layout).take(ids).pairs == expected
    with pytest.raises(XaiError, match="sample 7 infer is not among"):
        open_source(None, layout=layout).take([PlacedId.of("7", ("infer", None))])
    # What was kept outside of any mode may be of the one that a list names.
    keep(RunLayout(tmp_path / "bare"), [row(7, x, mode=""), row(8, x, mode="")])
    assert open_source(None, layout=RunLayout(tmp_path / "bare")).take([PlacedId.of("7", ("eval", ""))]).sample_id == [
        7
    ]


def test_a_run_without_kept_inputs_says_how(tmp_path: Path) -> None:
    with pytest.raises(XaiError, match="holds no kept inputs") as raised:
        open_source(None, layout=RunLayout(tmp_path))
    assert "run.log_inputs" in raised.value.hint
    with pytest.raises(XaiError, match="no data given"):
        open_source(None)


def test_damaged_inputs_are_left_out_or_named(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    keep(layout, [row(1, np.ones(2, np.float32))], sequence=0)
    path = keep(layout, [row(2, np.ones(2, np.float32))], sequence=1)
    path.write_bytes(path.read_bytes()[:50])
    assert list(open_source(None, layout=layout).sample_ids) == [1]
    with pytest.raises(XaiError, match=path.name):
        open_source(None, layout=layout, strict=True)


def test_a_link_among_kept_inputs_is_not_followed(tmp_path: Path) -> None:
    elsewhere = keep(RunLayout(tmp_path / "private"), [row(1, np.ones(2, np.float32))])
    layout = RunLayout(tmp_path / "run")
    keep(layout, [row(2, np.ones(2, np.float32))], sequence=1)
    (layout.inputs / elsewhere.name).symlink_to(elsewhere)
    assert list(open_source(None, layout=layout).sample_ids) == [2]


@pytest.mark.parametrize(
    "change", [{"dtype": "object"}, {"dtype": "nonsense"}, {"shape": [9, 9]}, {"data": b"123"}, {"shape": [-1]}]
)
def test_bytes_that_are_no_such_array_are_skipped(change: dict[str, Any], tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    keep(layout, [{**row(1, np.ones(2, np.float32)), **change}, row(2, np.ones(2, np.float32))])
    taken = open_source(None, layout=layout).take(2)
    assert taken.sample_id == [2]
    assert len(taken.skipped) == 1


def test_no_samples_asked_is_an_error(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 2)))
    with pytest.raises(XaiError, match="0 samples asked"):
        open_source(tmp_path / "data.npz").take(0)


def test_a_spec_of_another_form_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="is not module:factory"):
        open_source("module:")


# --- what was found by people who use it ------------------------------------------------------------------------------


class Rows:
    """A Dataset that counts what is read of it."""

    def __init__(self, ids: list[Any]) -> None:
        self.ids, self.read = ids, set[int]()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, position: int) -> tuple[Any, np.ndarray[Any, Any], int]:
        self.read.add(position)
        return self.ids[position], np.full((2, 2), position, np.float32), position % 2


@pytest.mark.parametrize("kind", ["list", "dataset"])
@pytest.mark.parametrize("ids", [["a", "b", "c", "d", "e"], [0, 7, 9, 3, 4]])
def test_items_that_say_their_ids_keep_them(kind: str, ids: list[Any]) -> None:
    rows = Rows(ids)
    made = [rows[i] for i in range(len(ids))] if kind == "list" else rows
    source = from_object(made, "data", Preparation(), strict=True)
    taken = source.take(3)
    assert (taken.sample_id, taken.label) == (ids[:3], [0, 1, 0])
    taken = source.take([ids[3], ids[1]])
    assert taken.sample_id == [ids[3], ids[1]]
    assert taken.arrays[""][:, 0, 0].tolist() == [3, 1]


def test_a_dataset_whose_ids_are_its_positions_is_not_read_for_them() -> None:
    rows = Rows(list(range(100)))
    assert from_object(rows, "data", Preparation(), strict=True).take([5, 6]).sample_id == [5, 6]
    assert rows.read == {0, 50, 99, 5, 6}


def test_options_for_pictures_that_met_none_are_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "floats.npz", x=np.zeros((2, 3, 4, 4), np.float32))
    np.savez(tmp_path / "bytes.npz", x=np.zeros((2, 3, 4, 4), np.uint8))
    for name, said in (("floats", 2), ("bytes", 0)):
        source = open_source(tmp_path / f"{name}.npz", resize=2, mean=(0.5,), asked=("resize", "mean"))
        notes = source.take(2).skipped
        assert len([note for note in notes if "was not used" in note]) == said


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA"), (None, "RGB")])
def test_the_models_first_convolution_says_which_channels(channels: int | None, mode: str, tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (4, 4, 4), dtype=np.uint8)).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(image.convert(mode), dtype=np.float32).reshape(4, 4, -1).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(open_source(tmp_path, channels=channels).take(1).arrays[""][0], expected, atol=1e-6)


def test_columns_that_may_be_labels_are_pointed_out(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": [png(colour())], "fine_label": [3], "coarse_label": [1]}), path)
    taken = open_source(path).take(1)
    assert taken.label is None
    assert "rename one of fine_label, coarse_label to label" in taken.skipped[0]


@pytest.mark.parametrize("form", ["npz", "parquet", "dicts"])
def test_inputs_that_are_called_ids_or_y_are_inputs(form: str, tmp_path: Path) -> None:
    ids, y = np.arange(12).reshape(3, 4) + 100, RNG.random((3, 2)).astype(np.float32)
    labels = [1, 0, 1]
    options: dict[str, Any] = {"input_names": ("ids", "y"), "input_dtypes": ("int64", "float32")}
    if form == "npz":
        np.savez(tmp_path / "a.npz", ids=ids, y=y, label=labels)
        source = open_source(tmp_path / "a.npz", **options)
    elif form == "parquet":
        pq.write_table(pa.table({"ids": ids.tolist(), "y": y.tolist(), "label": labels}), tmp_path / "a.parquet")
        source = open_source(tmp_path / "a.parquet", **options)
    else:
        rows = [{"ids": ids[i], "y": y[i], "label": labels[i]} for i in range(3)]
        preparation = Preparation(names=("ids", "y"), dtypes=("int64", "float32"))
        source = from_object(rows, "data", preparation, strict=True)
    taken = source.take(3)
    assert (taken.sample_id, taken.label) == ([0, 1, 2], labels)
    np.testing.assert_array_equal(taken.arrays["ids"], ids)
    np.testing.assert_allclose(taken.arrays["y"], y)


def test_rows_of_token_ids_are_no_ids_of_samples(tmp_path: Path) -> None:
    ids = np.arange(12).reshape(3, 4)
    np.savez(tmp_path / "a.npz", ids=ids, label=[1, 0, 1])
    pq.write_table(pa.table({"ids": ids.tolist(), "x": ids.tolist()}), tmp_path / "a.parquet")
    assert open_source(tmp_path / "a.npz").take(3).sample_id == [0, 1, 2]
    assert open_source(tmp_path / "a.parquet").take(3).sample_id == [0, 1, 2]


WRAPPED = """
import torch
from torch.utils.data import DataLoader, Dataset, Subset, SubsetRandomSampler, random_split
from xaicli import Table

class Base(Dataset):
    def __len__(self): return 6
    def __getitem__(self, i): return torch.full((3,), float(i)), i % 2

class Doubled(Dataset):
    def __init__(self, dataset): self.dataset = dataset
    def __len__(self): return len(self.dataset)
    def __getitem__(self, i): x, y = self.dataset[i]; return 2 * x, y

class Records(Dataset):
    dataset = [1, 2]
    def __len__(self): return 1
    def __getitem__(self, i): return torch.full((3,), 7.0), 0

def subset(): return Subset(Base(), [5, 1])
def parts(): return random_split(Base(), [2, 4], generator=torch.Generator().manual_seed(0))[0]
def doubled(): return Doubled(Subset(Base(), [5, 1]))
def records(): return Records()
def loader(): return DataLoader(Doubled(Base()), batch_size=4, shuffle=True)
def sampled(): return DataLoader(Base(), sampler=SubsetRandomSampler([4, 2]))
def collated(): return DataLoader(Base(), collate_fn=lambda batch: batch)
def table():
    named = Table(Base(), ids=["s%d" % i for i in range(6)]).map(lambda s: (9 * s[0], s[1]))
    return named.map_collect_metrics(lambda s: (3 * s[0], s[1]))
"""


@pytest.mark.parametrize(
    ("factory", "ids", "firsts", "said"),
    [
        ("subset", [0, 1], [5, 1], []),
        ("doubled", [0, 1], [10, 2], []),
        ("records", [0], [7], []),
        ("loader", [0, 1, 2, 3, 4, 5], [0, 2, 4, 6, 8, 10], []),
        ("sampled", [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], ["the SubsetRandomSampler of the DataLoader"]),
        ("collated", [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], ["the collate_fn of the DataLoader"]),
        ("table", ["s0", "s1", "s2", "s3", "s4", "s5"], [0, 3, 6, 9, 12, 15], []),
    ],
)
def test_what_a_factory_gives_is_taken_as_it_is_and_a_loaders_dataset_for_the_loader(
    factory: str, ids: list[Any], firsts: list[float], said: list[str], tmp_path: Path
) -> None:
    (tmp_path / "wrapped.py").write_text(WRAPPED)
    source = open_source(f"wrapped:{factory}", pythonpath=[tmp_path])
    batch = source.take(len(ids) + 3)
    assert list(batch.sample_id) == ids
    assert batch.arrays[""][:, 0].tolist() == firsts
    assert len(source.notes) == len(said)
    assert all(note.startswith(start) for note, start in zip(source.notes, said, strict=True))
