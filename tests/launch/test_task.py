"""task: what a started process is to do, as a file in memory."""

from __future__ import annotations

import os
import resource

import pytest

from klyng_mp.launch.task import Task, is_sealed, read_task, seal, write_copy, write_task


def make_task(*buffers):
    return Task("name", True, b"key", 10, False, (9, b"head", list(buffers)))


def test_what_was_written_is_read():
    task = read_task(write_task(make_task(b"x" * 5000, bytearray(b""), memoryview(b"abc"))))
    assert task[:-1] == ("name", True, b"key", 10, False)
    code, head, buffers = task.work
    assert (code, head) == (9, b"head")
    assert [bytes(buffer) for buffer in buffers] == [b"x" * 5000, b"", b"abc"]


def test_a_reader_has_pages_of_its_own():
    fd = write_task(make_task(b"a" * 8192))
    other = os.dup(fd)
    first = read_task(fd).work[2][0]
    second = read_task(other).work[2][0]
    first[0] = ord("b")
    assert (first[0], second[0]) == (ord("b"), ord("a"))


def test_a_task_without_buffers():
    assert list(read_task(write_task(make_task())).work[2]) == []


def test_no_descriptor_is_left_when_there_is_no_room():
    before = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_task(make_task(b"x" * 100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_is_sealed_is_known_as_one():
    fd = os.memfd_create("made", os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, b"content")
        assert not is_sealed(fd)
        seal(fd)
        assert is_sealed(fd)
        for change in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0), lambda: os.ftruncate(fd, 100)):
            with pytest.raises(PermissionError):
                change()
    finally:
        os.close(fd)


def test_what_cannot_be_sealed_is_not():
    reader, writer = os.pipe()
    try:
        assert not is_sealed(reader)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_copy_is_sealed_and_has_the_content():
    fd = write_copy(memoryview(b"content"))
    try:
        assert is_sealed(fd)
        assert os.pread(fd, 100, 0) == b"content"
    finally:
        os.close(fd)
