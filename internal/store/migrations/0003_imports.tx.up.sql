-- An import reads one or several uploads (its DiskContainers) and makes one or several disks of them.
CREATE TABLE import_sources (
  task_id       TEXT NOT NULL REFERENCES import_tasks (id),
  number        INTEGER NOT NULL,
  url           TEXT NOT NULL DEFAULT '',
  bucket        TEXT NOT NULL DEFAULT '',
  object_key    TEXT NOT NULL DEFAULT '',
  from_snapshot TEXT NOT NULL DEFAULT '',
  description   TEXT NOT NULL DEFAULT '',
  device_name   TEXT NOT NULL DEFAULT '',
  format        TEXT NOT NULL DEFAULT '',
  file_bytes    BIGINT NOT NULL DEFAULT 0,
  etag          TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (task_id, number)
);
--bun:split
CREATE TABLE import_disks (
  task_id     TEXT NOT NULL REFERENCES import_tasks (id),
  number      INTEGER NOT NULL,
  source      INTEGER NOT NULL,
  format      TEXT NOT NULL,
  device_name TEXT NOT NULL,
  size_bytes  BIGINT NOT NULL,
  snapshot_id TEXT NOT NULL UNIQUE,
  progress    INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (task_id, number)
);
--bun:split
INSERT INTO import_sources (task_id, number, bucket, object_key, from_snapshot, format, file_bytes)
  SELECT id, 1, bucket, CASE bucket WHEN '' THEN '' ELSE object_key END, CASE bucket WHEN '' THEN object_key ELSE '' END, format, disk_bytes FROM import_tasks;
--bun:split
INSERT INTO import_disks (task_id, number, source, format, device_name, size_bytes, snapshot_id, progress)
  SELECT t.id, 1, 1, t.disk_format, '/dev/sda1', s.size_bytes, s.id, 100 FROM import_tasks t JOIN snapshots s ON s.task_id = t.id;
--bun:split
ALTER TABLE import_tasks DROP COLUMN bucket;
--bun:split
ALTER TABLE import_tasks DROP COLUMN object_key;
--bun:split
ALTER TABLE import_tasks DROP COLUMN format;
--bun:split
ALTER TABLE import_tasks DROP COLUMN disk_format;
--bun:split
ALTER TABLE import_tasks DROP COLUMN disk_bytes;
--bun:split
ALTER TABLE import_tasks DROP COLUMN snapshot_id;
--bun:split
-- What the request with the client token asked for, as a digest: the token cannot be used for anything else.
ALTER TABLE import_tasks ADD COLUMN request TEXT NOT NULL DEFAULT '';
--bun:split
ALTER TABLE import_tasks ADD COLUMN usage_operation TEXT NOT NULL DEFAULT '';
--bun:split
ALTER TABLE import_tasks ADD COLUMN hypervisor TEXT NOT NULL DEFAULT '';
--bun:split
-- The stage that the task is in, since when, when it was last seen at work, and what it waits for.
ALTER TABLE import_tasks ADD COLUMN stage TEXT NOT NULL DEFAULT '';
--bun:split
ALTER TABLE import_tasks ADD COLUMN stage_since TIMESTAMP;
--bun:split
ALTER TABLE import_tasks ADD COLUMN seen_at TIMESTAMP;
--bun:split
ALTER TABLE import_tasks ADD COLUMN waits_for TEXT NOT NULL DEFAULT '';
--bun:split
-- A task may have made several snapshots: the table is made anew without its UNIQUE, and those that refer to it with it.
CREATE TABLE snapshots_new (
  id          TEXT PRIMARY KEY,
  task_id     TEXT NOT NULL REFERENCES import_tasks (id),
  description TEXT NOT NULL DEFAULT '',
  size_bytes  BIGINT NOT NULL,
  created_at  TIMESTAMP NOT NULL
);
--bun:split
INSERT INTO snapshots_new SELECT id, task_id, description, size_bytes, created_at FROM snapshots;
--bun:split
CREATE TABLE machine_images_new (
  id           TEXT PRIMARY KEY,
  task_id      TEXT NOT NULL UNIQUE REFERENCES import_tasks (id),
  snapshot_id  TEXT NOT NULL REFERENCES snapshots_new (id), -- of the root
  name         TEXT NOT NULL,
  description  TEXT NOT NULL DEFAULT '',
  architecture TEXT NOT NULL,
  boot_mode    TEXT NOT NULL,
  license_type TEXT NOT NULL DEFAULT 'BYOL',
  created_at   TIMESTAMP NOT NULL
);
--bun:split
INSERT INTO machine_images_new (id, task_id, snapshot_id, name, description, architecture, boot_mode, created_at)
  SELECT id, task_id, snapshot_id, name, description, architecture, boot_mode, created_at FROM machine_images;
--bun:split
CREATE TABLE launch_permissions_new (
  image_id TEXT NOT NULL REFERENCES machine_images_new (id) ON DELETE CASCADE,
  user_id  TEXT NOT NULL,
  PRIMARY KEY (image_id, user_id)
);
--bun:split
INSERT INTO launch_permissions_new SELECT image_id, user_id FROM launch_permissions;
--bun:split
DROP TABLE launch_permissions;
--bun:split
DROP TABLE machine_images;
--bun:split
DROP TABLE snapshots;
--bun:split
ALTER TABLE snapshots_new RENAME TO snapshots;
--bun:split
ALTER TABLE machine_images_new RENAME TO machine_images;
--bun:split
ALTER TABLE launch_permissions_new RENAME TO launch_permissions;
--bun:split
-- The disks of an AMI besides its root.
CREATE TABLE machine_image_disks (
  image_id    TEXT NOT NULL REFERENCES machine_images (id) ON DELETE CASCADE,
  device_name TEXT NOT NULL,
  snapshot_id TEXT NOT NULL REFERENCES snapshots (id),
  PRIMARY KEY (image_id, device_name)
);
