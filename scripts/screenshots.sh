#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Pictures of the pages, from an emergency that the browser test plays: scripts/screenshots.sh [FOLDER]
set -eu
cd "$(dirname "$0")/.."
dir=${1:-docs/screenshots}
mkdir -p "$dir"
EPATCH_SCREENSHOTS=$(cd "$dir" && pwd) go test -count=1 -run TestInBrowser ./services/dashboard/pages
ls "$dir"
