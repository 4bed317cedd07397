-- The size of a disk's own file in an OVA, in bytes; 0: the source's is the disk's.
ALTER TABLE import_disks ADD COLUMN file_bytes BIGINT NOT NULL DEFAULT 0;
