-- SHA-256 of a stored disk's file, in hexadecimal; '' for one of before it was written down.
ALTER TABLE stored_images ADD COLUMN file_digest TEXT NOT NULL DEFAULT '';
