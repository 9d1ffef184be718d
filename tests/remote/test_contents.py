"""contents: sealed files travel to other hosts, once each, and are given up when newer ones are wanted."""

from __future__ import annotations

import os

import pytest

import klyng_mp as mp
from klyng_mp.launch.task import seal
from klyng_mp.remote.contents import Contents
from klyng_mp.remote.deliveries import digest_of


def make_file(data):
    fd = os.memfd_create("made", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    seal(fd)
    return fd


@pytest.fixture
def files():
    made = [make_file(b"%d" % number) for number in range(6)]
    yield made
    for fd in made:
        os.close(fd)


@pytest.fixture
def contents():
    made = Contents(None)  # nothing is delivered
    yield made
    made.close()


def test_a_file_is_known_by_its_content(contents, files):
    assert contents.look_up(files[:2]) == [(digest_of(fd), fd) for fd in files[:2]]
    again = os.dup(files[1])
    assert contents.look_up([again]) == [(digest_of(files[1]), again)]
    os.close(again)
    assert contents.trim(1) == []


def test_the_oldest_are_given_up(contents, files):
    for fd in files[:4]:
        contents.look_up([fd])
    contents.look_up([files[0]])
    contents.look_up([files[4]])
    assert contents.trim(1) == [digest_of(files[1])]
    assert contents.trim(1) == []


def test_what_one_process_has_is_kept_however_much(contents, files):
    contents.look_up(files)
    assert contents.trim(len(files)) == []


def test_equal_files_are_one_to_the_hosts(contents, files):
    same = make_file(b"0")
    contents.look_up([files[0], *files[1:4], same])
    assert contents.trim(1) == []  # the other one is still wanted
    os.close(same)


@pytest.fixture
def sent(monkeypatch):
    """The records about contents that were sent to hosts."""
    found = []
    tell = mp_site().tell

    def note(site, *record):
        if record[0] in {"content", "forget"}:
            found.append((site.name, *record[:1]))
        tell(site, *record)

    monkeypatch.setattr(mp_site(), "tell", note)
    return found


def mp_site():
    from klyng_mp.remote.site import RemoteSite

    return RemoteSite


def look(_task):
    data = mp.shared().data
    return len(data), data[-3:], os.getpid()


@pytest.mark.slow
def test_what_a_pool_shares_travels_once_to_each_host(hosts, sent):
    data = os.urandom(3_000_000)
    with mp.World(hosts=["local", *hosts], n=5) as world:
        for _ in range(2):
            with world.Pool(5, shared={"data": data}) as pool:
                results = pool.map(look, range(40), chunksize=1)
                assert {result[:2] for result in results} == {(3_000_000, data[-3:])}
    assert len(sent) == 2 * 3  # two hosts, three parts of a mebibyte; for both pools, and all workers


@pytest.mark.slow
def test_hosts_forget_what_older_pools_have_shared(hosts, sent):
    with mp.World(hosts=hosts) as world:
        for number in range(6):
            with world.Pool(4, shared={"data": b"%d" % number * 100}) as pool:
                assert pool.apply(look, (0,))[0] == 100
        assert world.run(mp.rank) == [0, 1, 2, 3]
    assert [kind for _, kind in sent].count("forget") >= 2
