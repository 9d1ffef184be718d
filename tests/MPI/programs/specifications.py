"""Buffers that are no arrays of NumPy, and all ways to say what is sent of one."""

import array

from mpi4py import MPI

comm = MPI.COMM_WORLD
rank = comm.rank
status = MPI.Status()

if rank == 0:
    numbers = array.array("i", range(10))
    comm.Send(numbers, 1)
    comm.Send([numbers, 4], 1)
    comm.Send([numbers, 4, MPI.INT], 1)
    comm.Send([numbers, (3, 5), MPI.INT], 1)
    comm.Send([numbers, 3, 2, MPI.INT], 1)
    comm.Send((numbers, "i"), 1)
    comm.Send(b"some bytes", 1)
    comm.Send([bytearray(b"more bytes"), MPI.BYTE], 1)
    comm.Send([None, MPI.INT], 1)
    comm.Send(bytes(100_000), 1)
elif rank == 1:
    for _ in range(6):
        into = array.array("i", [-1] * 12)
        comm.Recv([into, MPI.INT], source=0, status=status)
        print(into.tolist(), status.Get_count(MPI.INT), status.Get_elements(MPI.INT), status.count)
    for _ in range(3):
        text = bytearray(12)
        comm.Recv(text, 0, MPI.ANY_TAG, status)
        print(bytes(text[: status.Get_count(MPI.CHAR)]), status.Get_count(MPI.INT) == MPI.UNDEFINED)
    comm.Probe(0, 0, status)
    much = bytearray(status.Get_count())
    comm.Recv(much, 0)
    print(len(much), sum(much))

text = bytearray(b"abc%d" % rank)
comm.Bcast([text, MPI.CHAR], root=3)
print(text)
numbers = array.array("d", [rank, 1.0])
comm.Allreduce(MPI.IN_PLACE, numbers)
print(numbers.tolist())
parts = bytearray(4 * comm.size)
comm.Allgather(text, parts)
print(parts)
