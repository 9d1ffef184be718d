"""remote.cache: bundles are kept within a bound, by several processes at once, whatever happens to them or the disk."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from klyng_mp.errors import BeaconBusyError, BundleError
from klyng_mp.remote import cache as module
from klyng_mp.remote.bundle import Bundle, Limits
from klyng_mp.remote.cache import BundleCache
from klyng_mp.remote.sources import Entry, Sources

SIZE = 20_000  # of what is in a bundle; it cannot be compressed


@pytest.fixture
def make(tmp_path):
    """Make a bundle, each with another content."""
    numbers = iter(range(1000))

    def bundle(size=SIZE):
        path = tmp_path / f"content{next(numbers)}"
        path.write_bytes(os.urandom(size))
        return Bundle.make(Sources((Entry(str(path), "0/data", ""),), ("0",), "0", "", (), (), ()))

    return bundle


@pytest.fixture
def cache(tmp_path):
    return BundleCache(str(tmp_path / "cache"), 3 * SIZE + SIZE // 2)


def digests(cache):
    return {one.digest for one in cache.contents()}


def age(cache, bundle, seconds):
    os.utime(f"{cache.folder}/{bundle.digest}.bundle", (seconds, seconds))


def test_what_was_stored_is_fetched(cache, make, tmp_path):
    bundle = make()
    assert cache.fetch(bundle.digest, str(tmp_path / "job")) is None
    cache.store(bundle.digest, bundle.data)
    with cache.fetch(bundle.digest, str(tmp_path / "job")) as lease:
        assert lease.unpacked.cwd == str(tmp_path / "job/0")
    assert (tmp_path / "job/0/data").stat().st_size == SIZE
    assert [one.size for one in cache.contents()] == [len(bundle.data)]


def test_it_is_still_there_for_the_next_process(cache, make, tmp_path):
    bundle = make()
    cache.store(bundle.digest, bundle.data)
    cache.store(bundle.digest, bundle.data)
    assert digests(BundleCache(cache.folder, 10)) == {bundle.digest}


def test_only_this_user_can_look_at_it(tmp_path, make):
    before = os.umask(0)
    try:
        cache = BundleCache(str(tmp_path / "cache"), 1 << 20)
        bundle = make()
        cache.store(bundle.digest, bundle.data)
    finally:
        os.umask(before)
    assert Path(cache.folder).stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in Path(cache.folder).iterdir()} == {0o600}


def test_who_was_used_longest_ago_leaves(cache, make, tmp_path):
    first, second, third, fourth = (make() for _ in range(4))
    for seconds, bundle in enumerate((first, second, third)):
        cache.store(bundle.digest, bundle.data)
        age(cache, bundle, seconds)
    cache.fetch(first.digest, str(tmp_path / "job")).close()
    cache.store(fourth.digest, fourth.data)
    assert digests(cache) == {first.digest, third.digest, fourth.digest}
    assert sum(one.size for one in cache.contents()) <= 3 * SIZE + SIZE // 2


def test_what_is_in_use_does_not_leave(cache, make, tmp_path):
    bundles = [make() for _ in range(3)]
    with contextlib.ExitStack() as leases:
        for number, bundle in enumerate(bundles):
            cache.store(bundle.digest, bundle.data)
            leases.enter_context(cache.fetch(bundle.digest, str(tmp_path / f"job{number}")))
        late = make()
        with pytest.raises(BeaconBusyError, match="as those that are there are in use: wait, or have cache_bytes"):
            cache.store(late.digest, late.data)
        assert digests(cache) == {bundle.digest for bundle in bundles}
    cache.store(late.digest, late.data)
    assert late.digest in digests(cache)


def test_a_lease_ends_with_its_process(cache, make, tmp_path):
    bundle = make()
    cache.store(bundle.digest, bundle.data)
    code = (
        "import sys; from klyng_mp.remote.cache import BundleCache\n"
        "lease = BundleCache(sys.argv[1], 1 << 20).fetch(*sys.argv[2:]); print('here', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, cache.folder, bundle.digest, str(tmp_path / "job")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"here\n"
        assert not cache._evict(bundle.digest)
        holder.kill()
        holder.wait()
        assert cache._evict(bundle.digest)
    assert digests(cache) == set()


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty", "another"])
def test_what_is_damaged_is_noticed_and_dropped(cache, make, tmp_path, damage):
    bundle = make()
    cache.store(bundle.digest, bundle.data)
    path = Path(cache.folder, f"{bundle.digest}.bundle")
    middle = len(bundle.data) // 2
    path.write_bytes(
        {
            "truncated": bundle.data[:middle],
            "changed": bundle.data[:middle] + bytes([bundle.data[middle] ^ 1]) + bundle.data[middle + 1 :],
            "empty": b"",
            "another": make().data,
        }[damage]
    )
    assert cache.fetch(bundle.digest, str(tmp_path / "job")) is None
    assert not (tmp_path / "job").exists()
    assert digests(cache) == set()
    cache.store(bundle.digest, bundle.data)
    cache.fetch(bundle.digest, str(tmp_path / "job")).close()


def test_nothing_comes_under_another_digest(cache, make):
    first, second = make(), make()
    with pytest.raises(BundleError, match="under another one's digest"):
        cache.store(first.digest, second.data)
    with pytest.raises(BundleError, match="damaged"):
        cache.store(first.digest, first.data[:-1])
    assert os.listdir(cache.folder) == []


@pytest.mark.parametrize("digest", ["", "../outside", "0" * 63, "A" * 64, "0" * 63 + "/"])
def test_what_is_no_digest_is_not_there(cache, tmp_path, digest):
    (tmp_path / "outside.bundle").write_bytes(b"")
    assert cache.fetch(digest, str(tmp_path / "job")) is None
    assert (tmp_path / "outside.bundle").exists()


def test_what_is_too_large_is_refused(tmp_path, make):
    bundle = make()
    cache = BundleCache(str(tmp_path / "small"), SIZE)
    with pytest.raises(BundleError, match=f"and the beacon keeps {SIZE} for all bundles: leave out files, or have"):
        cache.store(bundle.digest, bundle.data)
    cache = BundleCache(str(tmp_path / "small"), 1 << 20, Limits(bytes=SIZE - 1))
    with pytest.raises(BundleError, match="files have 20000 bytes, and 19999 are allowed"):
        cache.store(bundle.digest, bundle.data)
    assert os.listdir(cache.folder) == []


def test_a_job_that_has_a_folder_already_is_told(cache, make, tmp_path):
    bundle = make()
    cache.store(bundle.digest, bundle.data)
    with pytest.raises(FileExistsError):
        cache.fetch(bundle.digest, str(tmp_path))
    assert cache._evict(bundle.digest)


def test_who_was_killed_while_it_stored_leaves_nothing(cache, make):
    part = Path(cache.folder, "0" * 64 + ".part")
    part.write_bytes(bytes(10 * SIZE))
    bundle = make()
    assert digests(cache) == set()
    cache.store(bundle.digest, bundle.data)
    assert not part.exists()


# -- full disks ------------------------------------------------------------------------------------


def test_a_full_disk_is_said_and_keeps_nothing_half(small_disk, make, tmp_path):
    cache = BundleCache(str(small_disk / "cache"), 1 << 20)
    kept, large = make(), make(60_000)
    cache.store(kept.digest, kept.data)
    with pytest.raises(BundleError) as caught:
        cache.store(large.digest, large.data)
    assert str(caught.value) == (
        f"no room for the bundle in {small_disk}/cache (No space left on device): make room there, or use another disk"
    )
    assert sorted(os.listdir(cache.folder)) == sorted([f"{kept.digest}.bundle", "lock"])
    cache.fetch(kept.digest, str(tmp_path / "job")).close()
    elsewhere = BundleCache(str(tmp_path / "other"), 1 << 20)
    elsewhere.store(large.digest, large.data)
    with pytest.raises(BundleError, match=f"no room for the bundle in {small_disk} "):
        elsewhere.fetch(large.digest, str(small_disk / "job"))
    assert os.listdir(small_disk) == ["cache"]
    assert digests(elsewhere) == {large.digest}


def test_a_limit_on_files_is_a_full_disk_too(cache, make, tmp_path):
    bundle = make()
    (tmp_path / "data").write_bytes(bundle.data)
    code = (
        "import resource, signal, sys; from klyng_mp.remote.cache import BundleCache\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "BundleCache(sys.argv[1], 1 << 20).store(sys.argv[2], open(sys.argv[3], 'rb').read())"
    )
    words = [sys.executable, "-c", code, cache.folder, bundle.digest, str(tmp_path / "data")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        f"klyng_mp.errors.BundleError: no room for the bundle in {cache.folder} (File too large): "
        "make room there, or use another disk"
    )
    assert os.listdir(cache.folder) == ["lock"]


# -- several processes -----------------------------------------------------------------------------

SESSIONS = """
import os, random, sys
from klyng_mp.errors import BeaconBusyError
from klyng_mp.remote.cache import BundleCache

folder, limit, own, rounds = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
bundles = {path.name: path.read_bytes() for path in __import__("pathlib").Path(sys.argv[5]).iterdir()}
cache, dice = BundleCache(folder, limit), random.Random(own)
done = missed = busy = 0
for number in range(rounds):
    digest = dice.choice(sorted(bundles))
    lease = cache.fetch(digest, f"{own}/{number}")
    if lease is None:
        missed += 1
        try:
            cache.store(digest, bundles[digest])
        except BeaconBusyError:
            busy += 1
            continue
        lease = cache.fetch(digest, f"{own}/{number}")
        if lease is None:  # somebody has evicted it
            continue
    size = sum(one.size for one in cache.contents())
    assert size <= limit, size
    assert os.path.getsize(f"{own}/{number}/0/data") == 20000
    if dice.random() < 0.3:
        assert os.path.exists(f"{folder}/{digest}.bundle")
    done += 1
    lease.close()
print(done, missed, busy)
"""


def test_sessions_share_one_store(make, tmp_path):
    (tmp_path / "bundles").mkdir()
    for _ in range(6):
        bundle = make()
        (tmp_path / "bundles" / bundle.digest).write_bytes(bundle.data)
    limit = 3 * SIZE + SIZE // 2
    cache = BundleCache(str(tmp_path / "cache"), limit)
    sessions = []
    for number in range(4):
        (tmp_path / str(number)).mkdir()
        words = [cache.folder, str(limit), str(tmp_path / str(number)), "60", str(tmp_path / "bundles")]
        sessions.append(
            subprocess.Popen([sys.executable, "-c", SESSIONS, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
    victim = subprocess.Popen(
        [sys.executable, "-c", SESSIONS, *words[:2], str(tmp_path), "100000", words[-1]], stderr=subprocess.DEVNULL
    )
    outcomes = [session.communicate(timeout=60) for session in sessions]
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert [err for _, err in outcomes] == [b""] * 4
    counts = [list(map(int, out.split())) for out, _ in outcomes]
    assert sum(count[0] for count in counts) > 100
    assert sum(count[1] for count in counts) > 10  # so that there was something to evict
    assert sum(one.size for one in cache.contents()) <= limit
    for one in cache.contents():
        cache.fetch(one.digest, str(tmp_path / f"last-{one.digest}")).close()


def test_who_opens_what_is_being_evicted_finds_nothing(cache, make, tmp_path, monkeypatch):
    bundle = make()
    cache.store(bundle.digest, bundle.data)
    real = module.fcntl.flock

    def evict_first(fd, how):
        os.unlink(f"{cache.folder}/{bundle.digest}.bundle")
        real(fd, how)

    monkeypatch.setattr(module.fcntl, "flock", evict_first)
    assert cache.fetch(bundle.digest, str(tmp_path / "job")) is None
