"""What every error declares: the facts of all, those of one class, and nothing else."""

import inspect
import pickle
import re
import subprocess
import sys

import pytest

from cma_compat.cmdline import ListFullError, RegionListError
from cma_compat.device_map import MapRuleError
from cma_compat.values import PluginRefusal
from swiommu import errors
from swiommu.errors import Facts, SwiommuError

FACTS = {name: number for number, name in enumerate(Facts.__annotations__, 1)} | {"name": "camera"}
KINDS = [
    *(kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, SwiommuError)),
    *(ListFullError, RegionListError, MapRuleError, PluginRefusal),
]
OWN = {
    "retries": 3,
    "slots": 128,
    "used": 7,
    "names": ["a", "b", "a"],
    "fault": "a record",
    "runs": [(0, 4096)],
    "data": b"ab",
    "transferred": 2,
    "path": "t.txt",
    "line": 7,
    "column": 5,
    "rule": "a=b",
    "code": 12,
}


def own(kind):
    """What a class declares beside the facts of all, with a value of each."""
    return {name: OWN[name] for name in inspect.signature(kind.__init__).parameters if name in OWN}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_declared_becomes_an_attribute_and_is_pickled(kind):
    made = kind("no room", **own(kind), **FACTS)
    for error in (made, pickle.loads(pickle.dumps(made))):
        assert type(error) is kind
        assert str(error) == ("t.txt:7: no room" if "path" in own(kind) else "no room")
        assert {name: getattr(error, name) for name in (*FACTS, *own(kind))} == FACTS | own(kind)
        assert (error.facts, error.errno) == (FACTS, kind.errno)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_not_said_is_none(kind):
    error = kind("no room")
    assert [getattr(error, name) for name in FACTS] == [None] * len(FACTS)
    assert error.facts == {}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_not_declared_is_refused(kind):
    with pytest.raises(TypeError) as caught:
        kind("no room", amount=1, size=2, phys=3)
    assert str(caught.value) == f"{kind.__name__} declares no amount, phys"


def test_an_error_that_says_the_same_in_other_words():
    first = errors.AddressInUse("0x1000 is taken", iova=0x1000, size=4096)
    second = errors.AlreadyMapped(f"there is a page: {first}", **first.facts)
    assert (second.iova, second.size, second.paddr, second.errno) == (0x1000, 4096, None, 17)


WRONG = """
from swiommu.errors import Busy, NoMemory
made = NoMemory("no room", amount=1), NoMemory("no room", size="1"), Busy("in use", slots=1)
def read(error: NoMemory) -> object:
    return error.amount
"""


@pytest.mark.slow
def test_a_type_checker_finds_a_wrong_name(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", str(file)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    messages = [re.split("error: |; ", line)[1] for line in found.splitlines() if ": error: " in line]
    assert messages == [
        'Unexpected keyword argument "amount" for "NoMemory"  [call-arg]',
        'Argument "size" to "NoMemory" has incompatible type "str"',
        'Unexpected keyword argument "slots" for "Busy"  [call-arg]',
        '"NoMemory" has no attribute "amount"  [attr-defined]',
    ]


def test_a_dozen_names_serve_all():
    assert len(FACTS) == 12
