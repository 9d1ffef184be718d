"""launch.stacks: where somebody computes who does not answer."""

from __future__ import annotations

import os
import subprocess
import sys

import programs
import pytest

from klyng_mp.launch import stacks
from klyng_mp.launch.loop import Loop
from klyng_mp.launch.stacks import STACK_SIGNAL, Stacks, users_part

COMPUTES = """
import os, sys, time
from klyng_mp.launch.stacks import prepare
prepare(int(sys.argv[1]))
def compute():
    print("up", flush=True)
    while True:
        pass
compute()
"""


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def reader(loop):
    reader = Stacks(loop)
    yield reader
    reader.close()


@pytest.fixture
def start(reader, tmp_path):
    started = []

    def start(text):
        script = programs.write_script(tmp_path, text)
        words = [sys.executable, script, str(reader.fd)]
        process = subprocess.Popen(
            words, env=programs.environment(), stdout=subprocess.PIPE, text=True, pass_fds=[reader.fd]
        )
        started.append(process)
        assert process.stdout.readline() == "up\n"
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def read(loop, reader, *pids):
    texts = []
    for pid in pids:
        reader.read(pid, texts.append)
    while len(texts) < len(pids):
        loop.turn()
    return texts


def test_several_are_read_one_after_the_other(loop, reader, start, tmp_path):
    pids = [start(COMPUTES), start(COMPUTES)]
    for text in read(loop, reader, *pids, pids[0]):
        lines = text.splitlines()
        assert lines[0].startswith(f"at {tmp_path}/driver.py:")
        assert lines[0].endswith(" in compute")
        assert lines[1].endswith(" in <module>")
        assert len(lines) == 2


def test_who_does_not_catch_the_signal_is_left_alone(loop, reader, start):
    text = "print('up', flush=True)\nwhile True: pass"
    pid = start(text)
    assert read(loop, reader, pid, 2**22 + 1) == ["", ""]  # the other one is no process
    assert programs.state_of(pid) in "RS"


def test_who_is_stopped_is_told_to_be(loop, reader, start):
    pid = start(COMPUTES)
    programs.kill(pid, stacks.signal.SIGSTOP)
    programs.wait_until(lambda: programs.state_of(pid) == "T")
    assert read(loop, reader, pid) == ["it is stopped by a signal"]


def test_one_may_ask_again_from_the_answer(loop, reader, start):
    pid = start(COMPUTES)
    texts = []

    def again(text):
        texts.append(text)
        if len(texts) < 3:
            reader.read(pid, again)

    reader.read(pid, again)
    while len(texts) < 3:
        loop.turn()
    assert all("in compute" in text for text in texts)


def test_who_waits_when_it_is_closed_is_told(reader, start):
    pid = start(COMPUTES)
    texts = []
    reader.read(pid, texts.append)
    reader.read(pid, texts.append)
    reader.close()
    reader.read(pid, texts.append)
    assert texts == ["", "", ""]


def test_the_signal_is_none_that_programs_use():
    assert STACK_SIGNAL not in {signum for signum in stacks.signal.Signals if not signum.name.startswith("SIGRT")}


def test_only_the_users_part_is_shown():
    ours = os.path.dirname(stacks.__file__)
    text = f"""Thread 0x00001 (most recent call first):
  File "/usr/lib/python3/threading.py", line 5 in wait
  File "/home/me/app.py", line 9 in work

Current thread 0x00002 (most recent call first):
  File "{os.path.dirname(ours)}/communicator/waiting.py", line 7 in wait
  File "/home/me/app.py", line 3 in main
  File "{ours}/rank.py", line 1 in rank_main
  File "<string>", line 1 in <module>
"""
    assert users_part(text).splitlines() == [
        "Thread 0x00001:",
        "at /usr/lib/python3/threading.py:5 in wait",
        "at /home/me/app.py:9 in work",
        "Current thread 0x00002:",
        "at /home/me/app.py:3 in main",
    ]
    assert users_part(text.partition("\n\n")[2]) == "at /home/me/app.py:3 in main"
    assert users_part("") == ""
