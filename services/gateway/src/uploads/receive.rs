//! The two files of an adapter out of a stream of chunks: bounded in size, order and memory while it comes in.

use std::{sync::Arc, time::Duration};

use adapters::{Code, Files, Limits, Refusal, files};
use domain::{Detail, Fault, Reason};
use futures::{Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const CHUNK_BYTES_MAX: usize = 1 << 20;
const KIB: usize = 1024;

pub struct Chunk {
    pub file: String,
    pub data: Vec<u8>,
}

pub struct Terms {
    /// What the files are held to.
    pub limits: Limits,
    /// Bytes that the tenant may store, and does.
    pub quota: u64,
    pub used: u64,
    /// Of all uploads together, in KiB.
    pub memory: Arc<Semaphore>,
}

/// Files that hold their share of the memory while they live.
pub struct Received {
    pub files: Files,
    /// To be held for as long as the files are.
    pub memory: Option<OwnedSemaphorePermit>,
}

/// One file, in blocks of up to [`CHUNK_BYTES_MAX`], so that it grows without being copied.
#[derive(Default)]
struct Blocks {
    blocks: Vec<Vec<u8>>,
    len: usize,
}

pub async fn receive(chunks: impl Stream<Item = Result<Chunk, Fault>> + Send, terms: Terms) -> Result<Received, Fault> {
    let mut chunks = std::pin::pin!(chunks);
    let mut files: Vec<(&'static str, Blocks)> = Vec::new();
    let mut memory: Option<OwnedSemaphorePermit> = None;
    while let Some(chunk) = chunks.next().await {
        let Chunk { file, data } = chunk?;
        if data.len() > CHUNK_BYTES_MAX {
            return Err(Fault::invalid("chunk.data", "must be at most 1 MiB"));
        }
        let name = known(&file)?;
        if files.last().is_none_or(|(current, _)| *current != name) {
            if files.iter().any(|(done, _)| *done == name) {
                return Err(Fault::invalid(
                    "chunk.file",
                    format!("`{name}` has ended already: files come one after another"),
                ));
            }
            files.push((name, Blocks::default()));
        }
        let held = take_memory(&terms.memory, data.len())?;
        match &mut memory {
            Some(memory) => memory.merge(held),
            None => memory = Some(held),
        }
        if let Some((_, blocks)) = files.last_mut() {
            blocks.append(data);
        }
        check_sizes(&files, &terms)?;
    }
    let entries = files.into_iter().map(|(name, blocks)| (name.to_owned(), blocks.join().into()));
    let files = Files::from_upload(entries, &terms.limits).map_err(|refusals| super::refused(&refusals))?;
    Ok(Received { files, memory })
}

impl Blocks {
    fn append(&mut self, data: Vec<u8>) {
        self.len += data.len();
        match self.blocks.last_mut() {
            Some(last) if last.len() + data.len() <= CHUNK_BYTES_MAX => last.extend_from_slice(&data),
            _ => self.blocks.push(data),
        }
    }

    /// Frees each block as it is copied, so that the file is not held twice.
    fn join(self) -> Vec<u8> {
        let mut whole = Vec::with_capacity(self.len);
        for block in self.blocks {
            whole.extend_from_slice(&block);
        }
        whole
    }
}

/// Whatever else is sent is refused as soon as its name is known, with what it looks like.
fn known(file: &str) -> Result<&'static str, Fault> {
    let names = [files::CONFIG, files::WEIGHTS];
    names.into_iter().find(|known| *known == file).ok_or_else(|| {
        let alone = Files::from_upload([(file.to_owned(), Vec::new().into())], &Limits::default());
        let mut refusals = alone.err().unwrap_or_default();
        refusals.retain(|refusal| !names.contains(&refusal.subject.as_str()));
        if refusals.is_empty() {
            let words = format!("is not a file that is taken: send {} and {}", files::CONFIG, files::WEIGHTS);
            refusals.push(Refusal::new(Code::Files, file, words));
        }
        super::refused(&refusals)
    })
}

fn take_memory(memory: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit, Fault> {
    let kib = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX);
    Arc::clone(memory).try_acquire_many_owned(kib).map_err(|_| {
        let words = "the uploads under way need all of the memory that there is for them";
        Fault::new(Reason::QueueFull, words).retry_after(Duration::from_secs(5))
    })
}

fn check_sizes(files: &[(&'static str, Blocks)], terms: &Terms) -> Result<(), Fault> {
    for (name, blocks) in files {
        let limits = &terms.limits;
        let most = if *name == files::CONFIG { limits.config_bytes_max as u64 } else { limits.weights_bytes_max };
        if blocks.len as u64 > most {
            return Err(super::refused(&[Refusal::new(Code::Quota, name, format!("must be at most {most} bytes"))]));
        }
    }
    let wanted: u64 = files.iter().map(|(_, blocks)| blocks.len as u64).sum();
    if terms.used.saturating_add(wanted) > terms.quota {
        let description = format!("bytes of adapter versions: {} of {} used, and more wanted", terms.used, terms.quota);
        return Err(Fault::new(Reason::QuotaExceeded, format!("the tenant's quota is used up: {description}"))
            .detail(Detail::Quota { subject: "bytes of adapter versions".to_owned(), description }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn terms() -> Terms {
        Terms {
            limits: Limits { config_bytes_max: 10, weights_bytes_max: 3 << 20, ..Limits::default() },
            quota: 4 << 20,
            used: 0,
            memory: Arc::new(Semaphore::new(8 << 10)),
        }
    }

    fn chunk(file: &str, data: &[u8]) -> Result<Chunk, Fault> {
        Ok(Chunk { file: file.to_owned(), data: data.to_vec() })
    }

    async fn refusal(chunks: Vec<Result<Chunk, Fault>>, terms: Terms) -> Fault {
        receive(stream::iter(chunks), terms).await.err().expect("refused")
    }

    #[tokio::test]
    async fn chunks_become_files_and_memory_comes_back() {
        let terms = terms();
        let memory = Arc::clone(&terms.memory);
        let before = memory.available_permits();
        let big = vec![7; 1 << 20];
        let chunks = vec![
            chunk(files::WEIGHTS, &big),
            chunk(files::WEIGHTS, &big),
            chunk(files::WEIGHTS, b"end"),
            chunk(files::CONFIG, b"{"),
            chunk(files::CONFIG, b"}"),
        ];
        let received = receive(stream::iter(chunks), terms).await.expect("taken");
        assert_eq!(received.files.config, "{}");
        assert_eq!(received.files.weights.len(), (2 << 20) + 3);
        assert!(received.files.weights.ends_with(b"end"));
        assert!(memory.available_permits() < before);
        drop(received);
        assert_eq!(memory.available_permits(), before);
    }

    #[tokio::test]
    async fn whatever_is_out_of_bounds_is_refused_as_it_comes() {
        let one = || chunk(files::CONFIG, b"{}");
        let back = vec![one(), chunk(files::WEIGHTS, b"a"), one()];
        assert_eq!(refusal(back, terms()).await.reason, Reason::InvalidRequest);
        let large = vec![chunk(files::WEIGHTS, &vec![0; (1 << 20) + 1])];
        assert_eq!(refusal(large, terms()).await.reason, Reason::InvalidRequest);
        for (chunks, code) in [
            (vec![chunk("adapter_model.bin", b"a")], "E_PICKLE"),
            (vec![chunk("../adapter_config.json", b"a")], "E_FILES"),
            (vec![one()], "E_FILES"),
            (vec![chunk(files::CONFIG, &[b' '; 11])], "E_QUOTA"),
        ] {
            let fault = refusal(chunks, terms()).await;
            assert_eq!(fault.reason, Reason::AdapterRefused);
            assert!(
                matches!(&fault.details[..], [Detail::Violation { reason, .. }, ..] if reason == code),
                "{fault:?}"
            );
        }
        let full = Terms { used: 4 << 20, ..terms() };
        assert_eq!(refusal(vec![one()], full).await.reason, Reason::QuotaExceeded);
        let crowded = Terms { memory: Arc::new(Semaphore::new(1)), ..terms() };
        let fault = refusal(vec![chunk(files::WEIGHTS, &[0; 2048])], crowded).await;
        assert!(fault.reason == Reason::QueueFull && fault.retry_hint().is_some());
    }

    #[test]
    fn many_refusals_still_fit_into_trailers() {
        let refusals: Vec<_> = (0..500).map(|n| Refusal::new(Code::Shape, format!("t{n}"), "x".repeat(60))).collect();
        let fault = super::super::refused(&refusals);
        assert!(fault.details.len() < 100);
        assert!(format!("{:?}", fault.details.last()).contains("further refusals"));
    }
}
