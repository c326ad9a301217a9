"""A real disk of a few MiB that can be filled, made read-only by an error of its own, cut off, and replaced."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_EXT4_IOC_SHUTDOWN = 2 << 30 | 4 << 16 | ord("X") << 8 | 125  # linux/fs.h: every access answers EIO from then on
_NO_FLUSH = 2


class SmallDisk:
    """An ext4 file system on a loop device, mounted at ``folder``."""

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder = folder
        self._image = image
        folder.mkdir(parents=True)
        with image.open("wb") as file:
            file.truncate(24 << 20)
        _run("mkfs.ext4", "-q", str(image))
        self._mount()

    def _mount(self) -> None:
        self._device = _run("losetup", "--find", "--show", str(self._image))
        _run("mount", "-o", "errors=remount-ro", self._device, str(self.folder))

    def close(self) -> None:
        _run("umount", "--lazy", str(self.folder))
        _run("losetup", "--detach", self._device)

    def fill(self) -> None:
        """Take the last octet."""
        with contextlib.suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))

    def free(self) -> None:
        """Give back what `fill` took."""
        (self.folder / "filler").unlink()

    def become_read_only(self) -> None:
        """Meet an error as kernels do on a failing card: from then on nothing is written."""
        Path(f"/sys/fs/ext4/{Path(self._device).name}/trigger_fs_error").write_text("1", encoding="ascii")

    def fail(self) -> None:
        """Answer everything with EIO."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, _NO_FLUSH.to_bytes(4, "little"))
        finally:
            os.close(descriptor)

    def replace(self) -> None:
        """Put in a sound disk with what was on the old one, under the feet of whoever uses it."""
        self.close()
        sound = self._image.with_suffix(".copy")
        shutil.copyfile(self._image, sound)
        self._image = sound
        _run("e2fsck", "-fy", str(sound), allowed=(0, 1))
        self._mount()


def _run(*command: str, allowed: tuple[int, ...] = (0,)) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
    if done.returncode not in allowed:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def small_disk(folder: Path, image: Path) -> Iterator[SmallDisk]:
    """Yield a disk of our own; the test is skipped where we may not mount one."""
    try:
        disk = SmallDisk(folder, image)
    except OSError as error:
        pytest.skip(f"no disk can be mounted here: {error}")
    try:
        yield disk
    finally:
        disk.close()
