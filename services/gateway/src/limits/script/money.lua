-- Budgets: micro-units of a day and a month of UTC. A counter that is not there is not zero: the ledger knows it.

-- Months since the year 0, by the civil calendar (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
local function month_of(day)
  local z = day + 719468
  local era = math.floor(z / 146097)
  local of_era = z - era * 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524)
    - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local from_march = math.floor((5 * of_year + 2) / 153)
  local month = from_march < 10 and from_march + 3 or from_march - 9
  return (year + era * 400 + (month <= 2 and 1 or 0)) * 12 + month - 1
end

local function period_now()
  local day = math.floor(now / DAY_MS)
  return { day = day, month = month_of(day) }
end

-- Milliseconds until the next day, or the first day of the next month.
local function period_ends_in(period, limit)
  local day = period.day + 1
  if limit == BUDGET_MONTH then
    while month_of(day) == period.month do day = day + 1 end
  end
  return day * DAY_MS - now
end

-- `parts`: whole and millionths of a micro-unit, of the prompt and then of each token of the answer. The sum is rounded up
-- once, as in the ledger.
local function cost_of(parts, output)
  return parts[1] + output * parts[3] + math.ceil((parts[2] + output * parts[4]) / 1000000)
end

-- Most tokens from `least` to `most` of which the cost is at most `money`; `least` if there are none.
local function affordable(parts, least, most, money)
  if cost_of(parts, most) <= money then return most end
  local low, high = least, most
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    if cost_of(parts, middle) <= money then low = middle else high = middle end
  end
  return low
end

-- Which scopes have budgets: 1 for the tenant, 2 for the key, 3 for both. `limits`: of each scope the day's and month's.
local function budgeted(limits)
  local mask = 0
  for scope, most in ipairs(limits) do
    if most[1] ~= NO_LIMIT or most[2] ~= NO_LIMIT then mask = mask + scope end
  end
  return mask
end

local function has(mask, scope)
  return math.floor(mask / scope) % 2 == 1
end

-- The hash of a scope belongs to one generation (field `g`): the life of the data in Redis from one loss to the next. In it
-- are the counters (`d<day>`, `m<month>`), and where there is no counter, what was charged to it all the same (`p…`): by
-- requests that had been running when the data was lost, which their gateways adopt. Each of these is the sum of what was
-- charged by processes, which stands beside it (`<counter>@<process>`), but for those that are closed.

-- What has been spent by each scope of the mask, by limit; and the scopes of which it is not known.
local function read_money(mask, period)
  local spent, unknown = {}, 0
  for scope = 1, 2 do
    if has(mask, scope) then
      local found = redis.call('hmget', scopes[scope].money, 'g', 'd' .. period.day, 'm' .. period.month)
      if found[1] == generation and found[2] and found[3] then
        spent[scope] = { tonumber(found[2]), tonumber(found[3]) }
      else
        unknown = unknown + scope
      end
    end
  end
  return spent, unknown
end

local function unknown_money(period, mask)
  return { UNKNOWN, period.day, period.month, mask }
end

local function number_of(token)
  return tonumber(token:match('^(%d+)-')) or 0
end

-- Of two generations, whether the first one is the later.
local function later(one, other)
  local a, b = number_of(one), number_of(other)
  return a > b or (a == b and one > other)
end

-- The number of a later generation than the caller's that one of these scopes is in already; nil if there is none. Whoever
-- has not heard of it must not begin the earlier one again: what was charged in the later one would be lost.
local function overtaken(mask)
  for scope = 1, 2 do
    local found = has(mask, scope) and redis.call('hget', scopes[scope].money, 'g')
    if found and later(found, generation) then return number_of(found) end
  end
end

-- Begins the generation if the hash is of an earlier one.
local function claim(key)
  if redis.call('hget', key, 'g') ~= generation then
    redis.call('del', key)
    redis.call('hset', key, 'g', generation)
  end
  keep_for(key, MONEY_MS)
end

local function add(key, counter, by, amount)
  redis.call('hincrby', key, counter, amount)
  redis.call('hincrby', key, counter .. '@' .. by, amount)
end

-- What is of another generation is not changed: it is read from the ledger again, which has it all.
local function charge_money(mask, period, amount)
  if amount == 0 then return end
  for scope = 1, 2 do
    local key = scopes[scope].money
    if has(mask, scope) and redis.call('hget', key, 'g') == generation then
      for _, counter in ipairs({ 'd' .. period.day, 'm' .. period.month }) do
        if redis.call('hexists', key, counter) == 0 then counter = 'p' .. counter end
        add(key, counter, process, amount)
      end
      keep_for(key, MONEY_MS)
    end
  end
end

-- A counter that was missing begins with what the ledger has of each process and what was charged to it meanwhile.
local function begin_counter(key, counter, scope, amount_at)
  if redis.call('hexists', key, counter) == 1 then return end
  redis.call('hset', key, counter, 0)
  for at = 9, #ARGV, 4 do
    if tonumber(ARGV[at]) == scope then add(key, counter, ARGV[at + 1], tonumber(ARGV[at + amount_at])) end
  end
  local pending = 'p' .. counter
  for _, field in ipairs(redis.call('hkeys', key)) do
    local before, by = field:match('^([^@]*)@(.*)$')
    if before == pending then
      add(key, counter, by, tonumber(redis.call('hget', key, field)))
      redis.call('hdel', key, field)
    end
  end
  redis.call('hdel', key, pending)
end

-- day, month, how many requests are adopted, of which scopes the ledger was asked; then for each part of what it has without
-- them: scope, process, of the day, of the month -> whether that is how many there are, or 0 and the number of a later
-- generation. What is known meanwhile stays.
local function seed(n)
  local later_one = overtaken(n[4])
  if later_one then return { 0, later_one } end
  if redis.call('scard', adopted) ~= n[3] then return { 0 } end
  for scope = 1, 2 do
    if has(n[4], scope) then
      local key = scopes[scope].money
      claim(key)
      begin_counter(key, 'd' .. n[1], scope, 2)
      begin_counter(key, 'm' .. n[2], scope, 3)
      -- Periods before the last one are of no interest: nothing that began in them still runs.
      for _, field in ipairs(redis.call('hkeys', key)) do
        local unit, period = field:match('^p?([dm])(%d+)')
        if unit and tonumber(period) < (unit == 'd' and n[1] - 2 or n[2] - 1) then redis.call('hdel', key, field) end
      end
    end
  end
  return { 1 }
end

-- Of a process that is gone: scope, day, month, what the ledger has of it in the day and in the month, the process -> {}.
-- All that it let through has ended, so that takes the place of what it had charged.
local function close(n)
  local key, of = scopes[n[1]].money, ARGV[10]
  if redis.call('hget', key, 'g') ~= generation then return {} end
  for counter, amount in pairs({ ['d' .. n[2]] = n[4], ['m' .. n[3]] = n[5] }) do
    local charged = redis.call('hget', key, counter .. '@' .. of)
    if charged then
      redis.call('hincrby', key, counter, amount - tonumber(charged))
      redis.call('hdel', key, counter .. '@' .. of)
    end
  end
  return {}
end

local function list_adopted()
  return redis.call('smembers', adopted)
end
