"""Runs the statements of `cdc-audit ddl` and compares what the views show with what the database exported.

`statements.py STATEMENTS EXPORT`: a list of the statements before and after the tables changed, for each engine and way; the folder of an export.
"""

import decimal
import re

from chdb import session as clickhouse_session

QUERY = "SELECT position, table_name, event, key, changes FROM shop.versions"
# A date that became a time, in microseconds: the same in every time zone of a session.
DUE = "SELECT cdc_position, {}(due) FROM shop.public_items WHERE due IS NOT NULL"
# Times are compared by the millisecond: an engine has no more in Delta tables.
COARSE = False
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
NUMBERS = {"parse_float": decimal.Decimal, "parse_int": decimal.Decimal}


def lines(text):
    # Not `splitlines`: a value may hold a line separator of Unicode.
    return [line for line in text.split("\n") if line]


def exported(folder):
    versions = {}
    for file in pathlib.Path(folder).rglob("*.jsonl"):
        for line in lines(file.read_text()):
            version = json.loads(line, **NUMBERS)
            versions[version["position"]] = {name: version[name] for name in ["table_name", "event", "key", "changes"]}
    return versions


def due(folder):
    """When the items of an export are due."""
    found = {}
    for line in lines((pathlib.Path(folder) / "public.items.jsonl").read_text()):
        version = json.loads(line)
        at = (version["after"] or version["before"] or {}).get("due")
        if at:
            at = datetime.datetime.fromisoformat(at if "T" in at else f"{at}T00:00:00Z")
            found[version["position"]] = (at - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1)
    return found


def iso(value):
    """What a typed column cannot hold is shown as PostgreSQL's text; the record has dates in the form of ISO 8601."""
    found = re.fullmatch(r"(\d{4,})(-\d\d-\d\d)(?: ([\d:.]+)(\+00)?)?( BC)?", value) if isinstance(value, str) else None
    if not found or not (found[5] or len(found[1]) > 4):
        return value
    year = 1 - int(found[1]) if found[5] else int(found[1])
    shown = f"+{year}" if year > 9999 else f"-{-year:04}" if year < 0 else f"{year:04}"
    return f"{shown}{found[2]}{'T' + found[3] if found[3] else ''}{'Z' if found[4] else ''}"


def same(one, other):
    """Values as JSON; of the smallest floats several shortest forms are in use (1E-45 and 1.4E-45 are one float of 32 bits)."""
    match one, other:
        case decimal.Decimal(), decimal.Decimal() if one != other and one and other and one.adjusted() < -30:
            form = ">d" if one.adjusted() < -46 else ">f"
            return struct.pack(form, one) == struct.pack(form, other)
        case str(), str() if one != other and COARSE and TIME.match(one) and TIME.match(other):
            apart = datetime.datetime.fromisoformat(one) - datetime.datetime.fromisoformat(other)
            return abs(apart) <= datetime.timedelta(milliseconds=1)
        case list(), list():
            return len(one) == len(other) and all(map(same, one, other))
        case dict(), dict():
            return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
        case _:
            return one == other


def compare(name, rows, expected):
    different = []
    seen = {}
    for position, table, event, key, changes in rows:
        if position in seen:
            different.append(f"{position} twice")
        changes = json.loads(changes, **NUMBERS) if changes is not None else None
        if event != "updated" and changes is not None:
            changes = {column: [iso(side) for side in sides] for column, sides in changes.items()}
        seen[position] = {"table_name": table, "event": event, "key": key, "changes": changes}
    for position, version in expected.items():
        if not same(seen.get(position), version):
            shown, wanted = (seen.get(position) or {}).get("changes") or {}, version["changes"] or {}
            columns = [column for column in {**shown, **wanted} if not same(shown.get(column), wanted.get(column))]
            sides = [(column, shown.get(column), wanted.get(column)) for column in columns]
            different.append(f"{position} {version['event']} {version['table_name']}: {sides}")
    print(f"{name}: {len(rows)} versions, {len(expected)} expected")
    for difference in different[:20]:
        print(f"  {difference}")


def in_duckdb(connection, rounds):
    # Not the zone of the lake, so that the views have to care.
    connection.execute("SET TimeZone = 'Asia/Kolkata'")
    connection.execute("SET enable_progress_bar = false")
    for statement in rounds:
        connection.execute(statement)
    types = connection.execute("DESCRIBE shop.public_items").fetchall()
    times = connection.execute(DUE.format("epoch_us")).fetchall()
    return connection.execute(QUERY).fetchall(), [(row[0], row[1]) for row in types], times


def duckdb_runs(rounds, way):
    return in_duckdb(duckdb.connect(), rounds)


def clickhouse_runs(rounds, way):
    connection = clickhouse_session.Session()
    for statement in rounds:
        connection.query(statement)
    rows = lines(str(connection.query(QUERY, "JSONCompactEachRow")))
    types = lines(str(connection.query("DESCRIBE shop.public_items", "JSONCompactEachRow")))
    times = lines(str(connection.query(DUE.format("toUnixTimestamp64Micro"), "JSONCompactEachRow")))
    connection.close()
    return [json.loads(row) for row in rows], [json.loads(row)[:2] for row in types], [json.loads(row) for row in times]


def spark_runs(rounds, way):
    spark.conf.set("spark.sql.session.timeZone", "Asia/Kolkata")
    for statement in rounds:
        spark.sql(statement)
    rows = [tuple(row) for row in spark.sql(QUERY).collect()]
    types = [(row[0], row[1]) for row in spark.sql("DESCRIBE shop.public_items").collect()]
    times = [tuple(row) for row in spark.sql(DUE.format("unix_micros")).collect()]
    spark.sql("DROP SCHEMA shop CASCADE")
    return rows, types, times


def check(engine, ways=("log", "plain")):
    global COARSE
    name = engine.__name__.removesuffix("_runs")
    before, after = (told[name.removesuffix("_with_delta")] for told in json.loads(pathlib.Path(sys.argv[1]).read_text()))
    for way in ways:
        COARSE = (name, way) == ("trino", "log")
        rows, types, *times = engine(before[way] + after[way] + after[way], way)
        compare(f"{name} {way}", rows, exported(sys.argv[2]))
        for times in times:
            # The hot table has no row of an update.
            shown = {position: int(micros) for position, micros in times}
            different = [(position, shown.get(position), at) for position, at in due(sys.argv[2]).items() if shown.get(position) != at]
            print(f"  due: {len(different)} different {different[:5]}")
    for column, kind in types:
        if not column.startswith("cdc_"):
            print(f"  {column} {kind}")
