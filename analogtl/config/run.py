"""[evaluate], [run], [hardware] and [report]: what changes no trial, but what is made of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from analogtl.config.hardware import hardware_presets
from analogtl.config.parameters import Problem
from analogtl.config.retention import NOISE_MODELS, OF_DEVICE, retention_problems, seconds
from analogtl.config.section import (
    Bool,
    Int,
    NonNegative,
    Number,
    PositiveInt,
    PositiveNumber,
    Section,
    Seed,
    Text,
    checked,
)
from analogtl.errors import did_you_mean
from analogtl.vocabulary import Device as ComputeDevice


class Evaluate(Section):
    """The test error after training, of the arrays as they are when they have been left alone. It
    changes no trial: each that ends keeps its final state, which is evaluated, also later on."""

    times: tuple[Annotated[NonNegative, BeforeValidator(seconds)], ...] = ()
    """How long after training: seconds, or text such as `"1 day"` or `"10 years"`. 0: as trained.
    Empty: no evaluation."""
    noise_model: Literal[tuple(NOISE_MODELS)] = OF_DEVICE  # type: ignore[valid-type]
    """What happens to the weights meanwhile: `device` (the lifetime and diffusion of
    [analog.device], where it has any), or aihwkit's model for inference of this name, with its
    drift and read noise (the weights are those that were trained: none are programmed anew)."""
    parameters: dict[Text, Any] = {}
    """Parameters of the noise model by aihwkit's names, e.g. `{ drift_scale = 0.5 }`."""
    batch_s: PositiveNumber | None = None
    """Seconds that a mini-batch takes on the hardware: the unit of a device's lifetime and
    diffusion."""
    drift_compensation: Literal["none", "GlobalDriftCompensation", "PerColumnDriftCompensation"] = (
        "GlobalDriftCompensation"
    )
    """Digital factor that undoes the mean decay of a tile's outputs, or of each output, as aihwkit
    has it: from reads of the tile at the end of training and at each time."""
    repeats: Annotated[Int, Field(ge=1, le=1000)] = 10
    """How often everything random is drawn anew."""
    seed: Seed = 0
    """Seed of these draws, beside the trial's own."""

    def _problems(self) -> Iterable[Problem]:
        return retention_problems(self.times, self.noise_model, self.parameters, self.batch_s)

    @field_validator("times")
    @classmethod
    def _each_once(cls, times: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(times)) < len(times):
            checked([("", f"expected each time once; got {[f'{t:g} s' for t in times]}")], times)
        return times


class Run(Section):
    """Where and how trials compute; of this, only the device changes results."""

    device: ComputeDevice = ComputeDevice.AUTO
    """`auto` (CUDA where torch has it, else the CPU), `cpu` or `cuda`. Pretraining and digital arms
    follow it; arrays too with engine = "aihwkit", where aihwkit is compiled for CUDA. The fast
    engine is one for the CPU: with it, analog arms compute there."""
    threads: Annotated[Int, Field(ge=1, le=1024)] = 1
    """Threads of one trial, for arrays on the fast engine: tiles are updated beside the next
    pass, and products divided. Every number gives the same results, bit for bit."""
    save_pulses: Bool = False
    """Whether each trial that ends writes the pulses of every cell on the fast engine's arrays,
    `pulses.safetensors` (`analogtl explain csv`). A trial that is done is not run again for it."""
    save_model: Bool = False
    """Whether each trial that ends writes its weights, `weights.safetensors`, and the conductances
    of its arrays, `arrays.safetensors` (`analogtl explain models`). A trial that is done is not run
    again for it; they are made from its final state where it kept one (`evaluate.times`)."""


class Hardware(Section):
    """What the arrays, their converters and digital operations cost: from it and from what was
    counted, reports compute energy, time and wear (`analogtl explain cost`). It changes no result
    and no trial is run again for it."""

    preset: Text | None = None
    """Published constants (`analogtl list hardware`); the keys below come over them."""
    pulse_energy: PositiveNumber | None = None
    """Energy of one pulse at one cell, in J."""
    read_energy: PositiveNumber | None = None
    """Energy of one cell in one read of its array, forward, backward or of a transfer, in J."""
    adc_energy: PositiveNumber | None = None
    """Energy of one A/D conversion, in J."""
    dac_energy: PositiveNumber | None = None
    """Energy of one D/A conversion, in J."""
    digital_energy: PositiveNumber | None = None
    """Energy of one digital operation, a multiplication with its addition, in J."""
    memory_energy: PositiveNumber | None = None
    """Energy of moving a byte to or from the digital part's memory, in J; not set: not counted."""
    pulse_time: PositiveNumber | None = None
    """Time of one pulse slot, in s."""
    read_time: PositiveNumber | None = None
    """Time of one read of an array with its conversions, in s."""
    digital_rate: PositiveNumber | None = None
    """Digital operations per second; not set: no time for them."""
    parallel_arrays: PositiveNumber | None = None
    """How many arrays are at work at the same time, on average; not set: 1."""
    endurance: PositiveNumber | None = None
    """Pulses that a cell stands."""

    def _problems(self) -> Iterator[Problem]:
        known = hardware_presets()
        if self.preset is not None and self.preset not in known:
            hint = did_you_mean(self.preset, known)
            yield "preset", f"unknown hardware {self.preset!r}; {hint}"


class Report(Section):
    """How the results are judged."""

    alpha: Annotated[Number, Field(gt=0, lt=0.5)] = 0.05
    """Significance level of the tests behind critical points and findings."""
    margin: PositiveNumber | None = None
    """What counts as no harm, in the metric's unit: for the certified level, and for the findings
    of little effect. If absent 2 percentage points, 0.05 nats per token, 0.02 of a denoising
    loss."""
    metric: Literal["error", "balanced-error"] = "error"
    """What classes are judged by: the share of wrong answers, or the mean of the classes'
    own errors, in which each counts alike, however many examples it has. Learning rates and tuned
    settings are chosen by it; tables, figures, critical points and findings have it. Changes no
    trial."""
    judged_epochs: PositiveInt | None = None
    """How many of the last epochs the test error that is judged is the mean of. 5 if absent, but
    at most half of the training, and at least 1. 1: the last epoch alone."""
    track: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    """Trackers that get the numbers of each epoch, where they are installed: `tensorboard`,
    `wandb`, `mlflow`, `trackio`. They write to the run's folder `tracking`, and send nothing away
    unless their own environment variables say so. Changes no trial."""
    findings: Bool = False
    """Whether reports hold the runs to the published findings (`analogtl explain findings`)."""
