"""Falls by physics: a body whose muscles give way, in MuJoCo.

It starts from where a `Motion` left it. Limp bodies fold further than people do: labels come from where
pelvis and head end, never from what was meant to happen.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from scipy.signal import butter, sosfilt, sosfilt_zi

from training.depth.body import FPS, JOINTS, Floats, Track, relax, smooth
from training.depth.figure import ANGLES, ARM, LEG, SIT, SPINE, Motion, both
from training.depth.room import Room
from training.depth.scripts import Play, before, beside, heading, side_of, sit_on_bed, stage, start
from training.depth.skeletons import stirring
from training.readers import STANDARD_GRAVITY

_STEP_S = 0.002
_WATCH = "l"  # the wrist that wears it
ACCEL_HZ = 50
RANGE_G = 8.0
_RANGE = {  # rad, of who offers no resistance
    "spine": (-0.35, 1.0),
    "side": (-0.5, 0.5),
    "twist": (-0.6, 0.6),
    "nod": (-0.7, 0.7),
    "sh": (-0.8, 2.9),
    "ab": (-0.1, 1.7),
    "el": (0.0, 2.4),
    "hip": (-0.35, 2.0),
    "hab": (-0.3, 0.7),
    "kn": (0.0, 2.4),
    "an": (-0.4, 0.9),
}
_STIFF = {"sh": 40.0, "ab": 40.0, "el": 20.0, "nod": 20.0, "an": 60.0}  # N m/rad at full tone; the rest has 300


def _hinge(name: str, axis: str) -> str:
    low, high = _RANGE[name.split("_", maxsplit=1)[0]]
    return f'<joint name="{name}" axis="{axis}" range="{low} {high}"/>'


def _model(room: Room, height_m: float, mass_kg: float) -> Any:
    def size(*values: float) -> str:
        return " ".join(f"{v * height_m:.5f}" for v in values)

    def capsule(to: str, radius_m: float, part: float, start: str = "0 0 0") -> str:
        mass = f"{part * mass_kg:.3f}"
        return f'<geom type="capsule" fromto="{start} {to}" size="{radius_m}" mass="{mass}" class="body"/>'

    def limbs(s: str, sign: int) -> tuple[str, str]:
        arm = f"""<body pos="{size(0, sign * ARM["aside"], SPINE["neck"] - ARM["down"])}">
        {_hinge(f"sh_{s}", "0 -1 0")}{_hinge(f"ab_{s}", f"{sign} 0 0")}<site name="shoulder_{s}"/>
        {capsule(size(0, 0, -ARM["upper"]), 0.045, 0.028)}<body pos="{size(0, 0, -ARM["upper"])}">
        {_hinge(f"el_{s}", "0 -1 0")}<site name="elbow_{s}"/>
        <site name="wrist_{s}" pos="{size(0, 0, -ARM["fore"])}"/>
        <site name="hand_{s}" pos="{size(0, 0, -ARM["fore"] - ARM["hand"])}"/>
        {capsule(size(0, 0, -ARM["fore"] - 0.05), 0.035, 0.022)}</body></body>"""
        leg = f"""<body pos="{size(0, sign * LEG["aside"], -LEG["down"])}">
        {_hinge(f"hip_{s}", "0 -1 0")}{_hinge(f"hab_{s}", f"{sign} 0 0")}<site name="hip_{s}"/>
        {capsule(size(0, 0, -LEG["thigh"]), 0.07, 0.1)}<body pos="{size(0, 0, -LEG["thigh"])}">
        {_hinge(f"kn_{s}", "0 1 0")}<site name="knee_{s}"/>{capsule(size(0, 0, -LEG["shank"]), 0.05, 0.0465)}
        <body pos="{size(0, 0, -LEG["shank"])}">{_hinge(f"an_{s}", "0 1 0")}<site name="ankle_{s}"/>
        <site name="foot_{s}" pos="{size(LEG["ahead"], 0, -LEG["sole"])}"/>
        {capsule(size(LEG["ahead"], 0, -LEG["sole"]), 0.035, 0.0145)}</body></body></body>"""
        return arm, leg

    (arm_l, leg_l), (arm_r, leg_r) = limbs("l", 1), limbs("r", -1)
    boxes = "".join(
        f'<geom type="box" pos="{b.centre_m[0]} {b.centre_m[1]} {b.centre_m[2]}" euler="0 0 {b.yaw}"'
        f' size="{b.half_m[0]} {b.half_m[1]} {b.half_m[2]}" class="room"/>'
        for b in room.boxes
    )
    half = 0.05 * height_m
    sensors = f"""<accelerometer site="waist"/><accelerometer site="wrist_{_WATCH}"/>"""
    return mujoco.MjModel.from_xml_string(f"""<mujoco><compiler angle="radian"/>
    <option timestep="{_STEP_S}" integrator="implicitfast"/>
    <default><joint type="hinge" damping="2.5" armature="0.02" limited="true" solreflimit="0.05 1"/>
    <default class="body"><geom contype="1" conaffinity="2" solref="0.05 1" friction="0.7"/></default>
    <default class="room"><geom contype="2" conaffinity="1" solref="0.05 1" friction="0.7"/></default></default>
    <worldbody>{boxes}<body name="pelvis"><freejoint/><site name="pelvis"/>
    <site name="waist" pos="0.09 0 0"/>
    {capsule(f"0 {half} 0", 0.10, 0.142, f"0 -{half} 0")}{leg_l}{leg_r}
    <body name="trunk" pos="{size(0, 0, SPINE["navel"])}"><site name="navel"/>
    {_hinge("twist", "0 0 1")}{_hinge("side", "1 0 0")}{_hinge("spine", "0 1 0")}
    <site name="chest" pos="{size(0, 0, SPINE["chest"])}"/>{capsule(size(0, 0, 0.13), 0.11, 0.355)}
    <body pos="{size(0, 0, SPINE["chest"])}">{arm_l}{arm_r}
    <body pos="{size(0, 0, SPINE["neck"])}">{_hinge("nod", "0 1 0")}<site name="neck"/>
    <site name="head" pos="{size(0.01, 0, SPINE["head"])}"/>
    <geom type="sphere" pos="{size(0.01, 0, SPINE["head"])}" size="0.095" class="body"
    mass="{0.081 * mass_kg:.3f}"/>
    </body></body></body></body></worldbody><sensor>{sensors}</sensor></mujoco>""")


def drop(play: Play, who: Motion, track: Track, how: str) -> tuple[Track, Floats]:
    """Return what follows the last frame of a track once the person loses hold.

    And what accelerometers at waist and wrist would feel, shape (steps, 6), g, in axes of pelvis and forearm.
    """
    rng = play.rng
    model = _model(play.room, who.height_m, float(rng.uniform(48, 90)))
    data = mujoco.MjData(model)
    angles, turn, _, _ = who.frames[-1]
    earlier = who.frames[-4][0]
    joint = [model.joint(name) for name in ANGLES]
    at, speed = [int(j.qposadr[0]) for j in joint], [int(j.dofadr[0]) for j in joint]
    data.qpos[:3] = track[-1, 0]
    data.qpos[3:7] = turn.as_quat()[[3, 0, 1, 2]]
    data.qpos[at] = np.clip(
        angles, model.jnt_range[[int(j.id) for j in joint], 0], model.jnt_range[[int(j.id) for j in joint], 1]
    )
    data.qvel[:3] = (track[-1, 0] - track[-4, 0]) * FPS / 3
    data.qvel[speed] = (angles - earlier) * FPS / 3
    stiff = np.array([_STIFF.get(name.split("_")[0], 300.0) for name in ANGLES])
    target = angles.copy()
    ahead = np.append(turn.apply([1, 0, 0])[:2], 0)
    ahead /= max(float(np.linalg.norm(ahead)), 0.1)
    aside = np.array([-ahead[1], ahead[0], 0]) * rng.normal(0, 0.6)
    if how == "trip":
        target[[ANGLES.index(f"sh_{s}") for s in "lr"]] = rng.uniform(0.6, 1.6)  # arms reach out
    push, fade_s, feet, trunk = {
        "trip": (rng.uniform(150, 300), rng.uniform(0.3, 0.7), -0.7, 1.0),
        "slip": (rng.uniform(150, 300), rng.uniform(0.3, 0.7), 0.8, -0.9),
        "faint": (rng.uniform(0, 40), rng.uniform(0.1, 0.5), 0.0, rng.choice([-1.0, 1.0])),
        "slump": (rng.uniform(50, 130), rng.uniform(0.4, 1.5), 0.0, 1.0),
    }[how]
    least = rng.uniform(0.0, 0.12)
    pushed_s = 0.2 if how in {"trip", "slip"} else rng.uniform(0.5, 1.2)
    foot, chest = int(model.site("foot_l").bodyid[0]), int(model.body("trunk").id)
    sites = [int(model.site(name).id) for name in JOINTS]
    out, felt = [], []
    steps = round(1 / FPS / _STEP_S)
    for frame in range(round(rng.uniform(3.5, 4.5) * FPS)):
        for n in range(steps):
            t = frame / FPS + n * _STEP_S
            tone = max(least, float(np.exp(-t / fade_s)))
            pull = stiff * (target - data.qpos[at]) - 0.08 * stiff * data.qvel[speed]
            data.qfrc_applied[speed] = tone * np.clip(pull, -0.6 * stiff, 0.6 * stiff)
            data.xfrc_applied[:] = 0
            if t < pushed_s:
                data.xfrc_applied[chest, :3] = push * (trunk * ahead + aside)
                data.xfrc_applied[foot, :3] = push * feet * ahead
            mujoco.mj_step(model, data)
            felt.append(data.sensordata / STANDARD_GRAVITY)
        mujoco.mj_kinematics(model, data)
        out.append(data.site_xpos[sites].copy())
    return np.array(out), np.array(felt)


def worn(felt_g: Floats, before_s: float, after_s: float, rng: np.random.Generator) -> Floats:
    """Return what a device would have recorded at 50 Hz of the whole clip, shape (samples, 6), g.

    Strap and tissue are a low-pass between 8 and 14 Hz, which was chosen so that peaks are as high as in recorded
    falls. Before and after the physics it is still: how one walks is not simulated.
    """
    first, last = felt_g[:1], felt_g[-100:].mean(axis=0, keepdims=True)
    first = np.concatenate([first[:, k : k + 3] / np.linalg.norm(first[:, k : k + 3]) for k in (0, 3)], axis=1)
    parts = [(first, before_s), (last, after_s)]
    before, after = (np.repeat(value, round(seconds / _STEP_S), axis=0) for value, seconds in parts)
    sos = butter(2, rng.uniform(8, 14), fs=1 / _STEP_S, output="sos")
    start = sosfilt_zi(sos)[:, :, None] * first
    smooth_g, _ = sosfilt(sos, np.concatenate([before, felt_g, after]), axis=0, zi=start)
    sampled = smooth_g[:: round(1 / ACCEL_HZ / _STEP_S)]
    return np.asarray(np.clip(sampled + rng.normal(0, 0.01, sampled.shape), -RANGE_G, RANGE_G), np.float64)


def fall(how: str, rng: np.random.Generator) -> Play:
    """Trip, slip, faint or slump, and stay where one ends."""
    seat = rng.choice(["bed", "chair"]) if how == "slump" else ""
    play = stage(rng, bed=seat == "bed" or bool(rng.random() < 0.4), chair=seat == "chair")
    if seat == "bed":
        side = side_of(play)
        assert play.bed is not None
        who = sit_on_bed(play, play.person(beside(play.bed, side)), side)
    elif seat == "chair":
        chair = play.chair
        assert chair is not None
        who = (
            play.person(before(chair)).face(heading(chair, 0, -1)).to({"spine": 0.6, **both(hip=1.2, kn=1.2)}, 0.8)
        )
        who.to(SIT, 0.7, xy=chair.in_room(np.array([0, -0.05])), on=1.0)
    else:
        who = start(play)
        for _ in range(rng.integers(1, 3)):
            who.walk(play.spot(near=who.xy, within_m=3), speed_mps=rng.uniform(0.6, 1.2))
        if how != "faint" or rng.random() < 0.3:  # in the middle of a step
            del who.frames[-round(rng.uniform(0.6, 1.0) * FPS) :]
    if how in {"faint", "slump"}:
        who.hold(rng.uniform(1, 5))
    upright = play.done(who)
    down, felt_g = drop(play, who, upright, how)
    still = np.repeat(down[-1:], round(rng.uniform(4, 20) * FPS), axis=0)
    lying = relax(stirring(still, rng), play.room.support, rounds=4, length_of=still)
    fade = np.minimum(1, np.arange(len(still)) / FPS)[:, None, None]
    track = np.concatenate([upright, down, still + fade * (lying - still)])
    around = slice(max(0, len(upright) - 6), len(upright) + 6)
    track[around] = smooth(track[around], 0.7)  # the figure's sway ends where the physics begin
    play.tracks.append(track)
    play.accel_g = worn(felt_g, len(upright) / FPS, len(still) / FPS, rng.spawn(1)[0])
    play.is_uncontrolled = True
    return play
