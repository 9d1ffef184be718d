"""The heat equation in two dimensions: blocks of a grid of ranks, which exchange their edges with their neighbours."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
dims = MPI.Compute_dims(comm.Get_size(), 2)
cart = comm.Create_cart(dims, periods=[False, False], reorder=False)
rows, columns = 12 // dims[0], 16 // dims[1]
row, column = cart.Get_coords(cart.Get_rank())

field = np.zeros((rows + 2, columns + 2))
x = (np.arange(rows) + row * rows)[:, None]
y = (np.arange(columns) + column * columns)[None, :]
field[1:-1, 1:-1] = 100.0 * np.exp(-((x - 5.5) ** 2 + (y - 7.5) ** 2) / 10.0)

up, down = cart.Shift(0, 1)
left, right = cart.Shift(1, 1)
edge = np.zeros(rows)


def exchange():
    cart.Sendrecv(field[-2, 1:-1], down, 0, field[0, 1:-1], up, 0)
    cart.Sendrecv(field[1, 1:-1], up, 1, field[-1, 1:-1], down, 1)
    edge[:] = field[1:-1, 0]
    cart.Sendrecv(field[1:-1, -2].copy(), right, 2, edge, left, 2)
    field[1:-1, 0] = edge
    edge[:] = field[1:-1, -1]
    cart.Sendrecv(field[1:-1, 1].copy(), left, 3, edge, right, 3)
    field[1:-1, -1] = edge


for _step in range(20):
    exchange()
    inner = field[1:-1, 1:-1]
    around = field[:-2, 1:-1] + field[2:, 1:-1] + field[1:-1, :-2] + field[1:-1, 2:]
    field[1:-1, 1:-1] = inner + 0.2 * (around - 4 * inner)

inner = field[1:-1, 1:-1]
total = cart.allreduce(inner.sum(), op=MPI.SUM)
hottest = cart.allreduce((inner.max(), cart.rank), op=MPI.MAXLOC)
print(cart.rank, [up, down, left, right].count(MPI.PROC_NULL), f"{inner.sum():.6f} of {total:.6f}", f"{hottest[0]:.6f}")
