"""What can be asked of arrays after training: times, and aihwkit's models of what happens.

Names of models and of their parameters are aihwkit's. Nothing here imports aihwkit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from analogtl.config.parameters import Problem, is_number
from analogtl.errors import did_you_mean

UNITS = {
    "s": 1,
    "second": 1,
    "min": 60,
    "minute": 60,
    "h": 3600,
    "hour": 3600,
    "d": 86_400,
    "day": 86_400,
    "week": 7 * 86_400,
    "month": 30 * 86_400,
    "year": 365 * 86_400,
}
"""Seconds in a unit of time."""
OF_DEVICE = "device"
_PAIR = ("g_max", "t_read", "t_0", "read_noise_scale", "drift_scale")
NOISE_MODELS: dict[str, tuple[str, ...]] = {
    OF_DEVICE: (),
    "PCMLikeNoiseModel": _PAIR,
    "CustomDriftPCMLikeNoiseModel": ("custom_drift_model", *_PAIR),
    "ReRamWan2022NoiseModel": ("coeff_dic", "g_max", "noise_scale", "coeff_g_max_reference"),
    "ReRamCMONoiseModel": (
        *("g_max", "g_min", "read_noise_scale", "drift_scale", "decay_dict", "read_dict"),
    ),
    "StateIndependentNoiseModel": ("drift_nu_mean", "drift_nu_std", *_PAIR),
}
"""Model -> the parameters of it that can be given: nothing is programmed anew."""
WAN_TIMES = (1.0, 86_400.0, 172_800.0)  # of ReRamWan2022NoiseModel, unless coeff_dic has others


def seconds(value: Any) -> Any:
    """The seconds that ``"1 day"`` or a number stands for; what is neither, as it is."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*([a-z]*)\s*", value.lower())
    unit = found[2] if found else ""
    factor = UNITS.get(unit or "s") or UNITS.get(unit.removesuffix("s"))
    if found is None or factor is None:
        return value
    try:
        return float(found[1]) * factor
    except ValueError:
        return value


def time_text(time: float) -> str:
    """A time in the largest unit that it is a whole number of, or at least one: ``30 d``."""
    units = {"y": 365 * 86_400, "d": 86_400, "h": 3600, "min": 60, "s": 1}
    if not time:
        return "0"
    whole = [unit for unit, size in units.items() if time >= size and time % size == 0]
    unit = (whole or [unit for unit, size in units.items() if time >= size] or ["s"])[0]
    return f"{time / units[unit]:.3g} {unit}"


def retention_problems(
    times: Sequence[float], model: str, parameters: Mapping[str, Any], batch_s: float | None
) -> Iterator[Problem]:
    """Find what does not fit in [evaluate]."""
    known = NOISE_MODELS[model]
    for name in parameters:
        if name not in known:
            hint = did_you_mean(name, known) or f"{model} has none"
            yield f"parameters.{name}", f"no parameter of {model} that can be given; {hint}"
    if model != OF_DEVICE and batch_s is not None:
        yield "batch_s", f'only noise_model = "{OF_DEVICE}" has a use for it; remove it'
    if model == "CustomDriftPCMLikeNoiseModel" and "custom_drift_model" not in parameters:
        wanted = "{ g_lst = [...], nu_mean_lst = [...], nu_std_lst = [...] }"
        yield "parameters.custom_drift_model", f"missing; expected {wanted}"
    if model == "ReRamWan2022NoiseModel":
        table = parameters.get("coeff_dic")
        own = map(seconds, table) if isinstance(table, Mapping) else WAN_TIMES
        measured = [0.0, *(float(one) for one in own if is_number(one))]
        if odd := [f"{time:g}" for time in times if time not in measured]:
            there = ", ".join(f"{time:g}" for time in measured)
            yield "times", f"{model} knows what was measured, {there} s; got {', '.join(odd)}"
