-- Deltas that are not offered to a vehicle again: what was tried with them failed or fell silent.
CREATE TABLE avoided_delta (
    vehicle_id TEXT NOT NULL REFERENCES vehicle (vehicle_id),
    sha256     TEXT NOT NULL,
    avoided_at BIGINT NOT NULL,
    PRIMARY KEY (vehicle_id, sha256)
);

-- The update whose StartDownload was a vehicle's last; attempt ids sort by time.
CREATE INDEX vehicle_update_attempt ON vehicle_update (vehicle_id, attempt_id) WHERE attempt_id IS NOT NULL;

-- Vehicles that stayed silent are asked again after a while now, not only at their next WakeUp.
UPDATE vehicle_update SET due_at = updated_at
    WHERE state = 'waiting' AND (data LIKE '%"vehicle_silent"%' OR data LIKE '%"vehicle_clock"%');
