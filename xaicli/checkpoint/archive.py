"""The zip archives that torch writes, inspected before anything in them is loaded.

torch only ever *stores* members, one after the other. Everything else a zip file can do (compression, members that
share bytes, names that leave the folder, links) is refused: it serves bombs and parser tricks only.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import IO

from xaicli.errors import DamagedFileError, XaiError

MAGIC = b"PK\x03\x04"
_MOST_MEMBERS = 500_000
_OLD_GRAPH = "serialized_exported_program.json"
_ENCRYPTED = 0x1
_CHUNK = 16 * 2**20
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_END_BYTES = 22


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name without the archive's root folder, its size and where its bytes begin."""

    name: str
    size: int
    info: zipfile.ZipInfo


@dataclass(frozen=True)
class Place:
    """Where the bytes of a member are, for a file that is opened again later."""

    name: str
    at: int
    size: int
    checksum: int
    """0 where none was computed."""

    def chunks(self, file: IO[bytes], path: Path | str) -> Iterator[bytes]:
        """The member's bytes.

        Raises:
            DamagedFileError: They are not those that were written.
        """
        left, found = self.size, 0
        file.seek(self.at)
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise damaged(path, f"{self.name} ends early")
            left -= len(chunk)
            found = zlib.crc32(chunk, found)
            yield chunk
        # torch can be told to compute no checksums; it then writes 0.
        if self.checksum not in (0, found):
            raise damaged(path, f"the bytes of {self.name} are not those that were written")

    def read(self, file: IO[bytes], path: Path | str) -> bytearray:
        """The member's bytes in one piece; see `chunks`."""
        data = bytearray()
        for chunk in self.chunks(file, path):
            data += chunk
        return data


class Archive:
    """A checked archive; close it, or use it as a context manager.

    Args:
        file: The archive, open for reading bytes.
        path: What to call it in errors.

    Raises:
        DamagedFileError: It is no whole zip archive.
        RefusedError: It holds something that torch does not write.
    """

    def __init__(self, file: IO[bytes], path: Path | str) -> None:
        self.path = path
        self._file = file
        try:
            self._zip = zipfile.ZipFile(file)
            infos = self._zip.infolist()
            self._check_end()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError) as error:
            cut = "not a zip file" in str(error)
            why = (
                "it begins as a zip archive (as torch.save writes) and breaks off before its end" if cut else str(error)
            )
            raise damaged(path, why) from error
        if not infos:
            raise damaged(path, "an empty archive")
        if len(infos) > _MOST_MEMBERS:
            raise refused(path, f"{len(infos)} members; at most {_MOST_MEMBERS} are read")
        if any(info.filename == _OLD_GRAPH for info in infos):
            hint = "export it again: torch.export.save(program, path)"
            raise refused(path, "a graph as torch wrote it before 2.8, whose tensors are pickles", hint=hint)
        for info in infos:
            self._check_member(info)
        self._check_layout(infos)
        self.root = infos[0].filename.split("/")[0]
        self.members = {m.name: m for m in (self._member(info) for info in infos)}

    @classmethod
    def open(cls, path: Path) -> Archive:
        """Open and check the archive at a path."""
        file = path.open("rb")
        try:
            return cls(file, path)
        except BaseException:
            file.close()
            raise

    def read(self, name: str) -> bytes:
        """The bytes of a member.

        Raises:
            DamagedFileError: They are not those that were written.
        """
        return bytes(self.place(name).read(self._file, self.path))

    def verify(self) -> None:
        """Compare every member with its checksum, which torch's own reader does not.

        Raises:
            DamagedFileError: A member's bytes are not those that were written.
        """
        for member in self.members.values():
            if not member.name.startswith("code/"):  # TorchScript's own, which is compressed and never read here
                for _ in self.place(member.name).chunks(self._file, self.path):
                    pass

    def place(self, name: str) -> Place:
        """Where the bytes of a member are."""
        member = self.members[name]
        return Place(name, self._data_start(member.info), member.size, member.info.CRC)

    def close(self) -> None:
        """Close the file."""
        self._zip.close()
        self._file.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _member(self, info: zipfile.ZipInfo) -> Member:
        root, _, name = info.filename.partition("/")
        if root != self.root or not name:
            raise refused(self.path, f"a member outside its root folder ({info.filename!r})")
        return Member(name, info.file_size, info)

    def _check_end(self) -> None:
        # zipfile and torch must agree on which central directory counts: it is the one that ends the file.
        if self._zip.comment:
            raise zipfile.BadZipFile("bytes after the end of the archive")
        self._file.seek(-_END_BYTES, 2)
        if self._file.read(4) != b"PK\x05\x06":
            raise zipfile.BadZipFile("bytes after the end of the archive")

    def _check_member(self, info: zipfile.ZipInfo) -> None:
        name = info.filename
        if info.orig_filename != name or "\\" in name or "\0" in name:
            raise refused(self.path, f"a member with an ambiguous name ({info.orig_filename!r})")
        if name.startswith("/") or ".." in name.split("/"):
            raise refused(self.path, f"a member that leaves its folder ({name!r})")
        # TorchScript alone compresses, its source code; that is never unpacked here.
        stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
        if not stored and not name.partition("/")[2].startswith("code/"):
            raise refused(self.path, f"a compressed member ({name!r}, {info.file_size:,} bytes when unpacked)")
        if info.flag_bits & _ENCRYPTED:
            raise refused(self.path, f"an encrypted member ({name!r})")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise refused(self.path, f"a symbolic link ({name!r})")

    def _check_layout(self, infos: list[zipfile.ZipInfo]) -> None:
        if min(info.header_offset for info in infos) != 0:
            # zipfile forgives bytes before the archive and torch does not: they would read different archives.
            raise refused(self.path, "bytes before the archive")
        seen: set[str] = set()
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.filename in seen:
                raise refused(self.path, f"two members with one name ({info.filename!r})")
            seen.add(info.filename)
            if info.header_offset < end:
                raise refused(self.path, f"overlapping members ({info.filename!r})")
            end = self._data_start(info) + info.compress_size
        if end > self._zip.start_dir:
            raise refused(self.path, "a member that overlaps the list of members")

    def _data_start(self, info: zipfile.ZipInfo) -> int:
        self._file.seek(info.header_offset)
        header = self._file.read(_LOCAL_HEADER.size)
        if len(header) != _LOCAL_HEADER.size or not header.startswith(MAGIC):
            raise damaged(self.path, f"no member begins where {info.filename!r} should")
        *_, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        if self._file.read(name_bytes) != info.orig_filename.encode("utf-8"):
            raise refused(self.path, f"a member with two names ({info.filename!r})")
        return info.header_offset + _LOCAL_HEADER.size + int(name_bytes) + int(extra_bytes)


def damaged(path: Path | str, why: str) -> DamagedFileError:
    """The error for a file whose bytes are not a whole checkpoint."""
    return DamagedFileError(
        f"{path} is damaged or was not written to its end: {why}", hint="copy it again, or take another checkpoint"
    )


class RefusedError(XaiError):
    """A file that could run code, or take memory without end, when loaded; nothing of it was loaded.

    Args:
        path: The file as the user named it.
        thing: What it holds that is not loaded.
        hint: What to try.
    """

    def __init__(self, path: str | PathLike[str], thing: str, *, hint: str) -> None:
        super().__init__(f"{path} is not loaded: it holds {thing}", hint=hint)
        self.thing = thing


def refused(path: str | PathLike[str], thing: str, *, hint: str = "") -> RefusedError:
    """The refusal of a file, naming the offending thing in it.

    Args:
        path: The file as the user named it.
        thing: What it holds that is not loaded ("pickled weights (data/weights/weight_0)").
        hint: What to try; by default how to look into the file and how to convert it where it is trusted.
    """
    return RefusedError(path, thing, hint=hint or convert_hint(path))


def convert_hint(path: str | PathLike[str]) -> str:
    """How to turn a file that can run code into one that cannot."""
    return (
        f"see what it would run: xai checkpoint inspect {path}; "
        f"if you trust whoever made it, convert it once: xai checkpoint convert {path} --trust-checkpoint"
    )
