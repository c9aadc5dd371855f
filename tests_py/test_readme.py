"""What the documentation shows is run: every Python block, every `make` target.

A block is a program of its own, run in an empty folder. After the comment `<!-- continued -->` on
the line above its fence, it goes on where the block before it in the same section ended.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import PATIENCE, environment

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md"), reverse=True), *sorted((ROOT / "docs").glob("*.md"))]
CONTINUED = "<!-- continued -->"
FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w-]*)")


class Program(NamedTuple):
    """A block of Python, with those that it continues."""

    name: str
    code: str


def blocks(page: Path) -> list[tuple[str, int, bool, list[str]]]:
    """Read the fenced blocks of a page: language, line, whether continued, lines."""
    found: list[tuple[str, int, bool, list[str]]] = []
    closing, previous = None, ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = FENCE.match(line)
        if closing is not None:
            if line.strip() == closing:
                closing = None
            else:
                found[-1][3].append(line)
        elif fence is not None:
            closing = fence["ticks"]
            found.append((fence["language"], number, previous == CONTINUED, []))
        elif line.startswith("#"):
            found.append(("section", number, False, []))
        if line.strip():
            previous = line.strip()
    assert closing is None, f"{page}: a block is never closed"
    return found


def programs(page: Path) -> list[Program]:
    """Put the Python blocks of a page together."""
    found: list[Program] = []
    before: str | None = None
    for language, number, continued, lines in blocks(page):
        if language == "section":
            before = None
        if language != "python":
            continue
        code = "\n".join(lines)
        indent = re.match(" *", code)
        if indent is not None and indent[0]:
            code = re.sub(f"^{indent[0]}", "", code, flags=re.MULTILINE)
        name = f"{page.relative_to(ROOT)}:{number}"
        if continued:
            assert before is not None, f"{name} continues nothing in its section"
            code = f"{before}\n{code}"
        before = code
        found.append(Program(name, code))
    return found


PROGRAMS = [program for page in PAGES for program in programs(page)]


def test_the_readme_has_examples() -> None:
    assert [program for program in PROGRAMS if program.name.startswith("README.md:")], (
        "README.md shows no ```python block: its examples are missing"
    )


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_an_example_runs(tmp_path: Path, program: Program) -> None:
    path = tmp_path / "example.py"
    path.write_text(program.code, encoding="utf-8")
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=tmp_path / "work",
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{program.name}\n{done.stderr}"


def targets(makefile: str) -> set[str]:
    """List what can be made."""
    rules = re.findall(r"^([\w.%/ -]+?)\s*:(?!=)", makefile, flags=re.MULTILINE)
    return {name for rule in rules for name in rule.split()}


def shown_targets(page: Path) -> list[tuple[str, str]]:
    """List the targets that a page tells its reader to make."""
    shown = []
    closing, language = None, ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = FENCE.match(line)
        if fence is not None:
            closing, language = (None, "") if closing else (fence["ticks"], fence["language"])
            continue
        prompt = re.match(r"\s*(?:\$ )?make (.*)", line)
        commands = re.findall(r"`make ([^`]*)`", line)
        if closing is not None:
            commands = [prompt[1]] if prompt and language in ("sh", "bash", "console", "") else []
        for command in commands:
            words = re.split(r"\s", command.split("#")[0])
            names = [word for word in words if re.match(r"\w[\w-]*$", word)]
            shown += [(f"{page.name}:{number}", name) for name in names]
    return shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_tells_to_make_can_be_made(page: Path) -> None:
    known = targets((ROOT / "Makefile").read_text(encoding="utf-8"))
    unknown = [(where, name) for where, name in shown_targets(page) if name not in known]
    assert unknown == []
