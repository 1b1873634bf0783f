CREATE TABLE cdc_audit.context_keys (
    -- The highest signs.
    id int PRIMARY KEY,
    -- A key of HMAC-SHA-256 (RFC 2104), xored with the inner and with the outer pad: 64 bytes each.
    inner_pad bytea NOT NULL,
    outer_pad bytea NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
REVOKE ALL ON cdc_audit.context_keys FROM PUBLIC;
SELECT cdc_audit.rotate_context_key()
