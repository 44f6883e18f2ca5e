//! Uploads one adapter version: the files of a PEFT folder, in chunks. What is right and wrong with them is judged by
//! the server; only what cannot be sent at all is refused here.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use domain::Reason;
use proto::v1::{
    Adapter, AdapterVersion, CreateAdapterRequest, UploadAdapterVersionRequest, UploadChunk, UploadStart,
    upload_adapter_version_request::Message,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Admin;
use crate::failure::Failure;

const CHUNK_BYTES: usize = 256 << 10;
/// Chunks read ahead of the connection.
const CHUNKS_AHEAD: usize = 4;
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// Creates the adapter if it is not there, then uploads `dir` as a version of it and points `alias` (empty: none) at it.
/// `progress` is called with the bytes sent since the last call.
///
/// # Errors
/// Files that cannot be read, or the server's refusal with every violation.
pub async fn upload(
    admin: &Admin,
    dir: &Path,
    tenant: &str,
    name: &str,
    alias: &str,
    progress: impl Fn(u64) + Send + 'static,
) -> Result<AdapterVersion, Failure> {
    let files = [CONFIG, WEIGHTS].map(|file| (file, dir.join(file)));
    check(dir, &files)?;
    create(admin, tenant, name).await?;
    let parent = format!("tenants/{tenant}/adapters/{name}");
    let start = UploadStart { parent, alias: alias.to_owned() };
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let reading = tokio::task::spawn_blocking(move || send(start, &files, &sender, progress));
    let answer = admin.adapters().upload_adapter_version(ReceiverStream::new(receiver)).await;
    // The reader ends by itself once the call is over: its channel is closed then.
    let read = reading.await.map_err(|error| Failure::Failed(error.to_string()))?;
    // A file that broke while it was read explains the server's refusal, not the other way round.
    read?;
    Ok(answer?.into_inner())
}

/// Bytes that [`upload`] will send.
pub fn size(dir: &Path) -> u64 {
    [CONFIG, WEIGHTS].iter().filter_map(|file| dir.join(file).metadata().ok()).map(|metadata| metadata.len()).sum()
}

fn check(dir: &Path, files: &[(&'static str, PathBuf); 2]) -> Result<(), Failure> {
    let missing: Vec<_> = files.iter().filter(|(_, path)| !path.is_file()).map(|(file, _)| *file).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "{}: {} not found; a PEFT folder holds both {CONFIG} and {WEIGHTS} \
         (`banyan inspect` tells more; pickled weights are not taken, save with safe_serialization)",
        dir.display(),
        missing.join(" and ")
    )))
}

/// An adapter that is there already is as good.
async fn create(admin: &Admin, tenant: &str, name: &str) -> Result<(), Failure> {
    let request = CreateAdapterRequest {
        parent: format!("tenants/{tenant}"),
        adapter_id: name.to_owned(),
        adapter: Some(Adapter::default()),
    };
    match admin.adapters().create_adapter(request).await.map_err(Failure::from) {
        Ok(_) => Ok(()),
        Err(Failure::Refused { fault, .. }) if fault.reason == Reason::AlreadyExists => Ok(()),
        Err(failure) => Err(failure),
    }
}

fn send(
    start: UploadStart,
    files: &[(&'static str, PathBuf); 2],
    sender: &mpsc::Sender<UploadAdapterVersionRequest>,
    progress: impl Fn(u64),
) -> Result<(), Failure> {
    let put = |message| sender.blocking_send(UploadAdapterVersionRequest { message: Some(message) }).is_ok();
    if !put(Message::Start(start)) {
        return Ok(()); // The server answered already; its answer says why.
    }
    let mut buffer = vec![0; CHUNK_BYTES];
    for (name, path) in files {
        let fault = |error| Failure::Failed(format!("{}: {error}", path.display()));
        let mut file = File::open(path).map_err(fault)?;
        loop {
            let length = file.read(&mut buffer).map_err(fault)?;
            if length == 0 {
                break;
            }
            let chunk = UploadChunk { file: (*name).to_owned(), data: buffer[..length].to_vec() };
            if !put(Message::Chunk(chunk)) {
                return Ok(());
            }
            progress(length as u64);
        }
    }
    Ok(())
}
