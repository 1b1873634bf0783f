-- The types $1 and all that they are made of, as far as a value's form, or a rule for a type, depends on it.
WITH RECURSIVE parts AS (
    SELECT t.oid, t.typbasetype AS part FROM pg_type t WHERE t.typtype = 'd'
    UNION ALL
    SELECT t.oid, t.typelem FROM pg_type t WHERE t.typsubscript = 'array_subscript_handler'::regproc
    UNION ALL
    SELECT t.oid, a.atttypid
    FROM pg_type t
    JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE t.typtype = 'c'
    UNION ALL
    SELECT r.rngtypid, r.rngsubtype FROM pg_range r
    UNION ALL
    SELECT r.rngmultitypid, r.rngtypid FROM pg_range r
), found AS (
    SELECT unnest($1::oid[]) AS oid
    UNION
    SELECT p.part
    FROM found f
    JOIN parts p ON p.oid = f.oid
)
SELECT jsonb_build_object(
    'oid', t.oid::bigint,
    'base', CASE WHEN t.typtype = 'd' THEN jsonb_build_array(t.typbasetype::bigint, t.typtypmod) END,
    -- Only true arrays are written in braces, and only a comma is read as their delimiter.
    'element', CASE WHEN t.typsubscript = 'array_subscript_handler'::regproc AND t.typdelim = ',' THEN t.typelem::bigint END,
    'name', format_type(t.oid, NULL),
    -- In order: a baseline compares what it finds with what another session found under other settings of the planner.
    'holds', (SELECT coalesce(jsonb_agg(p.part::bigint ORDER BY p.part), '[]') FROM parts p WHERE p.oid = t.oid)
)
FROM found f
JOIN pg_type t ON t.oid = f.oid
