BEGIN TRANSACTION;
CREATE TABLE cursor (name TEXT PRIMARY KEY, seq INTEGER NOT NULL);
CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    incident TEXT NOT NULL REFERENCES incident (id),
    kind TEXT NOT NULL, at TEXT NOT NULL, boot TEXT NOT NULL, mono_s REAL NOT NULL, body TEXT NOT NULL);
INSERT INTO "event" VALUES(1,'01a22ff4-e7a4-7d37-bf2b-1bbfa50d6cd1','raised','2026-12-01T04:55:08.964Z','0c6e2f78-53b6-4909-9628-da980d041668',11187.292,'{}');
INSERT INTO "event" VALUES(2,'01a22ff4-e7a4-7d37-bf2b-1bbfa50d6cd1','acknowledged','2026-12-01T04:55:08.966Z','0c6e2f78-53b6-4909-9628-da980d041668',11187.2941,'{"by": "anna"}');
INSERT INTO "event" VALUES(3,'01a22ff4-e7a4-7d37-bf2b-1bbfa50d6cd1','resolved','2026-12-01T04:55:08.967Z','0c6e2f78-53b6-4909-9628-da980d041668',11187.2945,'{"outcome": "fall", "by": "anna"}');
INSERT INTO "event" VALUES(4,'01a22ff4-e7b1-7a87-831e-5d751fa9e94d','raised','2026-12-01T04:55:08.978Z','0c6e2f78-53b6-4909-9628-da980d041668',11187.3056,'{}');
CREATE TABLE incident (id TEXT PRIMARY KEY, body TEXT NOT NULL, closed INTEGER NOT NULL DEFAULT 0);
INSERT INTO "incident" VALUES('01a22ff4-e7a4-7d37-bf2b-1bbfa50d6cd1','{"incident": "01a22ff4-e7a4-7d37-bf2b-1bbfa50d6cd1", "home": "rosewood", "kind": "fall", "raised_at": "2026-12-01T04:55:08.964Z", "impact_at": "2026-12-01T04:55:08.964Z", "clock_ok": true, "resident": "r12", "room": "12", "bed": "A", "wearable": "0042", "placement": "wrist", "probability": 0.97, "model": "wrist-1", "cause": null, "drill": false}',1);
INSERT INTO "incident" VALUES('01a22ff4-e7b1-7a87-831e-5d751fa9e94d','{"incident": "01a22ff4-e7b1-7a87-831e-5d751fa9e94d", "home": "rosewood", "kind": "fall", "raised_at": "2026-12-01T04:55:08.964Z", "impact_at": "2026-12-01T04:55:08.964Z", "clock_ok": true, "resident": "r12", "room": "12", "bed": "A", "wearable": "0042", "placement": "wrist", "probability": 0.97, "model": "wrist-1", "cause": null, "drill": false}',0);
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
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('event',4);
COMMIT;
PRAGMA user_version = 1;
