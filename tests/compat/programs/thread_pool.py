"""ThreadPool and multiprocessing.dummy: the same names, with threads."""

import multiprocessing.dummy as dummy
import threading
from multiprocessing.pool import ThreadPool


def name_of(_):
    return threading.current_thread() is not threading.main_thread()


if __name__ == "__main__":
    with ThreadPool(3) as pool:
        print(pool.map(lambda x: x + 1, range(5)), all(pool.map(name_of, range(5))))
        result = pool.map_async(str, range(3))
        print(result.get(), result.ready(), result.successful(), isinstance(pool, ThreadPool))
        print(list(pool.imap_unordered(len, ["a"])), pool.apply(divmod, (7, 2)))
    pool.join()
    with dummy.Pool(2) as pool:
        print(pool.starmap(max, [(1, 2), (4, 3)]))
    pool.join()
    queue, lock, event = dummy.Queue(), dummy.Lock(), dummy.Event()
    process = dummy.Process(target=queue.put, args=("from a thread",))
    process.start()
    process.join()
    print(queue.get(), process.exitcode, process.is_alive(), lock.acquire(), event.is_set())
    ours, theirs = dummy.Pipe()
    theirs.send([1, 2])
    print(ours.recv(), dummy.Value("i", 3).value, dummy.Array("i", [1, 2])[1], len(dummy.active_children()))
    print(dummy.Manager().dict(a=1), dummy.Namespace(x=1))
