-- Points in chunks: an array a column, a row for all points of a metric that came together, or were put together since.

-- A place says where a point stands among those of its run: batch * 2^17 + number within the batch.
CREATE TABLE metric_chunks (
    run         text NOT NULL,
    key         text NOT NULL,
    first_place bigint NOT NULL,
    last_place  bigint NOT NULL,
    count       integer NOT NULL,
    first_step  bigint NOT NULL,
    last_step   bigint NOT NULL,
    places      bigint[] NOT NULL,
    steps       bigint[] NOT NULL,
    times_us    bigint[] NOT NULL,
    values      double precision[] NOT NULL,
    PRIMARY KEY (run, key, first_place)
);
-- Values are as good as random.
ALTER TABLE metric_chunks ALTER COLUMN values SET STORAGE EXTERNAL;

INSERT INTO metric_chunks
SELECT run, key, min(place), max(place), count(*), min(step), max(step),
    array_agg(place ORDER BY place), array_agg(step ORDER BY place),
    array_agg(time_us ORDER BY place), array_agg(value ORDER BY place)
FROM (
    SELECT run, key, (batch << 17) | ordinal AS place, step, time_us, value,
        row_number() OVER (PARTITION BY run, key ORDER BY batch, ordinal) / 1024 AS chunk
    FROM metric_points
) p
GROUP BY run, key, chunk;
DROP TABLE metric_points;

-- Every point a row, for queries that need one.
CREATE VIEW metric_points AS
SELECT c.run, c.key, p.place, p.step, p.time_us, p.value, c.first_step, c.last_step
FROM metric_chunks c
CROSS JOIN LATERAL unnest(c.places, c.steps, c.times_us, c.values) AS p (place, step, time_us, value);
