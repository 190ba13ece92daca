"""The figure of `analogtl show --out`."""

import numpy as np

from analogtl.config.schema import Device
from analogtl.crossbar.pulse_response import view_device
from analogtl.report.pulse_figure import pulse_figure


def test_the_figure_marks_each_symmetry_point_on_both_ramps():
    view = view_device(Device(preset="EcRamPresetDevice"), n_devices=20, n_shown=4)
    figure = pulse_figure(view)
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert len(dots) == 8
    for dot in dots:
        assert np.isclose(view.symmetry_points, dot.get_ydata()[0]).any()
