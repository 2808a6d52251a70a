"""The verdicts of a check as JUnit XML, which build servers show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import polars as pl

from xaicli.checks.verdicts import Outcome
from xaicli.errors import XaiError
from xaicli.files import write_whole

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SKIPPED = (Outcome.ALLOWED, Outcome.TOO_FEW, Outcome.UNSURE)


def write_junit(verdicts: pl.DataFrame, path: Path, *, name: str) -> None:
    """Write one test case a verdict: failed rules as failures, those that could not be asked as errors.

    Args:
        verdicts: The rows of a check.
        path: The file, replaced whole.
        name: What was checked.

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
    )
    for row, outcome in zip(verdicts.iter_rows(named=True), outcomes, strict=True):
        place = ".".join(part for part in (row["mode"], row["ds_id"]) if part)
        group = f" [{row['group']}]" if row["group"] else ""
        case = ElementTree.SubElement(
            suite, "testcase", classname=_text(place or "run"), name=_text(row["rule"] + group)
        )
        if outcome is Outcome.FAILED:
            ElementTree.SubElement(case, "failure", message=_text(_said(row)))
        elif outcome is Outcome.NOT_ASKED:
            ElementTree.SubElement(case, "error", message=_text(_said(row)))
        elif outcome in _SKIPPED:
            ElementTree.SubElement(case, "skipped", message=_text(f"{outcome.value}: {_said(row)}"))
    content = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    try:
        write_whole(path, content)
    except OSError as error:
        raise XaiError(f"{path} cannot be written: {error.strerror or error}", hint="name another file") from error


def _said(row: dict[str, Any]) -> str:
    value = "" if row["value"] is None else f"{row['value']:.6g}"
    asked = f"(asked: {row['bound']})" if row["bound"] else ""
    return " ".join(part for part in (value, asked, row["reason"]) if part)


def _text(text: str) -> str:
    """A text without what XML cannot hold."""
    return _NOT_XML.sub("?", text)
