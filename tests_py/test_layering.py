"""Which Python module may import what, and that importing the package does nothing else."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "python" / "cachetronomy"
MODULES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
# What needs pydantic, and the old import paths of that. All others load it late, or never.
WITH_PYDANTIC = {
    "async_store.py",
    "models.py",
    "profiles.py",
    "settings.py",
    "store.py",
    "core/store/__init__.py",
    "core/store/sqlite/asynchronous.py",
    "core/store/sqlite/synchronous.py",
    "core/types/profiles.py",
    "core/types/schemas.py",
    "core/types/settings.py",
}

# Run in a process, a folder and a home of its own. Modules are counted from before the import on:
# a site's startup files may load anything.
IMPORT = """
import asyncio, json, os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # asking for the policy is deprecated in 3.14
policy = asyncio.get_event_loop_policy()
warnings.simplefilter("error")
before = set(sys.modules)
{code}
tasks = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1
warnings.simplefilter("ignore", DeprecationWarning)
print(json.dumps({{
    "pydantic": sorted(m for m in set(sys.modules) - before if m.startswith("pydantic")),
    "threads": [threading.active_count(), tasks],
    "files": os.listdir() + os.listdir(os.path.expanduser("~")),
    "policy": asyncio.get_event_loop_policy() is policy,
}}))
"""
NOTHING = {"pydantic": [], "threads": [1, 1], "files": [], "policy": True}


def imports(source: str) -> set[str]:
    """Collect what a module imports as soon as it is imported itself."""
    found = set()
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            todo += ast.iter_child_nodes(node)
    return found


def top_level(names: set[str]) -> set[str]:
    """Reduce dotted names to their first part."""
    return {name.split(".")[0] for name in names}


def what_importing_does(tmp_path: Path, code: str) -> object:
    """Import in a process of its own, and look around there."""
    (tmp_path / "cwd").mkdir()
    (tmp_path / "home").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", IMPORT.format(code=code)],
        cwd=tmp_path / "cwd",
        env=os.environ | dict.fromkeys(["HOME", "USERPROFILE"], str(tmp_path / "home")),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_all_modules_are_looked_at():
    assert {"__init__.py", "client.py", "exceptions.py", "core/__init__.py"} <= MODULES.keys()
    assert MODULES.keys() >= WITH_PYDANTIC


def test_the_exceptions_import_nothing():
    source = (PACKAGE / "exceptions.py").read_text(encoding="utf-8")
    assert top_level(imports(source)) == {"__future__"}


@pytest.mark.parametrize("module", sorted(MODULES.keys() - WITH_PYDANTIC))
def test_other_modules_do_not_import_pydantic(module):
    found = imports(MODULES[module].read_text(encoding="utf-8"))
    assert not top_level(found) & {"pydantic", "pydantic_settings", "yaml"}
    for name in WITH_PYDANTIC:
        dotted = "cachetronomy." + name.removesuffix(".py").replace("/", ".")
        assert dotted.removesuffix(".__init__") not in found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import pydantic.fields", {"pydantic.fields"}),
        ("from cachetronomy import models", {"cachetronomy", "cachetronomy.models"}),
        ("from . import models", {".", "..models"}),
        ("try:\n    import a\nexcept ImportError:\n    import b", {"a", "b"}),
        ("class A:\n    import a", {"a"}),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import b", {"b"}),
        ("def f():\n    import a", set()),
        ("async def f():\n    import a", set()),
    ],
)
def test_imports_are_found(source, found):
    assert imports(source) == found


def test_importing_the_package_has_no_side_effects(tmp_path):
    assert what_importing_does(tmp_path, "import cachetronomy") == NOTHING


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import pydantic", "pydantic"),
        ("threading.Thread(target=threading.Event().wait, daemon=True).start()", "threads"),
        ("open('file', 'w').close()", "files"),
        ("asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())", "policy"),
    ],
)
def test_side_effects_would_be_noticed(tmp_path, code, what):
    code = f"warnings.simplefilter('ignore'); {code}"
    found = what_importing_does(tmp_path, code)
    assert found[what] != NOTHING[what]
