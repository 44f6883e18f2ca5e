//! Our words and rules: ids, names, callers, validated sampling, limits and the closed list of reasons why something
//! is refused. No IO, no clock, no wire types.
//!
//! # Glossary
//!
//! | word | meaning |
//! | --- | --- |
//! | tenant | a customer; owns adapters, keys and limits; nothing is shared between two of them |
//! | API key | what a caller shows; `bn_<public>_<secret><checksum>`; belongs to one tenant |
//! | adapter | a named LoRA model of a tenant; has versions and aliases |
//! | version | immutable content of an adapter, named by its digest |
//! | alias | a movable name of a version; `live` is the one that a bare model name means |
//! | canary | a version that answers a share of an alias's requests in place of the stable one |
//! | shadow | a version that answers a share of an alias's requests besides; its answers are compared, never returned |
//! | pin | a caller's tie to one version of an alias until a time, wherever the alias points |
//! | base model | the one checkpoint that every adapter of a worker sits on |
//! | sequence | one prompt and the answer that grows behind it |
//! | prefill, decode | computing the prompt, computing one token after another |
//! | KV block | a page of the key/value cache, 16 tokens |
//! | lease | the right to use something that may otherwise be evicted or expire |
//! | plan | named terms that tenants share: limits, part in the workers, what holds in an outage |
//! | budget | money that a tenant or a key may use in a day or a month of UTC, in millionths of the currency |
//! | reservation | admission, slot, rate-limit charge and budget of one request as one object with a deadline |
//! | receipt | what made an answer (digests, worker, tokens), or what a version was loaded as |

mod api_key;
mod audit;
mod caller;
mod client_request_id;
mod digest;
mod fault;
mod id;
mod limits;
mod model_name;
mod plan;
mod price;
mod resource;
mod response_format;
mod rollout;
mod sampling;
mod slug;
mod version_state;

pub use api_key::{ApiKeyText, ApiKeyTextError};
pub use audit::{AuditChain, AuditLink, Broken, BrokenChain, ChainCheck, ChainHead};
pub use caller::{Caller, Role};
pub use client_request_id::{ClientRequestId, ClientRequestIdError};
pub use digest::{Digest, DigestError};
pub use fault::{Detail, Fault, Reason};
pub use id::{ApiKeyId, RequestId, TenantId};
pub use limits::{BUDGET_MAX, KeyLimits, Limits, TenantLimits};
pub use model_name::{ModelName, ModelNameError, VersionSelector};
pub use plan::{Outage, OutageError, Share};
pub use price::Price;
pub use resource::{
    AdapterName, AliasName, ApiKeyName, PinName, PlanName, ResourceNameError, ScheduleName, TenantName, VersionName,
};
pub use response_format::ResponseFormat;
pub use rollout::{AliasChange, BasisPoints, BasisPointsError, Part, RolloutError, Targets};
pub use sampling::{Sampling, SamplingFault};
pub use slug::{Slug, SlugError};
pub use version_state::{VersionState, VersionStateError};
