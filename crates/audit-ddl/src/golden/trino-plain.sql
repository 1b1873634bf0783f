-- what belongs together
CREATE SCHEMA IF NOT EXISTS "hive"."shop";

-- only the definition is dropped
DROP TABLE IF EXISTS "hive"."shop"."lake__public_items";

-- public.items by its files; partitions are computed, to the year 2046; the catalog has hive.timestamp-precision=MICROSECONDS, hive.partition-projection-enabled=true and hive.ignore-absent-partitions=true
CREATE TABLE "hive"."shop"."lake__public_items" (
  "cdc_source" VARCHAR,
  "cdc_position" VARCHAR,
  "cdc_table_name" VARCHAR,
  "cdc_key" VARCHAR,
  "cdc_event" VARCHAR,
  "cdc_changes" VARCHAR,
  "cdc_changed" ARRAY(VARCHAR),
  "cdc_before_known" BOOLEAN,
  "cdc_committed_at" TIMESTAMP(6),
  "cdc_schema_version" INTEGER,
  "cdc_exact" VARCHAR,
  "id" BIGINT,
  "paid" BOOLEAN,
  "share" DOUBLE,
  "price" DECIMAL(10, 2),
  "photo" VARBINARY,
  "due" DATE,
  "at" TIMESTAMP(6),
  "it_s__" VARCHAR,
  "doc" VARCHAR,
  "price__2" VARCHAR,
  "count" SMALLINT,
  "count__2" INTEGER,
  "text" VARCHAR,
  "body" VARCHAR,
  "year" INTEGER WITH (
    partition_projection_type = 'INTEGER', partition_projection_range = ARRAY['2026', '2046'], partition_projection_digits = 4),
  "month" INTEGER WITH (
    partition_projection_type = 'INTEGER', partition_projection_range = ARRAY['1', '12'], partition_projection_digits = 2),
  "day" INTEGER WITH (
    partition_projection_type = 'INTEGER', partition_projection_range = ARRAY['1', '31'], partition_projection_digits = 2))
WITH (
  format = 'PARQUET',
  external_location = 's3://acme-audit/shop/public.items/data',
  partitioned_by = ARRAY['year', 'month', 'day'],
  partition_projection_enabled = true,
  partition_projection_location_template = 's3://acme-audit/shop/public.items/data/year=${year}/month=${month}/day=${day}');

-- only the definition is dropped
DROP TABLE IF EXISTS "hive"."shop"."lake__odd_schema_a_b__7f818cea";

-- Odd Schema."a.b" by its files; partitions are computed, to the year 2046; the catalog has hive.timestamp-precision=MICROSECONDS, hive.partition-projection-enabled=true and hive.ignore-absent-partitions=true
CREATE TABLE "hive"."shop"."lake__odd_schema_a_b__7f818cea" (
  "cdc_source" VARCHAR,
  "cdc_position" VARCHAR,
  "cdc_table_name" VARCHAR,
  "cdc_key" VARCHAR,
  "cdc_event" VARCHAR,
  "cdc_changes" VARCHAR,
  "cdc_changed" ARRAY(VARCHAR),
  "cdc_before_known" BOOLEAN,
  "cdc_committed_at" TIMESTAMP(6),
  "cdc_schema_version" INTEGER,
  "cdc_exact" VARCHAR,
  "year" INTEGER WITH (
    partition_projection_type = 'INTEGER', partition_projection_range = ARRAY['2026', '2046'], partition_projection_digits = 4),
  "month" INTEGER WITH (
    partition_projection_type = 'INTEGER', partition_projection_range = ARRAY['1', '12'], partition_projection_digits = 2),
  "day" INTEGER WITH (
    partition_projection_type = 'INTEGER', partition_projection_range = ARRAY['1', '31'], partition_projection_digits = 2))
WITH (
  format = 'PARQUET',
  external_location = 's3://acme-audit/shop/Odd-20Schema.-22a.b-22/data',
  partitioned_by = ARRAY['year', 'month', 'day'],
  partition_projection_enabled = true,
  partition_projection_location_template = 's3://acme-audit/shop/Odd-20Schema.-22a.b-22/data/year=${year}/month=${month}/day=${day}');

-- public.items: former types and names joined, changes of whole rows shown
CREATE OR REPLACE VIEW "hive"."shop"."public_items" AS
SELECT
  "cdc_source",
  "cdc_position",
  "cdc_table_name",
  "cdc_key",
  "cdc_event",
  CASE WHEN "cdc_left" IS NULL THEN "cdc_changes" ELSE
    '{' || substr(concat(
      CASE WHEN ("cdc_whole" = 1 OR "id" IS NOT NULL) THEN ', "id": ' || "cdc_left" || COALESCE(CAST("id" AS VARCHAR), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "paid" IS NOT NULL) THEN ', "paid": ' || "cdc_left" || COALESCE(CASE WHEN "paid" THEN 'true' WHEN NOT "paid" THEN 'false' END, 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "share" IS NOT NULL) THEN ', "share": ' || "cdc_left" || COALESCE(CASE WHEN is_nan("share") THEN '"NaN"' WHEN is_infinite("share") THEN CASE WHEN "share" > 0 THEN '"Infinity"' ELSE '"-Infinity"' END ELSE json_format(CAST("share" AS JSON)) END, 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "price" IS NOT NULL OR "price__2" IS NOT NULL) THEN ', "price": ' || "cdc_left" || COALESCE(COALESCE('"' || CAST("price" AS VARCHAR) || '"', json_format(json_extract("cdc_exact", '$["price"]'))), json_format(CAST("price__2" AS JSON)), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "photo" IS NOT NULL) THEN ', "photo": ' || "cdc_left" || COALESCE('"' || to_base64("photo") || '"', 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "due" IS NOT NULL) THEN ', "due": ' || "cdc_left" || COALESCE(COALESCE('"' || CAST("due" AS VARCHAR) || '"', json_format(json_extract("cdc_exact", '$["due"]'))), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "at" IS NOT NULL) THEN ', "at": ' || "cdc_left" || COALESCE(COALESCE('"' || replace(regexp_replace(CAST("at" AS VARCHAR), '\.?0*( UTC)?$', ''), ' ', 'T') || 'Z' || '"', json_format(json_extract("cdc_exact", '$["at"]'))), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "it_s__" IS NOT NULL) AND ("cdc_schema_version" = 2) THEN ', "it''s \"ü\"": ' || "cdc_left" || COALESCE(json_format(CAST("it_s__" AS JSON)), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "doc" IS NOT NULL) THEN ', "doc": ' || "cdc_left" || COALESCE(CASE WHEN "doc" = 'null' THEN '{"$json": null}' ELSE "doc" END, 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "count" IS NOT NULL OR "count__2" IS NOT NULL) AND ("cdc_schema_version" >= 2) THEN ', "count": ' || "cdc_left" || COALESCE(CAST("count" AS VARCHAR), CAST("count__2" AS VARCHAR), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "text" IS NOT NULL) THEN ', "text": ' || "cdc_left" || COALESCE(json_format(CAST("text" AS JSON)), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "body" IS NOT NULL) AND ("cdc_schema_version" >= 2) THEN ', "body": ' || "cdc_left" || COALESCE(json_format(CAST("body" AS JSON)), 'null') || "cdc_right" ELSE '' END), 3) || '}' END AS "cdc_changes",
  "cdc_changed",
  "cdc_before_known",
  "cdc_committed_at",
  "cdc_schema_version",
  "cdc_exact",
  "id",
  "paid",
  "share",
  COALESCE(CAST("price" AS VARCHAR), "price__2") AS "price",
  "photo",
  "due",
  "at",
  "it_s__",
  "doc",
  COALESCE(CAST("count" AS INTEGER), "count__2") AS "count",
  COALESCE(CASE WHEN ("cdc_schema_version" = 1) THEN "text" END, "body") AS "body",
  CASE WHEN ("cdc_schema_version" >= 2) THEN "text" END AS "text",
  "year",
  "month",
  "day"
FROM (
  SELECT *,
    CASE WHEN "cdc_changes" IS NOT NULL THEN NULL WHEN "cdc_event" IN ('created', 'snapshot') THEN '[null, ' WHEN "cdc_event" = 'deleted' THEN '[' END AS "cdc_left",
    CASE WHEN "cdc_event" = 'deleted' THEN ', null]' ELSE ']' END AS "cdc_right",
    CASE WHEN "cdc_event" = 'deleted' AND NOT "cdc_before_known" THEN 0 ELSE 1 END AS "cdc_whole"
  FROM "hive"."shop"."lake__public_items") AS "sides";

-- Odd Schema."a.b": former types and names joined, changes of whole rows shown
CREATE OR REPLACE VIEW "hive"."shop"."odd_schema_a_b__7f818cea" AS
SELECT
  "cdc_source",
  "cdc_position",
  "cdc_table_name",
  "cdc_key",
  "cdc_event",
  "cdc_changes",
  "cdc_changed",
  "cdc_before_known",
  "cdc_committed_at",
  "cdc_schema_version",
  "cdc_exact",
  "year",
  "month",
  "day"
FROM "hive"."shop"."lake__odd_schema_a_b__7f818cea";

-- every version of every table
CREATE OR REPLACE VIEW "hive"."shop"."versions" AS
SELECT "cdc_source" AS "source", "cdc_position" AS "position", "cdc_table_name" AS "table_name", "cdc_key" AS "key", "cdc_event" AS "event", "cdc_changes" AS "changes", "cdc_changed" AS "changed", "cdc_before_known" AS "before_known", "cdc_committed_at" AS "committed_at", "cdc_schema_version" AS "schema_version", "year", "month", "day" FROM "hive"."shop"."public_items"
UNION ALL
SELECT "cdc_source" AS "source", "cdc_position" AS "position", "cdc_table_name" AS "table_name", "cdc_key" AS "key", "cdc_event" AS "event", "cdc_changes" AS "changes", "cdc_changed" AS "changed", "cdc_before_known" AS "before_known", "cdc_committed_at" AS "committed_at", "cdc_schema_version" AS "schema_version", "year", "month", "day" FROM "hive"."shop"."odd_schema_a_b__7f818cea";
