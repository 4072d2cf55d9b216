-- Forgets a session that never began: a successor whose predecessor was not rotated into it.
-- KEYS: meta, record, due index. ARGV: 1 the caller's time; 2 the version; 3 not before; 4 the ref.
-- Reply: `ok` head, or `lost` head, record.
if off(ARGV[1]) then
    return head('clock')
end
local known = redis.call('HMGET', KEYS[2], 'v', 'p')
if known[1] ~= ARGV[2] or not known[2] then
    return with('lost', KEYS[2])
end
if now < tonumber(ARGV[3]) then
    return with('early', KEYS[2])
end
redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[4])
return head('ok')
