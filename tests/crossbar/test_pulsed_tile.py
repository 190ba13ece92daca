"""Simulated devices with the pulses of real ones: alike where they are, else apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from analogtl.config.arrays import Device, Nonidealities
from analogtl.crossbar.pulse_response import view_device
from analogtl.crossbar.pulsed_tile import PulsedTile, replay
from analogtl.crossbar.rpu_config import build_device

TRUE = {"preset": "SoftBoundsReferenceDevice", "dw_min": 0.03, "w_max": 1.0, "w_min": -1.0}
CYCLES, PULSES = 2, 120


@dataclass(frozen=True)
class Readings:
    weights: Any
    signs: Any
    starts: Any


def built(**changes: float) -> Any:
    return build_device(Device(**TRUE, **changes), Nonidealities())


@pytest.fixture(scope="module")
def measured() -> list[Readings]:
    """Readings of 40 devices, that are set to -0.5 where a cycle starts."""
    tile = PulsedTile(built(), 40, seed=7)
    signs = np.tile([0] + [1] * PULSES + [-1] * PULSES, CYCLES)
    weights = []
    for sign in signs:
        if sign:
            tile.pulse(int(sign))
        else:
            tile.set(np.full(tile.n, -0.5))
        weights.append(tile.weights())
    return [Readings(one, signs, signs == 0) for one in np.array(weights).T]


def test_devices_of_one_kind_lie_in_one_another(measured):
    shares = [replay(built(), one, n=200, seed=1).inside for one in measured]
    # Readings of one device go together: the mean of 40 shares scatters by 0.04 about 0.9.
    assert np.mean(shares) == pytest.approx(0.9, abs=0.12)


def test_devices_of_another_kind_do_not(measured):
    shares = [replay(built(up_down=-0.8), one, n=200, seed=1).inside for one in measured[:10]]
    assert np.mean(shares) < 0.6


def test_a_cycle_starts_where_the_real_device_was(measured):
    one = replay(built(), measured[0], n=20, seed=1)
    starts = np.flatnonzero(measured[0].starts)
    assert one.middle[starts] == pytest.approx(measured[0].weights[starts], abs=0.05)
    assert one.pulses[-1] == CYCLES * 2 * PULSES
    assert (one.low <= one.middle).all()


def test_a_device_that_is_shown_says_how_well_it_fits(measured):
    view = view_device(Device(**TRUE), traces=measured[:3], n_devices=50)
    assert len(view.replays) == 3
    inside = 100 * np.mean([one.inside for one in view.replays])
    assert view.facts[-1].measured == pytest.approx(inside)
