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


def test_a_map_of_several_samples_is_linked_from_those_alone_and_leads_to_any_of_them(tmp_path: Path) -> None:
    """An input kept without a mode stands for samples of some data sets, and not for one that has its own."""
    track, saliency = tmp_path / "track-report.html", tmp_path / "saliency.html"
    links = [f"saliency.html#s=1&amp;at={at}" for at in ("eval%2Fday", "eval%2Fnight", "train%2F")]
    cards = "".join(f'<article><a hidden data-href="{link}">x</a></article>' for link in links)
    back = "track-report.html#s=1&amp;at=eval%2Fday%0Atrain%2F"
    saliency.write_text(
        f'<head>{GENERATOR}</head><article data-s="1" data-at="eval/day\ntrain/"><a hidden data-href="{back}">x</a>'
    )
    for shown, led in (("train/", [back]), ("eval/day", [back]), ("eval/night", [])):
        track.write_text(f'<head>{GENERATOR}</head><article data-s="1" data-at="{shown}"></article>{cards}')
        link_pages(tmp_path)
        assert opened(track) == [links[0], links[2]]
        assert opened(saliency) == led


def test_no_link_leads_to_a_page_of_another_run(tmp_path: Path) -> None:
    track, saliency = tmp_path / "track-report.html", tmp_path / "saliency.html"

    def of(run: str) -> str:
        return f'{GENERATOR}\n<meta name="run" content="{run}">' if run else GENERATOR

    for own, other, leads in (("a", "a", True), ("a", "b", False), ("a", "", True), ("", "b", True), ("a", "b", False)):
        for path, run, to in ((track, own, "saliency"), (saliency, other, "track-report")):
            page(path, "1", leads_to=f"{to}.html")
            path.write_text(path.read_text().replace(GENERATOR, of(run)))
        link_pages(tmp_path)
        assert (opened(track), opened(saliency)) == (
            (["saliency.html#s=1"], ["track-report.html#s=1"]) if leads else ([], [])
        )


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
