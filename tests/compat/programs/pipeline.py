"""Three stages that are joined by queues, a bounded one in the middle, with a progress counter and a clean end."""

import multiprocessing as mp

END = None


def read(numbers, out):
    for number in numbers:
        out.put(number)
    out.put(END)


def is_prime(number):
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def sift(inbox, out, done):
    for number in iter(inbox.get, END):
        if is_prime(number):
            out.put(number)
        with done.get_lock():
            done.value += 1
    inbox.put(END)
    out.put(END)


if __name__ == "__main__":
    sifters = 3
    numbers, primes, done = mp.Queue(maxsize=8), mp.Queue(), mp.Value("L", 0)
    stages = [mp.Process(target=read, args=(range(400), numbers))]
    stages += [mp.Process(target=sift, args=(numbers, primes, done)) for _ in range(sifters)]
    for stage in stages:
        stage.start()
    found, ended = [], 0
    while ended < sifters:
        item = primes.get()
        if item is END:
            ended += 1
        else:
            found.append(item)
    numbers.get()
    for stage in stages:
        stage.join()
    print(done.value, len(found), sorted(found)[-3:], [stage.exitcode for stage in stages])
