"""Names of every script in the PNGs: in the order they are read, and told where the font lacks them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.report_answers import labels_result
from xaicli.render import canvas
from xaicli.render.canvas import font, setting_of, what_is_not_drawn, width_of

SHALOM = "שלום"

needs_ordering = pytest.mark.skipif(not canvas.can_reorder(), reason="Pillow has no raqm or fribidi here")


def pixels(text: str, *, as_stored: bool = False) -> np.ndarray:
    picture = Image.new("L", (400, 60))
    how = {} if as_stored else setting_of(text)
    face = font(32) if as_stored else font(32, text=text)
    ImageDraw.Draw(picture).text((5, 45), text, fill=255, font=face, anchor="ls", **how)
    return np.asarray(picture)


@needs_ordering
def test_hebrew_is_drawn_from_the_right() -> None:
    assert (pixels(SHALOM) == pixels(SHALOM[::-1], as_stored=True)).all()
    assert not (pixels(SHALOM) == pixels(SHALOM, as_stored=True)).all()


@needs_ordering
def test_a_name_within_a_line_keeps_the_line_in_order() -> None:
    drawn, stored = pixels(f"loss {SHALOM} 12"), pixels(f"loss {SHALOM} 12", as_stored=True)
    read = pixels(f"loss 12 {SHALOM[::-1]}", as_stored=True)
    # Another engine may set letters a fraction of a pixel apart.
    off = [np.abs(drawn.astype(int) - other).sum() for other in (read, stored)]
    assert off[0] < 0.5 * off[1]
    assert width_of(f"loss {SHALOM}") == pytest.approx(width_of(f"loss {SHALOM[::-1]}"), abs=0.05)


def test_latin_texts_are_set_as_ever() -> None:
    assert setting_of("loss ± std, naïve Ω") == {}
    assert font(20, text="loss") is font(20)


def test_what_cannot_be_put_in_order_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "can_reorder", lambda: False)
    monkeypatch.setattr("xaicli.render.pen.can_reorder", lambda: False)
    with pytest.warns(UserWarning, match="letters in the wrong order"):
        labels_result(labels=1, epochs=2, names=(SHALOM,)).save(tmp_path, ["png"])


def test_the_characters_that_are_boxes_are_told_in_the_json_too(tmp_path: Path) -> None:
    result = labels_result(labels=2, epochs=2, names=("日本", "plain"))
    with pytest.warns(UserWarning, match="boxes in place of 2 characters"):
        result.save(tmp_path, ["png", "json"])
    (said,) = [one for one in json.loads((tmp_path / "labels.json").read_text())["warnings"] if "boxes" in one]
    assert "(日本)" in said
    assert said in json.loads(result.to_json())["warnings"]


def test_a_list_of_boxes_that_is_not_whole_ends_so() -> None:
    (short,), (long,) = (what_is_not_drawn(set(text), is_mirrored=False) for text in ("一二三", "一丁七万丈三上下不"))
    assert "3 characters" in short
    assert "…" not in short
    assert "9 characters that their font lacks (一丁七万丈三上下…)" in long
