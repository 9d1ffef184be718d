"""Sends that wait for the receiver, messages that are matched first, and nobody as a partner."""

import numpy as np
from mpi4py import MPI

comm = MPI.COMM_WORLD
rank = comm.rank
status = MPI.Status()

if rank == 0:
    comm.ssend("taken", dest=1, tag=1)
    comm.issend("taken later", dest=1, tag=2).wait()
    comm.Ssend(np.arange(3000.0), 1, 3)
    comm.Issend(np.arange(3.0), 1, 4).Wait()
    comm.send("matched", dest=1, tag=5)
    comm.Send(np.arange(10.0), dest=1, tag=6)
elif rank == 1:
    print(comm.recv(source=0, tag=1), comm.recv(source=0, tag=2))
    x, y = np.zeros(3000), np.zeros(3)
    comm.Recv(x, 0, 3)
    comm.Recv(y, 0, 4)
    print(x.sum(), y)
    message = comm.mprobe(source=0, tag=5, status=status)
    print(bool(message), status.source, status.tag, message.recv(), message == MPI.MESSAGE_NULL)
    message = MPI.Message.Probe(comm, 0, 6, status)
    z = np.zeros(status.Get_count(MPI.DOUBLE))
    message.Recv(z)
    print(z, comm.improbe(source=0, tag=5))

comm.send("nobody", dest=MPI.PROC_NULL)
print(comm.recv(source=MPI.PROC_NULL, status=status), status.source == MPI.PROC_NULL, status.tag == MPI.ANY_TAG)
kept = np.ones(2)
comm.Recv(kept, source=MPI.PROC_NULL, status=status)
print(kept, status.Get_count(MPI.DOUBLE))
receiving, sending = comm.Irecv(kept, source=MPI.PROC_NULL), comm.Isend(kept, dest=MPI.PROC_NULL)
requests = [receiving, sending, comm.irecv(None, MPI.PROC_NULL)]
statuses = [MPI.Status() for _ in requests]
MPI.Request.Waitall(requests, statuses)
print(kept, statuses[0].source == MPI.PROC_NULL, statuses[0].Get_count(MPI.INT), statuses[2].tag == MPI.ANY_TAG)
print(comm.sendrecv(1, MPI.PROC_NULL, 0, None, MPI.PROC_NULL), comm.iprobe(MPI.PROC_NULL, 0, status), status.count)
comm.Sendrecv(kept, MPI.PROC_NULL, 0, kept, MPI.PROC_NULL, 0)
message = comm.mprobe(MPI.PROC_NULL, 0, status)
print(kept, message != MPI.MESSAGE_NULL, message.recv(status), status.source == MPI.PROC_NULL)
MPI.Message.Probe(comm, MPI.PROC_NULL).Recv(kept)
print(kept)
