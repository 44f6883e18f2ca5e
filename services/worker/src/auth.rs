//! The cluster token: who may call a worker at all. Callers' own identity is the gateway's business.

use chassis::{bearer, config::Secret, status::status_of};
use domain::{Fault, Reason};
use subtle::ConstantTimeEq as _;
use tonic::{Request, Status, service::Interceptor};

use crate::call::request_id;

/// Refuses every call that does not carry the cluster token. Health and reflection are served without it.
#[derive(Clone)]
pub struct ClusterToken {
    expected: Secret,
}

impl ClusterToken {
    pub const fn new(expected: Secret) -> Self {
        Self { expected }
    }

    /// Takes the same time whatever the first wrong byte is. An empty expectation accepts nobody.
    fn accepts(&self, token: Option<&str>) -> bool {
        let expected = self.expected.reveal().as_bytes();
        !expected.is_empty() && token.is_some_and(|token| token.as_bytes().ct_eq(expected).into())
    }
}

impl Interceptor for ClusterToken {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if self.accepts(bearer::token(request.metadata().as_ref())) {
            return Ok(request);
        }
        let fault = Fault::new(Reason::Unauthenticated, "a worker takes calls with the cluster token only");
        Err(status_of(&fault, &request_id(request.metadata())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_is_accepted() {
        let token = ClusterToken::new(Secret::new("s3cret"));
        assert!(token.accepts(Some("s3cret")));
        for wrong in [None, Some(""), Some("s3cre"), Some("s3cret2"), Some("S3cret")] {
            assert!(!token.accepts(wrong), "{wrong:?}");
        }
        assert!(!ClusterToken::new(Secret::default()).accepts(Some("")));
    }
}
