-- What changed, in one sequence, for those who follow it. A row gets its number after the transaction that wrote it, so
-- that writers do not wait for each other. Only the newest are kept.
CREATE TABLE change (
    id TEXT PRIMARY KEY COLLATE BINARY,
    seq BIGINT,
    at BIGINT NOT NULL,
    kind TEXT NOT NULL,
    campaign_name TEXT,
    vehicle_id TEXT,
    data TEXT NOT NULL
);
CREATE UNIQUE INDEX change_by_seq ON change (seq);
CREATE INDEX change_without_seq ON change (id) WHERE seq IS NULL;

CREATE TABLE change_head (
    only_row BIGINT PRIMARY KEY CHECK (only_row = 1),
    seq BIGINT NOT NULL
);
INSERT INTO change_head (only_row, seq) VALUES (1, 0);

-- Who wants each step of each vehicle, until when, and from which number on it is written.
CREATE TABLE change_interest (
    name TEXT PRIMARY KEY COLLATE BINARY,
    until BIGINT NOT NULL,
    since_seq BIGINT NOT NULL
);

-- Campaigns of which it was said that all their updates are over.
CREATE TABLE campaign_finished (
    campaign_name TEXT PRIMARY KEY COLLATE BINARY
);
-- Nothing is said of those that were over before; one that is under way leaves the list when it is next looked at.
INSERT INTO campaign_finished (campaign_name) SELECT name FROM campaign WHERE started_at IS NOT NULL;

CREATE TABLE webhook (
    name TEXT PRIMARY KEY COLLATE BINARY,
    url TEXT NOT NULL,
    types TEXT NOT NULL,
    note TEXT,
    secret TEXT NOT NULL,
    earlier_secret TEXT,
    earlier_until BIGINT,
    enabled BIGINT NOT NULL,
    disabled_because TEXT,
    dropped BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE webhook_delivery (
    id TEXT PRIMARY KEY COLLATE BINARY,
    webhook_name TEXT NOT NULL REFERENCES webhook (name),
    event_id TEXT NOT NULL,
    seq BIGINT,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    give_up_at BIGINT NOT NULL,
    next_at BIGINT,
    claimed_until BIGINT NOT NULL DEFAULT 0,
    tried_at BIGINT,
    duration_ms BIGINT,
    status BIGINT,
    outcome TEXT,
    response TEXT
);
CREATE INDEX webhook_delivery_by_webhook ON webhook_delivery (webhook_name, id);
CREATE INDEX webhook_delivery_waiting ON webhook_delivery (webhook_name, next_at, id) WHERE state = 'waiting';
