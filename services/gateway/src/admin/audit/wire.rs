//! Entries of the audit trail as they go over the wire: what was hashed, and the same taken apart.

use domain::AuditLink;
use proto::v1;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::parse::wire_time;

pub fn wire_entry(link: &AuditLink) -> v1::AuditEntry {
    // What cannot be read was edited past the gateway; the entry is shown as it lies there all the same.
    let content: Value = serde_json::from_str(&link.content).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = |value: &Value| if value.is_null() { String::new() } else { value.to_string() };
    let actor = &content["actor"];
    let id = if actor["key"].is_null() { &actor["name"] } else { &actor["key"] };
    let time = OffsetDateTime::parse(content["time"].as_str().unwrap_or_default(), &Rfc3339).ok();
    v1::AuditEntry {
        position: i64::try_from(link.position).unwrap_or(i64::MAX),
        time: time.map(wire_time),
        actor: text(&actor["kind"]),
        actor_id: text(id),
        actor_role: text(&actor["role"]),
        method: text(&content["method"]),
        resource: text(&content["resource"]),
        action: text(&content["action"]),
        outcome: text(&content["outcome"]),
        reason: text(&content["reason"]),
        before: object(&content["before"]),
        after: object(&content["after"]),
        request_id: text(&content["request_id"]),
        content: link.content.clone(),
        previous_hash: link.previous_hash.to_string(),
        hash: link.hash.to_string(),
        chain: link.chain.id().to_string(),
        unrecorded: content["unrecorded"].as_u64().unwrap_or_default(),
    }
}
