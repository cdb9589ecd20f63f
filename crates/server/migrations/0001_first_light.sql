-- Only TEXT, BIGINT and DOUBLE PRECISION, times in ms since 1970, ids made by the server: any SQL database takes this.

CREATE TABLE vehicle (
    vehicle_id          TEXT PRIMARY KEY,
    gateway_id          TEXT NOT NULL,
    client_id           TEXT NOT NULL UNIQUE,
    thumbprint          TEXT,
    enrolled_at         BIGINT NOT NULL,
    enrolled_by         TEXT NOT NULL,
    last_seen_at        BIGINT,
    clock_skew_ms       BIGINT,
    boot_id             TEXT,
    boot_seq            TEXT,
    recent_reboots      TEXT NOT NULL,
    quarantined_at      BIGINT,
    quarantine_check_at BIGINT,
    vci                 TEXT,
    vci_digest          TEXT,
    vci_received_at     BIGINT
);
CREATE INDEX vehicle_quarantine_due ON vehicle (quarantine_check_at) WHERE quarantine_check_at IS NOT NULL;

CREATE TABLE inbound_message (
    vehicle_id     TEXT NOT NULL,
    gateway_id     TEXT NOT NULL,
    msg_id         TEXT NOT NULL,
    content_sha256 TEXT NOT NULL,
    message_type   TEXT NOT NULL,
    correlation_id TEXT,
    received_at    BIGINT NOT NULL,
    note           TEXT,
    PRIMARY KEY (vehicle_id, gateway_id, msg_id)
);
CREATE INDEX inbound_message_age ON inbound_message (received_at);

CREATE TABLE refused_message (
    id             TEXT PRIMARY KEY,
    vehicle_id     TEXT NOT NULL,
    gateway_id     TEXT NOT NULL,
    topic          TEXT NOT NULL,
    code           TEXT NOT NULL,
    pointer        TEXT NOT NULL,
    expected       TEXT NOT NULL,
    found          TEXT NOT NULL,
    msg_id         TEXT,
    payload        TEXT NOT NULL,
    payload_sha256 TEXT NOT NULL,
    first_at       BIGINT NOT NULL,
    last_at        BIGINT NOT NULL,
    times          BIGINT NOT NULL,
    UNIQUE (vehicle_id, gateway_id, topic, payload_sha256, code)
);
CREATE INDEX refused_message_age ON refused_message (last_at);
CREATE INDEX refused_message_vehicle ON refused_message (vehicle_id, last_at);

CREATE TABLE security_event (
    id         TEXT PRIMARY KEY,
    vehicle_id TEXT NOT NULL,
    gateway_id TEXT NOT NULL,
    kind       TEXT NOT NULL,
    detail     TEXT NOT NULL,
    at         BIGINT NOT NULL
);
CREATE INDEX security_event_vehicle ON security_event (vehicle_id, at);

CREATE TABLE image (
    sha256     TEXT PRIMARY KEY,
    size_bytes BIGINT NOT NULL,
    signature  TEXT NOT NULL,
    stored_at  BIGINT NOT NULL
);

CREATE TABLE release (
    name       TEXT PRIMARY KEY,
    created_at BIGINT NOT NULL
);

CREATE TABLE release_image (
    release_name TEXT NOT NULL REFERENCES release (name),
    hw_part_no   TEXT NOT NULL,
    version      TEXT NOT NULL,
    sha256       TEXT NOT NULL REFERENCES image (sha256),
    PRIMARY KEY (release_name, hw_part_no)
);

CREATE TABLE campaign (
    name              TEXT PRIMARY KEY,
    release_name      TEXT NOT NULL REFERENCES release (name),
    every_vehicle     BIGINT NOT NULL,
    update_deadline_s BIGINT,
    created_at        BIGINT NOT NULL,
    started_at        BIGINT
);

CREATE TABLE campaign_vehicle (
    campaign_name TEXT NOT NULL REFERENCES campaign (name),
    vehicle_id    TEXT NOT NULL REFERENCES vehicle (vehicle_id),
    PRIMARY KEY (campaign_name, vehicle_id)
);

CREATE TABLE vehicle_update (
    id            TEXT PRIMARY KEY,
    campaign_name TEXT NOT NULL REFERENCES campaign (name),
    vehicle_id    TEXT NOT NULL REFERENCES vehicle (vehicle_id),
    attempt_id    TEXT,
    state         TEXT NOT NULL,
    data          TEXT NOT NULL,
    -- 'waiting', 'active' or 'ended': what has to be found without reading the state.
    phase         TEXT NOT NULL,
    due_at        BIGINT,
    created_at    BIGINT NOT NULL,
    started_at    BIGINT,
    updated_at    BIGINT NOT NULL,
    ended_at      BIGINT,
    UNIQUE (campaign_name, vehicle_id)
);
CREATE INDEX vehicle_update_due ON vehicle_update (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX vehicle_update_vehicle ON vehicle_update (vehicle_id, phase);
CREATE INDEX vehicle_update_state ON vehicle_update (campaign_name, state);

CREATE TABLE vehicle_update_step (
    id                TEXT PRIMARY KEY,
    vehicle_update_id TEXT NOT NULL REFERENCES vehicle_update (id),
    from_state        TEXT NOT NULL,
    to_state          TEXT NOT NULL,
    at                BIGINT NOT NULL
);
CREATE INDEX vehicle_update_step_update ON vehicle_update_step (vehicle_update_id, at);

CREATE TABLE command (
    msg_id            TEXT PRIMARY KEY,
    vehicle_id        TEXT NOT NULL,
    gateway_id        TEXT NOT NULL,
    message_type      TEXT NOT NULL,
    payload           TEXT NOT NULL,
    vehicle_update_id TEXT REFERENCES vehicle_update (id),
    -- Which try this is, for questions outside a vehicle update.
    try_number        BIGINT NOT NULL,
    queued_at         BIGINT NOT NULL,
    send_at           BIGINT NOT NULL,
    expires_at        BIGINT NOT NULL,
    delivered_at      BIGINT,
    closed_at         BIGINT
);
CREATE INDEX command_pending ON command (vehicle_id, gateway_id, send_at, msg_id)
    WHERE delivered_at IS NULL AND closed_at IS NULL;
CREATE INDEX command_open ON command (vehicle_id, message_type, expires_at) WHERE closed_at IS NULL;
CREATE INDEX command_scheduled ON command (send_at) WHERE delivered_at IS NULL AND closed_at IS NULL;
CREATE INDEX command_of_update ON command (vehicle_update_id) WHERE closed_at IS NULL;
CREATE INDEX command_age ON command (expires_at);

CREATE TABLE package_grant (
    vehicle_update_id TEXT NOT NULL REFERENCES vehicle_update (id),
    vehicle_id        TEXT NOT NULL,
    pkg_id            TEXT NOT NULL,
    sha256            TEXT NOT NULL,
    size_bytes        BIGINT NOT NULL,
    open_until        BIGINT NOT NULL,
    served_bytes      BIGINT NOT NULL,
    PRIMARY KEY (vehicle_update_id, pkg_id)
);
CREATE INDEX package_grant_vehicle ON package_grant (vehicle_id, pkg_id, sha256);
CREATE INDEX package_grant_package ON package_grant (pkg_id, sha256);

CREATE TABLE operator_token (
    sha256     TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
