"""What the tests of requests share: a kernel that knows what it was asked."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fake_kernel():
    """The class `FakeKernel`; test folders are no packages, so it is loaded by its path."""
    spec = importlib.util.spec_from_file_location("fake_kernel", Path(__file__).with_name("fake_kernel.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FakeKernel
