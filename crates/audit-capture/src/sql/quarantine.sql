CREATE TABLE cdc_audit.quarantine (
    source text NOT NULL,
    -- The sink that refuses the change; 'all' for a change that cannot be decoded.
    sink text NOT NULL,
    position text COLLATE "C" NOT NULL,
    note text,
    -- Who decided, and when. Nobody but the table's owner can choose the role, the time, or take a decision back.
    os_user text NOT NULL,
    db_user text NOT NULL DEFAULT session_user,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (source, sink, position)
)
