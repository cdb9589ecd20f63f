-- How a campaign goes out: waves, the rule that stops it, how many vehicles at once. JSON; none = all at once.
ALTER TABLE campaign ADD COLUMN rollout TEXT;
-- How far it has come: JSON; none = not at all.
ALTER TABLE campaign ADD COLUMN gate TEXT;
ALTER TABLE campaign ADD COLUMN stopped_at BIGINT;
ALTER TABLE campaign ADD COLUMN stop_reason TEXT;

ALTER TABLE vehicle_update ADD COLUMN wave BIGINT NOT NULL DEFAULT 1;
-- 1 while the vehicle waits at its campaign's gate.
ALTER TABLE vehicle_update ADD COLUMN at_gate BIGINT;
CREATE INDEX vehicle_update_at_gate ON vehicle_update (campaign_name, wave, id) WHERE at_gate IS NOT NULL;

-- Kept with every change of a vehicle update, so that nobody has to count. Several rows with the same first three columns add
-- up: servers that change different vehicles do not wait for each other.
CREATE TABLE campaign_counter (
    campaign_name TEXT NOT NULL REFERENCES campaign (name),
    wave          BIGINT NOT NULL,
    standing      TEXT NOT NULL,
    shard         BIGINT NOT NULL,
    vehicles      BIGINT NOT NULL,
    PRIMARY KEY (campaign_name, wave, standing, shard)
);
INSERT INTO campaign_counter (campaign_name, wave, standing, shard, vehicles)
SELECT campaign_name, 1, standing, 0, COUNT(*) FROM (
    SELECT campaign_name, CASE
        WHEN state = 'verifying' AND data LIKE '%"cause":{"cause":"deadline_passed"}%' THEN 'overdue'
        WHEN state = 'rolled_back' AND data LIKE '%"cause":{"cause":"consent_denied"}%' THEN 'declined'
        ELSE state END AS standing FROM vehicle_update
) AS standings GROUP BY campaign_name, standing;
