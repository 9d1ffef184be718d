"""A progress bar around imap and imap_unordered, as tqdm's users have it."""
# needs: tqdm

import io
import multiprocessing as mp

from tqdm import tqdm


def double(x):
    return 2 * x


if __name__ == "__main__":
    screen = io.StringIO()
    with mp.Pool(2) as pool:
        print(list(tqdm(pool.imap(double, range(8)), total=8, file=screen)))
        print(sorted(tqdm(pool.imap_unordered(double, range(8), chunksize=3), total=8, file=screen)))
        bar = tqdm(total=4, file=screen)
        results = [pool.apply_async(double, (n,), callback=lambda _: bar.update()) for n in range(4)]
        print([result.get() for result in results])
        pool.close()
        pool.join()
        bar.close()
    print("8/8" in screen.getvalue(), "4/4" in screen.getvalue())
