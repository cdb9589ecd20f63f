-- Inventories stand beside the vehicles, not in them: what changes with every message is rewritten as a whole row.
CREATE TABLE vehicle_inventory (
    vehicle_id TEXT PRIMARY KEY REFERENCES vehicle (vehicle_id),
    vci        TEXT NOT NULL
);
INSERT INTO vehicle_inventory (vehicle_id, vci) SELECT vehicle_id, vci FROM vehicle WHERE vci IS NOT NULL;
ALTER TABLE vehicle DROP COLUMN vci;
