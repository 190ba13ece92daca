"""E-RIDER, which tracks the symmetry point while training (Xiao 2026, arXiv 2602.21321).

It is residual learning: P gathers the gradient, and every pulse also draws it towards the symmetry
point of its device. Q, a moving average of the reads of P, finds that point while the training goes
on. The passes see W + gamma c (P - Q), and W moves by transfer_lr times c (P - Q). The chopper c
turns the gradient's part of P over at random, so that only the pull towards the symmetry point
stays in the average.

As in the paper's Algorithm 3, what is subtracted is a copy of Q that is renewed when c turns. With
in_chop_prob = 0 it is RIDER, its Algorithm 2, where Q itself is subtracted.

A read is of one column, every transfer_every vectors, as in all algorithms here; the paper's theory
updates all of W and Q with every vector.
"""

import numpy as np

ZERO, ONE = np.float32(0.0), np.float32(1.0)


class Rule:
    arrays = ("P", "W")
    cell = ("Q", "held")  # the symmetry point as it is tracked, and the copy that is subtracted
    column = ("chopped", "turned")
    parameters = {
        "gamma": 0.1,
        "eta": 0.02,  # share of a new read in Q
        "fast_lr": 0.5,
        "transfer_lr": 0.05,
        "scale_transfer_lr": False,
        "in_chop_prob": 0.05,
    }

    def read(array, y, cell, column, p):
        """Take a read of P into Q; move W by what is beyond the copy of Q."""
        renewed = column.turned > ZERO or p.in_chop_prob <= ZERO
        held = cell.Q if renewed else cell.held
        rate = p.transfer_lr * (p.lr if p.scale_transfer_lr > ZERO else ONE)
        sign = -ONE if column.chopped > ZERO else ONE
        tracked = cell.Q + p.eta * (y - cell.Q)
        return (tracked, held), sign * rate * (y - held) / p.slow_granularity

    def after_read(array, column, u, p):
        turns = u < p.in_chop_prob
        return (
            ONE - column.chopped if turns else column.chopped,
            ONE if turns else ZERO,
        )

    def direction(column, p):
        return -ONE if column.chopped > ZERO else ONE

    def sees(weights, cell, column, p):
        sign = -ONE if column.chopped > ZERO else ONE
        return weights[1] + p.gamma * sign * (weights[0] - cell.held)
