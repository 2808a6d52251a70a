"""Where points lie on the time axis of a picture: by epoch, step or pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xaicli.report.charts import Axis
from xaicli.vocabulary import Axis as Over

Place = tuple[int, int]
"""(epoch, pass)."""


@dataclass(frozen=True)
class Times:
    """The time axis of a picture.

    Attributes:
        over: What it is drawn over.
        places: {(epoch, pass): its place on the axis}.
        other: The same places by step, or by epoch where the picture is drawn over steps; None where no step is known.
    """

    over: Over = Over.EPOCH
    places: Mapping[Place, float] = field(default_factory=dict)
    other: Axis | None = None

    @classmethod
    def of(cls, over: str | None, points: Iterable[Mapping[str, Any]]) -> Times:
        """The axis of some points.

        Over epochs, the passes of one epoch lie at equal distances from it to the next one; over passes, all passes of
        all epochs are counted from 0.

        Args:
            over: `epoch`, `step` or `pass`; epochs when None.
            points: Whatever has `epoch`, `step` and, where there are several an epoch, `pass`.
        """
        steps: dict[Place, int | None] = {}
        for point in points:
            known = steps.get(_place(point))
            steps[_place(point)] = known if point["step"] is None else max(point["step"], known or point["step"])
        ordered = sorted(steps)
        n_passes = max((number for _, number in ordered), default=0) + 1
        axis = Over(over or Over.EPOCH)
        if axis is Over.STEP:
            places = {place: float(steps[place] or 0) for place in ordered}
            named = {at: float(place[0]) for place, at in places.items()}
            return cls(axis, places, Axis("epoch", tuple(sorted(named)), tuple(named[at] for at in sorted(named))))
        if axis is Over.PASS:
            places = {place: float(number) for number, place in enumerate(ordered)}
        else:
            places = {place: place[0] + place[1] / n_passes for place in ordered}
        told = [place for place in ordered if steps[place] is not None]
        values = tuple(float(steps[place] or 0) for place in told)
        return cls(axis, places, Axis("step", tuple(places[place] for place in told), values) if told else None)

    @property
    def many(self) -> str:
        """What it is drawn over, in the plural."""
        return "passes" if self.over is Over.PASS else f"{self.over}s"

    def x(self, point: Mapping[str, Any]) -> float:
        """Where a point lies."""
        return self.places.get(_place(point), float(point["epoch"]))


def _place(point: Mapping[str, Any]) -> Place:
    return point["epoch"], point.get("pass") or 0
