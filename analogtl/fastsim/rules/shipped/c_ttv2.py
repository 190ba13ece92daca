"""c-TTv2 as a rule (Rasch et al. 2024, Nat. Commun. 15, 7133).

A gathers the gradient; its reads go into a digital buffer H, and where H is beyond the threshold, C
is pulsed. A chopper turns the sign of a column's pulses and reads over at random, so that what is
wrong with A's symmetry points averages out. Without choppers it is TTv2 (Gokmen 2021).
"""

import math

import numpy as np

ZERO, ONE = np.float32(0.0), np.float32(1.0)


class Rule:
    arrays = ("A", "C")
    cell = ("H",)
    column = ("reads", "chopped")
    counterpart = "ChoppedTransferCompound"
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
        "forget_buffer": True,
        "no_buffer": False,
        "momentum": 0.0,
        "in_chop_prob": 0.1,
        "in_chop_random": True,
    }

    def read(array, y, cell, column, p):
        """Add a read to H; what is beyond the threshold of 1 becomes pulses."""
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
        change = y * (-scale if column.chopped > ZERO else scale)
        h = (ZERO if p.no_buffer > ZERO else cell.H) + change
        n = min(max(np.trunc(h), -p.desired_bl), p.desired_bl)
        keep = min(max(p.momentum, ZERO), ONE)
        after = h * p.momentum if p.forget_buffer > ZERO else h - (ONE - keep) * n
        return (after if n != ZERO else h,), n

    def after_read(array, column, u, p):
        """Turn the chopper, at random or after every so many reads."""
        period = max(math.ceil(ONE / p.in_chop_prob), 2) if p.in_chop_prob > ZERO else 2
        by_count = column.reads % period + ONE == period
        turns = u < p.in_chop_prob if p.in_chop_random > ZERO else by_count
        turned = ONE - column.chopped if turns and p.in_chop_prob > ZERO else column.chopped
        return column.reads + ONE, turned

    def direction(column, p):
        return -ONE if column.chopped > ZERO else ONE
