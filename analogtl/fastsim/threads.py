"""Several threads for one training: updates beside the next pass, products in blocks of rows.

A tile is updated by one thread, before anybody else looks at it, and every random number is a
function of the seed and of its place. So the bits are the same for every number of threads.
"""

from __future__ import annotations

import atexit
import queue
import threading
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

_STEP = 16  # rows or columns; products with fewer are computed in other ways
_DENORMAL, _ONE = np.float32(1e-40), np.float32(1.0)

_tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
_others: list[threading.Thread] = []  # beside the caller's
_unfinished: set[Task] = set()


class Task:
    """A call that another thread carries out, or whoever needs it done before one is free.

    `concurrent.futures` would do, but takes 20 us for each, a tenth of the update of a tile.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._flush = _flushes_denormals()
        self._taken, self._running = threading.Lock(), threading.Lock()
        self._running.acquire()
        self._error: BaseException | None = None
        _unfinished.add(self)
        _tasks.put(self)

    def run(self) -> None:
        """Carry out the call, if nobody has begun."""
        if not self._taken.acquire(blocking=False):
            return
        try:
            if _flushes_denormals() != self._flush:  # a setting of each thread
                torch.set_flush_denormal(self._flush)
            self._call()
        except BaseException as error:
            self._error = error
        finally:
            _unfinished.discard(self)
            self._running.release()

    def finish(self) -> None:
        """Wait until it is done, or do it; raise what it raised."""
        self.run()
        self._running.acquire()
        if self._error is not None:
            raise self._error


def use_threads(count: int) -> None:
    """Compute with ``count`` threads from now on in this process; at first it is one.

    Raises:
        ValueError: if it is less than one.
    """
    if count < 1:
        raise ValueError(f"expected 1 thread or more; got {count}")
    if count - 1 == len(_others):
        return
    for _ in _others:
        _tasks.put(None)
    while _others:
        _others.pop().join()
    for _ in range(count - 1):
        _others.append(threading.Thread(target=_work, name="fastsim", daemon=True))
        _others[-1].start()


def _work() -> None:
    while (task := _tasks.get()) is not None:
        task.run()


# What is left to do is done while there still is an interpreter.
atexit.register(use_threads, 1)


def several() -> bool:
    """Whether there are threads beside the caller's."""
    return bool(_others)


def _flushes_denormals() -> bool:
    return bool(_DENORMAL * _ONE == 0)


def multiply(rows: Tensor, matrix: Tensor, out: Tensor) -> None:
    """Multiply ``rows`` [N, in] with ``matrix`` [in, out] on the threads that are free.

    ``out`` [N, out] receives the product, with the bits that it has on one thread; it and ``rows``
    are contiguous.
    """
    if not _others:
        torch.mm(rows, matrix, out=out)
        return
    free = len(_others) - len(_unfinished)
    blocks = next((n for n in range(1 + free, 1, -1) if len(rows) % (_STEP * n) == 0), 1)
    if blocks == 1 or min(matrix.shape) < _STEP or not _rows_are_independent():
        torch.mm(rows, matrix, out=out)
    else:
        _multiply_blocks(rows, matrix, out, blocks)


def _multiply_blocks(rows: Tensor, matrix: Tensor, out: Tensor, blocks: int) -> None:
    """Multiply equal blocks of rows, each on a thread of torch's."""
    # Left to itself, a threaded product is divided in a way that adds in another order.
    threads = torch.get_num_threads()
    torch.set_num_threads(blocks)
    (size, outputs), same = matrix.shape, matrix.expand(blocks, -1, -1)
    try:
        torch.bmm(rows.view(blocks, -1, size), same, out=out.view(blocks, -1, outputs))
    finally:
        torch.set_num_threads(threads)


@cache
def _rows_are_independent() -> bool:
    """Whether this machine's products compute a row alike, whatever rows are beside it."""
    generator = torch.Generator().manual_seed(0)
    for rows, size, outputs in ((128, 384, 512), (128, 461, 96), (640, 96, 384), (512, 27, 17)):
        given = torch.randn(rows, size, generator=generator)
        for matrix in (
            torch.randn(size, outputs, generator=generator),
            torch.randn(outputs, size, generator=generator).T,
        ):
            for blocks in (2, 4, 8):
                out = torch.empty(rows, outputs)
                _multiply_blocks(given, matrix, out, blocks)
                if not torch.equal(out, given @ matrix):
                    return False
    return True
