-- Tells a change again that the store may have forgotten, because a server took over that was behind. An end wins, later
-- activity wins, a later version wins; a session is created only where nothing is.
-- KEYS and ARGV: as for `commit`. Reply: `done` head, or `kept` head: what is there is as good; `live` head: it is an end, and what is
-- there is a later version that lives on.
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
    if fields.f == '8' and known[3] ~= '8' then
        -- It has gone live since.
        return head('kept')
    end
    if known[3] == '4' or (theirs >= ours and not finishes and not ends) then
        if (known[3] == '0' or known[3] == '18') and fields.t and tonumber(fields.t) > tonumber(known[2]) then
            redis.call('HSET', KEYS[2], 't', fields.t, 'l', fields.l)
            return head('done')
        end
        return head('kept')
    end
    if ends and theirs >= ours then
        return head('live')
    end
    if fields.t and tonumber(known[2]) > tonumber(fields.t) then
        fields.t = known[2]
    end
elseif not fields.v or not fields.w then
    -- Only what changed is known, and what it changed is gone.
    return head('kept')
end
must_be_sound()
for _, name in ipairs(names) do
    if fields[name] == '' then
        redis.call('HDEL', KEYS[2], name)
    else
        redis.call('HSET', KEYS[2], name, fields[name])
    end
end
write_around(at, tonumber(known[4]) or 0)
return head('done')
