-- The row filter of publication cdc_audit_probe for table $1 as the server writes it, and the columns in it that do not identify a row: for
-- those the server would refuse UPDATE and DELETE (pub_rf_contains_invalid_column in its publicationcmds.c). Each partition has an identity of
-- its own.
WITH member AS (
    SELECT r.oid, r.prrelid, pg_get_expr(r.prqual, r.prrelid) AS filter
    FROM pg_publication_rel r
    JOIN pg_publication p ON p.oid = r.prpubid
    WHERE p.pubname = 'cdc_audit_probe' AND r.prrelid = $1::oid
), used AS (
    SELECT DISTINCT a.attname
    FROM member m
    JOIN pg_depend d ON d.classid = 'pg_publication_rel'::regclass AND d.objid = m.oid
    JOIN pg_attribute a ON a.attrelid = m.prrelid AND a.attnum = d.refobjsubid
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = m.prrelid AND d.refobjsubid > 0
), leaf AS (
    SELECT c.oid, c.relreplident
    FROM pg_class c
    WHERE c.relkind = 'r' AND c.oid IN (
            WITH RECURSIVE tree AS (
                SELECT $1::oid AS oid
                UNION ALL
                SELECT i.inhrelid
                FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
                JOIN pg_class p ON p.oid = i.inhrelid AND p.relispartition
            )
            SELECT tree.oid FROM tree
        )
)
SELECT jsonb_build_object(
    'filter', (SELECT filter FROM member),
    'outside', (
        SELECT coalesce(jsonb_agg(DISTINCT used.attname), '[]')
        FROM used
        CROSS JOIN leaf
        WHERE leaf.relreplident <> 'f' AND NOT EXISTS (
            SELECT
            FROM pg_index i
            JOIN pg_attribute a ON a.attrelid = leaf.oid AND a.attnum = ANY (i.indkey)
            WHERE i.indrelid = leaf.oid AND a.attname = used.attname
              AND CASE leaf.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
        )
    )
)
