//! Resource names of the admin services (AIP-122): collections and ids with slashes between them.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use crate::{Digest, Slug};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{given}` is not a resource name of the form `{form}`")]
pub struct ResourceNameError {
    given: String,
    form: &'static str,
}

macro_rules! resource_name {
    ($(#[$doc:meta])* $name:ident, $form:literal, { $($collection:literal / $field:ident : $type:ty),+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $name { $(pub $field: $type),+ }

        impl FromStr for $name {
            type Err = ResourceNameError;

            fn from_str(text: &str) -> Result<Self, ResourceNameError> {
                let fault = || ResourceNameError { given: text.chars().take(200).collect(), form: $form };
                let mut segments = text.split('/');
                $(
                    if segments.next() != Some($collection) {
                        return Err(fault());
                    }
                    let $field = segments.next().and_then(Segment::read).ok_or_else(fault)?;
                )+
                if segments.next().is_some() {
                    return Err(fault());
                }
                Ok(Self { $($field),+ })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let segments = [$($collection.to_owned(), Segment::write(&self.$field)),+];
                f.write_str(&segments.join("/"))
            }
        }
    };
}

resource_name!(
    /// `tenants/<tenant>`
    TenantName, "tenants/<tenant>", { "tenants" / tenant: Slug }
);
resource_name!(
    /// `plans/<plan>`
    PlanName, "plans/<plan>", { "plans" / plan: Slug }
);
resource_name!(
    /// `tenants/<tenant>/apiKeys/<public id>`
    ApiKeyName, "tenants/<tenant>/apiKeys/<public id>", { "tenants" / tenant: Slug, "apiKeys" / public_id: String }
);
resource_name!(
    /// `tenants/<tenant>/adapters/<adapter>`
    AdapterName, "tenants/<tenant>/adapters/<adapter>", { "tenants" / tenant: Slug, "adapters" / adapter: Slug }
);
resource_name!(
    /// `tenants/<tenant>/adapters/<adapter>/versions/<hex digest>`
    VersionName, "tenants/<tenant>/adapters/<adapter>/versions/<64 hex digits>",
    { "tenants" / tenant: Slug, "adapters" / adapter: Slug, "versions" / digest: Digest }
);
resource_name!(
    /// `tenants/<tenant>/adapters/<adapter>/aliases/<alias>`
    AliasName, "tenants/<tenant>/adapters/<adapter>/aliases/<alias>",
    { "tenants" / tenant: Slug, "adapters" / adapter: Slug, "aliases" / alias: Slug }
);
resource_name!(
    /// `tenants/<tenant>/adapters/<adapter>/aliases/<alias>/pins/<id>`
    PinName, "tenants/<tenant>/adapters/<adapter>/aliases/<alias>/pins/<id>",
    { "tenants" / tenant: Slug, "adapters" / adapter: Slug, "aliases" / alias: Slug, "pins" / pin: Uuid }
);
resource_name!(
    /// `tenants/<tenant>/adapters/<adapter>/aliases/<alias>/schedules/<id>`
    ScheduleName, "tenants/<tenant>/adapters/<adapter>/aliases/<alias>/schedules/<id>",
    { "tenants" / tenant: Slug, "adapters" / adapter: Slug, "aliases" / alias: Slug, "schedules" / schedule: Uuid }
);

impl AliasName {
    pub fn parent(&self) -> AdapterName {
        AdapterName { tenant: self.tenant.clone(), adapter: self.adapter.clone() }
    }
}

impl AdapterName {
    pub fn parent(&self) -> TenantName {
        TenantName { tenant: self.tenant.clone() }
    }
}

trait Segment: Sized {
    fn read(text: &str) -> Option<Self>;
    fn write(&self) -> String;
}

impl Segment for Slug {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Segment for Digest {
    fn read(text: &str) -> Option<Self> {
        Self::from_hex(text).ok()
    }

    fn write(&self) -> String {
        self.hex()
    }
}

impl Segment for Uuid {
    fn read(text: &str) -> Option<Self> {
        Self::try_parse(text).ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// A key's public id.
impl Segment for String {
    fn read(text: &str) -> Option<Self> {
        let fits = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        fits.then(|| text.to_owned())
    }

    fn write(&self) -> String {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_names_read_back() {
        let version = format!("tenants/acme/adapters/claims/versions/{}", "0a".repeat(32));
        assert_eq!(version.parse::<VersionName>().map(|n| n.to_string()), Ok(version));
        let alias = "tenants/acme/adapters/claims/aliases/live";
        assert_eq!(alias.parse::<AliasName>().map(|n| n.to_string()).as_deref(), Ok(alias));
        let key = "tenants/acme/apiKeys/abcdef234567";
        assert_eq!(key.parse::<ApiKeyName>().map(|n| n.to_string()).as_deref(), Ok(key));
    }

    #[test]
    fn wrong_shapes_are_refused_with_the_right_one() {
        for text in ["", "tenants", "tenants/", "tenants/acme/adapters/x1", "tenant/acme", "tenants/Acme"] {
            let fault = text.parse::<TenantName>().expect_err(text).to_string();
            assert!(fault.contains("tenants/<tenant>"), "{fault}");
        }
    }
}
