-- Who and why, for a person with psql: include it at the beginning of a script, or of ~/.psqlrc.
--
--   psql -v actor=ann -v reason='ticket 4711' -f psql.sql -f repair.sql "$DATABASE_URL"
--
-- It turns AUTOCOMMIT off and begins a transaction that says who and why, so that all that follows it is one transaction, up to a COMMIT
-- of yours. Say it again behind a COMMIT: \i psql.sql
\set ON_ERROR_STOP on
\set AUTOCOMMIT off
\if :{?actor}
\else
  \echo 'psql.sql: say who you are: psql -v actor=NAME'
  \quit
\endif
\if :{?reason}
\else
  \set reason ''
\endif
SELECT cdc_audit.set_context(jsonb_strip_nulls(jsonb_build_object(
    'actor_id', :'actor', 'reason', nullif(:'reason', ''), 'source', 'psql'
))) \g (format=unaligned tuples_only=on)
