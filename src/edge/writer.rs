//! The write half of a connection: all that is queued goes out in one vectored write.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{net::TcpStream, time::Instant};

use crate::config::EdgeConfig;

/// Frames in one system call. What is queued in all is bounded by the mailbox.
const MAX_SLICES: usize = 64;

/// Frames on their way to the socket.
#[derive(Debug, Default)]
pub(super) struct Writer {
    queue: VecDeque<Bytes>,
    /// Part of the first frame has been written.
    begun: bool,
    /// Present while the socket does not take what it is given.
    blocked: Option<Box<Blocked>>,
}

/// How a reader that is behind does.
#[derive(Debug)]
struct Blocked {
    /// It last took something.
    progress: Instant,
    /// The current window of the minimum drain rate.
    window: Instant,
    taken: u64,
}

/// Why a reader is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooSlow {
    /// It took nothing within the write timeout.
    Stalled,
    /// It took less than the minimum drain rate.
    Trickling,
}

impl Writer {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues frames behind what is there. `begun`: the first is the rest of one.
    pub(super) fn push(&mut self, frames: VecDeque<Bytes>, begun: bool) {
        if self.queue.is_empty() {
            self.queue = frames;
            self.begun = begun;
        } else {
            self.queue.extend(frames);
        }
    }

    /// Puts a frame behind the one in progress and ahead of the others.
    pub(super) fn push_first(&mut self, frame: Bytes) {
        let at = usize::from(self.begun).min(self.queue.len());
        self.queue.insert(at, frame);
    }

    /// Lets go of everything but the frame in progress.
    pub(super) fn discard(&mut self) {
        self.queue.truncate(usize::from(self.begun));
    }

    /// Writes until all is written or the socket takes no more; how many bytes it took.
    pub(super) fn write(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> io::Result<usize> {
        let mut written = 0;
        while !self.queue.is_empty() {
            if stream.poll_write_ready(cx)?.is_pending() {
                break;
            }
            let result = if self.queue.len() == 1 {
                stream.try_write(&self.queue[0])
            } else {
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let mut count = 0;
                for (slice, frame) in slices.iter_mut().zip(&self.queue) {
                    *slice = IoSlice::new(frame);
                    count += 1;
                }
                stream.try_write_vectored(&slices[..count])
            };
            match result {
                Ok(taken) => {
                    written += taken;
                    self.advance(taken);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        self.account(written);
        Ok(written)
    }

    fn advance(&mut self, mut taken: usize) {
        while taken > 0 {
            let Some(first) = self.queue.front_mut() else {
                return;
            };
            if taken < first.len() {
                first.advance(taken);
                self.begun = true;
                return;
            }
            taken -= first.len();
            self.queue.pop_front();
            self.begun = false;
        }
        if self.queue.is_empty() {
            // An idle connection keeps no buffer.
            self.queue = VecDeque::new();
        }
    }

    fn account(&mut self, written: usize) {
        if self.queue.is_empty() {
            self.blocked = None;
            return;
        }
        let now = Instant::now();
        let blocked = self.blocked.get_or_insert_with(|| {
            Box::new(Blocked {
                progress: now,
                window: now,
                taken: 0,
            })
        });
        if written > 0 {
            blocked.progress = now;
            blocked.taken += written as u64;
        }
    }

    /// When [`Writer::check`] must be called; `None` while the socket takes everything.
    pub(super) fn deadline(&self, config: &EdgeConfig) -> Option<Instant> {
        let blocked = self.blocked.as_ref()?;
        Some((blocked.progress + config.write_timeout).min(blocked.window + config.drain_window))
    }

    /// Whether the reader has to be given up.
    pub(super) fn check(&mut self, config: &EdgeConfig) -> Option<TooSlow> {
        let blocked = self.blocked.as_mut()?;
        let now = Instant::now();
        if now.duration_since(blocked.progress) >= config.write_timeout {
            return Some(TooSlow::Stalled);
        }
        let window = now.duration_since(blocked.window);
        if window >= config.drain_window {
            if (blocked.taken as f64) < config.min_drain_rate as f64 * seconds(window) {
                return Some(TooSlow::Trickling);
            }
            blocked.window = now;
            blocked.taken = 0;
        }
        None
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// Waits until the peer has closed its side, throwing away what it still says: unread input would
/// reset the connection, and the close frame with it.
pub(super) fn poll_drained(stream: &TcpStream, cx: &mut Context<'_>) -> Poll<()> {
    let mut scratch = [0; 4096];
    loop {
        match stream.poll_read_ready(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(())) => {}
        }
        match stream.try_read(&mut scratch) {
            Ok(0) => return Poll::Ready(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Poll::Ready(()),
        }
    }
}
