"""launch.outfile: what cannot be written is told before, and nobody sees half a file."""

from __future__ import annotations

import os
import threading

import pytest

from klyng_mp.launch.outfile import explain_unwritable, write_whole


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is no name of a file"),
        ("folder", "is a folder, and a file is needed"),
        ("nowhere/file", "cannot be written: there is no folder"),
        ("file", None),
        ("there", None),
        ("link", None),
        ("/dev/null", None),
    ],
)
def test_what_is_told_before(tmp_path, monkeypatch, name, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "there").write_text("before")
    (tmp_path / "link").symlink_to("folder/new")
    told = explain_unwritable(name)
    assert told is None if reason is None else told.startswith(reason)
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "there"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_permissions_are_looked_at(tmp_path):
    (tmp_path / "file").touch(0o400)
    assert explain_unwritable(str(tmp_path / "file")) == "cannot be written: permission denied"
    tmp_path.chmod(0o500)
    assert explain_unwritable(str(tmp_path / "new")) == "cannot be written: permission denied"


def test_a_file_is_made_and_replaced_also_through_a_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    for content in (b"one", b"two"):
        write_whole(str(link), [content[:1], content[1:]])
        assert target.read_bytes() == content
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "target"]


def test_what_fails_leaves_everything_as_it_was(tmp_path):
    def fail():
        yield b"half"
        raise OSError("the disk is full")

    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="full"):
        write_whole(str(path), fail())
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(FileNotFoundError):
        write_whole(str(tmp_path / "nowhere" / "file"), [b"x"])


def test_what_is_no_regular_file_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(str(pipe), [b"con", b"tent"])
    reader.join()
    assert read == [b"content"]
    assert pipe.is_fifo()
