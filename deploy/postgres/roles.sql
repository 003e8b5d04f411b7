-- SPDX-License-Identifier: Apache-2.0
-- Roles and database, run once by a superuser: psql -v epatch_password=... -v charts_password=... -f roles.sql
-- epatch owns the tables and nothing else; charts reads what operators query (docs/operators.md) and not the archive. The schema is there
-- before its tables so that what charts may read needs no second step.
\set ON_ERROR_STOP on
CREATE ROLE epatch LOGIN PASSWORD :'epatch_password' NOSUPERUSER NOCREATEDB NOCREATEROLE;
CREATE ROLE charts LOGIN PASSWORD :'charts_password' NOSUPERUSER NOCREATEDB NOCREATEROLE;
CREATE DATABASE epatch OWNER epatch;
REVOKE ALL ON DATABASE epatch FROM PUBLIC;
GRANT CONNECT ON DATABASE epatch TO charts;
\connect epatch
REVOKE ALL ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA operators AUTHORIZATION epatch;
GRANT USAGE ON SCHEMA operators TO charts;
ALTER DEFAULT PRIVILEGES FOR ROLE epatch IN SCHEMA operators GRANT SELECT ON TABLES TO charts;
