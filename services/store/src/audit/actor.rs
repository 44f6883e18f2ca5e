//! Who acts, as the audit trail has it.

use domain::{RequestId, Role};
use serde_json::{Value, json};

/// On whose behalf a transaction runs. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    pub who: Who,
    /// The RPC, by its path.
    pub method: &'static str,
    pub request: RequestId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    Operator,
    Auditor,
    /// The API key with this public id.
    Key {
        public_id: String,
        role: Role,
    },
}

impl Actor {
    pub(crate) fn json(&self) -> String {
        let actor = match &self.who {
            Who::Operator => json!({ "kind": "operator" }),
            Who::Auditor => json!({ "kind": "auditor" }),
            Who::Key { public_id, role } => json!({ "kind": "key", "key": public_id, "role": role.as_str() }),
        };
        let request: Value = self.request.to_string().into();
        json!({ "actor": actor, "method": self.method, "request_id": request }).to_string()
    }
}
