"""Reads every table of a lake with each engine and prints what it sees, one JSON object for each engine."""

import datetime
import json
import pathlib
import sys

import deltalake
import duckdb
import pyarrow.dataset

# A struct with a field for each version that is compared; `id` is a column of the source.
COLUMNS = ["cdc_position", "cdc_table_name", "cdc_event", "cdc_key", "id", "cdc_committed_at", "year", "month", "day"]
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)

lake = pathlib.Path(sys.argv[1])
tables = sorted(path for path in lake.iterdir() if path.is_dir() and not path.name.startswith("_"))


def log_by_deltalake(table):
    return deltalake.DeltaTable(str(table)).to_pyarrow_table(columns=COLUMNS)


def log_by_duckdb(table):
    versions = deltalake.DeltaTable(str(table)).to_pyarrow_dataset()
    return duckdb.sql(f"SELECT {', '.join(COLUMNS)} FROM versions").to_arrow_table()


def listing_by_duckdb(table):
    files = str(table / "data" / "**" / "*.parquet")
    query = f"SELECT {', '.join(COLUMNS)} FROM read_parquet(?, hive_partitioning = true, union_by_name = true)"
    return duckdb.execute(query, [files]).to_arrow_table()


def listing_by_pyarrow(table):
    dataset = pyarrow.dataset.dataset(str(table / "data"), format="parquet", partitioning="hive")
    return dataset.to_table(columns=COLUMNS)


def versions(read):
    for table in tables:
        for row in read(table).to_pylist():
            at = row["cdc_committed_at"].astimezone(datetime.timezone.utc)
            assert (row["year"], row["month"], row["day"]) == (at.year, at.month, at.day), row
            micros = (at - EPOCH) // datetime.timedelta(microseconds=1)
            yield [row["cdc_position"], row["cdc_table_name"], row["cdc_event"], row["cdc_key"], row["id"], micros]


for read in [log_by_deltalake, log_by_duckdb, listing_by_duckdb, listing_by_pyarrow]:
    print(json.dumps({"engine": read.__name__, "versions": sorted(versions(read))}))

# What an analyst does with it: typed columns, summed without a cast.
items = str(lake / "public.items" / "data" / "**" / "*.parquet")
schema = {field.name: str(field.type) for field in deltalake.DeltaTable(str(lake / "public.items")).schema().fields}
spent = duckdb.execute(
    "SELECT CAST(sum(price) AS VARCHAR) FROM read_parquet(?, union_by_name = true) WHERE cdc_event = 'created'", [items]
).fetchone()[0]
print(json.dumps({"types": {name: schema[name] for name in ["price", "price__2", "at", "stock", "year", "year__2"]}, "spent": spent}))
