"""The original package's versions, each in a virtual environment of its own, and programs in it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE, Child, environment
from filelock import FileLock

FOLDER = Path(__file__).resolve().parents[1] / ".cache" / "originals"
INSTALL_PATIENCE = 300  # seconds for one virtual environment
NEW = (3, 12)  # 0.2.1 and 0.3.2 take a name from `typing` that older Pythons lack

# What is installed beside: with orjson the label of most rows is `orjson`, without it `msgpack`,
# without both `json`. 0.1.1 cannot be imported without both of them.
EXTRAS = {
    "0.1.1": ("msgpack", "orjson"),
    "0.1.5": ("msgpack",),
    "0.2.1": ("msgpack", "orjson"),
    "0.3.2": ("msgpack",),
    "0.4.1": ("msgpack", "orjson"),
}
VERSIONS = tuple(EXTRAS)

# The 0.1 line wants an event loop in the main thread, which Python no longer makes by itself. And
# it has to be the original that runs, whatever the environment puts in its way.
PRELUDE = """
import asyncio, sys
asyncio.set_event_loop(asyncio.new_event_loop())
import cachetronomy
assert cachetronomy.__file__.startswith(sys.prefix), cachetronomy.__file__
"""


@dataclass(frozen=True)
class Original:
    """One version, ready to run programs."""

    version: str
    python: Path

    @property
    def line(self) -> tuple[int, ...]:
        """Give the version as numbers, to compare."""
        return tuple(map(int, self.version.split(".")))

    @property
    def extras(self) -> tuple[str, ...]:
        """Name the serializers installed beside it."""
        return EXTRAS[self.version]

    def run(self, cwd: Path, code: str, *args: object) -> str:
        """Run a program to its end, with `cwd` (no settings file in it) current; its output."""
        done = subprocess.run(
            self._command(code, args),
            cwd=cwd,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def child(self, cwd: Path, code: str, *args: object) -> OriginalChild:
        """Start a program that answers one line of JSON to each; the caller kills it."""
        return OriginalChild(self._command(code, args), cwd)

    def _command(self, code: str, args: tuple[object, ...]) -> list[Any]:
        # Isolated: a PYTHONPATH could lead to the package under test.
        return [self.python, "-I", "-c", PRELUDE + code, *map(str, args)]


class OriginalChild(Child):
    """A process that answers one line of JSON to each, in an original's environment."""

    def __init__(self, command: list[Any], cwd: Path) -> None:
        """Start it."""
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def same(one: Any, other: Any) -> bool:
    """Compare values with their types; NaN is like NaN, -0.0 is not like 0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return repr(one) == repr(other) if isinstance(one, float) else one == other


def original(version: str) -> Original:
    """Return this version, made ready; skip the test where that is out of reach."""
    floor = NEW if version in {"0.2.1", "0.3.2"} else (3, 10)
    python, running = _interpreter(floor)
    home = FOLDER / f"{version}-py{running[0]}.{running[1]}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{home}.lock", timeout=2 * INSTALL_PATIENCE):
        _make(home, python, [f"cachetronomy=={version}", *EXTRAS[version]])
    return Original(version, _python_of(home))


def _make(home: Path, python: str, packages: list[str]) -> None:
    stamp, refusal = home / ".complete", home.with_name(home.name + ".refused")
    content = " ".join(packages)
    if stamp.exists() and stamp.read_text() == content and _version_of(str(_python_of(home))):
        return
    # One attempt per run of the suite: each takes long where nobody answers.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    if refusal.exists() and refusal.read_text() == run:
        _skip_without_registry(packages)
    shutil.rmtree(home, ignore_errors=True)
    # With our own pip: to make one in each takes longer than what it would install.
    venv = [python, "-m", "venv", "--without-pip", home]
    subprocess.run(venv, check=True, timeout=INSTALL_PATIENCE)
    pip = [sys.executable, "-m", "pip", "--python", _python_of(home)]
    pip += ["--disable-pip-version-check", "--retries=1"]
    try:
        done = subprocess.run(
            [*pip, "install", "--quiet", "--no-compile", *packages],
            capture_output=True,
            text=True,
            timeout=INSTALL_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        refusal.write_text(run)
        _skip_without_registry(packages)
    if done.returncode == 0:
        stamp.write_text(content)
    elif "Retrying (" in done.stderr or "from versions: none" in done.stderr:
        refusal.write_text(run)
        _skip_without_registry(packages)
    else:
        pytest.fail(done.stderr)


def _skip_without_registry(packages: list[str]) -> None:
    pytest.skip(f"skipped: needs the package registry, for {packages[0]}")


def _python_of(home: Path) -> Path:
    return home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _interpreter(floor: tuple[int, int]) -> tuple[str, tuple[int, int]]:
    """Find a Python that really starts: of pyenv's shims some only print an error."""
    names = [f"python3.{minor}" for minor in (14, 13, 12)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    homes = pyenv.glob("3.1[2-9]*/bin/python") if pyenv.is_dir() else ()
    newest_first = sorted(homes, key=lambda path: path.parts[-3].split("."), reverse=True)
    for python in (sys.executable, *filter(None, map(shutil.which, names)), *newest_first):
        found = _version_of(str(python))
        if found is not None and found >= floor:
            return str(python), found
    needed = ".".join(map(str, floor))
    pytest.skip(f"skipped: needs python>={needed}")


@functools.cache
def _version_of(python: str) -> tuple[int, int] | None:
    """Tell the version of an interpreter; None if it cannot make environments for all packages."""
    # Not every package here has wheels for the builds without the global lock.
    code = (
        "import sys, sysconfig, ensurepip, venv\n"
        "assert not sysconfig.get_config_var('Py_GIL_DISABLED')\n"
        "print(*sys.version_info[:2])\n"
    )
    try:
        done = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except OSError:
        return None
    major, _, minor = done.stdout.strip().partition(" ")
    return (int(major), int(minor)) if done.returncode == 0 else None
