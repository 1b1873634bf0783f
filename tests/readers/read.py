"""Reads every table of a lake with each engine, both ways where the engine has both, and prints what it sees: for each engine and way one
JSON object with the rows of each table, and a checksum of each of its columns (`checksums.rs` makes the same).

`read.py LAKE`
"""

import datetime
import hashlib
import json
import pathlib
import struct
import sys

import chdb
import datafusion
import deltalake
import duckdb
import polars
import pyarrow
import pyarrow.dataset
import pyarrow.parquet

PARTITIONS = {"year": pyarrow.int32(), "month": pyarrow.int32(), "day": pyarrow.int32(), "hour": pyarrow.int32(), "date": pyarrow.date32()}


def partitions(table):
    return [(name, PARTITIONS[name]) for name in deltalake.DeltaTable(str(table)).metadata().partition_columns]


def files(table):
    return sorted(str(path) for path in (table / "data").rglob("*.parquet"))


def schema_of_files(table):
    return pyarrow.unify_schemas([pyarrow.parquet.read_schema(file) for file in files(table)])


def log_by_deltalake(table):
    return deltalake.DeltaTable(str(table)).to_pyarrow_table()


def log_by_polars(table):
    return polars.scan_delta(str(table)).collect().to_arrow()


def log_by_datafusion(table):
    context = datafusion.SessionContext()
    context.register_table("versions", deltalake.DeltaTable(str(table)))
    return context.sql("SELECT * FROM versions").to_arrow_table()


def log_by_clickhouse(table):
    return clickhouse(f"SELECT * FROM deltaLakeLocal('{table}')", "")


def listing_by_duckdb(table):
    # By itself DuckDB takes a number with a leading zero, as in day=01, for a text.
    types = ", ".join(f"'{name}': {'DATE' if name == 'date' else 'INTEGER'}" for name, _ in partitions(table))
    hive = f"hive_partitioning = true, hive_types = {{{types}}}"
    source = f"read_parquet('{table}/data/**/*.parquet', {hive}, union_by_name = true)"
    return duckdb.sql(f"SELECT * FROM {source}").to_arrow_table()


def listing_by_pyarrow(table):
    schema = schema_of_files(table)
    for name, kind in partitions(table):
        schema = schema.append(pyarrow.field(name, kind))
    return pyarrow.dataset.dataset(str(table / "data"), schema=schema, format="parquet", partitioning="hive").to_table()


def listing_by_polars(table):
    scans = [polars.scan_parquet(file, hive_partitioning=True) for file in files(table)]
    return polars.concat(scans, how="diagonal").collect().to_arrow()


def listing_by_datafusion(table):
    context = datafusion.SessionContext()
    data, schema = str(table / "data"), schema_of_files(table)
    context.register_parquet("versions", data, table_partition_cols=partitions(table), schema=schema)
    return context.sql("SELECT * FROM versions").to_arrow_table()


def listing_by_clickhouse(table):
    source = f"file('{table}/data/**/*.parquet', Parquet)"
    return clickhouse(f"SELECT * FROM {source}", "schema_inference_mode = 'union', use_hive_partitioning = 1, ")


def clickhouse(query, settings):
    settings += "output_format_arrow_string_as_string = 0, output_format_arrow_compression_method = 'none'"
    answer = chdb.query(f"{query} SETTINGS {settings}", "Arrow").bytes()
    return pyarrow.ipc.open_file(pyarrow.BufferReader(answer)).read_all()


def text(value):
    """A value in one form, whatever type an engine gives it."""
    match value:
        # To ClickHouse no list and an empty one are the same.
        case None | []:
            return "null"
        case bool():
            return "true" if value else "false"
        case float():
            return "NaN" if value != value else struct.pack(">d", value).hex()
        case bytes():
            return value.hex()
        case list():
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        case datetime.date():
            return str((value - datetime.date(1970, 1, 1)).days)
        case _:
            return str(value)


def decoded(value):
    match value:
        case bytes():
            return value.decode()
        case list():
            return [decoded(item) for item in value]
        case _:
            return value


def values(column, kind):
    """A column as texts; `kind` is its Delta type."""
    if pyarrow.types.is_timestamp(column.type):
        column = column.cast(pyarrow.timestamp("us", column.type.tz)).cast(pyarrow.int64())
    values = column.to_pylist()
    if kind.startswith("decimal"):
        scale = int(kind.split(",")[1].rstrip(")"))
        return ["null" if value is None else f"{value:.{scale}f}" for value in values]
    # A text is bytes to some.
    return [text(value if kind == "binary" else decoded(value)) for value in values]


def checksums(rows, table):
    schema = deltalake.DeltaTable(str(table)).schema()
    order = sorted(range(rows.num_rows), key=values(rows["cdc_position"], "string").__getitem__)
    sums = {}
    for field in json.loads(schema.to_json())["fields"]:
        column = ["null"] * rows.num_rows
        # What no file has is missing for those who list.
        if field["name"] in rows.column_names:
            column = values(rows[field["name"]], str(field["type"]))
        sums[field["name"]] = hashlib.sha256("\n".join(column[at] for at in order).encode()).hexdigest()[:16]
    for at, committed in enumerate(rows["cdc_committed_at"].cast(pyarrow.timestamp("us", "UTC")).to_pylist()):
        for name, _ in partitions(table):
            part = getattr(committed, name)
            assert (part() if name == "date" else part) == rows[name][at].as_py()
    return sums


def show(read):
    seen = {}
    for table in sorted(path for path in lake.iterdir() if path.is_dir() and not path.name.startswith("_")):
        rows = read(table)
        seen[table.name] = {"rows": rows.num_rows, "columns": checksums(rows, table)}
    print(json.dumps({"engine": read.__name__, "tables": seen}))


lake = pathlib.Path(sys.argv[1])
# It would stand among the answers of a slow machine.
duckdb.execute("SET enable_progress_bar = false")
