"""Workers that are replaced after some tasks, their names, and a pool that ends while it works."""

import multiprocessing as mp
import os
import signal


def who(_):
    return os.getpid()


def what(_):
    process = mp.current_process()
    return process.daemon, process.name.rpartition("-")[0], mp.parent_process().pid == os.getppid()


if __name__ == "__main__":
    for method in mp.get_all_start_methods():
        context = mp.get_context(method)
        with context.Pool(2, maxtasksperchild=2) as pool:
            pids = pool.map(who, range(8), chunksize=1)
            daemon, name, child = pool.apply(what, (0,))
        pool.join()
        # Not before: a worker that is forked by another thread while this one prints has what is not flushed, too.
        print(method, all(pids.count(pid) <= 2 for pid in pids), len(set(pids)) >= 4)
        print(daemon, name, child or method == "forkserver")
    pool = mp.Pool(2)
    pool.apply_async(signal.pause)
    pool.terminate()
    pool.join()
    print(mp.active_children())
