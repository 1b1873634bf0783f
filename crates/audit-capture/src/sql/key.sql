-- The columns $2 of table $1 as the unique index over them orders them.
WITH index AS (
    SELECT i.indexrelid, i.indclass, i.indcollation, i.indkey
    FROM pg_index i
    WHERE i.indrelid = $1::oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
      AND (i.indkey::int2[])[0:i.indnkeyatts - 1] = $2::int2[]
    ORDER BY i.indisprimary DESC, i.indisreplident DESC
    LIMIT 1
)
SELECT jsonb_build_object(
    'attnum', a.attnum,
    'collation', CASE WHEN c.oid <> a.attcollation THEN format('%I.%I', n.nspname, c.collname) END,
    -- 403: btree
    'operators', (
        SELECT jsonb_object_agg(m.amopstrategy, format('OPERATOR(%I.%s)', o_n.nspname, o.oprname))
        FROM pg_amop m
        JOIN pg_operator o ON o.oid = m.amopopr
        JOIN pg_namespace o_n ON o_n.oid = o.oprnamespace
        WHERE m.amopfamily = opc.opcfamily AND m.amopmethod = 403 AND m.amoppurpose = 's'
          AND m.amoplefttype = opc.opcintype AND m.amoprighttype = opc.opcintype
    )
)
FROM index i
CROSS JOIN generate_series(0, cardinality($2::int2[]) - 1) AS at
JOIN pg_opclass opc ON opc.oid = i.indclass[at]
JOIN pg_attribute a ON a.attrelid = $1::oid AND a.attnum = i.indkey[at]
LEFT JOIN pg_collation c ON c.oid = i.indcollation[at]
LEFT JOIN pg_namespace n ON n.oid = c.collnamespace
