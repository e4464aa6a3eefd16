#!/bin/sh
# After a purge nothing of georep's is left on the host but what lies in the volumes: see georep delete.
set -e
if [ "${1:-}" = purge ]; then
	rm -rf /var/lib/georep
	rmdir /etc/georep 2>/dev/null || :
	rm -f /etc/systemd/system/multi-user.target.wants/georep.service /etc/systemd/system/multi-user.target.wants/georep-unprivileged.service \
		/etc/systemd/system/multi-user.target.wants/georep-serve.service
fi
[ ! -d /run/systemd/system ] || systemctl daemon-reload
