"""A manager's lists, dicts, namespaces and locks, shared by processes; nested ones; and one of one's own."""

import multiprocessing as mp
from multiprocessing.managers import BaseManager


class Account:
    def __init__(self, amount=0):
        self.amount = amount

    def deposit(self, amount):
        if amount <= 0:
            raise ValueError(f"{amount} is no deposit")
        self.amount += amount

    def balance(self):
        return self.amount


class Bank(BaseManager):
    pass


Bank.register("Account", Account)


def work(number, results, totals, lock, space):
    results.append(number)
    with lock:
        totals["sum"] = totals.get("sum", 0) + number
        space.last = max(space.last, number)


def pay(account, times):
    for _ in range(times):
        account.deposit(5)


if __name__ == "__main__":
    with mp.Manager() as manager:
        results, totals, lock, space = manager.list(), manager.dict(), manager.Lock(), manager.Namespace(last=-1)
        processes = [mp.Process(target=work, args=(n, results, totals, lock, space)) for n in range(5)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        print(sorted(results), dict(totals), space.last, space)
        print(manager.list([2, 1]), totals, len(results), 3 in results, results[1:3] == list(results)[1:3])
        nested = manager.dict(inner=manager.list([1, 2]))
        nested["inner"].append(3)
        print(nested["inner"], list(nested["inner"]))
        queue, event, value = manager.Queue(), manager.Event(), manager.Value("i", 7)
        array = manager.Array("d", [1.5, 2.5])
        queue.put("hello")
        event.set()
        value.value += 1
        print(queue.get(), event.is_set(), value.value, array[1], list(array))
        semaphore, barrier, condition = manager.Semaphore(1), manager.Barrier(1), manager.Condition()
        print(semaphore.acquire(blocking=False), semaphore.acquire(blocking=False), barrier.wait())
        with condition:
            condition.notify_all()
        with manager.Pool(2) as pool:
            print(pool.map(abs, [-1, -2]))
        try:
            totals["none"]
        except KeyError as error:
            print("KeyError", error)
        print(sum(results), results.count(4), results.pop() in range(5), [*manager.list([5, 6])])

    with Bank() as bank:
        account = bank.Account(100)
        processes = [mp.Process(target=pay, args=(account, 10)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        print(account.balance() >= 105)
        try:
            account.deposit(-1)
        except ValueError as error:
            print("ValueError", error)
        print(account._getvalue().__class__.__name__)
