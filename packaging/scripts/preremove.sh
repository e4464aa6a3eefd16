#!/bin/sh
# Before a removal, but not before an upgrade, of which dpkg says upgrade or failed-upgrade, and rpm 1. dpkg keeps whether the service
# is enabled until the purge, so that it runs again when the package comes back.
set -e
case "${1:-}" in
upgrade | failed-upgrade | 1) exit 0 ;;
esac
command -v systemctl >/dev/null || exit 0
[ "${1:-}" != 0 ] || systemctl disable georep.service georep-unprivileged.service georep-serve.service || :
[ -d /run/systemd/system ] || exit 0
systemctl stop georep.service georep-unprivileged.service georep-serve.service
