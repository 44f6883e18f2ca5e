//! The client side of the gRPC contract, as the verbs use it: where the server is, who we are, and connections that
//! carry the credentials. It knows no verb and prints nothing.

mod upload;

pub use upload::{size as upload_bytes, upload};

use std::time::Duration;

use proto::v1::{
    adapter_service_client::AdapterServiceClient, api_key_service_client::ApiKeyServiceClient,
    audit_service_client::AuditServiceClient, inference_service_client::InferenceServiceClient,
    ledger_service_client::LedgerServiceClient, limit_service_client::LimitServiceClient,
    plan_service_client::PlanServiceClient, price_service_client::PriceServiceClient,
    rollout_service_client::RolloutServiceClient, tenant_service_client::TenantServiceClient,
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{cli::ConnectionArgs, client_file::ClientFile, failure::Failure};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers may hold a long receipt.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

pub type Connection = InterceptedService<Channel, Credentials>;

/// The public door.
///
/// # Errors
/// No key, or nobody answers.
pub async fn inference(args: &ConnectionArgs) -> Result<InferenceServiceClient<Connection>, Failure> {
    let file = ClientFile::read(&args.data.data)?;
    let address = choose(&args.endpoint, &file.endpoint, "http://127.0.0.1:7070");
    let key = args.key.clone().or(file.key).ok_or_else(|| {
        Failure::NoCredentials(format!(
            "no API key: give --key or BANYAN_KEY, or run where `banyan up` keeps its data (looked in {})",
            ClientFile::path(&args.data.data).display()
        ))
    })?;
    inference_at(&address, &key).await
}

/// The public door at this address, with this key.
///
/// # Errors
/// Nobody answers.
pub async fn inference_at(address: &str, key: &str) -> Result<InferenceServiceClient<Connection>, Failure> {
    let connection = connect(address, key).await?;
    Ok(InferenceServiceClient::new(connection).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// The admin door; its services share one connection.
#[derive(Clone)]
pub struct Admin {
    connection: Connection,
}

impl Admin {
    /// # Errors
    /// No credentials, or nobody answers.
    pub async fn open(args: &ConnectionArgs) -> Result<Self, Failure> {
        let file = ClientFile::read(&args.data.data)?;
        let address = choose(&args.admin_endpoint, &file.admin_endpoint, "http://127.0.0.1:7071");
        // What was given now wins over what lies in the file, whichever kind it is.
        let given = args.operator_token.clone().or_else(|| args.key.clone());
        let token = given.or(file.operator_token).or(file.key).ok_or_else(|| {
            Failure::NoCredentials(
                "no credentials: give --operator-token (BANYAN_OPERATOR_TOKEN) or a tenant-admin --key (BANYAN_KEY)"
                    .to_owned(),
            )
        })?;
        Self::connect(&address, &token).await
    }

    /// # Errors
    /// Nobody answers, or the token cannot be a header.
    pub async fn connect(address: &str, token: &str) -> Result<Self, Failure> {
        Ok(Self { connection: connect(address, token).await? })
    }

    pub fn limits(&self) -> LimitServiceClient<Connection> {
        LimitServiceClient::new(self.connection.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn plans(&self) -> PlanServiceClient<Connection> {
        PlanServiceClient::new(self.connection.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn ledger(&self) -> LedgerServiceClient<Connection> {
        LedgerServiceClient::new(self.connection.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn prices(&self) -> PriceServiceClient<Connection> {
        PriceServiceClient::new(self.connection.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn tenants(&self) -> TenantServiceClient<Connection> {
        TenantServiceClient::new(self.connection.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn keys(&self) -> ApiKeyServiceClient<Connection> {
        ApiKeyServiceClient::new(self.connection.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn audit(&self) -> AuditServiceClient<Connection> {
        AuditServiceClient::new(self.connection.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn adapters(&self) -> AdapterServiceClient<Connection> {
        AdapterServiceClient::new(self.connection.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn rollouts(&self) -> RolloutServiceClient<Connection> {
        RolloutServiceClient::new(self.connection.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// Puts the credentials on every call.
#[derive(Clone)]
pub struct Credentials {
    bearer: MetadataValue<Ascii>,
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.bearer.clone());
        Ok(request)
    }
}

async fn connect(address: &str, token: &str) -> Result<Connection, Failure> {
    let bearer = chassis::bearer::value(token)
        .ok_or_else(|| Failure::Usage("the key or token has characters that no key has".to_owned()))?;
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    if !url.starts_with("http://") {
        return Err(Failure::Usage(format!("{url}: only http:// addresses; end TLS in front of the gateway")));
    }
    let endpoint = Endpoint::from_shared(url.clone())
        .map_err(|error| Failure::Usage(format!("{url}: {error}")))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    let channel =
        endpoint.connect().await.map_err(|error| Failure::Unreachable { address: url, cause: innermost(&error) })?;
    Ok(InterceptedService::new(channel, Credentials { bearer }))
}

fn choose(given: &Option<String>, file: &Option<String>, default: &str) -> String {
    given.as_ref().or(file.as_ref()).map_or_else(|| default.to_owned(), Clone::clone)
}

/// tonic says "transport error"; the cause that helps lies at the end of its chain.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
