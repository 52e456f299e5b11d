-- The Merkle tree over the log, and what was signed of it.

CREATE TABLE merkle_nodes (
    level smallint NOT NULL,
    place bigint NOT NULL,
    hash  bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, place)
);
COMMENT ON TABLE merkle_nodes IS
    'Roots of the complete subtrees of 2 ^ level leaves, the place-th of its level from 0, for every eighth level.';

CREATE TABLE checkpoints (
    size    bigint PRIMARY KEY CHECK (size > 0),
    root    bytea NOT NULL CHECK (length(root) = 32),
    made_at timestamptz NOT NULL,
    note    text NOT NULL
);
COMMENT ON COLUMN checkpoints.note IS 'The signed text, which says the same as the other columns and alone is evidence.';

CREATE TABLE checkpoint_keys (
    key           text PRIMARY KEY,
    first_used_at timestamptz NOT NULL
);
COMMENT ON TABLE checkpoint_keys IS 'Public keys that signed checkpoints.';

CREATE TABLE checkpoint_marks (
    place text PRIMARY KEY,
    size  bigint NOT NULL
);
COMMENT ON TABLE checkpoint_marks IS 'The last checkpoint that each place outside the database is known to have.';
