"""The figure of `analogtl show --out`."""

from types import SimpleNamespace

import numpy as np
import pytest

from analogtl.config.arrays import Device
from analogtl.crossbar.pulse_response import view_device
from analogtl.report.pulse_figure import pulse_figure


def test_the_figure_marks_each_symmetry_point_on_both_ramps():
    view = view_device(Device(preset="EcRamPresetDevice"), n_devices=20, n_shown=4)
    figure = pulse_figure([view])
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert len(dots) == 8
    for dot in dots:
        assert np.isclose(view.symmetry_points, dot.get_ydata()[0]).any()


def test_several_devices_have_a_column_each_with_their_own_steps():
    names = ("EcRamPresetDevice", "ReRamArrayHfO2PresetDevice")
    views = [view_device(Device(preset=one), n_devices=20, n_shown=2) for one in names]
    ramps, steps = np.split(np.array(pulse_figure(views).axes), 2)
    for view, ramp, step in zip(views, ramps, steps, strict=True):
        assert view.name in ramp.get_title()
        assert ramp.get_ylim()[1] > max(one.weights.max() for one in views)
        low, high = step.get_ylim()
        assert low == 0
        assert high == pytest.approx(max(view.up.max(), view.down.max()), rel=0.2)


def test_what_was_measured_lies_beside_what_is_simulated():
    trace = SimpleNamespace(
        weights=np.array([-0.5, -0.49, -0.48, -0.47]),
        signs=np.array([0, 1, 1, 1]),
        starts=np.array([True, False, False, False]),
    )
    view = view_device(Device(preset="EcRamPresetDevice"), traces=[trace], n_devices=20, n_shown=1)
    ramps = pulse_figure([view]).axes[0]
    measured = [line for line in ramps.lines if line.get_marker() == "."]
    assert measured[0].get_ydata() == pytest.approx(trace.weights)
    assert measured[0].get_xdata() == pytest.approx([0, 1, 2, 3])
