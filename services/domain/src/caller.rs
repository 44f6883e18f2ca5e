//! Who is calling, once proven.

use std::{fmt, str::FromStr};

use crate::{ApiKeyId, Slug, TenantId};

/// An authenticated caller. Only the gateway's authentication makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Runs the platform; may do everything in the admin services.
    Operator,
    /// Looks at everything in the admin services, and changes nothing.
    Auditor,
    /// Holds an API key of one tenant.
    Tenant {
        tenant: TenantId,
        slug: Slug,
        key: ApiKeyId,
        /// The part of the key that is not secret.
        public_id: String,
        role: Role,
    },
}

/// What an API key may do, always within its tenant. What that is for each RPC stands in the gateway's table of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Call the inference service.
    Inference,
    /// That, and manage adapters and their aliases; no keys.
    TenantDeveloper,
    /// All of that, and manage keys.
    TenantAdmin,
    /// Look at everything of the tenant, its audit trail too; no inference, and no change.
    TenantAuditor,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Inference, Self::TenantDeveloper, Self::TenantAdmin, Self::TenantAuditor];

    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::TenantDeveloper => "tenant_developer",
            Self::TenantAdmin => "tenant_admin",
            Self::TenantAuditor => "tenant_auditor",
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a role")]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| RoleError(text.to_owned()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
