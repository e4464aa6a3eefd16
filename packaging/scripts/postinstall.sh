#!/bin/sh
# After an installation the service runs. After an upgrade it is the new program that does, where the operator has not turned the
# service off: an upgrade turns nothing on. Sessions go on where they were. dpkg says "configure" and the version that was there,
# which is empty the first time; rpm says how many versions there are.
set -e
command -v systemctl >/dev/null || exit 0
case "${1:-} ${2:-}" in
'configure ' | '1 ') systemctl enable georep.service || : ;; # it may be masked
esac
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
for unit in georep.service georep-unprivileged.service; do # one of the two, see docs/operating.md
	if systemctl is-enabled --quiet "$unit"; then
		systemctl restart "$unit" || echo "$unit does not start: see systemctl status $unit" >&2
	else
		systemctl try-restart "$unit" || :
	fi
done
systemctl try-restart georep-serve.service || : # sessions come back by themselves
