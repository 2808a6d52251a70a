"""How maps are to be made: the caller's arguments, checked once and made uniform."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli.errors import UsageError

if TYPE_CHECKING:
    import torch

GRADIENT, SMOOTHGRAD, INTEGRATED, SMINT, GRADCAM = "gradient", "smoothgrad", "integrated", "smint", "gradcam"
METHODS = (GRADIENT, SMOOTHGRAD, INTEGRATED, SMINT, GRADCAM)
DEFAULT_METHODS = METHODS[:4]

Target = str | int | Sequence[int] | Callable[["torch.Tensor"], "torch.Tensor"]


class Baseline(StrEnum):
    """Where an integrated path starts."""

    MID = "mid"
    ZERO = "zero"
    UNIFORM = "uniform"
    BLACK = "black"
    BLUR = "blur"


class Convention(StrEnum):
    """Whose formulas: this package's (per sample, midpoints, means) or the seed's exact numbers."""

    XAI = "xai"
    FE = "fe"


class Precision(StrEnum):
    """The arithmetic of the gradient passes; predictions and completeness always use the model's own."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"


@dataclass(frozen=True)
class Settings:
    """Checked arguments of `xaicli.saliency`.

    Attributes:
        methods: Of `METHODS`, in the order asked for, without those disabled by a 0.
        draws: Terms of smoothgrad, the clean input included.
        steps: Steps of an integrated path.
        smint_steps, smint_draws: Steps and terms of smint.
        shifted: Paths start at a random offset within a step: unbiased with few steps.
        noise: Sigma as a part of the range of the input's values.
    """

    methods: tuple[str, ...]
    draws: int = 25
    steps: int = 25
    smint_steps: int = 25
    smint_draws: int = 7
    baseline: Baseline | Path = Baseline.MID
    noise: float = 0.15
    signed: bool = False
    convention: Convention = Convention.XAI
    precision: Precision = Precision.AUTO
    seed: int = 0
    shifted: bool = False
    tolerance: float | None = None
    evaluations: int | None = None

    @property
    def evaluations_per_sample(self) -> int:
        """Gradient evaluations for one sample and target."""
        wants = self.methods.__contains__
        total = int(wants(GRADIENT) or wants(SMOOTHGRAD))
        total += self.draws - 1 if wants(SMOOTHGRAD) else 0
        total += self.steps if wants(INTEGRATED) else 0
        if wants(SMINT):
            shared = wants(INTEGRATED) and self.smint_shares_the_clean_path
            total += self.smint_steps * (self.smint_draws - shared)
        return total

    @property
    def smint_shares_the_clean_path(self) -> bool:
        """Whether the integrated map is smint's first term."""
        return INTEGRATED in self.methods and self.steps == self.smint_steps

    def split(self) -> Settings:
        """These settings with `evaluations` spent where they buy most: on draws, and on few steps with a random shift.

        Draws buy more than steps: 16 draws of 3 steps come closer to the converged map than 6 of 25 do.
        """
        if not self.evaluations:
            return self
        left = self.evaluations - int(GRADIENT in self.methods)
        parts = {m: 4 if m == SMINT else 1 for m in (SMOOTHGRAD, INTEGRATED, SMINT) if m in self.methods}
        share = {m: max(1, left * part // sum(parts.values())) for m, part in parts.items()}
        smint = share.get(SMINT, 1)
        steps = _FEW_STEPS if smint >= 2 * _FEW_STEPS else max(1, smint // 2)
        return replace(
            self,
            draws=share.get(SMOOTHGRAD, 1),
            steps=share.get(INTEGRATED, 1),
            smint_steps=steps,
            smint_draws=max(1, smint // steps),
            shifted=True,
        )


_FEW_STEPS = 3


def settle(
    *,
    methods: Sequence[str] | str = DEFAULT_METHODS,
    smoothing: int = 25,
    integrating: int | Sequence[int] = (25, 7),
    baseline: str | Path = "mid",
    noise: float = 0.15,
    signed: bool = False,
    convention: str = "xai",
    precision: str = "auto",
    seed: int = 0,
    tolerance: float | None = None,
    evaluations: int | None = None,
) -> Settings:
    """Check the arguments of `xaicli.saliency` that say how maps are made.

    Args:
        methods: Of `METHODS`.
        smoothing: Terms of smoothgrad; 0 disables it.
        integrating: Steps of integrated; with a second number, smint's draws, else `smoothing`; 0 disables.

    Raises:
        UsageError: A value makes no sense; names the argument and what it may be.
    """
    names = (methods,) if isinstance(methods, str) else tuple(dict.fromkeys(methods))
    if unknown := [name for name in names if name not in METHODS]:
        raise UsageError(f"no saliency method {unknown[0]!r}", hint="methods: " + ", ".join(METHODS))
    smoothing = _at_least("smoothing", smoothing, 0)
    steps, smint_draws = _integrating(integrating, smoothing)
    off = {SMOOTHGRAD} if smoothing == 0 else set()
    off |= {INTEGRATED, SMINT} if steps == 0 else {SMINT} if smint_draws == 0 else set()
    kept = tuple(name for name in names if name not in off)
    if not kept:
        raise UsageError("no saliency method is left to compute", hint="methods: " + ", ".join(METHODS))
    if noise < 0 or noise != noise:
        raise UsageError(f"noise is {noise}", hint="a part of the input's range, 0.15 say; 0 for none")
    if evaluations is not None:
        evaluations = _at_least("evaluations", evaluations, len(kept))
    if tolerance is not None and not tolerance > 0:
        raise UsageError(f"tolerance is {tolerance}", hint="a relative error, 0.05 say")
    if (evaluations or tolerance) and convention == Convention.FE:
        raise UsageError("the fe convention fixes its steps and draws", hint="leave out tolerance and evaluations")
    settings = Settings(
        methods=kept,
        draws=max(smoothing, 1),
        steps=max(steps, 1),
        smint_steps=max(steps, 1),
        smint_draws=max(smint_draws, 1),
        baseline=_baseline(baseline),
        noise=float(noise),
        signed=bool(signed),
        convention=Convention(_one_of("convention", convention, Convention)),
        precision=Precision(_one_of("precision", precision, Precision)),
        seed=int(seed),
        tolerance=tolerance,
        evaluations=evaluations,
    )
    return settings.split()


def _integrating(given: int | Sequence[int], smoothing: int) -> tuple[int, int]:
    values: Any = tuple(given) if isinstance(given, Iterable) else (given,)
    if len(values) == 1:
        values = (*values, smoothing)
    if len(values) != 2:
        raise UsageError(f"integrating is {given!r}", hint="one number of steps, or two: steps, draws")
    steps, draws = (_at_least("integrating", value, 0) for value in values)
    return steps, draws


def _at_least(name: str, value: Any, least: int) -> int:
    """The value as a Python number, whatever kind of whole number it is."""
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = -1
    if number < least:
        raise UsageError(f"{name} is {value!r}", hint=f"a whole number from {least}")
    return number


def _baseline(given: str | Path) -> Baseline | Path:
    if isinstance(given, str) and given in set(Baseline):
        return Baseline(given)
    path = Path(given)
    if not path.is_file():
        raise UsageError(f"no baseline {str(given)!r}", hint="baselines: " + ", ".join(Baseline) + ", or a file")
    return path


def _one_of(name: str, given: str, known: type[StrEnum]) -> str:
    if given not in set(known):
        raise UsageError(f"no {name} {given!r}", hint=f"{name}: " + ", ".join(known))
    return given
