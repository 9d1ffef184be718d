"""Collectives with counts: parts of different lengths, gaps, and parts in place."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
counts = [index + 1 for index in range(size)]
starts = [sum(counts[:index]) + index for index in range(size)]  # with a gap of one before each next
mine = np.full(rank + 1, rank, dtype="i")

whole = np.full(sum(counts) + size, -1, dtype="i") if rank == 0 else None
comm.Gatherv(mine, [whole, (counts, starts), MPI.INT] if rank == 0 else None, root=0)
print(whole)
back = np.zeros(rank + 1, dtype="i")
comm.Scatterv([whole, counts, starts, MPI.INT] if rank == 0 else None, back, root=0)
print(back)

whole = np.full(sum(counts), -1, dtype="i")
comm.Allgatherv([mine, MPI.INT], [whole, counts])
print(whole)
comm.Allgatherv([mine, MPI.INT], [whole, (counts, None)])
print(whole)

given = np.arange(size * (rank + 1), dtype="d")
taken = np.zeros(sum(counts))
comm.Alltoallv([given, [rank + 1] * size], [taken, counts])
print(taken)

x = np.arange(size, dtype="i") * 10 + rank
y = np.empty(size, dtype="i")
comm.Alltoall(x, y)
print(y)
comm.Alltoall(MPI.IN_PLACE, y)
print(y)

x = np.full(size * 2, -1, dtype="i")
x[2 * rank : 2 * rank + 2] = rank
comm.Allgather(MPI.IN_PLACE, x)
print(x)
x = np.full(3 * size, rank, dtype="d") if rank == 2 else np.full(3, rank, dtype="d")
if rank == 2:
    comm.Gather(MPI.IN_PLACE, x, root=2)
    print(x)
    comm.Scatter(x, MPI.IN_PLACE, root=2)
else:
    comm.Gather(x, None, root=2)
    comm.Scatter(None, x, root=2)
    print(x)
