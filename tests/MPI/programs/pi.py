"""The pi of mpi4py's demos: the number of strips is broadcast, the sums are reduced."""

from math import pi as PI

from mpi4py import MPI
from numpy import array

comm = MPI.COMM_WORLD
nprocs = comm.Get_size()
myrank = comm.Get_rank()

n = array(0, dtype=int)
pi = array(0, dtype=float)
mypi = array(0, dtype=float)
for _n in (10, 1000):
    n.fill(_n)
    comm.Bcast([n, MPI.LONG], root=0)
    h = 1.0 / n
    s = 0.0
    for i in range(myrank + 1, n + 1, nprocs):
        x = h * (i - 0.5)
        s += 4.0 / (1.0 + x**2)
    mypi.fill(s * h)
    comm.Reduce([mypi, MPI.DOUBLE], [pi, MPI.DOUBLE], op=MPI.SUM, root=0)
    if myrank == 0:
        print(f"pi is approximately {pi:.10f}, error is {abs(pi - PI):.10f}")
