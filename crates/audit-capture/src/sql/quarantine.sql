CREATE TABLE cdc_audit.quarantine (
    source text NOT NULL,
    -- The sink that refused the change; 'all' for a change that could not be decoded.
    sink text NOT NULL,
    position text COLLATE "C" NOT NULL,
    note text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, sink, position)
)
