"""Proves that the repository is what it says: nothing in it that does not belong there, its
dependencies declared, imports that run one way, documents that name only commands that exist, and
a Makefile that explains itself when a machine lacks something.

    pytest tests/test_repository.py
"""

from __future__ import annotations

import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement

from bertlearn import checks

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bertlearn"
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "book/howto.md", "book/intro.md")

# Distributions whose import name is another one.
IMPORT_NAMES = {"ipython": "IPython", "pillow": "PIL", "scikit-learn": "sklearn"}
# Data only: found by name, never imported.
DATA_ONLY = {"paperang-p2-fonts-cjk"}
# The worker's own folder is on its path under this name.
OWN = {"bertlearn", "bertlearn_worker"}


@functools.cache
def tracked() -> list[str]:
    """Paths of all files in the repository, as git has them."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-c", "core.quotepath=off", "ls-files", "-z"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [name for name in out.split("\0") if name and (ROOT / name).is_file()]


def text_files() -> Iterator[tuple[str, str]]:
    """Name and text of each tracked file that is text."""
    for name in tracked():
        try:
            yield name, (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


# ---------------------------------------------------------------- what does not belong here

# Spelled in pieces, so that this file does not contain what it looks for.
FORBIDDEN = {
    "the host of a package index": [r"\bpypi\." + r"org", r"pythonhosted\." + r"org",
                                    r"registry\.npmjs\." + r"org", r"deb\.debian\." + r"org",
                                    r"download\.pytorch\." + r"org"],
    "a path of one machine": [r"(?<![\w.])/wo" + r"rk/", r"/ro" + r"ot/",
                              r"\.\./sha" + r"red\b",
                              r"/home/\w+/", r"/Users/\w+/"],
    "how it was made": [r"\bcla" + r"ude\b", r"\banthro" + r"pic\b", r"\bchat" + r"gpt\b",
                        r"\bcopi" + r"lot\b", r"as an " + r"ai\b", r"\bai[- ]generated\b",
                        r"\bBRI" + r"EF\.md", r"\bDESI" + r"GN\.md", r"\bTO" + r"DO\b",
                        r"\bFIX" + r"ME\b"],
}  # fmt: skip
PICTURE = re.compile(r'"image/png": "[^"]*"')


def forbidden_in(text: str) -> Iterator[str]:
    """What of the above a text contains."""
    for what, patterns in FORBIDDEN.items():
        for pattern in patterns:
            flags = 0 if "TO" in pattern or "FIX" in pattern else re.IGNORECASE
            if match := re.search(pattern, text, flags):
                yield f"{what}: {match.group()!r}"


def test_nothing_that_does_not_belong_here() -> None:
    """No index's host, no path of a machine, no note to oneself in any tracked file."""
    found = [
        f"{name}: {what}"
        for name, text in text_files()
        for what in forbidden_in(PICTURE.sub("", text))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "see https://py" + "pi.org/x",
        "cd /ro" + "ot/book",
        "the file ../sha" + "red/x",
        "# TO" + "DO x",
    ],
)
def test_what_does_not_belong_is_found(text: str) -> None:
    """The patterns match what they are for."""
    assert list(forbidden_in(text))


def test_no_large_and_no_built_files() -> None:
    """Nothing over 5 MB but the shipped models' weights, and nothing that the build or a learner
    makes."""
    large = [name for name in tracked() if (ROOT / name).stat().st_size > 5_000_000]
    assert all(re.fullmatch(r"bertlearn/models/[\w-]+/model\.safetensors", n) for n in large)
    made = ("build/", "my/", ".venv", "dist/")
    assert not [n for n in tracked() if n.startswith(made) or n.endswith((".pyc", ".mo"))]


# ---------------------------------------------------------------- dependencies


def project() -> dict:
    """pyproject.toml's [project]."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def imports_of(path: Path) -> set[str]:
    """Full names of all modules that a file imports anywhere."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_dependencies_are_what_is_imported() -> None:
    """Each declared dependency is imported somewhere, and each import is declared."""
    declared = {Requirement(text).name for text in project()["dependencies"]}
    optional = {Requirement(t).name for e in project()["optional-dependencies"].values() for t in e}
    imported = {name.split(".")[0] for path in PACKAGE.rglob("*.py") for name in imports_of(path)}
    imported -= sys.stdlib_module_names | OWN
    as_imported = {IMPORT_NAMES.get(name, name) for name in declared - DATA_ONLY}
    assert as_imported - imported == set(), "declared, but never imported"
    assert imported - as_imported - optional == set(), "imported, but not declared"


def pins(name: str) -> dict[str, str]:
    """The exact versions that a requirements file asks for."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line.split("#")[0]) for line in lines if line and line[0] not in "#-"]
    for requirement in wanted:
        assert [s.operator for s in requirement.specifier] == ["=="], f"{name}: {requirement}"
    return {r.name.lower().replace("_", "-"): next(iter(r.specifier)).version for r in wanted}


def test_pins_agree() -> None:
    """Whatever is pinned twice is pinned alike, and lies in the range that the package allows."""
    constraints = pins("constraints.txt")
    requirements = pins("requirements.txt")
    for name, version in (requirements | pins("requirements-dev.txt")).items():
        assert constraints.get(name) == version, f"{name}: constraints.txt differs: make pins"
    for text in project()["dependencies"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(requirements[requirement.name.lower()]), text
    assert not [v for v in constraints.values() if "+" in v], "a local build cannot be installed"


def test_package_data_is_installed() -> None:
    """Every file in the package that is not Python matches a pattern of pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["bertlearn"]
    for name in tracked():
        path = PurePosixPath(name)
        if path.parts[0] != "bertlearn" or path.suffix == ".py":
            continue
        inside = path.relative_to("bertlearn")
        matched = any(inside.match(p.removeprefix("**/")) for p in patterns)
        assert matched, f"pip install would leave out {name}"


# ---------------------------------------------------------------- imports

TOP_FLOOR = ("config", "tokenization", "embeddings", "attention", "encoder", "model", "accounting")
SERVING = ("checks", "grading", "engine", "plots", "cli", "doctor", "data", "progress")


def bertlearn_imports(path: Path) -> set[str]:
    """The parts of the package that a file imports: "attention", "checks", ..."""
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("bertlearn.")}


def test_imports_run_one_way() -> None:
    """What is taught knows nothing of what serves it, and nothing imports the command line."""
    for name in TOP_FLOOR:
        upward = bertlearn_imports(PACKAGE / f"{name}.py") & set(SERVING)
        assert not upward, f"bertlearn/{name}.py imports {upward}"
    for path in PACKAGE.rglob("*.py"):
        if path.name not in ("cli.py", "__main__.py"):
            assert "cli" not in bertlearn_imports(path), f"{path.name} imports the command line"


def test_checks_do_not_know_the_package() -> None:
    """A check never takes the package's own definitions as its oracle. A project's check is no
    exception, but it needs the package all the same, as the house that the piece is put into."""
    projects = {checks.CHAPTERS[number] for number in checks.PROJECTS}
    for path in (PACKAGE / "checks").rglob("*.py"):
        if path.stem in projects:
            continue
        known = bertlearn_imports(path) - {"checks", "config", "plots", "progress"}
        assert not known, f"{path.relative_to(ROOT)} imports {known}"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("bertlearn", "matplotlib tokenizers transformers nbformat nbclient IPython typer PIL"),
        ("bertlearn.cli", "torch numpy matplotlib tokenizers transformers nbformat IPython"),
    ],
)
def test_import_is_light(module: str, heavy: str) -> None:
    """Importing loads nothing that is only used later."""
    code = f"import sys, {module}; print(*(m for m in {heavy.split()} if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [], f"import {module} loads {run.stdout}"


# ---------------------------------------------------------------- documents


def make_targets() -> set[str]:
    """The targets of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


def command_names() -> set[str]:
    """All commands of `bertlearn`: "start", "data fetch", ..."""
    import typer

    from bertlearn.cli import app

    def names(command: object, prefix: str = "") -> Iterator[str]:
        for name, part in getattr(command, "commands", {}).items():
            yield f"{prefix}{name}"
            yield from names(part, f"{prefix}{name} ")

    return set(names(typer.main.get_command(app)))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_what_exists(name: str) -> None:
    """Each `make ...` and each `bertlearn ...` in the documents is a command that there is."""
    text = (ROOT / name).read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
    targets = set(re.findall(r"\bmake ([a-z][a-z-]*)", code))
    assert targets <= make_targets(), f"{name} names {targets - make_targets()}"
    for command in re.findall(r"(?<!from )\bbertlearn ([a-z]+(?: [a-z]+)?)", code):
        known = command in command_names() or command.split()[0] in command_names()
        assert known, f"{name} names `bertlearn {command}`"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_documents_link_to_what_exists(name: str) -> None:
    """Links to files of the repository lead somewhere."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"


# ---------------------------------------------------------------- the Makefile


def make(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run make, which changes nothing in the calls below."""
    command = ["make", "--no-print-directory", *arguments]
    # Called by `make test`, this make must not inherit that one's options.
    clean = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True)


def test_make_lists_its_commands() -> None:
    """`make` alone shows every command that a person would type."""
    listed = set(re.findall(r"^  make ([a-z-]+)", make().stdout, re.MULTILINE))
    wanted = {"book", "serve", "lab", "test", "lint", "notebooks", "exercises", "clean", "help"}
    assert wanted <= listed
    assert listed <= make_targets()


def fake_python(folder: Path, refuses: str, version: str) -> Path:
    """A stand-in for a Python that fails wherever its command contains a certain word."""
    path = folder / "python"
    path.write_text(
        f'#!/bin/sh\ncase "$*" in *--version*) echo "Python {version}"; exit 0;;\n'
        f"*{refuses}*) exit 1;; esac\nexit 0\n",
        encoding="utf-8",
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def bare_checkout(tmp_path: Path) -> Path:
    """What make needs, in a folder without environments."""
    for name in ("Makefile", "requirements.txt", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_make_wants_a_newer_python(bare_checkout: Path) -> None:
    """An old Python is named, and how to name another one."""
    old = fake_python(bare_checkout, refuses="version_info", version="3.10.2")
    run = make("book", f"PYTHON={old}", cwd=bare_checkout)
    assert run.returncode != 0
    assert "needs Python 3.11 or newer" in run.stderr
    assert "Python 3.10.2" in run.stderr
    assert "make book PYTHON=" in run.stderr


def test_make_wants_venv(bare_checkout: Path) -> None:
    """A Python without its venv module: what to install."""
    run = make("book", f"PYTHON={fake_python(bare_checkout, 'venv', '3.11.0')}", cwd=bare_checkout)
    assert run.returncode != 0
    assert "python3-venv" in run.stderr


def test_make_serve_wants_a_book(bare_checkout: Path) -> None:
    """Serving before building says what to do first."""
    run = make("serve", cwd=bare_checkout)
    assert run.returncode != 0
    assert "make book" in run.stderr
