"""My training algorithm. What it does, and where it comes from.

This one works as it stands: A gathers the gradient, its reads are added up in a digital buffer H,
and where H is beyond a threshold, C, which holds the weights, gets a pulse. A chopper turns the
sign of a column of A at random. Change what you like; then:

    analogtl selftest --algorithm THIS_FILE    does it compile and run? does it repeat itself?
    analogtl explain rules                     what each function may take and must return

The functions run once per cell (read, sees) or per column (the others), compiled by numba: plain
numbers in, plain numbers out, and no state but what they return. Numbers are float32: write
constants as np.float32, which is faster, and choose between values rather than between paths.
"""

import numpy as np

ZERO, ONE = np.float32(0.0), np.float32(1.0)


class Rule:
    # The arrays, in the order in which they are read. The gradient's pulses go to the first; the
    # last holds the weights.
    arrays = ("A", "C")
    # Numbers of its own that each cell keeps, and each column; all begin at 0.
    cell = ("H",)
    column = ("chopped",)
    # Keys of [analog.compound], with defaults. Those that every rule has (fast_lr, transfer_every,
    # auto_scale, units_in_mbatch, ...) need no mention, unless for another default.
    parameters = {
        "fast_lr": 0.1,
        "auto_scale": True,
        "transfer_lr": 1.0,
        "auto_granularity": 100.0,  # analogtl sets it from granularity_per_token
        "in_chop_prob": 0.1,
    }

    def read(array, y, cell, column, p):
        """A read ``y`` of one cell: its new numbers, and the signed number of pulses onto C."""
        sign = -ONE if column.chopped > ZERO else ONE
        period = p.in_size * p.transfer_every  # vectors between two reads of a column
        reads = p.auto_granularity / period if p.auto_granularity > ZERO else ONE
        h = cell.H + sign * y * p.transfer_lr * p.lr / (p.fast_granularity * reads)
        pulses = min(max(np.trunc(h), -p.desired_bl), p.desired_bl)
        return (h if pulses == ZERO else ZERO,), pulses

    def after_read(array, column, u, p):
        """After the read of a column: its new numbers; ``u`` is random, from 0 to 1."""
        turns = u < p.in_chop_prob
        return (ONE - column.chopped if turns else column.chopped,)

    def direction(column, p):
        """The sign with which the gradient's pulses reach this column of A."""
        return -ONE if column.chopped > ZERO else ONE

    # What the forward and backward pass multiply with; without it, the last array.
    # def sees(weights, cell, column, p):
    #     return weights[1] + np.float32(0.1) * weights[0]
    #
    # The array that the pulses of a read go to; without it, the next one.
    # def onto(array, column, p):
    #     return array + 1
    #
    # Vectors between two reads of an array; without it, transfer_every * in_size ** array.
    # def every(array, p):
    #     return p.transfer_every
