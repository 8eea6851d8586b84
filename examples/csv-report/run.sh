#!/bin/sh
# run.sh - send a CSV of 100 000 rows into a sandbox, compute there, bring the results back, check them
#
# usage: run.sh [hotcell create options, for example --isolation process]
#
# ROWS: how many (100000). OUT: where the results go (a new folder). HOTCELL: the program.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
hotcell=${HOTCELL:-hotcell}
rows=${ROWS:-100000}
out=${OUT:-$(mktemp -d)}
mkdir -p "$out"

python3 "$here/generate.py" "$rows" > "$out/sales.csv"

sandbox=$($hotcell create "$@")
trap '$hotcell rm --quiet "$sandbox" > /dev/null' EXIT

$hotcell cp "$out/sales.csv" "$sandbox:work/sales.csv"
$hotcell cp "$here/report.py" "$sandbox:work/"
$hotcell exec "$sandbox" --cwd work --timeout 15m -- python3 report.py sales.csv result.json plot.svg
$hotcell cp "$sandbox:work/result.json" "$out/result.json"
$hotcell cp "$sandbox:work/plot.svg" "$out/plot.svg"

python3 "$here/verify.py" "$out/sales.csv" "$out/result.json" "$out/plot.svg"
echo "results: $out"
