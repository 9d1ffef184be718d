"""Stress: messages of all kinds and sizes with checksums, kills among them, and waits that must end.

``python -m pytest -m slow tests/test_stress.py`` takes four minutes on two cores; the soak tier takes longer.
"""

from __future__ import annotations

import os
import random
import signal
import time

import programs
import pytest
import rankwork
import stresswork

import klyng_mp as mp

MIB = 1 << 20
POOL_BYTES = 256 * MIB  # _core/port.h: what of one rank may be under way
RINGS_BYTES = 64 * MIB  # transports/shm.py
KILLED_WITHIN = 2.0


def new_seed():
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    return seed


# -- every byte ----------------------------------------------------------------------------------------


def exchange(seconds):
    with mp.World(8) as world:
        run = world.start(stresswork.exchange_by_plan, new_seed(), seconds)
        found = run.result(timeout=(2 * seconds + 60) * programs.FACTOR)
        shared = max(world.run(stresswork.shared_bytes))
    rounds, messages = found[0][:2]
    received = sum(row[2] for row in found)
    grown = [(row[4] - row[3]) / MIB for row in found]
    print(
        f"{rounds} rounds, {messages} messages, {received / 2**30:.1f} GiB; memory grew by "
        f"{', '.join(f'{size:.1f}' for size in grown)} MiB; {shared / MIB:.0f} MiB are shared"
    )
    assert rounds > 2
    assert max(grown) < 16
    assert [row[5] for row in found] == [0] * 8
    assert shared <= 8 * POOL_BYTES + RINGS_BYTES + MIB


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_byte_of_every_message_is_right():
    exchange(30)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_every_byte_of_every_message_is_right_for_ten_minutes():
    exchange(600)


# -- kills ---------------------------------------------------------------------------------------------


def kill_one(world, numbers, folder):
    """Kill a random rank while all exchange messages.

    Returns:
        how long each survivor took to hear of it, and how many were replaced since they computed for too long.
    """
    pids = world.run(stresswork.prepare)
    victim = numbers.randrange(len(pids))
    for note in folder.iterdir():
        note.unlink()
    run = world.start(stresswork.exchange_until_loss, numbers.random(), folder)
    with pytest.raises(mp.DeadlineError):
        run.result(timeout=numbers.uniform(0, 0.6))
    killed = time.monotonic()
    programs.kill(pids[victim], signal.SIGKILL)
    with pytest.raises(mp.RankDiedError) as caught:
        run.result(timeout=30 * programs.FACTOR)
    assert caught.value.rank == victim
    assert world.run(rankwork.ring, "usable") == ["usable"] * len(pids)
    replaced = [rank for rank, pid in enumerate(world.run(rankwork.pid)) if pid != pids[rank]]
    assert victim in replaced
    # A rank that had not begun when the run ended never does.
    survivors = [rank for rank in range(len(pids)) if rank not in replaced and (folder / f"begun{rank}").exists()]
    assert [rank for rank in survivors if not (folder / f"note{rank}").exists()] == []
    heard = [float((folder / f"note{rank}").read_text().split()[0]) - killed for rank in survivors]
    assert max(heard, default=0) < KILLED_WITHIN * programs.FACTOR, heard
    return heard, len(replaced) - 1


def kill_many(count, seconds, folder):
    numbers = random.Random(new_seed())
    end = time.monotonic() + seconds
    heard = []
    done = replaced = 0
    early = late = None
    with mp.World(8) as world:
        while done < count and time.monotonic() < end:
            times, others = kill_one(world, numbers, folder)
            heard += times
            replaced += others
            done += 1
            if done == 10:
                early = len(os.listdir("/proc/self/fd")), stresswork.resident_bytes()
        late = len(os.listdir("/proc/self/fd")), stresswork.resident_bytes()
        files = [row[0] for row in world.run(stresswork.files_and_memory)]
        shared = max(world.run(stresswork.shared_bytes))
    print(
        f"{done} kills, heard of {len(heard)} times, after {max(heard):.3f} s at most; {replaced} replaced; "
        f"driver's files and memory {early} and {late}; "
        f"ranks' files {files}; {shared / MIB:.0f} MiB are shared"
    )
    assert done >= 10
    assert len(heard) > 5 * done
    assert replaced < done / 2
    assert late[0] <= early[0]
    assert late[1] - early[1] < 8 * MIB
    assert max(files) < 40
    assert shared <= 8 * POOL_BYTES + RINGS_BYTES + MIB
    return done


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_rank_ends_the_run_soon_and_leaves_nothing(tmp_path):
    kill_many(200, 15 * programs.FACTOR, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_two_hundred_killed_ranks_leave_nothing(tmp_path):
    """The slow tier does as many as fit its time; this does all of the 200."""
    assert kill_many(200, float("inf"), tmp_path) == 200


@pytest.mark.parametrize("kind", ["bytes", "bytearray", "tuple"])
def test_a_message_whose_sender_dies_within_it_never_comes(tmp_path, kind):
    with mp.World(2) as world:
        with pytest.raises(mp.RankDiedError) as caught:
            world.run(stresswork.send_and_die, tmp_path, kind, 64 * MIB)
        assert caught.value.rank == 1
        assert (tmp_path / "note").read_text() == "lost 1"
        assert world.run(rankwork.ring, "usable") == ["usable"] * 2


# -- waits that end, and cost nothing -------------------------------------------------------------------


@pytest.mark.parametrize("work", [rankwork.swap, stresswork.swap_arrays])
def test_two_that_send_much_to_each_other_do_not_block(work):
    with mp.World(2) as world:
        assert world.start(work, 100_000_000).result(timeout=60 * programs.FACTOR) == [True, True]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_rank_that_talks_to_all_of_many_has_few_files_open():
    with mp.World(200) as world:
        files = world.start(stresswork.talk_to_all).result(timeout=120 * programs.FACTOR)
    print(f"rank 0 has {files[0]} files open, the others at most {max(files[1:])}")
    assert max(files) < 1024


def test_ranks_that_wait_use_no_processor():
    with mp.World(8) as world:
        used = world.run(stresswork.wait_in_vain, 2.0)
    assert sum(used) < 0.5 * programs.FACTOR, used  # of 16 s that they would spin; memory that has gone cold costs some


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_wake_up_is_lost():
    """A receive without a deadline, so that nothing but the message itself ends it."""
    with mp.World(2) as world:
        run = world.start(stresswork.ping_pong, 200_000)
        assert run.result(timeout=150 * programs.FACTOR) == [200_000] * 2
