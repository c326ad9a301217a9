"""The line of explanation that set-up writes above each key: the words of docs/settings.md, kept here alone."""

from __future__ import annotations

from collections.abc import Mapping

TOP = """\
The settings of this home, written by fallwatch setup; run it again, or change them here.
They are read when a service starts: sudo systemctl restart fallwatch.target
Units are in the keys: _s is seconds. Keys and passwords are in the folder secrets beside this file.\
"""

COMMENTS: Mapping[str, str] = {
    "home.id": "The home in messages and in the record: letters, digits, ., _, -. Do not change it later.",
    "home.name": "For people. It is not sent anywhere.",
    "home.timezone": "For the times on pagers.",
    "dongle.port": "Its serial port, by a name that stays, as in /dev/serial/by-id/.",
    "resident.id": "The resident in messages: an id of the home's choice, not a name.",
    "resident.room": "Where staff go, as written on the pager.",
    "resident.bed": "The bed, in shared rooms.",
    "resident.nhs_number": "Ten digits; finds the resident in the care record, and goes nowhere else.",
    "resident.local_id": "The home's own number, for a resident without an NHS number",
    "resident.wearable": "Id printed on the wearable, 1 to 8 letters, digits or -.",
    "resident.spare": "A second wearable, worn while the first charges.",
    "resident.placement": 'Where it is worn: "wrist" or "waist".',
    "resident.cover": 'What staff decided for them: "must" calls the pager while they are not protected; '
    '"should" shows and counts it; "none" expects neither wearable nor camera.',
    "pager.name": "For status, MQTT and pages; espa-1, sms-1 by order within the kind when left out.",
    "pager.addresses": "The number of a group on this channel, where it is another",
    "pager.espa444.kind": "ESPA 4.4.4, which most paging systems and nurse-call panels understand.",
    "pager.tap.kind": "TAP 1.8, also called IXO.",
    "pager.snpp.kind": "A paging server by SNPP (RFC 1861).",
    "pager.relay.kind": "A contact into a spare input of the nurse-call system.",
    "pager.sms.kind": "Text messages by a modem, through gammu-smsd on this machine.",
    "pager.scaip.kind": "An alarm receiving centre by SCAIP (SS 91100, CLC/TS 50134-9).",
    "pager.ntfy.kind": "Telephones by an ntfy server.",
    "pager.webhook.kind": "A program of your own, told of each call in JSON.",
    "pager.espa444.port": "Serial port.",
    "pager.espa444.url": 'A serial server on the network, "tcp://host:port".',
    "pager.espa444.baud": "Speed of the line in bit/s.",
    "pager.espa444.format": 'Data bits, parity, stop bits: such as "8N1" or "7E2".',
    "pager.espa444.station": "The paging system's address on the line, one digit.",
    "pager.espa444.variant": 'What comes before a page: "poll-select", "select", or "block" for nothing.',
    "pager.tap.port": "Serial port.",
    "pager.tap.url": 'A serial server on the network, "tcp://host:port".',
    "pager.tap.baud": "Speed of the line in bit/s.",
    "pager.tap.format": 'Data bits, parity, stop bits: such as "8N1" or "7E2".',
    "pager.snpp.host": "The paging server.",
    "pager.relay.line": "Number of the line on it.",
    "pager.scaip.host": "The alarm receiving centre's SIP host.",
    "pager.scaip.controller": "Our id, as the centre gave it out.",
    "pager.ntfy.url": "The server, best in the home itself.",
    "pager.webhook.url": "The address.",
    "escalation.groups": "Pagers or groups: the first is called at once, one more joins at each step.",
    "escalation.steps_s": "When the next joins, in seconds from the incident, while nobody has acknowledged.",
    "record.kind": '"embedded": a small record on this machine. "fhir-r4": a FHIR R4 server.',
    "record.base_url": 'The server\'s FHIR address; needed for "fhir-r4".',
    "record.auth": '"none", "bearer" (a fixed token), or "smart-backend" (SMART Backend Services).',
    "record.token_file": 'File of the token in the secrets folder; needed for "bearer".',
    "record.client_id": 'For "smart-backend": as the record\'s operator knows us.',
    "record.key_file": 'For "smart-backend": PEM file of the private key in the secrets folder.',
    "record.identifier_system": "Beginning of our own identifier systems. "
    "Choose one of the home's before the first incident, and keep it.",
    "record.patient_local_system": "Identifier system of local_id; without it that number is not used.",
    "mqtt.host": "The broker.",
    "mqtt.port": "Its port; 8883 is usual with TLS.",
    "mqtt.tls": "Whether to use TLS, which checks the broker's certificate.",
    "mqtt.ca_file": "Certificate that signed the broker's, where it is the home's own. A full path.",
    "mqtt.username": "Login at the broker.",
    "mqtt.password_file": "File of the password in the secrets folder.",
    "wearable.id": "Its id, as at the resident.",
    "wearable.kind": '"bangle" (Bangle.js 2 with our app), "polar", "witmotion-ble" by Bluetooth; '
    '"witmotion", "shimmer" by a serial line; "mqtt" for samples that come unsealed by the broker.',
    "wearable.address": 'Its Bluetooth address, such as "A0:9E:1A:00:00:42".',
    "wearable.port": 'Its serial port, such as "/dev/serial/by-id/usb-witmotion".',
    "ble.adapter": "The Bluetooth radio to use, as bluetoothctl list and the kernel name it.",
    "camera.id": 'The camera in messages, such as "cam-12": letters, digits, ., _, -.',
    "camera.room": "Where it hangs, and where staff go: the room of a resident, or one of a [[zone]].",
    "camera.kind": '"orbbec", "oak", "arducam", "realsense", "v4l2" (any with 16-bit depth as Y16), '
    'or "folder" (recorded images, for trying it).',
    "camera.device": "Its serial number or path, as fallwatch camera find shows it.",
    "camera.resident": "Whose room it is: a fall seen there is theirs.",
    "camera.consent.kind": '"consent": the resident\'s own. '
    '"best-interests": a decision made for somebody who cannot give it.',
    "camera.consent.given": "The day of the record, a date without quotes.",
    "camera.consent.review": "The day of its review.",
}
