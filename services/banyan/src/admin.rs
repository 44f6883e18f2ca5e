//! The verbs that manage plans, prices, tenants, keys and adapters: thin clients of the admin services.

mod adapter;
mod key;
mod limits;
mod plan;
mod price;
mod tenant;

pub use adapter::adapter;
pub use key::key;
pub use plan::plan;
pub use price::price;
pub use tenant::tenant;
