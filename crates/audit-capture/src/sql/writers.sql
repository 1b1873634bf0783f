-- Who holds locks that a writer takes, in this database: pairs of a table and a virtual transaction. A partition's writer is one of every
-- table above it.
SELECT jsonb_build_object('writers', jsonb_agg(DISTINCT jsonb_build_array(coalesce(a.relid::oid, l.relation)::bigint, l.virtualtransaction)))
FROM pg_locks l
LEFT JOIN LATERAL pg_partition_ancestors(l.relation::regclass) a ON true
WHERE l.locktype = 'relation' AND l.granted
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'ShareUpdateExclusiveLock', 'ShareLock')
