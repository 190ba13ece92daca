"""AGAD as a rule (Rasch et al. 2024, Nat. Commun. 15, 7133).

Like c-TTv2, but what goes into H is a read of A less the mean of the reads before the chopper last
turned: a symmetry point that is not at 0 does not matter, as each column finds its own.
"""

import math

import numpy as np

from analogtl.fastsim.rules import fused

ZERO, ONE = np.float32(0.0), np.float32(1.0)


class Rule:
    arrays = ("A", "C")
    cell = ("H", "running", "past")  # the buffer; means of the reads now, and before the turn
    column = ("reads", "chopped", "switched")
    counterpart = "DynamicTransferCompound"
    parameters = {
        "fast_lr": 0.1,
        "auto_scale": True,
        "auto_momentum": 0.99,
        "transfer_every": 1.0,
        "transfer_lr": 1.0,
        "scale_transfer_lr": True,
        "correct_gradient_magnitudes": False,
        "buffer_granularity": 1.0,
        "auto_granularity": 0.0,
        "buffer_cap": 0.0,
        "forget_buffer": True,
        "momentum": 0.0,
        "tail_weightening": 5.0,
        "in_chop_prob": 0.1,
        "in_chop_random": False,
    }

    def read(array, y, cell, column, p):
        """Add a read, less the reference, to H; what is beyond 1 becomes pulses."""
        lr = abs(p.transfer_lr * (p.lr if p.scale_transfer_lr > ZERO else ONE))
        unit = p.buffer_granularity if p.buffer_granularity > ZERO else ONE
        period = p.in_size * p.transfer_every
        per_step = p.fast_granularity
        if p.auto_granularity > ZERO:
            per_step = p.fast_granularity * p.auto_granularity / period
        granularity = unit * per_step
        scale = lr / granularity
        if p.correct_gradient_magnitudes > ZERO:
            ratio = p.slow_granularity / p.fast_granularity
            scale = (lr / p.count_lr) / (granularity * ratio)
        turn = np.float32(max(math.ceil(ONE / p.in_chop_prob), 2))  # reads between two turns
        tail = min(p.tail_weightening / turn, ONE)
        past = cell.running if column.switched > ZERO else cell.past
        running = fused(y, tail, cell.running * (ONE - tail))
        change = (y - past) * (-scale if column.chopped > ZERO else scale)
        h = cell.H + change
        n = min(max(np.trunc(h), -p.desired_bl), p.desired_bl)
        less = h - (ONE - p.momentum) * n
        cap = p.desired_bl * p.buffer_cap
        less = min(max(less, -cap), cap) if cap > ZERO else less
        after = h * p.momentum if p.forget_buffer > ZERO else less
        # Before the first turn there is no reference yet.
        return (after if n != ZERO else h, running, past), n if column.reads > turn else ZERO

    def after_read(array, column, u, p):
        """Turn the chopper after every so many reads, and at random."""
        turn = np.float32(max(math.ceil(ONE / p.in_chop_prob), 2))
        by_chance = p.in_chop_random > ZERO and u < p.in_chop_prob
        turns = column.reads % turn + ONE == turn or by_chance
        return (
            column.reads + ONE,
            ONE - column.chopped if turns else column.chopped,
            ONE if turns else ZERO,
        )

    def direction(column, p):
        return -ONE if column.chopped > ZERO else ONE
