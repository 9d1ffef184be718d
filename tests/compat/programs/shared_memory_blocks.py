"""Named shared memory, lists in it, and a manager that removes it."""

import multiprocessing as mp
from multiprocessing import shared_memory
from multiprocessing.managers import SharedMemoryManager


def fill(name, start):
    block = shared_memory.SharedMemory(name=name)
    block.buf[start : start + 4] = bytes(range(start, start + 4))
    block.close()


def double(name):
    items = shared_memory.ShareableList(name=name)
    for index, item in enumerate(items):
        items[index] = item * 2
    items.shm.close()


if __name__ == "__main__":
    block = shared_memory.SharedMemory(create=True, size=16)
    processes = [mp.Process(target=fill, args=(block.name, start)) for start in (0, 4, 8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print(bytes(block.buf[:12]), block.size >= 16)
    block.close()
    block.unlink()
    try:
        shared_memory.SharedMemory(name=block.name)
    except FileNotFoundError as error:
        print("FileNotFoundError", error.errno)
    with SharedMemoryManager() as manager:
        items = manager.ShareableList([1, 2.5, "ab", b"cd", True, None][:4])
        process = mp.Process(target=double, args=(items.shm.name,))
        process.start()
        process.join()
        print(process.exitcode, items[0], items[1], items.count(2), items.index(5.0))
        memory = manager.SharedMemory(size=8)
        memory.buf[0] = 7
        name = memory.name
        print(memory.buf[0], len(items), items.format)
        items.shm.close()
        memory.close()
    try:
        shared_memory.SharedMemory(name=name)
    except FileNotFoundError:
        print("gone with its manager")
    for wrong in ({"create": True, "size": 0}, {"create": True, "size": -1}, {}):
        try:
            shared_memory.SharedMemory(**wrong)
        except ValueError as error:
            print(error)
