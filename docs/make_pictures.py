"""Write `docs/images/` anew, as a browser shows the demo's pages: `python docs/make_pictures.py`. Needs Chromium."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
PAGES = {
    "track-report": (["track-report", "runs/demo/"], 1180),
    "labels": (["labels", "--bounds", "std,range"], 1480),
    "findings": (["findings", "runs/demo", "--mode", "train", "--top", "20", "--format", "html"], 1180),
    "check": (["check", "runs/demo", "--rule", "correct mean by label >= 0.85", "--format", "html"], 960),
    "saliency": (["saliency", "--model", "ckpt.pt", "--samples", "16", "--pick", "worst"], 1480),
}
"""Each picture: the command line that writes the page, and the picture's height in pixels."""


def write_pages(folder: Path) -> None:
    """Let every command report on a copy of the recorded run."""
    from xaicli.cli import main

    shutil.copytree(ROOT / "sample_data" / "run", folder / "runs" / "demo")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        for arguments, _ in PAGES.values():
            if (status := main(arguments)) and arguments[0] != "check":  # which exits 1 where a rule fails
                sys.exit(status)


def take_pictures(folder: Path) -> None:
    """Photograph the pages, light, 1280 pixels wide."""
    sys.path.insert(0, str(ROOT))
    from tests.render.chromium import Chromium

    browser = Chromium(folder / "profile")
    try:
        for name, (_, height) in PAGES.items():
            address = (folder / "runs" / "demo" / "reports" / f"{name}.html").as_uri()
            browser.open(address, height=height).screenshot(HERE / "images" / f"{name}.png")
    finally:
        browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        write_pages(Path(temporary))
        take_pictures(Path(temporary))
