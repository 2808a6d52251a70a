"""Links between the pages in one folder: a link is closed until the page it leads to lies there and shows the sample.

A sample's history leads to its saliency and back, whichever page is written first.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from urllib.parse import unquote

from xaicli.files import write_whole
from xaicli.render.text import printable

_OURS = '<meta name="generator" content="xaicli '
_LINK = re.compile(r'<a (?:hidden data-)?href="([\w-]+\.html)#s=([^"]*)">')
_SAMPLE = re.compile(r' data-s="([^"]*)"')


def link_pages(folder: Path) -> None:
    """Open the links of a folder's pages that lead somewhere, close those that do not.

    Raises:
        OSError: A page cannot be read or written.
    """
    pages = {path: text for path in sorted(folder.glob("*.html")) if (text := _page_of_ours(path))}
    shown = {path.name: {html.unescape(found) for found in _SAMPLE.findall(text)} for path, text in pages.items()}

    def link(match: re.Match[str]) -> str:
        page, sample = match.groups()
        leads = printable(unquote(sample)) in shown.get(page, ())
        return f'<a {"" if leads else "hidden data-"}href="{page}#s={sample}">'

    for path, text in pages.items():
        linked = _LINK.sub(link, text)
        if linked != text:
            write_whole(path, linked.encode())


def _page_of_ours(path: Path) -> str:
    """A page's text; "" for what is none of ours, or a link to elsewhere."""
    if path.is_symlink() or not path.is_file():
        return ""
    text = path.read_text(encoding="utf-8", errors="replace")
    return text if _OURS in text[:4096] else ""
