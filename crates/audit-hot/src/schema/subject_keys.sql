CREATE TABLE IF NOT EXISTS cdc_audit.subject_keys (
  key_id text COLLATE "C" NOT NULL UNIQUE,
  source text COLLATE "C" NOT NULL,
  class text COLLATE "C" NOT NULL,
  subject bytea NOT NULL CHECK (octet_length(subject) = 32),
  generation integer NOT NULL,
  under text COLLATE "C" NOT NULL,
  wrapped bytea,
  created_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  destroyed_at timestamp with time zone,
  PRIMARY KEY (source, class, subject, generation),
  CHECK ((wrapped IS NULL) = (destroyed_at IS NOT NULL))
)
