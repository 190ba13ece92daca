"""What `analogtl show` tells of a device, compared with what the device was built with."""

import numpy as np
import pytest
import torch

from analogtl.config.arrays import Device, Nonidealities
from analogtl.crossbar import pulse_response
from analogtl.crossbar.pulse_response import symmetry_in_range, view_device
from analogtl.errors import ExperimentError

N_STATES = "(w_max - w_min) / dw_min"
HFO2 = "ReRamArrayHfO2PresetDevice"


def facts(view):
    """By the parameter that a fact measures, or by its name where there is none."""
    return {fact.parameter or fact.name: fact for fact in view.facts}


def test_measured_values_are_those_of_the_preset():
    found = facts(view_device(Device(preset="EcRamPresetDevice")))
    # The median of 400 devices: its standard error is at most 1 %, so 5 % is a 5-sigma band.
    assert found[N_STATES].measured == pytest.approx(1000, rel=0.05)
    assert found["dw_min"].measured == pytest.approx(0.002, rel=0.05)
    assert found["w_max"].measured == pytest.approx(1.1724, rel=0.05)
    assert found["w_min"].measured == pytest.approx(-0.8276, rel=0.05)
    assert found["dw_min_std"].measured == pytest.approx(0.3, rel=0.1)
    assert found["dw_min_dtod"].measured == pytest.approx(0.1, rel=0.25)


def test_linear_steps_cross_where_their_slopes_say():
    """up = dw (1 - a w), down = dw (1 + b w + c): equal where w = -c / (a + b)."""
    still = dict.fromkeys(("dw_min_dtod", "w_max_dtod", "w_min_dtod", "up_down_dtod"), 0.0)
    slopes = {"gamma_up": 0.3, "gamma_down": 0.3, "gamma_up_dtod": 0.0, "gamma_down_dtod": 0.0}
    device = {"preset": "LinearStepDevice", "dw_min": 0.01, "w_max": 1.0, "w_min": -1.0}
    device |= still | slopes | {"up_down": 0.06, "mult_noise": False}
    view = view_device(Device(**device))
    point = facts(view)["symmetry point"]
    # aihwkit's bias makes up steps 1 + up_down times the nominal one (and leaves down steps).
    crossing = np.interp(0, -(view.up - view.down), view.grid)
    assert point.measured == pytest.approx(crossing, abs=0.01)
    assert point.measured == pytest.approx(0.06 / (2 * 0.3), abs=0.02)
    assert point.spread == pytest.approx(0, abs=1e-3)


def test_constant_steps_have_no_symmetry_point():
    point = facts(view_device(Device(preset="IdealizedPresetDevice"), n_devices=50))[
        "symmetry point"
    ]
    assert point.measured is None
    assert "none" in point.note


def test_write_noise_is_measured_in_weight_units():
    noise = facts(view_device(Device(preset=HFO2)))["write_noise_std x dw_min"]
    assert noise.nominal == pytest.approx(0.5841 * 0.4622)
    # 12,000 samples: the standard error of a standard deviation is 0.65 %.
    assert noise.measured == pytest.approx(noise.nominal, rel=0.04)


def test_nonidealities_reach_the_tile():
    skewed = view_device(Device(preset=HFO2), Nonidealities(symmetry_point_skew=20, n_states=200.0))
    found = facts(skewed)
    assert found["dw_min"].nominal == pytest.approx(0.01)
    assert found["w_max"].nominal == pytest.approx(0.8)
    assert found[N_STATES].nominal == pytest.approx(180)


def test_the_device_that_has_no_nominal_step_is_shown_too():
    view = view_device(Device(preset="SoftBoundsPmaxDevice", write_noise_std=2.0), n_devices=50)
    assert facts(view)["dw_min"].measured > 0


def test_a_device_that_no_pulse_moves_is_refused():
    with pytest.raises(ExperimentError):
        view_device(Device(preset="SoftBoundsReferenceDevice", reference_mean=9.0), n_devices=5)


def test_ramps_go_up_then_down():
    view = view_device(Device(preset="EcRamPresetDevice"), n_devices=20, n_shown=3)
    turn = int(np.argmax(view.pulses >= view.turn))
    assert view.weights.shape == (len(view.pulses), 3)
    assert (view.weights[turn] > view.weights[0] + 1).all()
    assert (view.weights[turn] > view.weights[-1] + 1).all()
    assert view.symmetry_points == pytest.approx(0, abs=0.15)


def test_the_same_seed_draws_the_same_devices():
    one, two = (view_device(Device(preset=HFO2), n_devices=30, seed=4) for _ in range(2))
    bounds = [facts(view)["w_max"].measured for view in (one, two)]
    assert bounds[0] == pytest.approx(bounds[1], abs=1e-3)
    np.testing.assert_allclose(one.symmetry_points, two.symmetry_points, atol=1e-3)


@pytest.mark.parametrize(
    ("skew", "bound", "place"), [(0, "upper", 0.5), (20, "upper", 0.444), (20, "both", 0.4)]
)
def test_the_symmetry_point_is_found_where_it_lies_in_the_range(skew, bound, place):
    alike = Device(preset=HFO2, w_max_dtod=0.0, w_min_dtod=0.0)
    skewed = Nonidealities(symmetry_point_skew=skew, symmetry_point_skew_bound=bound)
    before = torch.get_rng_state()
    found, spread = symmetry_in_range(alike, skewed)
    assert found == pytest.approx(place, abs=0.01)
    assert spread < 0.01
    own, wide = symmetry_in_range(Device(preset=HFO2), skewed)
    assert own == pytest.approx(place, abs=0.05)
    assert wide > 0.15  # as much as the devices of the preset differ
    assert torch.equal(torch.get_rng_state(), before)


def test_a_device_without_a_symmetry_point_has_no_place_of_it():
    assert symmetry_in_range(Device(preset="ConstantStepDevice"), Nonidealities()) is None


def test_the_same_device_is_measured_alike_each_time():
    device = Device(preset="ReRamESPresetDevice")  # whose steps aihwkit does not reckon by dw_min
    found = []
    for _ in range(2):
        pulse_response._symmetry_of.cache_clear()
        found.append(symmetry_in_range(device, Nonidealities()))
    assert found[0] == pytest.approx(found[1], abs=1e-6)
