//! The verbs that manage tenants, keys and adapters: thin clients of the admin services.

mod adapter;
mod key;
mod tenant;

pub use adapter::adapter;
pub use key::key;
pub use tenant::tenant;
