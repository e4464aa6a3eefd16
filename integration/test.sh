#!/bin/sh
# Sets up what the tests need, then checks and tests everything. As root on Debian or Ubuntu:
#
#   sh integration/test.sh            all tests
#   sh integration/test.sh --race     with the race detector
#   sh integration/test.sh --race --container
#                                     and integration/container.sh, as CI does; it needs a network for the first time
#
# Fails on a failing, and on a skipped, test. The whole output is kept in a file that is named at the end.
set -eu
cd "$(dirname "$0")/.."
race='' container=''
for flag in "$@"; do
	case $flag in
	--race) race=-race ;;
	--container) container=yes ;;
	*)
		echo "test.sh: there is no $flag: it is --race or --container" >&2
		exit 2
		;;
	esac
done
# Else it holds up the end of each program for a second.
export GORACE="atexit_sleep_ms=20${GORACE:+ $GORACE}"

sh integration/setup.sh
go vet ./...
go tool staticcheck ./...

log=$(mktemp "${TMPDIR:-/tmp}/georep-test.XXXXXX")
dir=$(mktemp -d "${TMPDIR:-/tmp}/georep-tests.XXXXXX")
end() {
	for pid in ${root:-} ${hosts:-}; do
		kill "$pid" 2>/dev/null && wait "$pid" || true # they have files and containers in there
	done
	umount -l "$dir/t" 2>/dev/null || true
	rm -rf "$dir"
}
trap end EXIT
trap 'exit 1' HUP INT TERM
chmod 755 "$dir"

# The tests make and remove files by the thousand. Where /tmp is ext4 without a journal each new one there is searched for past
# all that were removed in the last seconds: two thirds of some packages' time. So they get a file system of their own, whose
# image takes no more room than what is in it, and which need not outlive a power cut.
truncate -s 16G "$dir/image"
mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=1,lazy_journal_init=1 "$dir/image"
mkdir "$dir/t"
mount -o loop,nobarrier,noinit_itable,discard "$dir/image" "$dir/t"
chmod 1777 "$dir/t"
export TMPDIR="$dir/t"

# What hosts boot from is fetched beside the tests.
root=
if [ "$container" ]; then
	timeout -k 60 1200 sh integration/container.sh root >"$dir/container" 2>&1 &
	root=$!
fi

# The race detector makes what only computes eight times as slow, and finds nothing there: of these packages it watches the tests
# that start goroutines. The code of none of them does.
alone='slave/delta slave/gfidindex slave/compress integration/harness/mutate'
computing() {
	result=0
	for package in $alone; do
		if ls "$package"/*.go | grep -v _test.go | xargs grep -nE '\bgo func|\.Go\('; then
			echo "$package starts goroutines: integration/test.sh must not run it without the race detector"
			result=1
		fi
		go test -count=1 -timeout 45m -v "./$package" || result=1
		[ "$race" ] || continue
		watched=$(awk '/^func / { name = $2; sub(/\(.*/, "", name) } /go func|\.Go\(/ { print name }' "$package"/*_test.go | sort -u | paste -sd '|')
		[ -z "$watched" ] || go test -race -count=1 -timeout 45m -v -run "^($watched)\$" "./$package" || result=1
	done
	return "$result"
}

# The tests of whole sessions wait more than they work. So several run at once, each in a process of its own, beside all the
# other packages.
# shellcheck disable=SC2086 # $race is one flag or none
go build $race -o "$dir/georep" ./cmd/georep
# shellcheck disable=SC2086
go test $race -c -o "$dir/integration.test" ./integration
export GEOREP_TEST_BINARY="$dir/georep"
mkdir "$dir/sessions"
sessions() {
	cd integration
	"$dir/integration.test" -test.list '^Test' |
		xargs -P 3 -I '{}' sh -c '"$1/integration.test" -test.v -test.timeout 30m -test.run "^{}\$" >"$1/sessions/{}" 2>&1' - "$dir"
}
sessions &
beside=$!
status=0
# Those that take longest come first.
# shellcheck disable=SC2046,SC2086 # a package has no blanks
go test $race -p 3 -count=1 -timeout 45m -v ./marker ./crawler \
	$(go list ./... | grep -vE "/(integration|marker|crawler|$(echo "$alone" | tr ' ' '|'))\$") >"$log" 2>&1 || status=$?
# The hosts that boot wait more than they work. They do so beside what has no part in the system's state, and are gone before the
# fuzzing: where others compute, that fails by its own clock.
hosts='' result=0
[ -z "$root" ] || wait "$root" || result=$?
if [ "$container" ] && [ "$result" -ne 77 ]; then
	timeout -k 60 900 sh integration/container.sh >>"$dir/container" 2>&1 &
	hosts=$!
fi
computing >>"$log" 2>&1 || status=$?
wait "$beside" || status=$?
[ -z "$hosts" ] || { result=0 && wait "$hosts"; } || result=$?
root='' hosts=''
[ "$result" -ne 77 ] || unbooted=$(grep 'container.sh: this machine cannot boot a container' "$dir/container") || result=1
case $result in
0 | 77) ;;
*)
	echo '--- FAIL: integration/container.sh' >>"$dir/container"
	status=$result
	;;
esac
[ -z "$container" ] || cat "$dir/container" >>"$log"
# A minute of whole sessions, mutated in both directions; `make fuzz-hour` takes longer. What is new in an input is kept as it came.
for target in FuzzClientSession FuzzServerSession; do
	go test -run '^$' -fuzz "^$target\$" -fuzztime 30s -fuzzminimizetime 1s ./slave/agent >>"$log" 2>&1 || status=$?
done
cat "$dir"/sessions/* >>"$log" # fails where none has run
grep -aE '^(ok|FAIL|panic:|fatal error:|[[:space:]]*--- (FAIL|SKIP))' "$log" || true
if [ "$status" -ne 0 ]; then
	echo "--- the failures, with what was printed before them:"
	grep -a -B 60 -E '^[[:space:]]*--- FAIL' "$log" | tail -n 400
	echo "--- in short:"
	grep -a -A 20 -E '^panic:|^fatal error:|DATA RACE' "$log" | tail -n 60
	awk '/^[[:space:]]*=== RUN/ { said = "" }
	     /^[[:space:]]+[a-z0-9_]+_test\.go:[0-9]+:/ { said = said "\n" substr($0, 1, 300) }
	     /^[[:space:]]*--- PASS/ { said = "" }
	     /^[[:space:]]*--- FAIL/ { print $0 said; said = "" }' "$log" | tail -n 60
fi
if grep -aqE '^[[:space:]]*--- SKIP' "$log"; then
	echo "some tests were skipped: see above"
	status=1
fi
passed=$(grep -acE '^[[:space:]]*--- PASS' "$log" || true)
failed=$(grep -acE '^[[:space:]]*--- FAIL|^panic:|^fatal error:' "$log" || true)
[ -z "${unbooted:-}" ] || echo "no hosts were booted: $unbooted"
echo "the whole output: $log"
echo "$passed passed, $failed failed"
exit "$status"
