"""remote.groups: a control group for a job, shown on a file system that looks like one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from klyng_mp.remote.groups import JobGroup


@pytest.fixture
def root(tmp_path):
    """Make a root whose control groups look as version 2 has them."""
    own = tmp_path / "sys/fs/cgroup/user.slice/mine"
    own.mkdir(parents=True)
    (own / "cgroup.kill").touch()
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/user.slice/mine\n")
    return tmp_path


def test_a_group_is_made_beside_this_process_and_takes_others(root):
    group = JobGroup.make("klyng-1", root=str(root))
    assert group.folder == str(root / "sys/fs/cgroup/user.slice/mine/klyng-1")
    assert group.add(4711)
    assert (root / "sys/fs/cgroup/user.slice/mine/klyng-1/cgroup.procs").read_text() == "4711"


def test_its_end_kills_and_removes_it(root, monkeypatch):
    group = JobGroup.make("klyng-1", root=str(root))
    written = []
    monkeypatch.setattr(group, "_write", lambda name, text: written.append((name, text)))
    group.end()
    assert written == [("cgroup.kill", "1")]
    assert not os.path.exists(group.folder)
    group.end()  # harmless


@pytest.mark.parametrize("line", ["9:name=systemd:/\n", ""])
def test_there_is_none_with_version_1(root, line):
    (root / "proc/self/cgroup").write_text(line)
    assert JobGroup.make("klyng-1", root=str(root)) is None


def test_there_is_none_where_the_kernel_cannot_kill_or_nothing_may_be_made(root):
    (root / "sys/fs/cgroup/user.slice/mine/klyng-1").mkdir()
    assert JobGroup.make("klyng-1", root=str(root)) is None  # it is somebody else's
    (root / "sys/fs/cgroup/user.slice/mine/cgroup.kill").unlink()
    assert JobGroup.make("klyng-2", root=str(root)) is None


def test_a_real_group_leaves_nothing_alive():
    group = JobGroup.make(f"klyng-test-{os.getpid()}")
    if group is None:
        pytest.skip("control groups are of version 1 here, or not this user's to make")
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    assert group.add(process.pid)
    group.end()
    assert process.wait(10) == -9
    assert not os.path.exists(group.folder)
