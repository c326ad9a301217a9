"""Packages of two versions, and systems that have the older one; made once for all tests here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installed.roots import System, build, can_be_made, make

OLD, NEW = "0.1.0", "0.1.1"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip all of it where no systems can be made; give it time where they can."""
    reason = can_be_made()
    for item in items:
        if "tests/installed/" in str(item.path):
            item.add_marker(pytest.mark.timeout(1800))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package that is installed first."""
    return build("amd64", OLD, tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="session")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package of the version after it."""
    return build("amd64", NEW, tmp_path_factory.mktemp("new"))


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> System:
    """Return an empty system: for looking at through `on_top` alone."""
    return make("amd64", tmp_path_factory.mktemp("bare") / "root")


@pytest.fixture
def system(bare: System, tmp_path: Path) -> Iterator[System]:
    """Return an empty system that may be changed."""
    with on_top(bare, tmp_path) as changed:
        yield changed


class on_top:  # noqa: N801  # used as a function
    """A system that holds what another holds, until something is changed in it; the other stays as it is."""

    def __init__(self, below: System, folder: Path) -> None:
        self._below, self._folder = below, folder

    def __enter__(self) -> System:
        """Mount it."""
        for name in ("changes", "work", "root"):
            (self._folder / name).mkdir()
        options = f"lowerdir={self._below.folder},upperdir={self._folder}/changes,workdir={self._folder}/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, self._folder / "root"], check=True)
        return System(self._folder / "root", self._below.arch)

    def __exit__(self, *_: object) -> None:
        """Throw it away."""
        subprocess.run(["umount", "--lazy", self._folder / "root"], check=True)
