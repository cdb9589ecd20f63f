-- Campaigns that are paused, or ended by an operator.
ALTER TABLE campaign ADD COLUMN paused_at BIGINT;
ALTER TABLE campaign ADD COLUMN aborted_at BIGINT;
ALTER TABLE campaign ADD COLUMN abort_reason TEXT;

-- After which vehicle the updates of the campaign are still to be looked at, since something changed for all of them.
ALTER TABLE campaign ADD COLUMN look_after TEXT;
CREATE INDEX campaign_look ON campaign (name) WHERE look_after IS NOT NULL;
