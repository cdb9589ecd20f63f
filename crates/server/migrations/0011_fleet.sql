-- What operators know of a vehicle; which VCI stands in vehicle_ecu, and the region that it names.
ALTER TABLE vehicle ADD COLUMN vin TEXT;
ALTER TABLE vehicle ADD COLUMN region TEXT;
ALTER TABLE vehicle ADD COLUMN time_zone TEXT;
ALTER TABLE vehicle ADD COLUMN reported_region TEXT;
ALTER TABLE vehicle ADD COLUMN indexed_digest TEXT;
CREATE UNIQUE INDEX vehicle_vin ON vehicle (vin) WHERE vin IS NOT NULL;
CREATE INDEX vehicle_region ON vehicle (COALESCE(region, reported_region), vehicle_id);
-- Those whose VCI was written by a version that did not know vehicle_ecu.
CREATE INDEX vehicle_to_index ON vehicle (vehicle_id)
WHERE vci_digest IS NOT NULL AND (indexed_digest IS NULL OR indexed_digest <> vci_digest);

CREATE TABLE vehicle_tag (
    vehicle_id TEXT NOT NULL REFERENCES vehicle (vehicle_id),
    tag        TEXT NOT NULL,
    PRIMARY KEY (vehicle_id, tag)
);
CREATE INDEX vehicle_tag_vehicles ON vehicle_tag (tag, vehicle_id);

-- The keys stand in the order of the versions, by their bytes.
CREATE TABLE vehicle_ecu (
    vehicle_id         TEXT NOT NULL REFERENCES vehicle (vehicle_id),
    ecu_id             TEXT NOT NULL,
    supplier_code      TEXT,
    hw_part_no         TEXT,
    sw_part_no         TEXT,
    sw_version         TEXT,
    sw_version_key     TEXT COLLATE BINARY,
    bootloader_ver     TEXT,
    bootloader_ver_key TEXT COLLATE BINARY,
    calibration_id     TEXT,
    mac_address        TEXT,
    ip_address         TEXT,
    can_id             TEXT,
    domain             TEXT,
    zone               TEXT,
    PRIMARY KEY (vehicle_id, ecu_id)
);
CREATE INDEX vehicle_ecu_hardware ON vehicle_ecu (hw_part_no, sw_version_key, vehicle_id);
CREATE INDEX vehicle_ecu_software ON vehicle_ecu (sw_part_no, sw_version_key, vehicle_id);
CREATE INDEX vehicle_ecu_id ON vehicle_ecu (ecu_id, sw_version_key, vehicle_id);

-- What a vehicle ran, by its VCIs; the one that it runs has no end yet: vehicle.vci_received_at says when it was last seen.
CREATE TABLE vehicle_configuration (
    vehicle_id    TEXT NOT NULL REFERENCES vehicle (vehicle_id),
    number        BIGINT NOT NULL,
    vci_digest    TEXT NOT NULL,
    first_seen_at BIGINT NOT NULL,
    last_seen_at  BIGINT,
    vci           TEXT NOT NULL,
    PRIMARY KEY (vehicle_id, number)
);
INSERT INTO vehicle_configuration (vehicle_id, number, vci_digest, first_seen_at, vci)
SELECT v.vehicle_id, 1, v.vci_digest, COALESCE(v.vci_received_at, v.enrolled_at), i.vci
FROM vehicle v JOIN vehicle_inventory i ON i.vehicle_id = v.vehicle_id WHERE v.vci_digest IS NOT NULL;

-- The bindings that a vehicle had before the one that it has.
CREATE TABLE vehicle_binding (
    vehicle_id TEXT NOT NULL REFERENCES vehicle (vehicle_id),
    number     BIGINT NOT NULL,
    gateway_id TEXT NOT NULL,
    thumbprint TEXT,
    since      BIGINT NOT NULL,
    until      BIGINT NOT NULL,
    reason     TEXT NOT NULL,
    PRIMARY KEY (vehicle_id, number)
);

CREATE TABLE fleet_group (
    name       TEXT PRIMARY KEY,
    query      TEXT NOT NULL,
    note       TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
