"""What default keys are made of: the whole value of an argument, not what its repr shows of it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pydantic
import pytest
from cachetronomy import Cachetronaut, StoreBusyError


@dataclass
class Account:
    number: int
    secret: str = field(repr=False)


class Model(pydantic.BaseModel):
    number: int
    secret: str = pydantic.Field(repr=False)


class Pair(NamedTuple):
    number: int
    secret: str


@pytest.mark.parametrize(
    "make", [Account, lambda n, s: Model(number=n, secret=s), Pair, lambda n, s: [Account(n, s)]]
)
def test_fields_that_the_repr_leaves_out_tell_calls_apart(cache: Cachetronaut, make: Any) -> None:
    @cache
    def read(value):
        return (value[0] if isinstance(value, list) else value).secret

    assert read(make(1, "a")) == "a"
    assert read(make(1, "b")) == "b"
    assert read.key_for(make(1, "a")) == read.key_for(make(1, "a"))


def test_a_named_tuple_is_not_the_tuple_it_equals(cache: Cachetronaut) -> None:
    @cache
    def kind(value):
        return type(value).__name__

    assert [kind(Pair(1, "a")), kind((1, "a"))] == ["Pair", "tuple"]


def test_arrays_are_told_apart_by_every_byte(cache: Cachetronaut) -> None:
    numpy = pytest.importorskip("numpy")

    @cache
    def total(array):
        return float(array.sum())

    zeros = numpy.zeros(100_000)
    one = zeros.copy()
    one[50_000] = 1
    assert [total(zeros), total(one)] == [0.0, 1.0]
    assert total.key_for(numpy.array([1.0])) != total.key_for(numpy.array([1.00000000001]))
    assert total.key_for(zeros) != total.key_for(zeros.reshape(10, -1))
    assert total.key_for(zeros) != total.key_for(zeros.astype("f4"))
    assert total.key_for(one) == total.key_for(one.copy())
    with pytest.raises(TypeError, match="array of objects"):
        total(numpy.array([object()]))


def test_what_only_looks_like_an_array_is_refused(cache: Cachetronaut) -> None:
    class Frame:
        def __array__(self):
            return None

        def __repr__(self) -> str:
            return "1 ... 9"

    @cache
    def total(frame):
        return 1

    with pytest.raises(TypeError, match="key_builder"):
        total(Frame())


def test_two_scripts_that_share_a_file_do_not_share_results(tmp_path: Path, db_path: Path) -> None:
    script = """
from cachetronomy import Cachetronaut
with Cachetronaut({db!r}) as cache:
    @cache
    def load(x):
        return {result}
    print(load(3))
"""
    printed = []
    for name, result in (("a.py", "x * 2"), ("b.py", "-x"), ("a.py", "'not run again'")):
        path = tmp_path / name
        path.write_text(script.format(db=str(db_path), result=result))
        done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=True)
        printed.append(done.stdout.strip())
    assert printed == ["6", "-3", "6"]


def test_a_result_that_cannot_be_stored_now_comes_with_the_error(db_path: Path) -> None:
    with Cachetronaut(db_path, busy_timeout=0.05) as cache:

        @cache
        def compute(x):
            return x * 2

        code = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1],isolation_level=None);"
        code += "c.execute('BEGIN IMMEDIATE'); print(flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", code, db_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout is not None
            other.stdout.readline()
            with pytest.raises(StoreBusyError) as caught:
                compute(21)
            other.communicate(b"\n")
        assert caught.value.value == 42
        assert compute(21) == 42


def test_check_names_each_entry_that_is_damaged(db_path: Path) -> None:
    with Cachetronaut(db_path) as cache:
        cache.set_many({"good": 1, "bad": 2})
    code = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]);"
    code += "c.execute('DROP TRIGGER cache_measures_update');"
    code += """c.execute("UPDATE cache SET data = x'33' WHERE key = 'bad'"); c.commit()"""
    subprocess.run([sys.executable, "-c", code, db_path], check=True)
    with Cachetronaut(db_path) as cache:
        findings = cache.check()
        assert len(findings) == 1
        assert "'bad'" in findings[0].replace('"', "'")
        assert cache.get("bad") is None
        assert cache.get("good") == 1


def test_a_default_in_the_place_of_the_model_is_refused(cache: Cachetronaut) -> None:
    for key in ("missing", "there"):
        cache.set("there", 1)
        with pytest.raises(ValueError, match="default="):
            cache.get(key, "a default")


def test_lambdas_are_told_apart_by_their_code(cache: Cachetronaut) -> None:
    double, triple = cache(lambda x: x * 2), cache(lambda x: x * 3)
    assert [double(5), triple(5)] == [10, 15]
    assert double.key_for(5) == cache(double.__wrapped__).key_for(5)
