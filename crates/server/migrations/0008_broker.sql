-- Vehicles that are reached through an outside broker: since when this one has been there as far as is known; NULL
-- when the broker has said that nobody listens, and before it was first heard.
ALTER TABLE vehicle ADD COLUMN there_since BIGINT;

-- Until when one server has a command to itself that it hands to the broker.
ALTER TABLE command ADD COLUMN taken_until BIGINT;
