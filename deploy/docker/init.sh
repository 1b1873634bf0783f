#!/bin/sh
# Runs once, while the database of compose.yaml is made: the daemon's role, and a database for the hot table.
set -eu

password=$(cat /run/secrets/cdc-audit-password)
psql --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set ON_ERROR_STOP=1 <<SQL
SET password_encryption = 'scram-sha-256';
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
CREATE ROLE cdc_audit LOGIN REPLICATION PASSWORD '$password';
CREATE DATABASE audit ENCODING 'UTF8' TEMPLATE template0;
SQL
