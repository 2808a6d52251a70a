"""Saliency beside its peers: Captum with its best batching, a plain loop, pytorch-grad-cam, and the floor.

    python benchmarks/saliency.py speed --net lenet resnet18 --images 4 --steps 8 --draws 4 [--threads 2]
    python benchmarks/saliency.py fidelity --net lenet resnet vit [--data mnist.npz] [--seeds 3]
    python benchmarks/saliency.py memory --net resnet18
    python benchmarks/saliency.py gradcam --net resnet18

`speed`: seconds for equal gradient work, smint as draws x steps from a zero baseline; contestants interleaved, medians.
With one thread it is processor time, which neighbours disturb less than the clock. The floor is the forward and
input-backward time of the convolutions, matrix products and attention alone, each at its own best. bf16 is measured
everywhere, also where `--precision auto` would not take it. `fidelity`: rank correlation with a converged map, on nets
trained here on real digits (the sample data's, or a file of MNIST's kind). `memory`: the peak of each contestant in a
process of its own. `gradcam`: beside pytorch-grad-cam.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.nets import NETS, TRAINED, build, trained
from xaicli.attribution.engine import Attribution, Explainer
from xaicli.attribution.frozen import has_fast_bf16
from xaicli.attribution.inputs import Layout
from xaicli.attribution.maps import rank_correlation, strengths
from xaicli.attribution.prepared import prepare
from xaicli.attribution.settings import settle

Run = Callable[[], object]
CAPTUM_BATCHES = {"lenet": (32, 128, 512), "other": (4, 8, 16, 32)}
GPU_BATCHES = (64, 128, 256, 512)


def attribute(model: nn.Module, x: Tensor, *, device: str = "cpu", **settings: Any) -> Attribution:
    """What `xaicli.saliency` computes, without what it shows."""
    return Explainer(prepare(model, x, device=device), settle(**settings)).explain()


class Work:
    """One net, some images, and every contestant on the same work."""

    def __init__(self, name: str, images: int, steps: int, draws: int, device: str) -> None:
        self.name, self.steps, self.draws, self.device = name, steps, draws, torch.device(device)
        self.model = build(name).to(self.device)
        generator = torch.Generator().manual_seed(1)
        self.x = torch.rand(images, *NETS[name][1], generator=generator).to(self.device)
        with torch.no_grad():
            self.target = self.model(self.x).argmax(1)

    @property
    def evaluations(self) -> int:
        return len(self.x) * self.steps * self.draws

    def ours(self, precision: str = "fp32", methods: tuple[str, ...] = ("smint",)) -> Run:
        return lambda: attribute(
            self.model,
            self.x,
            methods=methods,
            integrating=(self.steps, self.draws),
            baseline="zero",
            precision=precision,
            device=str(self.device),
        )

    def loop(self) -> Run:
        """One pass per draw and step over the batch of images, gradients to the weights too, as the seed does."""

        def run() -> None:
            for _ in range(self.draws):
                noisy = self.x + 0.15 * torch.randn_like(self.x)
                for step in range(self.steps):
                    z = (noisy * ((step + 0.5) / self.steps)).requires_grad_()
                    torch.autograd.grad(self.model(z).gather(1, self.target[:, None]).sum(), z)

        return run

    def captum(self, batch: int) -> Run:
        import captum.attr

        tunnel = captum.attr.NoiseTunnel(captum.attr.IntegratedGradients(self.model))
        return lambda: tunnel.attribute(
            self.x,
            nt_type="smoothgrad_sq",
            nt_samples=self.draws,
            nt_samples_batch_size=1,
            stdevs=0.15,
            n_steps=self.steps,
            internal_batch_size=batch,
            method="riemann_middle",
            target=self.target,
        )

    def captum_batches(self) -> tuple[int, ...]:
        return GPU_BATCHES if self.device.type == "cuda" else CAPTUM_BATCHES.get(self.name, CAPTUM_BATCHES["other"])

    def floor(self) -> float:
        """Seconds of all evaluations' convolutions, linear layers and attention, forward and input backward, alone."""
        rows = 256 if self.device.type == "cuda" else 64 if self.name == "lenet" else 16
        return self.evaluations / rows * sum(self._alone(product, rows) for product in self._products())

    def _products(self) -> list[tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]]:
        """What a forward pass multiplies: each layer, or attention, and the shapes of one row of its inputs."""
        seen: list[tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = []
        attention = nn.functional.scaled_dot_product_attention

        def attended(*parts: Tensor) -> Tensor:
            seen.append((attention, tuple(tuple(part.shape[1:]) for part in parts)))
            return attention(*parts)

        hooks = [
            m.register_forward_pre_hook(lambda m, a: seen.append((m, (tuple(a[0].shape[1:]),))))
            for m in self.model.modules()
            if isinstance(m, nn.Conv2d | nn.Linear)
        ]
        nn.functional.scaled_dot_product_attention = attended  # type: ignore[assignment]
        with torch.no_grad():
            self.model(self.x[:1])
        nn.functional.scaled_dot_product_attention = attention
        for hook in hooks:
            hook.remove()
        return seen

    def _alone(self, product: tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]], rows: int) -> float:
        operation, shapes = product
        if isinstance(operation, nn.Module):
            operation = copy.deepcopy(operation).requires_grad_(False)
        layouts = (torch.contiguous_format, torch.channels_last) if isinstance(operation, nn.Conv2d) else (None,)
        return min(self._pass(operation, rows, shapes, layout) for layout in layouts for _ in range(3))

    def _pass(self, operation: Any, rows: int, shapes: Any, layout: torch.memory_format | None) -> float:
        inputs = [torch.randn(rows, *shape, device=self.device) for shape in shapes]
        if layout is not None:
            operation = operation.to(memory_format=layout)
            inputs = [x.contiguous(memory_format=layout) for x in inputs]
        inputs = [x.requires_grad_() for x in inputs]
        start = self.clock()
        y = operation(*inputs)
        torch.autograd.grad(y, inputs, torch.ones_like(y))
        return self.clock() - start

    def clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()

    def timed(self, run: Run) -> float:
        start = self.clock()
        run()
        return self.clock() - start


def speed(work: Work, repeats: int) -> dict[str, float]:
    """Median seconds of each contestant, interleaved."""
    best_batch = min(work.captum_batches(), key=lambda b: work.timed(work.captum(b)))
    contestants: dict[str, Run] = {
        "xai fp32": work.ours(),
        f"captum, best batch {best_batch}": work.captum(best_batch),
        "loop": work.loop(),
        "xai bf16": work.ours("bf16"),
    }
    work.ours()()
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            spent[name].append(work.timed(run))
    found = {name: statistics.median(values) for name, values in spent.items()}
    found["floor"] = work.floor()
    return found


def report_speed(work: Work, found: dict[str, float]) -> None:
    ours, floor = found["xai fp32"], found["floor"]
    size = f"{len(work.x)} images x {work.draws} draws x {work.steps} steps"
    where = "GPU" if work.device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    auto = "bf16" if has_fast_bf16(work.device) else "fp32"
    print(f"\n{work.name}: {size} = {work.evaluations} evaluations, {where}; large models run in {auto} by themselves")
    for name, seconds in sorted(found.items(), key=lambda item: item[1]):
        print(
            f"  {name:26} {seconds:8.3f} s  {seconds / work.evaluations * 1e3:8.3f} ms an evaluation"
            f"  {seconds / ours:5.2f} x xai fp32  {seconds / floor:5.2f} x floor"
        )


def digits(path: str | None) -> tuple[str, Tensor, Tensor, Tensor]:
    """The name of the data, 28 px training digits, their labels, and digits held back to be explained.

    Args:
        path: An .npz of MNIST's kind (arrays `images` and `labels`); the digits of the sample data when None.
    """
    if path is None:
        from xaicli.demo import load_digits

        found = load_digits(flip=0)
        small, labels = torch.from_numpy(found.images), torch.from_numpy(found.true_label)
        images, name = nn.functional.interpolate(small, size=28, mode="bilinear"), "sample digits"
    else:
        with np.load(path) as held:
            images = torch.from_numpy(held["images"].astype(np.float32).reshape(-1, 1, 28, 28) / 255)
            labels, name = torch.from_numpy(held["labels"].astype(np.int64)), Path(path).name
    last = min(5000, len(images) - 200)
    return name, images[:last], labels[:last], images[last:]


def fidelity(name: str, images: int, path: str | None, seeds: int) -> None:
    """Rank correlation with a converged map: 25 x 7 and `--evaluations`, on nets trained here, several seeds."""
    data, train, labels, held_back = digits(path)
    rows: dict[str, list[float]] = {}
    right = []
    for seed in range(seeds):
        model = trained(name, train, labels, seed=seed)
        x = held_back[seed * images : (seed + 1) * images]
        with torch.no_grad():
            right.append(float((model(train[-500:]).argmax(1) == labels[-500:]).float().mean()))
        for label, scores in _fidelities(model, x, seed).items():
            rows.setdefault(label, []).append(scores)
    shown = (
        f"{seeds} nets trained here (training accuracy {np.mean(right):.3f}), {images} images each, 2 draws of each map"
    )
    print(f"\n{name} on {data}: rank correlation with a converged map; {shown}")
    for label, values in rows.items():
        print(f"  {label:44} {np.mean(values):.4f}   {' '.join(f'{value:.4f}' for value in values)}")


def _fidelities(model: nn.Module, x: Tensor, seed: int) -> dict[str, float]:
    def planes(method: str, **settings: Any) -> list[Any]:
        found = attribute(model, x, precision="fp32", **settings).attributions[method][""]
        return list(strengths(torch.from_numpy(found), Layout.CHANNELS_FIRST).numpy())

    converged = {
        "smint": planes("smint", methods=("smint",), integrating=(10, 240), seed=1000 + seed),
        "smoothgrad": planes("smoothgrad", methods=("smoothgrad",), smoothing=600, seed=1000 + seed),
        "integrated": planes("integrated", methods=("integrated",), integrating=(200, 0)),
    }

    def score(method: str, **settings: Any) -> float:
        found = [planes(method, seed=draw, **settings) for draw in (seed, seed + 50)]
        pairs = [pair for once in found for pair in zip(once, converged[method], strict=True)]
        return float(np.mean([rank_correlation(a, b) for a, b in pairs]))

    scores = {"smint, 25 x 7 = 175 evaluations": score("smint", methods=("smint",), integrating=(25, 7))}
    for budget in (24, 48, 100):
        scores[f"smint, {budget} evaluations"] = score("smint", methods=("smint",), evaluations=budget)
    scores["smint of all four methods' 24 (the default)"] = score("smint")
    scores["smoothgrad, 25 evaluations"] = score("smoothgrad", methods=("smoothgrad",), smoothing=25)
    scores["smoothgrad of all four methods' 24"] = score("smoothgrad")
    scores["integrated, 25 evaluations"] = score("integrated", methods=("integrated",), integrating=(25, 0))
    scores["integrated of all four methods' 24"] = score("integrated")
    return scores


def memory(name: str, images: int, steps: int, draws: int) -> None:
    """Peak resident memory of each contestant, a process each, less that of the imports and the model."""
    print(f"\n{name}: peak memory beyond the loaded model, {images} images x {draws} x {steps}")
    batch = 32 if name == "lenet" else 8
    for contestant in ("ours", "loop", f"captum {batch}", "captum default"):
        code = (
            "import resource,json\nfrom benchmarks.saliency import Work\n"
            f"work=Work({name!r},{images},{steps},{draws},'cpu')\n"
            "import captum.attr, torch\n"
            "from benchmarks.saliency import attribute\n"
            "attribute(torch.nn.Linear(2, 2), torch.rand(1, 2))\n"
            "before=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            + {
                "ours": "work.ours()()",
                "loop": "work.loop()()",
                f"captum {batch}": f"work.captum({batch})()",
                "captum default": "work.captum(None)()",
            }[contestant]
            + "\nprint(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before))"
        )
        root = Path(__file__).parents[1]
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
        shown = f"{json.loads(done.stdout) / 1024:8.0f} MB" if done.returncode == 0 else "out of memory"
        print(f"  {contestant:18} {shown}")


def gradcam(work: Work, repeats: int) -> None:
    """Grad-CAM beside pytorch-grad-cam, where that is installed."""
    peer = _pytorch_grad_cam()
    if peer is None:
        print("\ngradcam: pytorch-grad-cam is not installed")
        return
    # The last activation, as ours: before the pooling that leaves one place.
    layer = [m for m in work.model.modules() if isinstance(m, nn.Conv2d)][-1]
    blocks = [m for m in work.model.children() if any(child is layer for child in m.modules())]
    ours = work.ours(methods=("gradcam",))

    def theirs() -> Any:
        with peer.GradCAM(model=work.model, target_layers=[blocks[-1]]) as cam:
            return cam(work.x, [peer.ClassifierOutputTarget(int(t)) for t in work.target])

    spent: dict[str, list[float]] = {"xai": [], "pytorch-grad-cam": []}
    for _ in range(repeats):
        spent["xai"].append(work.timed(ours))
        spent["pytorch-grad-cam"].append(work.timed(theirs))
    mine = attribute(work.model, work.x, methods=("gradcam",)).maps["gradcam"][""]
    alike = np.mean([rank_correlation(a, b) for a, b in zip(mine, theirs(), strict=True)])
    times = ", ".join(f"{name} {statistics.median(values):.3f} s" for name, values in spent.items())
    print(f"\n{work.name} gradcam, {len(work.x)} images: {times}; rank correlation of the maps {alike:.3f}")


def _pytorch_grad_cam() -> Any:
    """The parts that are measured; None where it is not installed.

    It imports torchvision for transforms that its Grad-CAM never calls: where torchvision is missing or does not fit
    torch, empty stand-ins take its place.
    """
    import importlib
    from types import SimpleNamespace
    from unittest.mock import MagicMock

    try:
        importlib.import_module("torchvision")
    except Exception:
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
            sys.modules[name] = MagicMock()
    try:
        cam = importlib.import_module("pytorch_grad_cam")
        targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    except ImportError:
        return None
    return SimpleNamespace(GradCAM=cam.GradCAM, ClassifierOutputTarget=targets.ClassifierOutputTarget)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "fidelity", "memory", "gradcam"))
    parser.add_argument(
        "--net", nargs="+", default=["lenet"], choices=[*NETS, *(name for name in TRAINED if name not in NETS)]
    )
    parser.add_argument("--data", help="digits to train on, an .npz with images and labels")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.net:
        if given.what == "fidelity":
            fidelity(name, given.images, given.data, given.seeds)
        elif given.what == "memory":
            memory(name, given.images, given.steps, given.draws)
        else:
            work = Work(name, given.images, given.steps, given.draws, given.device)
            if given.what == "speed":
                report_speed(work, speed(work, given.repeats))
            else:
                gradcam(work, given.repeats)


if __name__ == "__main__":
    main()
