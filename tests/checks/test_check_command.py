"""`xai check` on recorded runs: exit codes, verdicts by values, JUnit."""

import contextlib
import json
import math
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest

import xaicli
from xaicli.cli import main
from xaicli.layout import RunLayout
from xaicli.maintenance.doctor import examine
from xaicli.report.model import Table

N = 600


def recorded(path, wrong, *, epochs=2, night=0.0):
    rng = np.random.default_rng(0)
    label = np.arange(N) % 3
    bad = rng.uniform(size=N)
    with xaicli.Run(path, label_names=["cat", "dog", "owl"]) as run:
        run.log_facts(np.arange(N), time=["night" if i % 10 == 0 else "day" for i in range(N)])
        for epoch in range(1, epochs + 1):
            share = wrong + (0.3 if epoch == 1 else 0) + night * (np.arange(N) % 10 == 0)
            prediction = np.where(bad < share, (label + 1) % 3, label)
            run.log_samples(
                sample_id=np.arange(N), label=label, prediction=prediction, loss=bad, mode="eval", epoch=epoch
            )
    return prediction == label


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs and which samples each has right at the end."""
    folder = tmp_path_factory.mktemp("check")
    return {
        name: (folder / name, recorded(folder / name, *how)) for name, how in (("old", [0.05]), ("new", [0.15]))
    } | {"dark": (folder / "dark", recorded(folder / "dark", 0.05, night=0.5))}


def asked(capsys, *arguments):
    code = main(["check", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_rules_of_one_line(runs, capsys):
    path, right = runs["new"]
    code, found = asked(capsys, path, "--rule", "correct mean by label >= 0.5", "--rule", "correct mean >= 0.99")
    assert code == 1
    assert found["failed"] == 1
    by_group = {row["group"]: row for row in found["rows"][:3]}
    for number, name in enumerate(["cat", "dog", "owl"]):
        assert by_group[name]["value"] == pytest.approx(right[np.arange(N) % 3 == number].mean())
    assert found["rows"][3]["value"] == pytest.approx(right.mean())
    assert found["rows"][3]["outcome"] == "failed"
    assert asked(capsys, path, "--rule", "correct mean >= 0.5")[0] == 0


def test_a_drop_against_a_baseline(runs, capsys):
    (new, right), (old, was) = runs["new"], runs["old"]
    code, found = asked(capsys, new, "--baseline", old, "--rule", "correct mean drop <= 0.02")
    (row,) = found["rows"]
    assert (code, row["outcome"]) == (1, "failed")
    assert row["value"] == pytest.approx(was.mean() - right.mean())
    assert row["low"] < row["value"] < row["high"]
    assert asked(capsys, old, "--baseline", new, "--rule", "correct mean drop <= 0.02")[0] == 0
    code, found = asked(capsys, new, "--rule", "correct mean drop <= 0.02")
    assert (code, found["rows"][0]["outcome"]) == (2, "not asked")


def test_groups_by_fact_and_the_best_place(runs, capsys):
    path, right = runs["dark"]
    code, found = asked(capsys, path, "--rule", "correct mean by time >= 0.8")
    assert code == 1
    values = {row["group"]: (row["outcome"], row["value"]) for row in found["rows"]}
    assert values["day"][0] == "passed"
    assert values["night"] == ("failed", pytest.approx(right[np.arange(N) % 10 == 0].mean()))
    _, found = asked(capsys, path, "--rule", "correct mean at best >= 0")
    assert found["rows"][0]["epoch"] == 2


def accuracies(path, *shares, low=0):
    """A run of 100 samples from `low` on, as many of which as a share says are right at each epoch, the first ones."""
    ids = np.arange(low, low + 100)
    with xaicli.Run(path, label_names=["cat", "dog"]) as run:
        for epoch, share in enumerate(shares, 1):
            right = ids < low + 100 * share
            run.log_samples(
                sample_id=ids, label=ids % 2, prediction=np.where(right, ids % 2, 1 - ids % 2), mode="eval", epoch=epoch
            )
    return path


def test_a_drop_at_best_is_of_the_best_place_of_each_run(tmp_path, capsys):
    new, old = accuracies(tmp_path / "new", 0.6, 1.0, 0.5), accuracies(tmp_path / "old", 0.3, 0.4, 0.8)

    def drop(*how, run=new, baseline=old):
        code, found = asked(capsys, run, "--baseline", baseline, *how)
        (row,) = found["rows"]
        return code, row["epoch"], row["baseline_epoch"], row["baseline_pass"], pytest.approx(row["value"])

    # A sample of those that changed is worth 1 and all others 0: the means of each place, subtracted.
    assert drop("--rule", "correct mean drop <= 0.05") == (1, 3, 3, 0, 0.3)
    assert drop("--rule", "correct mean at last drop <= 0.05") == (1, 3, 3, 0, 0.3)
    assert drop("--rule", "correct mean at best drop <= 0.05") == (0, 2, 3, 0, -0.2)
    assert drop("--rule", "correct mean at best drop <= 0.05", run=old, baseline=new) == (1, 3, 2, 0, 0.2)
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nmetric = "correct"\nat = "best"\nleast = 1\nlargest_drop = 0\n')
    code, found = asked(capsys, new, "--baseline", old, "--rules", rules)
    limits = [(row["outcome"], row["epoch"], row["baseline_epoch"]) for row in found["rows"]]
    assert (code, limits) == (0, [("passed", 2, None), ("passed", 2, 3)])  # a limit of the run alone is of no other
    # Of the samples that both have, at the places that are best over all of each.
    part = accuracies(tmp_path / "part", 0.9, 0.2, low=50)
    assert drop("--rule", "correct mean at best drop <= 1", run=part) == (0, 1, 3, 0, 0.6 - 1.0)
    main(["check", str(new), "--baseline", str(old), "--rule", "correct mean at best drop <= 0.05", "--format", "md"])
    assert "eval epoch 2, baseline epoch 3" in capsys.readouterr().out


def test_a_short_last_pass_of_the_baseline_is_told_where_it_is_measured_against(tmp_path, capsys):
    new, old = accuracies(tmp_path / "new", 0.5), accuracies(tmp_path / "old", 0.9, 0.8)
    with xaicli.Run(old) as run:
        run.log_samples(sample_id=[0, 1], label=[0, 1], prediction=[1, 0], mode="eval", epoch=3)
    said = ["in the baseline: the last pass of eval has 2 of the 100 samples of the one before"]
    for place, told in (("last", said), ("best", [])):
        _, found = asked(capsys, new, "--baseline", old, "--rule", f"correct mean at {place} drop <= 0")
        assert [one for one in found["warnings"] if "last pass" in one] == told


def test_a_file_of_rules_listed_samples_and_counts(runs, capsys, tmp_path):
    path, right = runs["new"]
    (tmp_path / "golden.txt").write_text("0\n1\n2\n9999\n")
    (tmp_path / "rules.toml").write_text(
        '[[rule]]\nsamples = "golden.txt"\n[[rule]]\ncount = "dropped"\nmost = 0\n'
        '[[rule]]\ncount = "non_finite"\nmost = 0\n[[rule]]\nmetric = "correct"\nwhere = "label = 1"\nleast = 0.1\n'
        '[[rule]]\nmetric = "nothing"\nleast = 1\n'
    )
    code, found = asked(capsys, path, "--rules", tmp_path / "rules.toml")
    outcomes = [row["outcome"] for row in found["rows"]]
    assert outcomes == ["failed", "passed", "passed", "passed", "not asked"]
    wrong = [i for i in range(3) if not right[i]]
    assert found["rows"][0]["value"] == len(wrong) + 1
    assert "9999" in found["rows"][0]["reason"]
    assert found["rows"][3]["n"] == N // 3
    assert found["rows"][3]["value"] == pytest.approx(right[np.arange(N) % 3 == 1].mean())
    assert "nothing" in found["rows"][4]["reason"]
    assert code == 1


def assert_what_build_servers_read(suite):
    """What Jenkins' schema of JUnit (jenkinsci/xunit-plugin, junit-10.xsd) and Ant's say, as far as both agree."""
    attributes = {
        "testsuite": {"name", "tests", "failures", "errors", "skipped", "time"},
        "testcase": {"name", "classname", "time"},
        "failure": {"type", "message"},
        "error": {"type", "message"},
        "skipped": {"message"},
        "system-out": set(),
    }
    inside = {"testsuite": {"testcase", "system-out"}, "testcase": {"failure", "error", "skipped"}}
    time = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})(\.[0-9]*)?")  # SUREFIRE_TIME
    assert suite.tag == "testsuite"
    assert suite.get("name")
    for element in suite.iter():
        assert set(element.attrib) == attributes[element.tag]
        assert element.tag == "system-out" or element.text is None or not element.text.strip()
        assert all(count.isdecimal() for name in ("tests", "failures") if (count := element.get(name)) is not None)
        assert time.fullmatch(element.get("time", ""))
        assert {child.tag for child in element} <= inside.get(element.tag, set())
    cases = suite.findall("testcase")
    assert all(len(case) <= 1 for case in cases)
    assert int(suite.get("tests")) == len(cases) == len({(case.get("classname"), case.get("name")) for case in cases})
    for count, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(count)) == len(list(suite.iter(kind)))
    assert all(float(element.get("time")) >= 0 for element in suite.iter() if "time" in element.attrib)


def test_junit_and_markdown(runs, tmp_path, capsys):
    path, _ = runs["new"]
    file = tmp_path / "junit.xml"
    rules = ["--rule", "correct mean >= 0.99", "--rule", "gone mean >= 1", "--rule", "loss mean <= 1"]
    code = main(["check", str(path), *rules, "--junit", str(file), "--format", "md", "-o", str(tmp_path)])
    assert code == 1
    suite = ElementTree.fromstring(file.read_text())
    assert {key: suite.get(key) for key in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "1",
        "errors": "1",
    }
    assert_what_build_servers_read(suite)
    assert "| failed |" in next(tmp_path.glob("*.md")).read_text()
    assert "No: 1 verdict failed" in capsys.readouterr().out


def test_junit_tells_a_value_just_below_its_limit_from_the_limit(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[0, 1], mode="eval", epoch=0, step=0, weight=np.array([0.59999999, 0.59999999]))
    file = tmp_path / "junit.xml"
    assert main(["check", str(tmp_path / "run"), "--rule", "weight mean >= 0.6", "--junit", str(file)]) == 1
    (case,) = ElementTree.fromstring(file.read_text()).iter("testcase")
    told = float(case[0].get("message").split()[0])
    assert 0.5999999 < told < 0.6


def test_junit_of_odd_names_and_of_every_outcome(tmp_path):
    odd = ["a<b>&\"'", "]]>", "two\nlines\ttab", "nul\x00 bell\x07", "\ufffe\uffff", "\u2028 ü 🐈", "", "plain"]
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts(range(8), kind=odd)
        run.log_samples(sample_id=range(8), label=[0] * 8, prediction=[0] * 4 + [1] * 4, mode="eval", epoch=1)
    (tmp_path / "rules.toml").write_text(
        """
[[rule]]
name = "of each \\u0001 <kind>"
metric = "correct"
by = "kind"
least = 1
allow = [{ value = "plain", least = 0, reason = "known & \\u0008 meant" }]
[[rule]]
name = "few"
metric = "correct"
by = "kind"
least = 0
min_n = 2
[[rule]]
metric = "gone"
most = 1
""",
        encoding="utf-8",
    )
    file = tmp_path / "junit.xml"
    assert main(["check", str(tmp_path / "run"), "--rules", str(tmp_path / "rules.toml"), "--junit", str(file)]) == 1
    suite = ElementTree.parse(file).getroot()
    assert_what_build_servers_read(suite)
    read = [case.get("name") for case in suite.iter("testcase")]
    # XML holds neither control characters nor the two noncharacters; all else comes back as it was.
    for kind in ("a<b>&\"'", "]]>", "two\nlines\ttab", "nul? bell?", "??", "\u2028 ü 🐈", "plain"):
        assert f"of each ? <kind> [{kind}]" in read
    kinds = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert kinds["of each ? <kind> [a<b>&\"']"] == []
    assert kinds["of each ? <kind> [??]"] == ["failure"]
    assert kinds["of each ? <kind> [plain]"] == ["skipped"]
    assert [tags for name, tags in kinds.items() if name.startswith("gone")] == [["error"]]
    assert [child.get("message") for child in suite.iter("skipped")] == ["allowed: 0.0 (asked: >= 0) known & ? meant"]


def test_no_rule_is_wrong_usage(runs, capsys):
    assert main(["check", str(runs["new"][0])]) == 2
    assert "--rule" in capsys.readouterr().err
    assert main(["check", str(runs["new"][0]), "--rule", "accuracy is high"]) == 2


def test_sets_of_classes_count_for_each_and_measured_numbers_are_no_groups(tmp_path, capsys):
    label = [[0], [1, 2], [], [2]]
    right = [True, False, True, True]
    taken = [row if good else [0] for row, good in zip(label, right, strict=True)]
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=["cat", "dog", "owl"]) as run:
        run.log_samples(
            sample_id=range(4), label=label, prediction=taken, loss=[0.1, 0.2, 0.3, 0.4], mode="eval", epoch=1
        )
    code, found = asked(capsys, tmp_path / "run", "--rule", "correct mean by label >= 0.9")
    assert code == 1
    assert {row["group"]: (row["value"], row["n"]) for row in found["rows"]} == {
        "cat": (1.0, 1),
        "dog": (0.0, 1),
        "owl": (0.5, 2),
    }
    code, found = asked(capsys, tmp_path / "run", "--rule", "correct mean by loss >= 0.9")
    assert (code, found["rows"][0]["outcome"]) == (2, "not asked")
    assert "measured numbers" in found["rows"][0]["reason"]


def facts_run(path, values, *, extra=()):
    """A run whose samples have a camera and an age; values are the losses of the last place."""
    n = len(values)
    with xaicli.Run(path, label_names=["cat", "dog"]) as run:
        run.log_facts(
            range(n), camera=["front" if i % 2 else "rear" for i in range(n)], age=[float(i) for i in range(n)]
        )
        for epoch in (1, 2):
            run.log_samples(
                sample_id=[*range(n), *extra],
                label=[*(i // 2 % 2 for i in range(n)), *(1 for _ in extra)],
                loss=[*values, *(0.0 for _ in extra)],
                correct_share=[*values, *(0.0 for _ in extra)],
                mode="eval",
                epoch=epoch,
            )
    return path


def test_combinations_of_columns_are_groups(tmp_path, capsys):
    values = [float(i) for i in range(40)]
    path = facts_run(tmp_path / "run", values)
    code, found = asked(capsys, path, "--rule", "loss mean by camera,label <= 19")
    expected = {}
    for camera in ("front", "rear"):
        for number, name in enumerate(["cat", "dog"]):
            own = [v for i, v in enumerate(values) if (i % 2 == 1) == (camera == "front") and i // 2 % 2 == number]
            expected[f"{camera}, {name}"] = pytest.approx(np.mean(own))
    assert {row["group"]: row["value"] for row in found["rows"]} == expected
    assert code == 1
    _, found = asked(capsys, path, "--rule", "loss mean by age <= 19")
    assert [row["n"] for row in found["rows"]] == [8] * 5
    assert [row["value"] for row in found["rows"]] == pytest.approx(
        [np.mean(values[i : i + 8]) for i in range(0, 40, 8)]
    )


def test_a_rule_names_several_modes_and_data_sets_as_a_list(tmp_path, capsys):
    every = range(8)
    run = cameras(
        tmp_path / "run", *((mode, ds, every) for mode in ("train", "eval", "test") for ds in ("x", "y", "a,b"))
    )
    rules = tmp_path / "rules.toml"
    for mode, ds_id in (('["train", "test"]', '["a,b", "x"]'), ('"train,test"', """'"a,b",x'""")):
        rules.write_text(f'[[rule]]\nmetric = "correct"\nleast = 0\nmode = {mode}\nds_id = {ds_id}\n')
        _, found = asked(capsys, run, "--rules", rules)
        places = {(row["mode"], row["ds_id"]) for row in found["rows"]}
        assert places == {(one, ds) for one in ("train", "test") for ds in ("x", "a,b")}
    rules.write_text('[[rule]]\nmetric = "correct"\nleast = 0\nmode = []\n')
    assert main(["check", str(run), "--rules", str(rules)]) == 2
    assert "mode = [] is no text" in capsys.readouterr().err


def test_the_name_of_a_list_may_stand_in_quotes(tmp_path, capsys):
    run = cameras(tmp_path / "run", ("eval", "x", range(4)))
    (tmp_path / "my list.txt").write_text("0\n1\n")
    for name in ("{}", "'{}'", '"{}"'):
        code, found = asked(capsys, run, "--rule", f"no sample of {name.format(tmp_path / 'my list.txt')} is wrong")
        assert (code, [row["n"] for row in found["rows"]]) == (0, [2]), name


def test_samples_beyond_a_limit_are_named(tmp_path, capsys):
    path = facts_run(tmp_path / "run", [1.0, 9.0, 2.0, 8.0])
    code, found = asked(capsys, path, "--rule", "loss max <= 7", "--rule", "loss min by camera >= 1.5")
    assert code == 1
    assert found["rows"][0]["failing"] == [1, 3]
    assert "samples 1, 3" in found["rows"][0]["reason"]
    assert {row["group"]: row["failing"] for row in found["rows"][1:]} == {"front": [], "rear": [0]}


def test_counts_and_listed_samples_in_one_line(runs, capsys, tmp_path):
    path, right = runs["new"]
    (tmp_path / "golden.txt").write_text("".join(f"{i}\n" for i in range(50)))
    wrong = [i for i in range(50) if not right[i]]
    code, found = asked(
        capsys, path, "--rule", f"no sample of {tmp_path / 'golden.txt'} is wrong", "--rule", "dropped <= 0"
    )
    assert code == 1
    assert found["rows"][0]["failing"] == wrong
    assert (found["rows"][1]["outcome"], found["rows"][1]["value"]) == ("passed", 0.0)
    (tmp_path / "rules.toml").write_text(f'[[rule]]\nsamples = "golden.txt"\nmost = {len(wrong)}\n')
    assert asked(capsys, path, "--rules", tmp_path / "rules.toml")[0] == 0
    assert asked(capsys, path, "--rule", "spikes < 0")[0] in (1, 2)


def test_what_is_not_judged_is_told(tmp_path, capsys):
    values = [1.0] * 30 + [float("nan")] * 10
    new = facts_run(tmp_path / "new", values, extra=[100, 101])
    code, found = asked(capsys, new, "--rule", "loss mean <= 1")
    assert code == 0
    assert "10 values are not finite" in found["rows"][0]["reason"]
    old = facts_run(tmp_path / "old", [1.0] * 40)
    _, found = asked(capsys, new, "--baseline", old, "--rule", "loss mean drop <= 0")
    assert found["rows"][0]["n"] == 30
    assert "2 samples are not in the baseline" in found["rows"][0]["reason"]


def test_a_label_that_only_the_baseline_has_cannot_be_asked(tmp_path, capsys):
    old = facts_run(tmp_path / "old", [1.0] * 8)
    with xaicli.Run(tmp_path / "new", label_names=["cat", "dog"]) as run:
        run.log_samples(sample_id=[0, 1], label=[0, 0], loss=[1.0, 1.0], mode="eval", epoch=1)
    code, found = asked(capsys, tmp_path / "new", "--baseline", old, "--rule", "loss mean by label drop <= 0.5")
    assert code == 2
    assert {row["group"]: row["outcome"] for row in found["rows"]} == {"cat": "passed", "dog": "not asked"}


def outcomes(found):
    return [(row["group"], row["outcome"]) for row in found["rows"]]


def test_a_rule_that_cannot_be_asked_leaves_the_others(runs, capsys, tmp_path):
    """No row meets its condition, the condition is no SQL, the baseline is not there: the other rules are judged."""
    path, right = runs["new"]
    rules = tmp_path / "rules.toml"
    for broken, extra in (
        ('where = "loss > 1000"\nleast = 0.1', []),
        ('where = "loss >> 3 oops"\nleast = 0.1', []),
        ("largest_drop = 0.1", ["--baseline", tmp_path / "gone"]),
    ):
        tables = '[[rule]]\nmetric = "correct"\n'
        rules.write_text(f"{tables}{broken}\n{tables}least = 0.5\n")
        code, found = asked(capsys, path, "--rules", rules, *extra)
        assert code == 2, broken
        assert outcomes(found) == [("", "not asked"), ("", "passed")], broken
        assert found["rows"][0]["reason"]
        assert found["rows"][1]["value"] == pytest.approx(right.mean())
        rules.write_text(f"{tables}{broken}\n{tables}least = 0.99\n")
        assert asked(capsys, path, "--rules", rules, *extra)[0] == 1, broken


def test_rules_that_are_none_are_wrong_usage_and_no_failure(runs, capsys, tmp_path):
    """Status 1 is kept for a rule that fails."""
    path, _ = runs["new"]
    rules = tmp_path / "rules.toml"
    for content in (
        "",
        '[rule]\nmetric = "correct"\nleast = 0.5\n',
        '[[rule]]\nmetric = "correct"\nleast = 0.5\nfoo = 1\n',
        '[[rule]]\nmetric = "correct"\nleast = 0.9\nmost = 0.1\n',
        '[[rule]]\nmetric = "correct"\nleast = 0.9\nallow = [{ value = "cat", reason = "why not" }]\n',
        "[[rule]\n",
    ):
        rules.write_text(content)
        assert main(["check", str(path), "--rules", str(rules)]) == 2, content
        assert "error:" in capsys.readouterr().err
    assert main(["check", str(path), "--rules", str(tmp_path / "gone.toml")]) == 2
    capsys.readouterr()
    code, found = asked(capsys, path, "--rule", "correct mean >= 0.5", "--baseline", runs["old"][0])
    assert code == 0
    assert any("--baseline" in warning for warning in found["warnings"])


def test_nothing_judged_is_no_pass(runs, capsys, tmp_path):
    path, _ = runs["new"]
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nmetric = "correct"\nby = "label"\nleast = 0.1\nmin_n = 201\n')
    code, found = asked(capsys, path, "--rules", rules)
    assert code == 2
    assert {row["outcome"] for row in found["rows"]} == {"not asked"}
    rules.write_text('[[rule]]\nmetric = "correct"\nby = "time"\nleast = 0.1\nmin_n = 201\n')
    code, found = asked(capsys, path, "--rules", rules)
    assert code == 0
    assert dict(outcomes(found)) == {"day": "passed", "night": "too few"}


@pytest.mark.parametrize(
    ("by", "value"),
    [
        ('"label"', '"owl"'),
        ('"label"', "2"),
        ('["time", "label"]', '["night", "owl"]'),
        ('["time", "label"]', '["night", 2]'),
        ('["time", "label"]', '"night, owl"'),
    ],
)
def test_an_allowance_names_a_group_as_people_do(runs, capsys, tmp_path, by, value):
    path, right = runs["dark"]
    allow = f'[{{ value = {value}, least = 0.0, reason = "lamps" }}]'
    rules = tmp_path / "rules.toml"
    rules.write_text(f'[[rule]]\nmetric = "correct"\nby = {by}\nleast = 1.0\nallow = {allow}\n')
    _, found = asked(capsys, path, "--rules", rules)
    allowed = [row for row in found["rows"] if row["outcome"] == "allowed"]
    assert [row["group"].split(", ")[-1] for row in allowed] == ["owl"]
    label, night = np.arange(N) % 3, np.arange(N) % 10 == 0
    meant = (label == 2) & (night if "," in by else True)
    assert allowed[0]["value"] == pytest.approx(right[meant].mean())
    assert not any("does not occur" in row["reason"] for row in found["rows"])


def test_the_page_says_what_was_allowed_instead(runs, tmp_path):
    """Also where the words of the rule begin with it: >= 0.9 and >= 0.99."""
    path, right = runs["old"]
    rules = tmp_path / "rules.toml"
    allow = '[{ value = "owl", least = 0.9, reason = "lamps" }]'
    rules.write_text(f'[[rule]]\nmetric = "correct"\nby = "label"\nleast = 0.99\nallow = {allow}\n')
    report = xaicli.open_run(path).check(rules=rules).report
    (table,) = (block for section in report.sections for block in section.blocks if isinstance(block, Table))
    rows = [dict(zip((column.title for column in table.columns), row, strict=True)) for row in table.rows]
    (owl,) = (row for row in rows if row["outcome"] == "allowed")
    assert (owl["asked"], owl["why"]) == (">= 0.9", "lamps")
    assert owl["value"] == pytest.approx(right[np.arange(N) % 3 == 2].mean())
    assert [row["asked"] for row in rows if row is not owl] == [">= 0.99", ">= 0.99"]


def test_listed_samples_are_read_as_lists_are_written(tmp_path, capsys):
    """Ids that begin with # are samples, not remarks; quotes and tables are those of `xai select`."""
    ids = ["#1", '"quoted"', "plain"]
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=ids, label=[0, 0, 0], prediction=[1, 1, 0], mode="eval", epoch=0, loss=[1.0] * 3)
    golden = tmp_path / "golden.txt"
    golden.write_text('# what must be right\n#1\n"""quoted"""\nplain\n')
    _, found = asked(capsys, tmp_path / "run", "--rule", f"no sample of {golden} is wrong")
    assert found["rows"][0]["failing"] == ["#1", '"quoted"']
    assert found["rows"][0]["n"] == 3
    xaicli.open_run(tmp_path / "run").select(rule="hardest", n=3).data.write_csv(tmp_path / "golden.csv")
    _, found = asked(capsys, tmp_path / "run", "--rule", f"no sample of {tmp_path / 'golden.csv'} is wrong")
    assert sorted(found["rows"][0]["failing"]) == sorted(["#1", '"quoted"'])


def test_a_condition_is_about_the_last_place(tmp_path, capsys):
    """An older epoch that has rows of the kind is not judged in place of the last."""
    with xaicli.Run(tmp_path / "run") as run:
        for epoch, loss in enumerate(([9.0, 1.0], [1.0, 1.0])):
            run.log_samples(sample_id=[0, 1], loss=loss, mode="eval", epoch=epoch)
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nmetric = "loss"\nmost = 10\nwhere = "loss > 5"\n')
    code, found = asked(capsys, tmp_path / "run", "--rules", rules)
    assert code == 2
    assert "epoch 1, the last" in found["rows"][0]["reason"]
    rules.write_text('[[rule]]\nmetric = "loss"\nmost = 10\nwhere = "loss < 5"\n')
    code, found = asked(capsys, tmp_path / "run", "--rules", rules)
    assert (code, found["rows"][0]["epoch"], found["rows"][0]["n"]) == (0, 1, 2)


def cameras(path, *sets, loss=None):
    """A run over 200 samples, cats and dogs in turn, two by two in front of each of two cameras; all are right.

    Args:
        sets: (mode, ds_id, ids) of what is recorded.
        loss: {sample: loss} of those whose loss is not 0.
    """
    every = np.arange(200)
    with xaicli.Run(path, label_names=["cat", "dog"]) as run:
        run.log_facts(every, cam=np.where(every % 4 < 2, "front", "rear"))
        for mode, ds_id, ids in sets:
            ids = np.asarray(list(ids))
            columns = {"loss": np.array([(loss or {}).get(int(i), 0.0) for i in ids])} if loss is not None else {}
            label = ids % 2
            run.log_samples(
                sample_id=ids, label=label, prediction=label, mode=mode, ds_id=ds_id, epoch=1, step=1, **columns
            )
    return path


def drops(capsys, new, old, *rules, options=()):
    """The exit code, {(place, group): (outcome, n, reason)} of each rule, and the warnings."""
    said = [word for rule in rules for word in ("--rule", rule)]
    code, found = asked(capsys, new, "--baseline", old, *said, *options)
    told = {
        (" ".join(filter(None, (row["mode"], row["ds_id"]))), row["group"]): (row["outcome"], row["n"], row["reason"])
        for row in found["rows"]
    }
    return code, told, found["warnings"]


@pytest.mark.parametrize("by", ["label", "cam,label"])
def test_a_group_that_only_one_run_has_is_not_asked_whatever_its_values(tmp_path, capsys, by):
    """Groups of a run by what it has of them: finite values, others, or nothing."""

    def run(name, has):
        ids = np.array([i for i in range(60) if has != "nothing" or i % 3 < 2])
        loss = np.where((ids % 3 == 2) & (has == "nan"), np.nan, 1.0)
        with xaicli.Run(tmp_path / name, label_names=["a", "b", "c"]) as run:
            run.log_facts(ids, cam=["front" if i % 2 else "rear" for i in ids])
            run.log_samples(sample_id=ids, label=ids % 3, prediction=ids % 3, loss=loss, mode="eval", epoch=1)
        return tmp_path / name

    runs = {has: run(has, has) for has in ("finite", "nan", "nothing")}
    reasons = {
        ("nan", "nothing"): "the baseline has no sample of it; {} values are not finite, and not judged",
        ("nothing", "nan"): "the baseline has {} samples of it, none with a finite loss, this run none",
    }
    for new, old in [(new, old) for new in runs for old in runs]:
        code, told, _ = drops(capsys, runs[new], runs[old], f"loss mean by {by} drop <= 0.1")
        groups = {group: (outcome, reason) for (_, group), (outcome, _, reason) in told.items() if "c" in group[-1]}
        asked_of = {outcome for outcome, _ in groups.values()}
        if new == old:  # both have as much of it
            wanted = {"finite": {"passed"}, "nan": {"too few"}, "nothing": set()}[new]
            assert (code, asked_of) == (0, wanted)
        else:
            assert (code, asked_of) == (2, {"not asked"}), (new, old)
        if (new, old) in reasons:
            assert {reason for _, reason in groups.values()} == {reasons[new, old].format(20 if by == "label" else 10)}
    # Another limit of the rule is judged, and of a group of few samples nothing is.
    rules = tmp_path / "rules.toml"
    table = '[[rule]]\nmetric = "loss"\nby = "label"\nlargest_drop = 0.1\n'
    for more, said in (("most = 9", ["the baseline has", "fewer than 1;"]), ("min_n = 21", ["fewer than 21;"])):
        rules.write_text(f"{table}{more}\n")
        _, found = asked(capsys, runs["nan"], "--baseline", runs["nothing"], "--rules", rules)
        reasons_of_c = [row["reason"] for row in found["rows"] if row["group"] == "c"]
        assert all(map(str.startswith, reasons_of_c, said)), more
        assert len(reasons_of_c) == len(said)


ANIMALS = np.array(["bear", "cat", "dog"])[np.arange(90) % 3]
OWLS = np.where(ANIMALS == "bear", "owl", ANIMALS)


def classified(path, called, names=None, *, as_sets=False):
    """A run of samples with such labels: texts, or with names their numbers, which a run called unnamed keeps alone."""
    label = [sorted(names).index(one) for one in called] if names else called.tolist()
    label = [[one] for one in label] if as_sets else label
    known = {"label_names": sorted(names)} if names and not path.name.startswith("unnamed") else {}
    with xaicli.Run(path, task="multilabel" if as_sets else None, **known) as run:
        ids = np.arange(90)
        run.log_samples(sample_id=ids, label=label, prediction=label, loss=np.ones(90), mode="eval", epoch=1)
    return path


@pytest.mark.parametrize("by", ["label", "prediction"])
@pytest.mark.parametrize("as_sets", [False, True])
def test_classes_of_two_runs_are_joined_by_name_whatever_their_numbers(tmp_path, capsys, by, as_sets):
    """Bears became owls, and so 0, 1, 2 are other classes in each run; or both only spell them otherwise."""
    old = classified(tmp_path / "old", ANIMALS, {"bear", "cat", "dog"}, as_sets=as_sets)
    new = classified(tmp_path / "new", OWLS, {"cat", "dog", "owl"}, as_sets=as_sets)
    kept = classified(tmp_path / "kept", OWLS, {"bear", "cat", "dog", "owl"}, as_sets=as_sets)
    rule, alone = f"loss mean by {by} drop <= 0.1", "the baseline has 30 samples of it, this run none"
    for one, other, gone, come in ((new, old, "bear", "owl"), (old, new, "owl", "bear"), (kept, old, "bear", "owl")):
        code, told, _ = drops(capsys, one, other, rule)
        assert code == 2
        groups = {group: (outcome, reason) for (_, group), (outcome, _, reason) in told.items()}
        assert groups.keys() == {"bear", "cat", "dog", "owl"}
        assert (groups["cat"], groups["dog"], groups[gone]) == (("passed", ""), ("passed", ""), ("not asked", alone))
        assert groups[come][0] == "not asked"
        assert groups[come][1].startswith("this run has 30 samples of it, the baseline none; 30 of them have another ")


@pytest.mark.parametrize("by", ["label", "prediction"])
def test_classes_are_joined_by_value_where_one_run_has_no_names(tmp_path, capsys, by):
    runs = {
        "text": classified(tmp_path / "text", ANIMALS),
        "numbers": classified(tmp_path / "numbers", ANIMALS, {"bear", "cat", "dog"}),
        "unnamed": classified(tmp_path / "unnamed", ANIMALS, {"bear", "cat", "dog"}),
    }
    for new, old in (("text", "numbers"), ("numbers", "text"), ("unnamed", "numbers"), ("numbers", "unnamed")):
        code, told, warnings = drops(capsys, runs[new], runs[old], f"loss mean by {by} drop <= 0.1")
        assert (code, warnings) == (0, [])
        assert told == {("eval", name): ("passed", 30, "") for name in ("bear", "cat", "dog")}
        code, told, warnings = drops(capsys, runs[new], runs[old], "loss mean drop <= 0.1")
        assert (code, told, warnings) == (0, {("eval", ""): ("passed", 90, "")}, [])
        # So `compare` says of the same runs.
        assert main(["compare", str(runs[old]), str(runs[new]), "--metric", "loss", "--json", "--no-progress"]) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        found = {row["name"]: tuple(row["n"]) for row in rows if row["kind"] == "label"}
        assert found == dict.fromkeys(("bear", "cat", "dog"), (30, 30))


def test_facts_that_moved_are_told_and_groups_of_one_run_alone_are_not_asked(tmp_path, capsys):
    def run(name, cams):
        with xaicli.Run(tmp_path / name) as one:
            one.log_facts(range(90), cam=cams)
            label = np.arange(90) % 2
            one.log_samples(sample_id=range(90), label=label, prediction=label, mode="eval", epoch=1)
        return tmp_path / name

    both, front = run("both", ["front", "rear", "rear"] * 30), run("front", ["front"] * 90)
    swapped = run("swapped", ["rear", "rear", "front"] * 30)
    rule, moved = "correct mean by cam drop <= 0", "60 of them have another cam in the baseline"
    code, told, _ = drops(capsys, both, front, rule)
    assert code == 2
    assert told == {
        ("eval", "front"): ("passed", 30, ""),
        ("eval", "rear"): ("not asked", 0, f"this run has 60 samples of it, the baseline none; {moved}"),
    }
    code, told, _ = drops(capsys, front, both, rule)
    assert code == 2
    assert told == {
        ("eval", "front"): ("passed", 90, moved),
        ("eval", "rear"): ("not asked", 0, "the baseline has 60 samples of it, this run none"),
    }
    # Numbers of a table with gaps come as 1.0 where others came as 1.
    whole, gaps = run("whole", [1, 2, 2] * 30), run("gaps", [1.0, 2.0, 2.0] * 30)
    for new, old in ((whole, gaps), (gaps, whole)):
        code, told, _ = drops(capsys, new, old, rule)
        assert (code, {one[::2] for one in told.values()}) == (0, {("passed", "")})
    code, told, _ = drops(capsys, both, swapped, rule)
    less = moved.replace("60", "30")
    assert (code, told) == (0, {("eval", "front"): ("passed", 30, less), ("eval", "rear"): ("passed", 60, less)})


def test_why_no_sample_is_compared_is_true_of_the_baseline(tmp_path, capsys):
    def run(name, ids, loss):
        with xaicli.Run(tmp_path / name) as one:
            one.log_samples(sample_id=ids, loss=[loss] * len(ids), mode="eval", epoch=1)
        return tmp_path / name

    new, rule = run("new", range(30), 1.0), "loss mean drop <= 0.1"
    _, told, _ = drops(capsys, new, run("nan", range(30), math.nan), rule)
    unfit = "30 samples have no finite loss in the baseline, and not compared"
    assert told["eval", ""] == ("not asked", 0, f"none of the samples has a finite loss in the baseline; {unfit}")
    _, told, _ = drops(capsys, new, run("others", range(30, 60), 1.0), rule)
    assert told["eval", ""][2].startswith("the baseline has none of the samples; 30 samples are not in the baseline")


def test_samples_that_only_the_baseline_has_are_counted_everywhere(tmp_path, capsys):
    old = cameras(tmp_path / "old", ("eval", "x", range(200)))
    new = cameras(tmp_path / "new", ("eval", "x", range(100)))
    rule = "correct mean drop <= 0"
    gone = "100 samples of the baseline are not in this run, and not compared"
    warning = "100 samples of eval x are in the baseline alone, and not compared"
    code, told, warnings = drops(capsys, new, old, rule)
    assert (code, told) == (0, {("eval x", ""): ("passed", 100, gone)})
    assert warnings == [warning]
    code, told, warnings = drops(capsys, new, old, "correct mean by label drop <= 0")
    half = gone.replace("100", "50")
    assert told == {("eval x", "cat"): ("passed", 50, half), ("eval x", "dog"): ("passed", 50, half)}
    code, told, warnings = drops(capsys, old, new, rule)  # the other way round
    assert told == {("eval x", ""): ("passed", 100, "100 samples are not in the baseline, and not compared")}
    assert warnings == ["100 samples of eval x are not in the baseline, and not compared"]
    file = tmp_path / "check.xml"
    assert (
        main(["check", str(new), "--baseline", str(old), "--rule", rule, "--format", "md", "--junit", str(file)]) == 0
    )
    assert "not in this run" in capsys.readouterr().out
    suite = ElementTree.parse(file).getroot()
    assert_what_build_servers_read(suite)
    assert suite.findtext("system-out") == f"eval.x: {rule}: {gone}\n{warning}"
    one = cameras(tmp_path / "one", ("eval", "x", range(1, 200)))
    assert drops(capsys, one, old, rule)[1] == {
        ("eval x", ""): ("passed", 199, "1 sample of the baseline is not in this run, and not compared")
    }


def test_a_data_set_or_mode_that_only_the_baseline_has_cannot_be_asked(tmp_path, capsys):
    every = range(200)
    old = cameras(tmp_path / "old", ("eval", "x", every), ("eval", "y", every), ("train", "x", every))
    new = cameras(tmp_path / "new", ("eval", "x", every))
    rule, gone = "correct mean drop <= 0", "this run has no rows of {}"
    code, told, warnings = drops(capsys, new, old, rule)
    assert (code, told) == (
        2,
        {("eval x", ""): ("passed", 200, ""), ("eval y", ""): ("not asked", 0, gone.format("eval y"))},
    )
    assert warnings == ["eval y is in the baseline alone: nothing of it is compared"]
    code, told, _ = drops(capsys, new, old, rule, options=("--mode", "all"))
    assert (code, told["train x", ""]) == (2, ("not asked", 0, gone.format("train x")))
    assert drops(capsys, new, old, rule, options=("--ds-id", "x"))[0] == 0  # y is not asked for
    code, told, _ = drops(capsys, old, new, rule)
    assert (code, told["eval y", ""]) == (2, ("not asked", 0, "the baseline has no rows of eval y"))
    trained = cameras(tmp_path / "trained", ("train", "x", every))
    code, told, _ = drops(capsys, trained, old, rule)  # with no eval rows the rule is about train, which both have
    assert code == 2
    assert {place: outcome for (place, _), (outcome, *_) in told.items()} == {
        "train x": "passed",
        "eval x": "not asked",
        "eval y": "not asked",
    }


def test_a_label_or_slice_that_only_the_baseline_has(tmp_path, capsys):
    old = cameras(tmp_path / "old", ("eval", "x", range(200)))
    cats = cameras(tmp_path / "cats", ("eval", "x", range(0, 200, 2)))
    lacking = "100 samples of the baseline are not in this run, and not compared"
    code, told, _ = drops(capsys, cats, old, "correct mean drop <= 0")
    assert told["eval x", ""] == ("passed", 100, f"{lacking}; label dog is in the baseline alone")
    code, told, _ = drops(capsys, cats, old, "correct mean by label drop <= 0")
    assert (code, told) == (
        2,
        {
            ("eval x", "cat"): ("passed", 100, ""),
            ("eval x", "dog"): ("not asked", 0, "the baseline has 100 samples of it, this run none"),
        },
    )
    front = cameras(tmp_path / "front", ("eval", "x", [i for i in range(200) if i % 4 < 2]))
    code, told, _ = drops(capsys, front, old, "correct mean by label drop <= 0")
    assert (code, told["eval x", "cat"]) == (0, ("passed", 50, lacking.replace("100", "50")))
    code, told, _ = drops(capsys, front, old, "correct mean by cam,label drop <= 0")
    assert code == 2
    assert {group: outcome for (_, group), (outcome, *_) in told.items()} == {
        "front, cat": "passed",
        "front, dog": "passed",
        "rear, cat": "not asked",
        "rear, dog": "not asked",
    }


def test_values_that_only_the_baseline_has_are_counted(tmp_path, capsys):
    old = cameras(tmp_path / "old", ("eval", "x", range(200)), loss={})
    new = cameras(tmp_path / "new", ("eval", "x", range(150)), loss={0: float("nan"), 1: float("inf")})
    _, told, _ = drops(capsys, new, old, "loss mean drop <= 0")
    outcome, n, reason = told["eval x", ""]
    assert (outcome, n) == ("passed", 148)
    assert "50 samples of the baseline are not in this run" in reason
    assert "2 samples of the baseline have no finite loss in this run" in reason
    cats = {i: float("nan") for i in range(0, 200, 2)}
    lost = cameras(tmp_path / "lost", ("eval", "x", range(200)), loss=cats)
    code, told, _ = drops(capsys, lost, old, "loss mean by label drop <= 0")
    gone = "100 samples of the baseline have no finite loss in this run, and not compared"
    why = f"{gone}; 100 values are not finite, and not judged"
    assert (code, told) == (2, {("eval x", "dog"): ("passed", 100, ""), ("eval x", "cat"): ("not asked", 0, why)})
    found = asked(capsys, lost, "--baseline", old, "--rule", "loss mean by label drop <= 0")[1]
    assert [row["group"] for row in found["rows"]] == ["dog", "cat"], "one verdict of each"
    _, told, _ = drops(capsys, old, new, "loss mean drop <= 0")
    assert "50 samples are not in the baseline" in told["eval x", ""][2]
    assert "2 samples have no finite loss in the baseline" in told["eval x", ""][2]


def test_the_way_to_rows_that_were_taken_back_is_one_there_is(tmp_path, capsys):
    for loss in (1.0, 2.0):
        with xaicli.Run(tmp_path / "run") as run:
            run.log_samples(sample_id=range(3), label=[0, 1, 1], loss=[loss] * 3, mode="train", epoch=1, step=1)
    way = "xai info, samples and most others count them with --attempts all"
    said = f"attempt 1 took back 3 rows of attempt 0 from epoch 1, step 1 on: {way}"
    assert asked(capsys, tmp_path / "run", "--rule", "loss mean < 9")[1]["warnings"][0] == said
    assert main(["watch", str(tmp_path / "run"), "--once", "--json"]) == 0
    assert said in json.loads(capsys.readouterr().out)["warnings"]
    for command in ("info", "samples"):
        assert main([command, str(tmp_path / "run"), "--attempts", "all", "--json"]) == 0
        counts = json.loads(capsys.readouterr().out)["counts"]
        assert (counts["rows"] + (counts["duplicates"] if command == "samples" else 0), counts["taken_back"]) == (6, 0)
    options = ["--rule", "loss mean < 9", "--format", "html", "--output", str(tmp_path)]
    assert main(["check", str(tmp_path / "run"), *options]) == 0
    assert f"3; {way}" in (tmp_path / "check.html").read_text()


def test_limits_beside_a_drop_are_judged_without_the_baseline(tmp_path, capsys):
    every = range(200)
    new = cameras(tmp_path / "new", ("eval", "x", every), ("eval", "y", every))
    old = cameras(tmp_path / "old", ("eval", "x", every))
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nmetric = "correct"\nleast = 0.9\nlargest_drop = 0\n')
    for baseline, of_x in ((old, ["passed", "passed"]), (tmp_path / "none", ["passed", "not asked"])):
        code, found = asked(capsys, new, "--baseline", baseline, "--rules", rules)
        assert code == 2
        assert [row["outcome"] for row in found["rows"] if row["ds_id"] == "x"] == of_x
        assert [row["outcome"] for row in found["rows"] if row["ds_id"] == "y"] == ["passed", "not asked"]


def test_a_condition_that_one_data_set_does_not_meet_leaves_the_other(tmp_path, capsys):
    run = cameras(tmp_path / "run", ("eval", "x", range(200)), ("eval", "y", range(0, 200, 2)))
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nmetric = "correct"\nwhere = "label = 1"\nleast = 0.9\n')
    code, found = asked(capsys, run, "--rules", rules)
    assert code == 2
    assert [(row["ds_id"], row["outcome"], row["n"]) for row in found["rows"]] == [
        ("x", "passed", 100),
        ("y", "not asked", 0),
    ]


def test_counts_can_be_asked_of_labels_and_predictions_alone(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        for _ in range(2):
            run.log_samples(sample_id=[0, 1, 2], label=[0, 1, 0], prediction=[0, 1, 1], mode="eval", epoch=1)
    rules = ("duplicates <= 5", "duplicates <= 2", "non_finite <= 0", "ece <= 1")
    _, found = asked(capsys, tmp_path / "run", *(word for rule in rules for word in ("--rule", rule)))
    assert [(row["outcome"], row["value"]) for row in found["rows"]] == [
        ("passed", 3),
        ("failed", 3),
        ("passed", 0),
        ("not asked", None),
    ]
    assert "no top_prob was recorded" in found["rows"][3]["reason"]


def run_with_losses_that_are_not_finite(path):
    """Two losses of `train` are NaN and one cost is infinite, of 100 rows; of `eval` one row repeats."""
    with xaicli.Run(path) as run:
        for mode, ids in (("train", np.arange(100)), ("eval", np.append(np.arange(100, 110), 109))):
            loss, cost = np.ones(len(ids)), np.ones(len(ids))
            if mode == "train":
                loss[[3, 7]], cost[7] = np.nan, np.inf
            run.log_samples(sample_id=ids, label=ids % 2, prediction=ids % 2, loss=loss, cost=cost, mode=mode, epoch=1)
    return path


def test_counts_are_of_the_whole_run_where_no_mode_is_named_and_say_of_what(tmp_path, capsys):
    path = run_with_losses_that_are_not_finite(tmp_path / "run")
    asking = ("--rule", "non_finite <= 0", "--rule", "duplicates <= 0", "--rule", "dropped <= 0")
    code, found = asked(capsys, path, *asking)
    assert code == 1
    told = [(row["outcome"], row["value"], row["mode"], row["reason"]) for row in found["rows"]]
    assert told == [
        ("failed", 3, "train,eval", "values of every metric: loss 2, cost 1"),
        ("failed", 1, "train,eval", "rows"),
        ("passed", 0, None, "rows of the whole run"),
    ]
    code, found = asked(capsys, path, *asking, "--mode", "eval")
    assert [(row["outcome"], row["value"], row["mode"]) for row in found["rows"]] == [
        ("passed", 0, "eval"),
        ("failed", 1, "eval"),
        ("passed", 0, None),
    ]
    assert "whichever mode" in found["rows"][2]["reason"]
    (tmp_path / "rules.toml").write_text('[[rule]]\ncount = "non_finite"\nmost = 2\nmode = "train"\n')
    code, found = asked(capsys, path, "--rules", tmp_path / "rules.toml")
    assert [(row["outcome"], row["value"], row["mode"]) for row in found["rows"]] == [("failed", 3, "train")]


@pytest.mark.parametrize("n_files", [1, 2])
def test_info_counts_values_that_are_not_finite(tmp_path, n_files):
    path = run_with_losses_that_are_not_finite(tmp_path / "run")
    if n_files == 2:
        with xaicli.Run(path) as run:
            run.log_samples(sample_id=[200, 201], loss=[float("nan"), 1.0], mode="eval", epoch=1)
    assert xaicli.open_run(path).info().answer.counts.non_finite == 3 + (n_files == 2)


def test_a_calibration_error_says_what_it_leaves_out(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        sure = np.where(np.arange(40) < 10, np.nan, 1.0)
        zeros = np.zeros(40, int)
        run.log_samples(sample_id=np.arange(40), label=zeros, prediction=zeros, top_prob=sure, mode="eval", epoch=1)
    _, found = asked(capsys, tmp_path / "run", "--rule", "ece <= 0.5")
    assert (found["rows"][0]["outcome"], found["rows"][0]["value"]) == ("passed", 0)
    assert "10 of 40 samples of eval have no finite top_prob" in found["rows"][0]["reason"]
    assert [found["rows"][0][key] for key in ("n", "epoch", "pass")] == [30, 1, 0]


def test_a_calibration_error_is_of_each_data_set_by_itself(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        for ds_id, n, sure in (("a", 20, 0.75), ("b", 30, 0.5)):
            zeros = np.zeros(n, int)
            how = {"label": zeros, "prediction": zeros, "top_prob": np.full(n, sure), "mode": "eval", "epoch": 1}
            run.log_samples(sample_id=np.arange(n), ds_id=ds_id, **how)
    _, found = asked(capsys, tmp_path / "run", "--rule", "ece <= 0.5")
    told = [tuple(row[key] for key in ("ds_id", "value", "n", "epoch", "outcome")) for row in found["rows"]]
    assert told == [("a", 0.25, 20, 1, "passed"), ("b", 0.5, 30, 1, "passed")]
    _, found = asked(capsys, tmp_path / "run", "--rule", "ece <= 0.3")
    assert [row["outcome"] for row in found["rows"]] == ["passed", "failed"]
    _, found = asked(capsys, tmp_path / "run", "--rule", "ece <= 0.5", "--ds-id", "a")
    (row,) = found["rows"]
    assert (row["value"], row["n"], row["epoch"]) == (0.25, 20, 1)


@pytest.mark.parametrize(
    ("task", "label", "said"),
    [
        ("multilabel", [[0], [1, 2]], "sets of classes"),
        ("regression", [0.5, 1.5], "numbers"),
    ],
)
def test_a_calibration_error_of_another_task_says_why_it_cannot_be_asked(tmp_path, capsys, task, label, said):
    with xaicli.Run(tmp_path / "run", task=task) as run:
        outputs = {"logits": np.zeros((2, 3))} if task == "multilabel" else {"prediction": [0.0, 1.0]}
        run.log_samples(sample_id=[0, 1], label=label, **outputs, mode="eval", epoch=1)
    code, found = asked(capsys, tmp_path / "run", "--rule", "ece <= 0.5")
    (row,) = found["rows"]
    assert (code, row["outcome"]) == (2, "not asked")
    assert f"the labels here are {said}" in row["reason"]
    assert "was recorded" not in row["reason"]


def small(path, ids, label, right, names=("cat", "dog")):
    with xaicli.Run(path, label_names=list(names)) as run:
        prediction = [one if good else 1 - one for one, good in zip(label, right, strict=True)]
        run.log_samples(sample_id=ids, label=label, prediction=prediction, mode="eval", epoch=1)
    return path


def test_a_baseline_of_other_ids_cannot_be_asked_and_the_other_rules_can(tmp_path, capsys):
    new = small(tmp_path / "new", [0, 1, 2, 3], [0, 1, 0, 1], [True] * 4)
    old = small(tmp_path / "old", ["0", "1", "2", "3"], [0, 1, 0, 1], [True] * 4)
    rules = ["--rule", "correct mean drop <= 0", "--rule", "correct mean >= 1"]
    code, found = asked(capsys, new, "--baseline", old, *rules)
    assert code == 2
    assert [row["outcome"] for row in found["rows"]] == ["not asked", "passed"]
    assert found["rows"][0]["reason"] == "the sample ids of the baseline are texts, those of this run numbers"


def test_samples_whose_label_is_another_in_the_baseline_are_told(tmp_path, capsys):
    new = small(tmp_path / "new", [0, 1, 2, 3], [0, 1, 0, 1], [True] * 4)
    corrected = small(tmp_path / "corrected", [0, 1, 2, 4], [0, 0, 1, 1], [True] * 4)
    renamed = small(tmp_path / "renamed", [0, 1, 2, 3], [1, 0, 1, 0], [True] * 4, names=("dog", "cat"))
    rule = ["--rule", "correct mean drop <= 0"]
    (row,) = asked(capsys, new, "--baseline", corrected, *rule)[1]["rows"]
    assert row["n"] == 3
    assert "2 of them have another label in the baseline" in row["reason"]
    (row,) = asked(capsys, new, "--baseline", renamed, *rule)[1]["rows"]  # the same labels, counted in another order
    assert row["reason"] == ""


def test_strict_drop_without_a_drop_is_said(runs, capsys):
    _, found = asked(capsys, runs["new"][0], "--rule", "correct mean >= 0", "--strict-drop")
    assert found["warnings"] == ["no rule is about a drop: --strict-drop changes nothing"]


def test_each_limit_of_a_named_rule_is_a_case_of_its_own(runs, capsys, tmp_path):
    rules, file = tmp_path / "rules.toml", tmp_path / "junit.xml"
    rules.write_text('[[rule]]\nname = "labels"\nmetric = "correct"\nby = "label"\nleast = 0.9\nlargest_drop = 0.02\n')
    twice = ["--rule", "correct mean >= 0.99", "--rule", "correct mean >= 0.99"]
    new, old = runs["new"][0], runs["old"][0]
    assert main(["check", str(new), "--rules", str(rules), *twice, "--baseline", str(old), "--junit", str(file)]) == 1
    assert "drop <= 0.02" in capsys.readouterr().out  # the name alone does not say it
    cases = ElementTree.fromstring(file.read_text()).findall("testcase")
    names = [case.get("name") for case in cases]
    assert len(names) == len(set(names)) == 8
    assert {"labels [cat] (>= 0.9)", "labels [cat] (drop <= 0.02)"} <= set(names)
    failures = [failure for case in cases for failure in case.findall("failure")]
    assert failures
    assert {failure.get("type") for failure in failures} == {"failed"}


def test_remarks_stand_behind_numbers(runs, capsys, tmp_path):
    path, right = runs["new"]
    good = [i for i in range(N) if right[i]]
    (tmp_path / "golden.txt").write_text(f"# the best\n{good[0]}\n{good[1]} # blurred\n#{good[2]}\n")
    _, found = asked(capsys, path, "--rule", f"no sample of {tmp_path / 'golden.txt'} is wrong")
    (row,) = found["rows"]
    assert (row["outcome"], row["n"]) == ("passed", 2)


@pytest.mark.parametrize(("largest", "smallest"), [("max", "min"), ("p100", "p0"), ("p100.0", "p0.0")])
def test_the_samples_beyond_a_limit_are_named_by_every_word_for_it(tmp_path, capsys, largest, smallest):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=["a", "", "c"], loss=[1.0, 5.0, 4.0], mode="eval", epoch=1)
    code, found = asked(capsys, tmp_path / "run", "--rule", f"loss {largest} < 4", "--rule", f"loss {smallest} >= 4.5")
    assert (code, [row["failing"] for row in found["rows"]]) == (1, [["", "c"], ["a", "c"]])
    assert found["rows"][0]["reason"] == 'samples "", c'


@pytest.mark.parametrize(
    ("logged", "rule", "code"),
    [
        (0.1, "loss max <= 0.1", 0),
        (0.1, "loss mean <= 0.1", 0),
        (0.1, "loss p50 >= 0.1", 0),
        (0.1, "loss max < 0.1", 1),
        (0.7, "loss min >= 0.7", 0),  # the nearest number of 32 bits is smaller
        (0.7, "loss max < 0.7", 1),
        (0.7, "loss p100 < 0.7", 1),
        (0.1001, "loss max <= 0.1", 1),
        (0.0999, "loss min >= 0.1", 1),
    ],
)
def test_a_limit_is_what_the_column_would_hold_for_it(tmp_path, capsys, logged, rule, code):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], loss=np.array([logged, logged], np.float32), mode="eval", epoch=1)
    found = asked(capsys, tmp_path / "run", "--rule", rule)
    assert found[0] == code
    (row,) = found[1]["rows"]
    assert row["failing"] == ([1, 2] if code else [])


def test_numbers_of_64_bits_are_compared_as_they_are(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run", float64="weight") as run:
        run.log_samples(sample_id=[1], mode="eval", epoch=1, weight=np.array([0.1 + 1e-12]))
    assert asked(capsys, tmp_path / "run", "--rule", "weight max <= 0.1")[0] == 1
    assert asked(capsys, tmp_path / "run", "--rule", "weight n <= 1")[0] == 0


def test_remarks_are_lines_of_text_and_no_ids_of_a_list(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=["# r", "b"], label=[0, 0], prediction=[1, 0], mode="eval", epoch=1)
    rule = "sample_id = '# r'"
    for kind in ("csv", "txt", "json"):
        file = tmp_path / f"wrong.{kind}"
        assert main(["select", str(tmp_path / "run"), "--rule", rule, "-o", str(file), "-q"]) == 0
        capsys.readouterr()
        code, found = asked(capsys, tmp_path / "run", "--rule", f"no sample of {file} is wrong")
        assert (code, found["rows"][0]["failing"]) == (1, ["# r"])
    (tmp_path / "own.txt").write_text("# r is a remark\nb\n")
    code, found = asked(capsys, tmp_path / "run", "--rule", f"no sample of {tmp_path / 'own.txt'} is wrong")
    assert (code, found["rows"][0]["n"]) == (0, 1)


@pytest.mark.parametrize(
    ("n", "ends", "said"),
    [
        (30, "os.kill(os.getpid(), signal.SIGKILL)", "has 30 of the 100 samples of the one before; the run died"),
        (30, "run.close()", "has 30 of the 100 samples of the one before"),
        (100, "os.kill(os.getpid(), signal.SIGKILL)", ""),
    ],
)
def test_a_part_of_a_pass_is_judged_with_a_word(tmp_path, capsys, n, ends, said):
    code = f"""
import os, signal, xaicli
run = xaicli.Run({str(tmp_path / "run")!r})
for epoch, n, loss in ((1, 100, 3.0), (2, {n}, 0.5)):
    run.log_samples(sample_id=range(n), loss=[loss] * n, mode="eval", epoch=epoch, step=epoch)
run.flush()
{ends}
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    junit = tmp_path / "junit.xml"
    status, found = asked(capsys, tmp_path / "run", "--rule", "loss mean < 1", "--junit", junit)
    assert (status, [row["n"] for row in found["rows"]]) == (0, [n])
    told = [one for one in found["warnings"] if "samples of the one before" in one]
    assert told == ([f"the last pass of eval {said}"] if said else [])
    assert main(["check", str(tmp_path / "run"), "--rule", "loss mean < 1", "-o", str(tmp_path), "--format", "md"]) == 0
    page = capsys.readouterr()
    for text in (junit.read_text(), next(tmp_path.glob("*.md")).read_text(), page.out + page.err):
        assert ("30 of the 100 samples of the one before" in " ".join(text.split())) is bool(said)
    best = asked(capsys, tmp_path / "run", "--rule", "loss mean at best < 9")[1]
    assert any("of the one before" in one for one in best["warnings"]) is bool(said)


def test_a_part_of_a_pass_while_recording_and_in_a_baseline(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        for epoch, n in ((1, 100), (2, 40)):
            run.log_samples(sample_id=range(n), loss=[1.0] * n, mode="eval", epoch=epoch, step=epoch)
        run.flush()
        found = asked(capsys, tmp_path / "run", "--rule", "loss mean < 2")[1]
        said = "the last pass of eval has 40 of the 100 samples of the one before; the run is still recording"
        assert said in found["warnings"]
    with xaicli.Run(tmp_path / "new") as run:
        run.log_samples(sample_id=range(100), loss=[1.0] * 100, mode="eval", epoch=1, step=1)
    found = asked(capsys, tmp_path / "new", "--baseline", tmp_path / "run", "--rule", "loss mean drop <= 0.1")[1]
    assert "in the baseline: the last pass of eval has 40 of the 100 samples of the one before" in found["warnings"]


@pytest.mark.parametrize("way", ["json", "table", "quiet"])
@pytest.mark.parametrize(("rule", "failed", "outcome"), [(">= 0.5", 0, "passed"), (">= 0.99", 1, "failed")])
def test_the_verdicts_come_where_junit_cannot_be_written(runs, tmp_path, capsys, way, rule, failed, outcome):
    """A file that cannot be written is a fault (exit 1), and the error says whether a rule failed, too."""
    path, right = runs["new"]
    (tmp_path / "taken").write_text("no folder")
    for number, junit in enumerate((tmp_path / "taken" / "j.xml", tmp_path)):
        files = ["--junit", str(junit), "--format", "md", "-o", f"{tmp_path}/{number}"]
        options = ["--rule", f"correct mean {rule}", *files]
        ways = {"json": ["--json"], "table": [], "quiet": ["-q"]}[way]
        assert main(["check", str(path), *options, *ways]) == 1
        out, err = capsys.readouterr()
        assert f"error: {junit} cannot be written: " in err
        assert ("; no rule failed" in err) is not bool(failed)
        assert ("; 1 verdict failed" in err) is bool(failed)
        assert "hint: name another file" in err
        written = tmp_path / str(number) / "check.md"
        assert outcome in written.read_text()
        if way == "json":
            found = json.loads(out)
            assert found["outputs"] == [str(written)]
            assert found["rows"][0]["value"] == pytest.approx(right.mean())
            assert (found["rows"][0]["outcome"], found["exit"]) == (outcome, failed)
        else:
            assert (outcome in out) is (way == "table")
            assert str(written) in out


def test_a_page_of_a_check_that_cannot_be_written(runs, tmp_path, capsys):
    path, _ = runs["new"]
    (tmp_path / "taken").write_text("no folder")
    junit = tmp_path / "j.xml"
    options = ["--format", "md", "-o", str(tmp_path / "taken"), "--junit", str(junit), "--json"]
    for rule, said in (("correct mean >= 0.5", "no rule failed"), ("correct mean >= 0.99", "1 verdict failed")):
        assert main(["check", str(path), "--rule", rule, *options]) == 1
        out, err = capsys.readouterr()
        assert json.loads(out)["outputs"] == [str(junit)]
        assert f"error: {tmp_path / 'taken'} cannot be written" in err
        assert said in err
        assert junit.is_file()


def test_a_metric_that_is_spelt_wrong_is_told_with_the_one_that_may_be_meant(runs, capsys):
    path, _ = runs["new"]
    code, found = asked(capsys, path, "--rule", "los mean <= 1", "--rule", "correct mean by tine >= 0")
    assert code == 2
    reasons = [row["reason"] for row in found["rows"]]
    assert reasons[0] == f"no metric 'los' in {path}: did you mean loss?"
    assert reasons[1].endswith("did you mean time?")


def test_allowed_wrong_ones_are_no_leave_for_ids_that_no_data_set_has(tmp_path, capsys):
    (tmp_path / "golden.txt").write_text("1\n2\n11\n12\n99\n")
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nsamples = "golden.txt"\nmost = 1\n')
    for name, sets in (("both", ("a", "b")), ("one", ("a",))):
        with xaicli.Run(tmp_path / name) as run:
            for at, ds_id in enumerate(sets):
                ids = np.arange(1, 5) + 10 * at if len(sets) > 1 else np.arange(1, 13)
                right = np.ones(len(ids), int)
                right[0] = 0
                how = {"label": np.ones(len(ids), int), "prediction": right, "mode": "eval", "epoch": 1}
                run.log_samples(sample_id=ids, ds_id=ds_id, **how)
        code, found = asked(capsys, tmp_path / name, "--rules", str(rules))
        told = [(row["ds_id"], row["outcome"], row["value"]) for row in found["rows"]]
        whole = [("a", "passed", 1), ("b", "passed", 1), (None, "failed", 1)]
        assert (code, told) == (1, whole if len(sets) > 1 else [("a", "failed", 2)])
    (tmp_path / "golden.txt").write_text("1\n2\n11\n12\n")
    assert [asked(capsys, tmp_path / name, "--rules", str(rules))[0] for name in ("both", "one")] == [0, 0]


def test_a_run_without_eval_says_what_is_judged(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        known = {"label": [0, 1, 1, 0], "prediction": [0, 1, 1, 1], "loss": [1.0, 2.0, 3.0, 4.0]}
        run.log_samples(sample_id=range(4), mode="train", epoch=1, **known)
    told = "the run has no eval rows: judging train"
    rules = ["--rule", "correct mean >= 0.5", "--rule", "loss max <= 4"]
    code, found = asked(capsys, tmp_path / "run", *rules)
    assert (code, [(row["mode"], row["value"]) for row in found["rows"]]) == (0, [("train", 0.75), ("train", 4.0)])
    assert found["warnings"].count(told) == 1
    for how in ([*rules, "--mode", "train"], ["--rule", "dropped <= 0"], ["--rule", "duplicates <= 0"]):
        code, found = asked(capsys, tmp_path / "run", *how)
        assert (code, told in found["warnings"]) == (0, False)


@pytest.mark.parametrize("private", ["flag", "variable", "file"])
def test_without_facts_no_file_tells_of_them(tmp_path, monkeypatch, capsys, private):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([0, 1], camera=["front-left", "rear"])
        run.log_samples(sample_id=[0, 1], label=[0, 1], loss=[1.0, 2.0], mode="eval", epoch=1)
    monkeypatch.chdir(tmp_path)
    words = ["check", "run", "--rule", "loss max <= 1.5", "--format", "html,md,csv,json", "-o", "out"]
    assert main(words) == 1
    assert "rear" in capsys.readouterr().out
    assert all("rear" in (tmp_path / "out" / f"check.{kind}").read_text() for kind in ("html", "md", "json"))
    if private == "variable":
        monkeypatch.setenv("XAI_NO_FACTS", "1")
    elif private == "file":
        (tmp_path / "xai.toml").write_text("no_facts = true\n")
    flag = ["--no-facts"] if private == "flag" else []
    assert main([*words, *flag]) == 1
    told = capsys.readouterr().out
    told += "".join((tmp_path / "out" / f"check.{kind}").read_text() for kind in ("html", "md", "csv", "json"))
    assert "rear" not in told
    assert "camera" not in told
    assert main(["check", "run", "--rule", "loss mean by camera <= 1.5", "--json", *flag]) == 2
    assert "no column or fact 'camera'" in capsys.readouterr().out
    (tmp_path / "rules.toml").write_text('[[rule]]\nmetric = "loss"\nmost = 1.5\nwhere = "loss > 1.2"\n')
    assert main(["check", "run", "--rules", "rules.toml", "--json", *flag]) == 1
    assert "camera" not in capsys.readouterr().out


def test_spikes_of_a_run_without_train_say_whose_they_are(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        for step in range(40):
            loss = 1.0 + 0.01 * (step % 5) + 9 * (step == 30)
            run.log_samples(sample_id=[step], label=[0], loss=[loss], mode="eval", epoch=1, step=step)
    told = "the run has no train rows: the spikes are those of eval"
    code, found = asked(capsys, tmp_path / "run", "--rule", "spikes <= 0")
    assert (code, found["rows"][0]["mode"], found["rows"][0]["value"]) == (1, "eval", 1)
    assert told in found["warnings"]
    code, found = asked(capsys, tmp_path / "run", "--rule", "spikes <= 0", "--mode", "eval")
    assert (code, found["rows"][0]["value"], told in found["warnings"]) == (1, 1, False)
    opened = xaicli.open_run(tmp_path / "run")
    assert "the run has no train rows: showing eval" in opened.steps().answer.warnings
    assert "the run has no train rows: showing eval" not in opened.steps(mode="eval").answer.warnings


def test_spikes_of_several_metrics_without_a_loss_cannot_be_asked(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=range(9), label=[0] * 9, dice=[0.5] * 9, iou=[0.5] * 9, mode="train", epoch=1)
    code, found = asked(capsys, tmp_path / "run", "--rule", "spikes <= 0")
    assert (code, found["rows"][0]["reason"]) == (2, "no loss was recorded: spikes are its rises")


def test_junit_is_no_standard_output(runs, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from xaicli.cli import main

    assert main(["check", str(runs["new"][0]), "--rule", "dropped <= 0", "--junit", "-"]) == 2
    assert "--junit - is no file" in capsys.readouterr().err
    assert not (tmp_path / "-").exists()


@pytest.mark.parametrize("place", [0.3, 0.6])
def test_damaged_files_are_those_that_the_doctor_names_whatever_is_asked_first(tmp_path, capsys, place):
    recorded(tmp_path / "run", 0.05)
    file = next((tmp_path / "run/data").glob("**/epoch=2/*.parquet"))
    content = bytearray(file.read_bytes())
    content[int(len(content) * place)] ^= 0x5A
    file.write_bytes(content)
    (finding,) = (one.path for one in examine(RunLayout(tmp_path / "run")).findings)
    for rules in (["damaged"], ["damaged", "non_finite"], ["non_finite", "damaged"], ["ece", "damaged", "spikes"]):
        code, found = asked(capsys, tmp_path / "run", *(f"--rule={rule} <= 0" for rule in rules))
        row = found["rows"][rules.index("damaged")]
        assert (code, row["rule"], row["outcome"], row["value"]) == (1, "damaged <= 0", "failed", 1), rules
        assert found["counts"]["damaged"] == [finding]
    assert main(["check", str(tmp_path / "run"), "--rule", "damaged <= 0", "--strict"]) == 1
    assert f"{finding} is damaged" in capsys.readouterr().err


def test_a_file_that_is_said_to_be_left_out_is_judged_by_no_rule(tmp_path, capsys):
    """Whichever of its columns is damaged: that of the loss here, and the rules are about others."""
    right = {epochs: recorded(tmp_path / f"of {epochs}", 0.05, epochs=epochs) for epochs in (1, 2)}
    run = tmp_path / "of 2"
    file = next((run / "data").glob("**/epoch=2/*.parquet"))
    content, group = bytearray(file.read_bytes()), pq.read_metadata(file).row_group(0)
    (loss,) = (one for one in map(group.column, range(group.num_columns)) if one.path_in_schema == "loss")
    content[loss.data_page_offset + loss.total_compressed_size // 2] ^= 0x5A
    file.write_bytes(content)
    said = "epoch 2 of eval is left out, see xai doctor: epoch 1 is judged as the last"
    limited = tmp_path / "rules.toml"
    limited.write_text("[[rule]]\nmetric = 'correct'\nleast = 0.1\nwhere = \"time = 'day'\"\n")
    by_line = ("--rule=damaged <= 0", "--rule=correct mean >= 0.1", "--rule=ece <= 1")
    for rules in (by_line[:2], by_line[1::-1]):
        code, found = asked(capsys, run, *rules)
        (row,) = (row for row in found["rows"] if row["rule"].startswith("correct"))
        assert (code, row["epoch"], row["value"]) == (1, 1, pytest.approx(right[1].mean()))
        assert said in found["warnings"]
        assert len(found["counts"]["damaged"]) == 1
    assert right[1].mean() != right[2].mean()
    found = asked(capsys, run, by_line[0], "--rules", limited)[1]
    assert [row["outcome"] for row in found["rows"]] == ["not asked", "failed"], "no row of the last epoch is there"
    (row,) = asked(capsys, run, by_line[1])[1]["rows"]  # what it reads is whole
    assert (row["epoch"], row["value"]) == (2, pytest.approx(right[2].mean()))


@pytest.mark.parametrize("what", ["file", "column"])
def test_an_epoch_that_stands_for_a_damaged_one_is_told(tmp_path, capsys, what):
    recorded(tmp_path / "run", 0.05, epochs=3)
    file = next((tmp_path / "run/data").glob("**/epoch=3/*.parquet"))
    content = bytearray(file.read_bytes())
    if what == "column":
        group = pq.read_metadata(file).row_group(0)
        (loss,) = (one for one in map(group.column, range(group.num_columns)) if one.path_in_schema == "loss")
        content[loss.data_page_offset + loss.total_compressed_size // 2] ^= 0x5A
    file.write_bytes(content if what == "column" else b"")
    said = "epoch 3 of eval is left out, see xai doctor: epoch 2 is judged as the last"
    code, found = asked(capsys, tmp_path / "run", "--rule", "loss mean < 9")
    assert (code, found["rows"][0]["epoch"], found["warnings"]) == (0, 2, [said])
    recorded(tmp_path / "new", 0.05)
    found = asked(capsys, tmp_path / "new", "--rule", "loss mean drop < 9", "--baseline", tmp_path / "run")[1]
    lost = f"1 damaged file left out, see xai doctor: {file.relative_to(tmp_path / 'run').as_posix()}"
    assert found["warnings"] == [f"in the baseline: {said}", f"in the baseline: {lost}"]


def test_a_training_that_died_is_told_where_its_last_pass_is_whole(tmp_path, capsys):
    with contextlib.suppress(RuntimeError), xaicli.Run(tmp_path / "died") as run:
        run.log_samples(sample_id=range(3), loss=[1.0] * 3, mode="eval", epoch=1)
        raise RuntimeError
    with xaicli.Run(tmp_path / "ended") as run:
        run.log_samples(sample_id=range(3), loss=[1.0] * 3, mode="eval", epoch=1)
        running = asked(capsys, tmp_path / "ended", "--rule", "loss mean < 2")[1]
    code, died = asked(capsys, tmp_path / "died", "--rule", "loss mean < 2")
    ended = asked(capsys, tmp_path / "ended", "--rule", "loss mean drop < 2", "--baseline", tmp_path / "died")[1]
    assert code == 0
    assert [(one["state"], one["ended_by"], one["warnings"]) for one in (running, died, ended)] == [
        ("running", "", []),
        ("crashed", "RuntimeError", ["the training has died of RuntimeError"]),
        ("finished", "", ["in the baseline: the training has died of RuntimeError"]),
    ]


def test_one_table_of_rules_is_told_from_a_list(tmp_path, runs, capsys):
    (tmp_path / "rules.toml").write_text('[rule]\nmetric = "loss"\nmost = 1\n')
    assert main(["check", str(runs["new"][0]), "--rules", str(tmp_path / "rules.toml")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "hint: write [[rule]] before each rule"


def test_groups_of_a_truth_value_are_called_as_everywhere(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts(range(40), night=[i % 4 == 0 for i in range(40)])
        run.log_samples(sample_id=range(40), label=[0] * 40, loss=[float(i % 4 == 0) for i in range(40)], mode="eval")
    opened = xaicli.open_run(tmp_path / "run")
    grouped = [row["name"] for row in opened.labels(label_key="night").data.to_dicts()]
    chosen = opened.select(rule="balanced", by="night", n=8, mode="eval").answer.extra["mix"]
    assert {row["value"] for row in chosen if row["column"] == "night"} == {*grouped}
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\nmetric = "loss"\nmost = 0.5\nby = "night"\nallow = [{ value = true, most = 1.0, reason = "dark" }]\n'
    )
    code, found = asked(capsys, tmp_path / "run", "--rules", rules)
    assert code == 0
    assert [(row["group"], row["outcome"]) for row in found["rows"]] == [("false", "passed"), ("true", "allowed")]
    assert grouped == ["false", "true"]


def test_facts_of_a_baseline_that_go_by_another_name_are_told(tmp_path, capsys):
    for name, fact in (("run", "camera"), ("old", "step")):
        with xaicli.Run(tmp_path / name) as run:
            run.log_facts(range(40), **{fact: ["a", "b"] * 20})
            run.log_samples(sample_id=range(40), label=[0] * 40, loss=[1.0] * 40, mode="eval", epoch=1)
    (tmp_path / "f.csv").write_text("sample_id,epoch,a,a\n" + "".join(f"{i},1,2,3\n" for i in range(40)))
    drop = ["--rule", "loss mean drop <= 0.1", "--baseline", tmp_path / "old", "--facts", tmp_path / "f.csv"]
    _, found = asked(capsys, tmp_path / "run", *drop)
    assert [words for words in found["warnings"] if "called" in words] == [
        "the fact epoch is called fact_epoch: a column of the rows has its name",
        "f.csv has several columns a: the next is called a_2",
        "in the baseline: the fact step is called fact_step: a column of the rows has its name",
    ]


def test_a_mode_named_that_has_no_such_data_set_is_not_asked(tmp_path, capsys):
    """What another mode passes does not stand for it, whatever the rule asks: a metric, a count or listed samples."""
    root = tmp_path / "run"
    with xaicli.Run(root) as run:
        for mode, ds_id, score in (("train", "", -3.0), ("eval", "day", 3.0)):
            logits = np.eye(2, dtype=np.float32)[[0, 1]] * score
            run.log_samples(sample_id=[1, 2], label=[0, 1], logits=logits, mode=mode, ds_id=ds_id, epoch=1, step=1)
    (tmp_path / "gold.txt").write_text("1\n2\n")
    (tmp_path / "r.toml").write_text(
        '[[rule]]\nmetric = "correct"\nleast = 0.5\nmode = ["train", "eval"]\nds_id = "day"\n'
        '[[rule]]\nsamples = "gold.txt"\nmode = ["train", "eval"]\nds_id = "day"\n'
        '[[rule]]\ncount = "dropped"\nmost = 0\n'
    )
    for words, rules in (
        (["--rules", str(tmp_path / "r.toml")], 2),
        (["--mode", "train,eval", "--ds-id", "day", "--rule", "correct mean >= 0.5", "--rule", "non_finite <= 0"], 2),
        (["--mode", "train,eval", "--ds-id", "day", "--rule", "duplicates <= 0", "--rule", "ece <= 1"], 2),
    ):
        status, found = asked(capsys, root, *words)
        rows = found["rows"]
        assert status == 2
        assert [(row["mode"], row["reason"]) for row in rows if row["outcome"] == "not asked"] == [
            ("train", "no ds_id 'day' in train")
        ] * rules
        assert {row["mode"] for row in rows if row["outcome"] == "passed"} <= {"eval", None}
    # All modes are those that have it.
    assert asked(capsys, root, "--mode", "all", "--ds-id", "day", "--rule", "correct mean >= 0.5")[0] == 0
    assert asked(capsys, root, "--mode", "train,eval", "--ds-id", "day", "--rule", "dropped <= 0")[0] == 0
