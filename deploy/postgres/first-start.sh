#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Run by the container of PostgreSQL when its data folder is new.
set -eu
exec psql --username=postgres --file=/docker-entrypoint-initdb.d/sql/roles.sql \
	--set=epatch_password="$(cat /run/secrets/epatch.password)" --set=charts_password="$(cat /run/secrets/charts.password)"
