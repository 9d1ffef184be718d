"""What green ranks do in tests, where it has to be importable."""

from __future__ import annotations

import klyng_mp as mp


def ring():
    comm = mp.comm()
    comm.send(comm.rank, (comm.rank + 1) % comm.size)
    return comm.recv((comm.rank - 1) % comm.size)


def everybody():
    comm = mp.comm()
    return (
        comm.allreduce(comm.rank), comm.bcast({"root": comm.rank}, 3), comm.gather(comm.rank, 8),
        comm.alltoall([(comm.rank, other) for other in range(comm.size)]), comm.scan(comm.rank),
    )  # fmt: skip


def halves():
    comm = mp.comm()
    half = comm.split(comm.rank % 2)
    return half.allgather(comm.rank)


def tags():
    comm = mp.comm()
    for dest in range(comm.size):
        comm.send((comm.rank, dest), dest, tag=f"to {dest}")
    got = [comm.recv(tag=f"to {comm.rank}") for _ in range(comm.size)]
    return sorted(got)


def wait_around():
    return mp.recv(source=(mp.rank() + 1) % mp.size())
