"""Recorded labels and predictions have the names of their classes, whatever column groups the samples."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import xaicli

N = 36
FIRST = 700
NAMES = [*(f"other {i}" for i in range(FIRST)), "cat", "dog", "fox"]
"""Codes of three digits, which no rank, step or count of the run is."""
TRUTH = 690
"""The classes of the fact `truth`, so that one sees which column a code is of."""
CODE = re.compile(r"(?<![\d.,/:\-–])(?:70[012]|69[012])(?![\d.,])")
RECORDED = re.compile(r"(?<![\d.,/:\-–])70[012](?![\d.,])")
NAMED = {
    "label": ("name", "label_name"),
    "prediction": ("prediction_name", "name"),
    "suggested_label": ("suggested_name",),
}
ASKED = {
    "samples": "samples --max 2 --min 2",
    "track-report": "track-report --max 2 --min 2",
    "steps": "steps --spikes 2",
    "step": "steps --step 21",
    "slices": "slices --min-n 5",
    "slices by label": "slices --min-n 5 --by label",
    "slices by prediction": "slices --min-n 5 --by prediction",
    "findings": "findings",
    "dynamics": "dynamics",
    "compare": "compare",
    "select": "select --rule hardest --n 6",
    "select by label": "select --rule balanced --by label --n 6",
    "select by prediction": "select --rule balanced --by prediction --n 6",
    "confusion by label": "confusion --by label",
    "confusion by prediction": "confusion --by prediction",
    "suspects": "select --rule suspects --n 6",
    "relabel": "relabel export --rule hardest --n 6 --to csv",
}
OF_CLASSES = ("confusion", "suspects")
"""Questions that a column which only groups is refused of."""
CALLED_AS_THEY_ARE = ("dynamics", "compare")
"""Questions in which a truth only groups and no recorded label is told: its whole numbers stand for themselves."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("classes")
    for name, shift in (("a", 0), ("b", 1)):
        with xaicli.Run(folder / name, label_names=NAMES) as run:
            run.log_facts(range(N), camera=["front", "rear"] * (N // 2), bay=[800 + i % 3 for i in range(N)])
            for epoch in range(1, 4):
                for batch in range(6):
                    ids = range(6 * batch, 6 * batch + 6)
                    labels = [i * 5 % 7 % 3 for i in ids]
                    found = [(label + (i + shift + epoch) % 4 // 2) % 3 for i, label in zip(ids, labels, strict=True)]
                    jump = 40 if (epoch, batch) == (2, 1) else 1
                    run.log_samples(
                        sample_id=ids,
                        label=[FIRST + one for one in labels],
                        prediction=[FIRST + one for one in found],
                        loss=[
                            jump * (0.5 + i % 5 / 10 + 2 * (a != b) + 3 * (a == 2))
                            for i, a, b in zip(ids, labels, found, strict=True)
                        ],
                        top_prob=[0.5 + i % 4 / 10 for i in ids],
                        mode="eval",
                        epoch=epoch,
                        step=10 * epoch + batch,
                    )
    rows = (f"{i},{TRUTH + (i * 5 % 7 + (i % 9 == 0)) % 3}" for i in range(N))
    (folder / "truth.csv").write_text("\n".join(["sample_id,truth", *rows]))
    return folder / "a", folder / "b"


def unnamed_in_json(value: Any) -> Iterator[Any]:
    """What holds a code without the name beside it."""
    if isinstance(value, dict):
        for key, one in value.items():
            if key in NAMED and CODE.fullmatch(str(one)):
                if not any(value.get(name) in NAMES for name in NAMED[key]):
                    yield {key: value}
            elif key != "facts" or not isinstance(one, dict):  # facts are as they were recorded
                yield from unnamed_in_json(one)
    elif isinstance(value, list):
        for one in value:
            yield from unnamed_in_json(one)
    elif isinstance(value, str) and CODE.search(value):
        yield value


def unnamed(path: Path) -> list[Any]:
    """Where a file tells a code of which nothing says the name."""
    text = path.read_text()
    match path.suffix:
        case ".json":
            return list(unnamed_in_json(json.loads(text)))
        case ".csv":
            return [
                line for line in text.splitlines() if CODE.search(line) and not re.search("cat|dog|fox|other", line)
            ]
        case ".html":
            # What stands on the page, the tooltips and what a script shows where the pointer rests.
            told = re.sub(r"(?s)<style.*?</style>|<script.*?</script>|<[^>]+>", " ", text)
            titles = re.findall(r'(?:title|aria-label|alt|data-\w+)="([^"]*)"', text)
            hover = re.findall(r'"[nt]":"([^"]*)"', text)
            return [one for one in (html.unescape(told), *titles, *hover) if CODE.search(without_facts(one))]
        case _:
            return [line for line in text.splitlines() if CODE.search(without_facts(line))]


def without_facts(text: str) -> str:
    """A text without the fact `truth`, which is told as it was recorded."""
    return re.sub(r"truth\s+69\d", "", text)


@pytest.mark.parametrize("key", ["label", "prediction", "truth", "camera", "bay"])
@pytest.mark.parametrize("asked", ASKED)
def test_no_code_stands_without_its_name(runs, xai, tmp_path, asked, key):
    command = ASKED[asked].split()
    paths = [str(path) for path in (runs if asked == "compare" else runs[:1])]
    place = 2 if command[0] == "relabel" else 1
    facts = ["--facts", str(runs[0].parent / "truth.csv")] if key == "truth" else []
    formats = [] if command[0] == "relabel" else ["--format", "md,csv,html,json"]
    given = [*command[:place], *paths, *command[place:], "--label-key", key, *facts, *formats]
    code, out, err = xai(*given, "-o", str(tmp_path / "out"))
    if (asked.startswith("confusion") and key == "prediction") or (
        asked.startswith(OF_CLASSES) and key in ("camera", "bay")
    ):
        assert code != 0
        assert "cannot be held against the predictions" in err
        return
    assert code == 0, err
    files = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".md", ".csv", ".html", ".json")]
    assert files
    if asked in CALLED_AS_THEY_ARE and key == "truth":
        files = [path for path in files if path.suffix == ".md"]
    found = [(path.name, one) for path in files for one in unnamed(path)]
    found += [("terminal", line) for line in out.splitlines() if CODE.search(without_facts(line))]
    if key == "truth":  # its own codes stand in the column of that fact, and where it only groups
        found = [one for one in found if RECORDED.search(one[1] if isinstance(one[1], str) else json.dumps(one[1]))]
    assert not [str(one)[:300] for one in found]
    if asked == "slices by label":
        assert "label fox" in (tmp_path / "out" / "slices.md").read_text()


def test_a_truth_that_groups_a_confusion_has_the_names_of_its_classes(runs, xai):
    truth = ["--facts", runs[0].parent / "truth.csv", "--label-key", "truth", "--by", "truth"]
    code, out, err = xai("confusion", runs[0], *truth, "--json")
    assert code == 0, err
    assert [one["value"] for one in json.loads(out)["by"]] == ["other 690", "other 691", "other 692"]


def test_whole_numbers_that_only_group_are_no_answer_that_was_missed(runs):
    page = xaicli.open_run(runs[0]).samples(label_key="bay", max=1, min=0).html()
    assert re.search(r"bay 80\d, predicted (cat|dog|fox)", page)
    assert "than bay says" not in page
