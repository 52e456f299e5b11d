-- Erasures of telemetry: what is being erased, kept outside of the log and only until it is gone.

CREATE TABLE erasures (
    id           uuid PRIMARY KEY,
    person       text NOT NULL,
    asked_by     text NOT NULL,
    request_hash bytea NOT NULL,
    request      bytea,
    ends         jsonb,
    ranges_rewritten   bigint NOT NULL DEFAULT 0,
    predictions_erased bigint NOT NULL DEFAULT 0,
    labels_erased      bigint NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at      timestamptz
);
COMMENT ON COLUMN erasures.request IS 'What is selected; null once it is done.';
COMMENT ON COLUMN erasures.request_hash IS 'Tells a repeat from another request; empty once it is done, since a digest of a name tells it to who guesses.';
COMMENT ON COLUMN erasures.ends IS 'Ends of the partitions when the work began: what came later is not erased.';

CREATE TABLE erased_predictions (
    erasure       uuid NOT NULL,
    project       text NOT NULL,
    endpoint      text NOT NULL,
    prediction_id text NOT NULL,
    PRIMARY KEY (erasure, project, endpoint, prediction_id)
);
COMMENT ON TABLE erased_predictions IS 'Predictions whose labels are still to be erased; emptied when the erasure is done.';

CREATE TABLE replaced_files (
    range      text NOT NULL,
    uri        text NOT NULL,
    sha256     text NOT NULL,
    size_bytes bigint NOT NULL,
    PRIMARY KEY (range, uri)
);
COMMENT ON TABLE replaced_files IS 'Files of ranges that are being rewritten: deleted when the range names them no more.';
