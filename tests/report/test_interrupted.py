"""A command that is interrupted while it draws leaves a page of what is finished."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from xaicli import Run, open_run
from xaicli.render.figure import Pictures


def test_a_page_that_is_interrupted_holds_its_tables_and_the_pictures_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        for epoch in (1, 2):
            ids = np.arange(8)
            run.log_samples(sample_id=ids, label=ids % 2, loss=ids / 4 + epoch, mode="eval", epoch=epoch)
    answer = open_run(tmp_path / "run")
    whole = answer.labels(bounds=["std", "range"]).html()
    draw, drawn = Pictures._draw, []

    def interrupted(pictures: Pictures, chart: object, identity: str) -> object:
        drawn.append(chart)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return draw(pictures, chart, identity)  # type: ignore[arg-type]

    monkeypatch.setattr(Pictures, "_draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        answer.labels(bounds=["std", "range"]).save(tmp_path / "out", ["html"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["labels.html"]
    page = (tmp_path / "out" / "labels.html").read_text()
    assert len(drawn) == 2
    # The overview is there; of each band the two small charts are not.
    assert 0 < page.count('<path class="line') < whole.count('<path class="line')
    assert page.count("not drawn: the command was interrupted") == 4
    assert re.findall(r"<td[^>]*>[^<]*</td>", page) == re.findall(r"<td[^>]*>[^<]*</td>", whole)
    assert page.rstrip().endswith("</html>")
