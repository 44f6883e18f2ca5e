-- Rate limits of one tenant and one of its keys; the algorithm stands in limits.rs. A line before this one sets `now`, in
-- milliseconds. Runs as one atomic step. All numbers are integers below 2^53, so Lua's doubles hold them exactly.
--
-- KEYS: of the tenant: requests, input, output (hashes: slot -> amount), leases (sorted set: request id by expiry); the
--       same four of the key; reservations (hash: request id -> `held` below). All carry the tenant as hash tag.
-- ARGV: operation, request id, then what the operation takes. A limit of -1 is none.
--
-- held: "<scopes>|<slot>:<input>|<slot>:<output>,<slot>:<output>…", scopes being 1 (tenant) or 2 (tenant and key).

local SLOT_MS, WINDOW_SLOTS, CONCURRENCY_RETRY_MS = 1000, 61, 1000
local REQUESTS, INPUT, OUTPUT, CONCURRENT = 1, 2, 3, 4
local NO_LIMIT, NEVER = -1, -1

local scopes = {
  { requests = KEYS[1], input = KEYS[2], output = KEYS[3], leases = KEYS[4] },
  { requests = KEYS[5], input = KEYS[6], output = KEYS[7], leases = KEYS[8] },
}
local reservations = KEYS[9]
local operation, id = ARGV[1], ARGV[2]
local slot_now = math.floor(now / SLOT_MS)

local function drop_expired_leases()
  for _, scope in ipairs(scopes) do
    for _, expired in ipairs(redis.call('zrangebyscore', scope.leases, '-inf', now)) do
      redis.call('zrem', scope.leases, expired)
      redis.call('hdel', reservations, expired)
    end
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

local function refuse(refusals, scope, limit, over, retry_ms)
  for _, value in ipairs({ scope, limit, over, retry_ms }) do refusals[#refusals + 1] = value end
end

-- Refuses what does not fit; returns the room that there is.
local function check_window(refusals, scope, limit, key, amount, most)
  if most == NO_LIMIT then return math.huge end
  local slots, sum = read_window(key)
  local over = sum + amount - most
  if over <= 0 then return most - sum end
  local freed, retry_ms = 0, NEVER
  for _, one in ipairs(amount > most and {} or slots) do
    freed = freed + one.amount
    if freed >= over then
      retry_ms = (one.slot + WINDOW_SLOTS) * SLOT_MS - now
      break
    end
  end
  refuse(refusals, scope, limit, over, retry_ms)
  return most - sum
end

local function check_leases(refusals, scope, key, most)
  if most == NO_LIMIT then return end
  local over = redis.call('zcard', key) + 1 - most
  if over <= 0 then return end
  local first = redis.call('zrange', key, 0, 0, 'withscores')[2]
  local retry_ms = first and math.min(CONCURRENCY_RETRY_MS, tonumber(first) - now) or CONCURRENCY_RETRY_MS
  refuse(refusals, scope, CONCURRENT, over, retry_ms)
end

-- Garbage collection only: what counts is decided by `now` above.
local function keep_for(key, ms)
  if redis.call('pttl', key) < ms then redis.call('pexpire', key, ms) end
end

local function charge(key, slot, amount)
  redis.call('hincrby', key, slot, amount)
  keep_for(key, (WINDOW_SLOTS + 1) * SLOT_MS)
end

-- Changes a charge, unless its slot has passed.
local function correct(key, slot, amount)
  if amount ~= 0 and slot + WINDOW_SLOTS > slot_now then charge(key, slot, amount) end
end

local function lease(count, lease_ms)
  for n = 1, count do
    redis.call('zadd', scopes[n].leases, now + lease_ms, id)
    keep_for(scopes[n].leases, lease_ms + 1000)
  end
  keep_for(reservations, lease_ms + 1000)
end

-- How many scopes are charged, the input's slot and amount, the output's slots and amounts and their sum; nil if unknown.
local function read_held()
  local held = redis.call('hget', reservations, id)
  if not held then return nil end
  local count, slot, input, rest = held:match('^(%d)|(%d+):(%d+)|(.*)$')
  local grants, granted = {}, 0
  for at, amount in rest:gmatch('(%d+):(%d+)') do
    grants[#grants + 1] = { slot = tonumber(at), amount = tonumber(amount) }
    granted = granted + tonumber(amount)
  end
  return { count = tonumber(count), slot = tonumber(slot), input = tonumber(input), grants = grants, granted = granted,
           text = held }
end

-- input tokens, output tokens wanted, lease in ms, then requests, input, output, concurrent of the tenant and of the key
-- -> (granted output), or (scope, limit, over, retry in ms) for each limit that is in the way
local function reserve(n)
  local known = read_held()
  if known then return { known.granted } end
  local input, granted, lease_ms, refusals, count = n[1], n[2], n[3], {}, 1
  for i = 8, 11 do if n[i] ~= NO_LIMIT then count = 2 end end
  for scope = 1, count do
    local keys, first = scopes[scope], 4 * scope
    check_window(refusals, scope, REQUESTS, keys.requests, 1, n[first])
    check_window(refusals, scope, INPUT, keys.input, input, n[first + 1])
    granted = math.min(granted, check_window(refusals, scope, OUTPUT, keys.output, 1, n[first + 2]))
    check_leases(refusals, scope, keys.leases, n[first + 3])
  end
  if #refusals > 0 then return refusals end
  for scope = 1, count do
    charge(scopes[scope].requests, slot_now, 1)
    charge(scopes[scope].input, slot_now, input)
    charge(scopes[scope].output, slot_now, granted)
  end
  redis.call('hset', reservations, id, string.format('%d|%d:%d|%d:%d', count, slot_now, input, slot_now, granted))
  lease(count, lease_ms)
  return { granted }
end

-- total output wanted, output limit of the tenant and of the key -> (granted in all, the scopes that stopped it …)
local function extend(n)
  local held = read_held()
  if not held then return {} end
  local more, answer = n[1] - held.granted, { 0 }
  if more > 0 then
    local rooms = {}
    for scope = 1, held.count do
      local most = n[1 + scope]
      local _, sum = read_window(scopes[scope].output)
      rooms[scope] = most == NO_LIMIT and math.huge or math.max(most - sum, 0)
    end
    local wanted = more
    for _, room in ipairs(rooms) do more = math.min(more, room) end
    for scope, room in ipairs(rooms) do if room < wanted then answer[#answer + 1] = scope end end
  end
  if more > 0 then
    for scope = 1, held.count do charge(scopes[scope].output, slot_now, more) end
    redis.call('hset', reservations, id, held.text .. string.format(',%d:%d', slot_now, more))
  end
  answer[1] = held.granted + math.max(more, 0)
  return answer
end

-- input and output tokens used -> whether it was known
local function settle(n)
  local held = read_held()
  if not held then return { 0 } end
  redis.call('hdel', reservations, id)
  for scope = 1, held.count do
    redis.call('zrem', scopes[scope].leases, id)
    correct(scopes[scope].input, held.slot, n[1] - held.input)
    local left = n[2]
    for _, grant in ipairs(held.grants) do
      local used = math.min(left, grant.amount)
      correct(scopes[scope].output, grant.slot, used - grant.amount)
      left = left - used
    end
    correct(scopes[scope].output, slot_now, left)
  end
  return { 1 }
end

-- lease in ms -> whether it was known
local function renew(n)
  local held = read_held()
  if not held then return { 0 } end
  lease(held.count, n[1])
  return { 1 }
end

drop_expired_leases()
local numbers = {}
for i = 3, #ARGV do numbers[#numbers + 1] = tonumber(ARGV[i]) end
local operations = { reserve = reserve, extend = extend, settle = settle, renew = renew }
if operations[operation] then return operations[operation](numbers) end
return redis.error_reply('unknown operation ' .. tostring(operation))
