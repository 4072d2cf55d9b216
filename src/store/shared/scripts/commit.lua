-- Makes a decided change true, all of it or nothing: the record, its place in the due index, its events.
-- KEYS: meta, record, due index, events, channel, timeline, ended index.
-- ARGV: 1 the caller's time; 2 the version and 3 the t that the change was decided upon, both '' if there must be no record;
-- 4 the deadline that must have passed, or 0; 5 for how long after it the hold of ends may hold it back, or 0 if it may not;
-- 6 the latest time for this, or 0; 7 when to look at the session next, or '' if never; 8 until when it is remembered, or '' while
-- it lives; 9 for how many milliseconds to keep the record; 10 the ref; 11 how many events to keep; 12 how many fields to set:
-- name and value of each; then how many events: for each, whether it goes to the events (1), the timeline (2) or both (3), and
-- its body.
-- Reply: `ok` head; `lost` head, record: somebody was faster; `early`, `held`, `late`: not at this time.
if off(ARGV[1]) then
    return head('clock')
end
local known = redis.call('HMGET', KEYS[2], 'v', 't', 'g', 'y')
if ARGV[2] == '' and known[3] and tonumber(known[3]) <= now then
    -- It has ended, and is not to be remembered any more.
    redis.call('DEL', KEYS[2], KEYS[6])
    known = {}
end
if (known[1] or '') ~= ARGV[2] or (known[2] or '') ~= ARGV[3] then
    return with('lost', KEYS[2])
end
local deadline, holds, latest = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if now < deadline then
    return with('early', KEYS[2])
end
if deadline > 0 and math.abs(ahead) > 1000000 then
    -- Whoever looks at what is due will say in a moment whether this is the time.
    if holds > 0 and ahead > 3000000 then
        -- Nobody could look, and so perhaps nobody could be active.
        hold = math.max(hold, now + 5000000)
        redis.call('HSET', KEYS[1], 'hold', int(hold))
    end
    return with('held', KEYS[2])
end
if deadline > 0 and holds > 0 and now < math.min(hold, deadline + holds) then
    return with('held', KEYS[2])
end
if latest > 0 and now > latest then
    return with('late', KEYS[2])
end
-- What fails must fail before the first write, for nothing is taken back: a key of another type, that somebody else wrote.
redis.call('ZCARD', KEYS[3])
redis.call('ZCARD', KEYS[7])
redis.call('XRANGE', KEYS[4], '+', '-', 'COUNT', 1)
redis.call('LRANGE', KEYS[6], 1, 0)
local ref, keep = ARGV[10], ARGV[9]
local at = 13
local set = {}
for _ = 1, tonumber(ARGV[12]) do
    if ARGV[at + 1] == '' then
        redis.call('HDEL', KEYS[2], ARGV[at])
    else
        set[#set + 1], set[#set + 2] = ARGV[at], ARGV[at + 1]
    end
    at = at + 2
end
local published, told = false, tonumber(known[4]) or 0
local events = tonumber(ARGV[at])
at = at + 1
for _ = 1, events do
    local where, body = tonumber(ARGV[at]), ARGV[at + 1]
    at = at + 2
    if where % 2 == 1 then
        number = number + 1
        local id = int(number) .. '-0'
        local added = redis.pcall('XADD', KEYS[4], 'MAXLEN', '~', ARGV[11], id, 'b', body)
        if added.err then
            -- Somebody else wrote there, with a higher number. Sessions go on; watchers find that their place is gone.
            redis.call('DEL', KEYS[4])
            redis.call('XADD', KEYS[4], id, 'b', body)
        end
        published = true
    end
    if where >= 2 then
        redis.call('RPUSH', KEYS[6], body)
        told = told + 1
    end
end
set[#set + 1], set[#set + 2] = 'z', int(number)
set[#set + 1], set[#set + 2] = 'y', int(told)
if ARGV[8] ~= '' then
    set[#set + 1], set[#set + 2] = 'g', ARGV[8]
end
redis.call('HSET', KEYS[2], unpack(set))
redis.call('PEXPIRE', KEYS[2], keep)
if redis.call('EXISTS', KEYS[6]) == 1 then
    redis.call('LTRIM', KEYS[6], -64, -1)
    redis.call('PEXPIRE', KEYS[6], keep)
end
if ARGV[7] == '' then
    redis.call('ZREM', KEYS[3], ref)
else
    redis.call('ZADD', KEYS[3], ARGV[7], ref)
end
if ARGV[8] ~= '' then
    redis.call('ZADD', KEYS[7], ARGV[8], ref)
end
if published then
    redis.call('HSET', KEYS[1], 'n', int(number))
    redis.call('SPUBLISH', KEYS[5], int(number))
end
return head('ok')
