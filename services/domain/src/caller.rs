//! Who is calling, once proven.

use std::{fmt, str::FromStr};

use crate::{ApiKeyId, Slug, TenantId};

/// An authenticated caller. Only the gateway's authentication makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Runs the platform; may do everything in the admin services.
    Operator,
    /// Holds an API key of one tenant.
    Tenant { tenant: TenantId, slug: Slug, key: ApiKeyId, role: Role },
}

/// What an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Call the inference service.
    Inference,
    /// That, and manage the own tenant's adapters and keys.
    TenantAdmin,
}

impl Role {
    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inference => "inference",
            Self::TenantAdmin => "tenant_admin",
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a role: use `inference` or `tenant_admin`")]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        match text {
            "inference" => Ok(Self::Inference),
            "tenant_admin" => Ok(Self::TenantAdmin),
            other => Err(RoleError(other.to_owned())),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
