"""Whether this machine can run analogtl, and what to do where it cannot.

aihwkit's wheels are compiled against one torch release. With another one it imports, and then fails
at the first tile; so the check that counts runs a tile, in a process of its own, where a crash is
only another answer. Nothing here imports torch before that.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from analogtl.errors import ExperimentError
from analogtl.files import nearest_folder
from analogtl.study.provenance import code_version

PAIRS = {  # aihwkit -> the torch and torchvision that its wheel was compiled against
    "1.1.0": ("2.10.0", "0.25.0"),
    "1.2.0": ("2.14.1", "0.29.1"),
}
PROBE_SECONDS = 180.0
MIN_DISK = 2e9  # bytes
MIN_MEMORY = 2e9  # bytes; the small networks need about one
MISMATCH = (  # what a wrong pair of torch and aihwkit ends in
    "undefined symbol",
    "Invalid weights dimensions",
    "rpu_base",
    "No module named 'aihwkit",
    "No module named 'torch",
)


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report."""

    name: str
    status: Literal["ok", "note", "bad"]  # note: works, but worth knowing
    found: str
    advice: str = ""  # what to do about it; "" if there is nothing to do


def is_mismatch(error: BaseException | str) -> bool:
    """Whether an error, or its message, is what a wrong pair of torch and aihwkit ends in."""
    return any(sign in str(error) for sign in MISMATCH)


def diagnose(runs: Path) -> Iterator[Check]:
    """Look at everything that a run depends on; on the disk, below the folder of the runs."""
    yield Check("python", "ok", f"{sys.version.split()[0]} ({sys.executable})")
    yield Check("analogtl", "ok", code_version())
    versions = {name: installed(name) for name in ("torch", "torchvision", "aihwkit")}
    for name, version in versions.items():
        if version is None:
            yield Check(name, "bad", "not installed", install_command())
        else:
            yield Check(name, "ok", version)
    if None not in versions.values():
        yield _pair(*(str(version).partition("+")[0] for version in versions.values()))
        yield from probe()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("cores", "ok", f"{cores} cores: up to --jobs {cores}, one thread each")
    yield from _memory()
    yield from _data()
    yield _disk(runs)
    for backend, package in (("ray", "ray"), ("slurm", "submitit")):
        found = f"not installed; pip install 'analogtl[{backend}]' brings it"
        if version := installed(package):
            found = f"{package} {version}"
        yield Check(f"backend {backend}", "ok", found)


# -- packages --------------------------------------------------------------------------------------


def installed(package: str) -> str | None:
    """Version of an installed package without importing it; None if it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def install_command() -> str:
    """The command that installs a pair that works with this Python."""
    aihwkit = "1.1.0" if sys.version_info < (3, 12) else "1.2.0"
    torch, torchvision = PAIRS[aihwkit]
    return f"pip install 'torch=={torch}' 'torchvision=={torchvision}' 'aihwkit=={aihwkit}'"


def _pair(torch: str, torchvision: str, aihwkit: str) -> Check:
    pair = PAIRS.get(aihwkit)
    if pair is None:
        known = "; ".join(f"aihwkit {a} with torch {t}" for a, (t, _) in PAIRS.items())
        text = f"aihwkit {aihwkit} with torch {torch} was not tried with this analogtl"
        return Check("pair", "note", text, f"the next line counts; known to work: {known}")
    if pair == (torch, torchvision):
        return Check("pair", "ok", f"aihwkit {aihwkit} is compiled against torch {torch}")
    text = f"aihwkit {aihwkit} is compiled against torch {pair[0]} (torchvision {pair[1]}), "
    return Check("pair", "bad", f"{text}not {torch} ({torchvision})", install_command())


# -- the probe -------------------------------------------------------------------------------------


def probe(timeout: float = PROBE_SECONDS) -> Iterator[Check]:
    """Import torch and aihwkit and run a tile, in a process of its own; tell how far it came."""
    steps = {
        "torch runs": install_command(),
        "aihwkit tile": f"{install_command()}; torch and aihwkit have to fit, to the exact release",
        "cuda": "",
        "numba": "pip install 'numba>=0.61'; until then: --set analog.engine=aihwkit",
        "engine": "",
    }
    output, end = _probed(timeout)
    for line in output.splitlines():
        if line.startswith('{"name": '):
            check = Check(**json.loads(line))
            del steps[check.name]
            yield check
    if steps:
        name, advice = next(iter(steps.items()))
        yield Check(name, "bad", f"fails: {end or 'no answer'}", advice)


def _probed(timeout: float) -> tuple[str, str]:
    """The output of the probe's process, and how it ended: "" if well, else why not."""
    command = [sys.executable, "-m", "analogtl.doctor"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer within {timeout:.0f} s"
    except OSError as error:
        return "", f"cannot be started: {error}"
    if done.returncode < 0:
        known = {one.value: one.name for one in signal.Signals}
        return done.stdout, f"the process crashed ({known.get(-done.returncode, 'signal')})"
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return done.stdout, last[:300] if done.returncode else ""


def _run_probe() -> None:
    """Try one thing after the other, telling each as it works: what is missing is what failed."""

    def tell(check: Check) -> None:
        print(json.dumps(asdict(check)), flush=True)

    import torch

    blas = "MKL" if torch.backends.mkl.is_available() else "OpenBLAS"  # type: ignore[no-untyped-call]
    tell(Check("torch runs", "ok", f"{torch.get_num_threads()} threads, {blas}"))
    from aihwkit.nn import AnalogLinear
    from aihwkit.optim import AnalogSGD
    from aihwkit.simulator.rpu_base import cuda

    from analogtl.config.arrays import Analog
    from analogtl.crossbar.rpu_config import build_rpu_config

    def learn(rpu_config: Any, size: int = 8, steps: int = 1) -> float:
        """Train a layer; the seconds of its quickest step."""
        layer = AnalogLinear(size, size, rpu_config=rpu_config)
        optimizer = AnalogSGD(layer.parameters(), lr=0.1)
        optimizer.regroup_param_groups(layer)
        times = []
        for _ in range(steps):
            began = time.thread_time()  # whatever else is at work here
            loss = layer(torch.randn(64, size)).square().mean()
            loss.backward()
            optimizer.step()
            times.append(time.thread_time() - began)
        weights, _ = layer.get_weights()
        if not bool(torch.isfinite(weights).all()):
            raise RuntimeError("the tile's weights are not finite after one step")
        return min(times[-3:])

    config = build_rpu_config(Analog())
    took = 1000 * learn(config)
    tell(Check("aihwkit tile", "ok", f"a c-TTv2 tile learns ({took:.0f} ms a step)"))
    there, here = bool(torch.cuda.is_available()), bool(cuda.is_compiled())
    advice = ""
    if there:
        arrays = "on the CPU, as this aihwkit has no CUDA (conda-forge's aihwkit-gpu has)"
        if here:
            arrays = "too, with --set analog.engine=aihwkit"
        advice = f"pretraining and digital arms use it; arrays {arrays}; --device cpu: nothing does"
    found = f"torch: {'yes' if there else 'no'}; aihwkit: {'yes' if here else 'no'}"
    tell(Check("cuda", "note" if advice else "ok", found, advice))
    import numba

    heard = _Heard()
    logging.getLogger("analogtl").addHandler(heard)
    from analogtl.fastsim import fast_rpu_config
    from analogtl.fastsim.streams import fill_normals

    learn(fast_rpu_config(config, seed=1))
    kept = fill_normals.stats.cache_path
    found = f"{numba.__version__}: a tile of the fast engine learns; its machine code "
    found += f"is kept in {kept}" if kept else "is not kept"
    tell(Check("numba", "note" if heard.lines else "ok", found, "; ".join(heard.lines)))
    torch.set_num_threads(1)
    # The fast engine is at full work once each column was read.
    stock, fast = (
        1000 * learn(one, size=128, steps=6) for one in (config, fast_rpu_config(config, seed=1))
    )
    fits = "fast" if fast <= stock else "aihwkit"
    found = f"{fits}: a step on 128 x 128 cells takes {fast:.1f} ms on fast, {stock:.1f} on aihwkit"
    tell(Check("engine", "ok", found))


class _Heard(logging.Handler):
    """What the package's modules have to say, a line each."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


# -- the machine -----------------------------------------------------------------------------------


def _memory() -> Iterator[Check]:
    """The memory that new processes can use here, within a container's limit as well."""
    lines = dict(line.split(":", 1) for line in _text("/proc/meminfo").splitlines())
    if "MemAvailable" not in lines:
        return
    free = 1024 * int(lines["MemAvailable"].split()[0])
    limit, used = _text("/sys/fs/cgroup/memory.max"), _text("/sys/fs/cgroup/memory.current")
    if limit.strip().isdigit() and used.strip().isdigit():
        free = min(free, max(0, int(limit) - int(used)))
    advice = "close something, or use --jobs 1 and small networks" if free < MIN_MEMORY else ""
    yield Check("memory", "note" if advice else "ok", f"{free / 1e9:.1f} GB free", advice)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _data() -> Iterator[Check]:
    from analogtl.tasks import sources

    yield Check("digits", "ok", "bundled with scikit-learn")
    for name in ("cifar10", "cifar100"):
        try:
            yield Check(name, "ok", str(sources.locate(name, None, download=False)))
        except ExperimentError as error:
            looked = error.problems[0].partition(": ")[2].partition(";")[0]
            advice = "analogtl downloads it when it is first used; or set ANALOGTL_DATA (or [data] "
            yield Check(name, "note", looked, f"{advice}root) to the folder that holds it")


def _disk(runs: Path) -> Check:
    place = nearest_folder(runs)
    free = shutil.disk_usage(place).free
    text = f"{free / 1e9:.1f} GB free for {runs}/"
    if not os.access(place, os.W_OK):
        advice = "choose a folder that you can write to: --runs DIR"
        return Check("disk", "bad", f"{place} cannot be written", advice)
    if free < MIN_DISK:
        advice = "`analogtl runs clean` frees some; or choose another folder: --runs DIR"
        return Check("disk", "note", text, advice)
    return Check("disk", "ok", text)


if __name__ == "__main__":
    _run_probe()
