"""A small map-reduce: documents are counted by a pool, and merged."""

import multiprocessing as mp
from collections import Counter
from functools import partial, reduce

TEXT = """It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of
foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of Light"""


def count(skip, line):
    words = (word.strip(",.").lower() for word in line.split())
    return Counter(word for word in words if word not in skip)


def main():
    lines = [TEXT[start : start + 37] for start in range(0, len(TEXT), 37)]
    with mp.Pool() as pool:
        counts = pool.map(partial(count, {"the", "of"}), lines)
    total = reduce(Counter.__add__, counts)
    for word, times in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:8]:
        print(f"{times:3} {word}")


if __name__ == "__main__":
    main()
