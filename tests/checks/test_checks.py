"""Rules as people write them, and what they find."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats

import xaicli
from xaicli.checks import verdicts
from xaicli.checks.rules import At, Better, Count, columns_of, parse_rule, read_rules
from xaicli.checks.verdicts import Outcome
from xaicli.errors import UsageError, XaiError


def samples(correct: list, label: list | None = None) -> pl.DataFrame:
    ids = list(range(len(correct)))
    return pl.DataFrame({"sample_id": ids, "correct": correct, "label": label or [0] * len(ids)})


def test_a_line_is_a_rule():
    rule = parse_rule("correct  mean by label >= 0.8")
    assert (rule.name, rule.metric, rule.stat, rule.by, rule.least) == (
        "correct mean by label >= 0.8",
        "correct",
        "mean",
        "label",
        0.8,
    )
    assert parse_rule("loss p95 at best < 2").at is At.BEST
    assert parse_rule("loss p95 < 2").is_strict
    assert parse_rule("correct mean drop <= 1%").largest_drop == 0.01
    for line in ("correct mean by label, camera ≥ 0.8", 'correct mean by label,"camera"≥0.8'):
        typed = parse_rule(line)
        assert (typed.columns, typed.least, typed.is_strict) == (("label", "camera"), 0.8, False)
    assert parse_rule("spikes ≤ 3").most == 3
    assert parse_rule("correct mean by label at best <= 1").columns == ("label",)
    assert columns_of([rule, parse_rule("loss max<=3")]) == ("correct", "label", "loss")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("correct mean", "no rule"),
        ("correct average >= 1", "average"),
        ("correct mean >= high", "high"),
        ("correct mean >= nan", "limits nothing"),
        ("correct mean drop >= 0.1", "from above"),
        ("mine mean drop <= 0.1", "which end of mine"),
        ("loss p95 drop <= 1", "drop of p95"),
        ("loss p100.1 < 1", "p100.1"),
        ("loss p999 < 1", "p999"),
        ("loss p99. < 1", "p99."),
        ("loss p < 1", "'p'"),
        ("loss p٩ < 1", "p٩"),
    ],
)
def test_what_is_no_rule_is_said(line, word):
    with pytest.raises(UsageError) as error:
        parse_rule(line)
    assert word in error.value.message
    assert error.value.hint


@pytest.mark.parametrize("n", [1, 2, 7, 100, 1001])
@pytest.mark.parametrize("share", ["0", "5", "07", "25", "50", "97.5", "99", "99.9", "99.99", "100", "100.0"])
def test_percentiles_are_those_of_numpy_and_polars(n, share):
    values = np.random.default_rng(n).lognormal(size=n)
    frame = pl.DataFrame({"sample_id": np.arange(n), "loss": values})
    (found,) = verdicts.judged(parse_rule(f"loss p{share} < 1e9"), frame)
    assert found.value == pytest.approx(np.percentile(values, float(share)), rel=1e-12)
    assert found.value == pytest.approx(frame["loss"].quantile(float(share) / 100, "linear"), rel=1e-9)


def test_a_percentile_that_falls_on_a_value_is_that_value():
    values = [*[1.0] * 999, 2.0, 1e12]  # 99.9 % of 1,000 steps is the step to 2
    frame = pl.DataFrame({"sample_id": range(1001), "loss": values})
    (found,) = verdicts.judged(parse_rule("loss p99.9 <= 2"), frame)
    assert (found.value, found.outcome) == (2.0, Outcome.PASSED)
    assert verdicts.judged(parse_rule("loss p99.9 < 2"), frame)[0].outcome is Outcome.FAILED


def test_names_with_blanks_stand_in_quotes():
    rule = parse_rule('"my loss" p99.9 by "camera side",label < 2')
    assert (rule.metric, rule.stat, rule.columns, rule.most) == ("my loss", "p99.9", ("camera side", "label"), 2.0)


def test_rules_of_a_file(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(
        """
[[rule]]
metric = "correct"
by = "label"
least = 0.9
largest_drop = 0.02
allow = [{ value = "cat", least = 0.7, reason = "blurred" }]

[[rule]]
samples = "golden.txt"

[[rule]]
count = "dropped"
most = 0

[[rule]]
metric = "mine"
better = "low"
largest_drop = 1
"""
    )
    first, second, third, fourth = read_rules(path)
    assert first.name == "correct mean by label >= 0.9 and drop <= 0.02"
    assert first.allow["cat"].least == 0.7
    assert second.name == "no sample of golden.txt is wrong"
    assert third.count is Count.DROPPED
    assert fourth.better is Better.LOW


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "holds no rule"),
        ("[[rules]]\nmetric = 'a'", "rules"),
        ("[[rule]]\nmetric = 'a'\nleast = 1\ncount = 'dropped'", "metric and count"),
        ("[[rule]]\nleast = 1", "none of"),
        ("[[rule]]\nmetric = 'a'", "limits nothing"),
        ("[[rule]]\nmetric = 'a'\nlest = 1", "lest"),
        ("[[rule]]\nmetric = 'a'\nleast = true", "no number"),
        ("[[rule]]\ncount = 'dropped'\nmost = 0\nby = 'label'", "by means nothing"),
        ("[[rule]]\ncount = 'ece'\nmost = 0.5\nat = 'best'", "at means nothing for count"),
        ("[[rule]]\nsamples = 'golden.txt'\nat = 'best'", "at means nothing for samples"),
        ("[[rule]]\ncount = 'lost'\nmost = 0", "lost"),
        ("[[rule]]\nmetric = 'a'\nleast = 1\nallow = [{ value = 'x' }]", "reason"),
        (
            "[[rule]]\nmetric = 'a'\nleast = 1\nallow = [{ value = 'x', least = 0, reason = 'r' }, "
            "{ value = ['x'], most = 2, reason = 's' }]",
            "two allowances for 'x'",
        ),
        ("[[rule", "cannot be read"),
    ],
)
def test_a_file_that_makes_no_sense_names_the_place(tmp_path, text, word):
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(XaiError) as error:
        read_rules(path)
    assert word in error.value.message


def test_each_group_must_hold():
    frame = samples([True, True, True, False, None], ["a", "a", "b", "b", "b"])
    found = verdicts.judged(parse_rule("correct mean by label >= 0.8"), frame)
    assert [(v.group, v.value, v.n, v.outcome) for v in found] == [
        ("a", 1.0, 2, Outcome.PASSED),
        ("b", 0.5, 2, Outcome.FAILED),
    ]


def test_bounds_and_statistics():
    frame = pl.DataFrame({"sample_id": range(6), "loss": [1.0, 2.0, 3.0, 4.0, math.nan, math.inf]})
    values = {
        "mean": 2.5,
        "median": 2.5,
        "std": np.std([1, 2, 3, 4], ddof=1),
        "min": 1,
        "max": 4,
        "n": 4,
        "p25": 1.75,
    }
    for stat, value in values.items():
        (verdict,) = verdicts.judged(parse_rule(f"loss {stat} <= 100"), frame)
        assert verdict.value == pytest.approx(value)
        assert verdict.n == 4
    assert verdicts.judged(parse_rule("loss max <= 4"), frame)[0].outcome is Outcome.PASSED
    assert verdicts.judged(parse_rule("loss max < 4"), frame)[0].outcome is Outcome.FAILED
    (nothing,) = verdicts.judged(parse_rule("loss max < 4"), frame.tail(2))
    assert nothing.outcome is Outcome.NOT_ASKED


def test_allowances_have_reasons_and_limits(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(
        '[[rule]]\nmetric = "correct"\nby = "label"\nleast = 0.9\n'
        'allow = [{ value = "b", least = 0.5, reason = "blurred" }, { value = "zebra", least = 0, reason = "gone" }]\n'
    )
    (rule,) = read_rules(path)
    frame = samples([True, False, True, False, False], ["a", "b", "b", "c", "c"])
    found = {v.group: v for v in verdicts.judged(rule, frame)}
    assert (found["b"].outcome, found["b"].reason) == (Outcome.ALLOWED, "blurred")
    assert found["c"].outcome is Outcome.FAILED
    assert "zebra" in found["a"].reason


def test_a_drop_fails_only_when_it_is_sure():
    rng = np.random.default_rng(0)
    old = rng.uniform(size=400) < 0.9
    little, much = old & (rng.uniform(size=400) > 0.02), old & (rng.uniform(size=400) > 0.2)
    rule = parse_rule("correct mean drop <= 0.01")
    base = samples(old.tolist())
    (unsure,) = verdicts.judged(rule, samples(little.tolist()), base)
    (failed,) = verdicts.judged(rule, samples(much.tolist()), base)
    assert unsure.outcome is Outcome.UNSURE
    assert failed.outcome is Outcome.FAILED
    difference = old.astype(float) - much.astype(float)
    assert failed.value == pytest.approx(difference.mean())
    expected = stats.ttest_1samp(difference, 0).confidence_interval()
    assert failed.interval == pytest.approx((expected.low, expected.high))
    assert verdicts.judged(rule, samples(little.tolist()), base, strict_drop=True)[0].outcome is Outcome.FAILED
    assert verdicts.judged(rule, samples(old.tolist()), base)[0].outcome is Outcome.PASSED
    assert verdicts.judged(rule, samples(old.tolist()))[0].outcome is Outcome.NOT_ASKED


@pytest.mark.parametrize("strict_drop", [False, True])
@pytest.mark.parametrize("by", ["", " by label"])
def test_a_drop_below_a_bound_may_not_reach_it(tmp_path, by, strict_drop):
    """`< 0` is broken by no drop at all, and so is `largest_drop = 0` with `strict`; `<= 0` is kept."""
    old = samples([True, False] * 50).with_columns(label=pl.Series([0, 0, 1, 1] * 25))
    worse = old.with_columns(correct=pl.Series([False, False, True, False] * 25))
    path = tmp_path / "rules.toml"
    group = 'by = "label"' if by else ""
    path.write_text(f'[[rule]]\nmetric = "correct"\n{group}\nlargest_drop = 0\nstrict = true\n')
    (told,) = read_rules(path)
    assert told.name == f"correct mean{by} drop < 0"
    for rule in (told, parse_rule(f"correct mean{by} drop < 0")):
        for verdict in verdicts.judged(rule, old, old, strict_drop=strict_drop):
            assert (verdict.outcome, verdict.value, verdict.bound) == (Outcome.FAILED, 0.0, "drop < 0")
    for verdict in verdicts.judged(parse_rule(f"correct mean{by} drop <= 0"), old, old, strict_drop=strict_drop):
        assert (verdict.outcome, verdict.bound) == (Outcome.PASSED, "drop <= 0")
    assert [one.outcome for one in verdicts.judged(parse_rule("correct mean drop < 0.5"), worse, old)] == ["passed"]
    # 25 of 100 are worse: a drop of 0.25 is surely above 0, and not surely at 0.25 or more.
    (exact,) = verdicts.judged(parse_rule("correct mean drop < 0.25"), worse, old, strict_drop=strict_drop)
    assert (exact.outcome, exact.value) == ("failed" if strict_drop else "unsure", 0.25)


def test_a_loss_drops_by_growing():
    rule = parse_rule("loss mean drop <= 0.5")
    old = pl.DataFrame({"sample_id": range(50), "loss": [1.0] * 50})
    (verdict,) = verdicts.judged(rule, old.with_columns(loss=pl.lit(2.0)), old)
    assert (verdict.value, verdict.outcome) == (1.0, Outcome.FAILED)
    assert verdicts.judged(rule, old.with_columns(loss=pl.lit(0.2)), old)[0].value == pytest.approx(-0.8)


def test_listed_samples_are_named_when_wrong_or_absent(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text('[[rule]]\nsamples = "golden.txt"\n')
    (rule,) = read_rules(path)
    frame = samples([True, False, None, True])
    found = verdicts.none_wrong(rule, frame, [0, 1, 2, 99, 1])
    assert (found.outcome, found.value, found.n) == (Outcome.FAILED, 3.0, 4)
    assert found.reason == "wrong: 1; not judged in this run: 2, 99"
    assert verdicts.none_wrong(rule, frame, [0, 3]).outcome is Outcome.PASSED


def test_counts_of_the_run(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text('[[rule]]\ncount = "dropped"\nmost = 3\n')
    (rule,) = read_rules(path)
    assert verdicts.counted(rule, 3).outcome is Outcome.PASSED
    assert verdicts.counted(rule, 4).outcome is Outcome.FAILED
    assert verdicts.counted(rule, None).outcome is Outcome.NOT_ASKED


def test_samples_without_a_value_of_the_column_are_counted_and_told():
    frame = pl.DataFrame(
        {
            "sample_id": list(range(8)),
            "correct": [True, True, False, False, True, False, False, None],
            "camera": ["front", "front", "rear", None, None, None, "rear", None],
            "site": ["a", None, "a", "a", None, "b", "b", "b"],
        }
    )
    remarks: list[str] = []

    def by(column: str, rows: pl.DataFrame) -> list[verdicts.Verdict]:
        remarks.clear()
        return verdicts.judged(parse_rule(f"correct mean by {column} >= 0.1"), rows, remarks=remarks)

    front, rear = by("camera", frame)
    assert (front.group, front.n, front.value) == ("front", 2, 1.0)
    assert (rear.group, rear.n, rear.reason, front.reason) == ("rear", 2, "", "")
    assert remarks == ["3 samples have no camera, and are in no group"]
    assert not any(one.reason for one in by("camera,site", frame))
    assert remarks == ["4 samples have no camera or site, and are in no group"]
    whole, *_ = verdicts.judged(parse_rule("correct mean >= 0.1"), frame)
    assert (whole.n, whole.reason) == (7, "")
    (nobody,) = by("camera", frame.with_columns(camera=pl.lit(None, pl.String())))
    assert (nobody.outcome, remarks) == (Outcome.NOT_ASKED, [])
    assert nobody.reason == "7 samples have no camera, and are in no group"
    numbers = frame.with_columns(camera=pl.Series([0.5, 0.5, 0.5, float("nan"), None, 0.5, 0.5, None]))
    (half,) = by("camera", numbers)
    assert (half.group, half.n, half.reason) == ("0.5", 5, "")
    assert remarks == ["2 samples have no camera, and are in no group"]
    sets = frame.with_columns(camera=pl.Series([["x"], ["x", "y"], [], None, ["y"], ["x"], ["x"], ["x"]]))
    x, y = by("camera", sets)
    assert (x.n, y.n, x.reason) == (4, 2, "")
    assert remarks == ["2 samples have no camera, and are in no group"]


def test_each_verdict_tells_what_is_not_judged_of_its_own_group():
    nan, inf = float("nan"), float("inf")
    frame = pl.DataFrame(
        {
            "sample_id": list(range(10)),
            "loss": [1.0, 2.0, nan, 3.0, inf, nan, 4.0, nan, -inf, 5.0],
            "camera": ["a", "a", "a", "b", "b", "b", "b", "c", None, None],
        }
    )
    remarks: list[str] = []
    a, b, c = verdicts.judged(parse_rule("loss mean by camera <= 9"), frame, remarks=remarks)
    assert [(one.group, one.n, one.value) for one in (a, b, c)] == [("a", 2, 1.5), ("b", 2, 3.5), ("c", 0, None)]
    assert a.reason == "1 value is not finite, and not judged"
    assert b.reason == "2 values are not finite, and not judged"
    assert (c.outcome, c.reason) == (Outcome.TOO_FEW, "fewer than 1; 1 value is not finite, and not judged")
    assert remarks == ["1 sample has no camera, and is in no group", "1 value is not finite, and not judged"]
    (whole,) = verdicts.judged(parse_rule("loss mean <= 9"), frame)
    assert (whole.n, whole.value, whole.reason) == (5, 3.0, "5 values are not finite, and not judged")


def test_each_drop_tells_how_many_of_its_own_samples_have_another_label():
    frame = pl.DataFrame({"sample_id": [0, 1, 2, 3, 4], "loss": [1.0] * 5, "camera": ["a", "a", "b", "b", "c"]})
    other = pl.Series([1, 2, 3])
    moved = {"label": other}
    a, b, c = verdicts.judged(parse_rule("loss mean by camera drop <= 9"), frame, frame, moved=moved)
    assert a.reason == "1 of them has another label in the baseline"
    assert b.reason == "2 of them have another label in the baseline"
    assert c.reason == ""


def test_no_finite_value_is_a_number_of_values_too():
    frame = pl.DataFrame({"sample_id": range(6), "loss": [1.0] * 3 + [math.nan] * 3, "label": [0, 0, 0, 1, 1, 1]})
    unfit = "3 values are not finite, and not judged"
    for least, outcome in ((1, Outcome.FAILED), (0, Outcome.PASSED)):
        many, none = verdicts.judged(parse_rule(f"loss n by label >= {least}"), frame)
        assert (many.outcome, many.value) == (Outcome.PASSED, 3.0)
        assert (none.outcome, none.value, none.n, none.reason) == (outcome, 0.0, 0, unfit)
        (whole,) = verdicts.judged(parse_rule(f"loss n >= {least}"), frame.filter(pl.col("label") == 1))
        assert (whole.outcome, whole.value, whole.reason) == (outcome, 0.0, unfit)
    _, few = verdicts.judged(replace(parse_rule("loss n by label >= 1"), min_n=2), frame)
    assert few.outcome is Outcome.TOO_FEW


def _allowing(tmp_path, limits: str, *allowances: str):
    file = tmp_path / "rules.toml"
    file.write_text(f'[[rule]]\nmetric = "correct"\nby = "label"\n{limits}\nallow = [{", ".join(allowances)}]\n')
    (rule,) = read_rules(file)
    return rule


def test_two_allowances_for_one_class_are_refused_however_they_spell_it(tmp_path):
    rule = _allowing(
        tmp_path,
        "least = 0.9",
        '{ value = "a", least = 0.1, reason = "x" }',
        '{ value = 0, least = 0.2, reason = "y" }',
    )
    frame = pl.DataFrame({"sample_id": [0, 1], "label": [0, 1], "correct": [False, True]})
    with pytest.raises(UsageError, match="two allowances for a: 'a' and '0'"):
        verdicts.judged(rule, frame, names={0: "a", 1: "b"})
    # Where 0 is what another class is called, it is that one.
    a, b = verdicts.judged(rule, frame, names={0: "a", 1: "0"})
    assert (a.bound, b.bound) == (">= 0.1", ">= 0.9")
    assert (
        a.reason
        == "x; the allowance for 0 is for the label called 0, not for the one of this number, which is called a"
    )


def test_an_allowance_is_of_what_the_rule_limits_and_leaves_the_other_limit(tmp_path):
    for key in ("most", "largest_drop"):
        with pytest.raises(UsageError, match=f"the allowance of a gives {key}, and the rule limits least"):
            _allowing(tmp_path, "least = 0.9", f'{{ value = "a", {key} = 1, reason = "x" }}')
    rule = _allowing(tmp_path, "least = 0.5\nmost = 0.6", '{ value = "a", least = 0.1, reason = "x" }')
    for correct, outcome in (([True, False, False, False], Outcome.ALLOWED), ([True] * 4, Outcome.FAILED)):
        frame = pl.DataFrame({"sample_id": range(4), "label": ["a"] * 4, "correct": correct})
        (found,) = verdicts.judged(rule, frame)
        assert (found.outcome, found.bound) == (outcome, ">= 0.1 and <= 0.6")


@pytest.mark.parametrize(
    ("limits", "allowed", "stricter"),
    [
        ("least = 0.5", "least = 0.6", True),
        ("least = 0.5", "least = 0.5", False),
        ("most = 9", "most = 0.01", True),
        ("most = 9", "most = 9.5", False),
        ("largest_drop = 0.02", "largest_drop = 0.01", True),
        ("largest_drop = 0.02", "largest_drop = 0.03", False),
        ("least = 0.5\nmost = 0.9", "least = 0.4, most = 0.8", True),
    ],
)
def test_an_allowance_stricter_than_its_rule_is_refused(tmp_path, limits, allowed, stricter):
    item = f'{{ value = "a", {allowed}, reason = "x" }}'
    if not stricter:
        assert list(_allowing(tmp_path, limits, item).allow) == ["a"]
        return
    with pytest.raises(UsageError, match=r"the allowance of a is stricter than the rule") as error:
        _allowing(tmp_path, limits, item)
    assert error.value.hint


def test_the_end_of_the_recorders_own_metrics_is_known_where_one_is_good():
    assert parse_rule("worst_token_loss mean drop <= 0").better is Better.LOW
    for metric in ("residual", "top_prob", "n_tokens", "worst_token"):
        with pytest.raises(UsageError, match=f"which end of {metric} is good"):
            parse_rule(f"{metric} mean drop <= 0")


def test_a_line_about_a_metric_whose_end_is_not_known_says_where_it_can_be_said():
    with pytest.raises(UsageError) as caught:
        parse_rule("own mean drop <= 0")
    assert (
        caught.value.hint
        == 'a rule of one line cannot say it, a table of --rules FILE can: better = "high" or better = "low"'
    )


def test_an_allowance_for_a_name_that_is_another_number_is_of_the_name_and_told(tmp_path):
    with xaicli.Run(tmp_path / "run", label_names=["10", "2", "1"]) as run:
        run.log_samples(sample_id=range(6), label=[0, 1, 2] * 2, loss=[1.0, 2.0, 3.0] * 2, mode="eval", epoch=1)
    opened, file = xaicli.open_run(tmp_path / "run"), tmp_path / "rules.toml"
    for value, allowed, other in (
        ("1", "1", "2"),
        ('"1"', "1", "2"),
        ("2", "2", "1"),
        ("10", "10", ""),
        ("0", "10", ""),
    ):
        file.write_text(
            '[[rule]]\nmetric = "loss"\nby = "label"\nmost = 0.5\n'
            f'allow = [{{ value = {value}, most = 9, reason = "r" }}]\n'
        )
        found = opened.check(rules=file).answer
        assert found.data.filter(found.data["outcome"] == "allowed")["group"].to_list() == [allowed]
        said = f"the label called {allowed}, not for the one of this number, which is called {other}"
        assert any(said in warning for warning in found.warnings) == bool(other)


def test_rules_that_are_no_texts_are_refused_by_name(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1], loss=[1.0], mode="eval", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    with pytest.raises(UsageError, match="there is no rule to check"):
        opened.check(rule=None)
    for odd in (5, [5], ["loss mean < 2", None], {"metric": "loss"}, {"loss mean < 2": 1}, b"loss mean < 2"):
        with pytest.raises(UsageError, match="rule is a text, or several"):
            opened.check(rule=odd)
    assert opened.check(rule=("loss mean < 2",)).answer.extra["exit"] == 0
