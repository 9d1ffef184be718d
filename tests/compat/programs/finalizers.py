"""What runs at the end of a process: finalizers, children are waited for, daemonic ones are not."""

import multiprocessing as mp
import sys
from multiprocessing import util


def child(name, event):
    util.Finalize(None, print, args=(name, "finalized"), exitpriority=1)
    event.wait(10)
    print(name, "returns")
    sys.stdout.flush()


def daemon(event):
    never = mp.Event()  # one that is ended while it makes a semaphore leaves a name of it
    event.set()
    never.wait()


if __name__ == "__main__":
    go, up = mp.Event(), mp.Event()
    waited = mp.Process(target=child, args=("waited for", go))
    ended = mp.Process(target=daemon, args=(up,), daemon=True)
    waited.start()
    ended.start()
    up.wait()
    print("main returns", flush=True)
    go.set()
