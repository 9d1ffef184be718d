"""Reductions by an operator of the program's own, on buffers and on objects."""

import numpy as np
from mpi4py import MPI


def smallest_first(inmem, inoutmem, datatype):
    a = np.frombuffer(inmem, dtype="d")
    b = np.frombuffer(inoutmem, dtype="d")
    assert datatype == MPI.DOUBLE
    b[:] = np.minimum(a, b)


comm = MPI.COMM_WORLD
op = MPI.Op.Create(smallest_first, commute=True)
x = np.array([comm.rank, -comm.rank, comm.rank % 2], dtype="d")
y = np.empty(3)
comm.Allreduce([x, MPI.DOUBLE], [y, MPI.DOUBLE], op=op)
print(y, op.Is_commutative(), MPI.SUM.Is_commutative(), op.is_predefined)
op.Free()

join = MPI.Op.Create(lambda a, b, datatype: a + "-" + b, commute=False)
print(comm.reduce(str(comm.rank), op=join, root=0), comm.scan(str(comm.rank), op=join))
print(comm.allreduce([comm.rank], op=lambda a, b: a + b))
