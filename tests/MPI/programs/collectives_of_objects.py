"""The collectives of objects."""

from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.Get_rank(), comm.Get_size()
comm.barrier()
comm.Barrier()
print(comm.allgather({"rank": rank}))
print(comm.alltoall([f"{rank}->{index}" for index in range(size)]))
print(comm.reduce(rank + 1, op=MPI.PROD, root=2), comm.allreduce([rank], op=MPI.SUM))
print(comm.scan(rank), comm.exscan(rank), comm.scan(rank, op=MPI.MAX))
print(comm.allreduce((rank % 3, rank), op=MPI.MAXLOC), comm.allreduce(rank > 0, op=MPI.LAND))
status = MPI.Status()
if rank == 0:
    for index in range(1, size):
        comm.send([0] * index, dest=index, tag=index)
else:
    comm.probe(source=0, tag=rank, status=status)
    print(status.Get_source(), status.tag, comm.iprobe(source=0, tag=99), comm.iprobe(source=0, tag=rank))
    print(comm.recv(None, 0, MPI.ANY_TAG, status), status.Get_tag(), status.Get_error())
