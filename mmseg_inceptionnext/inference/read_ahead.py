"""A map in threads, a few results ahead of who takes them."""
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterable, Iterator


def read_ahead(function: Callable[[Any], Any], items: Iterable[Any], depth: int, workers: int = 2) -> Iterator[Any]:
    """``map(function, items)`` in order, whose next ``depth`` results are under way while one is used.

    What is under way is finished, also when the caller stops taking results. If ``items`` raises, the results of those
    before come first.

    Args:
        function: called in threads.
        items: taken one by one as results are, in the caller's thread.
        depth: number of results that wait at most.
        workers: number of threads.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting, failure = deque(), None
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
        except (Exception, KeyboardInterrupt) as error:
            failure = error
        while waiting:
            yield waiting.popleft().result()
        if failure is not None:
            raise failure
