from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from training.depth.body import BONES, CLEARANCE_M, FPS, PELVIS
from training.depth.sensor import KINDS, degrade

try:
    from training.depth import clips, limp, skeletons
    from training.depth.clips import SCRIPTS, Scene, synthetic
except (ImportError, AttributeError) as missing:  # as PyOpenGL says that there is no EGL
    pytest.skip(f"no MuJoCo with GL here: {missing}", allow_module_level=True)


def shortened(scene: Scene, every: int) -> Scene:
    """Keep one frame of so many."""
    actors = [replace(a, track=a.track[::every], present=a.present[::every]) for a in scene.actors]
    return replace(scene, actors=actors, props=[replace(p, place=p.place[::every]) for p in scene.props])


@cache
def rendered(activity: str, seed: int) -> dict[str, Any]:
    """Return a short clip, or skip where nothing can be rendered."""
    scene = shortened(synthetic(activity, seed), 25)
    try:
        return clips.make_clip(scene)
    except (ImportError, RuntimeError) as missing:
        pytest.skip(f"no GL here: {missing}")


@cache
def facts(activity: str, seed: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    scene = synthetic(activity, seed)
    true = clips.truth(scene)
    return clips.meta(scene, true), true


def heights_m(clip: dict[str, Any], n: int) -> NDArray[np.float64]:
    """Return how high above the floor those pixels are that show no background, by the clip's own numbers."""
    about = json.loads(clip["meta"])
    k, (a, b, c, d) = about["intrinsics"], about["floor"]
    v, u = np.nonzero(clip["depth_mm"][n] != clip["background_mm"])
    z = clip["depth_mm"][n][v, u] / 1000
    return np.asarray(a * (u - k["cx"]) * z / k["fx"] + b * (v - k["cy"]) * z / k["fy"] + c * z + d)


@pytest.mark.parametrize("seed", [2, 7])
def test_the_head_is_as_high_in_the_picture_as_in_the_truth(seed: int) -> None:
    clip = rendered("walk", seed)
    k = json.loads(clip["meta"])["intrinsics"]
    compared = 0
    for n, head_m in enumerate(clip["head_m"]):
        v, _ = np.nonzero(clip["depth_mm"][n] != clip["background_mm"])
        if len(v) < 200 or v.min() < 5 or v.max() > k["height"] - 5:
            continue  # cut off by the edge of the image
        assert heights_m(clip, n).max() == pytest.approx(head_m, abs=0.08)
        compared += 1
    assert compared >= 4


def test_the_floor_of_the_picture_is_at_height_nought() -> None:
    clip = rendered("walk", 2)
    empty = {
        **clip,
        "depth_mm": clip["background_mm"][None],
        "background_mm": np.zeros_like(clip["background_mm"]),
    }
    heights = heights_m(empty, 0)[clip["background_mm"].ravel()[: len(heights_m(empty, 0))] >= 0]
    assert heights.min() > -0.03
    assert (np.abs(heights) < 0.01).mean() > 0.1


def test_one_seed_makes_one_clip_and_another_makes_another() -> None:
    first, other = synthetic("bag", 3), synthetic("bag", 4)
    again = synthetic("bag", 3)
    assert np.array_equal(first.actors[0].track, again.actors[0].track)
    assert first.room == again.room
    assert np.array_equal(first.camera.axes, again.camera.axes)
    assert not np.array_equal(first.actors[0].track[:30], other.actors[0].track[:30])


def test_what_is_rendered_follows_from_the_scene_alone() -> None:
    scene = shortened(synthetic("walk", 2), 25)
    assert np.array_equal(rendered("walk", 2)["depth_mm"], clips.make_clip(scene)["depth_mm"])


@pytest.mark.parametrize("seed", [0, 1])
def test_who_slides_to_the_floor_has_fallen_and_who_lies_down_in_bed_has_not(seed: int) -> None:
    about, true = facts("slow-slide", seed)
    assert about["label"] == "fall"
    assert true["pelvis_m"][round(about["fall_s"] * FPS)] < clips.LOW_M
    about, true = facts("bed-lie", seed)
    assert about["label"] == "adl"
    assert about["fall_s"] is None
    assert not true["on_floor"].any()
    assert (true["head_m"] < 1.0).any()


def test_who_exercises_on_the_floor_is_on_the_floor_but_has_not_fallen() -> None:
    about, true = facts("exercise", 1)
    assert true["on_floor"].sum() > 3 * FPS
    assert about["label"] == "adl"


def test_a_trip_ends_on_the_floor_faster_than_one_lies_down() -> None:
    about, true = facts("trip", 1)
    assert about["label"] == "fall"
    assert true["on_floor"][-1]
    assert np.diff(true["pelvis_m"]).min() * FPS < -1.0
    assert np.diff(facts("exercise", 1)[1]["pelvis_m"]).min() * FPS > -1.0


def test_the_label_comes_from_where_the_pelvis_ends_and_not_from_the_name() -> None:
    scene = synthetic("slow-slide", 0)
    upright = replace(scene.actors[0], track=scene.actors[0].track[:5], present=scene.actors[0].present[:5])
    caught = replace(scene, actors=[upright])
    assert clips.meta(caught, clips.truth(caught))["label"] == "adl"


def test_nobody_sinks_into_the_floor_and_bones_keep_their_length() -> None:
    track = synthetic("exercise", 1).actors[0].track
    assert (track[..., 2] - CLEARANCE_M).min() > -0.02
    a, b = BONES.T
    lengths = np.linalg.norm(track[:, a] - track[:, b], axis=2)
    assert (lengths.std(axis=0) < 0.02).all()


def test_every_kind_of_clip_has_a_script_and_300_are_planned() -> None:
    assert sum(often for often, _ in SCRIPTS.values()) == 300


@pytest.fixture(scope="module")
def room_mm() -> NDArray[np.uint16]:
    """A sloping floor up to a wall, and a box before it."""
    rows = np.linspace(1200, 4000, 240)[:, None]
    clean = np.broadcast_to(np.minimum(rows[::-1], 3600), (240, 320)).astype(np.uint16).copy()
    clean[60:160, 140:180] = 2000
    return np.repeat(clean[None], 12, axis=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sensor_leaves_holes_as_real_ones_do_and_keeps_the_rest_true(
    kind: str, room_mm: NDArray[np.uint16]
) -> None:
    shares = []
    for seed in range(4):
        seen = degrade(room_mm, np.random.default_rng(seed), kind)
        assert seen.shape == room_mm.shape
        assert seen.dtype == np.uint16
        shares.append(float((seen == 0).mean()))
        error_mm = seen.astype(float)[seen > 0] - room_mm[seen > 0]
        assert abs(np.median(error_mm)) < 30
        assert 2 < np.percentile(np.abs(error_mm), 68) < 60
    assert 0.02 < np.mean(shares) < 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_a_sensor_s_noise_changes_from_frame_to_frame_but_not_from_reading_to_reading(
    kind: str, room_mm: NDArray[np.uint16]
) -> None:
    seen = degrade(room_mm, np.random.default_rng(1), kind)
    assert (seen[0] != seen[5]).mean() > 0.1
    assert np.array_equal(seen, degrade(room_mm, np.random.default_rng(1), kind))
    assert not np.array_equal(seen, degrade(room_mm, np.random.default_rng(2), kind))


def test_an_unknown_kind_of_sensor_is_a_caller_s_mistake(room_mm: NDArray[np.uint16]) -> None:
    with pytest.raises(ValueError, match="stereo, structured-light, tof"):
        degrade(room_mm, np.random.default_rng(0), "radar")


def test_a_clip_becomes_a_recorded_folder_and_is_not_made_twice(tmp_path: Path) -> None:
    clip = rendered("walk", 2)
    path = tmp_path / "walk.npz"
    np.savez_compressed(path, **clip)
    before = path.read_bytes()
    clips.write_clip(path, partial(pytest.fail, "made again"))
    assert path.read_bytes() == before
    clips.make_folder([str(path), str(tmp_path / "clean"), "--kind", "clean"])
    clips.make_folder([str(path), str(tmp_path / "real")])
    clean, real = (
        np.asarray(cv2.imread(str(tmp_path / name / "000001.png"), cv2.IMREAD_UNCHANGED))
        for name in ("clean", "real")
    )
    assert np.array_equal(clean, clip["depth_mm"][1])
    assert not np.array_equal(real, clean)
    rows = (tmp_path / "real/timestamps.csv").read_text().splitlines()
    assert rows[0] == "frame,time_s"
    assert len(rows) == len(clip["time_s"]) + 1
    calib = json.loads((tmp_path / "real/calib.json").read_text())
    assert set(calib) == {"width", "height", "fx", "fy", "cx", "cy", "fps", "floor", "zones"}


@cache
def recorded() -> dict[str, skeletons.Skeletons]:
    """Return the trials of one person."""
    if "FALLWATCH_DATA" not in os.environ:
        pytest.skip("needs the recorded skeletons")
    return skeletons.read_skeletons(Path(os.environ["FALLWATCH_DATA"]), "S29")


def test_recorded_people_stand_on_the_floor_and_come_down_to_it() -> None:
    trials = recorded()
    assert {t.person for t in trials.values()} == {"S29"}
    standing = trials["S29A03T03"].track
    assert np.median(standing[:, PELVIS, 2]) == pytest.approx(0.9, abs=0.1)
    low = [float(t.track[:, PELVIS, 2].min()) for t in trials.values() if t.is_fall]
    assert np.mean(np.array(low) < clips.LOW_M) > 0.8


def test_a_recorded_fall_happens_in_view_and_who_lies_after_it_still_breathes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trials = recorded()
    monkeypatch.setattr(skeletons, "read_skeletons", lambda root: trials)
    held = 0
    for seed in range(4):
        scene = clips.replayed("S29A13T02", seed, Path())
        again = clips.replayed("S29A13T02", seed, Path())
        track = scene.actors[0].track
        assert np.array_equal(track, again.actors[0].track)
        assert scene.room.holds(track)
        lying = track[track[:, PELVIS, 2] < clips.LOW_M]
        assert scene.camera.sees(lying[:, PELVIS]).mean() > 0.9
        assert clips.meta(scene, clips.truth(scene))["label"] == "fall"
        if len(track) > len(trials["S29A13T02"].track):
            held += 1
            assert (np.abs(np.diff(track, axis=0)).max(axis=(1, 2)) > 0).all()
    assert 0 < held < 4


def test_a_limp_body_is_as_long_as_the_person_it_was() -> None:
    play = limp.fall("faint", np.random.default_rng(3))
    a, b = BONES.T
    lengths = np.linalg.norm(play.tracks[0][:, a] - play.tracks[0][:, b], axis=2)
    assert (np.ptp(lengths[:-70][:, :14], axis=0) < 0.06).all()


def test_a_wearable_feels_weightless_and_then_the_floor_when_its_wearer_faints() -> None:
    for seed in (1, 3):
        play = limp.fall("faint", np.random.default_rng(seed))
        assert play.accel_g is not None
        assert len(play.accel_g) == pytest.approx(len(play.tracks[0]) / FPS * limp.ACCEL_HZ, abs=5)
        waist_g = np.linalg.norm(play.accel_g[:, :3], axis=1)
        assert np.median(waist_g[:30]) == pytest.approx(1, abs=0.05)
        assert np.median(waist_g[-100:]) == pytest.approx(1, abs=0.1)
        assert waist_g.min() < 0.7
        assert 2 < waist_g.max() < 8 * np.sqrt(3)
