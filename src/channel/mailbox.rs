//! A connection's mailbox: what is to be written to its socket, in order.
//!
//! Tails and the session put frames in; the connection's task takes all of them in one go. Frames
//! are shared bytes with their transport header, so that one encoding serves every subscriber.

use std::{collections::VecDeque, fmt, io, sync::Arc, task::Waker};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::{
    model::{BackendOrder, ChannelName},
    protocol::DisconnectCode,
};

/// The two byte bounds of a mailbox.
#[derive(Clone, Copy, Debug)]
pub struct MailboxLimits {
    /// From here on durable subscriptions fall behind instead of queueing.
    pub soft: usize,
    /// Here the connection is closed as slow (3008): what is queued beyond `soft` cannot wait in
    /// the log (replies, ephemeral publications).
    pub hard: usize,
}

/// A socket, as far as a mailbox cares: it takes bytes at once, or says that it would block.
pub trait Wire: Send + Sync {
    /// Writes what the socket takes without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock`, or the socket's.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
}

/// How publications are handed to mailboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Into the queue: what comes until the connection's task runs goes out in one write. Cheaper
    /// by far while much is to be delivered.
    Queued,
    /// To the socket at once if nothing is queued: spares the wake-up of a task. Cheaper while
    /// publications are few and far between.
    Eager,
}

/// What became of an offer of frames that the log can give again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Queued.
    Taken,
    /// The mailbox is full: read it again when there is room.
    Full,
    /// The connection is closing: forget it.
    Closed,
}

/// Something a connection must know that is no frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Something is missing for a subscription: it has ended (2500; 3010 if server-side).
    Insufficient {
        /// Its channel.
        channel: ChannelName,
        /// The connection's own name for it.
        tag: u32,
    },
    /// A backend wants something done to the connection.
    Order(BackendOrder),
}

/// See the module's documentation.
pub struct Mailbox {
    wire: Option<Arc<dyn Wire>>,
    state: Mutex<State>,
    /// Feeders of subscriptions that are behind wait here for room.
    room: Notify,
    limits: MailboxLimits,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// What the writer has taken and not yet written.
    writing: usize,
    close: Option<DisconnectCode>,
    /// A backend wants it closed: the order is among the notices.
    ending: bool,
    /// At most one per subscription, and those of backends, whose number [`Mailbox::order`] bounds.
    notices: Vec<Notice>,
    /// Until the connect reply is known, nothing goes out.
    held: bool,
    /// Part of the first frame in the queue has been written.
    begun: bool,
    gone: bool,
    waker: Option<Waker>,
}

/// What the writer takes.
#[derive(Debug, Default)]
pub struct Taken {
    /// Frames in order.
    pub frames: VecDeque<Bytes>,
    /// The first frame is the rest of one that has been begun: nothing may go before it.
    pub begun: bool,
    /// What the connection must know, after the frames before it.
    pub notices: Vec<Notice>,
    /// Close after these, with this code.
    pub close: Option<DisconnectCode>,
}

impl Mailbox {
    /// An empty mailbox that holds everything back until [`Mailbox::open`].
    /// With a `wire` it can be eager.
    pub fn held(limits: MailboxLimits, wire: Option<Arc<dyn Wire>>) -> Self {
        let state = State {
            held: true,
            ..State::default()
        };
        Self {
            wire,
            state: Mutex::new(state),
            room: Notify::new(),
            limits,
        }
    }

    /// Queues a frame that nobody can give again. Over the hard limit the connection is closed.
    pub fn send(&self, frame: Bytes) {
        let mut state = self.state.lock();
        if state.gone || state.close.is_some() {
            return;
        }
        if state.bytes + state.writing + frame.len() > self.limits.hard {
            state.close = Some(DisconnectCode::Slow);
        } else {
            state.push(frame);
        }
        wake(state);
    }

    /// Queues a frame that a slow client may do without. False if it was not taken for want of room.
    pub fn spare(&self, frame: &Bytes) -> bool {
        self.offer(std::slice::from_ref(frame), frame.len(), Pace::Queued) != Offer::Full
    }

    /// Offers frames of a durable channel. All or none are taken; an empty mailbox takes any number.
    pub fn offer(&self, frames: &[Bytes], bytes: usize, pace: Pace) -> Offer {
        let mut state = self.state.lock();
        if state.gone || state.close.is_some() {
            return Offer::Closed;
        }
        let queued = state.bytes + state.writing;
        if queued > 0 && queued + bytes > self.limits.soft {
            return Offer::Full;
        }
        if pace == Pace::Eager && queued == 0 && !state.held && state.queue.is_empty() {
            return self.write_at_once(state, frames);
        }
        state.queue.extend(frames.iter().cloned());
        state.bytes += bytes;
        wake(state);
        Offer::Taken
    }

    /// The socket is written under the mailbox's lock: a write that does not wait takes microseconds,
    /// and nobody else may write meanwhile.
    fn write_at_once(&self, mut state: MutexGuard<'_, State>, frames: &[Bytes]) -> Offer {
        for (index, frame) in frames.iter().enumerate() {
            let written = self.wire.as_ref().map_or(Ok(0), |wire| wire.try_write(frame));
            // An error is the connection's to find.
            let written = written.unwrap_or(0);
            if written < frame.len() {
                state.begun = written > 0;
                state.push(frame.slice(written..));
                for rest in &frames[index + 1..] {
                    state.push(rest.clone());
                }
                wake(state);
                break;
            }
        }
        Offer::Taken
    }

    /// Lets frames go out, `first` ahead of what was queued meanwhile.
    pub fn open(&self, first: Bytes) {
        let mut state = self.state.lock();
        state.bytes += first.len();
        state.queue.push_front(first);
        state.held = false;
        wake(state);
    }

    /// Closes the connection after what is queued (at once for codes that say so).
    pub fn close(&self, code: DisconnectCode) {
        let mut state = self.state.lock();
        if state.close.is_none() {
            state.close = Some(code);
            state.held = false;
            wake(state);
        }
    }

    /// Tells the connection something.
    pub fn notify(&self, notice: Notice) {
        let mut state = self.state.lock();
        if !state.gone && state.close.is_none() {
            state.notices.push(notice);
            wake(state);
        }
    }

    /// Has the connection do what a backend wants. False if it is ending, or has `most` to do; that it is to
    /// end it is told in any case, once.
    pub fn order(&self, order: BackendOrder, most: usize) -> bool {
        let ends = matches!(order, BackendOrder::Disconnect { .. } | BackendOrder::Expire);
        let mut state = self.state.lock();
        let orders = state.notices.iter();
        let orders = orders.filter(|notice| matches!(notice, Notice::Order(_))).count();
        if state.closing() || (orders >= most && !ends) {
            return false;
        }
        state.ending |= ends;
        state.notices.push(Notice::Order(order));
        wake(state);
        true
    }

    /// Whether the connection has ended or is about to.
    pub fn closing(&self) -> bool {
        self.state.lock().closing()
    }

    /// The connection has ended: frees what is queued, lets nobody wait.
    pub fn end(&self) {
        let mut state = self.state.lock();
        state.gone = true;
        state.queue = VecDeque::new();
        state.bytes = 0;
        state.writing = 0;
        state.waker = None;
        drop(state);
        self.room.notify_waiters();
    }

    /// Takes everything that may go out now. If there is nothing, `waker` is woken when there is.
    pub fn take(&self, waker: &Waker) -> Taken {
        let mut state = self.state.lock();
        let nothing = state.queue.is_empty() && state.close.is_none() && state.notices.is_empty();
        if state.held || nothing {
            match &mut state.waker {
                Some(known) if known.will_wake(waker) => {}
                known => *known = Some(waker.clone()),
            }
            return Taken::default();
        }
        state.writing += state.bytes;
        state.bytes = 0;
        Taken {
            frames: std::mem::take(&mut state.queue),
            begun: std::mem::take(&mut state.begun),
            notices: std::mem::take(&mut state.notices),
            close: state.close,
        }
    }

    /// The connection is about to write a frame of its own: nothing may be written at once before
    /// that is done.
    pub fn writes(&self, bytes: usize) {
        self.state.lock().writing += bytes;
    }

    /// The socket took `bytes` of what was taken.
    pub fn written(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.writing = state.writing.saturating_sub(bytes);
        let room = state.bytes + state.writing <= self.limits.soft / 2;
        drop(state);
        if room {
            self.room.notify_waiters();
        }
    }

    /// Bytes queued and not yet written.
    pub fn queued(&self) -> usize {
        let state = self.state.lock();
        state.bytes + state.writing
    }

    /// How many bytes a feeder may offer now.
    pub fn space(&self) -> usize {
        self.limits.soft.saturating_sub(self.queued())
    }

    /// Waits until at least half of the mailbox is free and an offer of `bytes` would be taken, or
    /// the connection is closing.
    pub async fn room_for(&self, bytes: usize) {
        loop {
            let waiting = self.room.notified();
            tokio::pin!(waiting);
            waiting.as_mut().enable();
            {
                let state = self.state.lock();
                let queued = state.bytes + state.writing;
                let fits = queued == 0 || queued + bytes <= self.limits.soft;
                if state.gone || state.close.is_some() || (queued <= self.limits.soft / 2 && fits) {
                    return;
                }
            }
            waiting.await;
        }
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl State {
    fn closing(&self) -> bool {
        self.gone || self.close.is_some() || self.ending
    }

    fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.queue.push_back(frame);
    }
}

/// Wakes the writer, after the lock is released.
fn wake(mut state: MutexGuard<'_, State>) {
    if state.held {
        return;
    }
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MailboxLimits = MailboxLimits { soft: 100, hard: 200 };

    fn open() -> Mailbox {
        let mailbox = Mailbox::held(LIMITS, None);
        mailbox.open(Bytes::from_static(b"c"));
        assert_eq!(mailbox.take(Waker::noop()).frames, [Bytes::from_static(b"c")]);
        mailbox.written(1);
        mailbox
    }

    fn frame(len: usize) -> Bytes {
        Bytes::from(vec![b'x'; len])
    }

    #[test]
    fn nothing_goes_out_before_the_connect_reply() {
        let mailbox = Mailbox::held(LIMITS, None);
        mailbox.send(frame(3));
        assert!(mailbox.take(Waker::noop()).frames.is_empty());
        mailbox.open(Bytes::from_static(b"connected"));
        let taken = mailbox.take(Waker::noop()).frames;
        assert_eq!(taken, [Bytes::from_static(b"connected"), frame(3)]);
    }

    #[test]
    fn an_offer_beyond_the_soft_limit_is_full_but_an_empty_mailbox_takes_any() {
        let mailbox = open();
        assert_eq!(mailbox.offer(&[frame(150)], 150, Pace::Queued), Offer::Taken);
        assert_eq!(mailbox.offer(&[frame(1)], 1, Pace::Queued), Offer::Full);
        mailbox.take(Waker::noop());
        assert_eq!(
            mailbox.offer(&[frame(1)], 1, Pace::Queued),
            Offer::Full,
            "taken is not written"
        );
        mailbox.written(150);
        assert_eq!(mailbox.offer(&[frame(1)], 1, Pace::Queued), Offer::Taken);
    }

    #[test]
    fn what_cannot_wait_in_the_log_closes_at_the_hard_limit() {
        let mailbox = open();
        mailbox.send(frame(150));
        mailbox.send(frame(60));
        let taken = mailbox.take(Waker::noop());
        assert_eq!(taken.close, Some(DisconnectCode::Slow));
        assert_eq!(taken.frames, [frame(150)]);
    }

    /// Takes so many bytes.
    struct Socket(Mutex<(usize, Vec<u8>)>);

    impl Wire for Socket {
        fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
            let mut socket = self.0.lock();
            let taken = bytes.len().min(socket.0);
            if taken == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            socket.0 -= taken;
            socket.1.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
    }

    #[test]
    fn what_is_eager_goes_to_the_socket_and_never_overtakes() {
        let socket = Arc::new(Socket(Mutex::new((8, Vec::new()))));
        let mailbox = Mailbox::held(LIMITS, Some(socket.clone()));
        mailbox.open(Bytes::from_static(b"c"));
        let offer =
            |frame: &'static [u8]| mailbox.offer(&[Bytes::from_static(frame)], frame.len(), Pace::Eager);
        offer(b"1111");
        assert!(
            socket.0.lock().1.is_empty(),
            "the connect reply has not been written yet"
        );
        assert_eq!(mailbox.take(Waker::noop()).frames.len(), 2);
        mailbox.written(5);
        assert_eq!(offer(b"22222"), Offer::Taken);
        assert_eq!(offer(b"33333"), Offer::Taken);
        assert_eq!(socket.0.lock().1, b"22222333");
        offer(b"4");
        let taken = mailbox.take(Waker::noop());
        assert!(taken.begun);
        assert_eq!(taken.frames, [&b"33"[..], b"4"]);
    }

    #[tokio::test]
    async fn room_for_what_is_larger_than_half_is_told_when_it_is_taken() {
        let mailbox = open();
        mailbox.offer(&[frame(40)], 40, Pace::Queued);
        let waiting = mailbox.room_for(70);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        mailbox.take(Waker::noop());
        mailbox.written(10);
        assert!(futures_util::poll!(waiting.as_mut()).is_ready());
        assert_eq!(mailbox.offer(&[frame(70)], 70, Pace::Queued), Offer::Taken);
    }

    #[tokio::test]
    async fn room_is_told_when_half_is_free_or_the_connection_ends() {
        let mailbox = open();
        mailbox.offer(&[frame(90)], 90, Pace::Queued);
        let waiting = mailbox.room_for(0);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        mailbox.take(Waker::noop());
        mailbox.written(30);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        mailbox.written(20);
        assert!(futures_util::poll!(waiting.as_mut()).is_ready());
        mailbox.written(40);
        mailbox.offer(&[frame(90)], 90, Pace::Queued);
        let waiting = mailbox.room_for(0);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        mailbox.end();
        assert!(futures_util::poll!(waiting.as_mut()).is_ready());
    }

    #[test]
    fn orders_are_bounded_but_the_one_that_ends_the_connection_is_told_once() {
        let mailbox = open();
        let message = || BackendOrder::Message("1".into());
        let disconnect = || BackendOrder::Disconnect {
            code: 3503,
            reason: "bye".into(),
        };
        assert!(mailbox.order(message(), 1));
        assert!(!mailbox.order(message(), 1));
        assert!(!mailbox.closing());
        assert!(mailbox.order(disconnect(), 1));
        assert!(mailbox.closing());
        assert!(!mailbox.order(disconnect(), 1) && !mailbox.order(message(), 9));
        let notices = mailbox.take(Waker::noop()).notices;
        assert_eq!(notices, [message(), disconnect()].map(Notice::Order));
        assert!(mailbox.closing(), "until it has ended");
    }
}
