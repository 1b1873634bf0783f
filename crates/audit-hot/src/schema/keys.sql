CREATE TABLE IF NOT EXISTS cdc_audit.data_keys (
  key_id text COLLATE "C" PRIMARY KEY,
  source text COLLATE "C" NOT NULL,
  class text COLLATE "C" NOT NULL,
  kind text COLLATE "C" NOT NULL CHECK (kind IN ('data', 'tokens', 'subjects')),
  master text COLLATE "C" NOT NULL,
  wrapped text COLLATE "C",
  created_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  rewrapped_at timestamp with time zone,
  retired_at timestamp with time zone,
  destroyed_at timestamp with time zone,
  CHECK ((wrapped IS NULL) = (destroyed_at IS NOT NULL))
)
