SELECT
    c.oid,
    n.nspname || '.' || c.relname,
    CASE WHEN c.relhassubclass AND c.relkind = 'r' THEN 'ONLY ' ELSE '' END || format('%I.%I', n.nspname, c.relname)
FROM pg_class AS c
INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE ((n.nspname = $1 AND c.relname = $2) OR c.oid = $3) AND c.relkind IN ('r', 'p')
ORDER BY n.nspname = $1 AND c.relname = $2 DESC
LIMIT 1
