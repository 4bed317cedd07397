-- The room that an import under way may still take, in bytes: of each file that is fetched, and of each disk that is made of it.
ALTER TABLE import_sources ADD COLUMN room_bytes BIGINT NOT NULL DEFAULT 0;
--bun:split
ALTER TABLE import_disks ADD COLUMN room_bytes BIGINT NOT NULL DEFAULT 0;
