"""Producers and consumers over Queue, JoinableQueue and SimpleQueue."""

import multiprocessing as mp
import queue


def produce(out, start):
    for number in range(start, start + 100):
        out.put({"number": number, "text": "x" * number})


def consume(tasks, results):
    while True:
        task = tasks.get()
        if task is None:
            tasks.task_done()
            break
        results.put(task * 2)
        tasks.task_done()


def echo(inbox, outbox):
    for item in iter(inbox.get, None):
        outbox.put(item)


if __name__ == "__main__":
    out = mp.Queue()
    producers = [mp.Process(target=produce, args=(out, start)) for start in (0, 1000)]
    for process in producers:
        process.start()
    items = [out.get() for _ in range(200)]
    for process in producers:
        process.join()
    print(sum(item["number"] for item in items), sum(len(item["text"]) for item in items))
    print([item["number"] for item in items if item["number"] < 1000] == list(range(100)))
    print(out.empty(), out.qsize())

    tasks, results = mp.JoinableQueue(), mp.Queue()
    consumers = [mp.Process(target=consume, args=(tasks, results)) for _ in range(3)]
    for process in consumers:
        process.start()
    for number in range(50):
        tasks.put(number)
    tasks.join()
    for _ in consumers:
        tasks.put(None)
    tasks.join()
    print(sorted(results.get() for _ in range(50))[-1])
    for process in consumers:
        process.join()
    print([process.exitcode for process in consumers])
    try:
        tasks.task_done()
    except ValueError as error:
        print(error)

    inbox, outbox = mp.SimpleQueue(), mp.SimpleQueue()
    process = mp.Process(target=echo, args=(inbox, outbox))
    process.start()
    for item in (1, "two", [3, 3.5], {"four": (4,)}, b"five" * 1000):
        inbox.put(item)
        print(str(outbox.get())[:20])
    inbox.put(None)
    process.join()
    print(inbox.empty())

    small = mp.Queue(maxsize=2)
    small.put(1)
    small.put(2)
    try:
        small.put_nowait(3)
    except queue.Full:
        print("queue.Full", small.full())
    try:
        small.put(3, timeout=0.01)
    except queue.Full:
        print("queue.Full after a while")
    print(small.get(), small.get())
    try:
        small.get_nowait()
    except queue.Empty:
        print("queue.Empty")
    try:
        small.get(timeout=0.01)
    except queue.Empty:
        print("queue.Empty after a while")
    small.close()
    try:
        small.put(1)
    except ValueError as error:
        print(str(error).replace(hex(id(small)), "").partition("<")[0])
    small.join_thread()
