-- The types $1 and all that they are made of, as far as a value's form depends on it.
WITH RECURSIVE found AS (
    SELECT t.oid, t.typtype, t.typbasetype, t.typtypmod, t.typelem, t.typdelim, t.typsubscript
    FROM pg_type t
    WHERE t.oid = ANY ($1::oid[])
    UNION
    SELECT t.oid, t.typtype, t.typbasetype, t.typtypmod, t.typelem, t.typdelim, t.typsubscript
    FROM found f
    JOIN pg_type t ON t.oid IN (f.typbasetype, f.typelem)
)
SELECT jsonb_build_object(
    'oid', oid::bigint,
    'base', CASE WHEN typtype = 'd' THEN jsonb_build_array(typbasetype::bigint, typtypmod) END,
    -- Only true arrays are written in braces, and only a comma is read as their delimiter.
    'element', CASE WHEN typsubscript = 'array_subscript_handler'::regproc AND typdelim = ',' THEN typelem::bigint END
)
FROM found
