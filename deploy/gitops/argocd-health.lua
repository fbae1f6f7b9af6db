-- Health of a KafkaConsumerGroup for Argo CD. README.md in this folder describes how to install it.
-- The status describes the current spec only when observedGeneration equals its generation.
local health = { status = "Progressing", message = "waiting for the operator" }
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
if status.observedGeneration ~= nil and status.observedGeneration < obj.metadata.generation then
  health.message = "the operator has not processed the latest change yet"
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end

local function text(condition)
  if condition.message ~= nil and condition.message ~= "" then
    return condition.reason .. ": " .. condition.message
  end
  return condition.reason
end

-- Rejected, or in need of action by a user: waiting does not help.
local accepted = conditions["Accepted"]
if accepted ~= nil and accepted.status == "False" then
  return { status = "Degraded", message = text(accepted) }
end
local stalled = conditions["Stalled"]
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = text(stalled) }
end
-- Intended, so neither healthy nor broken.
local desired = obj.spec.desiredState
if desired == "Paused" or desired == "Stopped" then
  return { status = "Suspended", message = desired }
end
local reconciling = conditions["Reconciling"]
if reconciling ~= nil and reconciling.status == "True" then
  return { status = "Progressing", message = text(reconciling) }
end
local ready = conditions["Ready"]
if ready == nil then
  return health
end
if ready.status == "True" then
  return { status = "Healthy", message = text(ready) }
end
if ready.status == "False" then
  return { status = "Degraded", message = text(ready) }
end
return { status = "Progressing", message = text(ready) }
