"""mpi4py's tutorial: gathering NumPy arrays."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
size = comm.Get_size()
rank = comm.Get_rank()

sendbuf = np.zeros(100, dtype="i") + rank
recvbuf = None
if rank == 0:
    recvbuf = np.empty([size, 100], dtype="i")
comm.Gather(sendbuf, recvbuf, root=0)
if rank == 0:
    for i in range(size):
        assert np.allclose(recvbuf[i, :], i)
    print(recvbuf[:, 0])
