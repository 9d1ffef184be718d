"""NumPy arrays through pools, queues, pipes and managers, and on shared memory."""
# needs: numpy

import multiprocessing as mp
from multiprocessing.shared_memory import SharedMemory

import numpy as np


def scale(array, factor=2.0):
    return array * factor


def serve(inbox, outbox):
    while (array := inbox.get()) is not None:
        array += 1  # what came may be written to
        outbox.put(array)


def fill(name, shape, row):
    block = SharedMemory(name=name)
    array = np.ndarray(shape, dtype=np.float64, buffer=block.buf)
    array[row] = row
    del array
    block.close()


def raise_array(values, shared):
    array = np.frombuffer(shared.get_obj())
    with shared.get_lock():
        array += values


if __name__ == "__main__":
    arrays = [np.arange(size, dtype=kind) for size in (0, 3, 100_000) for kind in (np.int32, np.float64)]
    arrays += [np.ones((3, 4), order="F"), np.array("text"), np.array([(1, 2.0)], dtype="i4,f8"), np.arange(9)[::2]]
    with mp.Pool(2) as pool:
        for array in pool.map(scale, arrays[:6]):
            print(array.dtype, array.shape, array.sum(), array.flags.writeable)
        print(pool.starmap(scale, [(arrays[2], 3), (arrays[4], 0.5)])[1].mean())
    inbox, outbox = mp.Queue(), mp.Queue()
    process = mp.Process(target=serve, args=(inbox, outbox))
    process.start()
    for array in arrays[:6]:
        inbox.put(array)
        back = outbox.get()
        print(back.dtype, np.array_equal(back, array + 1))
    inbox.put(None)
    process.join()
    ours, theirs = mp.Pipe()
    for array in arrays[6:]:
        ours.send({"array": array})
        back = theirs.recv()["array"]
        print(back.dtype, back.shape, back.tolist() == array.tolist())
    with mp.Manager() as manager:
        shared = manager.dict(array=np.eye(2))
        print(shared["array"].tolist())
    block = SharedMemory(create=True, size=4 * 5 * 8)
    processes = [mp.Process(target=fill, args=(block.name, (4, 5), row)) for row in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    table = np.ndarray((4, 5), dtype=np.float64, buffer=block.buf).copy()
    print(table.sum(axis=1))
    block.close()
    block.unlink()
    shared = mp.Array("d", 4)
    processes = [mp.Process(target=raise_array, args=(np.arange(4.0), shared)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print(shared[:])
