-- What an audited change was made from and to, where it is not too long: the digests in the chain are of these texts.
ALTER TABLE audit_entry ADD COLUMN before_content TEXT;
ALTER TABLE audit_entry ADD COLUMN after_content TEXT;

-- By which the audit log is searched, newest first.
CREATE INDEX audit_entry_at ON audit_entry (at, seq);
CREATE INDEX audit_entry_actor ON audit_entry (actor, at, seq);
CREATE INDEX audit_entry_action ON audit_entry (action, at, seq);
CREATE INDEX audit_entry_about ON audit_entry (object, at, seq);

CREATE INDEX security_event_kind ON security_event (kind, last_at, id);
CREATE INDEX refused_message_code ON refused_message (code, last_at, id);
CREATE INDEX release_age ON release (created_at, name);
