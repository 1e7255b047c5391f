-- Two roles and the database: kavach_owner owns the tables and changes the
-- schema, kavach serves (`kavach migrate --grant kavach` says what it may do).
-- A superuser runs this once with psql, which reads the passwords from the files
-- that kavach itself reads (PGPASSFILE), where they are in the fifth field.
\set ON_ERROR_STOP on
\set owner_password `cut -d: -f5 /run/secrets/owner_pgpass`
\set kavach_password `cut -d: -f5 /run/secrets/kavach_pgpass`

-- Whatever the server is set to log, not the passwords.
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET password_encryption = 'scram-sha-256';
CREATE ROLE kavach_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE kavach LOGIN PASSWORD :'kavach_password';

CREATE DATABASE kavach OWNER kavach_owner TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
REVOKE ALL ON DATABASE kavach FROM PUBLIC;
GRANT CONNECT ON DATABASE kavach TO kavach;

\connect kavach
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT ALL ON SCHEMA public TO kavach_owner;
GRANT USAGE ON SCHEMA public TO kavach;
