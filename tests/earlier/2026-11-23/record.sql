BEGIN TRANSACTION;
CREATE TABLE identifier (
    type TEXT NOT NULL, token TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (type, token));
CREATE TABLE resource (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    type TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL,
    incident TEXT NOT NULL, room TEXT NOT NULL, body TEXT NOT NULL,
    UNIQUE (type, id, version));
DELETE FROM "sqlite_sequence";
COMMIT;
PRAGMA user_version = 0;
