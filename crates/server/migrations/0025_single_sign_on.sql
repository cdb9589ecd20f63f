-- Somebody who signs in with an OpenID Connect provider is known by what that provider calls them for ever, not by
-- a name that it may give to another person later. Their `password` is empty, which no password matches.
ALTER TABLE console_user ADD COLUMN issuer TEXT;
ALTER TABLE console_user ADD COLUMN subject TEXT;
CREATE UNIQUE INDEX console_user_identity ON console_user (issuer, subject);
