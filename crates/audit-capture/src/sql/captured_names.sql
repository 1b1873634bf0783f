CREATE TABLE cdc_audit.captured_names (
    source text NOT NULL,
    -- Of the server in which the oids mean something.
    system_id text NOT NULL,
    oid bigint NOT NULL,
    -- The object was captured under this name: its own, or that of the partitioned table that it was part of.
    schema_name text NOT NULL,
    table_name text NOT NULL,
    -- At or before this place in the WAL.
    seen pg_lsn NOT NULL,
    PRIMARY KEY (source, system_id, oid, schema_name, table_name)
)
