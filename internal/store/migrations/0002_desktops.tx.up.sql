-- Bundles: an image with the hardware and volumes that its WorkSpaces get.
CREATE TABLE bundles (
  id           TEXT PRIMARY KEY,
  name         TEXT NOT NULL UNIQUE,
  description  TEXT NOT NULL,
  image_id     TEXT NOT NULL REFERENCES workspace_images (id),
  compute_type TEXT NOT NULL,
  root_gib     INTEGER NOT NULL,
  user_gib     INTEGER NOT NULL,
  created_at   TIMESTAMP NOT NULL,
  updated_at   TIMESTAMP NOT NULL
);
--bun:split
-- Directories that exist (AWS: in Directory Service), registered for WorkSpaces or not.
CREATE TABLE directories (
  id         TEXT PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  turn       INTEGER NOT NULL DEFAULT 0, -- counts its registrations and deregistrations
  created_at TIMESTAMP NOT NULL
);
--bun:split
-- Registrations of directories for WorkSpaces. A directory without a row here is not registered.
CREATE TABLE registrations (
  directory_id        TEXT PRIMARY KEY REFERENCES directories (id),
  registration_code   TEXT NOT NULL UNIQUE,
  state               TEXT NOT NULL,
  error_message       TEXT NOT NULL DEFAULT '',
  tenancy             TEXT NOT NULL,
  subnet_ids          TEXT NOT NULL DEFAULT '[]',
  self_service        BOOLEAN NOT NULL DEFAULT FALSE
);
--bun:split
-- Users of the built-in directories. password is an argon2id hash in PHC string format.
CREATE TABLE users (
  directory_id TEXT NOT NULL REFERENCES directories (id),
  name         TEXT NOT NULL,
  display_name TEXT NOT NULL DEFAULT '',
  email        TEXT NOT NULL DEFAULT '',
  password     TEXT NOT NULL,
  enabled      BOOLEAN NOT NULL DEFAULT TRUE,
  created_at   TIMESTAMP NOT NULL,
  PRIMARY KEY (directory_id, name)
);
--bun:split
CREATE TABLE workspaces (
  id             TEXT PRIMARY KEY,
  directory_id   TEXT NOT NULL REFERENCES directories (id),
  user_name      TEXT NOT NULL,
  bundle_id      TEXT NOT NULL REFERENCES bundles (id),
  image_id       TEXT NOT NULL,
  computer_name  TEXT NOT NULL,
  subnet_id      TEXT NOT NULL DEFAULT '',
  ip_address     TEXT NOT NULL DEFAULT '',
  state          TEXT NOT NULL,
  turn           INTEGER NOT NULL DEFAULT 0,
  boots          INTEGER NOT NULL DEFAULT 0,
  error_code     TEXT NOT NULL DEFAULT '',
  error_message  TEXT NOT NULL DEFAULT '',
  running_mode   TEXT NOT NULL,
  auto_stop_minutes INTEGER NOT NULL DEFAULT 0,
  compute_type   TEXT NOT NULL,
  root_gib       INTEGER NOT NULL,
  user_gib       INTEGER NOT NULL,
  boot_mode      TEXT NOT NULL,
  created_at     TIMESTAMP NOT NULL,
  state_since    TIMESTAMP NOT NULL
);
--bun:split
-- One WorkSpace per user and directory, until it is terminated.
CREATE UNIQUE INDEX workspaces_one_per_user ON workspaces (directory_id, user_name) WHERE state <> 'TERMINATED';
