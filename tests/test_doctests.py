"""The examples in docstrings are true."""

import doctest
import importlib
import pkgutil

import pytest

import minimobile
import minimobile_kernels


def module_names():
    for package in (minimobile, minimobile_kernels):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                yield module.name


@pytest.mark.parametrize("name", list(module_names()))
def test_examples(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples():
    names = ("minimobile.networks.mobilenet_v2", "minimobile_kernels.geometry", "minimobile_kernels.reference")
    assert all(doctest.testmod(importlib.import_module(name)).attempted for name in names)
