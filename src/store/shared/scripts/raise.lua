-- Activity of a session of which it changes nothing but the pulse: never creates, never revives, never touches the due index.
-- KEYS: meta, record, tallies.
-- ARGV: 1 the caller's time; 2 how long ago the activity was, and 3 how far ahead it may be written, in microseconds; 4 the version
-- that the caller knows, or '' to be sent the record anyway; 5 and on what touches came to that is not told yet, if any: see `add_up`.
-- Reply: `ok` head, t, l, v, and the record if v is another one; `decide` head, record: it is warned of, ended, due, or has
-- holds; the caller lets the state machine decide.
--
-- The deadline of such a session, min(t + i, a), is the one rule that a script knows. Such are those without flags, where `a` is the
-- absolute deadline, and from format 2 those that have nothing but open pages, 18, where `a` is the one by a closed browser if that
-- comes first: it may come later by activity, but never earlier.
if off(ARGV[1]) then
    return head('clock')
end
if ARGV[5] then
    add_up(KEYS[3], KEYS[2], 5)
end
local record = redis.call('HMGET', KEYS[2], 'v', 't', 'l', 'f', 'i', 'a')
if not record[1] or record[4] ~= '0' and record[4] ~= '18' then
    return with('decide', KEYS[2])
end
local t, lead = tonumber(record[2]), tonumber(record[3])
if now >= math.min(t + tonumber(record[5]), tonumber(record[6])) then
    return with('decide', KEYS[2])
end
local reach = now - tonumber(ARGV[2]) + tonumber(ARGV[3])
-- What is written already is good for another while: then this one is free too, at whichever sidecar.
if reach - t > tonumber(ARGV[3]) / 2 or tonumber(ARGV[3]) == 0 and reach > t then
    t, lead = reach, tonumber(ARGV[3])
    redis.call('HSET', KEYS[2], 't', int(t), 'l', int(lead))
end
local reply = head('ok')
if record[1] ~= ARGV[4] then
    reply = with('ok', KEYS[2])
end
reply[9], reply[10], reply[11] = t, lead, tonumber(record[1])
if not reply[8] then
    reply[8] = {}
end
return reply
