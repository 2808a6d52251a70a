"""A figure that a notebook shows, whether or not pyplot is there."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

_DENSITY = 144


class ShownFigure(Figure):
    """matplotlib's figure, with what pyplot adds where it is imported: how a kernel displays it."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=_DENSITY)
        return content.getvalue()
