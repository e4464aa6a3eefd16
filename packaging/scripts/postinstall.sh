#!/bin/sh
# After an installation or an upgrade: the service runs, and after an upgrade it is the new program that does. Sessions go on
# where they were.
set -e
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
systemctl enable georep.service
systemctl restart georep.service
