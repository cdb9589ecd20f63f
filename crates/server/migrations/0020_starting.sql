-- A campaign that has started takes in its vehicles some at a time: how far it has come, as JSON; none = all are in.
ALTER TABLE campaign ADD COLUMN starting TEXT;
CREATE INDEX campaign_starting ON campaign (name) WHERE starting IS NOT NULL;
