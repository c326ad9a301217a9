"""How the building's MQTT broker is dialled, by whoever hears it and whoever tells it."""

from __future__ import annotations

import ssl

import paho.mqtt.client as mqtt

from edge.settings import MqttSettings

_CONNECT_S = 5.0


def prepare(client: mqtt.Client, settings: MqttSettings, password: str | None) -> None:
    """Give a client what the settings say of login and TLS.

    Raises:
        OSError, UnicodeError: the certificate, or the host's name, cannot be used.
    """
    settings.host.encode("idna")
    if settings.username:
        client.username_pw_set(settings.username, password)
    if settings.tls:
        client.tls_set_context(ssl.create_default_context(cafile=settings.ca_file or None))
    client.connect_timeout = _CONNECT_S
    client.suppress_exceptions = True  # a fault in a callback is logged; it must not end the thread


def ping_every_s(settings: MqttSettings) -> int:
    """Return the keepalive for paho, which gives up on a mute broker after two of them.

    With two thirds of ours that is 4/3, under 1.5.
    """
    return max(1, settings.keepalive_s * 2 // 3)
