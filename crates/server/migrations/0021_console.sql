-- People who use the console. A name that is disabled stays taken.
CREATE TABLE console_user (
    name        TEXT PRIMARY KEY,
    scope       TEXT NOT NULL,
    -- A PHC string (argon2id).
    password    TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    created_by  TEXT NOT NULL,
    disabled_at BIGINT
);

-- Signed-in browsers; only digests of what the cookie holds are kept.
CREATE TABLE console_session (
    sha256     TEXT PRIMARY KEY,
    user_name  TEXT NOT NULL REFERENCES console_user (name),
    created_at BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL,
    client     TEXT
);
CREATE INDEX console_session_user ON console_session (user_name);

-- Links that are good for one use: whoever has one sets a password with it, and is signed in.
CREATE TABLE console_link (
    sha256     TEXT PRIMARY KEY,
    -- None: whoever uses it chooses a name.
    user_name  TEXT,
    scope      TEXT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- What the console counts of the whole fleet.
CREATE INDEX vehicle_quarantined ON vehicle (vehicle_id) WHERE quarantined_at IS NOT NULL;
