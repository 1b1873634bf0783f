CREATE TABLE IF NOT EXISTS cdc_audit.access_log (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  db_user text COLLATE "C" NOT NULL DEFAULT session_user,
  os_user text COLLATE "C" NOT NULL,
  requested_by text COLLATE "C",
  action text COLLATE "C" NOT NULL,
  purpose text COLLATE "C",
  source text COLLATE "C",
  table_name text COLLATE "C",
  key text COLLATE "C",
  position text COLLATE "C",
  field text COLLATE "C",
  key_id text COLLATE "C",
  success boolean NOT NULL
)
