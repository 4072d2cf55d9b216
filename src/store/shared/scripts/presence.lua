-- A sidecar says that it is there, and is told its rank among those that are.
-- KEYS: presence, told. ARGV: 1 its name; 2 for how many milliseconds it counts as there; 3 '1' if it leaves; 4 the servers that it
-- has told what they may have forgotten, 5 those of them of which it asks whether others have too, and 6 the others that it knows of,
-- for a server may have forgotten them; with spaces between.
-- Reply: rank from 0 (-1 if it left), how many there are, how many have not told one of the servers in question, and the names of all
-- that say what they have told: one of an older version never does, and is not waited for.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local far = tonumber(ARGV[2])
local function gone(from, to)
    for _, name in ipairs(redis.call('ZRANGE', KEYS[1], from, to, 'BYSCORE')) do
        redis.call('ZREM', KEYS[1], name)
        redis.call('HDEL', KEYS[2], name)
    end
end
-- Also those from the future: the server's clock was set back.
gone('-inf', now - far)
gone(now + far, '+inf')
if ARGV[3] == '1' then
    redis.call('ZREM', KEYS[1], ARGV[1])
    redis.call('HDEL', KEYS[2], ARGV[1])
    return {-1, redis.call('ZCARD', KEYS[1]), 0, ''}
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], far * 10)
redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], far * 10)
local all = redis.call('ZRANGE', KEYS[1], 0, -1)
table.sort(all)
local rank, behind, waited, names = 0, 0, {}, {}
for place, name in ipairs(all) do
    if name == ARGV[1] then
        rank = place - 1
    end
    if redis.call('HGET', KEYS[2], name) then
        names[#names + 1], waited[name] = name, true
    end
end
for name in string.gmatch(ARGV[6], '%S+') do
    waited[name] = true
end
for name in pairs(waited) do
    local told = ' ' .. (redis.call('HGET', KEYS[2], name) or '') .. ' '
    local lacks = 0
    for server in string.gmatch(ARGV[5], '%S+') do
        if not string.find(told, ' ' .. server .. ' ', 1, true) then
            lacks = 1
        end
    end
    behind = behind + lacks
end
return {rank, #all, behind, table.concat(names, ' ')}
