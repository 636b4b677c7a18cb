#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Run a Python tool; a fresh Debian has no Python yet.

set -e
python=${PYTHON:-python3}

if ! command -v "$python" >/dev/null; then
	if [ "${NO_INSTALL:-0}" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "error: $python is missing: install python3" >&2
		exit 1
	fi
	sudo=
	[ "$(id -u)" = 0 ] || sudo="sudo -n"
	echo "as root: apt-get install --no-install-recommends python3 python3-venv" >&2
	if [ -z "$CI" ] && [ -t 0 ]; then
		echo "begins in 5 seconds; Ctrl-C stops it" >&2
		sleep 5
	fi
	$sudo apt-get -q update >&2
	$sudo apt-get -q -y install --no-install-recommends python3 python3-venv >&2
fi
exec "$python" "$@"
