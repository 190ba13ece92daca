"""How hard and how finely to write the arrays of each layer, where the experiment does not say.

Three numbers decide whether the arrays learn, and none has a value that fits all devices, layers
and trainings:

- The *drive* of A. `reads.best_reads` tries; the smallest close to the best signal to noise.
- The *granularity*, G = auto_granularity / vectors per image. Weights move by lr / G for what a
  read finds, so that G decides how far they get, and how far noise alone takes them, in the planned
  training. Noise asks for a large G, reach for a small one. One G is taken for the whole network:
  as large as keeps noise alone within ``QUIET_WALK`` of the weights' range; smaller, where a cell
  under a steady gradient would not cross ``MIN_REACH`` of its range in ``MIN_PULSES`` pulses or
  more; but never so small that noise takes the weights further than ``MAX_WALK``.
- The *pulses of a transfer*: as many as one read can ask for.

The limits were fitted to trainings whose best granularity is known; see `analogtl explain c-ttv2`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from scipy.stats import norm

from analogtl.config.arrays import Analog
from analogtl.crossbar.reads import Reads, best_reads, reads_at
from analogtl.crossbar.rpu_config import Pulsing, build_rpu_config
from analogtl.fastsim import unsupported_reason
from analogtl.fastsim.spec import devices_of

QUIET_WALK, MAX_WALK = 0.05, 0.12  # of the range, rms
MIN_REACH, MIN_PULSES = 1.0, 12.0  # times the range; onto a cell
MIN_SNR = 0.2  # of a read: below, it is worth a warning
TYPICAL_WEIGHT = 0.1  # of a programmed network, rms, as a share of the range
MAX_TRANSFER_BL = 31


class Plan(NamedTuple):
    """The planned training.

    ``images``: images times epochs. ``lr``: the learning rate that the file gives, before the
    schedule. ``mean``, ``rms``: of the schedule, as shares of it.
    """

    images: int
    lr: float
    mean: float = 1.0
    rms: float = 1.0


class LayerSize(NamedTuple):
    """A layer's tiles: columns and rows of the largest, and the vectors that it sees per image."""

    in_size: int
    out_size: int
    vectors: int


class LayerDefaults(NamedTuple):
    """What was chosen for a layer, and what follows from it in the planned training.

    ``read_snr``: signal to noise of one read, at a correlation of 1 between input and gradient.
    ``reach``: how many times a cell under a steady gradient crosses its range. ``noise_walk``: how
    far noise alone takes the weights, rms, as a share of their range. ``noise_changed``: the share
    of the cells that noise alone changes. ``bound_by``: "noise" or "reach", whichever the
    granularity follows from, or "file".
    """

    pulsing: Pulsing
    read_snr: float
    reach: float
    noise_walk: float
    noise_changed: float
    bound_by: str

    def row(self) -> dict[str, Any]:
        """What it means for the training, as columns of ``layers.csv``."""
        return {name: value for name, value in self._asdict().items() if name != "pulsing"}


def choose(
    analog: Analog, layers: Mapping[str, LayerSize], plan: Plan
) -> dict[str, LayerDefaults] | None:
    """Choose what `analog` leaves open for every layer; None for algorithms without hidden matrix.

    The last layer is written like the others, but has no say in the granularity: it is new, and
    sees one vector an image.
    """
    config = build_rpu_config(analog)
    if not analog.algorithm.granular or unsupported_reason(config):
        return None
    training = {
        name: LayerTraining(_reads(analog, config, size), size, plan, config.device)
        for name, size in layers.items()
    }
    body = [training[name] for name in list(layers)[:-1] or layers]
    per_token, bound_by = analog.granularity, "file"
    if per_token == "auto":
        quiet, limit = (
            max(layer.finest_within(walk) for layer in body) for walk in (QUIET_WALK, MAX_WALK)
        )
        reach = median(layer.coarsest_mobile() for layer in body)
        per_token, bound_by = max(min((quiet, "noise"), (reach, "reach")), (limit, "noise"))
    return {name: layer.with_granularity(per_token, bound_by) for name, layer in training.items()}


def warnings(settings: Iterable[Analog], layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what in the devices and the settings of layers (rows of ``layers.csv``) bodes ill."""
    body = [row for row in layers[:-1] or layers if row.get("read_snr") is not None]
    deaf = [row["read_snr"] for row in body if row["read_snr"] < MIN_SNR]
    noisy = [row["noise_walk"] for row in body if row["noise_walk"] > 1.5 * QUIET_WALK]
    stuck = [row["reach"] for row in body if row["reach"] < MIN_REACH / 10]
    devices = (build_rpu_config(analog).device for analog in settings)
    found = list(dict.fromkeys(line for one in devices for line in _range_warnings(one)))
    if deaf:
        found.append(
            f"{len(deaf)} of {len(body)} layers hardly hear the gradient: a read of A has a signal "
            f"to noise of {min(deaf):.2g} to {max(deaf):.2g}; more drive, or less out_noise and a "
            "finer out_res of transfer_forward, would help"
        )
    if noisy:
        found.append(
            f"noise alone moves {len(noisy)} of {len(body)} layers by more than "
            f"{150 * QUIET_WALK:.2g} % of the weights' range, up to {100 * max(noisy):.2g} %: "
            "a longer training, or a smaller rate at its end (schedule = 'cosine'), would help"
        )
    if stuck:
        found.append(
            f"{len(stuck)} of {len(body)} layers hardly move: a steady gradient takes a cell "
            f"{100 * min(stuck):.2g} % of its range in the planned training"
        )
    return found


def _range_warnings(device: Any) -> list[str]:
    """Say that the array which holds the weights cannot hold those of one sign."""
    *_, slow = devices_of(device).values() or [None]
    low, high = getattr(slow, "w_min", -1.0), getattr(slow, "w_max", 1.0)
    if low < 0 < high:
        return []
    return [
        f"the devices hold weights from {low:g} to {high:g} only: about half of the network's "
        "weights, those of the other sign, are lost when they are programmed, and cannot be learned"
    ]


def _reads(analog: Analog, config: Any, size: LayerSize) -> Reads:
    if analog.drive == "auto" and not analog.drive_is_given:
        return best_reads(analog, size.in_size, size.out_size)
    given = config.device.fast_lr * config.update.desired_bl
    return reads_at(analog, size.in_size, size.out_size, given)


class Outlook(NamedTuple):
    """What a training brings at a granularity: see `LayerDefaults`.

    ``asked``: the pulses onto a cell that a steady gradient asks for, however long the transfers.
    """

    transfer_bl: int
    asked: float
    reach: float
    noise_walk: float
    noise_changed: float


@dataclass(frozen=True)
class LayerTraining:
    """A layer's reads in the planned training."""

    reads: Reads
    size: LayerSize
    plan: Plan
    compound: Any  # aihwkit's, as the file sets it

    def outlook(self, per_token: float | None) -> Outlook:
        """Tell what the planned training brings at a granularity per token."""
        reads, plan = self.reads, self.plan
        period = self.size.in_size * self.compound.transfer_every
        count = plan.images * self.size.vectors / period  # reads of each cell
        granularity = (per_token or 0.0) * self.size.vectors or self.compound.auto_granularity
        # What a unit of weight, read from A, adds to H. Without auto_granularity: steps of A.
        per_unit = plan.lr * (period / granularity if granularity else 1.0) / reads.step
        loudest, spread = per_unit * plan.mean * reads.loudest, per_unit * plan.rms * reads.noise
        bl = max(1, min(MAX_TRANSFER_BL, math.ceil(loudest - 1e-6)))
        asked = loudest * count
        pulses = min(loudest, bl) * count
        # H walks at random; the first passage of the threshold, one way or the other.
        walk = spread * math.sqrt(count)
        changed = min(1.0, 4 * float(norm.sf(1 / walk))) if walk > 0 else 0.0
        by_chance = count * spread * min(spread, 1.0) if walk > 1 else changed
        net = (walk if walk > 1 else math.sqrt(changed)) * reads.slow_step
        noisy = reads.slow_noise * math.sqrt(by_chance)
        eroded = TYPICAL_WEIGHT * reads.slow_range * (1 - math.exp(-reads.erosion * by_chance))
        return Outlook(
            bl,
            asked,
            pulses * reads.slow_step / reads.slow_range,
            math.hypot(net, noisy, eroded) / reads.slow_range,
            changed,
        )

    def finest_within(self, walk: float) -> float:
        """Find the smallest granularity at which noise takes the weights no further."""
        return _crossing(lambda granularity: self.outlook(granularity).noise_walk <= walk)

    def coarsest_mobile(self) -> float:
        """Find the largest granularity at which a steady gradient gets as far as it should."""

        def stuck(granularity: float) -> bool:
            asked = self.outlook(granularity).asked
            crossed = asked * self.reads.slow_step / self.reads.slow_range
            return crossed < MIN_REACH or asked < MIN_PULSES

        return _crossing(stuck)

    def with_granularity(self, per_token: float | None, bound_by: str) -> LayerDefaults:
        """Sum up what was chosen."""
        outlook = self.outlook(per_token)
        pulsing = Pulsing(
            self.reads.drive, (per_token or 0.0) * self.size.vectors, outlook.transfer_bl
        )
        return LayerDefaults(
            pulsing,
            self.reads.snr,
            outlook.reach,
            outlook.noise_walk,
            outlook.noise_changed,
            bound_by,
        )


def _crossing(is_above: Callable[[float], bool]) -> float:
    """Find where a condition that holds for all large enough numbers begins to hold."""
    low, high = math.log(1e-4), math.log(1e7)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if is_above(math.exp(middle)) else (middle, high)
    return math.exp(high)
