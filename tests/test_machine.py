"""machine: the limits of machines that are shown as trees of files."""

from __future__ import annotations

import os

import pytest

from klyng_mp.machine import (
    cpu_budget,
    hostname,
    kernel,
    memory_budget,
    resource_limits,
    shared_memory_bytes,
    usable_cpus,
)

GIB = 1 << 30
UNLIMITED_V1 = 9223372036854771712
V2_MOUNT = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
CPU_MOUNT = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
MEMORY_MOUNT = "35 31 0:32 / /sys/fs/cgroup/memory rw shared:9 master:3 - cgroup cgroup rw,memory"
OTHER_MOUNTS = "22 27 0:21 / /proc rw,relatime - proc proc rw\n27 1 254:0 / / rw - ext4 /dev/vda rw"


@pytest.fixture
def machine(tmp_path):
    """Build a machine's files; return where its file system begins."""

    def build(cgroup=None, mounts=(), files=None, total=8 * GIB):
        texts = {f"sys/fs/cgroup/{path}": text for path, text in (files or {}).items()}
        if cgroup is not None:
            texts["proc/self/cgroup"] = cgroup
        if mounts:
            texts["proc/self/mountinfo"] = "\n".join([OTHER_MOUNTS, *mounts]) + "\n"
        if total is not None:
            texts["proc/meminfo"] = f"MemFree:  12 kB\nMemTotal:       {total // 1024} kB\n"
        for path, text in texts.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        return str(tmp_path)

    return build


def test_no_files_mean_no_limits(tmp_path):
    assert cpu_budget(root=str(tmp_path), affinity=6) == (6, 6, None, "")
    assert memory_budget(root=str(tmp_path)) == (None, None, "")
    assert shared_memory_bytes(root=str(tmp_path)) is None


def test_version_2_quota_and_memory_of_the_own_group(machine):
    root = machine("0::/job", [V2_MOUNT], {"job/cpu.max": "150000 100000", "job/memory.max": str(GIB)})
    budget = cpu_budget(root=root, affinity=8)
    assert (budget.usable, budget.affinity, budget.quota) == (2, 8, 1.5)
    assert budget.quota_from == f"{root}/sys/fs/cgroup/job"
    memory = memory_budget(root=root)
    assert (memory.total_bytes, memory.limit_bytes) == (8 * GIB, GIB)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"a/cpu.max": "max 100000", "a/b/cpu.max": "400000 100000"}, 4.0),
        ({"a/cpu.max": "300000 100000", "a/b/cpu.max": "400000 100000"}, 3.0),
        ({"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3.0),
        ({"cpu.max": "50000 100000", "a/cpu.max": "max 100000"}, 0.5),
        ({"a/cpu.max": "max 100000", "a/b/cpu.max": "max 100000"}, None),
        ({"a/cpu.max": "max"}, None),
        ({"a/cpu.max": ""}, None),
        ({"a/cpu.max": "rubbish 1"}, None),
        ({"a/cpu.max": "200000 0"}, None),
        ({"other/cpu.max": "100000 100000"}, None),
    ],
)
def test_version_2_the_tightest_on_the_way_up_counts(machine, files, quota):
    budget = cpu_budget(root=machine("0::/a/b", [V2_MOUNT], files), affinity=16)
    assert budget.quota == quota
    assert budget.usable == (16 if quota is None else max(1, int(quota)))


def test_version_1_by_controller(machine):
    files = {
        "cpu,cpuacct/job/cpu.cfs_quota_us": "250000",
        "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
        "memory/box/memory.limit_in_bytes": str(2 * GIB),
        "memory/memory.limit_in_bytes": str(UNLIMITED_V1),
    }
    root = machine("4:memory:/box\n3:cpu,cpuacct:/job\n1:name=systemd:/", [CPU_MOUNT, MEMORY_MOUNT], files)
    assert cpu_budget(root=root, affinity=8)[:3] == (3, 8, 2.5)
    assert memory_budget(root=root).limit_bytes == 2 * GIB
    assert memory_budget(root=root).limit_from == f"{root}/sys/fs/cgroup/memory/box"


def test_version_1_without_limits(machine):
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": str(UNLIMITED_V1),
    }
    root = machine("4:memory:/\n3:cpu,cpuacct:/", [CPU_MOUNT, MEMORY_MOUNT], files)
    assert cpu_budget(root=root, affinity=8) == (8, 8, None, "")
    assert memory_budget(root=root) == (8 * GIB, None, "")


@pytest.mark.parametrize("limits_in", ["v1", "v2"])
def test_hybrid_the_hierarchy_with_the_files_counts(machine, limits_in):
    unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
    files = (
        {"cpu,cpuacct/job/cpu.cfs_quota_us": "100000", "cpu,cpuacct/job/cpu.cfs_period_us": "50000"}
        if limits_in == "v1"
        else {"unified/job/cpu.max": "100000 50000"}
    )
    root = machine("3:cpu,cpuacct:/job\n0::/job", [CPU_MOUNT, unified], files)
    assert cpu_budget(root=root, affinity=8)[:3] == (2, 8, 2.0)


def test_container_whose_group_is_the_mounted_part(machine):
    mount = "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct"
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}
    assert cpu_budget(root=machine("3:cpu,cpuacct:/docker/abc", [mount], files), affinity=8).quota == 2.0


def test_group_below_the_mounted_part(machine):
    mount = "35 24 0:30 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
    files = {"inner/cpu.max": "100000 100000", "cpu.max": "300000 100000"}
    assert cpu_budget(root=machine("0::/docker/abc/inner", [mount], files), affinity=8).quota == 1.0


@pytest.mark.parametrize("group", ["/../other", "/docker/ab", "/docker/abcdef"])
def test_group_outside_of_what_is_mounted_leaves_the_mount_point(machine, group):
    mount = "35 24 0:30 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
    files = {"cpu.max": "300000 100000", "def/cpu.max": "100000 100000"}
    assert cpu_budget(root=machine(f"0::{group}", [mount], files), affinity=8).quota == 3.0


def test_mount_point_with_a_blank(machine):
    mount = r"35 24 0:30 / /sys/fs/cgroup/my\040groups rw - cgroup2 cgroup2 rw"
    root = machine("0::/", [mount], {"my groups/cpu.max": "300000 100000"})
    assert cpu_budget(root=root, affinity=8).quota == 3.0


def test_group_name_with_colons(machine):
    root = machine("0::/a:b:c", [V2_MOUNT], {"a:b:c/cpu.max": "300000 100000"})
    assert cpu_budget(root=root, affinity=8).quota == 3.0


def test_affinity_is_the_bound_below_a_generous_quota(machine):
    root = machine("0::/", [V2_MOUNT], {"cpu.max": "900000 100000"})
    assert cpu_budget(root=root, affinity=2).usable == 2


def test_at_least_one_cpu(machine):
    assert cpu_budget(root=machine("0::/", [V2_MOUNT], {"cpu.max": "1000 100000"}), affinity=2).usable == 1


def test_a_memory_limit_beyond_the_machine_limits_nothing(machine):
    root = machine("0::/", [V2_MOUNT], {"memory.max": str(64 * GIB)})
    assert memory_budget(root=root) == (8 * GIB, None, "")


def test_memory_limit_counts_where_the_total_is_unknown(machine):
    root = machine("0::/", [V2_MOUNT], {"memory.max": str(64 * GIB)}, total=None)
    assert memory_budget(root=root)[:2] == (None, 64 * GIB)


def test_this_machine():
    budget = cpu_budget()
    assert 1 <= usable_cpus() == budget.usable <= budget.affinity == len(os.sched_getaffinity(0))
    total = memory_budget().total_bytes
    assert total is not None
    assert total > 1 << 24
    soft, hard = resource_limits()["RLIMIT_NOFILE"]
    assert soft is None or hard is None or soft <= hard
    assert hostname()
    assert kernel().split()[0] == os.uname().sysname
    size = shared_memory_bytes()
    assert size is None or size[1] <= size[0]
