-- A sidecar says that it is there, and is told its rank among those that are.
-- KEYS: presence. ARGV: 1 its name; 2 for how many milliseconds it counts as there; 3 '1' if it leaves.
-- Reply: rank from 0 (-1 if it left), how many there are.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local far = tonumber(ARGV[2])
-- Also those from the future: the server's clock was set back.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - far)
redis.call('ZREMRANGEBYSCORE', KEYS[1], now + far, '+inf')
if ARGV[3] == '1' then
    redis.call('ZREM', KEYS[1], ARGV[1])
    return {-1, redis.call('ZCARD', KEYS[1])}
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], far * 10)
local all = redis.call('ZRANGE', KEYS[1], 0, -1)
table.sort(all)
local rank = 0
for place, name in ipairs(all) do
    if name == ARGV[1] then
        rank = place - 1
    end
end
return {rank, #all}
