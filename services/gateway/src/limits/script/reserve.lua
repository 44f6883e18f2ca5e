-- What is done with one request.

local NOWHERE = { day = 0, month = 0 }

-- The numbers of a table from one index to another.
local function part(n, first, last)
  local parts = {}
  for i = first, last do parts[#parts + 1] = n[i] end
  return parts
end

local function check_budgets(refusals, scope, most, spent, price, period)
  local cost, room = cost_of(price, 1), math.huge
  for i, limit in ipairs({ BUDGET_DAY, BUDGET_MONTH }) do
    if most[i] ~= NO_LIMIT and cost > 0 then
      local over = spent[i] + cost - most[i]
      room = math.min(room, most[i] - spent[i])
      if over > 0 then refuse(refusals, scope, limit, over, cost > most[i] and NEVER or period_ends_in(period, limit)) end
    end
  end
  return room
end

-- What `reserve` takes: input tokens, output tokens wanted, lease in ms; the limits of the tenant and of the key; the
-- price's four parts.
local function read_ask(n)
  local limits, count = { part(n, 4, 3 + LIMITS), part(n, 4 + LIMITS, 3 + 2 * LIMITS) }, 1
  for _, most in ipairs(limits[2]) do if most ~= NO_LIMIT then count = 2 end end
  local budgets = { part(limits[1], BUDGET_DAY, BUDGET_MONTH), part(limits[2], BUDGET_DAY, BUDGET_MONTH) }
  local mask = budgeted(budgets)
  return { input = n[1], wanted = n[2], lease_ms = n[3], limits = limits, count = count, budgets = budgets, mask = mask,
           period = mask > 0 and period_now() or NOWHERE, price = part(n, 4 + 2 * LIMITS, 7 + 2 * LIMITS) }
end

-- Refuses what one scope has no room for; returns its room for output and for money.
local function check_scope(refusals, scope, ask, spent)
  local keys, most = scopes[scope], ask.limits[scope]
  check_window(refusals, scope, REQUESTS, keys.requests, 1, most[REQUESTS])
  check_window(refusals, scope, INPUT, keys.input, ask.input, most[INPUT])
  local room, money = check_window(refusals, scope, OUTPUT, keys.output, 1, most[OUTPUT]), math.huge
  check_leases(refusals, scope, keys.leases, most[CONCURRENT])
  if spent[scope] then
    money = check_budgets(refusals, scope, ask.budgets[scope], spent[scope], ask.price, ask.period)
  end
  return room, money
end

-- as read_ask -> (granted output, slot), or (scope, limit, over, retry in ms) for each limit that is in the way, or unknown
-- money
local function reserve(n)
  local known = read_held()
  if known then return { known.granted, known.slot } end
  local ask = read_ask(n)
  local input, count, mask, period, price = ask.input, ask.count, ask.mask, ask.period, ask.price
  local spent, unknown = read_money(mask, period)
  if unknown > 0 then return unknown_money(period, unknown) end
  local refusals, granted, money = {}, ask.wanted, math.huge
  for scope = 1, count do
    local room, left = check_scope(refusals, scope, ask, spent)
    granted, money = math.min(granted, room), math.min(money, left)
  end
  if #refusals > 0 then return refusals end
  granted = affordable(price, 1, granted, money)
  for scope = 1, count do
    charge(scopes[scope].requests, slot_now, 1)
    charge(scopes[scope].input, slot_now, input)
    charge(scopes[scope].output, slot_now, granted)
  end
  local cost = mask > 0 and cost_of(price, granted) or 0
  charge_money(mask, period, cost)
  redis.call('hdel', owed, id)
  write_held({ count = count, slot = slot_now, input = input, grants = { { slot = slot_now, amount = granted } },
               mask = mask, period = period, cost = cost, generation = generation })
  lease(count, ask.lease_ms)
  return { granted, slot_now }
end

-- total output wanted; output limit, day's and month's budget of the tenant and of the key; the price's four parts
-- -> (granted in all, then scope and limit of each that stopped it), or unknown money; nothing if the request is unknown
local function extend(n)
  local held = read_held()
  if not held then return {} end
  local total, answer, price = math.max(n[1], held.granted), {}, part(n, 8, 11)
  if total > held.granted then
    local spent, unknown = read_money(held.mask, held.period)
    if unknown > 0 then return unknown_money(held.period, unknown) end
    local most = total
    local function bound(scope, limit, tokens)
      if tokens < most then
        answer[#answer + 1] = scope
        answer[#answer + 1] = limit
      end
      total = math.max(math.min(total, tokens), held.granted)
    end
    for scope = 1, held.count do
      local first = 3 * scope - 1
      if n[first] ~= NO_LIMIT then
        local _, sum = read_window(scopes[scope].output)
        bound(scope, OUTPUT, held.granted + math.max(n[first] - sum, 0))
      end
      for i, limit in ipairs(spent[scope] and { BUDGET_DAY, BUDGET_MONTH } or {}) do
        local budget = n[first + i]
        if budget ~= NO_LIMIT then
          bound(scope, limit, affordable(price, held.granted, most, math.max(held.cost + budget - spent[scope][i], 0)))
        end
      end
    end
  end
  local more = total - held.granted
  if more > 0 then
    for scope = 1, held.count do charge(scopes[scope].output, slot_now, more) end
    local cost = held.mask > 0 and cost_of(price, total) or 0
    charge_money(held.mask, held.period, cost - held.cost)
    held.grants[#held.grants + 1] = { slot = slot_now, amount = more }
    held.cost = cost
    write_held(held)
  end
  table.insert(answer, 1, total)
  return answer
end

-- input and output tokens used, and what they cost -> whether it was known
local function settle(n)
  local held = read_held()
  if not held then
    correct_owed(n[3], false)
    return { 0 }
  end
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
  if held.generation == generation then charge_money(held.mask, held.period, n[3] - held.cost) end
  return { 1 }
end

-- After a loss of data, by the gateway of a running request. Input tokens, output tokens granted, lease in ms, how many
-- scopes are charged, the scopes of budgets, the day and month of its beginning, what its grant costs, and what it cost
-- to begin with, which is what the ledger holds for it while it is open -> nothing, or the number of a later generation than
-- the caller's. Nothing is refused: it runs.
local function adopt(n)
  local later_one = overtaken(n[5])
  if later_one then return { later_one } end
  local held = read_held()
  local granted, mask, period, cost, of_ledger = n[2], n[5], { day = n[6], month = n[7] }, n[8], n[9]
  if not held then
    held = { count = n[4], slot = slot_now, input = n[1], grants = {}, granted = 0, cost = 0, generation = '' }
    for scope = 1, held.count do
      charge(scopes[scope].requests, slot_now, 1)
      charge(scopes[scope].input, slot_now, held.input)
    end
  end
  if granted > held.granted then
    for scope = 1, held.count do charge(scopes[scope].output, slot_now, granted - held.granted) end
    held.grants[#held.grants + 1] = { slot = slot_now, amount = granted - held.granted }
  end
  local charged = held.cost
  if held.generation ~= generation then
    charged = 0
    for scope = 1, 2 do
      if has(mask, scope) then
        claim(scopes[scope].money)
        if redis.call('hexists', scopes[scope].money, 'd' .. period.day) == 1 then charged = of_ledger end
      end
    end
    if mask > 0 and charged == 0 then
      redis.call('sadd', adopted, id)
      keep_for(adopted, MONEY_MS)
    end
  end
  redis.call('hdel', owed, id)
  held.mask, held.period, held.cost, held.generation = mask, period, math.max(cost, held.cost), generation
  charge_money(mask, period, held.cost - charged)
  write_held(held)
  lease(held.count, n[3])
  return {}
end

-- -> of the tenant, then of the key: of requests, input and output the sum, and milliseconds until all of it has passed
local function left()
  local answer = {}
  for _, scope in ipairs(scopes) do
    for _, key in ipairs({ scope.requests, scope.input, scope.output }) do
      local slots, sum = read_window(key)
      answer[#answer + 1] = sum
      answer[#answer + 1] = #slots > 0 and (slots[#slots].slot + WINDOW_SLOTS) * SLOT_MS - now or 0
    end
  end
  return answer
end

-- lease in ms -> whether it was known
local function renew(n)
  local held = read_held()
  if not held then return { 0 } end
  lease(held.count, n[1])
  return { 1 }
end
