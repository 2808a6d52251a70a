"""How a result shows itself in a notebook: static where the notebook is untrusted, live on request."""

from __future__ import annotations

import html
import sys
from typing import Any

from xaicli.render.figure import charts, first_figure
from xaicli.render.markdown import markdown
from xaicli.render.terminal import as_text
from xaicli.report.model import Report

_HEIGHT = 800


def mimebundle(report: Report) -> dict[str, Any]:
    """The report as text, Markdown and, where there is something to draw, its first picture as PNG.

    Untrusted notebooks, GitHub and editors strip scripts and frames; these kinds they keep.
    """
    import base64

    from xaicli.render.canvas import png

    bundle: dict[str, Any] = {"text/plain": as_text(report), "text/markdown": markdown(report)}
    if next(charts(report), None) is not None:
        bundle["image/png"] = base64.b64encode(png(first_figure(report))).decode()
    return bundle


def live(page: str) -> Any:
    """The page in a frame of its own, sandboxed; None outside a notebook.

    Args:
        page: The self-contained HTML.
    """
    if "IPython" not in sys.modules:
        return None
    from IPython.display import HTML  # type: ignore[import-not-found]

    frame = f'<iframe srcdoc="{html.escape(page)}" sandbox="allow-scripts" width="100%" height="{_HEIGHT}"></iframe>'
    return HTML(frame)
