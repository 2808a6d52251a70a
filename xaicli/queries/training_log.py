"""Training logs of FastEstimator, as its Logger prints them, read into a summary."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from xaicli.errors import XaiError
from xaicli.summary import Summary, ValWithError
from xaicli.vocabulary import Mode

_LINE = re.compile(r"\s*FastEstimator-(Train|Eval|Test):\s*(.*)")
_ITEM = re.compile(r"([^:;]+):([^;]*);")
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?|nan|inf)"
_VALUE = re.compile(rf"({_NUMBER})(?:\s+\w+)?", re.IGNORECASE)
_BAND = re.compile(rf"\(\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\)", re.IGNORECASE)
_STEP, _EPOCH = "step", "epoch"


def read_log(path: Path) -> Summary:
    """The values of a log file, under the file's name without its suffix.

    Lines that begin `FastEstimator-Train:`, `-Eval:` or `-Test:` count, with their `key: value;` pairs: a number, also
    `nan`, `inf`, `1e-05` or one with a unit (`12.3 sec`), or a band `(low, value, high)`; other values are passed over.
    A line without a step takes that of the line before.

    Raises:
        XaiError: The file cannot be read, or holds no such line.
    """
    summary = Summary(path.stem)
    step = 0
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if match := _LINE.match(line):
                    values = dict(_values(match[2]))
                    step = int(float(values.pop(_STEP, step)))
                    values.pop(_EPOCH, None)
                    mode = Mode(match[1].lower()).value
                    for key, value in values.items():
                        summary.history[mode][key][step] = value
    except (OSError, ValueError, OverflowError) as error:
        raise XaiError(f"{path} cannot be read as a training log: {error}") from error
    if not summary.history:
        raise XaiError(
            f"{path} holds no line of a FastEstimator log", hint="such lines begin FastEstimator-Train: step: 1; ..."
        )
    return summary


def is_log(path: Path) -> bool:
    """Whether a file has a line of a training log among its first lines."""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            return any(_LINE.match(line) for line, _ in zip(lines, range(200), strict=False))
    except OSError:
        return False


def _values(text: str) -> Iterator[tuple[str, float | ValWithError]]:
    for key, value in _ITEM.findall(text):
        if match := _VALUE.fullmatch(value.strip()):
            yield key.strip(), float(match[1])
        elif match := _BAND.fullmatch(value.strip()):
            yield key.strip(), ValWithError(*map(float, match.groups()))
