"""mpi4py's tutorial: broadcasting a NumPy array."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank = comm.Get_rank()

if rank == 0:
    data = np.arange(100, dtype="i")
else:
    data = np.empty(100, dtype="i")
comm.Bcast(data, root=0)
for i in range(100):
    assert data[i] == i
print(data[-1])
