-- Bytes of the image compressed by zstd; measured when the first delta to it is made.
ALTER TABLE image ADD COLUMN compressed_bytes BIGINT;

-- Versions and hardware of a delta's two images stand in release_image.
CREATE TABLE delta (
    from_sha256  TEXT NOT NULL REFERENCES image (sha256),
    image_sha256 TEXT NOT NULL REFERENCES image (sha256),
    -- 'pending', 'ready', 'not_smaller' or 'failed'.
    state        TEXT NOT NULL,
    -- Why it failed.
    detail       TEXT,
    sha256       TEXT,
    size_bytes   BIGINT,
    signature    TEXT,
    wanted_at    BIGINT NOT NULL,
    ended_at     BIGINT,
    PRIMARY KEY (from_sha256, image_sha256)
);
CREATE INDEX delta_pending ON delta (wanted_at) WHERE state = 'pending';
CREATE INDEX delta_image ON delta (image_sha256);
CREATE INDEX delta_sha256 ON delta (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX release_image_hardware ON release_image (hw_part_no, version);
CREATE INDEX release_image_sha256 ON release_image (sha256);
