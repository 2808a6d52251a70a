"""A batch like the one before goes a short way to its segment: byte by byte what it would be there by the long one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.recorder.recorded import column
from xaicli.recorder.run import Run
from xaicli.recorder.transfer import Intake


def shaped(values: np.ndarray[Any, Any], how: str) -> Any:
    """The values in another form, some of which mean the same and some of which are refused."""
    match how:
        case "list":
            return values.tolist()
        case "tuple":
            return tuple(values.tolist())
        case "column":
            return values[:, None]
        case "row":
            return values[None, :]
        case "every other":
            return np.repeat(values, 2)[::2]
        case "swapped":
            return values.astype(values.dtype.newbyteorder())
        case "masked":
            return np.ma.MaskedArray(values, np.arange(len(values)) % 2 == 0)
        case "longer":
            return np.concatenate([values, values[:1]])
        case "empty":
            return values[:0]
        case "single":
            return values[0] if len(values) else values
        case "none":
            return None
    return values


FORMS = ("list", "tuple", "column", "row", "every other", "swapped", "masked", "longer", "empty", "single", "none")
N = 4
COLUMNS = ("sample_id", "label", "prediction", "loss", "own")
OTHER_KINDS = (np.float32, np.float64, np.float16, np.int16, np.int64, np.uint8, np.uint64, np.bool_)
OTHERWISE: dict[str, list[Any]] = {
    "mode": [None, "eval", "no mode"],
    "ds_id": [None, "de", 3],
    "epoch": [2, None, True, 1.0, np.int64(1), 0, -1, "1", 1.5],
    "step": [0, None, True, np.int64(3), 2.0, 2**31, 2**63, -1, "x"],
    "eval_pass": [1, 0, -1],
    "late": [np.ones(N, np.float32), None, "text"],
}


def usual(number: int) -> dict[str, Any]:
    """The arguments of an ordinary call."""
    ids = np.arange(number * N, number * N + N)
    values = {"loss": (ids / 2).astype(np.float32), "own": (ids / 8).astype(np.float32)}
    return {"sample_id": ids, "label": ids % 5, "prediction": ids % 3, **values, "epoch": 1, "step": number}


def otherwise() -> Iterator[dict[str, Any]]:
    """What differs from it, one thing at a time."""
    for name in COLUMNS:
        yield from ({name: form} for form in FORMS)
        yield from ({name: kind} for kind in OTHER_KINDS)
    yield dict.fromkeys(COLUMNS, "empty")
    yield dict.fromkeys(COLUMNS, "column")
    yield dict.fromkeys(COLUMNS, "row")
    yield from ({name: value} for name, values in OTHERWISE.items() for value in values)
    yield from ({"names": names} for names in (("own", "loss"), ("loss", "other"), ("loss",), ()))


def call(number: int, differing: dict[str, Any]) -> dict[str, Any]:
    """An ordinary call but for this."""
    given = usual(number)
    if names := differing.get("names"):
        values = [given.pop("loss"), given.pop("own")]
        return given | dict(zip(names, values, strict=False))
    for name, value in differing.items():
        if name in COLUMNS and isinstance(value, str):
            given[name] = shaped(given[name], value)
        elif name in COLUMNS and isinstance(value, type):
            given[name] = given[name].astype(value)
        else:
            given[name] = value
    return given


STATES: list[tuple[str, Any]] = [("mode", "eval"), ("ds_id", "de"), ("ds_id", ""), ("mode", None), ("global_step", 7),
                                 ("epoch_idx", 2), ("global_step", None), ("begin_pass", None)]  # fmt: skip


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.filterwarnings("ignore::xaicli.recorder.ledger.RecorderWarning")
def test_both_ways_keep_the_same_bytes_and_counts(tmp_path: Path, strict: bool) -> None:
    kept: list[list[Any]] = []
    for way in ("short", "long"):
        run = Run(tmp_path / way, strict=strict)
        intake: Any = run._intake
        if way == "long":
            intake.add_usual = lambda *_: False
        found: list[Any] = []

        def log(given: dict[str, Any], run: Run = run, found: list[Any] = found) -> None:
            try:
                run.log_samples(**given)
            except ValueError as error:
                found.append(str(error))
            active = run._process.samples._active
            found.append(bytes(active.content())[-2000:] if active else b"")

        number = 0
        for differing in otherwise():
            for given in ({}, {}, differing):
                number += 1
                log(call(number, given))
        for name, value in STATES:
            run.state.begin_pass() if name == "begin_pass" else setattr(run.state, name, value)
            for given in ({}, {"epoch": None}, {"step": None}, {"epoch": None, "step": None}):
                number += 1
                log(call(number, given))
        counted = run.stats()
        run.close()
        kept.append([*found, counted["rows_logged"], counted["rows_dropped"], counted["refused"]])
    assert kept[0] == kept[1]


def test_what_is_like_the_batch_before_goes_the_short_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short: list[bool] = []
    add_usual = Intake.add_usual

    def noted(*given: Any) -> bool:
        short.append(add_usual(*given))
        return short[-1]

    monkeypatch.setattr(Intake, "add_usual", noted)
    run = Run(tmp_path / "run")

    def log(step: int) -> None:
        ids = np.arange(3) + 3 * step
        run.log_samples(sample_id=ids, label=ids % 2, loss=(ids / 2).astype(np.float32), epoch=1, step=step)

    for step in range(5):
        log(step)
    run.close()
    with pytest.warns(UserWarning, match="is closed"):
        log(5)
    assert short == [False, True, True, True]  # the first finds no place yet, the second no batch like it
    assert run.stats()["rows_dropped"] == 3
    assert set(column(tmp_path / "run", "loss")) == {i / 2 for i in range(15)}
