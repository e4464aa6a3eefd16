#!/bin/sh
# Sets up what the tests need, then checks and tests everything. As root on Debian or Ubuntu:
#
#   sh integration/test.sh            all tests
#   sh integration/test.sh --race     with the race detector, as CI does
#
# Fails on a failing, and on a skipped, test. The whole output is kept in a file that is named at the end.
set -eu
cd "$(dirname "$0")/.."
race=
[ "${1:-}" = --race ] && race=-race

sh integration/setup.sh
go vet ./...
go tool staticcheck ./...

log=$(mktemp "${TMPDIR:-/tmp}/georep-test.XXXXXX")
# The tests of whole sessions wait more than they work, so they run as two parts beside all the others.
first='^Test(A|B|C|E|F|H|L|M|O|P|RandomHints|Res|W)'
# shellcheck disable=SC2086 # $race is one flag or none; a package has no blanks
run() { go test $race -count=1 -timeout 45m -v "$@" >"$log.$part" 2>&1; }
# shellcheck disable=SC2046
part=1 run $(go list ./... | grep -v '/integration$') &
others=$!
part=2 run -run "$first" ./integration &
sessions=$!
status=0
part=3 run -skip "$first" ./integration || status=$?
wait "$others" || status=$?
wait "$sessions" || status=$?
cat "$log.1" "$log.2" "$log.3" >"$log"
rm -f "$log.1" "$log.2" "$log.3"
grep -aE '^(ok|FAIL|panic:|[[:space:]]*--- (FAIL|SKIP))' "$log" || true
if [ "$status" -ne 0 ]; then
	echo "--- the failures, with what was printed before them:"
	grep -a -B 60 -E '^[[:space:]]*--- FAIL|^panic:|DATA RACE' "$log" | tail -n 400
fi
if grep -aqE '^[[:space:]]*--- SKIP' "$log"; then
	echo "some tests were skipped: see above"
	status=1
fi
passed=$(grep -acE '^[[:space:]]*--- PASS' "$log" || true)
failed=$(grep -acE '^[[:space:]]*--- FAIL' "$log" || true)
echo "the whole output: $log"
echo "$passed passed, $failed failed"
exit "$status"
