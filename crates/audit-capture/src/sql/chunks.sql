CREATE TABLE cdc_audit.chunks (
    source text NOT NULL,
    table_name text NOT NULL,
    baseline int NOT NULL,
    -- From 1. Chunk 0 describes the baseline.
    chunk int NOT NULL,
    -- Of chunk 0: how rows are found (NULL: not decided yet), the sinks that want them, the columns of the key or the
    -- files of the table, and what pg_current_snapshot() said when it began.
    kind text CHECK (kind IN ('key', 'ctid')),
    sinks text[],
    identity text[],
    snapshot text,
    -- Of the others: behind `lower`, up to `upper`, NULL for no bound. The key's columns as text, in key order; or a
    -- table's oid and a ctid.
    lower text[],
    upper text[],
    last boolean,
    rows bigint,
    PRIMARY KEY (source, table_name, baseline, chunk)
)
