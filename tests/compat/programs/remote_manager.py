"""A manager whose server is reached by its address, as between unrelated programs; a wrong key is refused."""

import multiprocessing as mp
import queue
from multiprocessing.managers import BaseManager

jobs, answers = queue.Queue(), queue.Queue()


class Office(BaseManager):
    pass


class Visitor(BaseManager):
    pass


Office.register("jobs", callable=lambda: jobs)
Office.register("answers", callable=lambda: answers)
Visitor.register("jobs")
Visitor.register("answers")


def visit(address, key):
    visitor = Visitor(address=address, authkey=key)
    visitor.connect()
    inbox, outbox = visitor.jobs(), visitor.answers()
    for number in iter(inbox.get, None):
        outbox.put(number + 1)


if __name__ == "__main__":
    mp.set_start_method("fork")
    office = Office(address=("127.0.0.1", 0), authkey=b"secret")
    office.start()
    process = mp.Process(target=visit, args=(office.address, b"secret"))
    process.start()
    inbox, outbox = office.jobs(), office.answers()
    for number in (1, 2, 3, None):
        inbox.put(number)
    print([outbox.get() for _ in range(3)])
    process.join()
    print(process.exitcode)
    try:
        Visitor(address=office.address, authkey=b"wrong").connect()
    except mp.AuthenticationError as error:
        print("AuthenticationError", error)
    office.shutdown()
