"""Whether a record can be used: asked when a home is set up, and again when somebody wonders."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.settings import RecordSettings, ResidentSettings, Settings
from edge.sinks import SinkError
from edge.sinks.fhir import patient_reference
from edge.sinks.record import CLOCK_TRUST_S, EmbeddedRecord, FhirRecord, open_record

_EXAMPLE_SYSTEM = RecordSettings().identifier_system
_EMBEDDED, _EMBEDDED_REMEDY = "record on this machine", "look at disk space and rights of the state folder"
_OUT_OF_STEP = "ask its operator; until then falls wait on this machine, and go on being paged"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: ``well``, what is to be said of it, and what to do where it is not."""

    what: str
    well: bool
    said: str = ""
    remedy: str = ""


def commission(settings: Settings, secrets: Path, state: Path) -> list[Finding]:
    """Look at everything that a fall needs to reach the record, writing nothing into it.

    Of residents nothing is said but their ids. Where the server is not there, what needs it is left out.
    """
    record = open_record(settings, secrets, state)
    try:
        if isinstance(record, EmbeddedRecord) and not record.path.exists():
            # Begun here, as whoever asks, it might not be the service's to write.
            well = state.is_dir() and os.access(state, os.W_OK)
            said = "none yet: it begins with the first incident" if well else f"{state} is no folder to write in"
            return [Finding(_EMBEDDED, well, said, _EMBEDDED_REMEDY)]
        if isinstance(record, EmbeddedRecord):
            return [_tried(_EMBEDDED, record.check, _EMBEDDED_REMEDY)]
        return _of_server(record, settings)
    finally:
        record.close()


def _of_server(record: FhirRecord, settings: Settings) -> list[Finding]:
    findings = []
    for what, look, remedy in (
        ("reachable", record.reach, "look at base_url, the network and the server's certificate"),
        ("token", record.authorise, "look at auth and its keys in [record], and at the secrets folder"),
        ("FHIR", lambda: _need_r4(record), f"look at base_url; if that is right, {_OUT_OF_STEP}"),
        (
            "reading",
            record.read_own,
            "ask its operator whether our key is known and may read and write our entries",
        ),
    ):
        findings.append(_tried(what, look, remedy))
        if not findings[-1].well:
            return findings
    able, system = record.capabilities(), settings.record.identifier_system
    doubled, missing = ", ".join(able.doubling), ", ".join(able.missing)
    findings += [
        Finding("transactions", able.transaction, "" if able.transaction else able.obstacle, _OUT_OF_STEP),
        Finding("each entry once", not doubled, doubled and f"would be doubled: {doubled}", _OUT_OF_STEP),
        Finding("types of entries", not missing, missing and f"it does not name {missing}", _OUT_OF_STEP),
        Finding("trail", True, _left_out(record)),
        Finding(
            "versions", True, (able.unversioned and "it does not tell when somebody else changes an entry") or ""
        ),
        Finding("clock", True, _clock(record.clock_off_s)),
    ]
    if system == _EXAMPLE_SYSTEM:
        said = "identifier_system is still the example's: choose one of the home's before the first incident"
        findings.append(Finding("identifiers", True, said))
    return findings + [_resident(record, settings.record, resident) for resident in settings.resident]


def _need_r4(record: FhirRecord) -> None:
    version = record.capabilities().fhir_version
    if not version.startswith(("4.0", "4.3")):
        raise SinkError("record", record.capabilities().obstacle)


def _tried(what: str, look: Callable[[], None], remedy: str) -> Finding:
    try:
        look()
    except SinkError as error:
        return Finding(what, False, error.reason, remedy)
    return Finding(what, True)


def _left_out(record: FhirRecord) -> str:
    if record.left_out:
        return f"it takes no ids of ours: {record.left_out} left out, the rest is written"
    unnamed = [name for name in ("Provenance", "AdverseEvent") if name not in record.capabilities().types]
    return f"it does not name {' and '.join(unnamed)}: tried, and left out if refused" if unnamed else ""


def _clock(off_s: float) -> str:
    return f"the server's is {off_s:.0f} s ahead of ours: look at NTP" if abs(off_s) > CLOCK_TRUST_S else ""


def _resident(record: FhirRecord, settings: RecordSettings, resident: ResidentSettings) -> Finding:
    what = f"resident {resident.id}"
    reference = patient_reference(settings, resident)
    if reference is None:
        return Finding(what, True, "no number: entries name no patient, and a person has to put them right")
    remedy = "compare the number with the record's; fallwatch residents import takes them over from a list"
    return _tried(what, lambda: _found(record, reference), remedy)


def _found(record: FhirRecord, reference: str) -> None:
    record.patient(reference)
