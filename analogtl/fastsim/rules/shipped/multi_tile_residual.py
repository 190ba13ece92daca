"""Residual learning on several arrays, for devices of few states (Li 2025, arXiv 2510.02516).

The passes see W0 + gamma W1 + gamma^2 W2 + ...: each array makes good what the coarser ones before
it leave over. The gradient's pulses go to the finest array; what a read of it says goes on to the
next coarser one, and so on, each on a time scale of its own. At the start (warm start) the reads of
the finest array go to one array at a time instead, the coarsest first.

After the authors' program (github.com/kdhhewuciedu/AIMC), with two differences: there an array's
turn in the warm start ends when the training loss stops falling, here after a number of reads; and
its periods and rates are lists, here geometric, which they are there, too.
"""

import numpy as np

ZERO, ONE = np.float32(0.0), np.float32(1.0)


class Rule:
    arrays = "W"  # W3, W2, W1, W0 where n_arrays is 4
    column = ("reads",)  # of the finest array
    parameters = {
        "n_arrays": 4,
        "gamma": 0.5,
        "fast_lr": 0.0,  # 0: the learning rate of the training
        "transfer_every": 2.0,  # vectors between two reads of the finest array
        "transfer_every_growth": 5.0,  # and of each coarser one, times as many
        "transfer_lr": 0.1,  # of the last array that is read
        "transfer_lr_growth": 1.2,  # of each finer one, times as much
        "warm_start": 0.0,  # reads of a column in the turn of one array
    }

    def read(array, y, cell, column, p):
        """Move the next array by a share of the read; less than a step is a chance of one."""
        finer = p.n_arrays - ONE - ONE - np.float32(array)
        rate = p.transfer_lr * p.transfer_lr_growth**finer
        return cell, rate * y / p.slow_granularity

    def after_read(array, column, u, p):
        return (column.reads + ONE if array == 0 else column.reads,)

    def onto(array, column, p):
        """During the warm start the finest array goes to the one whose turn it is."""
        if array > 0 or p.warm_start <= ZERO:
            return array + 1
        turn = int(column.reads / p.warm_start)
        return max(int(p.n_arrays) - 1 - turn, array + 1)

    def sees(weights, cell, column, p):
        seen, share = ZERO, ONE
        for array in range(len(weights) - 1, -1, -1):
            seen += share * weights[array]
            share *= p.gamma
        return seen

    def every(array, p):
        return p.transfer_every * p.transfer_every_growth**array
