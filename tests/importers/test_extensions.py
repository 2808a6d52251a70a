"""Parts of other packages, as pip installs them: found by their entry points; a broken one costs no other."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import xaicli
from xaicli.api.runs import scalars
from xaicli.extensions import COLLECTORS, FINDINGS, IMPORTERS, OURS, extensions

Xai = Callable[..., tuple[int, str, str]]

PARTS = """
from xaicli.importers.recorded import Recorded


def sharpness(options, label_names):
    return lambda batch, output: {"sharpness": [float(len(label_names))] * len(batch)}


def odd(reader, selection):
    for mode, ds_id in selection.pairs:
        for number in range(3):
            said = {"sample_id": number, "score": 1.0 - number / 4, "reason": f"odd {number}"}
            yield {"mode": mode, "ds_id": ds_id, **said}


def silent(reader, selection):
    return [{"mode": "eval", "ds_id": "", "reason": ""}]


def strange(reader, selection):
    return [{"mode": "eval", "ds_id": "", "reason": "x", "colour": 3}]


def failing(*given):
    raise RuntimeError("no luck")


class Notes:
    def reads(self, path):
        return path.suffix == ".notes"

    def runs(self, path):
        yield Recorded("noted", scalars=[{"step": 2, "loss": 0.5}], left_out={"poems": 3})
        if path.stem == "torn":
            raise KeyError("page 2")
"""
POINTS = """
[xaicli.collectors]
sharpness = house_parts:sharpness
failing = house_parts:failing
boxes = house_parts:sharpness

[xaicli.findings]
odd = house_parts:odd
silent = house_parts:silent
strange = house_parts:strange
failing = house_parts:failing
missing = house_no_such_module:odd
quitting = house_quits:odd

[xaicli.importers]
notes = house_parts:Notes
failing = house_parts:failing
nothing = house_parts:Nothing
"""


@pytest.fixture
def house_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with parts of each kind, sound and broken ones."""
    folder = tmp_path / "site"
    made = folder / "house_parts-1.0.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: house-parts\nVersion: 1.0\n")
    (made / "entry_points.txt").write_text(POINTS)
    (folder / "house_parts.py").write_text(PARTS)
    (folder / "house_quits.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("house_parts", None)


def test_ours_can_all_be_loaded() -> None:
    for group in (COLLECTORS, FINDINGS, IMPORTERS):
        assert [name for name, one in extensions(group).items() if one.is_ours] == list(OURS[group])
        assert all(callable(one.load()) for one in extensions(group).values() if one.is_ours)


@pytest.mark.usefixtures("house_parts")
def test_findings_of_a_package_stand_beside_ours(xai: Xai, sample_run: Path) -> None:
    status, out, _ = xai("findings", sample_run, "--json", "--top", "2")
    assert status == 0
    answer = json.loads(out)
    found = [row for row in answer["rows"] if row["finding"] == "odd"]
    assert [(row["sample_id"], row["score"], row["reason"]) for row in found] == [(0, 1.0, "odd 0"), (1, 0.75, "odd 1")]
    assert answer["found"]["odd"] == 3
    left_out = {text.split()[2]: text for text in answer["warnings"] if "house-parts" in text}
    assert sorted(left_out) == ["failing", "missing", "quitting", "silent", "strange"]
    assert "RuntimeError: no luck" in left_out["failing"]
    assert "house_no_such_module" in left_out["missing"]
    assert "a finding without its reason" in left_out["silent"]
    assert "colour is none of finding, mode" in left_out["strange"]


def test_ours_are_the_same_without_the_package(sample_run: Path, house_parts: Path, monkeypatch) -> None:
    beside = xaicli.open_run(sample_run).findings(top=3).data
    monkeypatch.setattr("sys.path", [place for place in sys.path if place != str(house_parts)])
    alone = xaicli.open_run(sample_run).findings(top=3).data
    assert alone.height
    assert "odd" not in alone["finding"].to_list()
    assert beside.filter(beside["finding"] != "odd").equals(alone)


@pytest.mark.usefixtures("house_parts")
def test_an_importer_of_a_package(xai: Xai, tmp_path: Path) -> None:
    (tmp_path / "a.notes").write_text("")
    status, out, err = xai("import", tmp_path / "a.notes", "-o", tmp_path / "run", "--json")
    assert (status, json.loads(out)["rows"][0]["kind"]) == (0, "notes")
    assert json.loads(out)["rows"][0]["left_out"] == "3 poems"
    for name, reason in (("failing", "RuntimeError: no luck"), ("nothing", "cannot be loaded")):
        assert any(
            f"the importer {name} of the package house-parts" in text and reason in text
            for text in json.loads(out)["warnings"]
        )
    assert scalars(tmp_path / "run").data.select("key", "step", "value").rows() == [("loss", 2, 0.5)]
    (tmp_path / "torn.notes").write_text("")
    status, _, err = xai("import", tmp_path / "torn.notes", "-o", tmp_path / "torn")
    assert status == 1
    assert "the importer notes broke off behind 1 run: KeyError: 'page 2'" in " ".join(err.split())
    assert scalars(tmp_path / "torn" / "noted").data.select("key", "step", "value").rows() == [("loss", 2, 0.5)]
    status, _, err = xai("import", tmp_path / "a.notes", "-o", tmp_path / "b", "--from", "nothing")
    assert (status, "of the package house-parts cannot be loaded" in err) == (1, True)


@pytest.mark.usefixtures("house_parts")
def test_collectors_of_a_package() -> None:
    from xaicli.collectors.named import CollectorOptions, collector_named

    made = collector_named("sharpness", CollectorOptions(), ("cat", "dog"), ())
    assert made.compute_metrics([1, 2, 3], None) == {"sharpness": [2.0, 2.0, 2.0]}
    # A name of ours stays ours.
    again = collector_named("boxes@house-parts", CollectorOptions(), ("cat",), ())
    assert again.compute_metrics([1], None) == {"sharpness": [1.0]}
    with pytest.raises(xaicli.XaiError, match="--collectors failing of the package house-parts failed: RuntimeError"):
        collector_named("failing", CollectorOptions(), (), ())
    with pytest.raises(xaicli.XaiError, match="no collector 'sharp'"):
        collector_named("sharp", CollectorOptions(), (), ())
