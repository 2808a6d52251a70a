"""How maps are to be made: the caller's arguments, checked once and made uniform."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli.errors import UsageError

if TYPE_CHECKING:
    import torch

GRADIENT, SMOOTHGRAD, INTEGRATED, SMINT, GRADCAM = "gradient", "smoothgrad", "integrated", "smint", "gradcam"
METHODS = (GRADIENT, SMOOTHGRAD, INTEGRATED, SMINT, GRADCAM)
DEFAULT_METHODS = METHODS[:4]

_NOISE = 0.15
_PATHS, _DRAWN = frozenset({INTEGRATED, SMINT}), frozenset({SMOOTHGRAD, SMINT})
_TAKERS = {
    "smoothing": _DRAWN,
    "integrating": _PATHS,
    "evaluations": _PATHS | _DRAWN,
    "tolerance": _PATHS | _DRAWN,
    "baseline": _PATHS,
    "noise": _DRAWN,
    "signed": _DRAWN,
}
"""Which methods an argument is for."""

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
        economical: A budget is spent: opposite draws in pairs, Gauss's points on the paths.
        spare: Further steps of smint's clean path, so that a budget is spent whole.
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
    economical: bool = False
    spare: int = 0
    tolerance: float | None = None
    unused: tuple[str, ...] = ()

    @property
    def evaluations_per_sample(self) -> int:
        """Gradient evaluations for one sample and target."""
        wants = self.methods.__contains__
        total = int(wants(GRADIENT) or wants(SMOOTHGRAD))
        total += self.draws - 1 if wants(SMOOTHGRAD) else 0
        total += self.steps if wants(INTEGRATED) else 0
        if wants(SMINT):
            first = int(self.smint_shares_the_clean_path)
            total += sum(self.steps_of(draw) for draw in range(first, self.smint_draws))
        return total

    @property
    def smint_shares_the_clean_path(self) -> bool:
        """Whether the integrated map is smint's first term."""
        return {INTEGRATED, SMINT} <= set(self.methods) and (self.economical or self.steps == self.smint_steps)

    def steps_of(self, draw: int) -> int:
        """How many steps one of smint's paths has."""
        return self.smint_steps + (self.spare if draw == 0 else 0)

    def passes_of(self, method: str) -> tuple[int | None, int | None]:
        """The draws of a method's maps and the steps of its paths; None for what it has none of."""
        if method == SMOOTHGRAD:
            return self.draws, None
        if method == INTEGRATED:
            return None, self.steps
        if method != SMINT:
            return None, None
        if self.smint_draws > 1:
            return self.smint_draws, self.smint_steps
        return 1, self.steps if self.smint_shares_the_clean_path else self.steps_of(0)

    def half(self, draw: int) -> int:
        """Which half of the draws one is in, for their agreement; a pair of opposite draws stays together."""
        return (draw + 1) // 2 % 2 if self.economical else draw % 2

    def halves(self, n: int) -> tuple[int, int]:
        """How many of the first n draws are in either half."""
        ones = sum(self.half(draw) for draw in range(n))
        return n - ones, ones

    def within(self, budget: int) -> Settings:
        """These settings with a budget spent whole, and where it buys most: on pairs of draws, few steps each.

        Measured on trained nets (`benchmarks/saliency.py fidelity`): draws buy more than steps, opposite draws more
        than independent ones, and three points of Gauss more than two or than midpoints.
        """
        wants = self.methods.__contains__
        left = budget - int(wants(GRADIENT) or wants(SMOOTHGRAD))
        parts = {m: part for m, part in _PARTS.items() if wants(m)}
        share = {m: left * part // sum(parts.values()) for m, part in parts.items()} if parts else {}
        smooth, smint = share.get(SMOOTHGRAD, 0), share.get(SMINT, 0)
        steps = max(1, share.get(INTEGRATED, 0)) if wants(INTEGRATED) else 0
        own = int(wants(SMINT) and not wants(INTEGRATED))
        paths = max(own, smint // _FEW_STEPS)
        spare = left - smooth - steps - paths * _FEW_STEPS
        if wants(INTEGRATED):
            steps, spare = steps + spare, 0
        elif not wants(SMINT):
            smooth, spare = smooth + spare, 0
        return replace(
            self,
            draws=smooth + 1,
            steps=max(1, steps),
            smint_steps=_FEW_STEPS,
            smint_draws=paths + 1 - own,
            spare=spare,
            economical=True,
        )


_FEW_STEPS = 3
_PARTS = {SMOOTHGRAD: 2, INTEGRATED: 3, SMINT: 18}
AUTO = 24
"""Evaluations a sample of `evaluations="auto"`: what reaches the fidelity of 25 steps x 7 draws = 175."""
DOUBLINGS = 3
"""So often a tolerance doubles steps or draws, at most."""
_SMOOTHING, _INTEGRATING = 25, (25, 7)


def settle(
    *,
    methods: Sequence[str] | str = DEFAULT_METHODS,
    smoothing: int | None = None,
    integrating: int | Sequence[int] | None = None,
    baseline: str | Path = "mid",
    noise: float = _NOISE,
    signed: bool = False,
    convention: str = "xai",
    precision: str = "auto",
    seed: int = 0,
    tolerance: float | None = None,
    evaluations: int | str | None = "auto",
    typed: Collection[str] = (),
) -> Settings:
    """Check the arguments of `xaicli.saliency` that say how maps are made.

    Args:
        methods: Of `METHODS`.
        smoothing: Terms of smoothgrad, 25 where exact passes are asked for; 0 disables it and asks for none.
        integrating: Steps of integrated, 25 likewise; with a second number, smint's draws, else `smoothing`; 0
            disables and asks for none.
        evaluations: Gradient evaluations for each sample; "auto" is 24, unless smoothing, integrating or the fe
            convention ask for exactly those passes.
        typed: Those that were asked for in words, also where it is with their default.

    Raises:
        UsageError: A value makes no sense, or two contradict each other; names the argument and what it may be.
    """
    listed = [name.strip() for name in methods.split(",")] if isinstance(methods, str) else methods
    names = tuple(dict.fromkeys(listed))
    if unknown := [name for name in names if name not in METHODS]:
        raise UsageError(f"no saliency method {unknown[0]!r}", hint="methods: " + ", ".join(METHODS))
    draws = _at_least("smoothing", _SMOOTHING if smoothing is None else smoothing, 0)
    steps, smint_draws = _integrating(_INTEGRATING if integrating is None else integrating, draws)
    off = {SMOOTHGRAD} if draws == 0 else set()
    off |= {INTEGRATED, SMINT} if steps == 0 else {SMINT} if smint_draws == 0 else set()
    kept = tuple(name for name in names if name not in off)
    if not kept:
        raise UsageError("no saliency method is left to compute", hint="methods: " + ", ".join(METHODS))
    if not 0 <= noise < float("inf"):
        raise UsageError(f"noise is {noise}", hint="a part of the input's range, 0.15 say; 0 for none")
    if tolerance is not None and not tolerance > 0:
        raise UsageError(f"tolerance is {tolerance}", hint="a relative error, 0.05 say")
    settings = Settings(
        methods=kept,
        draws=max(draws, 1),
        steps=max(steps, 1),
        smint_steps=max(steps, 1),
        smint_draws=max(smint_draws, 1),
        baseline=_baseline(baseline),
        noise=float(noise),
        signed=bool(signed),
        convention=Convention(_one_of("convention", convention, Convention)),
        precision=Precision(_one_of("precision", precision, Precision)),
        seed=_whole_number("seed", seed),
        tolerance=tolerance,
        unused=_unused(
            kept,
            smoothing=smoothing if draws or SMOOTHGRAD not in names else None,
            integrating=integrating if INTEGRATED not in off or not {INTEGRATED, SMINT} & set(names) else None,
            evaluations=None if evaluations == "auto" and "evaluations" not in typed else evaluations,
            tolerance=tolerance,
            baseline=None if baseline == "mid" and "baseline" not in typed else baseline,
            noise=None if noise == _NOISE and "noise" not in typed else noise,
            signed=True if signed or "signed" in typed else None,
        ),
    )
    budget = _budget(evaluations, smoothing, integrating, settings)
    return settings if budget is None else settings.within(budget)


def _unused(methods: Sequence[str], **asked: Any) -> tuple[str, ...]:
    """The arguments that none of the methods takes; a 0 that takes methods away has done its work."""
    wanted = set(methods)
    return tuple(name for name, value in asked.items() if value is not None and not wanted & _TAKERS[name])


def _budget(
    evaluations: int | str | None, smoothing: int | None, integrating: int | Sequence[int] | None, settings: Settings
) -> int | None:
    """The evaluations each sample may have; None where exact passes are asked for."""
    passes = bool(smoothing) or (integrating is not None and bool(_integrating(integrating, 0)[0]))
    fe = settings.convention is Convention.FE
    if fe and settings.tolerance:
        raise UsageError(
            "the fe convention fixes its steps and draws",
            hint="leave out tolerance",
            refused=("tolerance",),
            by=("convention",),
        )
    if fe and settings.baseline is not Baseline.MID:
        raise UsageError(
            "the baseline of the fe convention is mid-grey",
            hint="leave out baseline",
            refused=("baseline",),
            by=("convention",),
        )
    if evaluations in (None, "auto"):
        return None if passes or fe else AUTO
    is_text = isinstance(evaluations, str) and evaluations.isdecimal()
    number = _at_least("evaluations", int(evaluations) if is_text else evaluations, len(settings.methods))
    if fe:
        raise UsageError(
            "the fe convention fixes its steps and draws",
            hint="leave out evaluations",
            refused=("evaluations",),
            by=("convention",),
        )
    if passes:
        raise UsageError(
            "evaluations is a budget, smoothing and integrating ask for exactly those passes: both cannot be had",
            hint="leave out one of them",
            refused=("evaluations",),
            by=("smoothing", "integrating"),
        )
    return number


def _integrating(given: int | Sequence[int], smoothing: int) -> tuple[int, int]:
    values: Any = tuple(given) if isinstance(given, Iterable) else (given,)
    if len(values) == 1:
        values = (*values, smoothing)
    if len(values) != 2:
        raise UsageError(f"integrating is {given!r}", hint="one number of steps, or two: steps, draws")
    steps, draws = (_at_least("integrating", value, 0) for value in values)
    return steps, draws


def _whole_number(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise UsageError(f"{name} is {value!r}", hint="a whole number") from None


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
    if not isinstance(given, str | PathLike):
        raise UsageError(
            f"the baseline is a {type(given).__name__}",
            hint=f"one of {', '.join(Baseline)}, or a file: numpy.save('baseline.npy', array), baseline='baseline.npy'",
        )
    path = Path(given)
    if not path.is_file():
        raise UsageError(f"no baseline {str(given)!r}", hint="baselines: " + ", ".join(Baseline) + ", or a file")
    return path


def _one_of(name: str, given: str, known: type[StrEnum]) -> str:
    if given not in set(known):
        raise UsageError(f"no {name} {given!r}", hint=f"{name}: " + ", ".join(known))
    return given
