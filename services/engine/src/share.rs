//! A tenant's part in the engine: its weight among the tenants, its class, and the most that it may hold. It has no
//! effect on any token, only on when they come.

use domain::TenantId;

use crate::config::EngineConfig;

/// On whose account a request runs, and on which terms. 0 stands for the engine's default everywhere
/// ([`crate::FairnessConfig`]). A tenant's latest request says what holds for all that it has here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The tenant who pays.
    pub tenant: TenantId,
    /// Service in proportion to other tenants' weights.
    pub weight: u32,
    /// Higher goes first.
    pub priority: u32,
    /// KV blocks held at the same time.
    pub kv_blocks_max: u32,
    /// Adapters that it has brought into memory.
    pub adapters_max: u32,
    /// Requests that wait.
    pub waiting_max: u32,
}

impl Share {
    /// With the engine's defaults.
    pub const fn of(tenant: TenantId) -> Self {
        Self { tenant, weight: 0, priority: 0, kv_blocks_max: 0, adapters_max: 0, waiting_max: 0 }
    }

    /// With every default filled in; `u32::MAX` where there is no limit.
    pub(crate) fn filled(self, config: &EngineConfig) -> Self {
        let fairness = &config.fairness;
        let or = |own: u32, default: u32| if own == 0 { default } else { own };
        let limit = |own: u32, default: u32| or(or(own, default), u32::MAX);
        let waiting_max = u32::try_from(fairness.tenant_waiting_max).unwrap_or(u32::MAX);
        Self {
            tenant: self.tenant,
            weight: or(self.weight, fairness.weight),
            priority: or(self.priority, fairness.priority),
            kv_blocks_max: limit(self.kv_blocks_max, fairness.tenant_kv_blocks_max),
            adapters_max: limit(self.adapters_max, fairness.tenant_adapters_max),
            waiting_max: or(self.waiting_max, waiting_max),
        }
    }
}
