-- What became of the attempts of a vehicle update so far, as JSON; none = no attempt has failed.
ALTER TABLE vehicle_update ADD COLUMN attempts TEXT;

-- Attempts that failed, of vehicles that do not run the release since.
CREATE TABLE failed_attempt (
    attempt_id    TEXT PRIMARY KEY,
    vehicle_id    TEXT NOT NULL REFERENCES vehicle (vehicle_id),
    release_name  TEXT NOT NULL REFERENCES release (name),
    campaign_name TEXT NOT NULL REFERENCES campaign (name),
    code          TEXT NOT NULL,
    at            BIGINT NOT NULL
);
CREATE INDEX failed_attempt_vehicle ON failed_attempt (vehicle_id, release_name);

-- Vehicles that no campaign begins a release on, since they failed it too often.
CREATE TABLE set_aside (
    vehicle_id    TEXT NOT NULL REFERENCES vehicle (vehicle_id),
    release_name  TEXT NOT NULL REFERENCES release (name),
    failures      BIGINT NOT NULL,
    campaign_name TEXT NOT NULL REFERENCES campaign (name),
    code          TEXT NOT NULL,
    at            BIGINT NOT NULL,
    PRIMARY KEY (vehicle_id, release_name)
);
CREATE INDEX set_aside_release ON set_aside (release_name, vehicle_id);
