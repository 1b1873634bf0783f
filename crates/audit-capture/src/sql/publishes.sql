-- What publication $1 is now.
SELECT jsonb_build_object(
    'version', p.oid || ':' || p.xmin::text,
    'via_root', p.pubviaroot,
    'operations', to_jsonb(array_remove(ARRAY[
        CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
        CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END
    ], NULL)),
    'by', to_jsonb(array_remove(ARRAY[CASE WHEN p.puballtables THEN 'p' || p.oid END], NULL) || {schemas})
)
FROM pg_publication p
WHERE p.pubname = $1
