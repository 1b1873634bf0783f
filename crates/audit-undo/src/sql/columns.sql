SELECT
    a.attname::text,
    quote_ident(a.attname),
    a.attnum,
    format_type(a.atttypid, a.atttypmod),
    a.atttypid IN ('float4'::regtype, 'float8'::regtype),
    a.attnotnull,
    a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL,
    a.attgenerated <> '',
    a.attidentity = 'a',
    pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), a.attname)::regclass::oid,
    CASE
        WHEN a.atttypmod <> -1 THEN format_type(a.atttypid, -1)
        WHEN t.typtypmod <> -1 THEN format_type(t.typbasetype, -1)
    END
FROM pg_attribute AS a
INNER JOIN pg_class AS c ON c.oid = a.attrelid
INNER JOIN pg_namespace AS n ON n.oid = c.relnamespace
INNER JOIN pg_type AS t ON t.oid = a.atttypid
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
