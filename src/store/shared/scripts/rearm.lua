-- Says when to look at a session next, if its record is still the one that was looked at.
-- KEYS: meta, record, due index. ARGV: 1 the caller's time; 2 the version; 3 when; 4 the ref.
-- Reply: `ok` or `lost`, head.
if off(ARGV[1]) then
    return head('clock')
end
if redis.call('HGET', KEYS[2], 'v') ~= ARGV[2] then
    return head('lost')
end
redis.call('ZADD', KEYS[3], 'XX', ARGV[3], ARGV[4])
return head('ok')
