//! The write half of a connection: all that is queued goes out in one vectored write.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{net::TcpStream, time::Instant};

use super::send_queue::SendQueue;
use crate::config::EdgeConfig;

/// Frames in one system call. What is queued in all is bounded by the mailbox.
const MAX_SLICES: usize = 64;

/// How often within the write timeout a reader that is behind is looked at.
const LOOKS: u32 = 4;

/// Frames on their way to the socket.
#[derive(Debug, Default)]
pub(super) struct Writer {
    queue: VecDeque<Bytes>,
    /// Part of the first frame has been written.
    begun: bool,
    /// Present while the socket does not take what it is given.
    blocked: Option<Box<Blocked>>,
    /// Bytes that the socket has taken from here.
    written: u64,
    /// At the last look: how far the reader was, and whether something was still on its way to it.
    acknowledged: u64,
    behind: bool,
}

/// How a reader that is behind does.
#[derive(Debug)]
struct Blocked {
    /// It was last seen to have taken something.
    progress: Instant,
    /// The last look.
    looked: Instant,
    /// The current window of the minimum drain rate, and how far the reader was when it began.
    window: Option<(Instant, u64)>,
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
        self.written += written as u64;
        self.account();
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

    fn account(&mut self) {
        if self.queue.is_empty() {
            self.blocked = None;
        } else if self.blocked.is_none() {
            let now = Instant::now();
            self.blocked = Some(Box::new(Blocked {
                progress: now,
                looked: now,
                window: None,
            }));
        }
    }

    /// Looks how far the reader is. True if it is alive though its pong may not come yet: it was
    /// behind at the last look, and has taken something since.
    ///
    /// What the socket takes says little: the kernel takes much at once, and then nothing until the
    /// reader has worked through a good part of it.
    pub(super) fn look(&mut self, stream: &TcpStream) -> bool {
        let queue = SendQueue::of(stream).unwrap_or(SendQueue {
            // Where the kernel does not tell, what it takes must do.
            acknowledged: self.written,
            waiting: 0,
        });
        self.looked(queue, Instant::now())
    }

    fn looked(&mut self, queue: SendQueue, now: Instant) -> bool {
        let progress = self.behind && queue.acknowledged > self.acknowledged;
        self.behind = queue.waiting > 0 || !self.queue.is_empty();
        self.acknowledged = queue.acknowledged;
        if let Some(blocked) = &mut self.blocked {
            blocked.looked = now;
            blocked.window.get_or_insert((now, queue.acknowledged));
            if progress {
                blocked.progress = now;
            }
        }
        progress
    }

    /// When [`Writer::look`] and [`Writer::check`] must be called; `None` while the socket takes
    /// everything.
    pub(super) fn deadline(&self, config: &EdgeConfig) -> Option<Instant> {
        let blocked = self.blocked.as_ref()?;
        let look = blocked.looked + config.write_timeout / LOOKS;
        let stalled = blocked.progress + config.write_timeout;
        let window = blocked.window.map(|(began, _)| began + config.drain_window);
        Some(look.min(stalled).min(window.unwrap_or(look)))
    }

    /// Whether the reader has to be given up, by the last look.
    pub(super) fn check(&mut self, config: &EdgeConfig) -> Option<TooSlow> {
        let blocked = self.blocked.as_mut()?;
        let now = blocked.looked;
        if now.duration_since(blocked.progress) >= config.write_timeout {
            return Some(TooSlow::Stalled);
        }
        let (began, from) = blocked.window?;
        let window = now.duration_since(began);
        if window >= config.drain_window {
            let taken = self.acknowledged.saturating_sub(from);
            if (taken as f64) < config.min_drain_rate as f64 * seconds(window) {
                return Some(TooSlow::Trickling);
            }
            blocked.window = Some((now, self.acknowledged));
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
