-- Disks that are kept, by the digest of what a guest reads. One is there as long as something refers to it.
CREATE TABLE stored_images (
  digest      TEXT PRIMARY KEY,
  base        TEXT REFERENCES stored_images (digest), -- what it is laid over; NULL: it is whole
  size_bytes  BIGINT NOT NULL,
  file_bytes  BIGINT NOT NULL,
  created_at  TIMESTAMP NOT NULL,
  verified_at TIMESTAMP,
  damage      TEXT NOT NULL DEFAULT ''
);
--bun:split
ALTER TABLE snapshots ADD COLUMN digest TEXT REFERENCES stored_images (digest);
--bun:split
ALTER TABLE workspace_images ADD COLUMN digest TEXT REFERENCES stored_images (digest);
--bun:split
-- While the import goes on; its snapshot refers to the disk afterwards.
ALTER TABLE import_disks ADD COLUMN digest TEXT REFERENCES stored_images (digest);
--bun:split
-- What was mended on the way to the image.
ALTER TABLE workspace_images ADD COLUMN fixes TEXT NOT NULL DEFAULT '[]';
