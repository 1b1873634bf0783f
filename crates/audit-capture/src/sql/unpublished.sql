-- Tables that could be captured and that publication $1 does not publish. Partitions go with their root.
WITH RECURSIVE {published}
SELECT jsonb_build_object(
    'schema', n.nspname,
    'table', c.relname,
    'extension', EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    )
)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition AND c.oid >= 16384
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'cdc_audit')
  AND c.oid NOT IN (SELECT oid FROM published)
  AND c.oid NOT IN (SELECT a.ancestor FROM ancestry a JOIN published USING (oid))
