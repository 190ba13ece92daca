"""The axes of a sweep: what each means, what it sets in aihwkit, and where its levels come from.

An axis is a short name for one key of the experiment file. Any other dotted key can be swept too.

The papers show most of their levels in figures only. So `Axis.published` holds the levels that a
text names, `Axis.own` what the paper's device has by itself (aihwkit's HfO2 preset; for the
periphery, aihwkit's default), and the other default levels are this tool's choice.
"""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "arXiv 2505.11067"
PUBLISHED = "DOI 10.1109/tcsii.2025.3596457"


@dataclass(frozen=True)
class Axis:
    """One sweep axis.

    Attributes:
        name: Short name, the column in the CSV files.
        key: Dotted key of the experiment that a level is written to.
        meaning: What is varied, in words; the label of a figure's x axis.
        unit: Unit of the levels ("" for a plain number).
        sets: What a level sets in aihwkit.
        levels: Levels taken when none are given.
        source: Where the axis was published.
        published: Levels that the source's text names.
        own: Levels that the HfO2 preset, or aihwkit's periphery, has where nothing is set.
        device_parameters: Device parameters that must exist on the chosen device.
        analog_only: Whether it leaves the digital arms untouched.
    """

    name: str
    key: str
    meaning: str
    unit: str
    sets: str
    levels: tuple[float, ...]
    source: str
    published: tuple[float, ...] = ()
    own: tuple[float, ...] = ()
    device_parameters: tuple[str, ...] = ()
    analog_only: bool = True

    @property
    def label(self) -> str:
        """Meaning and unit, as on a figure's axis."""
        return f"{self.meaning} ({self.unit})" if self.unit else self.meaning

    @property
    def levels_text(self) -> str:
        """The levels taken when none are given; a star marks those that the source's text names."""
        return self.marked_levels("{:g}*")

    def marked_levels(self, mark: str) -> str:
        """The levels taken when none are given, those of the source's text in this format."""
        return ", ".join((mark if x in self.published else "{:g}").format(x) for x in self.levels)

    def origin(self, level: float) -> str:
        """Where a level comes from: "published", "the device's own" or "this tool's choice"."""
        if level in self.published:
            return "published"
        return "the device's own" if level in self.own else "this tool's choice"


_AXES = (
    Axis(
        "wtn",
        "convert.weight_transfer_noise",
        "weight transfer noise",
        "%",
        "w_analog = w_digital + p/100 * N(0, 1) * max|w| (eq. 1; relative_to), once, at conversion",
        (0, 2, 5, 10, 15, 20, 30),
        f"{PAPER}, Fig. 3",
        published=(10, 15),
        own=(0,),
    ),
    Axis(
        "sps",
        "analog.nonidealities.symmetry_point_skew",
        "symmetry point skew",
        "%",
        # With aihwkit's soft bounds up and down steps are equal at 0 whatever the bounds (as long
        # as up_down is 0), so that the skew changes range and slopes, not where they are equal.
        "w_max = (1 - p/100) w_max of the preset; or w_min, or both (symmetry_point_skew_bound)",
        (0, 5, 10, 15, 20),
        f"{PAPER}, Fig. 4",
        own=(0,),
        device_parameters=("w_max", "w_min"),
    ),
    Axis(
        "spv",
        "analog.nonidealities.symmetry_point_variability",
        "symmetry point variability",
        "%",
        "reference_std = 2 p/100 (5 % is 0.10)",
        (0, 5, 10, 15, 20),
        f"{PAPER}, Fig. 4",
        published=(5, 10),
        own=(2.5,),
        device_parameters=("reference_std",),
    ),
    Axis(
        "dw_min_std",
        "analog.device.dw_min_std",
        "pulse update noise",
        "dw_min",
        "dw_min_std: cycle-to-cycle noise of one pulse, relative to dw_min",
        (0, 0.1, 0.2174, 0.5, 1.0),
        f"{PAPER}, Fig. 5",
        own=(0.2174,),
        device_parameters=("dw_min_std",),
    ),
    Axis(
        "dw_min_dtod",
        "analog.device.dw_min_dtod",
        "mean pulse device-to-device variability",
        "dw_min",
        "dw_min_dtod: spread of the mean pulse size over the devices, relative to dw_min (of its "
        "logarithm where dw_min_dtod_log_normal is on, as on the ReRAM arrays)",
        (0, 0.1, 0.3, 0.7125, 1.0),
        f"{PAPER}, Fig. 5",
        own=(0.7125,),
        device_parameters=("dw_min_dtod",),
    ),
    Axis(
        "write_noise_std",
        "analog.device.write_noise_std",
        "write noise",
        "dw_min",
        "write_noise_std: noise of the apparent weight after each pulse, relative to dw_min",
        (0, 0.25, 0.5841, 1.0, 2.0),
        PUBLISHED,
        own=(0.5841,),
        device_parameters=("write_noise_std",),
    ),
    Axis(
        "n_states",
        "analog.nonidealities.n_states",
        "number of states",
        "",
        "dw_min = (w_max - w_min) / n_states of the preset: 2 / n_states for bounds of 1 and -1",
        (4.327, 10, 20, 50, 100, 500),
        PUBLISHED,
        own=(4.327,),
        device_parameters=("dw_min", "w_max", "w_min"),
    ),
    Axis(
        "out_noise",
        "analog.nonidealities.out_noise",
        "output noise",
        "",
        "out_noise of the forward and the backward pass",
        (0, 0.03, 0.06, 0.12, 0.24),
        PUBLISHED,
        own=(0.06,),
    ),
    Axis(
        "io_bits",
        "analog.nonidealities.io_bits",
        "I/O resolution",
        "bits",
        "inp_res = out_res = 1 / (2^bits - 2), forward and backward (aihwkit: 7 in, 9 out)",
        (4, 5, 6, 7, 8, 9),
        PUBLISHED,
        own=(7, 9),
    ),
    Axis(
        "w_max_dtod",
        "analog.device.w_max_dtod",
        "upper bound device-to-device variability",
        "w_max",
        "w_max_dtod: spread of w_max over the devices, relative to w_max",
        (0, 0.1, 0.2, 0.4295, 0.6),
        PUBLISHED,
        own=(0.4295,),
        device_parameters=("w_max_dtod",),
    ),
    Axis(
        "w_min_dtod",
        "analog.device.w_min_dtod",
        "lower bound device-to-device variability",
        "w_min",
        "w_min_dtod: spread of w_min over the devices, relative to w_min",
        (0, 0.1, 0.3, 0.599, 0.8),
        PUBLISHED,
        own=(0.599,),
        device_parameters=("w_min_dtod",),
    ),
    Axis(
        "lr",
        "finetune.lr",
        "learning rate",
        "",
        "finetune.lr of every arm",
        (0.001, 0.003, 0.01, 0.03, 0.1),
        f"{PAPER}, Table I",
        published=(0.01,),
        analog_only=False,
    ),
)

AXES: dict[str, Axis] = {axis.name: axis for axis in _AXES}


def key_of(name: str) -> str:
    """The dotted key that an axis name stands for; a dotted key stands for itself."""
    return AXES[name].key if name in AXES else name


def label_of(name: str) -> str:
    """The label of an axis on a figure; a dotted key is its own label."""
    return AXES[name].label if name in AXES else name


def analog_only(name: str) -> bool:
    """Whether an axis leaves the digital arms as they are."""
    if name in AXES:
        return AXES[name].analog_only
    return name.split(".", 1)[0] in ("analog", "convert")
