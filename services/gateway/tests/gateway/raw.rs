//! Calls of any RPC, with a message written as text, by what the descriptors say.

use domain::Fault;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

use crate::platform::{Platform, fault, within};

/// Every RPC of the public and admin services by its path.
pub fn methods() -> Vec<(String, MethodDescriptor)> {
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).expect("descriptors");
    let ours: Vec<_> = pool.services().filter(|service| service.package_name() == "banyan.v1").collect();
    let methods = ours.iter().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.map(|method| (format!("/{}/{}", method.parent_service().full_name(), method.name()), method)).collect()
}

/// Calls it with one message, in the text format of protobuf, and reads its answer to the end.
pub async fn call(
    platform: &Platform,
    (path, method): &(String, MethodDescriptor),
    token: Option<&str>,
    text: &str,
) -> Result<(), Fault> {
    let message = DynamicMessage::parse_text_format(method.input(), text);
    let message = message.unwrap_or_else(|error| panic!("{path}: {text}: {error}")).encode_to_vec();
    let public = path.contains("InferenceService");
    let address = if public { platform.gateway.inference_addr } else { platform.gateway.admin_addr };
    let mut client: Grpc<Channel> = Grpc::new(platform.channel(address));
    client.ready().await.expect("connects");
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", chassis::bearer::value(token).expect("a header"));
    }
    let path: PathAndQuery = path.parse().expect("a path");
    // On the wire all kinds of calls are alike, when there is one message to send.
    let answered = within(client.server_streaming(request, path, Bytes)).await;
    let mut answers = answered.map_err(|status| fault(&status))?.into_inner();
    while within(answers.message()).await.map_err(|status| fault(&status))?.is_some() {}
    Ok(())
}

/// Messages as they lie on the wire.
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = bytes::Buf::remaining(buffer);
        Ok(Some(bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }
}
