"""Reductions of buffers by each of MPI's operators, and in place."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size

for name in ("SUM", "PROD", "MAX", "MIN", "LAND", "LOR", "LXOR", "BAND", "BOR", "BXOR"):
    op = getattr(MPI, name)
    x = np.array([rank, rank + 1, 6, rank % 2], dtype="i")
    y = np.zeros(4, dtype="i")
    comm.Allreduce([x, MPI.INT], [y, MPI.INT], op)
    print(name, y, comm.allreduce(rank + 1, op))

x = np.arange(5, dtype="d") + rank
comm.Allreduce(MPI.IN_PLACE, x, op=MPI.SUM)
print(x)

x = np.full(3000, rank + 1.0)
if rank == 1:
    comm.Reduce(MPI.IN_PLACE, x, root=1)
    print(x[0], x.sum())
else:
    comm.Reduce(x, None, root=1)

x = np.arange(2 * size, dtype="l") * (rank + 1)
y = np.zeros(2, dtype="l")
comm.Reduce_scatter_block(x, y)
print(y)
counts = list(range(1, size + 1))
x = np.arange(sum(counts), dtype="d")
y = np.zeros(rank + 1)
comm.Reduce_scatter(x, y, counts, MPI.MAX)
print(y)

y = np.full(2, -1, dtype="i")
comm.Scan(np.array([rank, 1], dtype="i"), y)
print(y)
comm.Exscan(np.array([rank, 1], dtype="i"), y)
print(y if rank else "")

pair = np.zeros(2, dtype=np.dtype([("value", "d"), ("place", "i")], align=True))
pair["value"], pair["place"] = [rank, -rank], rank
best = np.zeros_like(pair)
comm.Allreduce([pair, MPI.DOUBLE_INT], [best, MPI.DOUBLE_INT], MPI.MAXLOC)
print(best["value"], best["place"])
x = np.array([1, 5], dtype="d")
y = np.array([2, 3], dtype="d")
MPI.MAX.Reduce_local(x, y)
print(y, MPI.SUM(2, 3), MPI.MINLOC((1, 2), (1, 1)))
