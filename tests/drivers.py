"""A program that drives a World with hosts, for tests that kill, stop or cut off somebody of it."""

from __future__ import annotations

import json
import os

from programs import Program, wait_until, write_script

__all__ = ["Driver", "ProcessDriver", "SurvivingDriver"]

TESTS = os.path.dirname(os.path.abspath(__file__))
DRIVER = """
import json, sys, time
sys.path.append(sys.argv[3])
import klyng_mp as mp
import farwork

def main():
    with mp.World(hosts=json.loads(sys.argv[1])) as world:
        print("pids:", *(pid for pid, *_ in world.run(farwork.place)), flush=True)
        began = time.monotonic()
        try:
            world.run(getattr(farwork, sys.argv[4]), sys.argv[2])
        except BaseException as error:
            print(f"error: {type(error).__name__} {time.monotonic() - began:.1f} {error}", flush=True)
        if sys.stdin.readline():
            print("healthy:", *world.run(farwork.total), flush=True)

if __name__ == "__main__":
    main()
"""


class Driver(Program):
    """A program with a World, whose ranks wait in their run, which is a function of farwork's."""

    def __init__(self, folder, hosts, *, work="bystander", **keywords):
        self._gate = folder / "gate"
        script = write_script(folder, DRIVER)
        super().__init__(script, json.dumps(hosts), self._gate, TESTS, work, cwd=folder, stdin=-1, **keywords)

    def wait_for_run(self):
        """Return the processes of its ranks, once all wait in the run."""
        self.pids = [int(word) for word in self.answer("pids")]
        wait_until(self._gate.exists)
        return self.pids

    def error(self, seconds=30.0):
        """Return the type of the error that ends the run, and after how many seconds it came."""
        kind, took, *_ = self.answer("error", seconds=seconds)
        return kind, float(took)

    def go_on(self):
        """Let it run once more, and end; return what its ranks did."""
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self.answer("healthy")


STARTER = """
import json, sys, time
import klyng_mp as mp

if __name__ == "__main__":
    with mp.World(hosts=json.loads(sys.argv[1])) as world:
        processes = [world.Process(target=time.sleep, args=(1000,)) for _ in range(world.size)]
        for process in processes:
            process.start()
        print("pids:", *(process.pid for process in processes), flush=True)
        for process in processes:
            process.join()
        print("codes:", *(process.exitcode for process in processes), flush=True)
"""


class ProcessDriver(Program):
    """A program with a World whose places are all held by processes that sleep."""

    def __init__(self, folder, hosts, **keywords):
        super().__init__(write_script(folder, STARTER), json.dumps(hosts), cwd=folder, **keywords)


SURVIVOR = """
import json, sys, time
import klyng_mp as mp

def start(world):
    process = world.Process(target=time.sleep, args=(1000,))
    process.start()
    return process

def start_when_there(world):
    while True:
        try:
            return start(world)
        except mp.LaunchError:
            time.sleep(0.1)

if __name__ == "__main__":
    with mp.World(hosts=json.loads(sys.argv[1])) as world:
        processes = [start(world) for _ in range(world.size)]
        print("started:", *(process.pid for process in processes), flush=True)
        began = time.monotonic()
        victim = processes.pop()
        victim.join()
        print("lost:", victim.exitcode, time.monotonic() - began, flush=True)
        assert all(process.is_alive() for process in processes)
        processes.append(start_when_there(world))
        print("back:", processes[-1].pid, flush=True)
        for process in processes:
            process.terminate()
            process.join()
        print("codes:", *(process.exitcode for process in processes), flush=True)
        print("run:", *world.run(lambda: mp.comm().allreduce(1)), flush=True)
"""


class SurvivingDriver(Program):
    """A program that loses the process of its last place, and starts one there as soon as it can."""

    def __init__(self, folder, hosts, **keywords):
        super().__init__(write_script(folder, SURVIVOR), json.dumps(hosts), cwd=folder, **keywords)
