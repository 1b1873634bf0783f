-- what belongs together
CREATE SCHEMA IF NOT EXISTS "shop";

-- the reader of Delta logs
INSTALL delta;

-- in this session
LOAD delta;

-- public.items by its Delta log
CREATE OR REPLACE VIEW "shop"."lake__public_items" AS
SELECT "cdc_source", "cdc_position", "cdc_table_name", "cdc_key", "cdc_event", "cdc_changes", "cdc_changed", "cdc_before_known", "cdc_committed_at", "cdc_schema_version", "cdc_exact", "id", "paid", "share", "price", "photo", "due", "at", "it_s__", "doc", "price__2", "count", "count__2", "text", "body", "year", "month", "day"
FROM delta_scan('/var/lib/cdc-audit/lake/public.items');

-- Odd Schema."a.b" by its Delta log
CREATE OR REPLACE VIEW "shop"."lake__odd_schema_a_b__7f818cea" AS
SELECT "cdc_source", "cdc_position", "cdc_table_name", "cdc_key", "cdc_event", "cdc_changes", "cdc_changed", "cdc_before_known", "cdc_committed_at", "cdc_schema_version", "cdc_exact", "year", "month", "day"
FROM delta_scan('/var/lib/cdc-audit/lake/Odd-20Schema.-22a.b-22');

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
      CASE WHEN ("cdc_whole" = 1 OR "share" IS NOT NULL) THEN ', "share": ' || "cdc_left" || COALESCE(CASE WHEN isnan("share") THEN '"NaN"' WHEN isinf("share") THEN CASE WHEN "share" > 0 THEN '"Infinity"' ELSE '"-Infinity"' END ELSE CAST("share" AS VARCHAR) END, 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "price" IS NOT NULL OR "price__2" IS NOT NULL) THEN ', "price": ' || "cdc_left" || COALESCE(COALESCE('"' || CAST("price" AS VARCHAR) || '"', CAST(json_extract("cdc_exact", '$."price"') AS VARCHAR)), CAST(to_json("price__2") AS VARCHAR), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "photo" IS NOT NULL) THEN ', "photo": ' || "cdc_left" || COALESCE('"' || base64("photo") || '"', 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "due" IS NOT NULL) THEN ', "due": ' || "cdc_left" || COALESCE(COALESCE('"' || CAST("due" AS VARCHAR) || '"', CAST(json_extract("cdc_exact", '$."due"') AS VARCHAR)), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "at" IS NOT NULL) THEN ', "at": ' || "cdc_left" || COALESCE(COALESCE('"' || replace(CAST("at" AT TIME ZONE 'UTC' AS VARCHAR), ' ', 'T') || 'Z' || '"', CAST(json_extract("cdc_exact", '$."at"') AS VARCHAR)), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "it_s__" IS NOT NULL) AND ("cdc_schema_version" = 2) THEN ', "it''s \"ü\"": ' || "cdc_left" || COALESCE(CAST(to_json("it_s__") AS VARCHAR), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "doc" IS NOT NULL) THEN ', "doc": ' || "cdc_left" || COALESCE(CASE WHEN "doc" = 'null' THEN '{"$json": null}' ELSE "doc" END, 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "count" IS NOT NULL OR "count__2" IS NOT NULL) AND ("cdc_schema_version" >= 2) THEN ', "count": ' || "cdc_left" || COALESCE(CAST("count" AS VARCHAR), CAST("count__2" AS VARCHAR), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "text" IS NOT NULL) THEN ', "text": ' || "cdc_left" || COALESCE(CAST(to_json("text") AS VARCHAR), 'null') || "cdc_right" ELSE '' END,
      CASE WHEN ("cdc_whole" = 1 OR "body" IS NOT NULL) AND ("cdc_schema_version" >= 2) THEN ', "body": ' || "cdc_left" || COALESCE(CAST(to_json("body") AS VARCHAR), 'null') || "cdc_right" ELSE '' END), 3) || '}' END AS "cdc_changes",
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
