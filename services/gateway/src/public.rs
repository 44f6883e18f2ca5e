//! What stands on the public door: `banyan.v1.InferenceService` over gRPC and gRPC-Web, and the OpenAI-compatible routes.
//! One port for all of them: what they speak tells them apart.

use std::sync::Arc;

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, Method, header},
    response::Response,
};
use chassis::status::status_of;
use domain::{Fault, Reason};
use proto::v1::inference_service_server::InferenceServiceServer;
use tonic::service::Routes;
use tonic_web::GrpcWebLayer;
use tower_http::cors::{AllowHeaders, CorsLayer};

use crate::{
    config::GatewayConfig,
    guard::{Guard, REQUEST_ID},
    inference::Inference,
    openai::{self, OpenAi},
};

/// How long a browser may remember what it was allowed.
const PREFLIGHT_MAX_AGE: std::time::Duration = std::time::Duration::from_secs(3600);
/// Headers of answers that a page may read.
const EXPOSED: [&str; 5] = ["grpc-status", "grpc-message", "grpc-status-details-bin", REQUEST_ID, "retry-after-ms"];

pub fn routes(inference: Arc<Inference>, guard: &Guard, config: &Arc<GatewayConfig>) -> Routes {
    let service = InferenceServiceServer::from_arc(Arc::clone(&inference))
        .max_decoding_message_size(config.calls.message_bytes_max);
    let grpc = Routes::new(guard.before(service)).into_axum_router().layer(GrpcWebLayer::new());
    let openai = OpenAi::new(inference, Arc::clone(config)).routes(guard.clone());
    let all = grpc.merge(openai).fallback(nowhere);
    let origins: Vec<HeaderValue> =
        config.http.allowed_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    // Without the layer there is no word of CORS in any answer, and browsers let no other page read one.
    Routes::from(if origins.is_empty() { all } else { all.layer(cors(origins)) })
}

/// What no service and no route is named like.
async fn nowhere(request: Request) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    if kind.starts_with(b"application/grpc") {
        let fault = Fault::new(Reason::Unimplemented, "there is no such service");
        return status_of(&fault, "").into_http();
    }
    openai::unknown_route(request.method(), request.uri())
}

fn cors(origins: Vec<HeaderValue>) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(
            EXPOSED.map(HeaderName::from_static).into_iter().chain([header::RETRY_AFTER]).collect::<Vec<_>>(),
        )
        .max_age(PREFLIGHT_MAX_AGE)
}
