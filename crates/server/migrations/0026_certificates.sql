-- The certificate that a vehicle last came with: its last moment and its serial number.
ALTER TABLE vehicle ADD COLUMN certificate_ends_at BIGINT;
ALTER TABLE vehicle ADD COLUMN certificate_serial TEXT;
CREATE INDEX vehicle_certificate_end ON vehicle (certificate_ends_at, vehicle_id) WHERE certificate_ends_at IS NOT NULL;

-- Of what ends soon, or has ended, that operators were told: so that a restart does not tell it again.
CREATE TABLE told_expiry (
    subject TEXT NOT NULL,
    path    TEXT NOT NULL,
    ends_at BIGINT NOT NULL,
    is_over BIGINT NOT NULL,
    told_at BIGINT NOT NULL,
    PRIMARY KEY (subject, path, ends_at, is_over)
);

-- The connections of each client, the newest 50: by its id, since a vehicle that connects may not be enrolled yet.
CREATE TABLE vehicle_session (
    client_id TEXT NOT NULL,
    id        TEXT NOT NULL,
    node      TEXT NOT NULL,
    came_at   BIGINT NOT NULL,
    gone_at   BIGINT,
    why       TEXT,
    detail    TEXT,
    PRIMARY KEY (client_id, id)
);
CREATE INDEX vehicle_session_open ON vehicle_session (node) WHERE gone_at IS NULL;
CREATE INDEX vehicle_session_age ON vehicle_session (gone_at) WHERE gone_at IS NOT NULL;
