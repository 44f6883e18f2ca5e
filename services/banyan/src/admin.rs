//! The verbs that manage plans, prices, tenants, keys and adapters, and read the ledger and the audit trail: thin clients of
//! the admin services.

mod adapter;
mod audit;
mod key;
mod ledger;
mod limit_verbs;
mod limits;
mod plan;
mod price;
mod tenant;
mod usage;

pub use adapter::adapter;
pub use audit::audit;
pub use key::key;
pub use ledger::ledger;
pub use limit_verbs::limit_verbs;
pub use plan::plan;
pub use price::price;
pub use tenant::tenant;
pub use usage::{invoice, usage};
