"""mpi4py's tutorial: scattering NumPy arrays."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
size = comm.Get_size()
rank = comm.Get_rank()

sendbuf = None
if rank == 0:
    sendbuf = np.empty([size, 100], dtype="i")
    sendbuf.T[:, :] = range(size)
recvbuf = np.empty(100, dtype="i")
comm.Scatter(sendbuf, recvbuf, root=0)
assert np.allclose(recvbuf, rank)
print(recvbuf[:3])
