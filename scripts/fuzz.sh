#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzz target of the workspace, one after the other, each for the time given.
set -eu
time=${1:-20s}
for module in proto pkg services; do
	(
		cd "$module"
		grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do
			dir=$(dirname "$file")
			grep -oE '^func Fuzz[A-Za-z0-9_]+' "$file" | sed 's/func //' | while read -r target; do
				echo "fuzz $module/$dir $target"
				go test -run='^$' -fuzz="^$target\$" -fuzztime="$time" -fuzzminimizetime=20x "$dir"
			done
		done
	)
done
