"""Links between the pages of one folder: there when they lead somewhere, whichever page is written first."""

from __future__ import annotations

import re
from pathlib import Path

from xaicli.render.html import link_pages

GENERATOR = '<meta name="generator" content="xaicli 1">'


def page(path: Path, *samples: str, leads_to: str) -> None:
    """A page with a card a sample, as the template writes them."""
    cards = "".join(f'<article data-s="{s}"><a hidden data-href="{leads_to}#s={s}">x</a></article>' for s in samples)
    path.write_text(f"<head>{GENERATOR}</head>{cards}")


def opened(path: Path) -> list[str]:
    return re.findall(r'<a href="([^"]*)"', path.read_text())


def test_a_link_opens_once_its_page_lies_beside_and_only_for_the_samples_on_it(tmp_path: Path) -> None:
    track, saliency = tmp_path / "track-report.html", tmp_path / "saliency.html"
    page(track, "1", "2", leads_to="saliency.html")
    link_pages(tmp_path)
    assert opened(track) == []
    page(saliency, "2", "3", leads_to="track-report.html")
    link_pages(tmp_path)
    assert opened(track) == ["saliency.html#s=2"]
    assert opened(saliency) == ["track-report.html#s=2"]
    before = track.read_bytes()
    link_pages(tmp_path)
    assert track.read_bytes() == before
    saliency.unlink()
    link_pages(tmp_path)
    assert opened(track) == []


def test_a_link_leads_to_the_sample_of_its_own_mode_and_data_set(tmp_path: Path) -> None:
    """Of one id in two data sets one has a map; a page that says none, as of data of one's own, is of any."""
    links = [f"saliency.html#s=1&amp;at={at}" for at in ("eval%2Fcifar", "eval%2Fsvhn%20%26%20b")] + [
        "saliency.html#s=1"
    ]
    cards = "".join(f'<article><a hidden data-href="{link}">x</a></article>' for link in links)
    (tmp_path / "track-report.html").write_text(f"<head>{GENERATOR}</head>{cards}")
    for said, led in (('data-at="eval/svhn &amp; b"', links[1:]), ('data-at="train/"', links[2:]), ("", links)):
        (tmp_path / "saliency.html").write_text(f'<head>{GENERATOR}</head><article data-s="1" {said}>')
        link_pages(tmp_path)
        assert opened(tmp_path / "track-report.html") == led


def test_pages_of_others_and_links_elsewhere_stay_as_they_are(tmp_path: Path) -> None:
    other = tmp_path / "other.html"
    other.write_text('<a href="saliency.html#s=1">x</a>')
    (tmp_path / "out").mkdir()
    page(tmp_path / "out" / "real.html", "1", leads_to="track-report.html")
    (tmp_path / "out" / "linked.html").symlink_to(other)
    link_pages(tmp_path)
    link_pages(tmp_path / "out")
    assert other.read_text() == '<a href="saliency.html#s=1">x</a>'


def test_ids_of_every_kind_are_found(tmp_path: Path) -> None:
    page(tmp_path / "saliency.html", "a b/&lt;c&gt;", leads_to="track-report.html")
    text = f'<head>{GENERATOR}</head><a hidden data-href="saliency.html#s=a%20b%2F%3Cc%3E">x</a>'
    (tmp_path / "track-report.html").write_text(text)
    link_pages(tmp_path)
    assert opened(tmp_path / "track-report.html") == ["saliency.html#s=a%20b%2F%3Cc%3E"]
