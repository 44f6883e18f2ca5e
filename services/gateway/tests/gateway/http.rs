//! HTTP/1.1 against the public door, as any client would speak it.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, body::Bytes};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::platform::{Platform, within};

pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// `error.code` and `error.param`.
    pub fn refused(&self) -> (u16, String, String) {
        let error = &self.json()["error"];
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
        (self.status, text("code"), text("param"))
    }

    /// The data of server-sent events.
    pub fn events(&self) -> Vec<String> {
        let text = String::from_utf8(self.body.to_vec()).expect("UTF-8");
        let events = text.split_terminator("\n\n");
        events.map(|event| event.strip_prefix("data: ").expect("an event of data alone").to_owned()).collect()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

/// One request on a connection of its own.
pub async fn send(platform: &Platform, request: Request<Full<Bytes>>) -> Reply {
    within(async {
        let mut sender = connect(platform).await;
        let (parts, body) = sender.send_request(request).await.expect("an answer").into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    })
    .await
}

pub async fn connect(platform: &Platform) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(platform.gateway.inference_addr).await.expect("connects");
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("shakes hands");
    tokio::spawn(async move {
        let _ = tokio::time::timeout(Duration::from_secs(60), connection).await;
    });
    sender
}

pub fn post(path: &str, key: &str, body: &Value) -> Request<Full<Bytes>> {
    request("POST", path, &[("authorization", &format!("Bearer {key}"))], body.to_string())
}

pub fn get(path: &str, key: &str) -> Request<Full<Bytes>> {
    request("GET", path, &[("authorization", &format!("Bearer {key}"))], "")
}

pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "banyan");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).expect("a request")
}
