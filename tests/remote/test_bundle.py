"""remote.bundle: equal programs make equal bundles, what is unpacked is what was packed, and attacks are refused."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klyng_mp.errors import BundleError
from klyng_mp.remote import bundle as module
from klyng_mp.remote.bundle import Bundle, Limits, Manifest, PackedFile, inspect, unpack
from klyng_mp.remote.sources import Entry, Sources

PROGRAM = {"0/app.py": b"import pkg\n", "0/pkg/__init__.py": b"", "0/pkg/data.bin": bytes(range(256)) * 20}


def sources_of(folder, files, *, path=("0",), cwd="0", main=""):
    for place, content in files.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes(content)
    entries = tuple(Entry(str(folder / place), place, "listed") for place in sorted(files))
    return Sources(entries, tuple(path), cwd, main, (), (), ())


def tree_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


@pytest.fixture
def bundle(tmp_path):
    return Bundle.make(sources_of(tmp_path / "here", PROGRAM, main="0/app.py"))


# -- what it is for --------------------------------------------------------------------------------


def test_what_is_unpacked_is_what_was_packed(bundle, tmp_path):
    unpacked = unpack(bundle.data, str(tmp_path / "there"))
    assert tree_of(tmp_path / "there") == PROGRAM
    folder = str(tmp_path / "there")
    assert unpacked == (folder, [f"{folder}/0"], f"{folder}/0", f"{folder}/0/app.py")
    assert inspect(bundle.data) == (bundle.digest, bundle.manifest)


def test_it_is_unpacked_from_a_file_too(bundle, tmp_path):
    (tmp_path / "file").write_bytes(bundle.data)
    with open(tmp_path / "file", "rb") as file:
        unpack(file, str(tmp_path / "there"))
    assert tree_of(tmp_path / "there") == PROGRAM


def test_it_is_a_tar_file(bundle):
    with tarfile.open(fileobj=io.BytesIO(bundle.data)) as archive:
        assert archive.getnames() == ["manifest.json", *PROGRAM]
        assert archive.extractfile("0/pkg/data.bin").read() == PROGRAM["0/pkg/data.bin"]


def test_folders_without_files_are_made(tmp_path):
    made = Bundle.make(sources_of(tmp_path / "here", {}, path=["0", "1/src"], cwd="2"))
    unpack(made.data, str(tmp_path / "there"))
    assert sorted(str(p.relative_to(tmp_path / "there")) for p in (tmp_path / "there").rglob("*")) == [
        "0",
        "1",
        "1/src",
        "2",
    ]


def test_a_zip_file_may_be_on_the_path(tmp_path):
    made = Bundle.make(sources_of(tmp_path / "here", {"0/app.zip": b"PK"}, path=["0/app.zip", "0/app.zip/lib"]))
    assert unpack(made.data, str(tmp_path / "there")).path[0] == str(tmp_path / "there/0/app.zip")
    assert tree_of(tmp_path / "there") == {"0/app.zip": b"PK"}


def test_only_this_user_can_read_it(bundle, tmp_path):
    before = os.umask(0)
    try:
        unpack(bundle.data, str(tmp_path / "there"))
    finally:
        os.umask(before)
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "there").rglob("*.py")} == {0o600}


def test_what_can_be_executed_still_can(tmp_path):
    sources = sources_of(tmp_path / "here", {"0/tool": b"#!/bin/sh\necho works\n"})
    (tmp_path / "here/0/tool").chmod(0o755)
    unpack(Bundle.make(sources).data, str(tmp_path / "there"))
    assert subprocess.run([tmp_path / "there/0/tool"], capture_output=True, check=True).stdout == b"works\n"


# -- equal programs, equal bundles -----------------------------------------------------------------


def test_date_place_umask_and_order_change_nothing(bundle, tmp_path):
    before = os.umask(0o077)
    try:
        sources = sources_of(tmp_path / "elsewhere", dict(reversed(PROGRAM.items())), main="0/app.py")
    finally:
        os.umask(before)
    os.utime(sources.entries[0].path, (1, 1))
    assert Bundle.make(sources) == bundle


def test_another_process_makes_the_same(bundle, tmp_path, run_python):
    code = (
        "import sys; from klyng_mp.remote.bundle import Bundle; from klyng_mp.remote.sources import Entry, Sources\n"
        "entries = tuple(Entry(f'{sys.argv[1]}/{place}', place, '') for place in sys.argv[2:])\n"
        "print(Bundle.make(Sources(entries, ('0',), '0', '0/app.py', (), (), ())).digest)"
    )
    done = run_python("-c", code, tmp_path / "here", *PROGRAM, env={"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"})
    assert done.stdout == f"{bundle.digest}\n"


@pytest.mark.parametrize("change", [{"0/app.py": b"import pkh\n"}, {"0/more.py": b""}])
def test_another_content_has_another_digest(bundle, tmp_path, change):
    assert Bundle.make(sources_of(tmp_path / "b", {**PROGRAM, **change}, main="0/app.py")).digest != bundle.digest


def test_a_bit_for_execution_is_content(bundle, tmp_path):
    sources = sources_of(tmp_path / "here", PROGRAM, main="0/app.py")
    (tmp_path / "here/0/app.py").chmod(0o755)
    assert Bundle.make(sources).digest != bundle.digest


names = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"], exclude_characters="/\xa0"), max_size=80
)
parts = names.filter(lambda name: name.isprintable() and name not in ("", ".", "..") and len(name.encode()) < 256)
places = st.lists(parts, min_size=1, max_size=4).map(lambda some: "/".join(["0", *some]))


@settings(max_examples=60, deadline=None)
@given(files=st.dictionaries(places, st.binary(max_size=3000), max_size=8), data=st.data())
def test_round_trips(files, data, tmp_path_factory):
    files = {
        place: content for place, content in files.items() if not any(other.startswith(f"{place}/") for other in files)
    }
    folder = tmp_path_factory.mktemp("round")
    made = Bundle.make(sources_of(folder / "here", files))
    unpack(made.data, str(folder / "there"))
    assert tree_of(folder / "there") == files
    cut = data.draw(st.integers(0, len(made.data) - 1))
    with pytest.raises(BundleError):
        inspect(made.data[:cut])


@pytest.mark.parametrize(
    ("content", "factor"), [(os.urandom(1 << 21), 1.01), (b"a line of text\n" * 200_000, 0.1)], ids=["random", "text"]
)
def test_what_cannot_be_compressed_is_not(tmp_path, content, factor):
    made = Bundle.make(sources_of(tmp_path / "here", {"0/data": content, "0/app.py": b"import m\n" * 100}))
    assert len(made.data) < factor * len(content)
    assert len(made.data) > len(content) or factor < 1
    unpack(made.data, str(tmp_path / "there"))
    assert (tmp_path / "there/0/data").read_bytes() == content


# -- programs that cannot travel -------------------------------------------------------------------


def test_a_program_that_is_too_large_is_told_why(tmp_path):
    sources = sources_of(tmp_path, {"0/a": b"1234", "0/b": b"123456"})
    with pytest.raises(BundleError, match=r"2 files of 10 bytes, and 10000 files of 9 bytes are allowed.*/0/b \(6 byt"):
        Bundle.make(sources, Limits(bytes=9))
    with pytest.raises(BundleError, match="1 files of"):
        Bundle.make(sources, Limits(files=1))
    assert Bundle.make(sources, Limits(files=2, bytes=10)).digest


def test_a_file_that_has_gone_is_named(tmp_path):
    sources = sources_of(tmp_path, {"0/a": b""})
    os.unlink(sources.entries[0].path)
    with pytest.raises(BundleError, match=r"/0/a is of the program, but cannot be read \(No such file"):
        Bundle.make(sources)


@pytest.mark.parametrize("name", ["new\nline", "esc\x1b[31m", os.fsdecode(b"latin-\xe9")])
def test_a_name_that_cannot_be_shown_is_refused(tmp_path, name):
    with pytest.raises(BundleError, match="characters that cannot be shown; rename it or leave it out"):
        Bundle.make(sources_of(tmp_path, {f"0/{name}": b""}))


# -- attacks ---------------------------------------------------------------------------------------


def manifest_of(files, **fields):
    """Return the manifest of files by their places, with what should be in no manifest."""
    packed = [PackedFile(place, len(data), hashlib.sha256(data).hexdigest(), False) for place, data in files]
    return Manifest(tuple(packed), fields.get("path", ("0",)), fields.get("cwd", "0"), fields.get("main", ""))


def forge(manifest, files, change=lambda tar: tar):
    """Pack what honest code would not."""
    text = manifest if isinstance(manifest, bytes) else manifest.encode()
    tar = [module._header("manifest.json", len(text), executable=False), text, module._padding(len(text))]
    for place, data in files:
        tar += [module._header(place, len(data), executable=False), data, module._padding(len(data))]
    return gzip.compress(change(b"".join([*tar, bytes(1024)])), 1, mtime=0)


def refuse(data, tmp_path, match, limits=Limits()):
    """See a bundle refused by both who read it, and nothing left of it."""
    before = tree_of(tmp_path)
    for read in (lambda: inspect(data, limits), lambda: unpack(data, str(tmp_path / "deep/there"), limits)):
        (tmp_path / "deep").mkdir(exist_ok=True)
        with pytest.raises(BundleError, match=match):
            read()
        assert tree_of(tmp_path) == before
        assert list((tmp_path / "deep").iterdir()) == []


def test_a_forged_bundle_is_read_where_nothing_is_wrong(tmp_path):
    files = [("0/a.py", b"1"), ("0/b.py", b"2")]
    unpack(forge(manifest_of(files), files), str(tmp_path / "there"))
    assert tree_of(tmp_path / "there") == dict(files)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/outside", "it begins at the root"),
        ("../outside", "it leads to another folder"),
        ("0/../../outside", "it leads to another folder"),
        ("0/./a", "it leads to another folder"),
        ("0//a", "it leads to another folder"),
        ("0/", "it leads to another folder"),
        ("", "it leads to another folder"),
        ("0/\0a", "characters that cannot be shown"),
        ("0/\ud800", "characters that cannot be shown"),
        ("0/" + "a" * 256, "it is too long"),
        ("0/" + "a/" * 600 + "a", "it is too long"),
    ],
)
def test_names_that_lead_outside_are_refused(tmp_path, name, reason):
    harmless = [("0/a.py", b"1")]
    for manifest in (
        manifest_of([*harmless, (name, b"evil")]),
        manifest_of(harmless, cwd=name),
        manifest_of(harmless, path=(name,)),
        *([manifest_of(harmless, main=name)] if name else []),
    ):
        refuse(forge(manifest, harmless), tmp_path, reason)


def test_plain_extraction_would_have_written_outside(tmp_path):
    files = [("../outside", b"evil")]
    data = forge(manifest_of(files), files)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (tmp_path / "there").mkdir()
        archive.extractall(
            tmp_path / "there", **({"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {})
        )
    assert (tmp_path / "outside").read_bytes() == b"evil"
    (tmp_path / "outside").unlink()
    refuse(data, tmp_path, "it leads to another folder")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE,
             tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME],
)  # fmt: skip
def test_what_is_no_plain_file_is_refused(tmp_path, kind):
    files = [("0/a", b""), ("0/b", b"evil")]
    member = tarfile.TarInfo("0/a")
    member.type, member.linkname, member.mode = kind, str(tmp_path), 0o644
    odd = member.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
    honest = module._header("0/a", 0, executable=False)
    assert odd != honest
    refuse(forge(manifest_of(files), files, lambda tar: tar.replace(honest, odd)), tmp_path, "at '0/a' it is not what")


def test_a_link_and_a_file_through_it_would_have_written_outside(tmp_path):
    (tmp_path / "victim").mkdir()
    files = [("0/link", b""), ("0/link/evil", b"evil")]
    member = tarfile.TarInfo("0/link")
    member.type, member.linkname = tarfile.SYMTYPE, str(tmp_path / "victim")
    odd = member.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
    honest = module._header("0/link", 0, executable=False)
    data = forge(manifest_of(files), files, lambda tar: tar.replace(honest, odd))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(
            tmp_path / "there", **({"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {})
        )
    assert (tmp_path / "victim/evil").read_bytes() == b"evil"
    (tmp_path / "victim/evil").unlink()
    refuse(data, tmp_path, "what '0/link/evil' should be in is a file")


@pytest.mark.parametrize(
    "names",
    [["0/a", "0/a"], ["0/b", "0/a"], ["0/a", "0/a/b"], ["0"]],
    ids=["twice", "unordered", "inside", "as folder"],
)
def test_names_that_contradict_each_other_are_refused(tmp_path, names):
    files = [(name, b"") for name in names]
    refuse(forge(manifest_of(files), files), tmp_path, "in order|is a file")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: b"[" * 100_000, "its manifest cannot be read"),
        (lambda text: b"{}", "its manifest cannot be read"),
        (lambda text: b"[]", "its manifest cannot be read"),
        (lambda text: b"\xff" + text, "its manifest cannot be read"),
        (lambda text: text.replace(b'"cwd":"0"', b'"cwd":7'), "its manifest cannot be read"),
        (lambda text: text.replace(b'"path":["0"]', b'"path":"0"'), "not written as"),
        (lambda text: text.replace(b",4,", b",4.0,"), "its manifest cannot be read"),
        (lambda text: text.replace(b",4,", b",true,"), "its manifest cannot be read"),
        (lambda text: text.replace(b",4,", b",-4,"), "less than no bytes"),
        (lambda text: text.replace(b",4,", b"," + b"9" * 5000 + b","), "its manifest cannot be read"),
        (lambda text: text.replace(b",4,", b",NaN,"), "its manifest cannot be read"),
        (lambda text: text.replace(b'"format":1', b'"format":2'), "not written as"),
        (lambda text: text.replace(b'"format":1', b'"format":1,"format":1'), "not written as"),
        (lambda text: text.replace(b'"main":""', b'"main":"","more":1'), "not written as"),
        (lambda text: text.replace(b'"main":""', b'"main":"0/x.py"'), "the script '0/x.py' is not in it"),
        (lambda text: text + b" ", "not written as"),
    ],
)
def test_manifests_that_are_none_are_refused(tmp_path, change, reason):
    files = [("0/a", b"four")]
    text = change(manifest_of(files).encode())
    assert text != manifest_of(files).encode()
    refuse(forge(text, files), tmp_path, reason)


def test_content_that_is_not_what_was_promised_is_refused(tmp_path):
    promised, sent = [("0/a", b"good"), ("0/b", b"")], [("0/a", b"evil"), ("0/b", b"")]
    refuse(forge(manifest_of(promised), sent), tmp_path, "'0/a' is not what its manifest says")
    refuse(forge(manifest_of(promised), promised[:1]), tmp_path, "at '0/b' it is not")
    refuse(forge(manifest_of(promised[:1]), promised), tmp_path, "at its end it is not")
    refuse(forge(manifest_of(promised), promised, lambda tar: tar + b"more"), tmp_path, "something follows")
    refuse(forge(manifest_of(promised), promised) + b"more", tmp_path, "something follows")
    refuse(forge(manifest_of(promised), promised) + gzip.compress(b""), tmp_path, "something follows")


def test_limits_hold_before_anything_is_expanded(tmp_path):
    files = [("0/a", b"1234"), ("0/b", b"12")]
    data = forge(manifest_of(files), files)
    refuse(data, tmp_path, "files have 6 bytes, and 5 are allowed", Limits(bytes=5))
    refuse(data, tmp_path, "has 2 files, and 1 are allowed", Limits(files=1))
    assert inspect(data, Limits(files=2, bytes=6))


def test_an_archive_that_expands_is_not_expanded(tmp_path):
    """A hundred kilobytes become a hundred megabytes; what is read of them is what the manifest says."""
    bomb = bytes(1 << 27)
    files = [("0/a", bomb)]
    refuse(
        forge(manifest_of(files), files), tmp_path, "134217728 bytes, and 1048576 are allowed", Limits(bytes=1 << 20)
    )
    small = [("0/a", b"")]
    refuse(forge(manifest_of(small), small, lambda tar: tar + bomb), tmp_path, "something follows")
    refuse(forge(bomb, []), tmp_path, "list of files has 134217728 bytes")
    code = (
        "import resource, sys; from klyng_mp.remote.bundle import *; data = open(sys.argv[1], 'rb').read()\n"
        "limit = int(open('/proc/self/statm').read().split()[0]) * 4096 + (1 << 25)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "inspect(data)"
    )
    (tmp_path / "bomb").write_bytes(forge(manifest_of(small), small, lambda tar: tar + bomb))
    words = [sys.executable, "-c", code, str(tmp_path / "bomb")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "BundleError" in done.stderr
    assert "something follows its end" in done.stderr


def test_each_flipped_bit_is_noticed_or_harmless(bundle, tmp_path):
    """Some bits mean nothing (a date in gzip's header, which of two equal bytes is copied): what is read is right."""
    refused = 0
    for position in range(len(bundle.data)):
        damaged = bytearray(bundle.data)
        damaged[position] ^= 1 << position % 8
        try:
            assert inspect(bytes(damaged)) == (bundle.digest, bundle.manifest)
        except BundleError:
            refused += 1
    assert refused > 0.9 * len(bundle.data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000), st.booleans())
def test_anything_else_is_no_bundle(data, compressed):
    with pytest.raises(BundleError, match=r"this is no bundle|list of files"):
        inspect(gzip.compress(data) if compressed else data)


def test_headers_within_headers_are_not_followed(tmp_path):
    """tarfile would call itself for each of these."""
    member = tarfile.TarInfo("././@LongLink")
    member.type = tarfile.GNUTYPE_LONGNAME
    endless = zlib.compress(member.tobuf(tarfile.GNU_FORMAT) * 5000, wbits=31)
    with pytest.raises(RecursionError), tarfile.open(fileobj=io.BytesIO(endless)):
        pass
    refuse(endless, tmp_path, "list of files has 0 bytes")


# -- disks -----------------------------------------------------------------------------------------


def test_a_full_disk_leaves_nothing(bundle, tmp_path, monkeypatch):
    """The second file finds no room, by a limit on the size of files that the kernel holds."""
    code = (
        "import resource, signal, sys; from klyng_mp.remote.bundle import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "unpack(open(sys.argv[1], 'rb'), sys.argv[2])"
    )
    (tmp_path / "file").write_bytes(bundle.data)
    (tmp_path / "deep").mkdir()
    words = [sys.executable, "-c", code, str(tmp_path / "file"), str(tmp_path / "deep/there")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    sentence = f"no room for the bundle in {tmp_path}/deep (File too large): make room there, or use another disk"
    assert done.stderr.splitlines()[-1] == f"klyng_mp.errors.BundleError: {sentence}"
    assert list((tmp_path / "deep").iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(bundle, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/mine").write_text("mine")
    with pytest.raises(FileExistsError):
        unpack(bundle.data, str(tmp_path / "there"))
    assert tree_of(tmp_path / "there") == {"mine": b"mine"}


def test_what_else_can_be_wrong_with_a_disk():
    error = OSError(errno.EROFS, os.strerror(errno.EROFS))
    sentence = module.explain_full_disk(error, "/a/b")
    assert sentence == "the bundle cannot be written in /a (Read-only file system): see to it that this user may"


def test_the_manifest_is_canonical_json(bundle):
    text = bundle.manifest.encode()
    assert hashlib.sha256(text).hexdigest() == bundle.digest
    assert json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")).encode() == text
