-- Limits of one tenant and one of its keys; the algorithm stands in limits.rs. A line before this one sets `now`, in
-- milliseconds. Runs as one atomic step. All numbers are integers below 2^53, so Lua's doubles hold them exactly; what is
-- larger is larger than any limit, and never charged.
--
-- KEYS: of the tenant: requests, input, output (hashes: slot -> amount), leases (sorted set: request id by expiry), money
--       (hash, see money.lua); the same five of the key; reservations (hash: request id -> see reservations.lua); adopted
--       (set of request ids, see money.lua), owed (hash, see reservations.lua), seatless (sorted set: slices without a
--       seat by expiry). All carry the tenant as hash tag.
-- ARGV: operation, request id, generation, process that asks, then what the operation takes. A limit of -1 is none.

local SLOT_MS, WINDOW_SLOTS, CONCURRENCY_RETRY_MS = 1000, 61, 1000
local DAY_MS = 86400000
-- Money that nobody has touched for so long is read from the ledger again.
local MONEY_MS = 40 * DAY_MS
local REQUESTS, INPUT, OUTPUT, CONCURRENT, BUDGET_DAY, BUDGET_MONTH = 1, 2, 3, 4, 5, 6
-- Limits of one scope, in the order of the numbers above.
local LIMITS = 6
local NO_LIMIT, NEVER, UNKNOWN = -1, -1, -1

local scopes = {
  { requests = KEYS[1], input = KEYS[2], output = KEYS[3], leases = KEYS[4], money = KEYS[5] },
  { requests = KEYS[6], input = KEYS[7], output = KEYS[8], leases = KEYS[9], money = KEYS[10] },
}
local reservations, adopted, owed, seatless = KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local operation, id, generation, process = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local slot_now = math.floor(now / SLOT_MS)

-- Garbage collection only: what counts is decided by `now` above.
local function keep_for(key, ms)
  if redis.call('pttl', key) < ms then redis.call('pexpire', key, ms) end
end

local function refuse(refusals, scope, limit, over, retry_ms)
  for _, value in ipairs({ scope, limit, over, retry_ms }) do refusals[#refusals + 1] = value end
end
