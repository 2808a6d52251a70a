"""Where paths start, in the model's own units: black, and a picture, as the pictures of the samples are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import xaicli
from tests.conftest import Xai

Image = pytest.importorskip("PIL.Image")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SAID = ("--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD)))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 3)).eval()


@pytest.fixture(scope="module")
def run(net: nn.Module, tmp_path_factory: Any) -> Path:
    """A run whose checkpoint says a range of its inputs, beside pictures, one of them all white."""
    folder: Path = tmp_path_factory.mktemp("baselines")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    (folder / "pics" / "a").mkdir(parents=True)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / "pics" / "a" / f"{number}.png")
    Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(folder / "white.png")
    Image.fromarray(np.full((5, 9), 51, np.uint8)).save(folder / "grey.png")
    np.save(folder / "pixels.npy", pixels)
    with xaicli.Run(folder / "run") as run:
        run.log_inputs([0, 1], samples(pixels))
        run.save_checkpoint(net, example_inputs=torch.rand(2, 3, 8, 8), input_range=(0, 1))
    return folder


def samples(pixels: Any) -> torch.Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return (torch.from_numpy(np.asarray(pixels)).permute(0, 3, 1, 2) / 255 - mean) / std


@pytest.mark.parametrize(("start", "level"), [("black", 0.0), ("white.png", 1.0), ("grey.png", 0.2)])
@pytest.mark.parametrize("data", [("--data", "pics"), ()])
def test_a_start_is_normalised_as_the_pictures_are(
    start: str,
    level: float,
    data: tuple[str, ...],
    run: Path,
    net: nn.Module,
    xai: Xai,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    """The attributions of integrated gradients sum to f(x) - f(baseline): which tells where the path began."""
    monkeypatch.chdir(run)
    how = ("--methods", "integrated", "--integrating", "80,0", "--no-progress", "--json", "--format", "json")
    status, text, error = xai("saliency", "run", *data, *SAID, "--baseline", start, *how, "-o", tmp_path / "out")
    assert status == 0, error
    assert not [said for said in json.loads(text)["warnings"] if "was not used" in said or "training mode" in said]
    with np.load(tmp_path / "out" / "maps.npz") as maps:
        sums, target = maps["attribution/integrated"].sum((1, 2, 3)), torch.as_tensor(maps["target"]).long()
    x = samples(np.load("pixels.npy"))
    base = ((level - torch.tensor(MEAN)) / torch.tensor(STD))[:, None, None].expand_as(x)
    with torch.no_grad():
        expected = (net(x) - net(base)).gather(1, target[:, None])[:, 0].numpy()
    assert np.allclose(sums, expected, atol=2e-3)


def test_in_python_a_picture_is_in_the_range_from_0_to_1(run: Path, net: nn.Module) -> None:
    x = samples(np.load(run / "pixels.npy"))
    found = xaicli.saliency(net, x, methods="integrated", integrating=(80, 0), baseline=str(run / "white.png"))
    with torch.no_grad():
        expected = (net(x) - net(torch.ones_like(x))).gather(1, net(x).argmax(1, keepdim=True))[:, 0]
    assert np.allclose(found.attributions["integrated"].sum((1, 2, 3)), expected, atol=2e-3)


def test_pictures_of_another_size_are_told(run: Path, xai: Xai, tmp_path: Path) -> None:
    (tmp_path / "big" / "a").mkdir(parents=True)
    Image.fromarray(np.zeros((20, 12, 3), np.uint8)).save(tmp_path / "big" / "a" / "0.png")
    told = "pictures were brought to 8x8, the size of the model's input: --resize says another"
    how = ("--methods", "gradient", "--no-progress", "--json", "--format", "json", "-o", tmp_path / "out")
    for resize, expected in (((), True), (("--resize", "8"), False)):
        status, text, error = xai("saliency", run / "run", "--data", tmp_path / "big", *resize, *how)
        assert status == 0, error
        assert (told in json.loads(text)["warnings"]) is expected


def test_passes_that_are_switched_off_are_no_argument_left_over() -> None:
    from xaicli.attribution.settings import settle

    assert settle(integrating=0).unused == ()
    assert settle(smoothing=0).unused == ()
    assert settle(methods="gradient", integrating=0).unused == ("integrating",)
    assert settle(methods="gradient,smoothgrad", integrating=4).unused == ("integrating",)


@pytest.mark.parametrize("data", [("--data", "pixels.npy"), ()])
@pytest.mark.parametrize(
    ("axes", "unit", "name"),
    [((0, 1, 2), 1, "b.npy"), ((2, 0, 1), 1, "b.npy"), ((2, 0, 1), 257, "b.npy"), ((0, 1, 2), 257, "b.npz")],
)
def test_a_start_of_bytes_is_read_as_the_bytes_of_the_samples(
    data: tuple[str, ...],
    axes: tuple[int, int, int],
    unit: int,
    name: str,
    run: Path,
    net: nn.Module,
    xai: Xai,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    """Of one byte or two, channels last or first: the same start in the model's units."""
    monkeypatch.chdir(run)
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    given = pixels.transpose(axes) if unit == 1 else pixels.transpose(axes).astype(np.uint16) * np.uint16(unit)
    np.save(tmp_path / name, given) if name.endswith("y") else np.savez(tmp_path / name, given)
    how = ("--methods", "integrated", "--integrating", "80,0", "--no-progress", "--json", "--format", "json")
    status, text, error = xai(
        "saliency", "run", *data, *SAID, "--baseline", tmp_path / name, *how, "-o", tmp_path / "out"
    )
    assert status == 0, error
    assert not [said for said in json.loads(text)["warnings"] if "was not used" in said]
    with np.load(tmp_path / "out" / "maps.npz") as maps:
        sums, target = maps["attribution/integrated"].sum((1, 2, 3)), torch.as_tensor(maps["target"]).long()
    x = samples(np.load("pixels.npy"))
    with torch.no_grad():
        expected = (net(x) - net(samples(pixels[None]))).gather(1, target[:, None])[:, 0].numpy()
    assert np.allclose(sums, expected, atol=2e-3)


def test_bytes_are_pixels_beside_floats_and_numbers_beside_bytes(tmp_path: Path) -> None:
    """A linear net's attribution is weight x (input - start), which tells the start."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).eval()
    start = np.arange(0, 160, 10, dtype=np.uint8).reshape(1, 4, 4)
    np.save(tmp_path / "start.npy", start)
    w = net[1].weight.detach().numpy()
    numbers = np.random.default_rng(0).integers(0, 256, (2, 1, 4, 4), dtype=np.uint8)
    for x, base in ((numbers, start.astype(float)), ((numbers / 255).astype(np.float32), start / 255)):
        found = xaicli.saliency(net, x, target=1, methods="integrated", baseline=str(tmp_path / "start.npy"))
        expected = w[1].reshape(1, 1, 4, 4) * (x.astype(float) - base)
        assert np.allclose(found.attributions["integrated"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["<u2", ">u2", ">i4", ">f4", ">f8", "longdouble"])
def test_numbers_of_any_byte_order_are_the_numbers_they_are(kind: str, xai: Xai, tmp_path: Path) -> None:
    """In an array, as a start, in files, and kept in a run: the maps of a linear net tell each number."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double().eval()
    w = net[1].weight.detach().numpy()[1].reshape(1, 1, 4, 4)
    x = np.random.default_rng(0).integers(0, 60000, (2, 1, 4, 4)).astype(kind)
    if kind == ">i4":  # whole numbers of a model's floats come from a table, say
        x = x.astype(">f8")
    np.save(tmp_path / "start.npy", np.zeros((1, 4, 4), x.dtype))
    found = xaicli.saliency(
        net, x, target=1, methods="integrated", baseline=str(tmp_path / "start.npy"), precision="fp32"
    )
    assert np.allclose(found.attributions["integrated"], w * x.astype(np.float64), rtol=1e-4)
    listed = xaicli.saliency(net, list(x), target=1, methods="gradient")
    assert np.allclose(listed.attributions["gradient"], np.broadcast_to(w, x.shape), rtol=1e-5)
    with xaicli.Run(tmp_path / "run") as run:
        run.log_inputs([0, 1], x)
        run.save_checkpoint(net.float(), example_inputs=torch.rand(2, 1, 4, 4), input_range=(0.0, 1.0))
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x, label=np.array([1, 0], ">i8"))
    scale = 65535 if x.dtype.kind == "u" else 1  # pixels of a file are brought to the model's range
    for data, unit in (((), 1), (("--data", tmp_path / "x.npy"), scale), (("--data", tmp_path / "x.npz"), scale)):
        how = ("--model", "ckpt.pt", "--target", "1", "--methods", "integrated", "--integrating", "3,0")
        more = ("--baseline", "zero", "--json", "--no-progress", "--format", "json", "-o", tmp_path / "out")
        status, _, error = xai("saliency", tmp_path / "run", *data, *how, *more)
        assert status == 0, error
        with np.load(tmp_path / "out" / "maps.npz") as maps:
            assert np.allclose(maps["attribution/integrated"], w * x.astype(np.float64) / unit, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("ignore_label", "given"), [(-100, -100), (255, 255), ("none", 2)])
def test_samples_whose_label_stands_for_none_have_none(
    ignore_label: Any, given: int, xai: Xai, net: nn.Module, tmp_path: Path
) -> None:
    x = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
    with xaicli.Run(tmp_path / "run", ignore_label=ignore_label, label_names=["a", "b", "none"]) as run:
        run.log_inputs([0, 1, 2], x, label=[0, given, 1])
        run.save_checkpoint(net, example_inputs=torch.rand(2, 3, 8, 8))
    np.savez(tmp_path / "x.npz", x=x, label=[0, given, 1])
    how = ("--model", "ckpt.pt", "--methods", "gradient", "--json", "--no-progress", "--format", "json")
    for data in ((), ("--data", tmp_path / "x.npz")):
        status, text, error = xai("saliency", tmp_path / "run", *data, *how, "-o", tmp_path / "out")
        assert status == 0, error
        answer = json.loads(text)
        assert [(row["sample_id"], row["label"]) for row in answer["rows"]] == [(0, 0), (1, None), (2, 1)]
        assert not [said for said in answer["warnings"] if "none of the model's classes" in said]


def test_what_is_cut_off_of_pictures_and_starts_is_told(run: Path, xai: Xai, tmp_path: Path) -> None:
    """Brought to a square, a picture of 20 x 60 keeps a third of its width, one of 40 x 20 half of its height."""
    (tmp_path / "wide" / "a").mkdir(parents=True)
    wide, tall = np.zeros((20, 60, 3), np.uint8), np.zeros((40, 20, 3), np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide" / "a" / "0.png")
    Image.fromarray(tall).save(tmp_path / "tall.png")
    Image.fromarray(wide[:, :20]).save(tmp_path / "square.png")
    cut = "pictures were scaled and cut to the middle: up to 67% of the width was cut off"
    fitted = "scaled and cut to the middle for the samples' size"
    start = f"the baseline tall.png was {fitted}: 50% of the height was cut off"
    how = ("--methods", "integrated", "--no-progress", "--json", "--format", "json", "-o", tmp_path / "out")
    for data, baseline, expected in (
        (("--data", tmp_path / "wide"), "zero", {cut}),
        (("--data", tmp_path / "wide", "--resize", "8"), "zero", {cut}),
        ((), tmp_path / "tall.png", {start}),
        ((), tmp_path / "square.png", {"the baseline square.png was scaled for the samples' size"}),
        ((), run / "white.png", set()),
    ):
        status, text, error = xai("saliency", run / "run", *data, "--baseline", baseline, *how)
        assert status == 0, error
        assert {w for w in json.loads(text)["warnings"] if "cut" in w or "scaled" in w} == expected


def test_options_that_choose_nothing_are_said_to_be_unused(run: Path, xai: Xai, tmp_path: Path) -> None:
    how = ("--methods", "gradient", "--no-progress", "--json", "--format", "json", "-o", tmp_path / "out")
    named = "the samples are named by --ids"
    (run / "unused_options.py").write_text(
        "import numpy\n"
        f"def pixels(): return numpy.load({str(run / 'pixels.npy')!r})\n"
        "def by_mode(mode=None): return pixels()\n"
    )
    for options, expected in (
        (
            ("--ids", "1,0", "--pick", "worst", "--metric", "nonsense"),
            {f"--pick was not used: {named}", "--metric was not used: it is for --pick worst and best"},
        ),
        (("--ids", "1,0", "--samples", "1"), {f"--samples was not used: {named}"}),
        (
            ("--ids", "1,0", "--samples", "16", "--pick", "first"),
            {f"--samples was not used: {named}", f"--pick was not used: {named}"},
        ),
        (
            ("--noise", "0.15", "--baseline", "mid", "--magnitude"),
            {f"{name} was not used: no method that was asked for takes it" for name in ("noise", "baseline", "signed")},
        ),
        (("--arch-args", "{}"), {"--arch-args was not used: they are arguments of --arch"}),
        (
            ("--data", "unused_options:pixels", "--pythonpath", run, "--mode", "eval"),
            {"--mode was not used: the data has no modes, and no logged metric picks its samples"},
        ),
        (("--data", "unused_options:by_mode", "--pythonpath", run, "--mode", "eval"), set()),
        (("--metric", "loss"), {"--metric was not used: it is for --pick worst and best"}),
        (
            ("--data", run / "pixels.npy", "--mode", "nonsense"),
            {"--mode was not used: the data has no modes, and no logged metric picks its samples"},
        ),
        (("--ids", "1"), set()),
    ):
        status, text, error = xai("saliency", run / "run", *options, *how)
        assert status == 0, error
        assert {said for said in json.loads(text)["warnings"] if "was not used" in said} == expected
    status, _, error = xai("saliency", run / "run", "--ids", "1", "--pick", "worts", *how)
    assert status == 2
    assert "no pick 'worts'" in error


@pytest.mark.parametrize(("shape", "channels"), [((3, 8, 8), "3"), ((5,), "no"), ((6, 7), "no")])
def test_a_mean_of_another_count_than_the_channels_is_refused(
    shape: tuple[int, ...], channels: str, xai: Xai, tmp_path: Path
) -> None:
    x = torch.rand(2, *shape)
    with xaicli.Run(tmp_path / "run") as run:
        run.log_inputs([0, 1], x)
        run.save_checkpoint(nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 2)), example_inputs=x)
    how = (
        "--methods",
        "integrated",
        "--baseline",
        "black",
        "--no-progress",
        "--format",
        "json",
        "-o",
        tmp_path / "out",
    )
    for option in ("--mean", "--std"):
        status, _, error = xai("saliency", tmp_path / "run", *how, option, "0.5,0.4")
        assert status in (1, 2)
        assert f"{channels} channels" in " ".join(error.split())
    status, _, error = xai("saliency", tmp_path / "run", *how, "--mean", "0.5")
    assert status == 0, error
