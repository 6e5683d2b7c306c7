use std::{future::Future, io, process};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use crate::task::Tasks;

/// The exit code of a process that was told twice: 128 + SIGINT, as shells have it.
const TOLD_TWICE: i32 = 130;

/// A future that resolves at the first SIGINT or SIGTERM. The second one ends the process at once,
/// whatever it is doing then.
pub(super) fn first(tasks: &Tasks) -> io::Result<impl Future<Output = ()> + use<>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (told, heard) = oneshot::channel();
    tasks.spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        tracing::info!("stopping; a second signal ends the process at once");
        let _ = told.send(());
        either(&mut interrupt, &mut terminate).await;
        process::exit(TOLD_TWICE);
    });
    Ok(async {
        let _ = heard.await;
    })
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
