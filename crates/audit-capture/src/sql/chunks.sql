CREATE TABLE cdc_audit.chunks (
    source text NOT NULL,
    table_name text NOT NULL,
    baseline int NOT NULL,
    chunk int NOT NULL,
    kind text NOT NULL CHECK (kind IN ('key', 'ctid')),
    -- The key's columns as text, in key order, or one ctid; NULL: no bound.
    lower text[],
    upper text[],
    rows bigint,
    relfilenode oid,
    PRIMARY KEY (source, table_name, baseline, chunk)
)
