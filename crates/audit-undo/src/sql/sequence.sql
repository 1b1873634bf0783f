SELECT format('%s.%s', s.schemaname, s.sequencename)
FROM pg_sequences AS s
INNER JOIN pg_namespace AS n ON n.nspname = s.schemaname
INNER JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = s.sequencename
WHERE c.oid = $1 AND s.increment_by > 0 AND coalesce(s.last_value, s.start_value - 1) < $2
    AND has_sequence_privilege(c.oid, 'SELECT')
