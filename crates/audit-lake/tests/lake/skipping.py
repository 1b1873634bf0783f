"""Asks one table for a key and for a day, in each engine, and prints how many files and row groups its plan says it read.

`skipping.py TABLE KEY DAY`
"""

import pathlib
import re
import sys

import datafusion
import deltalake
import duckdb
import polars
import pyarrow
import pyarrow.compute as compute
import pyarrow.dataset
from chdb import session

table, key, day = sys.argv[1:]
data = f"{table}/data"
files = f"{data}/**/*.parquet"
year, month, day = (int(part) for part in day.split("-"))
partitions = {"year": year, "month": month, "day": day}
clickhouse = session.Session()
duckdb.execute("SET enable_progress_bar = false")


def number(plan, pattern):
    found = re.findall(pattern, plan)
    return int(found[-1]) if found else None


def by_pyarrow(dataset, question):
    field = compute.field
    wanted = field("cdc_key") == key
    if question == "day":
        wanted = (field("year") == year) & (field("month") == month) & (field("day") == day)
    fragments = list(dataset.get_fragments(filter=wanted))
    groups = None
    if question == "key" and len(fragments) > 1:
        groups = sum(len(fragment.split_by_row_group(wanted, schema=dataset.schema)) for fragment in fragments)
    return len(fragments), groups


def log_by_pyarrow(question, sql):
    return by_pyarrow(deltalake.DeltaTable(table).to_pyarrow_dataset(), question)


def listing_by_pyarrow(question, sql):
    return by_pyarrow(pyarrow.dataset.dataset(data, format="parquet", partitioning="hive"), question)


def by_polars(scan, sql):
    plan = polars.SQLContext(versions=scan).execute(f"SELECT * FROM versions WHERE {sql}").explain()
    return 1 + (number(plan, r"\.\.\. (\d+) other source") or 0), None


def log_by_polars(question, sql):
    return by_polars(polars.scan_delta(table), sql)


def listing_by_polars(question, sql):
    return by_polars(polars.scan_parquet(files, hive_partitioning=True), sql)


EXPLAIN = "EXPLAIN ANALYZE SELECT max(cdc_xid) FROM versions WHERE "


def log_by_datafusion(question, sql):
    # DataFusion with the table provider that comes with `deltalake`.
    context = deltalake.QueryBuilder().register("versions", deltalake.DeltaTable(table))
    plan = pyarrow.table(context.execute(EXPLAIN + sql).read_all()).to_pylist()[-1]["plan"]
    return number(plan, r"files_opened=(\d+)"), number(plan, r"row_groups_pruned_statistics=.*?→ (\d+) matched")


def listing_by_datafusion(question, sql):
    context = datafusion.SessionContext()
    # As text: with integers it looks for the folder `month=3`, which there is not, and finds nothing.
    types = [(name, pyarrow.string()) for name in partitions]
    context.register_parquet("versions", data, table_partition_cols=types)
    plan = context.sql(EXPLAIN.replace("max(cdc_xid)", "max(length(cdc_position))") + sql).to_pylist()[-1]["plan"]
    kept = number(plan, r"files_ranges_pruned_statistics=.*?→ (\d+) matched")
    return kept, number(plan, r"row_groups_pruned_statistics=.*?→ (\d+) matched") if question == "key" else None


def listing_by_duckdb(question, sql):
    source = f"read_parquet('{files}', hive_partitioning = true, union_by_name = true)"
    plan = duckdb.sql(f"EXPLAIN ANALYZE SELECT max(cdc_xid) FROM {source} WHERE {sql}").fetchall()[0][1]
    return number(plan, r"Total Files Read: (\d+)"), number(plan, r"Row Groups Scanned: (\d+) /")


def by_clickhouse(source, sql):
    def events():
        rows = str(clickhouse.query("SELECT event, value FROM system.events", "TSV")).splitlines()
        return {name: int(value) for name, value in (row.split("\t") for row in rows)}

    before = events()
    clickhouse.query(f"SELECT max(cdc_xid) FROM {source} WHERE {sql} SETTINGS use_hive_partitioning = 1")
    after = events()
    return tuple(after[name] - before.get(name, 0) for name in ["EngineFileLikeReadFiles", "ParquetReadRowGroups"])


def log_by_clickhouse(question, sql):
    return by_clickhouse(f"deltaLakeLocal('{table}')", sql)


def listing_by_clickhouse(question, sql):
    return by_clickhouse(f"file('{files}', Parquet)", sql)


def counted(count, what):
    return "" if count is None else f"{count} {what}{'s' if count > 1 else ''}"


QUESTIONS = {
    "key": f"cdc_key = '{key}'",
    "day": " AND ".join(f"{name} = {value}" for name, value in partitions.items()),
}
for question, sql in QUESTIONS.items():
    for ask in [
        log_by_pyarrow,
        log_by_polars,
        log_by_datafusion,
        log_by_clickhouse,
        listing_by_duckdb,
        listing_by_pyarrow,
        listing_by_polars,
        listing_by_datafusion,
        listing_by_clickhouse,
    ]:
        files_read, groups = ask(question, sql)
        line = f"{question}  {ask.__name__:<21} {counted(files_read, 'file'):<8} {counted(groups, 'row group')}"
        print(line.rstrip())
