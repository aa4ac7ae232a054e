"""Uses a server at 127.0.0.1:<argument> through clickhouse-connect; ends with "passed" if all is right."""

import datetime
import sys

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

PORT = int(sys.argv[1])
NOON = datetime.datetime(2026, 1, 2, 12, 0, 0, 125_000, tzinfo=datetime.timezone.utc)


def fails(kind, words, action):
    try:
        action()
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"no error with {words}")


client = clickhouse_connect.get_client(host="127.0.0.1", port=PORT)
assert client.ping()
assert client.command("select 1") == 1
client.command("create table t (a UInt64, s LowCardinality(String), at DateTime64(3, 'UTC')) engine = MergeTree order by a")

rows = [(i, f"it's {i % 7}", NOON) for i in range(100_000)]
summary = client.insert("t", rows, column_names=["a", "s", "at"])
assert summary.written_rows == 100_000, summary.summary
result = client.query("select * from t order by a")
assert [(a, s, at.replace(tzinfo=datetime.timezone.utc)) for a, s, at in result.result_rows] == rows

server_side = client.query("select count() from t where s = {s:String} and a < {a:UInt64}", parameters={"s": "it's 3", "a": 700})
assert server_side.first_row == (100,), server_side.first_row
client_side = client.query("select count() from t where s = %(s)s", parameters={"s": "it's 0"})
assert client_side.first_row == (14_286,), client_side.first_row
limited = client.query("select getSetting('max_threads')", settings={"max_threads": 3})
assert limited.first_row == (3,), limited.first_row
assert client.query("select getSetting('max_threads')").first_row != (3,)

for compress in (False, True, "lz4"):
    other = clickhouse_connect.get_client(host="127.0.0.1", port=PORT, compress=compress)
    other.command("truncate table t")
    other.insert("t", rows, column_names=["a", "s", "at"])
    assert other.query("select count(), sum(a) from t").first_row == (100_000, sum(range(100_000))), compress

fails(DatabaseError, "UNKNOWN_TABLE", lambda: client.query("select * from nope"))
fails(DatabaseError, "keeps no sessions", lambda: client.command("set max_threads = 1"))


def drain():
    with client.query_row_block_stream("select throwIf(number = 3000000) from numbers(10000000)") as stream:
        for _ in stream:
            pass


fails(StreamFailureError, "FUNCTION_THROW_IF", drain)
print("passed")
