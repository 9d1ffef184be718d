"""Bundles: the files of a program as one archive, which is made here and unpacked on another machine.

Layer: remote; imports errors, sources.

A bundle is a tar file, compressed as by gzip. Its first member, ``manifest.json``, is canonical JSON: which files
there are, how long they are, their SHA-256, and what a rank needs to run among them. The files follow in the
manifest's order. Everything else in a tar file (dates, owners, modes) is fixed, so that there is exactly one stream
of bytes for a manifest and its files. Therefore who unpacks one does not interpret it: each header is made again from
the manifest and compared. A link, a device, a second file of the same name is no case of its own, but bytes that are
not the expected ones. Names are written to disk only as the checked manifest has them.

The digest is the manifest's SHA-256. Programs of equal content have equal digests, whenever, wherever and by
whichever version of zlib their bundles were made.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import tarfile
import zlib
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from klyng_mp.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from klyng_mp.remote.sources import Sources

__all__ = ["Bundle", "Limits", "Manifest", "PackedFile", "Unpacked", "explain_full_disk", "inspect", "unpack"]

_FORMAT = 1
_MANIFEST = "manifest.json"
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_LEVEL = 1  # of compression: between machines of one network a higher one costs more time than it saves
_LARGE_BYTES = 1 << 20  # a longer file takes longer to compress than to look at its beginning
_SAMPLE_BYTES = 1 << 16
_GZIP = zlib.MAX_WBITS | 16
_NAME_BYTES = 1024
_PART_BYTES = 255  # what Linux's file systems allow
_MANIFEST_BYTES_PER_FILE = 512  # far more than names need on the average; bounds what is read before it is checked


class Limits(NamedTuple):
    """How much a bundle may hold.

    Attributes:
        files: number of files.
        bytes: their length, unpacked.
    """

    files: int = 10_000
    bytes: int = 1 << 28


class PackedFile(NamedTuple):
    """One file of a bundle: its place in it, its length, its SHA-256 in hexadecimal, whether it can be executed."""

    place: str
    size: int
    sha256: str
    executable: bool


class Manifest(NamedTuple):
    """What a bundle holds; places are relative, with ``/``.

    Attributes:
        files: in the order of their places.
        path: folders that belong to the beginning of ``sys.path``, in this order; zip files may be among them.
        cwd: the folder that stands for the directory in which the program was started.
        main: the script, or ``""``.
    """

    files: tuple[PackedFile, ...]
    path: tuple[str, ...]
    cwd: str
    main: str

    def encode(self) -> bytes:
        """Return the one way to write this manifest."""
        fields = {"format": _FORMAT, "cwd": self.cwd, "files": self.files, "main": self.main, "path": self.path}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


class Unpacked(NamedTuple):
    """A bundle on this machine's disk; all paths are absolute. See `Manifest`."""

    folder: str
    path: list[str]
    cwd: str
    main: str


class Bundle(NamedTuple):
    """A program's files as one archive; `make` makes it.

    Attributes:
        digest: 64 hexadecimal digits; equal if and only if the contents are.
        data: the archive.
        manifest: what it holds.
    """

    digest: str
    data: bytes
    manifest: Manifest

    @classmethod
    def make(cls, sources: Sources, limits: Limits = Limits()) -> Bundle:  # noqa: B008 (immutable)
        """Read the files and pack them.

        Raises:
            BundleError: a file cannot be read, its name cannot travel, or all are more than ``limits`` allow.
        """
        _check_amount(sources, limits)
        packed, contents = [], []
        for entry in sources.entries:
            content, executable = _read(entry.path)
            packed.append(PackedFile(entry.place, len(content), hashlib.sha256(content).hexdigest(), executable))
            contents.append(content)
        manifest = Manifest(tuple(packed), tuple(sources.path), sources.cwd, sources.main)
        text = manifest.encode()
        _check_manifest(manifest, limits)
        squeezer = zlib.compressobj(_choose_level(contents), zlib.DEFLATED, _GZIP)
        pieces = [squeezer.compress(piece) for piece in _write_tar(manifest, text, contents)]
        return cls(hashlib.sha256(text).hexdigest(), b"".join([*pieces, squeezer.flush()]), manifest)


def inspect(source: bytes | BinaryIO, limits: Limits = Limits()) -> tuple[str, Manifest]:  # noqa: B008 (immutable)
    """Read a whole bundle and return its digest and manifest; write nothing.

    Raises:
        BundleError: it is no bundle, is damaged, or holds more than ``limits`` allow.
    """
    stream, digest, manifest = _open(source, limits)
    for packed in manifest.files:
        _copy(stream, packed, lambda _: None)
    _finish(stream)
    return digest, manifest


def unpack(source: bytes | BinaryIO, folder: str, limits: Limits = Limits()) -> Unpacked:  # noqa: B008 (immutable)
    """Write the files of a bundle into a new folder, readable by this user only.

    All names, lengths and numbers are checked before anything is written. What is read is bounded by them, however far
    the archive would expand.

    Args:
        source: the archive, or a file that holds it.
        folder: does not exist yet; the one above it does.
        limits: what is taken at most.

    Raises:
        BundleError: as by `inspect`, or the disk is full; the folder is not there.
        OSError: the folder cannot be made.
    """
    stream, _, manifest = _open(source, limits)
    folder = os.path.abspath(folder)
    os.mkdir(folder, 0o700)
    try:
        files = {packed.place for packed in manifest.files}
        for place in (manifest.cwd, *manifest.path):
            if files.isdisjoint(_and_above(place)):  # else a zip file, or a folder in one
                os.makedirs(os.path.join(folder, place), 0o700, exist_ok=True)
        for packed in manifest.files:
            _write_file(stream, packed, folder)
        _finish(stream)
    except BaseException as error:
        shutil.rmtree(folder)
        if isinstance(error, OSError):
            raise BundleError(explain_full_disk(error, folder)) from error
        raise
    main = os.path.join(folder, manifest.main) if manifest.main else ""
    path = [os.path.join(folder, place) for place in manifest.path]
    return Unpacked(folder, path, os.path.join(folder, manifest.cwd), main)


def explain_full_disk(error: OSError, folder: str) -> str:
    """Return a sentence about a bundle that could not be written below a folder, and what to do."""
    where = os.path.dirname(folder) or folder
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"no room for the bundle in {where} ({error.strerror}): make room there, or use another disk"
    return f"the bundle cannot be written in {where} ({error.strerror or error}): see to it that this user may"


# -- making ----------------------------------------------------------------------------------------


def _check_amount(sources: Sources, limits: Limits) -> None:
    sizes = []
    for entry in sources.entries:
        try:
            sizes.append((os.stat(entry.path).st_size, entry.path))
        except OSError as error:
            raise BundleError(_explain_unreadable(entry.path, error)) from None
    if len(sizes) > limits.files or sum(size for size, _ in sizes) > limits.bytes:
        largest = ", ".join(f"{path} ({size} bytes)" for size, path in sorted(sizes, reverse=True)[:3])
        raise BundleError(
            f"the program is too large to travel: {len(sizes)} files of {sum(size for size, _ in sizes)} bytes, and "
            f"{limits.files} files of {limits.bytes} bytes are allowed; leave out what is not needed. "
            f"The largest are {largest}"
        )


def _read(path: str) -> tuple[bytes, bool]:
    try:
        with open(path, "rb") as file:
            return file.read(), bool(os.fstat(file.fileno()).st_mode & 0o100)
    except OSError as error:
        raise BundleError(_explain_unreadable(path, error)) from None


def _explain_unreadable(path: str, error: OSError) -> str:
    return f"{path} is of the program, but cannot be read ({error.strerror}): see to it that it can, or leave it out"


def _write_tar(manifest: Manifest, text: bytes, contents: list[bytes]) -> Iterator[bytes]:
    yield _header(_MANIFEST, len(text), executable=False)
    yield text + _padding(len(text))
    for packed, content in zip(manifest.files, contents, strict=True):
        yield _header(packed.place, packed.size, executable=packed.executable)
        yield content
        yield _padding(packed.size)
    yield _END


def _choose_level(contents: list[bytes]) -> int:
    """Return how hard to compress: not at all where the large files are compressed already, or are random."""
    sample = b"".join(content[:_SAMPLE_BYTES] for content in contents if len(content) > _LARGE_BYTES)
    return 0 if len(zlib.compress(sample, _LEVEL)) > 0.9 * len(sample) > 0 else _LEVEL


def _header(name: str, size: int, *, executable: bool) -> bytes:
    member = tarfile.TarInfo(name)  # a regular file without owner and date
    member.size = size
    member.mode = 0o755 if executable else 0o644
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


_END = bytes(2 * _BLOCK)


# -- reading ---------------------------------------------------------------------------------------


class _Expander:
    """What a compressed file expands to, in exactly the pieces that are asked for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(_GZIP)
        self._waiting = b""

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer where the stream ends."""
        pieces = []
        while size:
            if not self._waiting and not self._inflate.eof:
                self._waiting = self._file.read(_CHUNK)
            try:
                piece = self._inflate.decompress(self._waiting, size)
            except zlib.error as error:
                raise BundleError(_damaged(f"it cannot be expanded ({error})")) from None
            exhausted = not self._waiting
            self._waiting = self._inflate.unconsumed_tail
            if not piece and (exhausted or self._inflate.eof):
                break
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def is_over(self) -> bool:
        """Tell whether the stream ends here, with its check sum right, and nothing follows it."""
        return not self.read(1) and self._inflate.eof and not self._inflate.unused_data and not self._file.read(1)


def _open(source: bytes | BinaryIO, limits: Limits) -> tuple[_Expander, str, Manifest]:
    stream = _Expander(io.BytesIO(source) if isinstance(source, bytes) else source)
    first = stream.read(_BLOCK)
    try:
        size = tarfile.TarInfo.frombuf(first, "utf-8", "strict").size
    except (tarfile.HeaderError, UnicodeDecodeError):
        raise BundleError(_damaged("it does not begin like one")) from None
    if not 0 < size <= _BLOCK * 2 + _MANIFEST_BYTES_PER_FILE * limits.files:
        raise BundleError(f"the bundle's list of files has {size} bytes, more than {limits.files} files need")
    if first != _header(_MANIFEST, size, executable=False):
        raise BundleError(_damaged("it does not begin with its manifest"))
    text = stream.read(size)
    _expect(stream, _padding(size), "the manifest")
    return stream, hashlib.sha256(text).hexdigest(), _decode_manifest(text, limits)


def _decode_manifest(text: bytes, limits: Limits) -> Manifest:
    try:
        fields = json.loads(text)
        files = tuple(PackedFile(*entry) for entry in fields["files"])
        manifest = Manifest(files, tuple(fields["path"]), fields["cwd"], fields["main"])
        _check_types(manifest)
        canonical = manifest.encode() == text
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BundleError(_damaged(f"its manifest cannot be read ({type(error).__name__})")) from None
    if not canonical:
        raise BundleError(_damaged("its manifest is not written as this version writes it"))
    _check_manifest(manifest, limits)
    return manifest


def _check_types(manifest: Manifest) -> None:
    for packed in manifest.files:
        if tuple(map(type, packed)) != (str, int, str, bool):
            raise TypeError(packed)
    if {type(place) for place in (*manifest.path, manifest.cwd, manifest.main)} != {str}:
        raise TypeError(manifest)


def _check_manifest(manifest: Manifest, limits: Limits) -> None:
    if len(manifest.files) > limits.files:
        raise BundleError(f"the bundle has {len(manifest.files)} files, and {limits.files} are allowed")
    if any(packed.size < 0 for packed in manifest.files):
        raise BundleError(_damaged("a file has less than no bytes"))
    total = sum(packed.size for packed in manifest.files)
    if total > limits.bytes:
        raise BundleError(f"the bundle's files have {total} bytes, and {limits.bytes} are allowed")
    names = [packed.place for packed in manifest.files]
    for name in (*names, *manifest.path, manifest.cwd, *([manifest.main] if manifest.main else [])):
        reason = _explain_bad_name(name)
        if reason:
            raise BundleError(f"{name!r} cannot be the name of a file in a bundle: {reason}; rename it or leave it out")
    if names != sorted(set(names)):
        raise BundleError(_damaged("its files are not in order, or a name is there twice"))
    if manifest.main and {manifest.main, f"{manifest.main}/__main__.py"}.isdisjoint(names):
        raise BundleError(_damaged(f"the script {manifest.main!r} is not in it"))
    files = set(names)
    for name in names:
        if not files.isdisjoint(_and_above(name)[1:]):
            raise BundleError(_damaged(f"what {name!r} should be in is a file"))
    if not files.isdisjoint(_and_above(manifest.cwd)):
        raise BundleError(_damaged(f"its directory {manifest.cwd!r} is a file"))


def _and_above(place: str) -> list[str]:
    parts = place.split("/")
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _explain_bad_name(name: str) -> str:
    if name.startswith("/"):
        return "it begins at the root"
    if not name.isprintable():  # also what is no valid text
        return "it has characters that cannot be shown"
    if {"", ".", ".."} & set(name.split("/")):
        return "it leads to another folder"
    if len(name.encode()) > _NAME_BYTES or any(len(part.encode()) > _PART_BYTES for part in name.split("/")):
        return "it is too long"
    return ""


def _copy(stream: _Expander, packed: PackedFile, write: Callable[[bytes], object]) -> None:
    _expect(stream, _header(packed.place, packed.size, executable=packed.executable), repr(packed.place))
    left, seen = packed.size, hashlib.sha256()
    while left:
        piece = stream.read(min(left, _CHUNK))
        if not piece:
            raise BundleError(_damaged(f"it ends within {packed.place!r}"))
        seen.update(piece)
        write(piece)
        left -= len(piece)
    if seen.hexdigest() != packed.sha256:
        raise BundleError(_damaged(f"{packed.place!r} is not what its manifest says"))
    _expect(stream, _padding(packed.size), repr(packed.place))


def _write_file(stream: _Expander, packed: PackedFile, folder: str) -> None:
    path = os.path.join(folder, packed.place)
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    mode = 0o700 if packed.executable else 0o600
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(fd, "wb") as file:
        _copy(stream, packed, file.write)


def _expect(stream: _Expander, wanted: bytes, where: str) -> None:
    if stream.read(len(wanted)) != wanted:
        raise BundleError(_damaged(f"at {where} it is not what its manifest says"))


def _finish(stream: _Expander) -> None:
    _expect(stream, _END, "its end")
    if not stream.is_over():
        raise BundleError(_damaged("something follows its end"))


def _damaged(reason: str) -> str:
    return f"this is no bundle, or a damaged one: {reason}; make it anew"
