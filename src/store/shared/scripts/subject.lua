-- Takes a place in the list of a subject's sessions. The list has a ticket: whoever has counted the list on an older one counts
-- again.
-- KEYS: list, ticket. ARGV: 1 the ticket, or '' to take a place anyhow; 2 the ref; 3 milliseconds to keep the list.
-- Reply: 1, or 0 if somebody was faster.
if ARGV[1] ~= '' and (redis.call('GET', KEYS[2]) or '0') ~= ARGV[1] then
    return 0
end
local clock = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'NX', clock[1] * 1000 + math.floor(clock[2] / 1000), ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if ARGV[1] ~= '' then
    redis.call('INCR', KEYS[2])
    redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return 1
