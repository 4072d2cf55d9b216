-- Tells a change again that the store may have forgotten, because a server took over that was behind. An end wins, later
-- activity wins, a later version wins; a session is created only where nothing is.
-- KEYS and ARGV: as for `commit`. Reply: `done` head, or `kept` head: what is there is as good.
if off(ARGV[1]) then
    return head('clock')
end
local fields, names = {}, {}
local at = 13
for _ = 1, tonumber(ARGV[12]) do
    fields[ARGV[at]], names[#names + 1] = ARGV[at + 1], ARGV[at]
    at = at + 2
end
local known = redis.call('HMGET', KEYS[2], 'v', 't', 'f', 'y')
local ours = tonumber(fields.v or ARGV[2])
if known[1] then
    local theirs = tonumber(known[1])
    local finishes = theirs == ours and known[3] == '8' and fields.f ~= '8'
    local ends = fields.f == '4'
    if known[3] == '4' or (theirs >= ours and not finishes and not ends) then
        if known[3] == '0' and fields.t and tonumber(fields.t) > tonumber(known[2]) then
            redis.call('HSET', KEYS[2], 't', fields.t, 'l', fields.l)
            return head('done')
        end
        return head('kept')
    end
    if ends and theirs >= ours then
        fields.v = int(theirs + 1)
    end
    if fields.t and tonumber(known[2]) > tonumber(fields.t) then
        fields.t = known[2]
    end
elseif not fields.v or not fields.w then
    -- Only what changed is known, and what it changed is gone.
    return head('kept')
end
-- What fails must fail before the first write: as in `commit`.
redis.call('ZCARD', KEYS[3])
redis.call('ZCARD', KEYS[7])
redis.call('XRANGE', KEYS[4], '+', '-', 'COUNT', 1)
redis.call('LRANGE', KEYS[6], 1, 0)
local told, published = tonumber(known[4]) or 0, false
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
for _, name in ipairs(names) do
    if fields[name] == '' then
        redis.call('HDEL', KEYS[2], name)
    else
        redis.call('HSET', KEYS[2], name, fields[name])
    end
end
redis.call('HSET', KEYS[2], 'z', int(number), 'y', int(told))
redis.call('PEXPIRE', KEYS[2], ARGV[9])
if redis.call('EXISTS', KEYS[6]) == 1 then
    redis.call('PEXPIRE', KEYS[6], ARGV[9])
end
if ARGV[7] == '' then
    redis.call('ZREM', KEYS[3], ARGV[10])
else
    redis.call('ZADD', KEYS[3], ARGV[7], ARGV[10])
end
if ARGV[8] ~= '' then
    redis.call('ZADD', KEYS[7], ARGV[8], ARGV[10])
    redis.call('HSET', KEYS[2], 'g', ARGV[8])
end
if published then
    redis.call('HSET', KEYS[1], 'n', int(number))
    redis.call('SPUBLISH', KEYS[5], int(number))
end
return head('done')
