//! What is waiting on a link: subscriptions for their copies, requests for their answers, and what
//! has yet to be written. It outlives the connections: a new one begins with all subscriptions.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt,
    mem::{swap, take},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use async_nats::HeaderMap;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    task::yield_now,
};

use super::wire::{self, Raw};
use crate::log::Route;

/// The subscription to the answers of requests.
const ANSWERS: u64 = 1;

/// A buffer that has grown beyond this is not kept for the next write.
const KEEP_BYTES: usize = 256 * 1024;

/// Takes the answers to publications, by number. Called by the reader, so it must be quick.
pub(in super::super) type OnAnswer = Box<dyn Fn(u64, &Raw) + Send + Sync>;

/// See the module's documentation.
pub(super) struct Board {
    state: Mutex<State>,
    /// Wakes the writer.
    written: Notify,
    /// Wakes those who wait for room.
    room: Notify,
    limits: Limits,
    subjects: Subjects,
    /// Who takes the answers if not those who have asked.
    on_answer: Option<OnAnswer>,
}

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum NotSent {
    /// There is no connection.
    Disconnected,
    /// The connection takes no more now.
    Full,
    /// It is larger than the bytes that the server takes.
    TooLarge(usize),
}

/// The bounds of a board.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Copies that wait for one subscription.
    pub(super) copies: usize,
    /// Commands that wait to be written.
    pub(super) commands: usize,
}

/// What stands before a channel's address, and before a request's number.
#[derive(Debug)]
pub(super) struct Subjects {
    pub(super) live: String,
    pub(super) ephemeral: String,
    /// With its dot.
    pub(super) inbox: String,
}

#[derive(Debug)]
struct State {
    connected: bool,
    /// The most bytes that the server takes in a message.
    max_payload: usize,
    out: Vec<u8>,
    /// Commands in `out`.
    commands: usize,
    inlets: HashMap<u64, Arc<Inlet>>,
    next: u64,
    /// As many as there are callers: their number is bounded there.
    requests: HashMap<u64, Asked>,
    next_request: u64,
    /// Who waits for the next PONGs, in order.
    pongs: VecDeque<Option<oneshot::Sender<()>>>,
    /// PINGs since the server was last heard.
    silent: u32,
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Asked {
    messages: Vec<Raw>,
    shape: Shape,
    done: oneshot::Sender<Vec<Raw>>,
}

/// What the answer to a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One message.
    One,
    /// Messages, at most so many, and one with a status behind them. If more come, the answer is
    /// given up.
    Many(usize),
}

/// Where the copies of one subscription wait. There is one for each tail of the node, so it is
/// small, and keeps no memory while nothing waits.
#[derive(Debug)]
struct Inlet {
    sid: u64,
    route: Route,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Raw>,
    waker: Option<Waker>,
    /// Copies have been dropped since it was last empty.
    overflowed: bool,
}

/// A subscription. Dropping it ends it.
#[derive(Debug)]
pub(in super::super) struct Inflow {
    board: Arc<Board>,
    inlet: Arc<Inlet>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// It waits for its reader, or nobody wants it.
    Well,
    /// Its subscription's buffer is full, for the first time since it was empty: it was dropped.
    Overflow,
}

impl Board {
    pub(super) fn new(limits: Limits, subjects: Subjects, on_answer: Option<OnAnswer>) -> Arc<Self> {
        let state = State {
            connected: false,
            max_payload: 0,
            out: Vec::new(),
            commands: 0,
            inlets: HashMap::new(),
            next: ANSWERS + 1,
            requests: HashMap::new(),
            next_request: 0,
            pongs: VecDeque::new(),
            silent: 0,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            written: Notify::new(),
            room: Notify::new(),
            limits,
            subjects,
            on_answer,
        })
    }

    // === for the callers ===

    /// Subscribes to a channel's copies: on the wire before everything that is asked from now on.
    pub(super) async fn subscribe(self: &Arc<Self>, route: &Route) -> Inflow {
        let inlet = self
            .with_room(|state| {
                let inlet = Arc::new(Inlet {
                    sid: state.next,
                    route: route.clone(),
                    queue: Mutex::default(),
                });
                state.next += 1;
                state.inlets.insert(inlet.sid, inlet.clone());
                if state.connected {
                    let subject = self.subjects.of(route);
                    state.say(|out| wire::subscribe(out, &subject, inlet.sid));
                }
                inlet
            })
            .await;
        Inflow {
            board: self.clone(),
            inlet,
        }
    }

    /// Asks `subject`. Without a connection nothing is sent, and no answer comes. Whoever gives up
    /// must [`Board::forget`] the number.
    pub(super) async fn request(
        &self,
        subject: &str,
        payload: &[u8],
        shape: Shape,
    ) -> (u64, oneshot::Receiver<Vec<Raw>>) {
        let (done, receiver) = oneshot::channel();
        let number = self
            .with_room(|state| {
                let number = state.next_request;
                state.next_request += 1;
                let asked = Asked {
                    messages: Vec::new(),
                    shape,
                    done,
                };
                state.requests.insert(number, asked);
                if state.connected {
                    let reply = format!("{}{number}", self.subjects.inbox);
                    state.say(|out| wire::request(out, subject, &reply, payload));
                }
                number
            })
            .await;
        (number, receiver)
    }

    /// Sends a message, whose answer has this number. Never waits: it has its place among the others
    /// when this returns.
    pub(super) fn publish(
        &self,
        subject: &str,
        answer: Option<u64>,
        headers: &HeaderMap,
        payload: &[u8],
    ) -> Result<(), NotSent> {
        let reply = answer.map_or_else(String::new, |number| format!("{}{number}", self.subjects.inbox));
        let mut state = self.state.lock();
        if !state.connected {
            return Err(NotSent::Disconnected);
        }
        if wire::header_bytes(headers) + payload.len() > state.max_payload {
            return Err(NotSent::TooLarge(state.max_payload));
        }
        if state.commands >= self.limits.commands {
            return Err(NotSent::Full);
        }
        state.say(|out| wire::publish(out, subject, &reply, headers, payload));
        drop(state);
        self.written.notify_one();
        Ok(())
    }

    /// How many messages of an answer have come so far.
    pub(super) fn received(&self, number: u64) -> usize {
        let state = self.state.lock();
        state
            .requests
            .get(&number)
            .map_or(0, |asked| asked.messages.len())
    }

    /// Nobody waits for this answer any more.
    pub(super) fn forget(&self, number: u64) {
        self.state.lock().requests.remove(&number);
    }

    /// Resolves with `Ok` when the server has handled all that was said before.
    pub(super) async fn round_trip(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.with_room(|state| {
            if state.connected {
                state.ping(Some(sender));
            }
        })
        .await;
        receiver
    }

    pub(super) fn is_connected(&self) -> bool {
        self.state.lock().connected
    }

    /// Runs `act` once there is room for a command, and wakes the writer.
    async fn with_room<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        loop {
            let room = self.room.notified();
            {
                let mut state = self.state.lock();
                if state.commands < self.limits.commands {
                    let done = act(&mut state);
                    drop(state);
                    self.written.notify_one();
                    return done;
                }
            }
            room.await;
        }
    }

    // === for the connection ===

    /// There is a connection: it begins with all subscriptions.
    pub(super) fn connected(&self, max_payload: usize) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.connected = true;
        state.max_payload = max_payload;
        wire::subscribe(&mut state.out, &format!("{}*", self.subjects.inbox), ANSWERS);
        for inlet in state.inlets.values() {
            wire::subscribe(&mut state.out, &self.subjects.of(&inlet.route), inlet.sid);
        }
    }

    /// There is none any more. What was not written is forgotten, and who waits for an answer learns it.
    pub(super) fn disconnected(&self) {
        let mut state = self.state.lock();
        state.connected = false;
        state.out = Vec::new();
        state.commands = 0;
        state.silent = 0;
        state.pongs.clear();
        state.requests.clear();
        drop(state);
        self.room.notify_waiters();
    }

    /// Fills `out` with what is to be written, once there is something.
    pub(super) async fn to_write(&self, out: &mut Vec<u8>) {
        if out.capacity() > KEEP_BYTES {
            take(out);
        }
        out.clear();
        while self.state.lock().out.is_empty() {
            self.written.notified().await;
            // Who is woken runs next: those who are about to say something, too, do so first, and
            // all of it goes out in one write.
            yield_now().await;
        }
        let mut state = self.state.lock();
        state.commands = 0;
        swap(&mut state.out, out);
        drop(state);
        self.room.notify_waiters();
    }

    /// Asks the server for a sign of life; how often that was done since it was last heard.
    pub(super) fn ping(&self) -> u32 {
        let mut state = self.state.lock();
        state.silent += 1;
        state.ping(None);
        let silent = state.silent;
        drop(state);
        self.written.notify_one();
        silent
    }

    /// The server has said something.
    pub(super) fn heard(&self) {
        self.state.lock().silent = 0;
    }

    /// It wants a sign of life.
    pub(super) fn on_ping(&self) {
        self.state.lock().say(|out| out.extend_from_slice(b"PONG\r\n"));
        self.written.notify_one();
    }

    /// It has handled all that was said before one PING.
    pub(super) fn on_pong(&self) {
        let waiter = self.state.lock().pongs.pop_front();
        if let Some(Some(waiter)) = waiter {
            // Nobody waits any more if this fails.
            let _ = waiter.send(());
        }
    }

    /// Hands a message to who waits for it.
    pub(super) fn on_message(&self, sid: u64, number: Option<u64>, raw: Raw) -> Posted {
        if sid == ANSWERS
            && let Some(on_answer) = &self.on_answer
        {
            if let Some(number) = number {
                on_answer(number, &raw);
            }
            return Posted::Well;
        }
        let mut state = self.state.lock();
        if sid == ANSWERS {
            if let Some(number) = number {
                state.on_answer(number, raw);
            }
            return Posted::Well;
        }
        let inlet = state.inlets.get(&sid).cloned();
        drop(state);
        inlet.map_or(Posted::Well, |inlet| inlet.push(raw, self.limits.copies))
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}

impl State {
    fn say(&mut self, command: impl FnOnce(&mut Vec<u8>)) {
        command(&mut self.out);
        self.commands += 1;
    }

    fn on_answer(&mut self, number: u64, raw: Raw) {
        let Entry::Occupied(mut entry) = self.requests.entry(number) else {
            // It came too late.
            return;
        };
        let asked = entry.get_mut();
        let (last, room) = match asked.shape {
            Shape::One => (true, true),
            Shape::Many(most) => (raw.status().is_some(), asked.messages.len() <= most),
        };
        asked.messages.push(raw);
        if last || !room {
            let asked = entry.remove();
            if room {
                // Nobody waits any more if this fails.
                let _ = asked.done.send(asked.messages);
            }
        }
    }

    fn ping(&mut self, waiter: Option<oneshot::Sender<()>>) {
        self.say(|out| out.extend_from_slice(b"PING\r\n"));
        self.pongs.push_back(waiter);
    }
}

impl Subjects {
    fn of(&self, route: &Route) -> String {
        let root = if route.shard().is_some() {
            &self.live
        } else {
            &self.ephemeral
        };
        super::join(root, route.address())
    }
}

impl Inlet {
    fn push(&self, raw: Raw, limit: usize) -> Posted {
        let mut queue = self.queue.lock();
        if queue.waiting.len() >= limit {
            let first = !queue.overflowed;
            queue.overflowed = true;
            return if first { Posted::Overflow } else { Posted::Well };
        }
        queue.waiting.push_back(raw);
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
        Posted::Well
    }
}

impl Inflow {
    /// The next message. There is always a next one.
    pub(in super::super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Raw> {
        let mut queue = self.inlet.queue.lock();
        let Some(raw) = queue.waiting.pop_front() else {
            match &mut queue.waker {
                Some(known) if known.will_wake(cx.waker()) => {}
                known => *known = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        if queue.waiting.is_empty() {
            queue.waiting = VecDeque::new();
            queue.overflowed = false;
        }
        Poll::Ready(raw)
    }
}

impl Drop for Inflow {
    fn drop(&mut self) {
        let mut state = self.board.state.lock();
        state.inlets.remove(&self.inlet.sid);
        if state.connected {
            // Bounded although it does not wait for room: each follows one that did.
            state.say(|out| wire::unsubscribe(out, self.inlet.sid));
        }
        drop(state);
        self.board.written.notify_one();
    }
}
