"""`xai slices` on recorded runs with planted slices, against plain Python."""

import json
import shutil

import numpy as np
import pytest

import xaicli
from xaicli.cli import main
from xaicli.errors import XaiError

N = 4000


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Night pictures are worse: (path, {name: values by sample})."""
    path = tmp_path_factory.mktemp("slices") / "run"
    rng = np.random.default_rng(0)
    data = {
        "time": rng.choice(["day", "dusk", "night"], N, p=[0.7, 0.25, 0.05]),
        "camera": rng.choice(["a", "b", "c"], N),
        "bright": rng.uniform(size=N).round(4),
        "label": rng.integers(0, 3, N),
    }
    bad = data["time"] == "night"
    data["loss"] = (rng.exponential(size=N) + 2 * bad).astype(np.float32)
    data["prediction"] = np.where(rng.uniform(size=N) < np.where(bad, 0.5, 0.9), data["label"], (data["label"] + 1) % 3)
    with xaicli.Run(path, label_names=["cat", "dog", "owl"]) as run:
        run.log_facts(np.arange(N), time=data["time"].tolist(), camera=data["camera"].tolist(), bright=data["bright"])
        run.log_facts([0], camera=["moved"])
        for epoch in (1, 2):
            run.log_samples(
                sample_id=np.arange(N),
                label=data["label"],
                prediction=data["prediction"],
                loss=data["loss"] if epoch == 2 else np.zeros(N, np.float32),
                mode="eval",
                epoch=epoch,
            )
    return path, data


def asked(capsys, *arguments):
    assert main(["slices", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def facts_of(row):
    return {item["column"]: item["value"] for item in row["facts"]}


def test_the_planted_slice_is_found_first_and_alone(recorded, capsys):
    path, data = recorded
    found = asked(capsys, path)
    worse = [row for row in found["rows"] if row["worse"]]
    assert [facts_of(row) for row in worse] == [{"time": "night"}]
    row, bad = worse[0], data["time"] == "night"
    loss = data["loss"].astype(float)
    wrong = data["label"] != data["prediction"]
    assert row["n"] == bad.sum()
    assert row["mean"] == pytest.approx(loss[bad].mean())
    assert row["difference"] == pytest.approx(loss[bad].mean() - loss[~bad].mean())
    assert row["low"] < 2 < row["high"]
    assert row["wrong"] == (wrong & bad).sum()
    assert row["wrong_share"] == pytest.approx((wrong & bad).sum() / wrong.sum())
    order = sorted(np.flatnonzero(bad).tolist(), key=lambda i: -data["loss"][i])
    assert row["sample_ids"] == order[:20]
    assert found["selection"]["by"] == ["label", "time", "camera", "bright"]
    assert "camera of 1 sample was recorded with several values" in " ".join(found["warnings"])


def test_of_accuracy_the_low_end_is_the_worse(recorded, capsys):
    path, _ = recorded
    worse = [row for row in asked(capsys, path, "--metric", "correct")["rows"] if row["worse"]]
    assert facts_of(worse[0]) == {"time": "night"}
    assert worse[0]["difference"] < -0.3


def test_earlier_epochs_have_their_own_slices(recorded, capsys):
    found = asked(capsys, recorded[0], "--epoch", 1)
    assert found["rows"] == []
    assert found["searched"][0]["looked_at"] > 20


def test_facts_of_a_file(recorded, capsys, tmp_path):
    path, data = recorded
    file = tmp_path / "facts.csv"
    kind = ["odd" if night and i % 2 else "plain" for i, night in enumerate(data["time"] == "night")]
    file.write_text("sample_id,kind\n" + "".join(f"{i},{k}\n" for i, k in enumerate(kind) if i >= 10))
    found = asked(capsys, path, "--facts", file, "--by", "kind")
    worse = [row for row in found["rows"] if row["worse"]]
    assert facts_of(worse[0]) == {"kind": "odd"}
    assert worse[0]["n"] == kind[10:].count("odd")
    found = asked(capsys, path, "--facts", file)
    assert "kind" in found["selection"]["by"]


def test_without_facts_label_and_prediction(tmp_path, capsys):
    rng = np.random.default_rng(1)
    label = rng.integers(0, 4, 2000)
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(
            sample_id=np.arange(2000), label=label, loss=rng.exponential(size=2000) + (label == 2), mode="eval", epoch=1
        )
    found = asked(capsys, tmp_path / "run")
    assert [facts_of(row) for row in found["rows"]] == [{"label": "2"}]
    page = xaicli.open_run(tmp_path / "run").slices().html()
    assert "label 2 is worst" in page


def test_what_cannot_be_asked_is_said(recorded, tmp_path):
    run = xaicli.open_run(recorded[0])
    (tmp_path / "no.csv").write_text("id,a\n1,2\n")
    (tmp_path / "a.txt").write_text("")
    for words, said in (
        ({"by": "colour"}, "colour"),
        ({"min_n": 1}, "--min-n"),
        ({"facts": tmp_path / "no.csv"}, "sample_id"),
        ({"facts": tmp_path / "a.txt"}, ".txt"),
        ({"facts": tmp_path / "gone.csv"}, "gone.csv"),
    ):
        with pytest.raises(XaiError) as error:
            run.slices(**words)
        assert said in error.value.message
    with xaicli.Run(tmp_path / "bare") as other:
        other.log_samples(sample_id=[1, 2], loss=[0.5, 1.5], mode="eval", epoch=1)
    with pytest.raises(XaiError, match="neither facts nor labels"):
        xaicli.open_run(tmp_path / "bare").slices()


def test_labels_that_are_numbers_go_by_fifths(tmp_path, capsys):
    rng = np.random.default_rng(2)
    label = rng.normal(size=1000)
    miss = rng.normal(size=1000) * np.where(label > np.quantile(label, 0.8), 4.0, 0.5)
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        run.log_samples(sample_id=np.arange(1000), label=label, prediction=label + miss, mode="eval", epoch=1)
    found = asked(capsys, tmp_path / "run", "--metric", "abs_error", "--by", "label")
    worse = [row for row in found["rows"] if row["worse"]]
    assert [row["n"] for row in worse] == [200]
    assert worse[0]["facts"][0]["value"].startswith("above ")
    assert worse[0]["mean"] == pytest.approx(abs(miss[label > np.quantile(label, 0.8)]).mean(), rel=1e-5)


@pytest.mark.parametrize(("metric", "is_known"), [("residual", False), ("own", False), ("abs_error", True)])
def test_of_a_metric_whose_good_end_is_unknown_it_is_said(tmp_path, capsys, metric, is_known):
    label = np.arange(200) / 10
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        given = {"label": label, "prediction": label + np.where(label > 15, 2.0, 0.1), "own": label}
        run.log_samples(sample_id=np.arange(200), **given, mode="eval", epoch=1)
    said = f"which end of {metric} is good is not known: the high end is told as the worse one"
    assert (said in asked(capsys, tmp_path / "run", "--metric", metric)["warnings"]) is not is_known


def test_where_nothing_could_be_compared_nothing_is_called_good(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=range(90), label=[0, 1, 2] * 30, loss=[float("nan")] * 90, mode="eval", epoch=1)
    report = xaicli.open_run(tmp_path / "run").slices().report
    assert "nothing was compared" in report.sentence
    assert "No slice is worse" not in xaicli.open_run(tmp_path / "run").slices().html()
    (table,) = xaicli.open_run(tmp_path / "run").slices().save(tmp_path / "out", formats=["csv"])
    (header,) = table.read_text().splitlines()
    assert header.split(",")[:8] == ["slice", "mode", "ds_id", "epoch", "pass", "metric", "n", "share"]


def test_where_no_slice_has_enough_samples_a_program_reads_so(recorded, capsys):
    path, _ = recorded
    said = "loss of eval: no slice has 5,000 samples with a value, and others beside it"
    assert said in asked(capsys, path, "--min-n", 5000)["warnings"]
    assert not [words for words in asked(capsys, path)["warnings"] if "no slice has" in words]


def test_without_facts_kept_inputs_tell_brightness_and_length(tmp_path, capsys):
    rng = np.random.default_rng(9)
    n = 300
    bright = rng.uniform(0.1, 0.9, n)
    pictures = np.clip(bright[:, None, None, None] + rng.normal(0, 0.02, (n, 1, 8, 8)), 0, 1).astype(np.float32)
    loss = rng.exponential(size=n) + 3 * (bright < np.quantile(bright, 0.2))
    with xaicli.Run(tmp_path / "run") as run:
        run.log_inputs(np.arange(n), pictures)
        run.log_samples(sample_id=np.arange(n), label=rng.integers(0, 3, n), loss=loss, mode="eval", epoch=1)
    found = asked(capsys, tmp_path / "run")
    worse = [row for row in found["rows"] if row["worse"]]
    assert list(facts_of(worse[0])) == ["brightness"]
    assert facts_of(worse[0])["brightness"].startswith("up to ")
    assert worse[0]["n"] == pytest.approx(n / 5, abs=6)
    lengths = rng.integers(5, 60, n)
    with xaicli.Run(tmp_path / "texts") as run:
        for i in range(n):
            run.log_inputs([i], np.arange(lengths[i])[None])
        run.log_samples(sample_id=np.arange(n), loss=rng.exponential(size=n) + 3 * (lengths > 48), mode="eval", epoch=1)
    found = asked(capsys, tmp_path / "texts", "--by", "length")
    assert facts_of(next(row for row in found["rows"] if row["worse"]))["length"].startswith("above ")


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (
            np.zeros((60, 10), np.float32),
            "60 of 60 kept inputs have neither brightness nor length: float32 of shape (10,)",
        ),
        (np.zeros((60, 2, 50)), "60 of 60 kept inputs have neither brightness nor length: float64 of shape (2, 50)"),
        ({"input_ids": np.ones((60, 5, 9), int)}, "have neither brightness nor length: int64 of shape (5, 9)"),
        (np.ones((60, 9), int), "the kept inputs have length"),
        (None, "no kept inputs (run.log_inputs) tell it"),
    ],
    ids=["features", "signal", "choices", "texts", "none"],
)
def test_of_kept_inputs_that_are_no_pictures_it_is_said_why_they_have_no_brightness(kept, said, tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        if kept is not None:
            run.log_inputs(np.arange(60), kept)
        run.log_samples(sample_id=np.arange(60), label=np.arange(60) % 2, loss=np.ones(60), mode="eval", epoch=1)
    with pytest.raises(XaiError, match="no fact or column 'brightness'") as caught:
        xaicli.open_run(tmp_path / "run").slices(by="brightness")
    assert said in caught.value.hint


def test_kept_inputs_without_brightness_among_pictures_are_counted(tmp_path, capsys):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_inputs(np.arange(50), np.random.default_rng(0).random((50, 3, 8, 8)))
        run.log_inputs(np.arange(50, 60), np.zeros((10, 7)))
        run.log_samples(sample_id=np.arange(60), label=np.arange(60) % 2, loss=np.ones(60), mode="eval", epoch=1)
    said = "10 of 60 kept inputs have neither brightness nor length: float64 of shape (7,)"
    assert said in asked(capsys, tmp_path / "run")["warnings"]


@pytest.mark.parametrize(
    "kept",
    [
        lambda pixels: pixels.astype(np.float32),
        lambda pixels: ((pixels - 0.45) / 0.225).astype(np.float32),
        lambda pixels: (2 * pixels - 1).astype(np.float32),
        lambda pixels: (255 * pixels).astype(np.float32),
        lambda pixels: (255 * pixels).round().astype(np.uint8),
        lambda pixels: (255 * pixels).round().astype(np.uint8).transpose(0, 2, 3, 1),
        lambda pixels: (65535 * pixels).round().astype(np.uint16),
        lambda pixels: (65535 * pixels).round().astype(np.uint16).transpose(0, 2, 3, 1),
        lambda pixels: pixels.astype(np.float32).transpose(0, 2, 3, 1),
        lambda pixels: pixels[:, 0].astype(np.float32),
        lambda pixels: pixels[:, :2].astype(np.float32),
        lambda pixels: np.tile(pixels, (1, 5, 1, 1))[:, :13].astype(np.float32),
        lambda pixels: (4000 * pixels).astype(np.int32),
        lambda pixels: pixels > np.linspace(0.05, 0.85, 64).reshape(8, 8),
        lambda pixels: np.stack([pixels] * 4, 2).astype(np.float32),
    ],
    ids=[
        *("unit", "normalised", "signed", "to 255", "bytes", "bytes, channels last", "16 bits", "16 bits, last"),
        *("channels last", "no channel", "2 channels", "13 channels", "integers", "true or false", "volumes"),
    ],
)
def test_brightness_is_of_the_values_that_were_kept_whatever_their_range(kept, tmp_path, capsys):
    rng = np.random.default_rng(2)
    n = 400
    pixels = (rng.uniform(0.05, 0.85, n)[:, None, None, None] + rng.normal(0, 0.03, (n, 3, 8, 8))).clip(0, 1)
    given = kept(pixels)
    means = given.reshape(n, -1).mean(1, dtype=np.float64) / {"uint8": 255, "uint16": 65535}.get(given.dtype.name, 1)
    dark = means <= np.quantile(means, 0.2)
    loss = np.where(dark, 3.0, 0.5) + 0.2 * rng.uniform(size=n)
    with xaicli.Run(tmp_path / "run") as run:
        run.log_inputs(np.arange(n), given)
        run.log_samples(sample_id=np.arange(n), label=rng.integers(0, 3, n), loss=loss, mode="eval", epoch=1)
    (worse,) = [row for row in asked(capsys, tmp_path / "run")["rows"] if row["worse"]]
    edge = float(facts_of(worse)["brightness"].removeprefix("up to "))
    rounded = 2e-3 * np.ptp(means)
    assert means[dark].max() - rounded <= edge <= means[~dark].min() + rounded
    assert worse["n"] == dark.sum()
    assert worse["mean"] == pytest.approx(loss[dark].mean(), rel=1e-6)


def test_each_class_of_a_set_is_a_slice(tmp_path, capsys):
    rng = np.random.default_rng(1)
    sets = (rng.uniform(size=(1200, 4)) < 0.3).astype(int)
    loss = rng.exponential(size=1200) + 2.0 * sets[:, 2]
    with xaicli.Run(tmp_path / "run", task="multilabel", label_names=["cat", "dog", "owl", "fox"]) as run:
        run.log_samples(sample_id=np.arange(1200), label=sets, loss=loss, mode="eval", epoch=1)
    found = asked(capsys, tmp_path / "run")
    worse = [row for row in found["rows"] if row["worse"]]
    assert [facts_of(row) for row in worse] == [{"label owl": "yes"}]
    has = sets[:, 2] == 1
    assert worse[0]["n"] == has.sum()
    assert worse[0]["mean"] == pytest.approx(loss[has].mean(), rel=1e-6)
    assert worse[0]["rest_mean"] == pytest.approx(loss[~has].mean(), rel=1e-6)
    assert found["selection"]["by"] == ["label"]


def test_samples_without_label_or_value_are_counted(tmp_path, capsys):
    n, rng = 200, np.random.default_rng(0)
    label, logits = rng.integers(0, 2, n), rng.normal(size=(n, 2))
    label[:40] = -100
    loss = rng.exponential(size=n)
    loss[30:70] = np.nan
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=np.arange(n), label=label, logits=logits, loss=loss, mode="eval", epoch=1)
    said = asked(capsys, tmp_path / "run")["warnings"]
    assert said == [
        "40 of 200 samples of eval have no finite loss, 10 of them no label either: they are in no slice of it",
        "30 of 200 samples of eval have no label: they are a slice of loss of their own",
    ]
    assert main(["findings", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "40 of 200 samples of eval have no label: none is a suspect" in found["warnings"]
    assert not {row["sample_id"] for row in found["rows"] if row["finding"] == "suspect"} & set(range(40))


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("slices", ("--by", "camera")), ("slices", ("--where", "camera = 'a'")), ("samples", ("--label-key", "camera")),
        ("confusion", ("--by", "camera")), ("labels", ("--where", "time = 'day'")),
        ("select", ("--rule", "camera = 'a'", "--n", "3")),
    ],
)  # fmt: skip
def test_where_facts_are_left_out_a_name_that_is_missing_says_so(recorded, capsys, command, options):
    assert main([command, str(recorded[0]), "--no-facts", *options]) != 0
    assert "hint: --no-facts leaves out every fact" in capsys.readouterr().err.replace("\n", " ")
    assert (
        main([command, str(recorded[0]), *[word.replace("camera", "cam").replace("time", "hour") for word in options]])
        != 0
    )
    assert "--no-facts" not in capsys.readouterr().err


def test_where_every_fact_is_left_out_slices_say_so(recorded, capsys, tmp_path):
    """Cut files and a folder that may not be listed: the planted slice is not found, and why is told."""
    path, _ = recorded
    run = shutil.copytree(path, tmp_path / "run")
    shutil.rmtree(run / "cache", ignore_errors=True)
    parts = sorted((run / "facts").glob("*.parquet"))
    for part in parts:
        part.write_bytes(part.read_bytes()[:-20])
    answer = asked(capsys, run)
    assert answer["warnings"][0] == f"facts are left out, see xai doctor: facts/{parts[0].name}"
    assert answer["counts"]["damaged"] == [f"facts/{part.name}" for part in parts]
    assert not any("left out, see" in said for said in asked(capsys, run, "--by", "label")["warnings"])
    assert not any("left out, see" in said for said in asked(capsys, path)["warnings"])


def test_values_that_are_put_together_are_counted(tmp_path, capsys):
    n = 600
    with xaicli.Run(tmp_path / "run") as run:
        source = [f"s{i % 50}" if i < 500 else f"rare{i}" for i in range(n)]
        run.log_facts(np.arange(n), source=source, few=[f"f{i % 50}" for i in range(n)])
        run.log_samples(sample_id=np.arange(n), loss=np.arange(n) % 7, mode="eval", epoch=1)
    assert asked(capsys, tmp_path / "run")["warnings"] == [
        "source has many values: the 50 most frequent are slices, the others of 100 samples one together"
    ]
