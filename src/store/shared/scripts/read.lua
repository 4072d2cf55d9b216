-- Reads a record. Changes nothing.
-- KEYS: meta, record. Reply: head, record.
return with('ok', KEYS[2])
