"""Asks DuckDB about a headroom data directory: duck.py DATA_DIR SQL.

Each Delta table is a view of its own name, read by DuckDB's Delta extension
from the table itself (log and Parquet). Prints JSON rows."""
import json
import os
import sys

import duckdb
from duckdb_extensions import import_extension

import_extension("delta")
db = duckdb.connect()
db.execute("LOAD delta")
tables = os.path.join(sys.argv[1], "tables")
for name in sorted(os.listdir(tables)):
    db.execute(f"CREATE VIEW {name} AS SELECT * FROM delta_scan('{tables}/{name}')")
answer = db.execute(sys.argv[2])
names = [c[0] for c in answer.description]
print(json.dumps([dict(zip(names, row)) for row in answer.fetchall()], default=str))
