CREATE TABLE cdc_audit.captured_since (
    source text PRIMARY KEY,
    -- Transactions below this number had ended when the published tables were listed.
    settled bigint NOT NULL,
    -- This transaction began after what follows had been read.
    xid bigint NOT NULL,
    -- The publication's oid and the version of its row, and the entries by which it publishes all tables, or those of a schema.
    publication text NOT NULL,
    by text[] NOT NULL,
    -- A digest of the rules for tables.
    rules text NOT NULL,
    -- The sinks that the stream goes to.
    sinks text[] NOT NULL
)
