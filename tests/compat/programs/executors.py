"""concurrent.futures with this module's contexts, and asyncio on top of it."""

import asyncio
import multiprocessing as mp
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool


def cube(x):
    return x**3


def fail(x):
    raise LookupError(x)


def die():
    os._exit(1)


STATE = "unset"


def prepare(value):
    global STATE
    STATE = value


def state():
    return STATE


async def gather(executor):
    loop = asyncio.get_running_loop()
    return await asyncio.gather(*(loop.run_in_executor(executor, cube, number) for number in range(4)))


if __name__ == "__main__":
    for method in mp.get_all_start_methods():
        context = mp.get_context(method)
        with ProcessPoolExecutor(2, mp_context=context, initializer=prepare, initargs=("set",)) as executor:
            print(method, list(executor.map(cube, range(6), chunksize=2)), executor.submit(state).result())
            print(sorted(future.result() for future in as_completed([executor.submit(cube, n) for n in range(3)])))
            try:
                executor.submit(fail, 5).result()
            except LookupError as error:
                print("LookupError", error)
            print(asyncio.run(gather(executor)))
        with ProcessPoolExecutor(1, mp_context=context) as executor:
            try:
                executor.submit(die).result()
            except BrokenProcessPool as error:
                print(type(error).__name__)
