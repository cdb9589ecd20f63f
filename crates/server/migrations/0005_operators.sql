ALTER TABLE operator_token ADD COLUMN scope TEXT NOT NULL DEFAULT 'admin';
ALTER TABLE operator_token ADD COLUMN created_by TEXT;
ALTER TABLE operator_token ADD COLUMN expires_at BIGINT;
ALTER TABLE operator_token ADD COLUMN revoked_at BIGINT;
-- A name stands for one token for ever: the audit log names it.
CREATE UNIQUE INDEX operator_token_name ON operator_token (name);

CREATE TABLE audit_entry (
    seq             BIGINT PRIMARY KEY,
    at              BIGINT NOT NULL,
    actor           TEXT NOT NULL,
    action          TEXT NOT NULL,
    object          TEXT NOT NULL,
    detail          TEXT,
    client          TEXT,
    request_id      TEXT,
    before_sha256   TEXT,
    after_sha256    TEXT,
    previous_sha256 TEXT NOT NULL,
    sha256          TEXT NOT NULL
);

-- The one row says where the chain ends; changing it first puts all who append in a queue.
CREATE TABLE audit_head (
    only_row BIGINT PRIMARY KEY,
    seq      BIGINT NOT NULL,
    sha256   TEXT NOT NULL
);
INSERT INTO audit_head (only_row, seq, sha256)
VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');

-- The same event of the same sender is counted within its hour, not stored again.
CREATE TABLE security_event_by_hour (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,
    subject    TEXT NOT NULL,
    vehicle_id TEXT,
    hour       BIGINT NOT NULL,
    detail     TEXT NOT NULL,
    first_at   BIGINT NOT NULL,
    last_at    BIGINT NOT NULL,
    times      BIGINT NOT NULL,
    UNIQUE (subject, kind, hour)
);
INSERT INTO security_event_by_hour (id, kind, subject, vehicle_id, hour, detail, first_at, last_at, times)
SELECT MIN(id), kind, vehicle_id || '/' || gateway_id, vehicle_id, at / 3600000, MAX(detail), MIN(at), MAX(at), COUNT(*)
FROM security_event GROUP BY kind, vehicle_id, gateway_id, at / 3600000;
DROP TABLE security_event;
ALTER TABLE security_event_by_hour RENAME TO security_event;
CREATE INDEX security_event_vehicle ON security_event (vehicle_id, last_at);
CREATE INDEX security_event_age ON security_event (last_at);
