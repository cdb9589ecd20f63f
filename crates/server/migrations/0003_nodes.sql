-- Servers that share this store; one alone on SQLite writes none.
CREATE TABLE node (
    name    TEXT PRIMARY KEY,
    -- Which run of the server: a later one under the same name takes the place.
    run     TEXT NOT NULL,
    seen_at BIGINT NOT NULL
);

-- Which vehicles are connected to which server. A vehicle may for a while be connected to two.
CREATE TABLE presence (
    client_id TEXT NOT NULL,
    node_name TEXT NOT NULL REFERENCES node (name),
    PRIMARY KEY (client_id, node_name)
);
CREATE INDEX presence_node ON presence (node_name);

-- Who makes a delta that is pending; void when that server is gone.
ALTER TABLE delta ADD COLUMN claimed_by TEXT;

-- What is due is claimed in this order.
DROP INDEX vehicle_update_due;
CREATE INDEX vehicle_update_due ON vehicle_update (due_at, id) WHERE due_at IS NOT NULL;
