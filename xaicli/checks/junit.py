"""The verdicts of a check as JUnit XML, which build servers show."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl

from xaicli.checks.verdicts import Outcome
from xaicli.errors import XaiError
from xaicli.files import write_whole

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SKIPPED = (Outcome.ALLOWED, Outcome.TOO_FEW, Outcome.UNSURE)


def write_junit(verdicts: pl.DataFrame, path: Path, *, name: str, warnings: Sequence[str] = ()) -> Path:
    """Write one test case a verdict: failed rules as failures, those that could not be asked as errors.

    What is said of those that passed, such as samples that were not compared, stands in the output of the suite, and
    so do the warnings.

    Args:
        verdicts: The rows of a check.
        path: The file, replaced whole.
        name: What was checked.
        warnings: What is said of whole rules and of the run.

    Returns:
        `path`.

    Raises:
        XaiError: It cannot be written.
    """
    outcomes = [Outcome(value) for value in verdicts["outcome"]]
    suite = ElementTree.Element(
        "testsuite",
        name=_text(f"xai check {name}"),
        tests=str(len(outcomes)),
        failures=str(outcomes.count(Outcome.FAILED)),
        errors=str(outcomes.count(Outcome.NOT_ASKED)),
        skipped=str(sum(outcome in _SKIPPED for outcome in outcomes)),
        time="0",  # nothing is timed, and some readers want a number
    )
    rows, remarks = verdicts.to_dicts(), []
    for row, outcome, (place, named) in zip(rows, outcomes, _names(rows), strict=True):
        case = ElementTree.SubElement(suite, "testcase", classname=_text(place), name=_text(named), time="0")
        if outcome is Outcome.FAILED:
            ElementTree.SubElement(case, "failure", type=outcome.value, message=_text(_outcome(row)))
        elif outcome is Outcome.NOT_ASKED:
            ElementTree.SubElement(case, "error", type=outcome.value, message=_text(_outcome(row)))
        elif outcome in _SKIPPED:
            ElementTree.SubElement(case, "skipped", message=_text(f"{outcome.value}: {_outcome(row)}"))
        elif row["reason"]:
            remarks.append(f"{place}: {named}: {row['reason']}")
    remarks += warnings
    if remarks:  # a case that passed has no place for words that all readers know
        ElementTree.SubElement(suite, "system-out").text = _text("\n".join(remarks))
    content = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    try:
        return write_whole(path, content)
    except OSError as error:
        raise XaiError(f"{path} cannot be written: {error.strerror or error}", hint="name another file") from error


def _names(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(class, name) of each case, each pair once: build servers take cases of one name for one.

    A rule with several limits has a case a limit, which the limit tells apart; a rule given twice is numbered.
    """
    found = []
    for row in rows:
        place = ".".join(part for part in (row["mode"], row["ds_id"]) if part) or "run"
        found.append((place, row["rule"] + (f" [{row['group']}]" if row["group"] else "")))
    several = Counter(found)
    found = [
        (place, f"{named} ({row['bound']})" if several[place, named] > 1 and row["bound"] else named)
        for row, (place, named) in zip(rows, found, strict=True)
    ]
    met: Counter[tuple[str, str]] = Counter()
    for number, one in enumerate(found):
        met[one] += 1
        found[number] = one if met[one] == 1 else (one[0], f"{one[1]} #{met[one]}")
    return found


def _outcome(row: dict[str, Any]) -> str:
    # Every digit: a value just below its limit must not read as the limit.
    value = "" if row["value"] is None else str(row["value"])
    asked = f"(asked: {row['bound']})" if row["bound"] else ""
    return " ".join(part for part in (value, asked, row["reason"]) if part)


def _text(text: str) -> str:
    """A text without what XML cannot hold."""
    return _NOT_XML.sub("?", text)
