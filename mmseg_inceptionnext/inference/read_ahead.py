"""A map in threads, a few results ahead of who takes them."""
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterable, Iterator, Tuple


def read_ahead(function: Callable[[Any], Any], items: Iterable[Any], depth: int, workers: int = 2
               ) -> Iterator[Tuple[Any, Any]]:
    """Pairs of each item and ``function(item)``, in order; the next ``depth`` are under way while one is used.

    What is under way is finished, also when the caller stops taking results. Ctrl-C, and an error of ``items``, end it
    at once: no other result follows.

    Args:
        function: called in threads, which Ctrl-C does not reach.
        items: taken one by one as results are, in the caller's thread.
        depth: number of results that wait at most.
        workers: number of threads.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting = deque()
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > depth:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
