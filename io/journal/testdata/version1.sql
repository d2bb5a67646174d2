-- A journal as the first version left it.
CREATE TABLE runs (
	id          TEXT PRIMARY KEY,
	job         TEXT NOT NULL,
	fingerprint TEXT NOT NULL,
	job_file    BLOB NOT NULL, -- JSON
	started     INTEGER NOT NULL, -- microseconds since 1970
	ended       INTEGER,
	state       TEXT NOT NULL,
	splits      INTEGER, -- of the plan; NULL: none is stored
	rows        INTEGER,
	bytes       INTEGER,
	report      BLOB -- JSON
) STRICT;
CREATE TABLE chunks (
	run    TEXT NOT NULL REFERENCES runs,
	n      INTEGER NOT NULL,
	splits BLOB NOT NULL, -- JSON
	PRIMARY KEY (run, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE beats (
	run      TEXT NOT NULL REFERENCES runs,
	worker   TEXT NOT NULL,
	at       INTEGER NOT NULL,
	progress BLOB NOT NULL, -- JSON
	PRIMARY KEY (run, worker)
) STRICT, WITHOUT ROWID;
CREATE TABLE failures (
	run     TEXT NOT NULL REFERENCES runs,
	at      INTEGER NOT NULL,
	class   INTEGER NOT NULL,
	code    TEXT NOT NULL,
	message TEXT NOT NULL,
	fix     TEXT NOT NULL,
	exit    INTEGER NOT NULL
) STRICT;
INSERT INTO runs VALUES ('r1', 'backfill', 'f', x'7b7d', 1700000000000001, 1700000000000002, 'failed', 2, 10, 20, x'7b7d');
INSERT INTO chunks VALUES ('r1', 0, CAST('[{"partition":"a"},{"partition":"b"}]' AS BLOB));
INSERT INTO beats VALUES ('r1', 'w1', 1700000000000001, x'7b7d');
INSERT INTO failures VALUES ('r1', 1700000000000002, 1, 'kafka.unreachable', 'no broker', 'start it', 3);
PRAGMA user_version = 1;
