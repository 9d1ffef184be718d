"""Processes: exit codes, names, daemons, exceptions, a subclass, terminate and kill, close, sentinels."""

import multiprocessing as mp
import os
import signal
import sys
from multiprocessing.connection import wait


class Adder(mp.Process):
    def __init__(self, out, *numbers):
        super().__init__(name="adder")
        self.out, self.numbers = out, numbers

    def run(self):
        self.out.put((self.name, sum(self.numbers)))


def end(how):
    if how == "exit":
        sys.exit(3)
    if how == "text":
        sys.exit("with a text")
    if how == "error":
        raise RuntimeError("wrong")
    if how == "os":
        os._exit(7)
    if how == "signal":
        os.kill(os.getpid(), signal.SIGKILL)


def report(out):
    process = mp.current_process()
    out.put((process.name, process.daemon, process.pid == os.getpid(), mp.parent_process().name, process.is_alive()))


def hang():
    signal.pause()


if __name__ == "__main__":
    for how in ("nothing", "exit", "text", "error", "os", "signal"):
        process = mp.Process(target=end, args=(how,))
        process.start()
        process.join()
        print(how, process.exitcode, process.is_alive())
    out = mp.Queue()
    adder = Adder(out, 1, 2, 3)
    print(adder.is_alive(), adder.pid, adder.exitcode)
    adder.start()
    print(out.get(), adder.pid > 0, adder.ident == adder.pid)
    adder.join()
    for daemon in (False, True):
        process = mp.Process(target=report, args=(out,), name=f"daemon {daemon}", daemon=daemon)
        process.start()
        print(out.get())
        process.join()
    for end_it in ("terminate", "kill"):
        process = mp.Process(target=hang)
        process.start()
        process.join(timeout=0.05)
        print(process.is_alive(), process.exitcode, process in mp.active_children())
        getattr(process, end_it)()
        print(wait([process.sentinel]) == [process.sentinel])
        process.join()
        print(process.exitcode)
    process.close()
    for wrong in (process.is_alive, adder.start, lambda: mp.Process(target=hang).join(), lambda: mp.Process(group=1)):
        try:
            wrong()
        except (ValueError, AssertionError) as error:
            print(type(error).__name__, error)
    process = mp.Process(target=hang)
    print(repr(process).partition(" parent")[0].rpartition("-")[0], process.authkey == mp.current_process().authkey)
    print(mp.current_process().name, mp.parent_process(), mp.active_children())
    try:
        process.daemon = True
        adder.daemon = True
    except AssertionError as error:
        print(error)
