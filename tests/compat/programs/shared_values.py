"""Values and arrays in shared memory, with and without locks, structures, and what ctypes says about them."""

import ctypes
import multiprocessing as mp
from multiprocessing.sharedctypes import RawArray, Value, copy, synchronized


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_double), ("y", ctypes.c_double)]


def change(counter, array, point, raw, text):
    for _ in range(500):
        with counter.get_lock():
            counter.value += 1
    for index in range(len(array)):
        array[index] = -array[index]
    point.x, point.y = point.y, point.x
    raw[0] = 42
    text.value = b"changed"


if __name__ == "__main__":
    counter, array = mp.Value("i", 0), mp.Array("d", [1.0, 2.0, 3.0])
    point, raw, text = Value(Point, 1.5, 2.5), RawArray("i", 3), mp.Array("c", b"original")
    processes = [mp.Process(target=change, args=(counter, array, point, raw, text)) for _ in range(3)]
    for process in processes:
        process.start()
        process.join()
    print(counter.value, array[:], point.x, point.y, list(raw), text.value)
    print(mp.Array("i", 4)[:], len(mp.Array("i", range(7))), mp.RawValue("d", 2.5).value)
    print(mp.Value("i", 1, lock=False), type(counter.get_lock()).__name__, counter.get_obj())
    duplicate = copy(point.get_obj())
    point.x = 9
    print(duplicate.x, point.x, synchronized(duplicate).y)
    with array:
        array[1:] = [7.0, 8.0]
    print(list(array))
    try:
        mp.Value("i", "text")
    except TypeError as error:
        print("TypeError", error)
    try:
        mp.Value("nonsense", 1)
    except (TypeError, KeyError, AttributeError) as error:
        print(type(error).__name__)
