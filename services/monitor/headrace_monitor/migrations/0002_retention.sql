-- What waits for its counterpart is not kept for ever; what is given up is counted.

ALTER TABLE endpoint_counts
    ADD COLUMN predictions_unlabelled bigint NOT NULL DEFAULT 0,
    ADD COLUMN labels_unmatched       bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN endpoint_counts.predictions_unlabelled IS 'Rows whose label was waited for in vain, and is no more.';
COMMENT ON COLUMN endpoint_counts.labels_unmatched IS 'Labels whose prediction was waited for in vain, and is no more.';

CREATE INDEX waiting_predictions_counted_at ON waiting_predictions USING brin (counted_at);
CREATE INDEX waiting_labels_counted_at ON waiting_labels USING brin (counted_at);
