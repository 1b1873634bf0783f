SELECT
    t.oid,
    format('%s.%s', n.nspname, c.relname),
    t.added,
    t.removed
FROM (
    SELECT
        coalesce(pg_partition_root(s.relid)::oid, s.relid) AS oid,
        sum(s.n_tup_ins + s.n_tup_upd)::bigint AS added,
        sum(s.n_tup_del + s.n_tup_upd)::bigint AS removed
    FROM pg_stat_xact_user_tables AS s
    GROUP BY 1
) AS t
INNER JOIN pg_class AS c ON c.oid = t.oid
INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE t.added + t.removed > 0
