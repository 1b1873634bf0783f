-- what belongs together
IF SCHEMA_ID(N'shop') IS NULL EXEC(N'CREATE SCHEMA [shop]')
GO

-- public.items by its Delta log
CREATE OR ALTER VIEW [shop].[lake__public_items] AS
SELECT *
FROM OPENROWSET(BULK 'https://acme.blob.core.windows.net/audit/shop/public.items/', FORMAT = 'DELTA') WITH (
  [cdc_source] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [cdc_position] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [cdc_table_name] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [cdc_key] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [cdc_event] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [cdc_changes] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [cdc_changed] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [cdc_before_known] BIT,
  [cdc_committed_at] DATETIME2(6),
  [cdc_schema_version] INT,
  [cdc_exact] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [id] BIGINT,
  [paid] BIT,
  [share] FLOAT,
  [price] DECIMAL(10, 2),
  [photo] VARBINARY(MAX),
  [due] DATE,
  [at] DATETIME2(6),
  [it_s__] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [doc] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [price__2] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [count] SMALLINT,
  [count__2] INT,
  [text] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [body] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [year] INT,
  [month] INT,
  [day] INT) AS [lake]
GO

-- Odd Schema."a.b" by its Delta log
CREATE OR ALTER VIEW [shop].[lake__odd_schema_a_b__7f818cea] AS
SELECT *
FROM OPENROWSET(BULK 'https://acme.blob.core.windows.net/audit/shop/Odd-20Schema.-22a.b-22/', FORMAT = 'DELTA') WITH (
  [cdc_source] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [cdc_position] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [cdc_table_name] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [cdc_key] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [cdc_event] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [cdc_changes] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [cdc_changed] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [cdc_before_known] BIT,
  [cdc_committed_at] DATETIME2(6),
  [cdc_schema_version] INT,
  [cdc_exact] VARCHAR(MAX) COLLATE Latin1_General_100_BIN2_UTF8,
  [year] INT,
  [month] INT,
  [day] INT) AS [lake]
GO

-- public.items: former types and names joined, changes of whole rows shown
CREATE OR ALTER VIEW [shop].[public_items] AS
SELECT
  [cdc_source],
  [cdc_position],
  [cdc_table_name],
  [cdc_key],
  [cdc_event],
  CASE WHEN [cdc_left] IS NULL THEN [cdc_changes] ELSE
    N'{' + STUFF(concat(
      CASE WHEN ([cdc_whole] = 1 OR [id] IS NOT NULL) THEN N', "id": ' + [cdc_left] + COALESCE(CAST([id] AS VARCHAR(50)), N'null') + [cdc_right] ELSE '' END,
      CASE WHEN ([cdc_whole] = 1 OR [paid] IS NOT NULL) THEN N', "paid": ' + [cdc_left] + COALESCE(CASE [paid] WHEN 1 THEN 'true' WHEN 0 THEN 'false' END, N'null') + [cdc_right] ELSE '' END,
      CASE WHEN ([cdc_whole] = 1 OR [share] IS NOT NULL) THEN N', "share": ' + [cdc_left] + COALESCE(CONVERT(VARCHAR(40), [share], 3), N'null') + [cdc_right] ELSE '' END,
      CASE WHEN ([cdc_whole] = 1 OR [price] IS NOT NULL OR [price__2] IS NOT NULL) THEN N', "price": ' + [cdc_left] + COALESCE(COALESCE(N'"' + CAST([price] AS VARCHAR(50)) + N'"', N'"' + STRING_ESCAPE(JSON_VALUE([cdc_exact], '$."price"'), 'json') + N'"'), N'"' + STRING_ESCAPE([price__2], 'json') + N'"', N'null') + [cdc_right] ELSE '' END,
      CASE WHEN ([cdc_whole] = 1 OR [photo] IS NOT NULL) THEN N', "photo": ' + [cdc_left] + COALESCE(N'"' + JSON_VALUE((SELECT [photo] AS b FOR JSON PATH, WITHOUT_ARRAY_WRAPPER), '$.b') + N'"', N'null') + [cdc_right] ELSE '' END,
      CASE WHEN ([cdc_whole] = 1 OR [due] IS NOT NULL) THEN N', "due": ' + [cdc_left] + COALESCE(COALESCE(N'"' + CONVERT(VARCHAR(10), [due], 23) + N'"', N'"' + STRING_ESCAPE(JSON_VALUE([cdc_exact], '$."due"'), 'json') + N'"'), N'null') + [cdc_right] ELSE '' END,
      CASE WHEN ([cdc_whole] = 1 OR [at] IS NOT NULL) THEN N', "at": ' + [cdc_left] + COALESCE(COALESCE(N'"' + CONVERT(VARCHAR(26), [at], 126) + N'Z' + N'"', N'"' + STRING_ESCAPE(JSON_VALUE([cdc_exact], '$."at"'), 'json') + N'"'), N'null') + [cdc_right] ELSE '' END,
      CASE WHEN ([cdc_whole] = 1 OR [it_s__] IS NOT NULL) AND ([cdc_schema_version] = 2) THEN N', "it''s \"ü\"": ' + [cdc_left] + COALESCE(N'"' + STRING_ESCAPE([it_s__], 'json') + N'"', N'null') + [cdc_right] ELSE '' END,
      CASE WHEN ([cdc_whole] = 1 OR [doc] IS NOT NULL) THEN N', "doc": ' + [cdc_left] + COALESCE(CASE WHEN [doc] = N'null' THEN N'{"$json": null}' ELSE [doc] END, N'null') + [cdc_right] ELSE '' END,
      CASE WHEN ([cdc_whole] = 1 OR [count] IS NOT NULL OR [count__2] IS NOT NULL) AND ([cdc_schema_version] >= 2) THEN N', "count": ' + [cdc_left] + COALESCE(CAST([count] AS VARCHAR(50)), CAST([count__2] AS VARCHAR(50)), N'null') + [cdc_right] ELSE '' END,
      CASE WHEN ([cdc_whole] = 1 OR [text] IS NOT NULL) THEN N', "text": ' + [cdc_left] + COALESCE(N'"' + STRING_ESCAPE([text], 'json') + N'"', N'null') + [cdc_right] ELSE '' END,
      CASE WHEN ([cdc_whole] = 1 OR [body] IS NOT NULL) AND ([cdc_schema_version] >= 2) THEN N', "body": ' + [cdc_left] + COALESCE(N'"' + STRING_ESCAPE([body], 'json') + N'"', N'null') + [cdc_right] ELSE '' END), 1, 2, N'') + N'}' END AS [cdc_changes],
  [cdc_changed],
  [cdc_before_known],
  [cdc_committed_at],
  [cdc_schema_version],
  [cdc_exact],
  [id],
  [paid],
  [share],
  COALESCE(CAST([price] AS VARCHAR(50)), [price__2]) AS [price],
  [photo],
  [due],
  [at],
  [it_s__],
  [doc],
  COALESCE(CAST([count] AS INT), [count__2]) AS [count],
  COALESCE(CASE WHEN ([cdc_schema_version] = 1) THEN [text] END, [body]) AS [body],
  CASE WHEN ([cdc_schema_version] >= 2) THEN [text] END AS [text],
  [year],
  [month],
  [day]
FROM (
  SELECT *,
    CASE WHEN [cdc_changes] IS NOT NULL THEN NULL WHEN [cdc_event] IN ('created', 'snapshot') THEN N'[null, ' WHEN [cdc_event] = 'deleted' THEN N'[' END AS [cdc_left],
    CASE WHEN [cdc_event] = 'deleted' THEN N', null]' ELSE N']' END AS [cdc_right],
    CASE WHEN [cdc_event] = 'deleted' AND [cdc_before_known] = 0 THEN 0 ELSE 1 END AS [cdc_whole]
  FROM [shop].[lake__public_items]) AS [sides]
GO

-- Odd Schema."a.b": former types and names joined, changes of whole rows shown
CREATE OR ALTER VIEW [shop].[odd_schema_a_b__7f818cea] AS
SELECT
  [cdc_source],
  [cdc_position],
  [cdc_table_name],
  [cdc_key],
  [cdc_event],
  [cdc_changes],
  [cdc_changed],
  [cdc_before_known],
  [cdc_committed_at],
  [cdc_schema_version],
  [cdc_exact],
  [year],
  [month],
  [day]
FROM [shop].[lake__odd_schema_a_b__7f818cea]
GO

-- every version of every table
CREATE OR ALTER VIEW [shop].[versions] AS
SELECT [cdc_source] AS [source], [cdc_position] AS [position], [cdc_table_name] AS [table_name], [cdc_key] AS [key], [cdc_event] AS [event], [cdc_changes] AS [changes], [cdc_changed] AS [changed], [cdc_before_known] AS [before_known], [cdc_committed_at] AS [committed_at], [cdc_schema_version] AS [schema_version], [year], [month], [day] FROM [shop].[public_items]
UNION ALL
SELECT [cdc_source] AS [source], [cdc_position] AS [position], [cdc_table_name] AS [table_name], [cdc_key] AS [key], [cdc_event] AS [event], [cdc_changes] AS [changes], [cdc_changed] AS [changed], [cdc_before_known] AS [before_known], [cdc_committed_at] AS [committed_at], [cdc_schema_version] AS [schema_version], [year], [month], [day] FROM [shop].[odd_schema_a_b__7f818cea]
GO
