"""A joblib backend: ``joblib.parallel_config("klyng")`` runs joblib's and scikit-learn's loops in ranks.

Layer: above futures. Importing it registers the backend, which is what it is imported for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from joblib import register_parallel_backend
from joblib._parallel_backends import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend

from klyng_mp.futures import WorldExecutor
from klyng_mp.machine import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from klyng_mp.world import World

__all__ = ["KlyngBackend"]


class KlyngBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs the calls of ``joblib.Parallel`` in the workers of a `WorldExecutor`.

    Workers stay warm from one loop to the next with as many jobs. One that dies fails the loop, with
    `WorkerDiedError`, unless ``retries=`` is given: ``parallel_config("klyng", n_jobs=4, retries=2)``.

    Args:
        retries: how often a batch is done again whose worker died.
        world: whose ranks work, on whichever hosts, by default all: ``parallel_config("klyng", world=world)``. Its
            places are held only while a loop goes on. None: those of a World of its own.
        options: joblib's own.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    def __init__(self, retries: int = 0, world: World | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._retries = retries
        self._world = world
        self._most = usable_cpus() if world is None else world.size
        if world is not None:
            self.default_n_jobs = world.size
        self._executor: WorldExecutor | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many workers that many jobs have: -1 is one for each CPU of this process, or rank of its World."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return int(self.default_n_jobs)
        workers = n_jobs if n_jobs > 0 else max(self._most + 1 + n_jobs, 1)
        return workers if self._world is None else min(workers, self._most)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Make workers ready, and return how many."""
        del options  # how to share memory: arrays are not copied anyway
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        threads = self.inner_max_num_threads
        if self._world is None:
            self._executor = _executor_of(n_jobs, self._retries, threads)
        elif self._executor is None:
            self._executor = WorldExecutor(n_jobs, world=self._world, retries=self._retries, threads=threads)
        return n_jobs

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> Future[Any]:
        """Have a batch done."""
        assert self._executor is not None  # noqa: S101 - joblib configures first
        future = self._executor.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the results of a batch, or raise what it raised."""
        return out.result()

    def terminate(self) -> None:
        """Let go of the workers; those of no World of the program stay for the next loop."""
        executor, self._executor = self._executor, None
        if executor is not None and self._world is not None:
            executor.shutdown()
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End the workers, whatever they do."""
        if self._executor is not None:
            self._executor.terminate()
        self.terminate()
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)


_executors: dict[tuple[int, int, int | None], WorldExecutor] = {}


def _executor_of(workers: int, retries: int, threads: int | None) -> WorldExecutor:
    key = workers, retries, threads
    executor = _executors.get(key)
    if executor is None or not executor.is_open:
        executor = _executors[key] = WorldExecutor(workers, retries=retries, threads=threads)
    return executor


register_parallel_backend("klyng", KlyngBackend)
