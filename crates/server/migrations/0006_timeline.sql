-- For people who look into a vehicle's conversation; null for messages that came before.
ALTER TABLE inbound_message ADD COLUMN size_bytes BIGINT;
ALTER TABLE inbound_message ADD COLUMN clock_skew_ms BIGINT;
-- The beginning, at most 4 KiB.
ALTER TABLE inbound_message ADD COLUMN payload TEXT;
CREATE INDEX command_vehicle ON command (vehicle_id, queued_at);
