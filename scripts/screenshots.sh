#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Pictures of the pages for README and docs, from the demo's data: scripts/screenshots.sh [FOLDER] [NAME]
# The demo's data lies in EPATCH_SCREENSHOTS_DATA for the time being, since a session types where its host's files are: a folder that is not
# there yet, of a name that pictures may show.
# Plays the demo of strategy 3, then begins another emergency, a drill and an on-call schedule with a gap, so that there is
# something to see; each act is one line that people type.
# The pictures of a session that goes on are those of its own test.
set -eu
cd "$(dirname "$0")/.."
dir=${1:-docs/screenshots} only=${2:-}
web=127.0.0.1:${EPATCH_SCREENSHOTS_PORT:-17080}
export EPATCH_DATA EPATCH_SERVER=127.0.0.1:17443
EPATCH_DATA=${EPATCH_SCREENSHOTS_DATA:-/srv/epatch}
mkdir "$EPATCH_DATA"
trap 'rm -rf "$EPATCH_DATA"' EXIT
make -s build
.bin/epatchd demo --scenario 3 --data "$EPATCH_DATA" --listen "$EPATCH_SERVER" --http "$web" --https 127.0.0.1:17444 >"$EPATCH_DATA/demo.log" 2>&1 &
demo=$!
trap 'kill $demo 2>/dev/null || true; wait $demo 2>/dev/null || true; rm -rf "$EPATCH_DATA"' EXIT
until grep -q 'It stays up' "$EPATCH_DATA/demo.log"; do
	kill -0 $demo 2>/dev/null || { cat "$EPATCH_DATA/demo.log" >&2; exit 1; }
	sleep 1
done
as() { .bin/epatch --as "$@" >/dev/null; }
day() { date -u -d "$1 days" +%F; }
as carl declare "fire drill" --reason "quarterly drill of the teams" --class other --drill
as carla declare "forged certificates are signed" --reason "the signer takes any request" --class exploit
open=$(.bin/epatch --as carla incidents --json | grep -o '"id":"e[0-9.]*"' | sed 's/"id":"//;s/"//' | sort -V | tail -1)
as carla accept --incident "$open" --slot critical/1
as anna accept --incident "$open" --slot assessment/1
as tina decline --incident "$open" "on a plane until the morning"
as carla dispute file --incident "$open"
as casper case open --incident "$open"
as casper case propose arno --incident "$open"
as arno case accept --no-conflict --incident "$open"
as arno case preliminaries --jurisdiction "the parties are members" --law "NSW, Australia" --incident "$open"
cat >"$EPATCH_DATA/fix.diff" <<'PATCH'
--- a/www/index.html
+++ b/www/index.html
@@ -1,1 +1,2 @@
-<!doctype html><title>demo</title><p>The demo's critical system.
+<!doctype html><title>demo</title><p>Certificates are not signed until the morning.
+<p>The demo's critical system.
PATCH
as dora patch register "$EPATCH_DATA/fix.diff" --repo "$EPATCH_DATA/repository.git" --bug 1043 --incident "$open"
monday=$(date -u -d "$(date -u +%F) -$(($(date -u +%u) - 1)) days" +%F)
as clara rota plan critical carla carl clara --from "$monday" --at 09:00 --zone Europe/Vienna --weeks 8 --called 2
as clara rota plan testing tina theo --from "$monday" --weeks 3 --called 1
as clara rota override critical clara --from "$(day 9)" --until "$(day 11)"
go run ./services/internal/pictures -pages "http://$web" -out "$dir" -only "$only" ${EPATCH_SCREENSHOTS_WHOLE:+-whole}
if [ -z "$only" ]; then
	mkdir "$EPATCH_DATA/shots"
	(cd services && EPATCH_SCREENSHOTS=$EPATCH_DATA/shots go test -count=1 ./dashboard/pages -run '^TestWatch(ByPasskey)?$' >"$EPATCH_DATA/watch.log" 2>&1) || { cat "$EPATCH_DATA/watch.log" >&2; exit 1; }
	go run ./services/internal/pictures -from "$EPATCH_DATA/shots" -out "$dir"
fi
