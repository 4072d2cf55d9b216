-- What is due, and the heartbeat of a bucket. If nobody looked for more than three seconds, or the caller says that people could
-- not reach the store, ends are held for five seconds, so that they get a chance.
-- KEYS: meta, due index, ended index.
-- ARGV: 1 the caller's time; 2 at most so many; 3 only what has been due for so many microseconds; 4 whether to hold ends; 5 what
-- the names of records begin with; 6 whether the caller has known the time for a moment only.
-- Reply: `ok` head, when the next one is due or -1, live sessions, remembered ends, then ref and record of each that is due.
-- Who has known the time for a moment only gives no heartbeat where the clock is far from the last one: it may have been set, and those who
-- can tell will say so in a moment.
if off(ARGV[1]) or ARGV[6] == '1' and math.abs(ahead) > 1000000 then
    return head('clock')
end
local beat = tonumber(META[2]) or now
if ARGV[4] == '1' or now - beat > 3000000 then
    hold = math.max(hold, now + 5000000)
    redis.call('HSET', KEYS[1], 'hold', int(hold))
end
redis.call('HSET', KEYS[1], 'h', int(now))
-- The key that collects garbage has done so already: this is what the index still says.
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', int(now))
local due = redis.call('ZRANGE', KEYS[2], '-inf', int(now - tonumber(ARGV[3])), 'BYSCORE', 'LIMIT', 0, ARGV[2])
local found = {}
for _, ref in ipairs(due) do
    local fields = redis.pcall('HMGET', ARGV[5] .. ref, unpack(FIELDS))
    if not fields.err and fields[1] then
        found[#found + 1], found[#found + 2] = ref, fields
    else
        -- It is about to come, with its slot, from another server; or another program has put something else there. It must not keep
        -- others from their turn.
        redis.call('ZADD', KEYS[2], int(now + 5000000), ref)
    end
end
local first = redis.call('ZRANGE', KEYS[2], '(' .. int(now - tonumber(ARGV[3])), '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
local reply = head('ok')
reply[8] = tonumber(first[2]) or -1
reply[9] = redis.call('ZCARD', KEYS[2])
reply[10] = redis.call('ZCARD', KEYS[3])
for i = 1, #found do
    reply[10 + i] = found[i]
end
return reply
