//! One client connection: a task that owns the socket, the session and the subscriptions, and
//! carries the session's decisions to the hub and back.

mod completed;
mod conduct;

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep, sleep_until, timeout},
};

use crate::{
    channel::{Mailbox, Notice, Wire},
    limits::Conduct,
    protocol::{DisconnectCode, UnsubscribeCode, centrifuge},
    session::{Effect, Generation, Now, Refusal, Session},
    telemetry::AppMetrics,
    users::Place,
};

use super::{
    admission::{Admission, Gone},
    bounds, frames,
    gateway::Gateway,
    handler::Caller,
    orders::{Joins, Order},
    reader,
    websocket::{Decoder, Event, close, encoder},
    writer::{TooSlow, Writer, poll_drained},
};

/// What one read takes at most. Shared by the connections of a thread: an idle one has no buffer. Not
/// a setting: there is one for each thread, whatever the clients do.
const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The client went away.
    Gone,
    /// With this close code: the server's, or a protocol error's.
    Closed(u16, &'static str),
}

/// See the module's documentation.
pub(super) struct Connection {
    stream: Arc<TcpStream>,
    gateway: Arc<Gateway>,
    admission: Admission,
    metrics: Arc<AppMetrics>,
    mailbox: Arc<Mailbox>,
    session: Session,
    decoder: Decoder,
    writer: Writer,
    joins: Joins,
    orders: Option<Box<FuturesUnordered<Order>>>,
    effects: Vec<Effect>,
    conduct: Conduct,
    /// Among the connections of its user.
    place: Option<Place>,
    /// Of the apps, when this one's was looked at.
    generation: u64,
    /// Commands that came before the connect was answered.
    held: Option<Box<str>>,
    opened: bool,
    /// The reason of a close that a backend wants.
    farewell: Option<Box<str>>,
}

impl Connection {
    pub(super) fn new(
        stream: Arc<TcpStream>,
        gateway: Arc<Gateway>,
        admission: Admission,
        mailbox: Arc<Mailbox>,
        session: Session,
    ) -> Self {
        Self {
            stream,
            metrics: gateway.metrics.app(&admission.app().id),
            decoder: Decoder::new(gateway.config.max_message_bytes),
            gateway,
            admission,
            mailbox,
            session,
            writer: Writer::default(),
            joins: Joins::default(),
            orders: None,
            effects: Vec::new(),
            conduct: Conduct::default(),
            place: None,
            // Before the app was found, so that no change since is missed.
            generation: 0,
            held: None,
            opened: false,
            farewell: None,
        }
    }

    /// Serves the connection to its end. `first` is what came behind the handshake.
    pub(super) async fn run(mut self, first: Bytes) {
        let ended = if first.is_empty() {
            None
        } else {
            self.receive(&mut first.to_vec())
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                let timer = pin!(sleep_until(self.next_deadline()));
                self.serve(timer).await
            }
        };
        // Nothing is delivered to it any more, and whoever waits for room is let go.
        self.joins.clear(says_goodbye(ended), &self.metrics);
        self.mailbox.end();
        self.place = None;
        if let Ended::Closed(code, reason) = ended {
            let reason = self.farewell.as_deref().unwrap_or(reason);
            let goodbye = VecDeque::from([encoder::close(code, reason)]);
            if matches!(code, 3008 | 3000) {
                self.writer.discard();
            }
            self.writer.push(goodbye, false);
            let _ = timeout(self.gateway.config.close_timeout, self.say_goodbye()).await;
        }
        self.admission.ended(ended);
    }

    async fn serve(&mut self, mut timer: Pin<&mut Sleep>) -> Ended {
        poll_fn(|cx| self.poll(timer.as_mut(), cx)).await
    }

    fn poll(&mut self, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            if let Some(ended) = self.poll_orders(cx) {
                return Poll::Ready(ended);
            }
            match self.poll_write(cx) {
                Ok(None) => {}
                Ok(Some(ended)) => return Poll::Ready(ended),
                Err(_) => return Poll::Ready(Ended::Gone),
            }
            if timer.as_mut().poll(cx).is_ready() {
                if let Some(ended) = self.tick() {
                    return Poll::Ready(ended);
                }
                timer.as_mut().reset(self.next_deadline());
                continue;
            }
            let deadline = self.next_deadline();
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
                continue;
            }
            match self.poll_read(cx) {
                Poll::Ready(Some(ended)) => return Poll::Ready(ended),
                // What was read may have given something to write, or to wait for.
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn next_deadline(&self) -> Instant {
        let far = self.gateway.started + Duration::from_secs(u64::from(u32::MAX));
        let session = self.session.next_deadline().map_or(far, |ms| {
            (self.gateway.started + Duration::from_millis(ms)).min(far)
        });
        self.writer
            .deadline(&self.gateway.config)
            .map_or(session, |writer| writer.min(session))
    }

    fn tick(&mut self) -> Option<Ended> {
        let now = self.gateway.now();
        if self.writer.look(&self.stream) {
            self.session.on_send_progress(now);
        }
        match self.writer.check(&self.gateway.config) {
            Some(TooSlow::Stalled) => return Some(ended(DisconnectCode::WriteError)),
            Some(TooSlow::Trickling) => return Some(ended(DisconnectCode::Slow)),
            None => {}
        }
        self.session.on_tick(now, &mut self.effects);
        self.carry_out()
    }

    // === reading ===

    /// Whether commands are done now. Of a connection that is about to be closed none are, however long its
    /// client takes to read what is in front of the end.
    fn listens(&self) -> bool {
        self.session.accepts_commands() && !self.mailbox.closing()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Ended>> {
        if !self.listens() {
            // What the client has pipelined stays in the socket.
            return Poll::Pending;
        }
        match self.stream.poll_read_ready(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(_)) => return Poll::Ready(Some(Ended::Gone)),
            Poll::Ready(Ok(())) => {}
        }
        SCRATCH.with_borrow_mut(|scratch| match reader::read(&self.stream, scratch) {
            Ok(None) => Poll::Ready(None),
            Ok(Some(0)) | Err(_) => Poll::Ready(Some(Ended::Gone)),
            Ok(Some(len)) => Poll::Ready(self.receive(&mut scratch[..len])),
        })
    }

    /// What the socket gave.
    fn receive(&mut self, mut input: &mut [u8]) -> Option<Ended> {
        // The decoder lends what it decodes, so it is taken out for that time.
        let mut decoder = std::mem::replace(&mut self.decoder, Decoder::new(0));
        let ended = loop {
            let ended = match decoder.next(&mut input) {
                Ok(Some(event)) => self.on_event(event),
                Ok(None) => break None,
                Err(error) => Some(Ended::Closed(error.close_code(), "protocol error")),
            };
            if ended.is_some() {
                break ended;
            }
        };
        self.decoder = decoder;
        ended
    }

    fn on_event(&mut self, event: Event<'_>) -> Option<Ended> {
        match event {
            Event::Text(text) => self.on_text(text),
            Event::Binary(_) => Some(ended(DisconnectCode::InappropriateProtocol)),
            Event::Ping(payload) => {
                if !self.is_flooded(payload.len()) {
                    self.mailbox.send(encoder::pong(payload));
                }
                self.carry_out()
            }
            Event::Pong(_) => None,
            Event::Close { code, .. } => Some(Ended::Closed(code.unwrap_or(close::NORMAL), "")),
        }
    }

    fn on_text(&mut self, text: &str) -> Option<Ended> {
        if let Some(held) = &self.held {
            // Bounded: nothing more is read from the socket than one read brought.
            self.held = Some([held, "\n", text].concat().into());
            return None;
        }
        let mut commands = centrifuge::decode(text);
        loop {
            if !self.listens() {
                self.held = commands.rest().map(Box::from);
                return None;
            }
            if let Some(ended) = self.renew_app() {
                return Some(ended);
            }
            let now = self.gateway.now();
            let before = commands.rest().map_or(0, str::len);
            let command = commands.next();
            let bytes = before - commands.rest().map_or(0, str::len);
            match command {
                Some(Ok(command)) if self.is_too_much(&command, bytes, now) => {
                    if let Some(ended) = self.carry_out() {
                        return Some(ended);
                    }
                    continue;
                }
                Some(Ok(command)) => self.session.on_command(command, now, &mut self.effects),
                Some(Err(_)) => self.session.close(DisconnectCode::BadRequest, &mut self.effects),
                None => return None,
            }
            if self.place.is_none() && self.session.is_connected() {
                // Without a token.
                let _ = self.enter("", None);
            }
            bounds::count_command(&self.effects, &self.metrics);
            if let Some(ended) = self.carry_out() {
                return Some(ended);
            }
        }
    }

    // === writing ===

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<Option<Ended>> {
        loop {
            if self.writer.is_empty() {
                let taken = self.mailbox.take(cx.waker());
                let nothing = taken.frames.is_empty() && taken.notices.is_empty();
                self.writer.push(taken.frames, taken.begun);
                for notice in taken.notices {
                    let out = &mut self.effects;
                    match notice {
                        Notice::Insufficient { channel, tag } => {
                            let code = UnsubscribeCode::InsufficientState;
                            self.session
                                .on_unsubscribed_by_server(&channel, Generation(tag), code, out);
                        }
                        Notice::Order(order) => {
                            if let Some(ended) = self.renew_app() {
                                return Ok(Some(ended));
                            }
                            let (now, out) = (self.gateway.now(), &mut self.effects);
                            self.session.on_order(order, now, out);
                        }
                    }
                    if let Some(ended) = self.carry_out().or_else(|| self.poll_orders(cx)) {
                        return Ok(Some(ended));
                    }
                }
                if let Some(code) = taken.close {
                    bounds::count_close(code, &self.metrics);
                    return Ok(Some(ended(code)));
                }
                if nothing {
                    return Ok(None);
                }
            }
            let written = self.writer.write(&self.stream, cx)?;
            if written > 0 {
                self.mailbox.written(written);
            }
            if !self.writer.is_empty() {
                return Ok(None);
            }
        }
    }

    async fn say_goodbye(&mut self) {
        let flushed = poll_fn(|cx| match self.writer.write(&self.stream, cx) {
            Ok(_) if self.writer.is_empty() => Poll::Ready(true),
            Ok(_) => Poll::Pending,
            Err(_) => Poll::Ready(false),
        });
        if flushed.await && shut_down(&self.stream) {
            poll_fn(|cx| poll_drained(&self.stream, cx)).await;
        }
    }

    // === effects ===

    /// Carries out what the session has decided.
    fn carry_out(&mut self) -> Option<Ended> {
        if self.effects.is_empty() {
            return None;
        }
        let mut closed = None;
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Send(reply) => self.send(frames::reply(&reply)),
                Effect::Ping => {
                    self.mailbox.writes(frames::PING.len());
                    self.writer.push_first(frames::PING);
                }
                Effect::Close(code) => {
                    bounds::count_close(code, &self.metrics);
                    closed = Some(ended(code));
                    self.flush_mailbox();
                    break;
                }
                Effect::CloseWith { code, reason } => {
                    self.farewell = Some(reason);
                    closed = Some(Ended::Closed(code, ""));
                    self.flush_mailbox();
                    break;
                }
                Effect::Unsubscribe {
                    channel: _,
                    generation,
                    unanswered,
                } => {
                    if self.joins.leave(generation, &self.metrics)
                        && let Some((id, code)) = unanswered
                    {
                        self.send(frames::reply(&crate::protocol::Reply::Error { id, code }));
                    }
                }
                Effect::Update {
                    id,
                    generation,
                    state,
                } => {
                    let result = self.joins.update(generation, state);
                    let result = result.map(|()| Bytes::from_static(b"{}")).map_err(Refusal::Code);
                    let mut told = Vec::new();
                    self.session.on_rpc(id, result, &mut told);
                    for effect in told {
                        if let Effect::Send(reply) = effect {
                            self.send(frames::reply(&reply));
                        }
                    }
                }
                Effect::Show { generation, info } => self.joins.show(generation, info.as_ref()),
                Effect::Rpc { id, method, data } => {
                    let order = super::orders::call(&self.gateway, self.caller(), id, method, data);
                    self.orders.get_or_insert_default().push(order);
                }
                Effect::Message(data) => {
                    let order = super::orders::tell(&self.gateway, self.caller(), data);
                    self.orders.get_or_insert_default().push(order);
                }
                order => {
                    if let Effect::VerifyConnect { token } = &order
                        && let Err(code) = self.adopt(token.as_str())
                    {
                        closed = Some(ended(code));
                        break;
                    }
                    let order = self.order(order);
                    self.orders.get_or_insert_default().push(order);
                }
            }
        }
        closed
    }

    fn caller(&self) -> Caller {
        Caller {
            app: self.admission.app().id.clone(),
            user: self.session.user().to_owned(),
            client: self.session.client().to_owned(),
        }
    }

    fn order(&mut self, effect: Effect) -> Order {
        let app = self.admission.app();
        super::orders::order(effect, &self.gateway, app, &self.mailbox, &mut self.joins)
    }

    /// Once any app has changed, the connection goes on with its own as that is now. What it is subscribed
    /// to stays.
    fn renew_app(&mut self) -> Option<Ended> {
        let generation = self.gateway.apps.generation();
        if generation == self.generation {
            return None;
        }
        self.generation = generation;
        match self.admission.renew() {
            Ok(true) => self.session.renew_app(self.admission.app().view.clone()),
            Ok(false) => {}
            Err(Gone) => return Some(ended(DisconnectCode::ForceDisconnect)),
        }
        None
    }

    /// Before the token of the connect is verified: with whose keys?
    fn adopt(&mut self, token: &str) -> Result<(), DisconnectCode> {
        if self.admission.adopt(token)? {
            let app = self.admission.app();
            self.metrics = self.gateway.metrics.app(&app.id);
            self.session.adopt(app.view.clone());
        }
        Ok(())
    }

    /// The first reply lets the mailbox go; what was queued meanwhile follows it.
    fn send(&mut self, frame: Bytes) {
        if self.opened {
            self.mailbox.send(frame);
        } else {
            self.opened = true;
            self.admission.settle();
            self.mailbox.open(frame);
        }
    }

    /// What is queued goes out before the close frame.
    fn flush_mailbox(&mut self) {
        let taken = self.mailbox.take(std::task::Waker::noop());
        self.writer.push(taken.frames, taken.begun);
    }

    fn poll_orders(&mut self, cx: &mut Context<'_>) -> Option<Ended> {
        while let Some(orders) = &mut self.orders {
            match orders.poll_next_unpin(cx) {
                Poll::Pending => return None,
                Poll::Ready(None) => self.orders = None,
                Poll::Ready(Some(completion)) => {
                    self.complete(completion);
                    if let Some(ended) = self.renew_app() {
                        return Some(ended);
                    }
                    if let Some(ended) = self.carry_out().or_else(|| self.go_on()) {
                        return Some(ended);
                    }
                }
            }
        }
        None
    }

    /// Once the connect has been answered: what the client has sent meanwhile.
    fn go_on(&mut self) -> Option<Ended> {
        if !self.session.accepts_commands() {
            return None;
        }
        let held = self.held.take()?;
        self.on_text(&held)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Also if the task is ended from outside.
        self.joins.clear(false, &self.metrics);
        self.mailbox.end();
    }
}

impl Wire for TcpStream {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        Self::try_write(self, bytes)
    }
}

/// The session's clock.
impl Gateway {
    pub(super) fn now(&self) -> Now {
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Now {
            mono_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            unix_s: unix.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX)),
        }
    }
}

/// Whether the connection's user has gone, as far as can be known, and does not just come back in another
/// way: the client closed it, or was told not to come again.
fn says_goodbye(ended: Ended) -> bool {
    const COME_BACK: [DisconnectCode; 7] = [
        DisconnectCode::Shutdown,
        DisconnectCode::Internal,
        DisconnectCode::Slow,
        DisconnectCode::WriteError,
        DisconnectCode::InsufficientState,
        DisconnectCode::ForceReconnect,
        DisconnectCode::NoPong,
    ];
    match ended {
        Ended::Gone => false,
        Ended::Closed(code, _) => COME_BACK.iter().all(|come_back| come_back.code() != code),
    }
}

fn ended(code: DisconnectCode) -> Ended {
    Ended::Closed(code.code(), code.message())
}

fn shut_down(stream: &TcpStream) -> bool {
    socket2::SockRef::from(stream)
        .shutdown(std::net::Shutdown::Write)
        .is_ok()
}
