"""Files on disk: what a checkpoint is, told from its bytes, and what it is instead where it is none."""

from __future__ import annotations

import hashlib
import json
import re
import weakref
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import IO

from xaicli.checkpoint.archive import MAGIC, Archive, RefusedError, damaged, refused
from xaicli.checkpoint.package import is_package
from xaicli.errors import XaiError

_LARGEST_FILE = 256 * 2**30
_LARGEST_HEADER = 100 * 2**20
_LARGEST_INDEX = 100 * 2**20
_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".pt2", ".safetensors", ".bin"})
_BESIDE = (
    "training_args",
    "optimizer",
    "scheduler",
    "scaler",
    "sampler",
    "rng_state",
    "random_states",
    "dl_state_dict",
)
"""How the files begin that the trainers of transformers and accelerate save beside the weights."""
_PICKLED_INDEX = ".bin.index.json"
_INDEXES = (".safetensors.index.json", _PICKLED_INDEX)
"""What the index of several files is called: of safetensors, or of what `torch.save` writes."""
_PART = re.compile(r"(.+)-(\d+)-of-(\d+)\.\w+")
_DIGITS = 5
"""How many digits transformers writes of a part's number, and of how many there are."""
_OLD_PICKLE = re.compile(rb"\([dl]p?\d|c\w[\w.]*\n\w+\n|[\]}]q\x00")
"""How pickles of the first protocols begin."""


class Container(StrEnum):
    """The outer form of a checkpoint."""

    FOLDER = "folder"
    SAFETENSORS = "safetensors"
    SHARDS = "shards"
    """Several safetensors files with their index, named by the index or the folder."""
    PACKAGE = "package"
    """A `.pt2` archive."""
    TORCHSCRIPT = "torchscript"
    TORCH = "torch"
    """A zip archive made by `torch.save`, or several files of it with their index."""
    LEGACY = "legacy"
    """A bare pickle or a tar archive, made by `torch.save` before torch 1.6, or by `pickle.dump`."""


class Opened:
    """A file that is opened once, when it is first read, and closed when nobody has it or a tensor of it any more.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def file(self) -> IO[bytes]:
        """The file, at any place."""
        file = self.path.open("rb")
        weakref.finalize(self, file.close)
        return file

    def from_start(self) -> IO[bytes]:
        """The file, at its first byte."""
        self.file.seek(0)
        return self.file


def sniff(path: Path, opened: Opened | None = None) -> Container:
    """Tell the form of a checkpoint from its first bytes, checking a zip archive's structure on the way.

    Args:
        path: The checkpoint.
        opened: The same, where it is read further.

    Raises:
        XaiError: There is no such file, or it is none of the forms; the error says what it is instead.
        RefusedError: The archive holds what torch does not write.
        DamagedFileError: It is not complete.
    """
    _check_path(path)
    if path.is_dir():
        return _folder_form(path)
    if path.match("*.distcp") or path.name == ".metadata":
        raise XaiError(f"{path} is a part of {_OF_FSDP[0]}", hint=_OF_FSDP[1].format(path=str(path.parent)))
    if path.match("*zero_pp_rank_*_optim_states.pt"):
        raise part_of_zero(path)
    opened = opened or Opened(path)
    head = opened.from_start().read(1024)
    if head.startswith(MAGIC):
        try:
            return _zip_form(Archive(opened.file, path))
        except RefusedError as error:
            raise _other_zip(path) or error from None
    if path.name.endswith(_INDEXES):
        return Container.TORCH if path.name.endswith(_PICKLED_INDEX) else Container.SHARDS
    if len(head) >= 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _LARGEST_HEADER:
        return Container.SAFETENSORS
    if head[:1] == b"\x80" and head[1:2] <= b"\x05" and len(head) > 2:
        if b"joblib.numpy_pickle" in head:  # arrays lie between the pickle's instructions
            raise XaiError(f"{path} was written by joblib", hint=_OF_JOBLIB.format(path=str(path)))
        return Container.LEGACY
    if head[257:262] == b"ustar" or _is_old_tar(head) or _OLD_PICKLE.match(head):
        return Container.LEGACY
    raise _none(path, head)


def part_of_zero(path: Path) -> XaiError:
    """That a file is what DeepSpeed saved of one rank, and the way out."""
    what, hint = _OF_ZERO
    return XaiError(f"{path} is a part of {what}", hint=hint)


def only_file(path: Path) -> Path:
    """The one file of weights in a folder that holds nothing else which says what it is; any other path as it is."""
    if not path.is_dir() or (path / "config.json").is_file() or _indexes(path):
        return path
    if _of_another_kind(path) is not None:
        return path
    found = _weights_in(path)
    return found[0] if len(found) == 1 else path


def pickled_in(folder: Path) -> Path | None:
    """The weights that `torch.save` wrote into a folder without safetensors: a file, or the index of several."""
    if any(folder.glob("*.safetensors")):
        return None
    weights = [*folder.glob(f"*{_PICKLED_INDEX}")] or _weights_in(folder)
    return weights[0] if len(weights) == 1 else None


def adapter_in(path: Path) -> str:
    """What a file is that holds an adapter (PEFT), and the way out; "" of any other."""
    if not path.name.startswith("adapter_model.") or not (path.parent / "adapter_config.json").is_file():
        return ""
    _, what, hint = _FOLDERS[0]
    return f"{what}; {hint.format(path=str(path.parent))}"


def _weights_in(folder: Path) -> list[Path]:
    """The files that may hold a model's weights, without what trainers save beside them."""
    found = [part for part in folder.iterdir() if part.suffix in _SUFFIXES and part.is_file()]
    return sorted(part for part in found if not part.name.startswith(_BESIDE)) or found


def shards(path: Path) -> list[Path]:
    """The files of an index (or of the index in a folder, safetensors first), each of them there.

    Raises:
        XaiError: A file that the index names is missing, or it names one elsewhere.
    """
    index = path if path.is_file() else _indexes(path)[0]
    names = _indexed(index)
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise XaiError(
            f"{path} is not complete: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            hint=f"its index {index.name} names {len(names)} files; download the rest",
        )
    return [index.parent / name for name in names]


def _indexed(index: Path) -> list[str]:
    """The files that an index names, in their order.

    Raises:
        XaiError: It is no index, or names one elsewhere.
    """
    if index.stat().st_size > _LARGEST_INDEX:
        raise refused(index, f"an index of {index.stat().st_size:,} bytes")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(index, f"no index of weights ({type(error).__name__}: {error})") from error
    suffix = index.name.removesuffix(".index.json").rpartition(".")[2]
    if not names or not all(isinstance(name, str) and re.fullmatch(rf"[\w.\- ]+\.{suffix}", name) for name in names):
        raise refused(index, f"an index that names other files than .{suffix} beside it")
    return names


@dataclass(frozen=True)
class Part:
    """Which of several files of a model's weights one is.

    Attributes:
        number: Its place among them, from 1.
        of: How many they are.
        whole: The index that names them all, as it is called; it may not be there.
        known: Whether it is no whole of its own: that index names it, or it is called as transformers calls parts.
    """

    number: int
    of: int
    whole: Path
    known: bool

    def __str__(self) -> str:
        return f"part {self.number} of {self.of}"

    @property
    def hint(self) -> str:
        """What to name in its place."""
        return f"name {self.whole}" if self.whole.is_file() else f"get {self.whole.name} beside the parts, and name it"


def part_of(path: Path) -> Part | None:
    """Which part of a model's weights a file is, by an index beside it or else by its name; None for one that is none.

    Args:
        path: The checkpoint.
    """
    if path.suffix not in _SUFFIXES or not path.is_file():
        return None
    for index in _indexes(path.parent):
        try:
            names = _indexed(index)
        except XaiError:  # of an index that is damaged the name says it
            continue
        if path.name in names:
            return Part(names.index(path.name) + 1, len(names), index, known=True) if len(names) > 1 else None
    if (named := _PART.fullmatch(path.name)) is None or int(named[3]) < 2:
        return None
    index = path.with_name(f"{named[1]}{path.suffix}.index.json")
    return Part(int(named[2]), int(named[3]), index, known=len(named[2]) == len(named[3]) == _DIGITS)


def _indexes(folder: Path) -> list[Path]:
    return [index for end in _INDEXES for index in sorted(folder.glob(f"*{end}"))]


def sha256(path: Path, opened: Opened | None = None) -> str:
    """The digest of a file's bytes, hexadecimal; of a folder or an index, that of its files together."""
    if path.is_dir() or path.name.endswith(_INDEXES):
        parts = sorted(p for p in path.iterdir() if p.suffix in (".json", ".safetensors", ".bin") and p.is_file()) \
            if path.is_dir() else [path, *shards(path)]  # fmt: skip
        together = "".join(f"{part.name} {_digest(Opened(part))}\n" for part in parts)
        return hashlib.sha256(together.encode()).hexdigest()
    return _digest(opened or Opened(path))


def _digest(opened: Opened) -> str:
    return hashlib.file_digest(opened.from_start(), "sha256").hexdigest()  # type: ignore[arg-type]


def _check_path(path: Path) -> None:
    if not path.exists():
        siblings = (
            sorted(p.name for p in path.parent.glob("*") if p.suffix in _SUFFIXES) if path.parent.is_dir() else []
        )
        hint = (
            f"in {path.parent}: {', '.join(siblings[:8])}" if siblings else "write one with run.save_checkpoint(model)"
        )
        raise XaiError(f"there is no checkpoint {path}", hint=hint)
    run = path.absolute().parent.parent
    if (run / "xai.json").is_file() and not path.resolve().is_relative_to(run.resolve()):
        raise refused(path, "a symbolic link that leaves its run", hint=f"if you trust it, name it: {path.resolve()}")
    if path.is_file() and path.stat().st_size > _LARGEST_FILE:
        raise refused(path, f"{path.stat().st_size:,} bytes; at most {_LARGEST_FILE:,} are read")
    if not path.is_dir() and not path.is_file():
        raise XaiError(f"{path} is neither a file nor a folder")
    if path.is_file() and path.stat().st_size == 0:
        raise damaged(path, "it is empty")


def _folder_form(path: Path) -> Container:
    if (other := _of_another_kind(path)) is not None:
        what, hint = other
        raise XaiError(f"{path} is {what}", hint=hint.format(path=str(path)))
    if (path / "config.json").is_file():
        if _indexes(path):
            shards(path)
        return Container.FOLDER
    if indexes := _indexes(path):
        return Container.TORCH if indexes[0].name.endswith(_PICKLED_INDEX) else Container.SHARDS
    found = sorted(p.name for p in path.iterdir() if p.suffix in _SUFFIXES)
    parts = [part for name in found if (part := part_of(path / name)) is not None and part.known]
    if parts:
        raise XaiError(f"{path} holds parts of a model's weights without their index", hint=parts[0].hint)
    hint = f"name one of its files: {', '.join(found[:8])}" if found else "name a file, or a Hugging Face model folder"
    raise XaiError(f"{path} is a folder without config.json", hint=hint)


def _of_another_kind(folder: Path) -> tuple[str, str] | None:
    """What a folder is that is none of weights, and the way out."""
    for mark, what, hint in _FOLDERS:
        if any(folder.glob(mark)):
            # A trainer may gather the weights of all ranks and save them whole, beside the parts it goes on from.
            whole = mark in _PARTS and any((folder / name).is_file() for name in _WHOLE)
            return None if whole else (what, hint)
    return None


_PARTS = ("zero_to_fp32.py", "pytorch_model_fsdp_*")
"""Marks of parts that the weights may lie beside."""
_WHOLE = tuple(f"{name}{end}" for name in ("model.safetensors", "pytorch_model.bin") for end in ("", ".index.json"))
"""The weights as transformers and accelerate call them."""

_OF_FSDP = (
    "a distributed checkpoint of torch (FSDP), in parts of each rank",
    "python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} model.pt",
)
_OF_ZERO = (
    "a DeepSpeed checkpoint, whose weights lie in parts of each rank",
    "in the folder above: python zero_to_fp32.py . model, and name the file written",
)

_FOLDERS = (
    (
        "adapter_config.json",
        "an adapter (PEFT), which changes the weights of another model",
        "merge it once: peft.AutoPeftModel.from_pretrained({path!r}).merge_and_unload().save_pretrained('merged')",
    ),
    (".metadata", *_OF_FSDP),
    (
        "pytorch_model_fsdp_*",
        "a checkpoint of accelerate (FSDP), whose weights lie in parts of each rank",
        "python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path}/pytorch_model_fsdp_0 model.pt",
    ),
    (
        "zero_to_fp32.py",
        "a DeepSpeed checkpoint, whose weights lie in parts of each rank",
        "python {path}/zero_to_fp32.py {path} model, and name the file written",
    ),
    ("*zero_pp_rank_*", *_OF_ZERO),
    ("saved_model.pb", "a TensorFlow model", "xai reads torch models: convert it with onnx2torch, or load it yourself"),
    ("orbax*", "a JAX checkpoint", "xai reads torch models: write the arrays with safetensors.numpy.save_file"),
    ("checkpoint.index", "a TensorFlow checkpoint", "transformers reads some: from_pretrained(folder, from_tf=True)"),
)
"""Folders that are other things: what marks them, what they are, and the way out."""


def _zip_form(archive: Archive) -> Container:
    names = archive.members
    if is_package(archive):
        return Container.PACKAGE
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return Container.TORCHSCRIPT
    if "data.pkl" in names:
        archive.verify()
        return Container.TORCH
    raise _named_zip(archive.path, names)


def _named_zip(path: Path | str, names: Collection[str]) -> XaiError:
    """What a zip archive is that is none of torch's."""
    what = next((f"{what}, not a checkpoint of torch" for mark, what in _ZIPS if any(mark in n for n in names)), "")
    return XaiError(
        f"{path} is {what}" if what else f"{path} is a zip archive, but none of torch's",
        hint="it holds " + ", ".join(sorted(names)[:6]),
    )


def _other_zip(path: Path) -> XaiError | None:
    """What an archive is that is refused, where none of its names is one that torch writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return None
    return None if any(name.rpartition("/")[2] in _OF_TORCH for name in names) else _named_zip(path, names)


_OF_TORCH = frozenset({"data.pkl", "constants.pkl", "version", "archive_version", "archive_format", "byteorder"})
_ZIPS = (
    ("model.weights.h5", "a Keras model"),
    (".npy", "a NumPy archive (.npz)"),
    ("METADATA", "a Python wheel"),
    ("safetensors", "a zip of safetensors: unpack it first"),
    (".pth", "a zip of checkpoints: unpack it first"),
    (".pt", "a zip of checkpoints: unpack it first"),
    (".ckpt", "a zip of checkpoints: unpack it first"),
)

_FORMS = "it reads .safetensors, what torch.save and torch.export.save write, and Hugging Face folders"

_OF_JOBLIB = (
    "xai reads torch models; of arrays by name, if you trust the file: "
    "torch.save({{k: torch.from_numpy(v) for k, v in joblib.load({path!r}).items()}}, 'model.pt')"
)

_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it: git lfs pull"),
    (b"<!DOCTYPE", "a web page, not the file itself", "the download failed: open it in a browser to see why"),
    (b"<html", "a web page, not the file itself", "the download failed: open it in a browser to see why"),
    (b"<?xml", "an XML answer of a server, not the file itself", "the download failed: read it to see why"),
    (b"\x1f\x8b", "compressed (gzip)", "unpack it first: gunzip, or tar xzf"),
    (b"BZh", "compressed (bzip2)", "unpack it first: bunzip2, or tar xjf"),
    (b"\xfd7zXZ", "compressed (xz)", "unpack it first: unxz, or tar xJf"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd)", "unpack it first: unzstd"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"\x89HDF", "an HDF5 file (Keras)", "xai reads torch models: write the arrays with safetensors.numpy.save_file"),
    (b"GGUF", "a GGUF file (llama.cpp)", "its weights are quantised: take the model's safetensors instead"),
    (b"ggml", "a GGML file (llama.cpp)", "its weights are quantised: take the model's safetensors instead"),
    (b"\x93NUMPY", "a NumPy array", "a model's weights: torch.save({name: torch.from_numpy(array)}, 'model.pt')"),
    *((mark, "compressed (zlib), as joblib writes", _OF_JOBLIB) for mark in (b"x\x9c", b"x\x01", b"x\xda", b"x\x5e")),
    (b"TFL3", "a TensorFlow Lite model", "xai reads torch models"),
    (b"PAR1", "a Parquet file", "name data with --data, a checkpoint with --model"),
    (b"\x89PNG", "a picture", "name data with --data, a checkpoint with --model"),
    (b"\xff\xd8\xff", "a picture", "name data with --data, a checkpoint with --model"),
)
"""What other files begin with."""


def _none(path: Path, head: bytes) -> XaiError:
    start = head.lstrip()
    for mark, what, hint in _OTHERS:
        if start[: len(mark)].lower() == mark.lower() or head[4:8] == mark == b"TFL3":
            return XaiError(f"{path} is {what}", hint=hint.format(path=str(path)) if hint is _OF_JOBLIB else hint)
    if start[:1] in (b"{", b"["):
        return XaiError(f"{path} is JSON, not a checkpoint: {_shown(start)}", hint=_FORMS)
    if re.match(rb"\x08[\x01-\x20]\x12.{1,64}(pytorch|tf2onnx|onnx|skl|keras)", head, re.DOTALL) or (
        head[:1] == b"\x08" and path.suffix == ".onnx"
    ):
        return XaiError(
            f"{path} is an ONNX model", hint="make torch's of it: onnx2torch.convert(path), and save that with xai"
        )
    if not head.strip(b"\0"):
        return damaged(path, "it holds zeros only, where a download or a disk failed")
    if len(head) < 1024 and head.isascii():
        return XaiError(f"{path} is a text, not a checkpoint: {_shown(start)}", hint=_FORMS)
    return XaiError(f"{path} is no checkpoint that xai knows", hint=_FORMS)


def _shown(head: bytes) -> str:
    return repr(head[:60].decode("utf-8", "replace").splitlines()[0] if head else "")


def _is_old_tar(head: bytes) -> bool:
    """Whether a file begins with a member of a tar archive of the form before POSIX."""
    checksum = head[148:156].strip(b" \0")
    if len(head) < 512 or not checksum or not all(c in b"01234567" for c in checksum):
        return False
    return sum(head[:148]) + 8 * 32 + sum(head[156:512]) == int(checksum, 8)
