-- Publication $1, and whether the session's role may alter it.
SELECT jsonb_build_object(
    'owner', pg_get_userbyid(p.pubowner),
    'owned', pg_has_role(p.pubowner, 'USAGE'),
    'all_tables', p.puballtables,
    'via_root', p.pubviaroot,
    'operations', to_jsonb(array_remove(ARRAY[
        CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
        CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END
    ], NULL)),
    'generated', coalesce(to_jsonb(p) ->> 'pubgencols', 'n') = 's',
    'schemas', {schemas},
    'members', (
        SELECT coalesce(jsonb_agg(jsonb_build_object(
            'oid', r.prrelid::bigint, 'quoted', format('%I.%I', n.nspname, c.relname), 'filter', {filter}
        ) ORDER BY n.nspname, c.relname), '[]')
        FROM pg_publication_rel r
        JOIN pg_class c ON c.oid = r.prrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE r.prpubid = p.oid
    )
)
FROM pg_publication p
WHERE p.pubname = $1
