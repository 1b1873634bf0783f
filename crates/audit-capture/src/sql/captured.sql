CREATE TABLE cdc_audit.captured (
    source text NOT NULL,
    table_name text NOT NULL,
    -- The table's oid: one that was dropped and made anew under the same name is another object.
    oid bigint NOT NULL,
    -- The entries of the catalog by which it is published, as `p`, `r` or `n` and their oid. Empty while it is not.
    by text[] NOT NULL,
    -- Sinks to which the stream gave every row of this object: they want no baseline with a number up to this one.
    streamed text[] NOT NULL,
    baseline int NOT NULL,
    PRIMARY KEY (source, table_name)
)
