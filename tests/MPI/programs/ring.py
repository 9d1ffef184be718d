"""A ring without ends: an array that all ranks pass on, in place."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
ring = comm.Create_cart([comm.size], periods=[True])
source, dest = ring.Shift(0, 1)
data = np.full(2000, ring.rank, dtype="d")
for _ in range(3):
    ring.Sendrecv_replace(data, dest, 0, source, 0)
status = MPI.Status()
got = ring.sendrecv({"from": ring.rank}, dest, 5, None, source, 5, status)
print(ring.rank, source, dest, data[0], data.sum(), got, status.Get_source(), status.tag)
