-- What operators asked under a key of theirs, so that the same is not done twice. A request of which the answer must not be
-- kept, or is not there yet, has none.
CREATE TABLE idempotency_key (
    token       TEXT NOT NULL,
    given       TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    at          BIGINT NOT NULL,
    status      BIGINT,
    answer      TEXT,
    PRIMARY KEY (token, given)
);
CREATE INDEX idempotency_key_age ON idempotency_key (at);

-- Images that come in parts. What is behind offset_bytes in the file was never acknowledged, and counts for nothing.
CREATE TABLE upload (
    sha256       TEXT PRIMARY KEY,
    size_bytes   BIGINT NOT NULL,
    offset_bytes BIGINT NOT NULL,
    signature    TEXT,
    begun_by     TEXT NOT NULL,
    begun_at     BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL
);
CREATE INDEX upload_expiry ON upload (expires_at);
