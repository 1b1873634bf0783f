CREATE TABLE IF NOT EXISTS cdc_audit.archive (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  source       text COLLATE "C" NOT NULL,
  versions_table text COLLATE "C" NOT NULL,
  parent       text COLLATE "C" NOT NULL,
  partition    text COLLATE "C" NOT NULL,
  from_time    timestamptz NOT NULL,
  to_time      timestamptz NOT NULL,
  state        text COLLATE "C" NOT NULL CHECK (state IN ('proved', 'detached', 'returned', 'dropped')),
  versions     bigint NOT NULL,
  proof        jsonb NOT NULL,
  proved_at    timestamptz NOT NULL DEFAULT now(),
  detached_at  timestamptz,
  keep_until   timestamptz,
  ended_at     timestamptz,
  db_user      text COLLATE "C" NOT NULL DEFAULT session_user,
  os_user      text COLLATE "C" NOT NULL
)
