-- Points are committed at once, in batches of whatever came together. A MetricsRecorded seals the batches of a run
-- within a second.

-- Until here a batch was a group, numbered by the version of the run's stream. Batches have numbers of their own since:
-- each process takes a block of 2^20, all of them above any version.
ALTER TABLE metric_points RENAME COLUMN group_number TO batch;
CREATE SEQUENCE metric_blocks;

-- Summaries whole, so that they can be kept up in the transaction of the points.
ALTER TABLE run_metrics
    ADD COLUMN count        bigint NOT NULL DEFAULT 0,
    ADD COLUMN last_step    bigint NOT NULL DEFAULT 0,
    ADD COLUMN last_time_us bigint NOT NULL DEFAULT 0;
UPDATE run_metrics m SET count = p.count, last_step = p.step, last_time_us = p.time_us
FROM (
    SELECT DISTINCT ON (run, key) run, key, step, time_us, count(*) OVER (PARTITION BY run, key) AS count
    FROM metric_points ORDER BY run, key, step DESC, time_us DESC
) p
WHERE p.run = m.run AND p.key = m.key;

-- Batches that no event speaks of yet, and in whose name it will be.
CREATE TABLE metric_tails (
    run            text NOT NULL,
    batch          bigint NOT NULL,
    actor          text NOT NULL,
    on_behalf_of   text NOT NULL,
    causation_id   uuid,
    correlation_id uuid,
    traceparent    text NOT NULL,
    hlc            bigint NOT NULL,
    method         text NOT NULL,
    PRIMARY KEY (run, batch)
);
