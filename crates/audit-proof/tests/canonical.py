"""Makes the canonical records of version records, from docs/canonical-record.md alone, and compares them with the test
vectors in a file: python3 canonical.py vectors.json. Needs nothing but Python's standard library."""

import base64
import binascii
import datetime
import hashlib
import json
import re
import struct
import sys

sys.setrecursionlimit(10_000)




def parse(text, at=0):
    """Returns the value that begins at or after an index, and the index after it. A value is a pair of its type and its
    content; an object's content is a list of members."""
    while text[at] in " \t\r\n":
        at += 1
    start = at
    if text[at] == '"':
        at = re.compile(r'"(?:[^"\\]|\\.)*"', re.S).match(text, at).end()
        return ("string", text[start:at], text[start:at]), at
    if text[at] in "{[":
        closing, items, at = {"{": "}", "[": "]"}[text[at]], [], at + 1
        while True:
            while text[at] in " \t\r\n,":
                at += 1
            if text[at] == closing:
                kind = "object" if closing == "}" else "list"
                return (kind, items, text[start : at + 1]), at + 1
            item, at = parse(text, at)
            if closing == "}":
                at = text.index(":", at) + 1
                value, at = parse(text, at)
                item = (item, value)
            items.append(item)
    at = re.compile(r"[-+.0-9a-zA-Z]+").match(text, at).end()
    word = text[start:at]
    return ("word" if word in ("true", "false", "null") else "number", word, word), at


def members(value):
    """The members of an object, of equal names the last one."""
    return {characters(name): member for name, member in value[1]}


def plain(value):
    """The value as Python has it."""
    return json.loads(value[2])


def storable(text):
    return text.replace("\0", "\ufffd")


def characters(value):
    """A string's characters: U+FFFD stands for U+0000 and for halves of surrogate pairs."""
    return re.sub("[\ud800-\udfff]", "\ufffd", storable(json.loads(value[1], strict=False)))


def depth(value):
    if value[0] == "object":
        return 1 + max((depth(member) for _, member in value[1]), default=0)
    return 1 + max(map(depth, value[1]), default=0) if value[0] == "list" else 0


def number(text):
    """A number without an exponent; None if it would be too long."""
    sign, whole, fraction, exponent = re.fullmatch(r"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?", text).groups()
    digits, point = whole + (fraction or ""), len(whole) + int(exponent or 0)
    after = max(len(digits) - point, 0)
    if len(sign) + max(point, 1) + after + (after > 0) > 1000:
        return None
    digits = "0" * -point + digits + "0" * (point - len(digits))
    whole, fraction = digits[: max(point, 0)].lstrip("0") or "0", digits[max(point, 0) :]
    sign = sign if digits.strip("0") else ""
    return sign + whole + ("." + fraction if fraction else "")


def string(text):
    escape = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escape.get(c) or (c if c >= " " else "\\u%04x" % ord(c)) for c in text) + '"'


def printed(value):
    kind, content, _ = value
    if kind == "object":
        ordered = sorted(members(value).items(), key=lambda member: (len(member[0].encode()), member[0].encode()))
        return "{" + ", ".join(string(name) + ": " + printed(member) for name, member in ordered) + "}"
    if kind == "list":
        return "[" + ", ".join(map(printed, content)) + "]"
    if kind == "string":
        return string(characters(value))
    return content if kind == "word" else number(content) or string(content)


NULL, BOOL, NUMBER, FLOAT4, FLOAT8, TEXT, BYTES, JSON, NAMES, FIELDS = range(10)


def as_text(text):
    return TEXT, storable(text).encode()


def as_number(value):
    return NUMBER, str(value).encode()


def as_json(value):
    kind, content, raw = value
    if depth(value) > 200:
        return JSON, ('{"text": ' + string(raw) + "}").encode()
    if kind == "word":
        return (NULL, b"") if content == "null" else (BOOL, bytes([content == "true"]))
    if kind == "string":
        return TEXT, characters(value).encode()
    if kind == "number":
        return (NUMBER, number(content).encode()) if number(content) else (TEXT, content.encode())
    return JSON, printed(value).encode()


def as_column(kind, value):
    general = as_json(value)
    if kind in ("float4", "float8"):
        names = {b"NaN": "nan", b"Infinity": "inf", b"-Infinity": "-inf"}
        text = value[1] if general[0] == NUMBER else names.get(general[1]) if general[0] == TEXT else None
        if text is not None:
            single, shown = kind == "float4", float(text)
            if shown != shown:
                return (FLOAT4, bytes.fromhex("7fc00000")) if single else (FLOAT8, bytes.fromhex("7ff8000000000000"))
            return (FLOAT4, struct.pack(">f", shown + 0.0)) if single else (FLOAT8, struct.pack(">d", shown + 0.0))
    if kind == "bytea" and general[0] == TEXT:
        try:
            decoded = base64.b64decode(general[1], validate=True)
            if base64.b64encode(decoded) == general[1]:
                return BYTES, decoded
        except binascii.Error:
            pass
    return general


def sized(data):
    return struct.pack(">Q", len(data)) + data


def field(name, value):
    return sized(name.encode()) + bytes([value[0]]) + sized(value[1])


def unit(tag, name, value):
    return bytes([tag]) + field(name, value)


def as_names(names):
    return NAMES, b"".join(sized(storable(name).encode()) for name in names)


def as_fields(fields):
    return FIELDS, b"".join(field(name, fields[name]) for name in sorted(fields) if fields[name] is not None)


def micros(text):
    time = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")
    return (time - datetime.datetime(1970, 1, 1)) // datetime.timedelta(microseconds=1)


def lsn(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def cut(text, limit):
    return text.encode()[:limit].decode(errors="ignore")


def canonical(record, kinds):
    """Returns the bytes of a record, and how many of them every store has."""
    given = {name: plain(value) for name, value in record.items()}
    some = lambda name, make: None if given[name] is None else make(given[name])
    flag = lambda value: (BOOL, bytes([value]))
    columns = lambda name: (
        {}
        if given[name] is None
        else {column: as_column(kinds.get(column), value) for column, value in members(record[name]).items()}
    )
    envelope = {
        "actor_source": some("actor_source", as_text),
        "baseline": some("baseline", as_number),
        "before_known": flag(given["before_known"]),
        "carried": as_names(given["carried"]),
        "changed": some("changed", as_names),
        "context_verified": some("context_verified", flag),
        "event": as_text(given["event"]),
        "item_type": as_text(given["item_type"]),
        "schema_version": as_number(given["schema_version"]),
        "source": as_text(given["source"]),
        "table_name": as_text(given["table_name"]),
        "tenant": some("tenant", as_text),
        "unknown": as_names(given["unknown"]),
    }
    place = {
        "commit_lsn": as_number(lsn(given["commit_lsn"])),
        "committed_at": as_number(max(micros(given["committed_at"]), -62_135_596_800_000_000)),
        "lsn": as_number(lsn(given["lsn"])),
        "position": as_text(given["position"]),
        "seq": as_number(given["seq"]),
        "xid": as_number(given["xid"]),
    }
    before, after = columns("before"), columns("after")
    event = given["event"]
    side = (
        "after"
        if event in ("created", "snapshot")
        else "before" if event == "deleted" else "after" if given["changed"] is None else None
    )
    row = {"before": before, "after": after, None: {}}[side]
    old, new = {}, {}
    if given["changes"] is not None:
        for column, sides in members(record["changes"]).items():
            if sides[0] == "list" and len(sides[1]) == 2:
                old[column], new[column] = (as_column(kinds.get(column), each) for each in sides[1])
            else:
                old[column] = as_json(sides)
    empty = lambda columns: all(value[0] == NULL for value in columns.values())
    if (event in ("created", "snapshot") and empty(old) and new == row) or (
        event == "deleted" and empty(new) and old == row
    ):
        old, new = {}, {}
    units = [(0x01, "", as_fields(envelope)), (0x82 if event == "snapshot" else 0x02, "", as_fields(place))]
    actor_id = lambda text: (TEXT, cut(storable(text), 1000).encode())
    for tag, name, make in [(3, "key", as_text), (4, "old_key", as_text), (5, "actor_id", actor_id), (7, "reason", as_text)]:
        units += [] if given[name] is None else [(tag, "", make(given[name]))]
    for tag, name in [(6, "actor"), (8, "context")]:
        units += [] if given[name] is None else [(tag, "", as_json(record[name]))]
    units.append((0x90, "", as_fields({"recorded_at": as_number(micros(given["recorded_at"]))})))
    kept_before, kept_after = ({} if side == "before" else before), ({} if side == "after" else after)
    for tag, all_columns in [(9, columns("included")), (0xA, row), (0xB, old), (0xC, new), (0xA0, kept_before), (0xA1, kept_after)]:
        units += [(tag, name, value) for name, value in all_columns.items()]
    units.sort(key=lambda unit: (unit[0], unit[1].encode()))
    written = lambda units: b"".join(unit(*each) for each in units)
    shared = b"\x01" + written(each for each in units if each[0] < 0x80)
    return shared, shared + written(each for each in units if each[0] >= 0x80), meaning(units)


def meaning(units):
    ciphertext = re.compile(rb"aes256gcm:([dts])[0-9a-f]{16}:([A-Za-z0-9+/=]*)")
    short = lambda found: b"aes256gcm:%s:%d" % (found[1], len(found[2]))
    out = b"\x01"
    for tag, name, (kind, value) in units:
        if tag < 0x80:
            out += unit(tag, name, (kind, ciphertext.sub(short, value) if kind in (TEXT, JSON) else value))
    return out


def main():
    vectors, _ = parse(open(sys.argv[1], encoding="utf-8").read())
    for vector in map(members, vectors[1]):
        shared, whole, compared = canonical(members(vector["record"]), plain(vector["columns"]))
        made = {
            "bytes": whole.hex(),
            "shared": len(shared),
            "digest": hashlib.sha256(whole).hexdigest(),
            "meaning": hashlib.sha256(compared).hexdigest(),
        }
        wrong = {name: value for name, value in made.items() if plain(vector[name]) != value}
        if wrong:
            sys.exit(f"{plain(vector['about'])}: {wrong}")
    print(len(vectors[1]), "vectors")


main()
