"""Which sandbox there is on this system, and what to do where there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache

from bertlearn.grading.errors import SandboxError
from bertlearn.grading.worker import landlock

__all__ = ["KINDS", "NO_SANDBOX", "bubblewrap_problem", "choose", "landlock_problem"]

KINDS = ("auto", "none", "landlock", "bwrap")
NO_SANDBOX = "no sandbox: grade only work you trust"


def choose(wanted: str = "auto") -> str:
    """The sandbox to use.

    Args:
        wanted: "landlock" or "bwrap": this one; "none"; "auto": the first of these that there is.

    Returns:
        "landlock", "bwrap" or "none".

    Raises:
        SandboxError: if one is wanted that is not there; says what to do.
    """
    if wanted not in KINDS:
        raise SandboxError(f"there is no sandbox {wanted!r}: choose one of {', '.join(KINDS)}")
    problems: dict[str, Callable[[], str]] = {
        "landlock": landlock_problem,
        "bwrap": bubblewrap_problem,
    }
    if wanted == "auto":
        return next((kind for kind, problem in problems.items() if not problem()), "none")
    if wanted != "none" and (problem := problems[wanted]()):
        raise SandboxError(problem)
    return wanted


def landlock_problem() -> str:
    """Why Landlock cannot be used and what to do; "" if it can."""
    if landlock.version():
        return ""
    if not sys.platform.startswith("linux"):
        return "Landlock is a part of Linux: grade in a Linux container, or with --sandbox none"
    return (
        "this kernel has no Landlock: it needs Linux 5.13 or later with landlock among the "
        "security modules (boot option lsm=landlock,...); or install bubblewrap and use "
        "--sandbox bwrap"
    )


@cache
def bubblewrap_problem() -> str:
    """Why bubblewrap cannot be used and what to do; "" if it can."""
    if not sys.platform.startswith("linux"):
        return "bubblewrap is for Linux: grade in a Linux container, or with --sandbox none"
    program = shutil.which("bwrap")
    if program is None:
        return (
            "bubblewrap is not installed: apt install bubblewrap (Debian, Ubuntu), "
            "dnf install bubblewrap (Fedora), or use --sandbox landlock"
        )
    tried = subprocess.run(
        [program, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if tried.returncode == 0:
        return ""
    said = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
    return (
        f"bubblewrap is installed but may not make namespaces ({said}): allow user namespaces "
        f"(sysctl kernel.unprivileged_userns_clone=1 on Debian, "
        f"kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu; in a container, its seccomp "
        f"profile), or use --sandbox landlock"
    )
