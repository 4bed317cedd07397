-- Settings of the one account and Region that this service is: account id, encryption default, ...
CREATE TABLE settings (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
);
--bun:split
-- Access keys with the IAM-style policy of their user. The secret is kept as it is: SigV4 needs it.
CREATE TABLE access_keys (
  id         TEXT PRIMARY KEY,
  secret     TEXT NOT NULL,
  user_name  TEXT NOT NULL,
  policy     TEXT NOT NULL,
  created_at TIMESTAMP NOT NULL
);
--bun:split
-- Each attempt to enable BYOL. The newest COMPLETED one is the account's state.
CREATE TABLE account_modifications (
  id            TEXT PRIMARY KEY,
  state         TEXT NOT NULL,
  cidr          TEXT NOT NULL,
  started_at    TIMESTAMP NOT NULL,
  error_code    TEXT NOT NULL DEFAULT '',
  error_message TEXT NOT NULL DEFAULT ''
);
--bun:split
-- At most one modification may be under way or done: BYOL is enabled once.
CREATE UNIQUE INDEX account_modifications_once ON account_modifications ((1)) WHERE state <> 'FAILED';
--bun:split
-- ImportImage (kind image) and ImportSnapshot (kind snapshot) tasks.
CREATE TABLE import_tasks (
  id               TEXT PRIMARY KEY,
  kind             TEXT NOT NULL,
  client_token     TEXT UNIQUE,
  description      TEXT NOT NULL DEFAULT '',
  bucket           TEXT NOT NULL,
  object_key       TEXT NOT NULL,
  format           TEXT NOT NULL DEFAULT '',
  architecture     TEXT NOT NULL DEFAULT '',
  license_type     TEXT NOT NULL DEFAULT '',
  boot_mode        TEXT NOT NULL DEFAULT '',
  status           TEXT NOT NULL,
  status_message   TEXT NOT NULL DEFAULT '',
  progress         INTEGER NOT NULL DEFAULT 0,
  cancel_requested BOOLEAN NOT NULL DEFAULT FALSE,
  disk_format      TEXT NOT NULL DEFAULT '',
  disk_bytes       BIGINT NOT NULL DEFAULT 0,
  snapshot_id      TEXT NOT NULL DEFAULT '',
  image_id         TEXT NOT NULL DEFAULT '',
  created_at       TIMESTAMP NOT NULL
);
--bun:split
CREATE TABLE snapshots (
  id          TEXT PRIMARY KEY,
  task_id     TEXT NOT NULL UNIQUE REFERENCES import_tasks (id),
  description TEXT NOT NULL DEFAULT '',
  size_bytes  BIGINT NOT NULL,
  created_at  TIMESTAMP NOT NULL
);
--bun:split
-- EC2 images (AMIs) that import tasks made.
CREATE TABLE machine_images (
  id           TEXT PRIMARY KEY,
  task_id      TEXT NOT NULL UNIQUE REFERENCES import_tasks (id),
  snapshot_id  TEXT NOT NULL REFERENCES snapshots (id),
  name         TEXT NOT NULL,
  description  TEXT NOT NULL DEFAULT '',
  architecture TEXT NOT NULL,
  boot_mode    TEXT NOT NULL,
  created_at   TIMESTAMP NOT NULL
);
--bun:split
CREATE TABLE launch_permissions (
  image_id TEXT NOT NULL REFERENCES machine_images (id) ON DELETE CASCADE,
  user_id  TEXT NOT NULL,
  PRIMARY KEY (image_id, user_id)
);
--bun:split
-- WorkSpaces images: what ImportWorkspaceImage makes of an AMI.
CREATE TABLE workspace_images (
  id                TEXT PRIMARY KEY,
  name              TEXT NOT NULL UNIQUE,
  description       TEXT NOT NULL,
  state             TEXT NOT NULL,
  ingestion_process TEXT NOT NULL,
  applications      TEXT NOT NULL DEFAULT '[]',
  machine_image_id  TEXT NOT NULL,
  snapshot_id       TEXT NOT NULL,
  size_bytes        BIGINT NOT NULL,
  boot_mode         TEXT NOT NULL,
  shared_by_us      BOOLEAN NOT NULL DEFAULT FALSE,
  windows_version   TEXT NOT NULL DEFAULT '',
  report            TEXT NOT NULL DEFAULT '',
  error_code        TEXT NOT NULL DEFAULT '',
  error_message     TEXT NOT NULL DEFAULT '',
  error_details     TEXT NOT NULL DEFAULT '[]',
  created_at        TIMESTAMP NOT NULL
);
--bun:split
CREATE TABLE tags (
  resource_id TEXT NOT NULL,
  key         TEXT NOT NULL,
  value       TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (resource_id, key)
);
