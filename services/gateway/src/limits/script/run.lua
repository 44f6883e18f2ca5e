-- Runs the operation that was asked for.
drop_expired_leases()
local numbers = {}
for i = 5, #ARGV do numbers[#numbers + 1] = tonumber(ARGV[i]) end
local operations = {
  reserve = reserve, extend = extend, settle = settle, renew = renew,
  left = left, adopt = adopt, borrow = borrow, resize = resize, adopted = list_adopted, seed = seed, close = close,
  stands = stands, explain = explain,
}
if operations[operation] then return operations[operation](numbers) end
return redis.error_reply('unknown operation ' .. tostring(operation))
