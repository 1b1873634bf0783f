-- The tables that publication $1 publishes, with the entries of the catalog by which it does (`by`): p, r or n for all tables, a table or a
-- schema, and the entry's oid. Read from the catalogs alone: the view pg_publication_tables locks each table since 15, and so waits for
-- anyone who has locked one. Follows GetPublicationRelations and its kin in the server's pg_publication.c.
publication AS (
    SELECT p.* FROM pg_publication p WHERE p.pubname = $1
), member AS (
    SELECT c.oid, 'p' || p.oid AS by FROM publication p JOIN pg_class c ON p.puballtables AND c.relkind IN ('r', 'p')
    UNION ALL
    SELECT r.prrelid, 'r' || r.oid FROM publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
    {schemas}
), ancestry AS (
    -- Each partition with every table above it.
    SELECT i.inhrelid AS oid, i.inhparent AS ancestor
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
    UNION ALL
    SELECT a.oid, i.inhparent
    FROM ancestry a
    JOIN pg_inherits i ON i.inhrelid = a.ancestor
    JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
), published AS (
    SELECT c.oid, array_agg(DISTINCT m.by) AS by
    FROM publication p
    CROSS JOIN (
        SELECT m.oid, m.by FROM member m
        UNION ALL
        SELECT a.oid, m.by FROM member m JOIN ancestry a ON a.ancestor = m.oid
    ) m
    JOIN pg_class c ON c.oid = m.oid
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384
      AND CASE WHEN p.pubviaroot
          THEN c.oid NOT IN (SELECT a.oid FROM ancestry a JOIN member m ON m.oid = a.ancestor)
          ELSE c.relkind = 'r' END
    GROUP BY c.oid
)
