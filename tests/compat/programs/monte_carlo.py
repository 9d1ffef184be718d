"""Pi by random numbers: a seed for each worker, results reduced, a pool used by imap_unordered with progress."""

import multiprocessing as mp
import random
from itertools import count, islice


def hits(seed_and_size):
    seed, size = seed_and_size
    source = random.Random(seed)
    return seed, sum(source.random() ** 2 + source.random() ** 2 <= 1 for _ in range(size))


if __name__ == "__main__":
    size, tasks = 2_000, 12
    with mp.Pool(3) as pool:
        total = 0
        for progress, (seed, inside) in enumerate(
            sorted(pool.imap_unordered(hits, ((seed, size) for seed in range(tasks)))), 1
        ):
            total += inside
            print(progress, seed, inside)
    print(round(4 * total / size / tasks, 4))
    with mp.Pool(2) as pool:
        print(list(islice(pool.imap(abs, islice(count(-3), 6)), 4)))
