#!/bin/sh
# Installs what the bench needs: what the tests need, and lsyncd and rclone, which it compares georep with. On Debian or Ubuntu.
# Safe to run again. It leaves no service running and none enabled: the bench runs lsyncd itself.
set -eu

sh "$(dirname "$0")/../setup.sh"
if ! command -v lsyncd >/dev/null 2>&1 || ! command -v rclone >/dev/null 2>&1; then
	[ "$(id -u)" = 0 ] || { echo "setup.sh: lsyncd or rclone is missing; run this as root" >&2; exit 1; }
	# While policy-rc.d answers 101 no service is started. A policy that is there already is the machine's own.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
		trap 'rm -f "$policy"' EXIT
		trap 'exit 1' HUP INT TERM
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get install -y -q --no-install-recommends lsyncd rclone ||
		{ apt-get update -q && apt-get install -y -q --no-install-recommends lsyncd rclone; }
	! command -v systemctl >/dev/null 2>&1 || systemctl disable lsyncd.service >/dev/null 2>&1 || :
fi
echo "setup.sh: everything the bench needs is here"
