-- Which publication holds which table (as itself, not as a partition), as far as that decides whether PostgreSQL refuses
-- UPDATE and DELETE.
SELECT jsonb_build_object(
    'publication', p.pubname,
    'oid', m.oid::bigint,
    'column_list', m.column_list,
    'generated', coalesce(to_jsonb(p) ->> 'pubgencols', 'n') = 's'
)
FROM pg_publication p
CROSS JOIN LATERAL (
    SELECT r.prrelid AS oid, r.prattrs IS NOT NULL AS column_list
    FROM pg_publication_rel r
    WHERE r.prpubid = p.oid
    UNION ALL
    SELECT c.oid, false
    FROM pg_publication_namespace s
    JOIN pg_class c ON c.relnamespace = s.pnnspid AND c.relkind IN ('r', 'p')
    WHERE s.pnpubid = p.oid
    UNION ALL
    SELECT c.oid, false
    FROM pg_class c
    WHERE p.puballtables AND c.relkind IN ('r', 'p') AND c.oid >= 16384
) m
WHERE p.pubupdate OR p.pubdelete
