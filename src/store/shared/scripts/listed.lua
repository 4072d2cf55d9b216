-- The list of a subject's sessions. KEYS: list, ticket. ARGV: 1 milliseconds within which a place counts as just taken.
-- Reply: ticket, all refs, those whose place was just taken.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
return {
    redis.call('GET', KEYS[2]) or '0',
    redis.call('ZRANGE', KEYS[1], 0, -1),
    redis.call('ZRANGE', KEYS[1], now - tonumber(ARGV[1]), '+inf', 'BYSCORE'),
}
