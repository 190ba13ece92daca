"""A worker process of the local backend: ``python -m analogtl.scheduling.worker module:function``.

Jobs come in on standard input and rows go out on standard output, one line of JSON each. When the
input ends, whoever started the worker is gone or wants it to stop: the current trial is saved, and
the process ends. So no worker outlives its sweep, however that ends.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import queue
import signal
import sys
import threading
from typing import Any

from analogtl.scheduling.jobs import execute, load


def main() -> None:
    """Serve jobs until the input ends."""
    # Libraries may write to standard output; the parent must see nothing there but rows.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    faulthandler.enable()
    jobs: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which then stops us
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    busy = threading.Lock()
    threading.Thread(target=_listen, args=(jobs, stop, busy), daemon=True).start()
    try:
        load(sys.argv[1])
    except BaseException as error:
        _send(out, {"broken": f"{type(error).__name__}: {' '.join(str(error).split())}"})
        raise
    logging.getLogger("analogtl").addHandler(_Notes(out))
    _send(out, {"ready": os.getpid()})
    while (job := jobs.get()) is not None and not stop.is_set():
        with busy:
            _send(out, {"row": execute(job, stop.is_set)})


class _Notes(logging.Handler):
    """Hands what the package's modules log to the parent, which shows it."""

    def __init__(self, out: Any) -> None:
        super().__init__()
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        _send(self._out, {"note": record.getMessage()})


def _listen(
    jobs: queue.SimpleQueue[dict[str, Any] | None], stop: threading.Event, busy: threading.Lock
) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    stop.set()
    jobs.put(None)
    if jobs.qsize() == 1 and busy.acquire(blocking=False):
        os._exit(0)  # idle, or still importing: there is nothing to save


def _send(out: Any, message: dict[str, Any]) -> None:
    try:
        out.write(json.dumps(message, default=str) + "\n")
        out.flush()
    except BrokenPipeError:  # nobody is there any more
        os._exit(0)


if __name__ == "__main__":
    main()
