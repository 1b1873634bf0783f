-- The types $1 with the modifiers $2, as the server prints them. What is gone is left out.
SELECT DISTINCT jsonb_build_object('oid', t.oid::bigint, 'typmod', w.typmod, 'name', format_type(t.oid, w.typmod))
FROM unnest($1::oid[], $2::int[]) AS w (oid, typmod)
JOIN pg_type t ON t.oid = w.oid
