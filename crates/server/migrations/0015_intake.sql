-- Who is in a campaign: the query that chose its vehicles, whether vehicles that come to match later are taken in, and the
-- campaigns whose vehicles it leaves alone (a JSON list of names).
ALTER TABLE campaign ADD COLUMN selection TEXT;
ALTER TABLE campaign ADD COLUMN follows BIGINT NOT NULL DEFAULT 0;
ALTER TABLE campaign ADD COLUMN excludes TEXT;
CREATE INDEX campaign_follows ON campaign (started_at, name) WHERE follows = 1;

-- In which order: of two campaigns that want a vehicle, the one with the higher number goes first.
ALTER TABLE campaign ADD COLUMN priority BIGINT NOT NULL DEFAULT 500;

-- Who must agree, who planned it and who started it, as the audit log names them.
ALTER TABLE campaign ADD COLUMN needs_approval BIGINT NOT NULL DEFAULT 0;
ALTER TABLE campaign ADD COLUMN made_by TEXT;
ALTER TABLE campaign ADD COLUMN started_by TEXT;

-- What was said of a campaign or of one of its waves; words are added and never changed.
CREATE TABLE campaign_approval (
    campaign_name TEXT NOT NULL REFERENCES campaign (name),
    number        BIGINT NOT NULL,
    wave          BIGINT,
    approved      BIGINT NOT NULL,
    said_by       TEXT NOT NULL,
    at            BIGINT NOT NULL,
    remark        TEXT NOT NULL,
    plan_sha256   TEXT NOT NULL,
    PRIMARY KEY (campaign_name, number)
);
