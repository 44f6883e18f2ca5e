//! The OpenAI-compatible edge: chat completions, completions and models, as OpenAI's clients speak them
//! (<https://platform.openai.com/docs/api-reference>). It writes and reads the messages of [`crate::inference`] in
//! another way and decides nothing: requests become `v1::GenerateRequest` and go the way of every other.

mod body;
mod chat;
mod completion;
mod error;
mod fields;
mod limits;
mod models;
mod request;
mod shape;
mod stream;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{MatchedPath, Path, Request, State},
    http::HeaderValue,
    middleware::{self, Next},
    response::Response,
    routing::{MethodFilter, MethodRouter, on},
};
use domain::{Fault, RequestId};

use crate::{
    access::{self, HTTP_ROUTES, HttpCall, HttpMethod},
    config::GatewayConfig,
    edge,
    guard::{Guard, Session},
    inference::Inference,
    repeats::Answering,
};
pub use error::unknown_route;
use request::Asked;
use shape::{Api, Head};

/// Cheap to clone.
#[derive(Clone)]
pub struct OpenAi {
    inference: Arc<Inference>,
    config: Arc<GatewayConfig>,
}

impl OpenAi {
    pub const fn new(inference: Arc<Inference>, config: Arc<GatewayConfig>) -> Self {
        Self { inference, config }
    }

    /// Every route of [`HTTP_ROUTES`], behind the guard.
    pub fn routes(self, guard: Guard) -> Router {
        let routes = HTTP_ROUTES.iter().fold(Router::new(), |router, route| {
            let method = match route.method {
                HttpMethod::Get => MethodFilter::GET,
                HttpMethod::Post => MethodFilter::POST,
            };
            router.route(route.path, handler(route.call, method))
        });
        routes.with_state(self).route_layer(middleware::from_fn_with_state(guard, guarded))
    }

    async fn generate(&self, api: Api, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        answer(&parts.extensions, async |session: Session| {
            let object = body::read(body, &self.config).await?;
            let Asked { mut request, options } = match api {
                Api::Chat => chat::parse(object)?,
                Api::Completion => completion::parse(object)?,
            };
            request.client_request_id = request::idempotency_key(&parts.headers)?;
            let model = request.model.clone();
            let begun = self.inference.begin(session.clone(), request).await;
            let Answering { id, seed, repeated, steps } = begun.map_err(|fault| request::in_words_of(api, fault))?;
            let left = self.inference.limits_left(&session).await?;
            let head = Head::new(api, id, model, seed);
            let mut response = match options.stream {
                true => stream::respond(head, options, steps),
                false => stream::collect(head, steps).await?,
            };
            limits::tell(response.headers_mut(), &left);
            if repeated {
                response.headers_mut().insert(request::REPLAYED, HeaderValue::from_static("true"));
            }
            Ok(response)
        })
        .await
    }
}

fn handler(call: HttpCall, method: MethodFilter) -> MethodRouter<OpenAi> {
    match call {
        HttpCall::ChatCompletion => on(method, chat_completions),
        HttpCall::Completion => on(method, completions),
        HttpCall::ListModels => on(method, list_models),
        HttpCall::GetModel => on(method, get_model),
    }
}

/// Lets in whom the RPC behind the route would let in.
async fn guarded(State(guard): State<Guard>, path: MatchedPath, request: Request, next: Next) -> Response {
    let Some(rpc) = access::rpc_of(request.method().as_str(), path.as_str()) else {
        return error::wrong_method(request.method(), request.uri());
    };
    let refuse = |fault: &Fault, id: RequestId| error::respond(fault, Some(id));
    guard.pass(rpc, request, refuse, |request| next.run(request)).await
}

async fn chat_completions(State(edge): State<OpenAi>, request: Request) -> Response {
    edge.generate(Api::Chat, request).await
}

async fn completions(State(edge): State<OpenAi>, request: Request) -> Response {
    edge.generate(Api::Completion, request).await
}

async fn list_models(State(edge): State<OpenAi>, request: Request) -> Response {
    answer(request.extensions(), async |session: Session| models::list(&edge.inference, &session).await).await
}

async fn get_model(State(edge): State<OpenAi>, Path(name): Path<String>, request: Request) -> Response {
    answer(request.extensions(), async |session: Session| {
        let model = edge.inference.model(&session, &name).await?;
        Ok(shape::json(&models::wire(model)))
    })
    .await
}

async fn answer(
    extensions: &axum::http::Extensions,
    act: impl AsyncFnOnce(Session) -> Result<Response<Body>, Fault>,
) -> Response<Body> {
    let Some(session) = extensions.get::<Session>().cloned() else {
        tracing::error!("a route is not behind the guard");
        return error::respond(&Fault::internal(), None);
    };
    let id = session.id;
    act(session).await.unwrap_or_else(|fault| {
        edge::log_refusal(&fault);
        error::respond(&fault, Some(id))
    })
}
