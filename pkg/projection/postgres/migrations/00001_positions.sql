-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
CREATE TABLE positions (
    name         text        NOT NULL,
    version      integer     NOT NULL,
    sequence     bigint      NOT NULL DEFAULT 0,
    hash         text        NOT NULL DEFAULT '',
    complete     boolean     NOT NULL DEFAULT false,
    committed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (name, version)
);
COMMENT ON TABLE positions IS 'How far the rows of each version of a projection have come. Written with them, in one transaction.';
COMMENT ON COLUMN positions.name IS 'Projection; its views are in the schema of this name';
COMMENT ON COLUMN positions.version IS 'Version; its tables are in the schema name_vVERSION';
COMMENT ON COLUMN positions.sequence IS 'Last message of the stream that is in the rows; 0 for none';
COMMENT ON COLUMN positions.hash IS 'SHA-256 of that message''s bytes';
COMMENT ON COLUMN positions.complete IS 'The whole stream was folded in once, so that readers may look at this version';
COMMENT ON COLUMN positions.committed_at IS 'When the rows were written last, by this server''s clock';

-- +goose Down
DROP TABLE positions;
