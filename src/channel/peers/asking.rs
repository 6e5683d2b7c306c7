//! Questions to other nodes, sent together (L8): after a rolling restart the clients of many quiet
//! channels come at once, and one message asks for all of them. Each node answers each question that
//! it has something to say to by itself, so that no answer is larger than a page.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::sleep,
};

use super::{Answer, Question, VOUCH};
use crate::{channel::hub::Hub, log::NodeMessage, model::Offset};

/// How long a question waits for others.
const GATHER: Duration = Duration::from_millis(5);
/// Questions in one message: at most some 50 KiB, far less than NATS takes.
const BATCH: usize = 128;

/// Questions that wait to be sent. As many as there are joins and gaps that ask.
#[derive(Default)]
pub(in crate::channel) struct Asking {
    waiting: Mutex<Vec<Asked>>,
    wake: Notify,
}

struct Asked {
    question: Question,
    /// Answers that cover less do not count.
    at_least: Offset,
    answer: oneshot::Sender<Answer>,
}

impl Asking {
    /// The first answer that counts; `None` if there is none in time.
    pub(super) async fn ask(&self, question: Question, at_least: Offset) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().push(Asked {
            question,
            at_least,
            answer,
        });
        self.wake.notify_one();
        answered.await.ok()
    }

    fn take(&self) -> Vec<Asked> {
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(BATCH);
        waiting.drain(..count).collect()
    }
}

/// Sends what has gathered, until the node stops.
pub(super) async fn run(hub: Arc<Hub>) {
    loop {
        hub.asking.wake.notified().await;
        sleep(GATHER).await;
        loop {
            let batch = hub.asking.take();
            if batch.is_empty() {
                break;
            }
            let hub = hub.clone();
            hub.tasks.clone().spawn(async move { send(&hub, batch).await });
        }
    }
}

/// Asks a batch and hands out the answers as they come. Who gets none learns it when this ends.
async fn send(hub: &Hub, batch: Vec<Asked>) {
    let batch: Vec<_> = batch
        .into_iter()
        .filter(|asked| !asked.answer.is_closed())
        .collect();
    let questions: Vec<_> = batch.iter().map(|asked| &asked.question).collect();
    let Ok(data) = serde_json::to_vec(&questions) else {
        return;
    };
    let open: HashMap<_, _> = (0_u32..).zip(batch).collect();
    let state = Mutex::new((0, open));
    let enough = |answers: &[NodeMessage]| {
        let (read, open) = &mut *state.lock();
        for answer in &answers[*read..] {
            // What cannot be understood is ignored.
            if let Ok(answer) = serde_json::from_slice::<Answer>(&answer.data)
                && let Some(asked) = open.get(&answer.question)
                && answer.covered_to >= asked.at_least
                && let Some(asked) = open.remove(&answer.question)
            {
                // Who has given up needs no answer.
                let _ = asked.answer.send(answer);
            }
        }
        *read = answers.len();
        open.is_empty()
    };
    hub.log
        .ask(VOUCH, data.into(), hub.config.peer_wait, &enough)
        .await;
}
