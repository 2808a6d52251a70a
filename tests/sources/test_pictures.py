"""Pictures of every kind reach the model as the values they hold, in [0, 1]; folders are taken as they are found."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from xaicli.errors import XaiError
from xaicli.sources import open_source

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 8), dtype=np.uint8)
OPACITY = RNG.integers(0, 256, (6, 8, 1), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (6, 8), dtype=np.uint16)


def taken(data: Path, **options: Any) -> Any:
    return open_source(data, **options).take(99)


def only(picture: Image.Image, tmp_path: Path, channels: int, *, suffix: str = "png", **saving: Any) -> Any:
    """The one model input of a folder with this picture, as (channel, height, width)."""
    folder = tmp_path / "pictures"
    folder.mkdir(exist_ok=True)
    picture.save(folder / f"a.{suffix}", **saving)
    return taken(folder, input_shape=(channels, picture.height, picture.width)).arrays[""][0]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_keep_their_values(suffix: str, tmp_path: Path) -> None:
    found = only(Image.fromarray(DEEP), tmp_path, 1, suffix=suffix)
    np.testing.assert_allclose(found[0], DEEP / 65535, atol=1e-6)
    shown = taken(tmp_path / "pictures", input_shape=(1, 6, 8)).pictures
    np.testing.assert_allclose(shown[0, ..., 0], DEEP / 257, atol=0.51)
    colours = taken(tmp_path / "pictures", input_shape=(3, 6, 8)).arrays[""][0]
    assert all(np.array_equal(plane, found[0]) for plane in colours)


def test_sixteen_bits_are_resized_without_losing_them(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    Image.fromarray(np.full((8, 8), 1234, np.uint16)).save(tmp_path / "p" / "a.png")
    found = taken(tmp_path / "p", input_shape=(1, 4, 4)).arrays[""][0]
    np.testing.assert_allclose(found, 1234 / 65535, atol=1e-6)


def test_floats_in_a_picture_have_no_known_range(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "p" / "a.tif")
    Image.fromarray(GREY).save(tmp_path / "p" / "b.png")
    found = taken(tmp_path / "p", input_shape=(1, 6, 8))
    assert found.sample_id == ["b.png"]
    assert "a.tif" in found.skipped[0]
    assert "range is not known" in found.skipped[0]


def test_opacity_is_a_fourth_channel_for_a_model_that_takes_one(tmp_path: Path) -> None:
    pixels = np.concatenate([COLOURS, OPACITY], axis=-1)
    found = only(Image.fromarray(pixels), tmp_path, 4)
    np.testing.assert_allclose(found, pixels.transpose(2, 0, 1) / 255, atol=1e-6)
    three = taken(tmp_path / "pictures", input_shape=(3, 6, 8)).arrays[""][0]
    np.testing.assert_allclose(three, COLOURS.transpose(2, 0, 1) / 255, atol=1e-6)


def test_a_picture_without_opacity_is_opaque(tmp_path: Path) -> None:
    found = only(Image.fromarray(COLOURS), tmp_path, 4)
    np.testing.assert_allclose(found[:3], COLOURS.transpose(2, 0, 1) / 255, atol=1e-6)
    assert (found[3] == 1).all()


def test_a_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    picture = Image.fromarray(COLOURS).quantize(8)
    colours = np.asarray(picture.convert("RGB"))
    found = only(picture, tmp_path, 3, transparency=0)
    np.testing.assert_allclose(found, colours.transpose(2, 0, 1) / 255, atol=1e-6)
    four = taken(tmp_path / "pictures", input_shape=(4, 6, 8)).arrays[""][0]
    assert np.array_equal(four[3], (np.asarray(picture) != 0).astype(np.float32))


def test_grey_with_opacity(tmp_path: Path) -> None:
    pixels = np.concatenate([GREY[..., None], OPACITY], axis=-1)
    found = only(Image.fromarray(pixels, "LA"), tmp_path, 1)
    np.testing.assert_allclose(found[0], GREY / 255, atol=1e-6)
    three = taken(tmp_path / "pictures", input_shape=(3, 6, 8)).arrays[""][0]
    np.testing.assert_allclose(three, np.stack([GREY] * 3) / 255, atol=1e-6)


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    found = only(Image.fromarray(GREY > 128), tmp_path, 1)
    assert np.array_equal(found[0], (GREY > 128).astype(np.float32))


def test_ink_becomes_light(tmp_path: Path) -> None:
    picture = Image.fromarray(COLOURS).convert("CMYK")
    expected = np.asarray(picture.convert("RGB"))
    found = only(picture, tmp_path, 3, suffix="tif")
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1) / 255, atol=1e-6)


def test_a_picture_taken_sideways_stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    (tmp_path / "p").mkdir()
    Image.fromarray(GREY).save(tmp_path / "p" / "a.png", exif=exif)
    found = taken(tmp_path / "p", input_shape=(1, 8, 6)).arrays[""][0]
    np.testing.assert_allclose(found[0], np.rot90(GREY, -1) / 255, atol=1e-6)


def test_of_an_animation_the_first_picture(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((6, 8), value, np.uint8)) for value in (10, 200)]
    found = only(frames[0], tmp_path, 1, suffix="gif", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(found, 10 / 255, atol=1e-6)


@pytest.mark.parametrize("layout", ["first", "last"])
def test_arrays_of_four_channels_keep_them(layout: str, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (3, 4, 6, 8), dtype=np.uint8)
    given = pixels if layout == "first" else pixels.transpose(0, 2, 3, 1)
    np.savez(tmp_path / "a.npz", x=given)
    np.testing.assert_allclose(taken(tmp_path / "a.npz", input_shape=(4, 6, 8)).arrays[""], pixels / 255, atol=1e-6)


def test_arrays_of_sixteen_bits_are_scaled_by_what_they_can_hold(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=DEEP[None, None])
    found = taken(tmp_path / "a.npz", input_shape=(1, 6, 8)).arrays[""]
    np.testing.assert_allclose(found[0, 0], DEEP / 65535, atol=1e-6)


def test_tokens_in_small_integers_stay_integers(tmp_path: Path) -> None:
    tokens = RNG.integers(0, 200, (4, 7), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", input_ids=tokens, attention_mask=np.ones_like(tokens), y=np.arange(4))
    found = taken(tmp_path / "a.npz", input_names=("input_ids", "attention_mask"), input_dtypes=("int64", "int64"))
    assert list(found.arrays) == ["input_ids", "attention_mask"]
    assert found.arrays["input_ids"].dtype == np.int64
    assert np.array_equal(found.arrays["input_ids"], tokens)


def test_inputs_come_in_the_models_order_whatever_the_files(tmp_path: Path) -> None:
    b, a = np.full((2, 3), 2.0, np.float32), np.full((2, 3), 1.0, np.float32)
    np.savez(tmp_path / "a.npz", right=b, left=a, weights=np.ones(2, np.float32), y=np.arange(2))
    found = taken(tmp_path / "a.npz", input_names=("left", "right"))
    assert [array[0, 0] for array in found.arrays.values()] == [1, 2]
    with pytest.raises(XaiError, match="has no middle"):
        taken(tmp_path / "a.npz", input_names=("left", "middle", "right"))


def test_objects_beside_the_inputs_are_left_out_and_named(tmp_path: Path) -> None:
    x = np.ones((2, 3), np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(2), about=np.array([{"a": 1}, None], dtype=object))
    found = taken(tmp_path / "a.npz")
    assert found.label == [0, 1]
    assert "about" in found.skipped[0]
    assert "pickled objects" in found.skipped[0]
    np.savez(tmp_path / "b.npz", x=x, y=np.array(["a", None], dtype=object))
    with pytest.raises(XaiError, match="y is an array of pickled objects"):
        taken(tmp_path / "b.npz")


def test_names_of_labels_in_an_archive_are_no_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((3, 4), np.float32), y=np.arange(3) % 2, classes=np.array(["cat", "dog"]))
    source = open_source(tmp_path / "a.npz")
    assert source.label_names == ("cat", "dog")
    assert source.take(3).label == [0, 1, 0]


def test_several_labels_and_masks_stay_whole(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((2, 4), np.float32), y=np.array([[1, 0, 1], [0, 0, 1]]))
    assert taken(tmp_path / "a.npz").label == [[1, 0, 1], [0, 0, 1]]
    masks = np.full((2, 3, 3), 255, np.uint8)
    np.savez(tmp_path / "b.npz", x=np.ones((2, 4), np.float32), y=masks)
    found = taken(tmp_path / "b.npz").label
    assert all(np.array_equal(one, mask) for one, mask in zip(found, masks, strict=True))


def _folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(GREY).save(root / name, format="PNG" if name.lower().endswith("png") else "JPEG")
    return root


def test_a_folder_as_it_is_found(tmp_path: Path) -> None:
    root = _folder(
        tmp_path / "d", "cat/0.png", "cat/deep/1.PNG", "dog/2.JPG", "loose.png", "dog/.hidden.png", "__MACOSX/cat/0.png"
    )
    (root / "dog" / "Thumbs.db").write_bytes(b"x")
    (root / "dog" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    (root / "cow").mkdir()  # no picture, and still a class
    found = taken(root, input_shape=(1, 6, 8))
    assert dict(zip(found.sample_id, found.label, strict=True)) == {
        "cat/0.png": 0,
        "cat/deep/1.PNG": 0,
        "dog/2.JPG": 2,
        "loose.png": None,
    }
    assert len(found.skipped) == 1
    assert "dog/broken.png" in found.skipped[0]


def test_folders_that_are_no_labels_of_the_model_are_told(tmp_path: Path) -> None:
    root = _folder(tmp_path / "d", "cats/0.png", "dogs/1.png")
    found = taken(root, label_names=["cat", "dog"])
    assert found.label == [0, 1]
    assert "cats, dogs" in found.skipped[0]
    assert not taken(root, label_names=["birds", "cats", "dogs"]).skipped
    assert taken(root, label_names=["birds", "cats", "dogs"]).label == [1, 2]


def test_class_folders_may_be_links_and_loops_end(tmp_path: Path) -> None:
    real = _folder(tmp_path / "real", "0.png")
    root = _folder(tmp_path / "d", "cat/1.png")
    (root / "dog").symlink_to(real)
    (root / "cow").symlink_to(real)
    (root / "cat" / "again").symlink_to(root)
    assert taken(root).sample_id == ["cat/1.png", "cow/0.png", "dog/0.png"]


def test_splits_are_no_classes(tmp_path: Path) -> None:
    root = _folder(tmp_path / "d", "train/cat/0.png", "val/cat/1.png")
    with pytest.raises(XaiError, match="splits, not classes") as raised:
        taken(root)
    assert str(root / "train") in raised.value.hint


def test_a_data_set_of_save_to_disk_says_how_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "dataset_info.json").write_text("{}")
    with pytest.raises(XaiError, match="save_to_disk") as raised:
        taken(tmp_path / "d")
    assert "to_parquet" in raised.value.hint


def _png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _hugging_face(path: Path, n: int) -> None:
    images = pa.array([{"bytes": _png(i), "path": None} for i in range(n)])
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    table = pa.table({"image": images, "label": pa.array([i % 2 for i in range(n)])})
    info = json.dumps({"info": {"features": features}}).encode()
    pq.write_table(table.replace_schema_metadata({b"huggingface": info}), path)


def test_a_table_of_hugging_face_names_its_labels(tmp_path: Path) -> None:
    _hugging_face(tmp_path / "a.parquet", 3)
    source = open_source(tmp_path / "a.parquet", input_shape=(1, 4, 4))
    assert source.label_names == ("cat", "dog")
    found = source.take(9)
    assert found.label == [0, 1, 0]
    np.testing.assert_allclose(found.arrays[""][:, 0, 0, 0], np.arange(3) / 255, atol=1e-6)


def test_tables_of_several_splits_are_not_mixed(tmp_path: Path) -> None:
    _hugging_face(tmp_path / "train-00000-of-00001.parquet", 3)
    _hugging_face(tmp_path / "validation-00000-of-00001.parquet", 2)
    with pytest.raises(XaiError, match="several splits: train, validation"):
        taken(tmp_path)
    assert len(taken(tmp_path, mode="eval").sample_id) == 2
    assert len(taken(tmp_path, mode="train").sample_id) == 3


def test_a_table_of_tokens_gives_the_models_inputs(tmp_path: Path) -> None:
    rows = {"attention_mask": [[1, 1, 0]] * 2, "input_ids": [[5, 6, 0], [7, 8, 0]], "label": [0, 1], "idx": [7, 8]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    found = taken(tmp_path / "a.parquet", input_names=("input_ids", "attention_mask"), input_dtypes=("int64", "int64"))
    assert found.arrays["input_ids"].tolist() == rows["input_ids"]
    assert found.arrays["attention_mask"].tolist() == rows["attention_mask"]
    assert list(found.arrays) == ["input_ids", "attention_mask"]


def test_the_sample_of_another_shape_is_named(tmp_path: Path) -> None:
    values = pa.array([[1.0, 2.0], [1.0, 2.0], [1.0]])
    pq.write_table(pa.table({"x": values, "id": ["a", "b", "c"]}), tmp_path / "a.parquet")
    with pytest.raises(XaiError, match=r"c \(1,\), others \(2,\)"):
        taken(tmp_path / "a.parquet")
