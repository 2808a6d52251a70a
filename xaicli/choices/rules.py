"""By what rule samples are chosen, and how many."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from xaicli.errors import UsageError, unknown, whole_number


class Rule(StrEnum):
    """How samples are chosen."""

    HARDEST = "hardest"
    """The worst end of the metric: the highest loss, the lowest margin."""
    EASY = "easy"
    """The other end."""
    AMBIGUOUS = "ambiguous"
    """Those whose label's probability varied most."""
    FORGOTTEN = "forgotten"
    """Those learned and forgotten again, the most often first."""
    SUSPECTS = "suspects"
    """Suspects of a wrong label, by how they were learned."""
    LABEL_ISSUES = "label_issues"
    """Those whose label the kept probabilities of one epoch contradict."""
    BALANCED = "balanced"
    """As many of each label, or of each value of a fact."""
    DIVERSE = "diverse"
    """Far from each other: k-centre greedy over collected embeddings."""
    RANDOM = "random"
    """A draw in which every sample has the same chance."""
    SQL = "sql"
    """Those that meet a condition; it stands in place of a name."""


_NAMES = tuple(rule.value for rule in Rule if rule is not Rule.SQL)
_NAME = re.compile(r"[A-Za-z][A-Za-z_-]*")
BY_METRIC = frozenset({Rule.HARDEST, Rule.EASY})
"""Rules that go by the metric asked for; the others need none."""
ORDERS = BY_METRIC | {Rule.SQL}
"""Rules that order samples by the metric and the statistic asked for."""
DRAWS = frozenset({Rule.RANDOM, Rule.BALANCED})
"""Rules that the seed decides."""
_COUNTED = frozenset({Rule.FORGOTTEN, Rule.SUSPECTS, Rule.LABEL_ISSUES, Rule.SQL})
"""Rules that find so many and no more: without a number they choose all."""


@dataclass(frozen=True)
class Choice:
    """What is asked for.

    Attributes:
        rule: How samples are chosen.
        sql: The condition of `Rule.SQL`; else "".
        is_where: Whether the condition is that of `--where`, there being no rule.
        n: How many of each (mode, ds_id), or of each label; None for a share, or for all there are.
        share: Which share of them, in (0, 1].
        per_label: Whether the number is that of each label.
        by: The column or fact of `balanced`; the label when None.
        weight: What the chosen weigh where every sample is listed with a weight; None for the chosen alone.
        seed: Of every draw.
    """

    rule: Rule
    sql: str = ""
    is_where: bool = False
    n: int | None = None
    share: float | None = None
    per_label: bool = False
    by: str | None = None
    weight: float | None = None
    seed: int = 0

    @property
    def option(self) -> str:
        """The option that says the rule."""
        return "--where" if self.is_where else "--rule"

    @property
    def named(self) -> str:
        """The rule as it is typed."""
        return self.sql or self.rule.value

    def number(self, there: int) -> int | None:
        """How many of so many samples are asked for; None for all that the rule finds."""
        if self.n is not None:
            return self.n
        return None if self.share is None else max(1, math.floor(self.share * there + 0.5)) if there else 0


def choice(
    rule: str | None,
    *,
    where: str | None = None,
    n: int | None = None,
    share: float | None = None,
    per_label: bool = False,
    by: str | None = None,
    weight: float | None = None,
    seed: int = 0,
) -> Choice:
    """What the options mean.

    Args:
        rule: A name of `Rule`, or an SQL condition on samples.
        where: What the rows are limited to; without a rule, the rule itself.
        n, share, per_label, by, weight, seed: As in `Choice`.

    Raises:
        UsageError: There is no such rule, no number where one is needed, or options that contradict one another.
    """
    if rule is None and not where:
        raise UsageError(
            "which samples? there is no --rule", hint=f"choose from: {', '.join(_NAMES)}, or an SQL condition"
        )
    typed = (rule or where or "").strip()
    known = typed.lower().replace("-", "_")
    if rule is not None and known in _NAMES:
        kind, sql = Rule(known), ""
    elif rule is not None and _NAME.fullmatch(typed):
        found = unknown("rule", typed, _NAMES)
        told = f"--rule 'loss > 2', or of a column alone --rule '({typed})'"
        raise UsageError(found.message, hint=f"{found.hint}; or an SQL condition: {told}")
    else:
        kind, sql = Rule.SQL, typed
    if n is not None and share is not None:
        raise UsageError("--n and --share both say how many", hint="give one of them", refused=("n",), by=("share",))
    n = None if n is None else whole_number("--n", n, least=1)
    if share is not None and not 0 < share <= 1:
        raise UsageError(f"--share must be above 0 and at most 1, not {share:g}", hint="--share 0.1 is a tenth")
    if weight is not None and not (weight >= 0 and math.isfinite(weight)):
        raise UsageError(f"--weight must be a number from 0, not {weight}", hint="0 leaves the chosen out")
    if by is not None and kind is not Rule.BALANCED:
        said = f"--by says what is balanced, and the rule is {typed}"
        raise UsageError(said, hint="--rule balanced --by FACT", refused=("by",), by=("rule",))
    if per_label and kind is Rule.BALANCED:
        said = "--per-label and --rule balanced both share out by label"
        raise UsageError(said, hint="leave out --per-label", refused=("per_label",), by=("rule",))
    if weight is not None and kind is Rule.BALANCED:
        _refuse_number(weight, n, share)
    if per_label and n is None and share is None and kind in _COUNTED:
        raise UsageError(
            f"--per-label needs a number, and without one --rule {typed} takes all it finds",
            hint="--n 100 --per-label",
            refused=("per_label",),
        )
    needs_number = kind not in _COUNTED and kind is not Rule.BALANCED
    if needs_number and n is None and share is None:
        raise UsageError(f"how many? --rule {kind.value} needs a number", hint="--n 100, or --share 0.1")
    return Choice(kind, sql, rule is None, n, share, per_label, by, weight, seed)


def _refuse_number(weight: float, n: int | None, share: float | None) -> None:
    """Raise where balancing weights are asked for that none can be."""
    given = "--n" if n is not None else "--share" if share is not None else ""
    if given:
        raise UsageError(
            f"--weight with --rule balanced lists every sample, and {given} says how many are taken",
            hint=f"leave out {given} for weights, or --weight for a list",
            refused=("n", "share"),
            by=("weight",),
        )
    if weight == 0:
        raise UsageError(
            "--weight is the mean weight with --rule balanced, and 0 would leave out every sample",
            hint="--weight 1: each label has the same sum",
        )


def refuse_unused(choice: Choice, *, stat: str, metrics: Sequence[str]) -> None:
    """Raise where an option that is given says nothing of what a rule chooses.

    Args:
        choice: The rule.
        stat: The score of a sample.
        metrics: Those asked for.

    Raises:
        UsageError: A statistic for a rule that has its own order, or more than the one metric that samples are hard by.
    """
    if stat != "last" and choice.rule not in ORDERS:
        raise UsageError(
            f"--stat is the score of hardest, easy and of a condition, and the rule is {choice.named}",
            hint="leave it out, or --stat last",
            refused=("stat",),
        )
    if len(metrics) > 1:
        raise UsageError(
            f"samples are chosen by one metric, not by {len(metrics)}: {', '.join(metrics)}",
            hint=f"--metric {metrics[0]}",
            refused=("metric",),
        )
