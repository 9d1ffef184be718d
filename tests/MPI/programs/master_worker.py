"""A master that deals tasks to whoever is ready, and workers that do them."""

from mpi4py import MPI

READY, START, DONE, EXIT = 1, 2, 3, 4

comm = MPI.COMM_WORLD
size = comm.size
rank = comm.rank
status = MPI.Status()

if rank == 0:
    tasks = list(range(2 * size))
    results, closed = {}, 0
    while closed < size - 1:
        data = comm.recv(source=MPI.ANY_SOURCE, tag=MPI.ANY_TAG, status=status)
        source, tag = status.Get_source(), status.Get_tag()
        if tag == READY:
            if tasks:
                comm.send(tasks.pop(), dest=source, tag=START)
            else:
                comm.send(None, dest=source, tag=EXIT)
        elif tag == DONE:
            results[data[0]] = data[1]
        elif tag == EXIT:
            closed += 1
    print("results", sorted(results.items()))
else:
    while True:
        comm.send(None, dest=0, tag=READY)
        task = comm.recv(source=0, tag=MPI.ANY_TAG, status=status)
        if status.Get_tag() == START:
            comm.send((task, task**2), dest=0, tag=DONE)
        elif status.Get_tag() == EXIT:
            break
    comm.send(None, dest=0, tag=EXIT)
    print("bye")
