"""Whether this machine can run analogtl, and what to do where it cannot.

aihwkit's wheels are compiled against one torch release. With another one it imports, and then fails
at the first tile; so the check that counts runs a tile, in a process of its own, where a crash is
only another answer. Nothing here imports torch.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from analogtl import __version__
from analogtl.errors import ExperimentError

Status = Literal["ok", "note", "bad"]

PAIRS = {  # aihwkit -> the torch and torchvision that its wheel was compiled against
    "1.1.0": ("2.10.0", "0.25.0"),
    "1.2.0": ("2.14.1", "0.29.1"),
}
PYTHONS = ((3, 11), (3, 13))  # oldest and newest
PROBE_SECONDS = 180.0
LEAST_DISK = 2e9  # bytes
LEAST_MEMORY = 2e9  # bytes; the small networks need about one


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report.

    Attributes:
        name: What was looked at.
        status: ``ok``, ``note`` (works, but worth knowing) or ``bad``.
        found: What was found.
        advice: What to do about it; "" if there is nothing to do.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


def is_mismatch(error: BaseException) -> bool:
    """Whether an error is what a wrong pair of torch and aihwkit ends in."""
    return looks_like_mismatch(f"{type(error).__name__}: {error}")


def looks_like_mismatch(message: str) -> bool:
    """Whether a message is what a wrong pair of torch and aihwkit ends in."""
    signs = ("undefined symbol", "Invalid weights dimensions", "rpu_base")
    no_module = "No module named 'aihwkit" in message or "No module named 'torch" in message
    return no_module or any(sign in message for sign in signs)


def diagnose(runs: Path) -> Iterator[Check]:
    """Look at everything that a run depends on.

    Args:
        runs: Folder of the run directories, for the disk.
    """
    yield from _python()
    yield from _packages()
    facts, end = probe()
    yield from _compute(facts, end)
    yield from _memory()
    yield from _data()
    yield _disk(runs)
    yield from _extras()


def _python() -> Iterator[Check]:
    version = sys.version.split()[0]
    (low, high), here = PYTHONS, sys.version_info[:2]
    fits = low <= here <= high
    advice = "" if fits else f"analogtl needs Python {_dotted(low)} to {_dotted(high)}"
    yield Check("python", "ok" if fits else "bad", f"{version} ({sys.executable})", advice)
    yield Check("analogtl", "ok", __version__)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


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
    wanted = (f"torch=={torch}", f"torchvision=={torchvision}", f"aihwkit=={aihwkit}")
    return "pip install " + " ".join(f"'{one}'" for one in wanted)


def _packages() -> Iterator[Check]:
    found = {name: installed(name) for name in ("torch", "torchvision", "aihwkit")}
    for name, version in found.items():
        if version is None:
            yield Check(name, "bad", "not installed", install_command())
        else:
            yield Check(name, "ok", version)
    if None in found.values():
        return
    torch, torchvision, aihwkit = (str(version).partition("+")[0] for version in found.values())
    pair = PAIRS.get(aihwkit)
    if pair is None:
        text = f"aihwkit {aihwkit} with torch {torch} was not tried with this analogtl"
        yield Check("pair", "note", text, f"the next line counts; known to work: {_known_pairs()}")
    elif pair != (torch, torchvision):
        text = f"aihwkit {aihwkit} is compiled against torch {pair[0]} (torchvision {pair[1]}), "
        text += f"not {torch} ({torchvision})"
        yield Check("pair", "bad", text, install_command())
    else:
        yield Check("pair", "ok", f"aihwkit {aihwkit} is compiled against torch {torch}")


def _known_pairs() -> str:
    return "; ".join(f"aihwkit {a} with torch {t}" for a, (t, _) in PAIRS.items())


# -- the probe -------------------------------------------------------------------------------------


def probe(timeout: float = PROBE_SECONDS) -> tuple[dict[str, Any], str]:
    """Import torch and aihwkit and run a tile in a process of its own.

    Returns:
        What the process found, as far as it came, and how it ended: "" if well, else why not.
    """
    command = [sys.executable, "-m", "analogtl.doctor"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return {}, f"no answer within {timeout:.0f} s"
    except OSError as error:
        return {}, f"cannot be started: {error}"
    facts: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            try:
                facts |= json.loads(line)
            except ValueError:
                continue
    if done.returncode < 0:
        try:
            name = signal.Signals(-done.returncode).name
        except ValueError:
            name = f"signal {-done.returncode}"
        return facts, f"the process crashed ({name})"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return facts, last[:300]
    return facts, ""


def _compute(facts: dict[str, Any], end: str) -> Iterator[Check]:
    if "torch" in facts:
        where = f"{facts['torch_threads']} threads, {facts['blas']}"
        yield Check("torch runs", "ok", where)
    elif installed("torch"):
        yield Check("torch runs", "bad", end or "cannot be imported", install_command())
    if "tile_s" in facts:
        text = f"a c-TTv2 tile learns ({1000 * facts['tile_s']:.0f} ms a step)"
        yield Check("aihwkit tile", "ok", text)
    elif installed("aihwkit"):
        advice = install_command() + "; torch and aihwkit have to fit, to the exact release"
        yield Check("aihwkit tile", "bad", f"fails: {end or 'no answer'}", advice)
    if "cuda" in facts:
        yield _cuda(facts)
    if "numba" in facts:
        yield Check("numba", "ok", f"{facts['numba']}: the fast engine runs")
    elif "tile_s" in facts:
        text = f"fails: {facts.get('numba_error') or end}"
        advice = "pip install 'numba>=0.61'; until then: --set analog.engine=aihwkit"
        yield Check("numba", "bad", text, advice)
    yield _threads()


def _cuda(facts: dict[str, Any]) -> Check:
    in_torch = f"torch: {'yes' if facts['cuda'] else 'no'}"
    in_aihwkit = f"aihwkit: {'yes' if facts.get('aihwkit_cuda') else 'no'}"
    advice = ""
    if facts["cuda"] and not facts.get("aihwkit_cuda"):
        advice = "aihwkit's wheels have no CUDA; analogtl computes on the CPU"
    return Check("cuda", "ok" if not advice else "note", f"{in_torch}; {in_aihwkit}", advice)


def _threads() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = os.environ.get("OMP_NUM_THREADS")
    found = f"{cores} cores" + (f", OMP_NUM_THREADS={limit}" if limit else "")
    return Check("cores", "ok", f"{found}: up to --jobs {cores}, one thread each")


# -- the machine -----------------------------------------------------------------------------------


def _memory() -> Iterator[Check]:
    free = memory_free()
    if free is None:
        return
    text = f"{free / 1e9:.1f} GB free"
    if free < LEAST_MEMORY:
        yield Check("memory", "note", text, "close something, or use --jobs 1 and small networks")
    else:
        yield Check("memory", "ok", text)


def memory_free() -> int | None:
    """Bytes of memory that new processes can use here, within a container's limit as well."""
    free = None
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free = 1024 * int(line.split()[1])
    limit, used = _text("/sys/fs/cgroup/memory.max"), _text("/sys/fs/cgroup/memory.current")
    if free is not None and limit.strip().isdigit() and used.strip().isdigit():
        free = min(free, max(0, int(limit) - int(used)))
    return free


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
            text = error.problems[0].partition(": ")[2]
            looked = text.partition(";")[0]
            advice = "analogtl downloads it when it is first used; or set ANALOGTL_DATA (or [data] "
            advice += "root) to the folder that holds it"
            yield Check(name, "note", looked, advice)


def _disk(runs: Path) -> Check:
    place = runs.absolute()
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    text = f"{usage.free / 1e9:.1f} GB free for {runs}/"
    if not os.access(place, os.W_OK):
        advice = "choose a folder that you can write to: --runs DIR"
        return Check("disk", "bad", f"{place} cannot be written", advice)
    if usage.free < LEAST_DISK:
        advice = "`analogtl runs clean` frees some; or choose another folder: --runs DIR"
        return Check("disk", "note", text, advice)
    return Check("disk", "ok", text)


def _extras() -> Iterator[Check]:
    for backend, package in (("ray", "ray"), ("slurm", "submitit")):
        version = installed(package)
        name = f"backend {backend}"
        if version:
            yield Check(name, "ok", f"{package} {version}")
        else:
            yield Check(name, "ok", f"not installed; pip install 'analogtl[{backend}]' brings it")


# -- inside the probe's process --------------------------------------------------------------------


def _tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def _run_probe() -> None:
    """Try one thing after the other, telling each as it works: what is missing is what failed."""
    import time

    import torch

    _tell(
        torch=torch.__version__,
        torch_threads=torch.get_num_threads(),
        cuda=bool(torch.cuda.is_available()),
        blas="MKL" if torch.backends.mkl.is_available() else "OpenBLAS",  # type: ignore[no-untyped-call]
    )
    from aihwkit.simulator.rpu_base import cuda

    from analogtl.config.schema import Analog
    from analogtl.crossbar.rpu_config import build_rpu_config

    _tell(aihwkit_cuda=bool(cuda.is_compiled()))
    from aihwkit.nn import AnalogLinear
    from aihwkit.optim import AnalogSGD

    layer = AnalogLinear(8, 4, rpu_config=build_rpu_config(Analog()))
    optimizer = AnalogSGD(layer.parameters(), lr=0.1)
    optimizer.regroup_param_groups(layer)
    began = time.perf_counter()
    loss = layer(torch.randn(16, 8)).square().mean()
    loss.backward()
    optimizer.step()
    weights, _ = layer.get_weights()
    if not bool(torch.isfinite(weights).all()):
        raise RuntimeError("the tile's weights are not finite after one step")
    _tell(tile_s=time.perf_counter() - began)
    try:
        import numba

        numba.njit(lambda x: x + 1)(1)
        _tell(numba=numba.__version__)
    except Exception as error:
        _tell(numba_error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    _run_probe()
