BEGIN TRANSACTION;
CREATE TABLE cursor (name TEXT PRIMARY KEY, seq INTEGER NOT NULL);
CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    incident TEXT NOT NULL REFERENCES incident (id),
    kind TEXT NOT NULL, at TEXT NOT NULL, boot TEXT NOT NULL, mono_s REAL NOT NULL, body TEXT NOT NULL);
INSERT INTO "event" VALUES(1,'01a22ff4-e856-75e8-9a73-14ed83183797','raised','2026-12-01T04:55:09.142Z','0c6e2f78-53b6-4909-9628-da980d041668',11187.4699,'{"clock_ok": false}');
INSERT INTO "event" VALUES(2,'01a22ff4-e856-75e8-9a73-14ed83183797','acknowledged','2026-12-01T04:55:09.144Z','0c6e2f78-53b6-4909-9628-da980d041668',11187.4718,'{"by": "anna", "clock_ok": false}');
INSERT INTO "event" VALUES(3,'01a22ff4-e856-75e8-9a73-14ed83183797','resolved','2026-12-01T04:55:09.145Z','0c6e2f78-53b6-4909-9628-da980d041668',11187.4724,'{"outcome": "fall", "by": "anna", "clock_ok": false}');
INSERT INTO "event" VALUES(4,'01a22ff4-e863-7414-aeb7-63a18851d74e','raised','2026-12-01T04:55:09.156Z','0c6e2f78-53b6-4909-9628-da980d041668',11187.4836,'{"clock_ok": false}');
CREATE TABLE incident (id TEXT PRIMARY KEY, body TEXT NOT NULL, closed INTEGER NOT NULL DEFAULT 0);
INSERT INTO "incident" VALUES('01a22ff4-e856-75e8-9a73-14ed83183797','{"incident": "01a22ff4-e856-75e8-9a73-14ed83183797", "home": "rosewood", "kind": "fall", "raised_at": "2026-12-01T04:55:09.142Z", "impact_at": "2026-12-01T04:55:09.142Z", "clock_ok": true, "resident": "r12", "room": "12", "bed": "A", "wearable": "0042", "placement": "wrist", "probability": 0.97, "model": "wrist-1", "cause": null, "fault": false, "drill": false}',1);
INSERT INTO "incident" VALUES('01a22ff4-e863-7414-aeb7-63a18851d74e','{"incident": "01a22ff4-e863-7414-aeb7-63a18851d74e", "home": "rosewood", "kind": "fall", "raised_at": "2026-12-01T04:55:09.142Z", "impact_at": "2026-12-01T04:55:09.142Z", "clock_ok": true, "resident": "r12", "room": "12", "bed": "A", "wearable": "0042", "placement": "wrist", "probability": 0.97, "model": "wrist-1", "cause": null, "fault": false, "drill": false}',0);
CREATE TABLE note (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL, at TEXT NOT NULL, boot TEXT NOT NULL, mono_s REAL NOT NULL, body TEXT NOT NULL);
CREATE TABLE outbox (
    key TEXT PRIMARY KEY, sink TEXT NOT NULL, incident TEXT NOT NULL, body BLOB NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting', reason TEXT NOT NULL DEFAULT '', at TEXT NOT NULL);
CREATE TABLE shadow_alarm (
    model TEXT NOT NULL, wearable TEXT NOT NULL, resident TEXT NOT NULL, impact_at TEXT NOT NULL,
    raised_at TEXT NOT NULL, probability REAL NOT NULL, long_lie INTEGER NOT NULL);
CREATE TABLE wear (
    model TEXT NOT NULL, shadow INTEGER NOT NULL, placement TEXT NOT NULL, wearable TEXT NOT NULL,
    begun_at TEXT NOT NULL, until_at TEXT NOT NULL, worn_s REAL NOT NULL,
    PRIMARY KEY (model, shadow, wearable, begun_at));
CREATE INDEX incident_open ON incident (closed) WHERE closed = 0;
CREATE INDEX event_incident ON event (incident, seq);
CREATE INDEX outbox_waiting ON outbox (sink, state);
CREATE INDEX note_kind ON note (kind, seq);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('event',4);
COMMIT;
PRAGMA user_version = 1;
