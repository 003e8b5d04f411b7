-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
CREATE TABLE messages (
    sequence    bigint      PRIMARY KEY,
    incident    text        NOT NULL,
    bytes       bytea       NOT NULL,
    sha256      text        NOT NULL,
    header      text        NOT NULL,
    stored_at   timestamptz,
    verdict     text        NOT NULL,
    detail      text        NOT NULL,
    position    bigint,
    record_hash text
);
CREATE INDEX messages_by_incident ON messages (incident, sequence);
COMMENT ON TABLE messages IS 'Every message of the log as it was stored, strangers'' included. Rows are only ever added.';
COMMENT ON COLUMN messages.sequence IS 'Of the message in the log, from 1';
COMMENT ON COLUMN messages.incident IS 'Incident that the subject names; empty if it names none';
COMMENT ON COLUMN messages.bytes IS 'The message''s bytes: a signed record, or what a stranger wrote';
COMMENT ON COLUMN messages.sha256 IS 'SHA-256 of the bytes';
COMMENT ON COLUMN messages.header IS 'Headers such as trace ids, as a JSON object; no part of the history';
COMMENT ON COLUMN messages.stored_at IS 'When the log took the message, by the log''s clock';
COMMENT ON COLUMN messages.verdict IS 'VALID: part of a history. UNREADABLE: this version cannot read the incident any further. Else the reason why every reader skips it as foreign';
COMMENT ON COLUMN messages.detail IS 'Why it is foreign or unreadable, in words';
COMMENT ON COLUMN messages.position IS 'First position of the record in its incident; only if it is valid';
COMMENT ON COLUMN messages.record_hash IS 'Hash of the record, which the next one in its incident names; only if it is valid';

CREATE TABLE artefacts (
    incident   text   COLLATE "C" NOT NULL,
    position   bigint NOT NULL,
    number     bigint NOT NULL,
    sha256     text   NOT NULL,
    size       bigint NOT NULL,
    media_type text   NOT NULL,
    sequence   bigint NOT NULL,
    PRIMARY KEY (incident, position, number)
);
COMMENT ON TABLE artefacts IS 'Artefacts that events name: patches, recordings, documents. Their bytes are in the object store.';
COMMENT ON COLUMN artefacts.incident IS 'Incident of the event';
COMMENT ON COLUMN artefacts.position IS 'Position of the event';
COMMENT ON COLUMN artefacts.number IS 'Counts the artefacts of one event, from 1';
COMMENT ON COLUMN artefacts.sha256 IS 'Digest of the bytes, by which the object store has them';
COMMENT ON COLUMN artefacts.size IS 'Bytes';
COMMENT ON COLUMN artefacts.media_type IS 'Such as text/x-diff';
COMMENT ON COLUMN artefacts.sequence IS 'Of the message in the log';

-- +goose Down
DROP TABLE artefacts;
DROP TABLE messages;
