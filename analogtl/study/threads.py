"""One thread for everything that computes a result, whatever the environment says.

Sums are taken in another order by several threads, and come out otherwise. Trials are the parallel
unit: on small networks, or beside other work, threads wait for one another most of the time anyway.
What comes out the same on any number, the fast engine's arrays, may have more (`--threads`).
"""

from __future__ import annotations

import os
import sys

# The libraries read these when they are loaded; aihwkit carries an OpenBLAS of its own.
THREADS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}


def use_one_thread() -> None:
    """Make this process compute with one thread, also if torch is loaded already."""
    os.environ.update(THREADS)
    if "torch" in sys.modules:
        from threadpoolctl import threadpool_limits

        sys.modules["torch"].set_num_threads(1)
        threadpool_limits(1)  # stays in force: it is not used as a context
