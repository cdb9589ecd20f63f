-- The release of the newest of a vehicle's updates that ended with it.
ALTER TABLE vehicle ADD COLUMN release_name TEXT;
UPDATE vehicle SET release_name = (
    SELECT c.release_name FROM vehicle_update u JOIN campaign c ON c.name = u.campaign_name
    WHERE u.vehicle_id = vehicle.vehicle_id AND u.state IN ('succeeded', 'up_to_date')
    ORDER BY u.ended_at DESC, u.id DESC LIMIT 1);
CREATE INDEX vehicle_of_release ON vehicle (release_name, vehicle_id) WHERE release_name IS NOT NULL;
CREATE INDEX vehicle_there ON vehicle (vehicle_id) WHERE there_since IS NOT NULL;

-- Bytes of the whole image that a package stands for; none: of the package itself.
ALTER TABLE package_grant ADD COLUMN image_bytes BIGINT;

-- Bytes that the vehicles of a campaign have fetched, and what whole images would have taken. Rows of one campaign add up.
CREATE TABLE campaign_traffic (
    campaign_name TEXT NOT NULL REFERENCES campaign (name),
    shard         BIGINT NOT NULL,
    sent_bytes    BIGINT NOT NULL,
    whole_bytes   BIGINT NOT NULL,
    PRIMARY KEY (campaign_name, shard)
);
INSERT INTO campaign_traffic (campaign_name, shard, sent_bytes, whole_bytes)
SELECT u.campaign_name, 0, SUM(g.served_bytes), SUM(g.served_bytes)
FROM package_grant g JOIN vehicle_update u ON u.id = g.vehicle_update_id GROUP BY u.campaign_name;

-- Samples over time. step_s says how coarse a sample is, and so how long it is kept: it was the first of its minute, quarter of
-- an hour, hour or day.
CREATE TABLE fleet_sample (
    at        BIGINT PRIMARY KEY,
    step_s    BIGINT NOT NULL,
    vehicles  BIGINT NOT NULL,
    connected BIGINT NOT NULL
);
CREATE INDEX fleet_sample_age ON fleet_sample (step_s, at);

CREATE TABLE release_sample (
    at           BIGINT NOT NULL,
    release_name TEXT NOT NULL,
    step_s       BIGINT NOT NULL,
    vehicles     BIGINT NOT NULL,
    PRIMARY KEY (at, release_name)
);
CREATE INDEX release_sample_age ON release_sample (step_s, at);

CREATE TABLE campaign_sample (
    campaign_name TEXT NOT NULL REFERENCES campaign (name),
    at            BIGINT NOT NULL,
    step_s        BIGINT NOT NULL,
    at_release    BIGINT NOT NULL,
    under_way     BIGINT NOT NULL,
    failed        BIGINT NOT NULL,
    waiting       BIGINT NOT NULL,
    ended         BIGINT NOT NULL,
    sent_bytes    BIGINT NOT NULL,
    whole_bytes   BIGINT NOT NULL,
    PRIMARY KEY (campaign_name, at)
);
CREATE INDEX campaign_sample_age ON campaign_sample (step_s, at);
CREATE INDEX campaign_sample_at ON campaign_sample (at);

-- When all updates of a wave were over, to the minute.
CREATE TABLE campaign_wave_end (
    campaign_name TEXT NOT NULL REFERENCES campaign (name),
    wave          BIGINT NOT NULL,
    at            BIGINT NOT NULL,
    PRIMARY KEY (campaign_name, wave)
);

-- Vehicles that were not heard for long when they were last looked at; the one row says after which vehicle the look goes on.
CREATE TABLE silent_vehicle (
    vehicle_id TEXT PRIMARY KEY REFERENCES vehicle (vehicle_id)
);
CREATE TABLE silent_look (
    only_row   BIGINT PRIMARY KEY CHECK (only_row = 1),
    look_after TEXT NOT NULL
);
INSERT INTO silent_look (only_row, look_after) VALUES (1, '');

-- The vehicles of a campaign in one state, a page at a time: without the last column all of them had to be sorted for each page.
DROP INDEX vehicle_update_state;
CREATE INDEX vehicle_update_state ON vehicle_update (campaign_name, state, vehicle_id);

-- What the console counts and lists of the whole fleet.
CREATE INDEX vehicle_update_outcome ON vehicle_update (state, id) WHERE state IN ('inconsistent', 'unknown');
CREATE INDEX failed_attempt_service ON failed_attempt (vehicle_id) WHERE code = 'SERVICE_REQUIRED';
CREATE INDEX webhook_delivery_again ON webhook_delivery (webhook_name) WHERE state = 'waiting' AND attempts > 0;
CREATE INDEX campaign_created ON campaign (created_at, name);
