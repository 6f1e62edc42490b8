"""What a worker can see of this machine: a copy of bertlearn without answers, and little else."""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import bertlearn
from bertlearn.grading.errors import GraderError

__all__ = ["copy_package", "hide", "library_view", "readable"]

PACKAGE = Path(bertlearn.__file__).resolve().parent

# Nothing of these is in the copy: verdicts, keys, and what a cell has no use for.
LEFT_OUT = {"checks", "grading", "cli.py", "__main__.py", "__pycache__"}

# What may be imported besides the standard library. Never transformers, never bertlearn as
# installed. Names with a star match by their beginning.
LIBRARIES = (
    *("torch", "torchgen", "functorch", "torch.libs", "nvidia", "triton", "numpy", "numpy.libs"),
    *("safetensors", "tokenizers", "tqdm", "platformdirs", "typing_extensions.py"),
    *("sympy", "mpmath", "networkx", "jinja2", "markupsafe", "filelock", "fsspec", "packaging"),
    *("matplotlib", "mpl_toolkits", "PIL", "pillow.libs", "cycler", "dateutil", "six.py"),
    *("kiwisolver", "contourpy", "pyparsing", "fontTools", "paperang_p2_fonts_cjk"),
)

STUB = '''"""While a notebook is graded the judge has the checks; here they do nothing."""


class Result:
    """No verdict."""

    ok, points, max, cases = True, 0.0, 0.0, ()


def check(*args, **kwargs):
    """Do nothing."""
    return Result()


def verify(*args, **kwargs):
    """Do nothing."""
'''

STAND_IN = """class {name}:
    def __new__(cls, *args, **kwargs):
        raise RuntimeError(
            "bertlearn.{where} is hidden while this question is graded: "
            "the task is to write it yourself"
        )
"""


def copy_package(folder: Path, hides: Iterable[str]) -> None:
    """Write the package into ``folder/bertlearn`` without checks, grading and hidden definitions.

    Raises:
        GraderError: if something is to be hidden that does not exist.
    """
    hidden: dict[str, list[str]] = {}
    for where in hides:
        module, _, name = where.partition(".")
        while not (PACKAGE / f"{module}.py").is_file() and "." in name:
            part, _, name = name.partition(".")
            module = f"{module}/{part}"
        hidden.setdefault(f"{module}.py", []).append(name)
    for source in _files(PACKAGE):
        relative = source.relative_to(PACKAGE)
        target = folder / "bertlearn" / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        names = hidden.pop(relative.as_posix(), [])
        if names:
            target.write_text(hide(source.read_text("utf-8"), names, relative.stem), "utf-8")
        elif source.suffix == ".py":
            shutil.copyfile(source, target)
        else:
            _link(source, target)
    if hidden:
        raise GraderError(f"a check hides definitions of {', '.join(hidden)}, which do not exist")
    checks = folder / "bertlearn" / "checks"
    checks.mkdir()
    (checks / "__init__.py").write_text(STUB, "utf-8")
    for name in ("core.py", "forbid.py"):  # machinery that the worker uses, too
        shutil.copyfile(PACKAGE / "checks" / name, checks / name)


def _files(folder: Path) -> list[Path]:
    found = []
    for entry in sorted(folder.iterdir()):
        if folder == PACKAGE and entry.name in LEFT_OUT or entry.name == "__pycache__":
            continue
        found += _files(entry) if entry.is_dir() else [entry]
    return found


def _link(source: Path, target: Path) -> None:
    """Data is not copied where the system has links."""
    try:
        target.symlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def hide(source: str, names: Iterable[str], module: str) -> str:
    """A module's source with some of its definitions replaced by ones that refuse.

    Args:
        names: functions, classes or constants; "Class.method" for one method.

    Raises:
        GraderError: if a name is not defined there.
    """
    tree = ast.parse(source)
    for name in names:
        *owners, last = name.split(".")
        scope = tree.body
        for owner in owners:
            classes = (s for s in scope if isinstance(s, ast.ClassDef) and s.name == owner)
            scope = next((s.body for s in classes), [])
        stand_in = ast.parse(STAND_IN.format(name=last, where=f"{module}.{name}")).body[0]
        found = [i for i, statement in enumerate(scope) if last in _defined(statement)]
        if not found:
            raise GraderError(f"a check hides {module}.{name}, which does not exist")
        for i in found:
            scope[i] = stand_in
    return ast.unparse(tree) + "\n"


def _defined(statement: ast.stmt) -> list[str]:
    """Names that a statement defines."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [statement.name]
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return [statement.target.id]
    return []


# ---- libraries --------------------------------------------------------------------------
@cache
def _libraries() -> dict[str, Path]:
    """Where each allowed library is, by the name of its file or folder."""
    found: dict[str, Path] = {}
    for entry in map(Path, sys.path):
        if entry.is_dir() and not _is_standard(entry):
            for name in LIBRARIES:
                if (entry / name).exists():
                    found.setdefault(name, (entry / name).resolve())
    return found


def _is_standard(folder: Path) -> bool:
    return str(folder) in (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))


def library_view(folder: Path) -> Path:
    """A folder that has the allowed libraries and nothing else, for ``sys.path``.

    Where the system does not let us make links it is the folder that torch is installed in: the
    list then does not hold.
    """
    for name, place in _libraries().items():
        try:
            (folder / name).symlink_to(place, target_is_directory=place.is_dir())
        except OSError:
            return _libraries()["torch"].parent
    return folder


@cache
def readable() -> tuple[str, ...]:
    """Files and folders of the system that a worker may read: the standard library without what
    is installed into it, the allowed libraries, shared objects, time zones, fonts, the data cache,
    and the package's own data."""
    found = {str(place) for place in _libraries().values()}
    for key in ("stdlib", "platstdlib"):
        found |= _entries(sysconfig.get_path(key), ("site-packages", "dist-packages"))
    for folder in _shared_objects():
        found |= _entries(folder, ("python",))
    found |= {str(file) for file in _files(PACKAGE) if file.suffix != ".py"}
    found |= {
        *("/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo", "/usr/share/fonts"),
        *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu"),
    }
    return tuple(sorted(path for path in found if os.path.exists(path)))


def _entries(folder: str, without: tuple[str, ...]) -> set[str]:
    """The folder itself, or its entries one by one where some must be left out."""
    try:
        names = os.listdir(folder)
    except OSError:
        return set()
    kept = [name for name in names if not name.startswith(without)]
    if len(kept) == len(names):
        return {folder}
    return {os.path.join(folder, name) for name in kept}


def _shared_objects() -> set[str]:
    """Folders outside the libraries from which this process has loaded shared objects."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return set()
    files = {line.split()[-1] for line in lines if ".so" in line}
    folders = {os.path.dirname(file) for file in files if file.startswith("/")}
    installed = re.compile(r"/(site|dist)-packages(/|$)")
    return {f for f in folders if not installed.search(f) and not f.startswith(str(PACKAGE))}
