"""Colours of groups in a plane of points."""

from __future__ import annotations

import itertools

import pytest

from xaicli.render.canvas import DARK, LIGHT
from xaicli.render.scatter import _GROUP_COLOURS

D65 = (0.95047, 1.0, 1.08883)
FROM_RGB = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))


def lab(colour: str) -> tuple[float, float, float]:
    """CIE L*a*b* of #rrggbb: distances are about what the eye tells apart."""
    rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    xyz = [
        sum(a * b for a, b in zip(row, linear, strict=True)) / white for row, white in zip(FROM_RGB, D65, strict=True)
    ]
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_ten_groups_have_ten_colours_that_the_eye_tells_apart(palette: dict[str, str]) -> None:
    places = [lab(palette[name]) for name in _GROUP_COLOURS]
    assert len(places) == 10
    apart = [sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) ** 0.5 for p, q in itertools.combinations(places, 2)]
    assert min(apart) > 25
