-- Rate limits of one tenant; the algorithm stands in limits.rs. A line before this one sets `now`, in milliseconds.
-- Runs as one atomic step. All numbers are integers below 2^53, so Lua's doubles hold them exactly.
--
-- KEYS: requests (hash: slot -> amount), tokens (the same), leases (sorted set: request id by expiry),
--       reservations (hash: request id -> "slot:tokens"). All four carry the tenant as hash tag.
-- ARGV: operation, request id, then what the operation takes.

local SLOT_MS, WINDOW_SLOTS, CONCURRENCY_RETRY_MS = 1000, 61, 1000
local REQUESTS, TOKENS, CONCURRENT = 1, 2, 3
local NEVER = -1

local requests, tokens, leases, reservations = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local operation, id = ARGV[1], ARGV[2]
local slot_now = math.floor(now / SLOT_MS)

local function drop_expired_leases()
  for _, expired in ipairs(redis.call('zrangebyscore', leases, '-inf', now)) do
    redis.call('zrem', leases, expired)
    redis.call('hdel', reservations, expired)
  end
end

-- The live slots, oldest first, and their sum. Passed ones are deleted.
local function read_window(key)
  local slots, sum = {}, 0
  local fields = redis.call('hgetall', key)
  for i = 1, #fields, 2 do
    local slot, amount = tonumber(fields[i]), tonumber(fields[i + 1])
    if slot + WINDOW_SLOTS <= slot_now then
      redis.call('hdel', key, fields[i])
    else
      slots[#slots + 1] = { slot = slot, amount = amount }
      sum = sum + amount
    end
  end
  table.sort(slots, function(a, b) return a.slot < b.slot end)
  return slots, sum
end

local function refuse(refusals, limit, over, retry_ms)
  for _, value in ipairs({ limit, over, retry_ms }) do refusals[#refusals + 1] = value end
end

local function check_window(refusals, limit, key, amount, most)
  local slots, sum = read_window(key)
  local over = sum + amount - most
  if over <= 0 then return end
  if amount > most then return refuse(refusals, limit, over, NEVER) end
  local freed = 0
  for _, one in ipairs(slots) do
    freed = freed + one.amount
    if freed >= over then return refuse(refusals, limit, over, (one.slot + WINDOW_SLOTS) * SLOT_MS - now) end
  end
end

local function check_slots(refusals, most)
  local over = redis.call('zcard', leases) + 1 - most
  if over <= 0 then return end
  local first = redis.call('zrange', leases, 0, 0, 'withscores')[2]
  local retry_ms = first and math.min(CONCURRENCY_RETRY_MS, tonumber(first) - now) or CONCURRENCY_RETRY_MS
  refuse(refusals, CONCURRENT, over, retry_ms)
end

-- Garbage collection only: what counts is decided by `now` above.
local function keep_for(key, ms)
  if redis.call('pttl', key) < ms then redis.call('pexpire', key, ms) end
end

local function keep_leases_for(lease_ms)
  keep_for(leases, lease_ms + 1000)
  keep_for(reservations, lease_ms + 1000)
end

-- amount of tokens, requests per minute, tokens per minute, concurrent requests, lease in ms
-- -> nothing if granted, else (limit, over, retry in ms) for each limit that is in the way
local function reserve(amount, requests_max, tokens_max, concurrent_max, lease_ms)
  if redis.call('hexists', reservations, id) == 1 then return {} end
  local refusals = {}
  check_window(refusals, REQUESTS, requests, 1, requests_max)
  check_window(refusals, TOKENS, tokens, amount, tokens_max)
  check_slots(refusals, concurrent_max)
  if #refusals > 0 then return refusals end
  redis.call('hincrby', requests, slot_now, 1)
  redis.call('hincrby', tokens, slot_now, amount)
  redis.call('zadd', leases, now + lease_ms, id)
  redis.call('hset', reservations, id, string.format('%d:%d', slot_now, amount))
  keep_for(requests, (WINDOW_SLOTS + 1) * SLOT_MS)
  keep_for(tokens, (WINDOW_SLOTS + 1) * SLOT_MS)
  keep_leases_for(lease_ms)
  return {}
end

-- tokens used -> whether it was known
local function settle(used)
  local held = redis.call('hget', reservations, id)
  if not held then return { 0 } end
  local slot, amount = held:match('^(%d+):(%d+)$')
  redis.call('hdel', reservations, id)
  redis.call('zrem', leases, id)
  if tonumber(slot) + WINDOW_SLOTS > slot_now then
    redis.call('hincrby', tokens, slot, used - tonumber(amount))
    keep_for(tokens, (WINDOW_SLOTS + 1) * SLOT_MS)
  end
  return { 1 }
end

-- lease in ms -> whether it was known
local function renew(lease_ms)
  if redis.call('hexists', reservations, id) == 0 then return { 0 } end
  redis.call('zadd', leases, now + lease_ms, id)
  keep_leases_for(lease_ms)
  return { 1 }
end

drop_expired_leases()
local n = {}
for i = 3, #ARGV do n[#n + 1] = tonumber(ARGV[i]) end
if operation == 'reserve' then return reserve(n[1], n[2], n[3], n[4], n[5]) end
if operation == 'settle' then return settle(n[1]) end
if operation == 'renew' then return renew(n[1]) end
return redis.error_reply('unknown operation ' .. tostring(operation))
