use async_nats::Client;
use serde_json::json;

use super::{NatsServer, free_port, jetstream::api};
use crate::support::until;

/// Several nats-servers with one JetStream.
pub(crate) struct Cluster {
    /// Its members; `servers[i]` is named `n<i>`.
    pub(crate) servers: Vec<NatsServer>,
}

impl Cluster {
    /// Starts `size` servers and waits until they can hold a stream with `size` replicas.
    pub(crate) async fn start(size: usize) -> Self {
        let ports: Vec<_> = (0..size).map(|_| free_port()).collect();
        let routes: Vec<_> = ports
            .iter()
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .collect();
        let mut servers = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let lines = format!(
                "server_name: n{index}\ncluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: {routes:?} }}"
            );
            servers.push(NatsServer::start_with(&lines).await);
        }
        let cluster = Self { servers };
        let client = cluster.client().await;
        let probe =
            json!({ "name": "PROBE", "subjects": ["probe"], "num_replicas": size, "storage": "memory" });
        until("the cluster holds a replicated stream", || async {
            let created = api(&client, "STREAM.CREATE.PROBE", &probe).await?;
            created.get("error").is_none().then_some(())
        })
        .await;
        until("the probe is gone", || async {
            let deleted = api(&client, "STREAM.DELETE.PROBE", &json!({})).await?;
            deleted.get("error").is_none().then_some(())
        })
        .await;
        cluster
    }

    /// Where clients connect.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    /// The member that leads a stream; waits for an election.
    pub(crate) async fn leader_of(&self, stream: &str) -> usize {
        let client = self.client().await;
        until("the stream has a leader", || async {
            let info = api(&client, &format!("STREAM.INFO.{stream}"), &json!({})).await?;
            let leader = info.pointer("/cluster/leader")?.as_str()?;
            leader.strip_prefix('n')?.parse().ok()
        })
        .await
    }

    /// Has the leader of a stream step down, and waits for the next; answers with that.
    pub(crate) async fn step_down(&self, stream: &str) -> usize {
        let client = self.client().await;
        let before = self.leader_of(stream).await;
        let what = format!("STREAM.LEADER.STEPDOWN.{stream}");
        until("the leader steps down", || async {
            let answer = api(&client, &what, &json!({})).await?;
            answer.get("error").is_none().then_some(())
        })
        .await;
        until("another member leads", || async {
            let leader = self.leader_of(stream).await;
            (leader != before).then_some(leader)
        })
        .await
    }

    /// A client of any member that runs.
    pub(crate) async fn client(&self) -> Client {
        let running = self.servers.iter().filter(|server| server.is_running());
        let urls: Vec<async_nats::ServerAddr> = running.map(|server| server.url().parse().unwrap()).collect();
        async_nats::ConnectOptions::new()
            .request_timeout(Some(std::time::Duration::from_secs(2)))
            .ignore_discovered_servers()
            .connect(urls.as_slice())
            .await
            .unwrap()
    }
}
