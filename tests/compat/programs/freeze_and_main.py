"""A program with an unguarded top level that children must not run, and freeze_support."""

import multiprocessing as mp
import sys

if mp.current_process().name == "MainProcess" and mp.parent_process() is None:
    print("the top level, in", mp.current_process().name)


class Config:
    level = 1

    def __eq__(self, other):
        return type(self) is type(other) and self.level == other.level


def child(config, out):
    out.put(
        (config == Config(), type(config) is Config, sys.modules["__main__"].__name__ in ("__main__", "__mp_main__"))
    )


if __name__ == "__main__":
    mp.freeze_support()
    for method in mp.get_all_start_methods():
        context = mp.get_context(method)
        out = context.SimpleQueue()
        process = context.Process(target=child, args=(Config(), out))
        process.start()
        print(method, out.get())
        process.join()
