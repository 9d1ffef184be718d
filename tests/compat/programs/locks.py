"""Locks, semaphores, conditions, events and barriers between processes, and their misuse."""

import multiprocessing as mp
import threading


def add(lock, total, times):
    for _ in range(times):
        with lock:
            total.value += 1


def enter(semaphore, inside, highest):
    with semaphore:
        with inside.get_lock():
            inside.value += 1
            highest.value = max(highest.value, inside.value)
        with inside.get_lock():
            inside.value -= 1


def wait_for(condition, ready, seen):
    with condition:
        condition.wait_for(lambda: ready.value == 1)
        seen.value += 1


def wait_event(event, seen):
    event.wait()
    with seen.get_lock():
        seen.value += 1


def meet(barrier, order, place):
    order.put(barrier.wait())


if __name__ == "__main__":
    lock, total = mp.Lock(), mp.Value("i", 0, lock=False)
    for kind in (lock, mp.RLock()):
        processes = [mp.Process(target=add, args=(kind, total, 300)) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    print(total.value)

    semaphore, inside, highest = mp.Semaphore(2), mp.Value("i", 0), mp.Value("i", 0)
    processes = [mp.Process(target=enter, args=(semaphore, inside, highest)) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print(inside.value, highest.value <= 2, semaphore.get_value())

    condition, ready, seen = mp.Condition(), mp.Value("i", 0), mp.Value("i", 0)
    processes = [mp.Process(target=wait_for, args=(condition, ready, seen)) for _ in range(3)]
    for process in processes:
        process.start()
    with condition:
        ready.value = 1
        condition.notify_all()
    for process in processes:
        process.join()
    print(seen.value)

    event, seen = mp.Event(), mp.Value("i", 0)
    processes = [mp.Process(target=wait_event, args=(event, seen)) for _ in range(3)]
    for process in processes:
        process.start()
    print(event.is_set(), event.wait(0.01))
    event.set()
    for process in processes:
        process.join()
    print(seen.value, event.is_set(), event.wait())
    event.clear()
    print(event.is_set())

    barrier, order = mp.Barrier(3, timeout=30), mp.Queue()
    processes = [mp.Process(target=meet, args=(barrier, order, place)) for place in range(3)]
    for process in processes:
        process.start()
    print(sorted(order.get() for _ in range(3)), barrier.parties, barrier.n_waiting, barrier.broken)
    for process in processes:
        process.join()
    try:
        mp.Barrier(2).wait(timeout=0.01)
    except threading.BrokenBarrierError:
        print("BrokenBarrierError")

    print(lock.acquire(), lock.acquire(block=False), lock.acquire(timeout=0.01))
    lock.release()
    bounded = mp.BoundedSemaphore(1)
    for wrong in (lock.release, mp.RLock().release, bounded.release, mp.Condition().notify, mp.Condition().wait):
        try:
            wrong()
        except (ValueError, AssertionError, RuntimeError) as error:
            print(type(error).__name__, error)
    print(type(lock).__name__, repr(lock).partition("(")[2], repr(mp.Semaphore(3)).partition("(")[2])
