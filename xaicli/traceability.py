"""How a run was made: code, command, packages, hardware, seeds - noted at its start, shown in its reports.

Nothing secret is noted: of the environment only the variables listed here, and no credentials of the git remote.
Nothing here raises into a training.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "xaicli",
    "torch",
    "torchvision",
    "numpy",
    "pyarrow",
    "polars",
    "lightning",
    "pytorch-lightning",
    "transformers",
    "accelerate",
    "timm",
    "datasets",
    "scikit-learn",
)

_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "PYTHONHASHSEED",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "SLURM_JOB_ID",
    "SLURM_NNODES",
    "NVIDIA_TF32_OVERRIDE",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
)
"""The environment variables that are noted: those that change results or speed and never hold a secret."""

_GIT_SECONDS = 1.0
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRETS = frozenset({"key", "token", "secret", "password", "passwd", "pwd", "pass", "pw", "passphrase"}) | {
    "credential",
    "auth",
    "authorization",
    "bearer",
}
"""Words of a name that say its value is a secret, in the plural too; `tokenizer` and `monkey` are other words."""
_OF_DATA = frozenset(
    ("pad", "eos", "bos", "sep", "cls", "unk", "mask", "sos", "stop", "special", "image", "type", "primary", "foreign")
) | {"sort", "partition", "join", "cache", "label", "column", "metric", "monitor"}
"""Words beside `token` and `key` that say which they are: those of a tokenizer, of a table, of a mapping."""
_RUN_TOGETHER = re.compile(r"^(api|access|secret|private|auth|hf|wandb)(key|token|secret|password)s?$")
_CREDENTIALS_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_IN_QUERY = re.compile(r"(?<=[?&;])([\w.%-]+)=([^\s&;\"'#]+)")
_ASSIGNED = re.compile(r"(?<![^\s\"'`])([-+]{0,2}[A-Za-z_][\w.-]*)=([^\s\"'`]+)")
_OPTION = re.compile(r"(?<![^\s\"'`])(--?[A-Za-z][\w.-]*)(\s+)(?!-)(\S+)")
_HEADER = re.compile(
    r"(?i)\b((?:proxy-)?authorization\s*:\s*(?:\w+\s+)?|x-[\w-]*(?:key|token)\s*:\s*|bearer\s+(?=\S{8}))([^\s\"']+)"
)
_SIGNED = ("sig", "signature")
"""How the parameter of an address ends that lets whoever has it in."""
_NUMBER = re.compile(r"[-+.\d]+(e[-+]?\d+)?")
_HIDDEN = "***"
_NVIDIA = Path("/proc/driver/nvidia/gpus")


def describe_environment(config: Mapping[str, Any] | None = None, *, folder: Path | None = None) -> dict[str, Any]:
    """What is needed to make the run again, as plain JSON types.

    Args:
        config: The caller's configuration, searched for seeds.
        folder: Where the code lies; by default that of the started script, else the current one.

    Returns:
        command, python, host, packages {name: version}, hardware, variables, seeds, and code {commit, branch, dirty,
        diff_sha256} where the folder is a git checkout. What cannot be found out is absent.
    """
    parts = {
        "command": _command,
        "folder": lambda: str(Path.cwd()),
        "python": platform.python_version,
        "platform": platform.platform,
        "host": socket.gethostname,
        "packages": _packages,
        "hardware": _hardware,
        "variables": lambda: {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "seeds": lambda: _seeds(config or {}),
        "code": lambda: describe_code(folder or _script_folder()) or describe_code(folder or Path.cwd()),
    }
    described = {name: _quietly(part) for name, part in parts.items()}
    return {name: value for name, value in described.items() if value not in (None, "", {})}


def describe_code(folder: Path) -> dict[str, Any]:
    """The git checkout a folder lies in: commit, branch, whether it differs from the commit, and the diff's SHA-256.

    `diff_sha256` covers the tracked files' changes; new files count as dirty but are not read. Empty where there is no
    checkout, no git, or git is too slow.
    """
    status = _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=normal")
    if status is None:
        return {}
    lines = status.decode(errors="replace").splitlines()
    heads = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch.") and " " in line[2:])
    changes = [line for line in lines if line and not line.startswith("#")]
    code: dict[str, Any] = {"dirty": bool(changes)}
    commit, branch = heads.get("branch.oid", ""), heads.get("branch.head", "")
    if commit and not commit.startswith("("):
        code["commit"] = commit
    if branch and not branch.startswith("("):
        code["branch"] = branch
    if any(not line.startswith("?") for line in changes) and "commit" in code:
        diff = _git(folder, "diff", "--no-ext-diff", "--no-textconv", "--binary", "HEAD")
        if diff is not None:
            code["diff_sha256"] = hashlib.sha256(diff).hexdigest()
    return code


def describe_model(model: Any) -> dict[str, Any]:
    """A torch module in figures and as it prints itself.

    Args:
        model: A `torch.nn.Module`.

    Returns:
        {"class", "parameters", "trainable", "buffers", "bytes", "dtypes", "summary"}; the printed form is cut at 20,000
        characters.
    """
    parameters = list(model.parameters())
    buffers = list(model.buffers())
    held = {id(tensor): tensor for tensor in [*parameters, *buffers]}.values()
    return {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "buffers": sum(b.numel() for b in buffers),
        "bytes": sum(t.numel() * t.element_size() for t in held),
        "dtypes": sorted({str(t.dtype).removeprefix("torch.") for t in held}),
        "summary": str(model)[:20_000],
    }


def describe_dataset(data: Any) -> dict[str, Any]:
    """A dataset or data loader in words and figures; reads no sample.

    Args:
        data: A dataset, a `torch.utils.data.DataLoader`, or anything else with a length.

    Returns:
        {"class", "samples", "batches", "batch_size", "classes"}, as far as the thing tells.
    """
    dataset = getattr(data, "dataset", data)
    facts: dict[str, Any] = {
        "class": f"{type(dataset).__module__}.{type(dataset).__qualname__}",
        "samples": _length(dataset),
    }
    if dataset is not data:
        facts |= {"batches": _length(data), "batch_size": getattr(data, "batch_size", None)}
    classes = getattr(dataset, "classes", None)
    if isinstance(classes, list | tuple):
        facts["classes"] = [str(name) for name in classes[:1000]]
    return {key: value for key, value in facts.items() if value is not None}


def without_secrets(arguments: list[str]) -> list[str]:
    """Command-line arguments with the values of those that look like secrets hidden."""
    shown: list[str] = []
    hide_next = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        name = "" if "://" in name or ":" in name.rstrip(":") else name
        if hide_next and not argument.startswith("-") and _is_hidden(hide_next, argument):
            shown.append(_HIDDEN)
        elif equals and name and _is_hidden(name, value):
            shown.append(f"{name}={_HIDDEN}")
        else:
            shown.append(without_credentials(argument))
        hide_next = name if name.startswith("-") and not equals else ""
    return shown


def _is_hidden(name: str, value: str) -> bool:
    """Whether the value of an option is a secret: a number of `tokens` or `keys` is none."""
    return is_secret(name) and not (name.endswith("s") and bool(_NUMBER.fullmatch(value)))


def without_credentials(text: str) -> str:
    """A text with what lets somebody in hidden: user and password of an address and its parameters that are secrets,
    headers of authorization, and options and variables of a command line.
    """
    if not _MAY_HOLD.search(text):
        return text
    text = _CREDENTIALS_IN_URL.sub(_HIDDEN, text)
    text = _IN_QUERY.sub(lambda at: f"{at[1]}={_HIDDEN}" if _lets_in(at[1], at[2]) else at[0], text)
    text = _ASSIGNED.sub(lambda at: f"{at[1]}={_HIDDEN}" if _is_hidden(at[1], at[2]) else at[0], text)
    text = _OPTION.sub(lambda at: f"{at[1]}{at[2]}{_HIDDEN}" if _is_hidden(at[1], at[3]) else at[0], text)
    return _HEADER.sub(lambda at: f"{at[1]}{_HIDDEN}", text)


_MAY_HOLD = re.compile(r"(?i)[=:?-]|bearer ")


def _lets_in(name: str, value: str) -> bool:
    return name.lower().endswith(_SIGNED) or _is_hidden(name, value)


def is_secret(name: str) -> bool:
    """Whether a name says that its value is a secret: by one of its words, which `_`, `-`, `.` or capitals part."""
    words = [word.lower() for word in _WORDS.findall(name)]
    if {word.removesuffix("s") for word in words} & _SECRETS <= {"token", "key"} and not _OF_DATA.isdisjoint(words):
        return False
    return any(word.removesuffix("s") in _SECRETS or _RUN_TOGETHER.match(word) for word in words)


def _command() -> str:
    return shlex.join(without_secrets([Path(sys.executable).name, *sys.argv]))


def _packages() -> dict[str, str]:
    versions = {name: _version(name) for name in _PACKAGES}
    return {name: version for name, version in versions.items() if version}


@functools.cache  # the versions of a dozen packages are a fifth of what opening and closing a run takes
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _hardware() -> dict[str, Any]:
    hardware: dict[str, Any] = {"machine": platform.machine(), "cpus": os.cpu_count()}
    if memory := _quietly(lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        hardware["memory_bytes"] = memory
    if gpus := _quietly(_gpus):
        hardware["gpus"] = gpus
    torch = sys.modules.get("torch")
    if torch is not None and torch.version.cuda:
        hardware["cuda"] = torch.version.cuda
    return hardware


def _gpus() -> list[str]:
    """The GPUs' names, told by the driver's files: asking torch would start the driver, and break later forks."""
    facts = [path.read_text(errors="replace") for path in sorted(_NVIDIA.glob("*/information"))]
    return [line.partition(":")[2].strip() for text in facts for line in text.splitlines() if line.startswith("Model:")]


def _seeds(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {str(key): value for key, value in config.items() if "seed" in str(key).lower() and isinstance(value, int)}
    torch = sys.modules.get("torch")
    return {**found, "torch": torch.initial_seed()} if torch is not None else found


def _script_folder() -> Path:
    script = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path()
    return script.resolve().parent if script.is_file() else Path.cwd()


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints, or None. No hooks, no pager, no prompts; `--no-optional-locks` leaves the user's index alone."""
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _length(thing: Any) -> int | None:
    try:
        return len(thing)
    except (TypeError, NotImplementedError):
        return None


def _quietly(part: Any) -> Any:
    try:
        return part()
    except Exception:  # a fact that cannot be found out is left out; a training goes on
        return None
