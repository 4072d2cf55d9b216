-- Opens a bucket: it gets an epoch if it has none. All that is known of its events is lost if it has lost its epoch.
-- KEYS: meta. ARGV: 1 an epoch.
-- Reply: `ok` head.
if redis.call('HSETNX', KEYS[1], 'e', ARGV[1]) == 1 then
    META[6] = ARGV[1]
end
return head('ok')
