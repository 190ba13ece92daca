"""`analogtl fit`: tables in, device files out; devices of known parameters are found again."""

import numpy as np
import pandas as pd
import pytest
from command_line import call

from analogtl.config.device_file import read_device
from analogtl.errors import ExperimentError
from analogtl.fitting.choose import fit_pulses
from analogtl.fitting.pulses import read_pulses
from analogtl.fitting.tables import read_table

TOP, BOTTOM, STEP = 1.0, -0.9, 0.05


def soft(w, sign):
    return STEP * (1 - w / TOP) if sign > 0 else -0.8 * STEP * (1 - w / BOTTOM)


def constant(w, sign):
    return STEP if sign > 0 else -0.8 * STEP


def power(w, sign):
    left = (TOP - w if sign > 0 else w - BOTTOM) / (TOP - BOTTOM)
    return sign * 1.5 * STEP * left**2


def table(step, *, devices=4, cycles=3, pulses=60, noise=0.3, read=0.01, seed=0):
    """Readings of simulated devices: ramps up and down, a row each."""
    random, rows = np.random.default_rng(seed), []
    for device in range(devices):
        scale, w = np.exp(0.1 * random.standard_normal()), BOTTOM
        for cycle in range(cycles):
            for sign in (1, -1):
                for pulse in range(1, pulses + 1):
                    w += scale * step(w, sign) * (1 + noise * random.standard_normal())
                    w = min(max(w, BOTTOM), TOP)
                    direction = "up" if sign > 0 else "down"
                    reading = w + read * random.standard_normal()
                    rows.append((f"d{device}", cycle, pulse, direction, reading))
    return pd.DataFrame(rows, columns=["device", "cycle", "pulse", "direction", "conductance"])


def written(frame, file, scale=1.0, offset=0.0, **options):
    frame.assign(conductance=offset + scale * frame["conductance"]).to_csv(
        file, index=False, **options
    )
    return file


@pytest.mark.parametrize(
    ("step", "device_class", "size"),
    [
        (soft, "SoftBoundsReferenceDevice", {"devices": 3, "pulses": 40}),
        (constant, "ConstantStepDevice", {"devices": 3, "pulses": 40}),
        (power, "PowStepDevice", {"devices": 6, "pulses": 80, "noise": 0.1}),
    ],
)
def test_the_class_that_the_devices_have_is_chosen(tmp_path, step, device_class, size):
    file = written(table(step, **size), tmp_path / "p.csv")
    result = fit_pulses(read_pulses(file))
    assert result.device_class == device_class
    assert device_class not in result.ties
    assert ("symmetry_point" in result.population.quantities) == (step is not constant)


def test_soft_bounds_are_found_again(tmp_path):
    file = written(table(soft, devices=8), tmp_path / "p.csv")
    population = fit_pulses(read_pulses(file), "SoftBoundsReferenceDevice").population
    truth = {"w_max": TOP, "w_min": BOTTOM, "dw_min": STEP, "dw_min_dtod": 0.1, "dw_min_std": 0.3}
    for name, value in truth.items():
        low, high = population.intervals[name]
        near = abs(population.parameters[name] - value) <= 0.1 * abs(value)
        assert near or low <= value <= high, name
    # The noise of readings is told in steps, which differ from device to device.
    relative = {
        name: np.ptp(population.intervals[name]) / population.parameters[name]
        for name in ("write_noise_std", "dw_min")
    }
    assert relative["write_noise_std"] >= relative["dw_min"]


def test_a_hard_bound_that_a_device_does_not_reach_says_nothing_of_it(tmp_path):
    frame = table(constant, devices=3, pulses=60, noise=0.1, read=0.001)
    short = table(constant, devices=1, pulses=20, noise=0.1, read=0.001).assign(device="short")
    file = written(pd.concat([frame, short]), tmp_path / "p.csv")
    parameters = fit_pulses(read_pulses(file), "ConstantStepDevice").population.parameters
    assert parameters["w_max"] == pytest.approx(TOP, abs=0.02)
    assert parameters["w_max_dtod"] < 0.02


def test_bounds_stay_near_the_readings(tmp_path):
    """Short ramps whose steps hardly change say nothing of the bounds."""
    result = fit_pulses(
        read_pulses(written(table(constant, devices=2, pulses=25), tmp_path / "p.csv"))
    )
    readings = np.concatenate([trace.weights for trace in result.pulses.traces])
    assert result.population.parameters["w_max"] < readings.max() + 0.1 * np.ptp(readings)


def test_the_unit_of_the_conductance_does_not_matter(tmp_path):
    siemens, micro = (
        fit_pulses(
            read_pulses(written(table(soft, devices=2), tmp_path / f"{i}.csv", scale, 3 * scale)),
            "SoftBoundsReferenceDevice",
        ).population.parameters
        for i, scale in enumerate((1e-6, 1.0))
    )
    assert {k: pytest.approx(v, rel=1e-3, abs=1e-3) for k, v in siemens.items()} == micro


def two_columns(frame):
    ways = frame.groupby("direction")["conductance"]
    return pd.DataFrame({way: ways.get_group(way).to_list() for way in ("up", "down")})


def lab_sheet(frame):
    voltage = frame["direction"].map({"up": 1.5, "down": -1.2})
    columns = {"G (uS)": frame["conductance"], "write voltage (V)": voltage}
    return pd.DataFrame(columns | {"pulse number": frame["pulse"]})


def column_each(frame):
    voltage = frame["direction"].map({"up": 1.5, "down": -1.2})
    return pd.DataFrame({"voltage": voltage, "width (ns)": 100, "cell A": frame["conductance"]})


@pytest.mark.parametrize("layout", [two_columns, lab_sheet, column_each])
@pytest.mark.parametrize(
    "options", [{}, {"sep": ";", "decimal": ","}, {"sep": "\t"}], ids=["comma", "semicolon", "tab"]
)
def test_layouts_say_the_same(tmp_path, layout, options):
    frame = table(soft, devices=1, cycles=1).round(5)
    frame["conductance"] += 2
    layout(frame).to_csv(tmp_path / "p.csv", index=False, **options)
    found, _ = read_table(tmp_path / "p.csv")
    assert found["conductance"].to_list() == pytest.approx(frame["conductance"].to_list())
    assert found["sign"].to_list() == frame["direction"].map({"up": 1, "down": -1}).to_list()


def test_spreadsheet(tmp_path):
    pytest.importorskip("openpyxl")
    frame = table(soft, devices=1, cycles=1)
    frame.to_excel(tmp_path / "p.xlsx", index=False)
    found, _ = read_table(tmp_path / "p.xlsx")
    assert found["conductance"].to_list() == pytest.approx(frame["conductance"].to_list())


def mixed(frame):
    scale = np.where(frame["device"] == "d0", 1e-6, 1.0)
    return frame.assign(conductance=scale * (frame["conductance"] + 3))


BAD = {
    "constant": lambda f: f.assign(conductance=1.0),
    "direction": lambda f: f[f["direction"] == "up"],
    "finite": lambda f: f.assign(conductance=f["conductance"].where(f.index != 7)),
    "units": mixed,
    "drift": lambda f: f.assign(conductance=np.arange(1.0, len(f) + 1)),
    "expected": lambda f: f.drop(columns="direction"),
    "sort": lambda f: f.sample(frac=1, random_state=0),
}


@pytest.mark.parametrize("word", BAD)
def test_bad_tables_are_refused(tmp_path, word):
    file = tmp_path / "p.csv"
    BAD[word](table(soft, devices=2)).to_csv(file, index=False)
    with pytest.raises(ExperimentError) as caught:
        read_pulses(file)
    assert all(line.startswith(str(file)) and word in line for line in caught.value.problems)


def test_command_writes_both_files_or_none(tmp_path, capsys):
    file = written(table(soft, devices=2), tmp_path / "p.csv")
    command = ["fit", str(file), "--model", "SoftBoundsReferenceDevice"]
    (tmp_path / "p.svg").write_text("mine")
    assert call(capsys, *command).code == 2
    assert not (tmp_path / "p.toml").exists()
    assert call(capsys, *command, "--force").code == 0
    device = read_device(tmp_path / "p.toml")
    assert device.device_class == "SoftBoundsReferenceDevice"
    assert device.fit["ties"] == []
    assert "<svg" in (tmp_path / "p.svg").read_text()


def test_problems_after_the_fit_name_the_file(tmp_path, capsys):
    file = written(table(soft, devices=2), tmp_path / "p.csv", 1.0, 3.0)
    result = call(capsys, "fit", str(file), "--g-min", "-100", "--g-max", "-90")
    assert result.code == 2
    assert str(file) in result.err
    assert [*tmp_path.iterdir()] == [file]
