//! A server as a child process: stopped, killed, frozen, thawed. It ends when this is dropped.

use std::process::Child;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::within;

/// The process, while there is one.
#[derive(Default)]
pub(crate) struct ServerProcess(Option<Child>);

impl ServerProcess {
    /// There is one now.
    pub(crate) fn began(&mut self, child: Child) {
        self.0 = Some(child);
    }

    /// Whether the process is there (it may be frozen).
    pub(crate) fn is_running(&self) -> bool {
        self.0.is_some()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        let ended = |child: &mut Child| child.try_wait().unwrap().is_some();
        if self.0.as_mut().is_some_and(ended) {
            self.0 = None;
        }
        self.0.is_none()
    }

    /// Freezes it (SIGSTOP): connections stay, nothing answers. When this returns, all its threads have
    /// stopped. False if it has ended.
    pub(crate) fn pause(&self) -> bool {
        self.signal(Signal::STOP);
        let (_, status) = waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap().unwrap();
        status.stopped()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Sends it a signal that ends it, and waits until it has.
    pub(crate) async fn end(&mut self, signal: Signal) {
        self.signal(signal);
        if let Some(mut child) = self.0.take() {
            within(tokio::task::spawn_blocking(move || child.wait()))
                .await
                .unwrap()
                .unwrap();
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.0.as_ref().expect("the server is not running"))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
