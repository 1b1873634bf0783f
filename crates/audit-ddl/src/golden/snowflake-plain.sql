-- what belongs together
CREATE SCHEMA IF NOT EXISTS "shop";

-- the lake's files; the storage integration cdc_audit may read them
CREATE STAGE IF NOT EXISTS "shop"."lake"
  URL = 's3://acme-audit/shop/'
  STORAGE_INTEGRATION = cdc_audit
  FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE);

-- where they lie now, if the stage was made for another place
ALTER STAGE "shop"."lake" SET URL = 's3://acme-audit/shop/';

-- public.items by its files; they are listed when they are refreshed
CREATE OR REPLACE EXTERNAL TABLE "shop"."lake__public_items" (
  "cdc_source" VARCHAR AS (VALUE:"cdc_source"::VARCHAR),
  "cdc_position" VARCHAR AS (VALUE:"cdc_position"::VARCHAR),
  "cdc_table_name" VARCHAR AS (VALUE:"cdc_table_name"::VARCHAR),
  "cdc_key" VARCHAR AS (VALUE:"cdc_key"::VARCHAR),
  "cdc_event" VARCHAR AS (VALUE:"cdc_event"::VARCHAR),
  "cdc_changes" VARCHAR AS (VALUE:"cdc_changes"::VARCHAR),
  "cdc_changed" ARRAY AS (VALUE:"cdc_changed"::ARRAY),
  "cdc_before_known" BOOLEAN AS (VALUE:"cdc_before_known"::BOOLEAN),
  "cdc_committed_at" TIMESTAMP_LTZ(6) AS (VALUE:"cdc_committed_at"::TIMESTAMP_LTZ(6)),
  "cdc_schema_version" INTEGER AS (VALUE:"cdc_schema_version"::INTEGER),
  "cdc_exact" VARCHAR AS (VALUE:"cdc_exact"::VARCHAR),
  "id" BIGINT AS (VALUE:"id"::BIGINT),
  "paid" BOOLEAN AS (VALUE:"paid"::BOOLEAN),
  "share" FLOAT AS (VALUE:"share"::FLOAT),
  "price" NUMBER(10, 2) AS (VALUE:"price"::NUMBER(10, 2)),
  "photo" BINARY AS (VALUE:"photo"::BINARY),
  "due" DATE AS (VALUE:"due"::DATE),
  "at" TIMESTAMP_LTZ(6) AS (VALUE:"at"::TIMESTAMP_LTZ(6)),
  "it_s__" VARCHAR AS (VALUE:"it_s__"::VARCHAR),
  "doc" VARCHAR AS (VALUE:"doc"::VARCHAR),
  "price__2" VARCHAR AS (VALUE:"price__2"::VARCHAR),
  "count" SMALLINT AS (VALUE:"count"::SMALLINT),
  "count__2" INTEGER AS (VALUE:"count__2"::INTEGER),
  "text" VARCHAR AS (VALUE:"text"::VARCHAR),
  "body" VARCHAR AS (VALUE:"body"::VARCHAR),
  "year" INTEGER AS (SPLIT_PART(SPLIT_PART(METADATA$FILENAME, '/year=', 2), '/', 1)::INTEGER),
  "month" INTEGER AS (SPLIT_PART(SPLIT_PART(METADATA$FILENAME, '/month=', 2), '/', 1)::INTEGER),
  "day" INTEGER AS (SPLIT_PART(SPLIT_PART(METADATA$FILENAME, '/day=', 2), '/', 1)::INTEGER))
PARTITION BY ("year", "month", "day")
LOCATION = @"shop"."lake"/public.items/data/
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE);

-- again for files that come later
ALTER EXTERNAL TABLE "shop"."lake__public_items" REFRESH;

-- public.items inside, for those who load; new columns come with the files that have them
CREATE TABLE IF NOT EXISTS "shop"."loaded__public_items" (
  "cdc_source" VARCHAR,
  "cdc_position" VARCHAR,
  "cdc_table_name" VARCHAR,
  "cdc_key" VARCHAR,
  "cdc_event" VARCHAR,
  "cdc_changes" VARCHAR,
  "cdc_changed" ARRAY,
  "cdc_before_known" BOOLEAN,
  "cdc_committed_at" TIMESTAMP_LTZ(6),
  "cdc_schema_version" INTEGER,
  "cdc_exact" VARCHAR,
  "id" BIGINT,
  "paid" BOOLEAN,
  "share" FLOAT,
  "price" NUMBER(10, 2),
  "photo" BINARY,
  "due" DATE,
  "at" TIMESTAMP_LTZ(6),
  "it_s__" VARCHAR,
  "doc" VARCHAR,
  "price__2" VARCHAR,
  "count" SMALLINT,
  "count__2" INTEGER,
  "text" VARCHAR,
  "body" VARCHAR)
ENABLE_SCHEMA_EVOLUTION = TRUE;

-- again and again: each file is loaded once
COPY INTO "shop"."loaded__public_items"
FROM @"shop"."lake"/public.items/data/
FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE)
MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE;

-- Odd Schema."a.b" by its files; they are listed when they are refreshed
CREATE OR REPLACE EXTERNAL TABLE "shop"."lake__odd_schema_a_b__7f818cea" (
  "cdc_source" VARCHAR AS (VALUE:"cdc_source"::VARCHAR),
  "cdc_position" VARCHAR AS (VALUE:"cdc_position"::VARCHAR),
  "cdc_table_name" VARCHAR AS (VALUE:"cdc_table_name"::VARCHAR),
  "cdc_key" VARCHAR AS (VALUE:"cdc_key"::VARCHAR),
  "cdc_event" VARCHAR AS (VALUE:"cdc_event"::VARCHAR),
  "cdc_changes" VARCHAR AS (VALUE:"cdc_changes"::VARCHAR),
  "cdc_changed" ARRAY AS (VALUE:"cdc_changed"::ARRAY),
  "cdc_before_known" BOOLEAN AS (VALUE:"cdc_before_known"::BOOLEAN),
  "cdc_committed_at" TIMESTAMP_LTZ(6) AS (VALUE:"cdc_committed_at"::TIMESTAMP_LTZ(6)),
  "cdc_schema_version" INTEGER AS (VALUE:"cdc_schema_version"::INTEGER),
  "cdc_exact" VARCHAR AS (VALUE:"cdc_exact"::VARCHAR),
  "year" INTEGER AS (SPLIT_PART(SPLIT_PART(METADATA$FILENAME, '/year=', 2), '/', 1)::INTEGER),
  "month" INTEGER AS (SPLIT_PART(SPLIT_PART(METADATA$FILENAME, '/month=', 2), '/', 1)::INTEGER),
  "day" INTEGER AS (SPLIT_PART(SPLIT_PART(METADATA$FILENAME, '/day=', 2), '/', 1)::INTEGER))
PARTITION BY ("year", "month", "day")
LOCATION = @"shop"."lake"/Odd-20Schema.-22a.b-22/data/
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE);

-- again for files that come later
ALTER EXTERNAL TABLE "shop"."lake__odd_schema_a_b__7f818cea" REFRESH;

-- Odd Schema."a.b" inside, for those who load; new columns come with the files that have them
CREATE TABLE IF NOT EXISTS "shop"."loaded__odd_schema_a_b__7f818cea" (
  "cdc_source" VARCHAR,
  "cdc_position" VARCHAR,
  "cdc_table_name" VARCHAR,
  "cdc_key" VARCHAR,
  "cdc_event" VARCHAR,
  "cdc_changes" VARCHAR,
  "cdc_changed" ARRAY,
  "cdc_before_known" BOOLEAN,
  "cdc_committed_at" TIMESTAMP_LTZ(6),
  "cdc_schema_version" INTEGER,
  "cdc_exact" VARCHAR)
ENABLE_SCHEMA_EVOLUTION = TRUE;

-- again and again: each file is loaded once
COPY INTO "shop"."loaded__odd_schema_a_b__7f818cea"
FROM @"shop"."lake"/Odd-20Schema.-22a.b-22/data/
FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE)
MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE;

-- public.items: former types and names joined, changes of whole rows shown
CREATE OR REPLACE VIEW "shop"."public_items" AS
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
      CASE WHEN ("cdc_whole" = 1 OR "share" IS NOT NULL) THEN ', "share": ' || "cdc_left" || COALESCE(CASE WHEN "share" = 'NaN'::FLOAT THEN '"NaN"' WHEN ABS("share") = 'inf'::FLOAT THEN CASE WHEN "share" > 0 THEN '"Infinity"' ELSE '"-Infinity"' END ELSE CAST("share" AS VARCHAR) END, 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "price" IS NOT NULL OR "price__2" IS NOT NULL) THEN ', "price": ' || "cdc_left" || COALESCE(COALESCE('"' || CAST("price" AS VARCHAR) || '"', TO_JSON(GET(PARSE_JSON("cdc_exact"), 'price'))), TO_JSON(TO_VARIANT("price__2")), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "photo" IS NOT NULL) THEN ', "photo": ' || "cdc_left" || COALESCE('"' || BASE64_ENCODE("photo") || '"', 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "due" IS NOT NULL) THEN ', "due": ' || "cdc_left" || COALESCE(COALESCE('"' || TO_VARCHAR("due", 'YYYY-MM-DD') || '"', TO_JSON(GET(PARSE_JSON("cdc_exact"), 'due'))), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "at" IS NOT NULL) THEN ', "at": ' || "cdc_left" || COALESCE(COALESCE('"' || REGEXP_REPLACE(TO_VARCHAR(CONVERT_TIMEZONE('UTC', "at"), 'YYYY-MM-DD"T"HH24:MI:SS.FF6'), '\\.?0*$', '') || 'Z' || '"', TO_JSON(GET(PARSE_JSON("cdc_exact"), 'at'))), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "it_s__" IS NOT NULL) AND ("cdc_schema_version" = 2) THEN ', "it\'s \\"ü\\"": ' || "cdc_left" || COALESCE(TO_JSON(TO_VARIANT("it_s__")), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "doc" IS NOT NULL) THEN ', "doc": ' || "cdc_left" || COALESCE(CASE WHEN "doc" = 'null' THEN '{"$json": null}' ELSE "doc" END, 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "count" IS NOT NULL OR "count__2" IS NOT NULL) AND ("cdc_schema_version" >= 2) THEN ', "count": ' || "cdc_left" || COALESCE(CAST("count" AS VARCHAR), CAST("count__2" AS VARCHAR), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "text" IS NOT NULL) THEN ', "text": ' || "cdc_left" || COALESCE(TO_JSON(TO_VARIANT("text")), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "body" IS NOT NULL) AND ("cdc_schema_version" >= 2) THEN ', "body": ' || "cdc_left" || COALESCE(TO_JSON(TO_VARIANT("body")), 'null') || "cdc_right" ELSE '' END), 3) || '}' END AS "cdc_changes",
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
  FROM "shop"."lake__public_items") AS "sides";

-- Odd Schema."a.b": former types and names joined, changes of whole rows shown
CREATE OR REPLACE VIEW "shop"."odd_schema_a_b__7f818cea" AS
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
FROM "shop"."lake__odd_schema_a_b__7f818cea";

-- every version of every table
CREATE OR REPLACE VIEW "shop"."versions" AS
SELECT "cdc_source" AS "source", "cdc_position" AS "position", "cdc_table_name" AS "table_name", "cdc_key" AS "key", "cdc_event" AS "event", "cdc_changes" AS "changes", "cdc_changed" AS "changed", "cdc_before_known" AS "before_known", "cdc_committed_at" AS "committed_at", "cdc_schema_version" AS "schema_version", "year", "month", "day" FROM "shop"."public_items"
UNION ALL
SELECT "cdc_source" AS "source", "cdc_position" AS "position", "cdc_table_name" AS "table_name", "cdc_key" AS "key", "cdc_event" AS "event", "cdc_changes" AS "changes", "cdc_changed" AS "changed", "cdc_before_known" AS "before_known", "cdc_committed_at" AS "committed_at", "cdc_schema_version" AS "schema_version", "year", "month", "day" FROM "shop"."odd_schema_a_b__7f818cea";
