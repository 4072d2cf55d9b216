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
must_be_sound()
local at = 13
local set, gone = {}, {}
for _ = 1, tonumber(ARGV[12]) do
    if ARGV[at + 1] == '' then
        gone[#gone + 1] = ARGV[at]
    else
        set[#set + 1], set[#set + 2] = ARGV[at], ARGV[at + 1]
    end
    at = at + 2
end
for _, name in ipairs(gone) do
    -- What waits for a session to go live is told once, by whoever comes first.
    if name == 'q' and not redis.call('HGET', KEYS[2], 'q') then
        return with('lost', KEYS[2])
    end
end
for _, name in ipairs(gone) do
    redis.call('HDEL', KEYS[2], name)
end
if #set > 0 then
    redis.call('HSET', KEYS[2], unpack(set))
end
write_around(at, tonumber(known[4]) or 0)
return head('ok')
