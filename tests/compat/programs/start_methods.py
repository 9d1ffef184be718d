"""The same work under each start method; what a child sees of its parent's module."""

import multiprocessing as mp
import os

STATE = "as it was imported"


def look(out):
    out.put((STATE, __name__, os.getpid() != mp.parent_process().pid))


class Counter:
    def __init__(self):
        self.count = 0

    def add(self, out):
        self.count += 1
        out.put(self.count)


if __name__ == "__main__":
    STATE = "as it was changed"
    print(mp.get_all_start_methods())
    print(mp.get_start_method(allow_none=True))
    for method in mp.get_all_start_methods():
        context = mp.get_context(method)
        out = context.Queue()
        process = context.Process(target=look, args=(out,))
        process.start()
        print(method, out.get(), type(process).__name__)
        process.join()
        counter = Counter()
        process = context.Process(target=counter.add, args=(out,))
        process.start()
        print(out.get(), counter.count)
        process.join()
        print(context.get_start_method(), process.exitcode)
        with context.Pool(2) as pool:
            print(pool.map(abs, [-1, 2, -3]))
    print(mp.get_start_method())
    for wrong in (
        lambda: mp.set_start_method("fork"),
        lambda: mp.get_context("thread"),
        lambda: mp.get_context("spawn").set_start_method("fork"),
    ):
        try:
            wrong()
        except (RuntimeError, ValueError) as error:
            print(type(error).__name__, error)
    mp.set_start_method("spawn", force=True)
    print(mp.get_start_method(), mp.get_context().get_start_method())
