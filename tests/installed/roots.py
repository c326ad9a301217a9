"""Whole Debian systems in folders, to install the package in: made by mmdebstrap, entered by systemd-nspawn.

They have a network of their own, in which there is only themselves.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
# Making a system takes half a minute, another machine's three: kept between runs, and made anew each month.
CACHE = Path(os.environ.get("FALLWATCH_CACHE", "~/.cache/fallwatch")).expanduser()
CACHE_S = 30 * 86400
NSPAWN = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network")
INCLUDED = "python3,systemd,systemd-sysv,udev,dbus,libstdc++6,libgcc-s1,tzdata"
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
# What the library cpuinfo, which onnxruntime asks, finds of a Raspberry Pi 4. Under emulation it finds another
# machine's files instead and crashes.
PI_4 = "BogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
PI_4 += "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n"
EMULATOR = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")


def can_be_made() -> str:
    """Return why no such system can be made here; nothing where it can."""
    if os.environ.get("FALLWATCH_INSTALLED") != "1":
        return "takes many minutes and root: make installed"
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in ("mmdebstrap", "systemd-nspawn", "dpkg-deb") if shutil.which(name) is None]
    return f"{', '.join(missing)} is not installed" if missing else ""


def build(arch: str, version: str, out: Path) -> Path:
    """Return a package of this checkout under a version number of its own."""
    command = [sys.executable, "-m", "package.build", "--arch", arch, "--version", version]
    subprocess.run(
        [*command, "--compress", "gzip", "--out", out], cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL
    )
    return next(out.glob(f"fallwatch_{version}+*_{arch}.deb"))


def make(arch: str, folder: Path) -> System:
    """Return an empty Debian system of this machine's release."""
    kept = CACHE / f"debian-{_codename()}-{arch}.tar"
    if not kept.exists() or time.time() - kept.stat().st_mtime > CACHE_S:
        if arch == "arm64":
            _emulate()
        CACHE.mkdir(parents=True, exist_ok=True)
        new = kept.with_suffix(".new.tar")
        sources = [SOURCES] if SOURCES.exists() else []
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={INCLUDED}"]
        subprocess.run([*command, f"--architectures={arch}", _codename(), new, *sources], check=True)
        new.rename(kept)
    elif arch == "arm64":
        _emulate()
    folder.mkdir()
    subprocess.run(["tar", "--extract", "--file", kept, "--directory", folder], check=True)
    return System(folder, arch)


class System:
    """A Debian system in a folder."""

    def __init__(self, folder: Path, arch: str) -> None:
        self.folder, self.arch = folder, arch
        self.binds: list[str] = []

    def run(self, *command: str, check: bool = True, env: dict[str, str] | None = None) -> str:
        """Run one command in it, with nothing else running, and return what it wrote."""
        nspawn = [*NSPAWN, f"--directory={self.folder}", "--pipe", "--as-pid2", *self.binds]
        inner: Sequence[str] = command
        if self.arch == "arm64":
            pi_4 = self._pi_4()
            nspawn += ["--setenv=QEMU_CPU=cortex-a72", f"--bind-ro={pi_4}:/pi-4"]
            hide = "mount --bind /pi-4/cpuinfo /proc/cpuinfo; mount --bind /pi-4/cpu /sys/devices/system/cpu"
            inner = ["sh", "-c", f'{hide}; exec "$@"', "sh", *command]
        nspawn += [f"--setenv={name}={value}" for name, value in (env or {}).items()]
        ran = subprocess.run(
            [*nspawn, *inner],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=900,
        )
        assert ran.returncode == 0 or not check, ran.stdout[-4000:]
        # What nspawn says of its own folders when it ends is not the command's.
        return "".join(line for line in ran.stdout.splitlines(keepends=True) if "nspawn/propagate" not in line)

    def install(self, package: Path, *, check: bool = True, env: dict[str, str] | None = None) -> str:
        """Install a package without any network."""
        (self.folder / "root" / package.name).unlink(missing_ok=True)
        shutil.copy(package, self.folder / "root")
        return self.run("dpkg", "--install", f"/root/{package.name}", check=check, env=env)

    @contextlib.contextmanager
    def booted(self) -> Iterator[Booted]:
        """Start it, with systemd and all, until the end of the block."""
        nspawn = [*NSPAWN, f"--directory={self.folder}", "--boot", *self.binds]
        with (self.folder / "root/boot.log").open("wb") as log:
            process = subprocess.Popen(nspawn, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                yield Booted(process.pid)
            finally:
                process.terminate()  # nspawn then has it shut down
                try:
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _pi_4(self) -> Path:
        pi_4 = self.folder.with_name(f"{self.folder.name}-pi-4")
        if not pi_4.exists():
            for number in range(os.cpu_count() or 1):
                (pi_4 / f"cpu/cpu{number}").mkdir(parents=True)
                with (pi_4 / "cpuinfo").open("a") as file:
                    file.write(f"processor\t: {number}\n{PI_4}")
            for name in ("possible", "present", "online"):
                (pi_4 / "cpu" / name).write_text(f"0-{(os.cpu_count() or 1) - 1}\n")
        return pi_4


class Booted:
    """A system that runs."""

    def __init__(self, nspawn: int) -> None:
        self._init = 0
        deadline_s = time.monotonic() + 60
        while not self._init and time.monotonic() < deadline_s:
            children = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split()
            self._init = int(children[0]) if children else 0
            time.sleep(0.2)
        while time.monotonic() < deadline_s:
            if self.run("systemctl", "is-system-running", check=False).strip() in {"running", "degraded"}:
                break
            time.sleep(0.5)
        else:
            raise TimeoutError("the system does not come up")
        # nspawn shows its own id of the boot to some processes and the kernel's to others; on a real machine there
        # is one, and monotonic times compare by it.
        self.run("umount", "/proc/sys/kernel/random/boot_id", check=False)

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command beside what runs there, as root."""
        into = ["nsenter", f"--target={self._init}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root"]
        ran = subprocess.run(
            [*into, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "COLUMNS=120", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=300,
        )
        assert ran.returncode == 0 or not check, ran.stdout[-4000:]
        return ran.stdout


def _codename() -> str:
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return release["VERSION_CODENAME"].strip('"')


def _emulate() -> None:
    """Have the kernel run programs of the other machine, as systemd-binfmt does where systemd runs."""
    if EMULATOR.exists():
        return
    if not (EMULATOR.parent / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", EMULATOR.parent], check=True)
    lines = Path("/usr/lib/binfmt.d/qemu-aarch64.conf").read_text().splitlines()
    (EMULATOR.parent / "register").write_text(next(line for line in lines if line.startswith(":")))
