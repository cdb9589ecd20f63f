-- What belongs to a release beside its images, as JSON.
ALTER TABLE release ADD COLUMN rules TEXT NOT NULL DEFAULT '{}';

-- One hardware has several images now, for different suppliers and regions. No database changes a primary key in place
-- by words that the other knows, so the rows move.
CREATE TABLE release_image_of_variant (
    release_name TEXT NOT NULL REFERENCES release (name),
    hw_part_no   TEXT NOT NULL,
    -- Empty for any, which no supplier or region is.
    supplier     TEXT NOT NULL,
    region       TEXT NOT NULL,
    version      TEXT NOT NULL,
    sha256       TEXT NOT NULL REFERENCES image (sha256),
    -- A JSON array.
    rxswins      TEXT NOT NULL,
    PRIMARY KEY (release_name, hw_part_no, supplier, region)
);
INSERT INTO release_image_of_variant (release_name, hw_part_no, supplier, region, version, sha256, rxswins)
    SELECT release_name, hw_part_no, '', '', version, sha256, '[]' FROM release_image;
DROP TABLE release_image;
ALTER TABLE release_image_of_variant RENAME TO release_image;
CREATE INDEX release_image_hardware ON release_image (hw_part_no, version);
CREATE INDEX release_image_sha256 ON release_image (sha256);
CREATE INDEX campaign_release ON campaign (release_name);

-- How many plans would have taken the delta.
ALTER TABLE delta ADD COLUMN wanted_times BIGINT NOT NULL DEFAULT 0;
