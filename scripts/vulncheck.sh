#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Known holes that our code can reach. usage: scripts/vulncheck.sh GO MODULE...
# The data is not asked from a web service: it is the Go module golang.org/x/vulndb, pinned in scripts/tools/vuln. Raise it before a release.
set -euo pipefail
cd "$(dirname "$0")/.."
go=$1
shift
tools=scripts/tools/vuln
version=$(GOWORK=off go -C $tools list -m -f '{{.Version}}' golang.org/x/vulndb)
db=.cache/vulndb-$version
if [ ! -e "$db/index/db.json" ]; then
	source=$(GOWORK=off go mod download -C $tools -json golang.org/x/vulndb | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	[ -n "$source" ] || { echo "error: golang.org/x/vulndb $version cannot be had from the module proxy: nothing was checked" >&2; exit 2; }
	rm -rf "$db" && mkdir -p .cache
	.bin/indexdb -vulns "$source/data/osv" -out "$db.new" && mv "$db.new" "$db"
fi
for module in "$@"; do
	echo "$module, built with $go, holes known at $version"
	(cd "$module" && GOTOOLCHAIN=$go ../.bin/govulncheck -db "file://$(cd .. && pwd)/$db" ./...)
done
