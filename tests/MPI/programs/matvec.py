"""mpi4py's tutorial: a parallel product of a matrix and a vector."""

import numpy
from mpi4py import MPI


def matvec(comm, A, x):
    m = A.shape[0]  # local rows
    p = comm.Get_size()
    xg = numpy.zeros(m * p, dtype="d")
    comm.Allgather([x, MPI.DOUBLE], [xg, MPI.DOUBLE])
    y = numpy.dot(A, xg)
    return y


comm = MPI.COMM_WORLD
rows = 3
A = numpy.arange(rows * rows * comm.size, dtype="d").reshape(rows, -1) + comm.rank
x = numpy.ones(rows) * (comm.rank + 1)
print(matvec(comm, A, x))
