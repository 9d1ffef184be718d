"""private: files with secrets are written whole or not at all, and read only where nobody else can read them."""

from __future__ import annotations

import os
import stat

import pytest

from klyng_mp.errors import AuthenticationError
from klyng_mp.remote.private import read_private, write_private


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277])
def test_only_its_owner_can_read_it(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_private(tmp_path / "secret", b"hush")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) & 0o177 == 0
    assert os.listdir(tmp_path) == ["secret"]
    assert read_private(tmp_path / "secret") == b"hush"


def test_a_file_that_others_could_read_is_replaced_by_one_that_they_cannot(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert read_private(path) == b"new"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o777])
def test_what_others_can_open_is_refused(tmp_path, mode):
    path = tmp_path / "secret"
    write_private(path, b"hush")
    path.chmod(mode)
    with pytest.raises(AuthenticationError, match="chmod 600"):
        read_private(path)


def test_what_is_no_file_of_a_sensible_size_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    write_private(tmp_path / "large", bytes((1 << 20) + 1))
    for name in ("fifo", "large"):
        with pytest.raises(AuthenticationError, match="no file with a secret"):
            read_private(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_private(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        read_private(tmp_path)


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    write_private(path, b"old")

    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(path, b"new")
    assert read_private(path) == b"old"
    assert os.listdir(tmp_path) == ["secret"]
