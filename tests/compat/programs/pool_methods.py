"""Each of Pool's methods, with callbacks, an initializer, and errors of tasks."""

import multiprocessing as mp
import os


def square(x):
    return x * x


def power(base, exponent):
    return base**exponent


def fail_at_three(x):
    if x == 3:
        raise ValueError(f"no {x}")
    return x


def remember(value):
    global remembered
    remembered = value


def recall(_):
    return remembered


if __name__ == "__main__":
    print(mp.cpu_count() == os.cpu_count())
    with mp.Pool(3) as pool:
        print(pool.apply(power, (2, 5)))
        print(pool.apply(power, (2,), {"exponent": 6}))
        print(pool.map(square, range(10)))
        print(pool.map(square, range(10), chunksize=4))
        print(pool.map(square, []))
        print(pool.starmap(power, [(2, 3), (3, 2)]))
        print(list(pool.imap(square, range(5))))
        print(list(pool.imap(square, iter(range(5)), chunksize=2)))
        print(sorted(pool.imap_unordered(square, range(5))))
        result = pool.apply_async(power, (3, 3))
        print(result.get(timeout=30), result.ready(), result.successful())
        got, bad = [], []
        pool.map_async(square, range(4), callback=got.append).wait()
        failing = pool.apply_async(fail_at_three, (3,), callback=got.append, error_callback=bad.append)
        try:
            failing.get()
        except ValueError as error:
            print("ValueError", error, type(error.__cause__).__name__)
        print(pool.starmap_async(power, [(1, 2)]).get())
        pool.close()
        pool.join()
        print(got, [str(error) for error in bad])
        try:
            pool.apply(square, (1,))
        except ValueError as error:
            print(error)
    with mp.Pool(2) as pool:
        try:
            pool.map(fail_at_three, range(6))
        except ValueError as error:
            print("map:", error)
        iterator = pool.imap(fail_at_three, range(5))
        for _ in range(5):
            try:
                print(next(iterator))
            except ValueError as error:
                print("imap:", error)
        try:
            next(iterator)
        except StopIteration:
            print("the end")
        try:
            pool.apply_async(square, (1,)).successful()
        except ValueError as error:
            print(str(error).partition("<")[0])
        try:
            pool.apply_async(os.pause if hasattr(os, "pause") else __import__("signal").pause).get(timeout=0.05)
        except mp.TimeoutError:
            print("mp.TimeoutError")
    with mp.Pool(2, initializer=remember, initargs=("it",)) as pool:
        print(pool.map(recall, range(3)))
    try:
        mp.Pool(0)
    except ValueError as error:
        print(error)
    try:
        mp.Pool(1, initializer=3)
    except TypeError as error:
        print(error)
