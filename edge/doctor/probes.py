"""Try one part for real, given its settings alone, while the services do not run: `Finding` says what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge.doctor.finding import Finding
from edge.keys import KeyStore
from edge.settings import (
    BleSettings,
    CameraSettings,
    DongleSettings,
    MqttSettings,
    Settings,
    WearableSettings,
)


def probe_receiver(dongle: DongleSettings, keys: KeyStore, *, wait_s: float) -> Finding:
    """Open a receiver and wait until it speaks and a frame of a paired wearable opens with its key.

    Counters on disk stay as they are, and nothing is sent to a wearable.
    """
    raise NotImplementedError


def probe_bluetooth(
    ble: BleSettings, wearables: Sequence[WearableSettings], keys: KeyStore, *, wait_s: float
) -> Finding:
    """Bring the Bluetooth radio up and wait for a frame of each of its ``wearables``."""
    raise NotImplementedError


def probe_serial_wearable(wearable: WearableSettings, *, wait_s: float) -> Finding:
    """Open the line of a wearable that has one of its own, and wait for samples in its format."""
    raise NotImplementedError


def probe_camera(camera: CameraSettings, *, wait_s: float) -> Finding:
    """Open a camera, where consent lets it look today, and wait for a frame and a floor; no image leaves its process."""
    raise NotImplementedError


def probe_channel(settings: Settings, name: str, *, run: Path | None = None) -> Finding:
    """Send a test page by the channel ``name`` of ``Settings.channel_names``: a pager sounds."""
    raise NotImplementedError


def probe_record(settings: Settings, state: Path) -> Finding:
    """Write a test entry into the care record and withdraw it, and find each resident once."""
    raise NotImplementedError


def probe_broker(mqtt: MqttSettings, password: str | None, *, home: str, wait_s: float = 5.0) -> Finding:
    """Publish a message to the building's broker and hear it back."""
    raise NotImplementedError
