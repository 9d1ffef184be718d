"""What cannot be sent is refused with an exception that the standard library's users catch."""

import multiprocessing as mp
import pickle
import threading


class Refuses:
    def __reduce__(self):
        raise TypeError("I do not travel")


class ArrivesBroken(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def nothing(_):
    return 1


def refuse(_):
    return Refuses()


if __name__ == "__main__":
    ours, theirs = mp.Pipe()
    for thing in (Refuses(), threading.Lock(), (number for number in range(3))):
        try:
            ours.send(thing)
        except (TypeError, pickle.PicklingError):
            print("refused by a pipe")
    print(theirs.poll())
    with mp.Pool(1) as pool:
        try:
            pool.apply(nothing, (Refuses(),))
        except Exception as error:
            print("refused by a pool", isinstance(error, (TypeError, pickle.PicklingError)))
        try:
            pool.apply(refuse, (1,))
        except mp.pool.MaybeEncodingError:
            print("MaybeEncodingError")
        print(pool.apply(nothing, (1,)))
    queue = mp.SimpleQueue()
    try:
        queue.put(Refuses())
    except (TypeError, pickle.PicklingError):
        print("refused by a queue")
    process = mp.get_context("spawn").Process(target=nothing, args=(Refuses(),))
    try:
        process.start()
    except (TypeError, pickle.PicklingError):
        print("refused by a process")
