-- Tells activity again that the store may have forgotten.
-- KEYS: meta, record. ARGV: 1 the caller's time; 2 t; 3 l. Reply: `done` or `kept`, head.
if off(ARGV[1]) then
    return head('clock')
end
local known = redis.call('HMGET', KEYS[2], 't', 'f')
if known[1] and known[2] ~= '4' and tonumber(known[1]) < tonumber(ARGV[2]) then
    redis.call('HSET', KEYS[2], 't', ARGV[2], 'l', ARGV[3])
    return head('done')
end
return head('kept')
