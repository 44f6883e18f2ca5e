//! What would become of a request that is not made: its price, then what the limits say. Nothing is charged, and no worker
//! is asked.

use std::sync::Arc;

use domain::{ApiKeyId, Fault, KeyLimits, Limits, ModelName, Outage, Price, RequestId, TenantId};
use uuid::Uuid;

use crate::{
    config::{GatewayConfig, ms},
    limits::{Admission, Ask, Explained},
    prices::Prices,
};

/// Cheap to clone.
#[derive(Clone)]
pub struct Explainer {
    admission: Admission,
    prices: Prices,
    config: Arc<GatewayConfig>,
}

/// Whose limits.
pub struct Whose {
    pub tenant: TenantId,
    /// `None`: of a key without limits of its own.
    pub key: Option<(ApiKeyId, KeyLimits)>,
    pub limits: Limits,
    pub outage: Outage,
}

/// A request as far as limits look at it.
pub struct Hypothetical {
    /// `None`: one that costs nothing.
    pub model: Option<ModelName>,
    pub input_tokens: u32,
    /// `None`: the gateway's default.
    pub max_tokens: Option<u32>,
}

impl Explainer {
    pub const fn new(admission: Admission, prices: Prices, config: Arc<GatewayConfig>) -> Self {
        Self { admission, prices, config }
    }

    pub async fn explain(&self, whose: Whose, request: Hypothetical) -> Result<Explained, Fault> {
        let price = match &request.model {
            Some(model) => self.prices.of(whose.tenant, model).await?,
            None => Price::default(),
        };
        let (key, key_limits) = whose.key.unwrap_or((ApiKeyId::new(Uuid::nil()), KeyLimits::default()));
        let ask = Ask {
            // Known to nobody.
            id: RequestId::new(Uuid::now_v7()),
            tenant: whose.tenant,
            key,
            input_tokens: request.input_tokens,
            output_tokens: request.max_tokens.unwrap_or(self.config.generate.max_tokens_default),
            of_tenant: whose.limits.into(),
            of_key: key_limits.into(),
            price,
            lease: ms(self.config.limits.lease_ms),
            outage: whose.outage,
        };
        self.admission.explain(&ask).await
    }
}
