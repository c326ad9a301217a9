"""Build the Debian packages: ``python -m package.build --arch arm64``.

Everything that runs on the Pi comes as wheels by `locks/run.txt`, each checked by its hash, so that installing
needs no internet and runs nobody's build script. A package is for the Python it was built with: Debian 12 has
3.11, Debian 13 has 3.13. Wheels are unpacked and nothing of them is executed, so either machine builds for the
other.
"""

from __future__ import annotations

import argparse
import compileall
import gzip
import importlib.metadata
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path

from package.manual import bash_completion, manual_pages

ROOT = Path(__file__).resolve().parent.parent
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
MACHINE = {"arm64": "aarch64", "amd64": "x86_64"}
GLIBC = ("2_17", "2_27", "2_28")  # Debian 12 has 2.36
# In the wheels, and for who changes, tests or trains them: not for who runs them.
SPARE = (
    "numpy/**/tests",
    "numpy/f2py",
    "numpy/_core/include",
    "numpy/_core/lib",
    "onnxruntime/transformers",
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/datasets",
    "onnxruntime/backend",
    "cv2/data",
    "**/*.pyi",
    "bin",
)
HERE = Path(__file__).resolve().parent
FILES = {  # what is in systemd/, and where a package puts it
    "fallwatch.target": "usr/lib/systemd/system",
    "*.service": "usr/lib/systemd/system",
    "*.timer": "usr/lib/systemd/system",
    "70-fallwatch.rules": "usr/lib/udev/rules.d",
    "fallwatch.sysusers.conf": "usr/lib/sysusers.d/fallwatch.conf",
    "fallwatch.tmpfiles.conf": "usr/lib/tmpfiles.d/fallwatch.conf",
    "fallwatch.modules-load.conf": "usr/lib/modules-load.d/fallwatch.conf",
    "fallwatch.journald.conf": "usr/lib/systemd/journald.conf.d/fallwatch.conf",
    "fallwatch-detect-bluetooth.conf": "usr/share/fallwatch/drop-ins/bluetooth.conf",
    "fallwatch-detect-camera.conf": "usr/share/fallwatch/drop-ins/camera.conf",
    "fallwatch-detect-mqtt.conf": "usr/share/fallwatch/drop-ins/mqtt.conf",
    "fallwatch-clock.conf": "usr/share/fallwatch/drop-ins/clock.conf",
}


def main() -> None:
    """Build what was asked for, and say how large it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--arch", action="append", choices=MACHINE, help="again for more; both when left out")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the packages")
    parser.add_argument("--version", default="", help="another than the project's: for trying updates")
    parser.add_argument("--compress", default="xz", choices=("xz", "zstd", "gzip", "none"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for arch in options.arch or MACHINE:
        package = build(arch, options.out, options.version or _version(), options.compress)
        print(f"{package}: {package.stat().st_size / 2**20:.1f} MiB")


def build(arch: str, out: Path, version: str, compress: str) -> Path:
    """Return the package for one machine."""
    os.environ["SOURCE_DATE_EPOCH"] = _commit_time_s()
    release = f"{version}+py{PYTHON}"
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "root"
        program = root / "opt/fallwatch/versions" / release
        packages = program / f"lib/python{PYTHON}/site-packages"
        packages.mkdir(parents=True)
        _unpack_wheels(arch, packages, Path(scratch))
        _make_venv(program)
        _place_rim(root)
        _write_papers(root, packages, release)
        control = root / "DEBIAN"
        control.mkdir()
        for script in ("preinst", "prerm", "postinst", "postrm"):
            text = (HERE / "debian" / script).read_text().replace("@RELEASE@", release)
            (control / script).write_text(text)
            (control / script).chmod(0o755)
        installed_kib = sum(path.lstat().st_size for path in root.rglob("*") if not path.is_dir()) // 1024
        major, minor = sys.version_info[:2]
        (control / "control").write_text(
            (HERE / "debian/control.in")
            .read_text()
            .replace("@VERSION@", release)
            .replace("@ARCH@", arch)
            .replace("@PYTHON@", f"python3 (>= {major}.{minor}), python3 (<< {major}.{minor + 1})")
            .replace("@KIB@", str(installed_kib))
        )
        package = out / f"fallwatch_{release}_{arch}.deb"
        for path in [root, *root.rglob("*")]:  # whatever the umask of who builds it
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        command: list[str | Path] = ["dpkg-deb", "--root-owner-group", f"-Z{compress}", "--build", root, package]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return package


def _version() -> str:
    project: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["version"]


def _commit_time_s() -> str:
    """Return the time of the last commit: the same source makes the same package, whenever it is built."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    asked = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def _unpack_wheels(arch: str, packages: Path, scratch: Path) -> None:
    """Unpack what the lock file names, and fallwatch itself, without running any of it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    bits = f"--python-version {PYTHON} --implementation cp --abi cp{PYTHON.replace('.', '')} --abi abi3 --abi none"
    bits += "".join(f" --platform manylinux_{glibc}_{MACHINE[arch]}" for glibc in GLIBC)
    bits += f" --platform manylinux2014_{MACHINE[arch]}"
    into = ["--no-deps", "--no-compile", "--target", str(packages)]
    lock = ["--only-binary", ":all:", "--require-hashes", "--requirement", str(ROOT / "locks/run.txt")]
    subprocess.run([*pip, "install", *bits.split(), *into, *lock], check=True)
    source = scratch / "source"  # setuptools leaves its work beside what it builds
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", source], check=True)
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", scratch, source], check=True
    )
    subprocess.run([*pip, "install", *into, *scratch.glob("fallwatch-*.whl")], check=True)
    for pattern in SPARE:
        for path in list(packages.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    # Without these each start would translate everything anew: the services may not write here.
    compileall.compile_dir(
        packages,
        quiet=2,
        stripdir=str(packages),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def _make_venv(program: Path) -> None:
    """Make it an environment of Debian's Python that stays whole when its folder gets another name."""
    (program / "bin").mkdir()
    (program / "bin/python3").symlink_to(f"/usr/bin/python{PYTHON}")
    (program / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    launcher = program / "bin/fallwatch"
    shutil.copy(HERE / "fallwatch", launcher)
    launcher.chmod(0o755)


def _place_rim(root: Path) -> None:
    """Place units, rules and accounts where Debian looks for them."""
    for pattern, place in FILES.items():
        found = list((ROOT / "systemd").glob(pattern))
        if not found:
            raise SystemExit(f"systemd/{pattern} is missing")
        for path in found:
            target = root / place if place.endswith(".conf") else root / place / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/fallwatch").symlink_to("/opt/fallwatch/current/bin/fallwatch")


def _write_papers(root: Path, packages: Path, release: str) -> None:
    """Write what is for people: manual pages, completion, licences, changes, and what is inside."""
    manual = root / "usr/share/man/man1"
    manual.mkdir(parents=True)
    for name, text in manual_pages(release).items():
        (manual / f"{name}.1.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    completion = root / "usr/share/bash-completion/completions/fallwatch"
    completion.parent.mkdir(parents=True)
    completion.write_text(bash_completion())
    papers = root / "usr/share/doc/fallwatch"
    papers.mkdir(parents=True)
    shutil.copytree(ROOT / "docs", papers / "docs")
    shutil.copy(ROOT / "LICENSE", papers / "copyright")
    (papers / "changelog.gz").write_bytes(gzip.compress((ROOT / "CHANGELOG.md").read_bytes(), mtime=0))
    (papers / "sbom.cdx.json").write_text(json.dumps(_bill_of_materials(packages, release), indent=1))


def _bill_of_materials(packages: Path, release: str) -> dict[str, object]:
    """Return what is inside, as CycloneDX 1.5 has it: each library with version, licence and the lock's hashes."""
    lock = dict(_locked())
    parts = []
    for found in sorted(importlib.metadata.distributions(path=[str(packages)]), key=lambda d: d.name.lower()):
        name = re.sub(r"[-_.]+", "-", found.name).lower()
        licence = found.metadata["License-Expression"] or found.metadata["License"]
        part: dict[str, object] = {
            "type": "application" if name == "fallwatch" else "library",
            "bom-ref": f"pkg:pypi/{name}@{found.version}",
            "name": name,
            "version": found.version,
            "purl": f"pkg:pypi/{name}@{found.version}",
        }
        if licence:
            part["licenses"] = [{"license": {"name": licence.splitlines()[0][:100]}}]
        if name in lock:  # of the files that may be installed for it, one of which was
            part["externalReferences"] = [
                {
                    "type": "distribution",
                    "url": f"pkg:pypi/{name}@{found.version}",
                    "hashes": [{"alg": "SHA-256", "content": digest} for digest in lock[name]],
                }
            ]
        parts.append(part)
    identity = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(parts))  # the same for the same
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": identity.urn,
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "fallwatch", "version": release}},
        "components": parts,
    }


def _locked() -> Iterator[tuple[str, list[str]]]:
    for block in re.split(r"\n(?=\w)", (ROOT / "locks/run.txt").read_text()):
        name, _, rest = block.partition("==")
        yield name, re.findall(r"sha256:([0-9a-f]{64})", rest)


if __name__ == "__main__":
    main()
