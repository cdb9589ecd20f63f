-- What a type approval is for: vehicles of one type have the same RXSWINs.
ALTER TABLE vehicle ADD COLUMN vehicle_type TEXT;
CREATE INDEX vehicle_of_type ON vehicle (vehicle_type, vehicle_id);

-- 1 where the record of an update names it: it is kept for ever.
ALTER TABLE vehicle_configuration ADD COLUMN is_evidence BIGINT;

-- What operators state of a campaign for its record, as JSON; never changed.
CREATE TABLE campaign_statement (
    campaign_name TEXT PRIMARY KEY REFERENCES campaign (name),
    statement     TEXT NOT NULL
);

-- What has to be kept of each vehicle update beyond the messages, written when it happens and never changed: JSON by kind.
CREATE TABLE evidence_event (
    id                TEXT PRIMARY KEY,
    vehicle_update_id TEXT NOT NULL REFERENCES vehicle_update (id),
    kind              TEXT NOT NULL,
    at                BIGINT NOT NULL,
    content           TEXT NOT NULL
);
CREATE INDEX evidence_event_of_update ON evidence_event (vehicle_update_id, id);

-- The register of UN R156: the software of each RXSWIN of a vehicle type. A change is a further revision.
CREATE TABLE rxswin_revision (
    vehicle_type TEXT NOT NULL,
    rxswin       TEXT NOT NULL,
    revision     BIGINT NOT NULL,
    content      TEXT NOT NULL,
    recorded_at  BIGINT NOT NULL,
    recorded_by  TEXT NOT NULL,
    PRIMARY KEY (vehicle_type, rxswin, revision)
);
CREATE INDEX rxswin_revision_of_rxswin ON rxswin_revision (rxswin, vehicle_type, revision);

CREATE INDEX audit_entry_object ON audit_entry (object, seq);
