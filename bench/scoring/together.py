"""Does slow work, such as questions to a server, in several threads that hold up neither Ctrl-C nor Python's end."""

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


def together(work: Callable[[Item], Value], items: Sequence[Item], *, n_threads: int) -> Iterator[tuple[Item, Value]]:
    """Each item with what `work` gives for it, as soon as it is there.

    After an error no further item is begun, and the error is raised when those under way have ended. Ctrl-C does not
    wait for them: the threads end with the process.

    Args:
        work: Called with one item, in any thread.
        items: Begun in this order.
        n_threads: The number of items under way at once.
    """
    todo: SimpleQueue[Item] = SimpleQueue()
    done: SimpleQueue[tuple[Item, Value] | BaseException] = SimpleQueue()
    stop = threading.Event()
    for item in items:
        todo.put(item)
    # Python waits at its end for a pool of concurrent.futures, but not for these.
    words: dict[str, Any] = {"target": _work_on, "args": (work, todo, done, stop), "daemon": True}
    threads = [threading.Thread(**words) for _ in range(min(n_threads, len(items)))]
    for thread in threads:
        thread.start()
    try:
        for _ in items:
            found = done.get()
            if isinstance(found, BaseException):
                raise found
            yield found
    except Exception:
        for thread in threads:
            thread.join()
        raise
    finally:
        stop.set()


def _work_on(work: Callable, todo: SimpleQueue, done: SimpleQueue, stop: threading.Event) -> None:
    """Takes one item after the other, until none is left or one fails."""
    while not stop.is_set():
        try:
            item = todo.get_nowait()
        except Empty:
            return
        try:
            done.put((item, work(item)))
        except BaseException as error:
            stop.set()
            done.put(error)
