-- Says which policies a sidecar has, and asks which the others have.
-- KEYS: policies. ARGV: 1 the sidecar's name; 2 what it has; 3 for how many milliseconds that counts.
-- Reply: what each of the others has.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local far = tonumber(ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now) .. '\n' .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], far * 10)
local all, others = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
    local at, has = string.match(all[i + 1], '^(%d+)\n(.*)$')
    if not at or math.abs(now - tonumber(at)) > far then
        redis.call('HDEL', KEYS[1], all[i])
    elseif all[i] ~= ARGV[1] then
        others[#others + 1] = has
    end
end
return others
