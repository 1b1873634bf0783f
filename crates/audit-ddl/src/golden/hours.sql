-- Athena
  `due` date,
PARTITIONED BY (`date` date, `hour` int)
  'projection.enabled' = 'true',
  'projection.date.type' = 'date',
  'projection.date.range' = '2026-01-01,NOW+1DAYS',
  'projection.date.format' = 'yyyy-MM-dd',
  'projection.date.interval' = '1',
  'projection.date.interval.unit' = 'DAYS',
  'projection.hour.type' = 'integer',
  'projection.hour.range' = '0,23',
  'projection.hour.digits' = '2',
  'storage.location.template' = 's3://acme-audit/shop/public.items/data/date=${date}/hour=${hour}')
-- BigQuery
WITH PARTITION COLUMNS (`date` DATE, `hour` INT64)
  hive_partition_uri_prefix = 'gs://acme-audit/shop/public.items/data',
-- Synapse
SELECT [lake].*, CAST([lake].filepath(1) AS DATE) AS [date], CAST([lake].filepath(2) AS INT) AS [hour]
FROM OPENROWSET(BULK 'https://acme.blob.core.windows.net/audit/shop/public.items/data/date=*/hour=*/*.parquet', FORMAT = 'PARQUET') WITH (
-- Trino
  "date" DATE WITH (
    partition_projection_type = 'DATE', partition_projection_format = 'yyyy-MM-dd',
    partition_projection_range = ARRAY['2026-01-01', 'NOW+1DAYS'],
    partition_projection_interval = 1, partition_projection_interval_unit = 'DAYS'),
    partition_projection_type = 'INTEGER', partition_projection_range = ARRAY['0', '23'], partition_projection_digits = 2))
  partitioned_by = ARRAY['date', 'hour'],
  partition_projection_enabled = true,
  partition_projection_location_template = 's3://acme-audit/shop/public.items/data/date=${date}/hour=${hour}')
-- DuckDB
SELECT "cdc_source", "cdc_position", "cdc_table_name", "cdc_key", "cdc_event", "cdc_changes", "cdc_changed", "cdc_before_known", "cdc_committed_at", "cdc_schema_version", "cdc_exact", "id", "paid", "share", "price", "photo", "due", "at", "it_s__", "doc", "price__2", "count", "count__2", "text", "body", "date", "hour"
  SELECT * FROM read_parquet('/var/lib/cdc-audit/lake/public.items/data/**/*.parquet', hive_partitioning = true, hive_types = {'date': DATE, 'hour': INTEGER}, union_by_name = true)
  SELECT NULL::VARCHAR AS "cdc_source", NULL::VARCHAR AS "cdc_position", NULL::VARCHAR AS "cdc_table_name", NULL::VARCHAR AS "cdc_key", NULL::VARCHAR AS "cdc_event", NULL::VARCHAR AS "cdc_changes", NULL::VARCHAR[] AS "cdc_changed", NULL::BOOLEAN AS "cdc_before_known", NULL::TIMESTAMPTZ AS "cdc_committed_at", NULL::INTEGER AS "cdc_schema_version", NULL::VARCHAR AS "cdc_exact", NULL::BIGINT AS "id", NULL::BOOLEAN AS "paid", NULL::DOUBLE AS "share", NULL::DECIMAL(10, 2) AS "price", NULL::BLOB AS "photo", NULL::DATE AS "due", NULL::TIMESTAMPTZ AS "at", NULL::VARCHAR AS "it_s__", NULL::VARCHAR AS "doc", NULL::VARCHAR AS "price__2", NULL::SMALLINT AS "count", NULL::INTEGER AS "count__2", NULL::VARCHAR AS "text", NULL::VARCHAR AS "body", NULL::DATE AS "date", NULL::INTEGER AS "hour" WHERE false)
