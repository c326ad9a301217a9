"""No image leaves the memory of the eye: it is looked for in all that a home with a camera writes and sends."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.core.incident import Kind
from edge.core.supervision import Cause
from edge.depth.frame import Depth
from tests.edge import home as homes
from tests.edge.brokers import MOSQUITTO, Listener, mosquitto
from tests.edge.depth_scene import Scene, lying, upright
from tests.edge.eyes import CAMERA, CONSENT, write_folder
from tests.edge.home import Home, Pager, Service, until

MARK = 0x1B5A  # mm: the far end of the room, in a word that is seldom met
RUN = 8  # octets
MOST_UNPACKED = 1 << 20
# `fallwatch` that does not wait so long for somebody on the floor.
QUICK = "import sys, edge.core.camera as c; c.FLOOR_S = 3.0; from edge.cli import main; main()"


def marked(image: Depth) -> Depth:
    """Put the mark over the top of an image."""
    image = image.copy()
    image[:30] = MARK
    return image


class Search:
    """Looks for any 8 octets of some images, however they are packed."""

    def __init__(self, images: list[Depth]) -> None:
        words = [kind for image in images for kind in (image.astype("<u2"), image.astype(">u2"))]
        runs = np.concatenate(
            [np.lib.stride_tricks.sliding_window_view(w, 4, axis=1).reshape(-1, 4) for w in words]
        )
        # Holes are zeros, as there are in every file; what is found must hold four readings.
        there = np.ascontiguousarray(runs[(runs != 0).all(axis=1)])
        self._runs = np.unique(there.view(np.uint64).ravel())
        self._text = re.compile(rb"(?:\b%d\W{1,3}){4}" % MARK)

    def finds(self, data: bytes) -> str:
        """Return how the image lies in ``data``; empty: it does not."""
        if self._raw(data):
            return "raw"
        if self._text.search(data):
            return "as text"
        for at in (m.start() for m in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", data)):
            with contextlib.suppress(zlib.error):
                if self._raw(zlib.decompressobj().decompress(data[at:], MOST_UNPACKED)):
                    return "zlib"
        for at in (m.start() for m in re.finditer(rb"\x89PNG\r\n", data)):
            image = cv2.imdecode(np.frombuffer(data[at:], np.uint8), cv2.IMREAD_UNCHANGED)
            if image is not None and self._raw(image.tobytes()):
                return "png"
        return ""

    def _raw(self, data: bytes) -> bool:
        for shift in range(RUN):
            words = np.frombuffer(
                data, np.uint64, count=max(len(data) - shift, 0) // RUN, offset=min(shift, len(data))
            )
            at = np.searchsorted(self._runs, words).clip(max=len(self._runs) - 1)
            if (self._runs[at] == words).any():
                return True
        return False

    def files(self, *folders: Path, but: Path) -> dict[str, str]:
        """Return the files that hold an image, and how."""
        found = {}
        for path in sorted(p for folder in folders for p in folder.rglob("*")):
            if path.is_file() and not path.is_relative_to(but) and (how := self.finds(path.read_bytes())):
                found[str(path)] = how
        return found


def images() -> list[Depth]:
    scene = Scene()
    room = [marked(scene.depth_mm()) for _ in range(10)]
    walk = [marked(scene.depth_mm(upright(-1.0 + 0.05 * i, 3.0))) for i in range(20)]
    return room + walk + [marked(scene.depth_mm(lying(0.0, 3.0))) for _ in range(20)]


def test_the_search_finds_what_is_planted(tmp_path: Path) -> None:
    taken = images()[::10]
    search = Search(taken)
    four = next(row[at : at + 4] for row in taken[0][100:] for at in range(300) if row[at : at + 4].all())
    _, png = cv2.imencode(".png", taken[1])
    planted = {
        "raw": b"log " + four.tobytes() + b" end",
        "odd": b"x" * 13 + taken[0].tobytes(),
        "big": taken[2].astype(">u2").tobytes(),
        "zlib": b"before" + zlib.compress(taken[1].tobytes()),
        "png": b"before" + png.tobytes() + b"after",
        "text": str(taken[0][:1]).encode(),
        "json": json.dumps(taken[0][0].tolist()).encode(),
    }
    for name, data in planted.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "clean").write_bytes(
        json.dumps({"well": True, "people": [[1, 1.62, 0.9]] * 500}).encode() + bytes(99999)
    )
    (tmp_path / "but").mkdir()
    (tmp_path / "but" / "images").write_bytes(planted["odd"])
    found = search.files(tmp_path, but=tmp_path / "but")
    assert {Path(name).name for name in found} == set(planted)


def children(pid: int) -> list[int]:
    """Return the processes that any thread of a process has started."""
    with contextlib.suppress(FileNotFoundError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return []


def looks(pid: int | None) -> bool:
    """Tell whether a process is an eye; one that has ended has no command line."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return b"edge.eye" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def eye_of(detect: Service) -> int | None:
    return next((pid for pid in children(detect.pid) if looks(pid)), None)


def memory(pid: int) -> Iterator[bytes]:
    """Yield what a process can write to in its memory."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as mem:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights = line.split()[:2]
            if rights.startswith("rw"):
                begin, end = (int(at, 16) for at in place.split("-"))
                with contextlib.suppress(OSError, ValueError, OverflowError):
                    mem.seek(begin)
                    yield mem.read(end - begin)


@pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto")
def test_no_image_leaves_the_eye_by_file_message_log_page_or_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(homes, "FALLWATCH", [sys.executable, "-c", QUICK])
    taken = images()
    folder = write_folder(tmp_path / "images" / "room", taken[:30] + taken[30:] * 15)
    for name in ("home", "tmp", "broker"):
        (tmp_path / name).mkdir()
    with mosquitto(tmp_path / "broker") as broker, Listener(broker.port, "#") as listener:
        more = '[[resident]]\nid = "r7"\nroom = "7"\n' + CAMERA.format(room="7", folder=folder, resident="r7")
        more += CONSENT + f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n'
        with Home(tmp_path / "home", wearables=0, more=more) as home, Pager(home.pager_link) as pager:
            home.environment |= {"TMPDIR": str(tmp_path / "tmp"), "PYTHONFAULTHANDLER": "1"}
            detect, _ = home.start("detect", "--verbose").ready(), home.start("alarm").ready()
            facts = until(lambda: next((case for case in home.cases() if case.facts.camera), None)).facts
            assert facts.kind in {Kind.FALL, Kind.LONG_LIE}  # by the network, or else by the time on the floor
            assert (facts.camera, facts.placement, facts.resident, facts.room) == ("cam-7", "camera", "r7", "7")
            pager.wait("LONG LIE? RM 7" if facts.kind is Kind.LONG_LIE else "FALL? RM 7")
            mark = np.full(16, MARK, "<u2").tobytes()
            eye = eye_of(detect)
            assert eye is not None
            if os.geteuid() == 0:  # to others the eye's own memory is closed
                assert any(mark in part for part in memory(eye))
            assert not any(mark in part for part in memory(detect.pid))
            # A pause: no eye, and everybody can see it.
            paused = home.ask("camera", "pause", "7", "--minutes", "5", "--by", "anna")
            assert paused.returncode == 0, paused.stderr
            assert eye_of(detect) is None
            code, parts = home.status()
            assert (code, parts["camera cam-7"]["well"]) == (1, False)
            assert re.fullmatch(r"camera paused for 4 min 5\d s more, by anna", parts["camera cam-7"]["cause"])
            sent = listener.hear_until(
                lambda heard: (
                    heard.topic.endswith("/camera/cam-7") and str(Cause.CAMERA_PAUSED).encode() in heard.payload
                )
            )
            resumed = home.ask("camera", "resume", "7", "--by", "anna")
            assert resumed.returncode == 0, resumed.stderr
            until(lambda: home.ask("camera", "status", "--json").returncode == 0)
            with home.journal() as journal:
                for kind in ("camera-paused", "camera-resumed"):
                    note = journal.last_note(kind, room="7", by="anna")
                    assert note is not None
            # A crash: no core, no trace.
            eye = eye_of(detect)
            assert eye is not None
            os.kill(eye, signal.SIGSEGV)
            until(lambda: eye_of(detect) not in {None, eye})
            until(lambda: (home.told("detect") or {})["cameras"]["cam-7"]["well"])
            assert (home.told("detect") or {})["cameras"]["cam-7"]["restarts"] == 1
            status = home.ask("status")
            # Detection is killed: its eye does not outlive it.
            eye = eye_of(detect)
            assert eye is not None
            detect.kill()
            until(lambda: not looks(eye), 3.0)
        with contextlib.suppress(queue.Empty):
            while True:
                sent.append(listener.hear(0.5))
    search = Search(taken[::10])  # each has the mark
    assert search.files(tmp_path, but=tmp_path / "images") == {}
    cores = [
        path
        for place in (Path.cwd(), Path("/var/lib/systemd/coredump"), Path("/var/crash"))
        for path in place.glob("*core*")
    ]
    assert [path for path in cores if path.is_file() and search.finds(path.read_bytes())] == []
    assert any(heard.topic.endswith("/config") and b"Depth camera cam-7" in heard.payload for heard in sent)
    assert [heard.topic for heard in sent if search.finds(heard.payload)] == []
    for said in (paused, resumed, status):
        assert search.finds((said.stdout + said.stderr).encode()) == ""
    assert [page for page in pager.pages if search.finds(page.text.encode())] == []
    for said in (paused, resumed):
        assert "Next:" in said.stdout
