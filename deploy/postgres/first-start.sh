#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Run by the container of PostgreSQL when its data folder is new.
set -eu
epatch=$(cat /run/secrets/epatch.password) # by themselves: a file that cannot be read ends this
charts=$(cat /run/secrets/charts.password)
exec psql --username=postgres --file=/docker-entrypoint-initdb.d/sql/roles.sql \
	--set=epatch_password="$epatch" --set=charts_password="$charts"
