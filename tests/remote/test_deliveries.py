"""deliveries: what processes are started with lies whole and unchangeable, within limits, or is refused."""

from __future__ import annotations

import hashlib
import mmap
import os

import pytest

from klyng_mp.launch.task import is_sealed
from klyng_mp.remote.deliveries import Deliveries, Refusal, digest_of

DATA = bytes(range(256)) * 20
DIGEST = hashlib.sha256(DATA).digest()


@pytest.fixture
def deliveries():
    made = Deliveries(10_000)
    yield made
    made.close()


def read(fd):
    return os.pread(fd, 100_000, 0)


def test_a_process_is_given_its_task_and_its_files(deliveries):
    for part in (DATA[:1000], DATA[1000:]):
        deliveries.add_content(DIGEST, part)
    for serial in (1, 2):
        for part in (b"what it ", b"is to do"):
            deliveries.add_task(serial, part)
        task, content = deliveries.hand_out(serial, [DIGEST])
        assert (read(task), read(content)) == (b"what it is to do", DATA)
        os.close(task)


def test_nobody_can_change_what_others_are_given(deliveries):
    deliveries.add_content(DIGEST, DATA)
    deliveries.add_task(1, b"task")
    task, content = deliveries.hand_out(1, [DIGEST])
    os.close(task)
    assert is_sealed(content)
    for attempt in (
        lambda: os.pwrite(content, b"x", 0),
        lambda: os.ftruncate(content, 1),
        lambda: os.ftruncate(content, 100_000),
        lambda: mmap.mmap(content, len(DATA)),
    ):
        with pytest.raises(PermissionError):
            attempt()


def test_what_is_not_what_it_was_said_to_be_is_refused(deliveries):
    deliveries.add_content(DIGEST, DATA[:-1])
    deliveries.add_task(1, b"task")
    with pytest.raises(Refusal, match="not what it was said to be"):
        deliveries.hand_out(1, [DIGEST])


@pytest.mark.parametrize("case", ["no task", "another's task", "no content", "forgotten"])
def test_what_is_not_there_is_refused(deliveries, case):
    deliveries.add_content(DIGEST, DATA)
    if case != "no task":
        deliveries.add_task(1 if case != "another's task" else 2, b"task")
    if case == "forgotten":
        deliveries.forget(DIGEST)
        deliveries.forget(DIGEST)
    with pytest.raises(Refusal, match="'start' came at the wrong time"):
        deliveries.hand_out(1, [bytes(32) if case == "no content" else DIGEST])


def test_two_tasks_are_not_sent_at_once(deliveries):
    deliveries.add_task(1, b"task")
    with pytest.raises(Refusal, match="'task' came at the wrong time"):
        deliveries.add_task(2, b"task")


def test_nothing_is_added_to_what_a_process_has(deliveries):
    deliveries.add_content(DIGEST, DATA)
    deliveries.add_task(1, b"task")
    os.close(deliveries.hand_out(1, [DIGEST])[0])
    with pytest.raises(Refusal, match="'content' came at the wrong time"):
        deliveries.add_content(DIGEST, b"more")


def test_there_is_a_limit_for_all_of_it(deliveries):
    deliveries.add_content(DIGEST, DATA)
    deliveries.add_content(bytes(32), bytes(4000))
    deliveries.add_task(1, bytes(500))
    for add in (
        lambda: deliveries.add_task(1, bytes(500)),
        lambda: deliveries.add_content(bytes(32), bytes(500)),
        lambda: deliveries.add_content(b"x" * 32, bytes(500)),
    ):
        with pytest.raises(Refusal, match=r"more than 10000 bytes: .*raise max_bundle_bytes") as caught:
            add()
        assert (caught.value.reason, caught.value.limit) == ("limit", "max_bundle_bytes")
    deliveries.forget(DIGEST)
    deliveries.add_content(b"x" * 32, bytes(5000))


def test_an_empty_file_has_a_digest():
    fd = os.memfd_create("empty")
    try:
        assert digest_of(fd) == hashlib.sha256(b"").digest()
    finally:
        os.close(fd)
