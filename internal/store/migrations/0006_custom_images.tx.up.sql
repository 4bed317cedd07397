-- ImportCustomWorkspaceImage: how the making of an image goes, beside the image itself.
CREATE TABLE custom_imports (
  image_id        TEXT PRIMARY KEY REFERENCES workspace_images (id) ON DELETE CASCADE,
  state           TEXT NOT NULL,
  message         TEXT NOT NULL,
  progress        INTEGER NOT NULL,
  source_task     TEXT NOT NULL DEFAULT '',
  source_image    TEXT NOT NULL DEFAULT '',
  infrastructure  TEXT NOT NULL,
  os_version      TEXT NOT NULL,
  updated_at      TIMESTAMP NOT NULL
);
--bun:split
-- What a copy left out, or why it left nothing out, for people.
ALTER TABLE import_disks ADD COLUMN note TEXT NOT NULL DEFAULT '';
