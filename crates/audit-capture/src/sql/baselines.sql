-- The baselines of source $1, with how far the bounds of their chunks are stored.
SELECT jsonb_build_object(
    'table_name', b.table_name,
    'baseline', b.baseline,
    'kind', b.kind,
    'sinks', b.sinks,
    'identity', b.identity,
    'snapshot', b.snapshot,
    'chunks', coalesce(c.chunks, 0),
    'last', coalesce(c.last, false),
    'rows', coalesce(c.rows, 0)
)
FROM cdc_audit.chunks b
LEFT JOIN (
    SELECT table_name, baseline, max(chunk) AS chunks, bool_or(last) AS last, sum(rows) AS rows
    FROM cdc_audit.chunks
    WHERE source = $1 AND chunk > 0
    GROUP BY table_name, baseline
) c USING (table_name, baseline)
WHERE b.source = $1 AND b.chunk = 0
