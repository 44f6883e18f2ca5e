//! Gathers what one connection flushes for many streams into few writes.
//!
//! HTTP/2 flushes as soon as one stream has a frame ready, and with answers that are all made in the same step of the
//! engine that is a system call for each token. So a flush first lets the tasks run that are ready already, and then writes
//! what they have added too. No timer: with nothing else to run it is written at once.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// More than this is written without waiting for more. HTTP/2 frames have at most as much payload by default.
const GATHERED_MAX: usize = 16 << 10;
/// Flushes at once after one that gathered nothing: a connection with one stream is not made to wait for nobody.
const DIRECT_FLUSHES: u32 = 15;

pub struct Gather<S> {
    stream: S,
    waiting: Vec<u8>,
    /// How much of `waiting` is written.
    written: usize,
    /// Length of `waiting` when the flush that is under way began.
    begun: Option<usize>,
    /// Flushes that are still to go out at once.
    direct: u32,
}

impl<S> Gather<S> {
    pub const fn new(stream: S) -> Self {
        Self { stream, waiting: Vec::new(), written: 0, begun: None, direct: 0 }
    }

    pub const fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    fn write_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.waiting.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        self.waiting.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.waiting.len() + data.len() > GATHERED_MAX {
            ready!(self.write_waiting(cx))?;
            if data.len() > GATHERED_MAX {
                return Pin::new(&mut self.stream).poll_write(cx, data);
            }
        }
        self.waiting.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.begun {
            None if !self.waiting.is_empty() && self.direct == 0 => {
                self.begun = Some(self.waiting.len());
                // To the end of the queue of tasks that are ready.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => self.direct = self.direct.saturating_sub(u32::from(!self.waiting.is_empty() && self.written == 0)),
            Some(begun) if self.written == 0 && self.waiting.len() <= begun => self.direct = DIRECT_FLUSHES,
            Some(_) => {}
        }
        ready!(self.write_waiting(cx))?;
        self.begun = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_waiting(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// Takes a few bytes at a time and remembers how many came in each write.
    #[derive(Default)]
    struct Sink {
        writes: Vec<usize>,
        at_once: usize,
    }

    impl AsyncWrite for Sink {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            let taken = data.len().min(self.at_once);
            self.writes.push(taken);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write(gather: &mut Gather<Sink>, bytes: usize) {
        let written = Pin::new(gather).poll_write(&mut Context::from_waker(Waker::noop()), &vec![0; bytes]);
        assert!(matches!(written, Poll::Ready(Ok(count)) if count == bytes));
    }

    fn flush(gather: &mut Gather<Sink>) -> bool {
        Pin::new(gather).poll_flush(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn what_is_added_while_a_flush_lets_others_run_goes_out_with_it() {
        let mut gather = Gather::new(Sink { at_once: 1 << 20, ..Sink::default() });
        write(&mut gather, 10);
        assert!(!flush(&mut gather), "others first");
        write(&mut gather, 20);
        assert!(flush(&mut gather));
        assert_eq!(gather.get_ref().writes, [30]);
    }

    #[test]
    fn after_a_flush_that_gathered_nothing_the_next_ones_do_not_wait() {
        let mut gather = Gather::new(Sink { at_once: 1 << 20, ..Sink::default() });
        write(&mut gather, 10);
        assert!(!flush(&mut gather) && flush(&mut gather));
        for _ in 0..DIRECT_FLUSHES {
            write(&mut gather, 10);
            assert!(flush(&mut gather), "at once");
        }
        write(&mut gather, 10);
        assert!(!flush(&mut gather), "tried again");
        assert_eq!(gather.get_ref().writes, [10; 1 + DIRECT_FLUSHES as usize]);
    }

    #[test]
    fn what_does_not_fit_is_written_first() {
        let mut gather = Gather::new(Sink { at_once: 10_000, ..Sink::default() });
        write(&mut gather, GATHERED_MAX);
        write(&mut gather, 1);
        assert_eq!(gather.get_ref().writes, [10_000, GATHERED_MAX - 10_000]);
    }

    #[tokio::test]
    async fn bytes_come_out_as_they_went_in() {
        let (near, mut far) = duplex(7);
        let sent: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let sending = tokio::spawn(async move {
            let mut gather = Gather::new(near);
            for part in sent.chunks(333).chain([&[][..]]) {
                gather.write_all(part).await.expect("written");
                if part.len() % 2 == 1 {
                    gather.flush().await.expect("flushed");
                }
            }
            gather.shutdown().await.expect("shut down");
        });
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.expect("read");
        sending.await.expect("sent");
        assert_eq!(received, expected);
    }
}
